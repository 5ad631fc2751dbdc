/* Products with one to FEW rows, C[m, n] = A[m] . B[:, n] + bias, which read B once, where it lies. Included by gemm.h.
 *
 * What such a product costs is reading B: packing it, as the tile kernel does, would read it twice. Where B's columns
 * are contiguous (a linear layer's weight) each result is a dot product, otherwise rows of B are added up.
 * The bias of (m, n) is bias[m * bias_row + n * bias_column].
 */
#define FEW 4 /* gemm.pyx: FEW_ROWS */

#if NNX_SHUFFLES
/* Of 2 `pairs` vectors that hold blocks of `width` numbers, `pairs` that hold twice as many blocks, each the sum of the
 * halves of one before: first those of vector 2 i, then those of 2 i + 1. */
INLINE void NAME(fold_pairs)(NAME(vec) *v, const int pairs, const int width)
{
    NAME(mask) first, second;
    UNROLL(16)
    for (int j = 0; j < VLEN; j++) {
        const int k = j % (VLEN / 2), half = width / 2;
        first[j] = j / (VLEN / 2) * VLEN + k / half * width + k % half;
        second[j] = first[j] + half;
    }
    UNROLL(8)
    for (int i = 0; i < pairs; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], first) + __builtin_shuffle(v[2 * i], v[2 * i + 1], second);
}

INLINE void NAME(fold_blocks)(NAME(vec) *v, const int width)
{
    NAME(mask) other;
    UNROLL(16)
    for (int j = 0; j < VLEN; j++)
        other[j] = j ^ (width / 2);
    *v += __builtin_shuffle(*v, other);
}
#endif

/* The sums of the numbers of each of `count` vectors, a power of two; v is overwritten. */
INLINE void NAME(sum_lanes)(NAME(vec) *v, const int count, REAL *RESTRICT total)
{
#if NNX_SHUFFLES
    const int group = count < VLEN ? count : VLEN, width = VLEN / group;
    UNROLL(8)
    for (int i = 0; i < count; i += group) {
        REAL lanes[VLEN];
        if (group >= 16)
            NAME(fold_pairs)(v + i, 8, width * 16);
        if (group >= 8)
            NAME(fold_pairs)(v + i, 4, width * 8);
        if (group >= 4)
            NAME(fold_pairs)(v + i, 2, width * 4);
        if (group >= 2)
            NAME(fold_pairs)(v + i, 1, width * 2);
        if (width >= 16)
            NAME(fold_blocks)(v + i, 16);
        if (width >= 8)
            NAME(fold_blocks)(v + i, 8);
        if (width >= 4)
            NAME(fold_blocks)(v + i, 4);
        if (width >= 2)
            NAME(fold_blocks)(v + i, 2);
        STORE(lanes, v[i]);
        UNROLL(16)
        for (int j = 0; j < group; j++)
            total[i + j] = lanes[j * width];
    }
#else
    for (int i = 0; i < count; i++) {
        REAL lanes[VLEN];
        STORE(lanes, v[i]);
        total[i] = 0;
        for (int j = 0; j < VLEN; j++)
            total[i] += lanes[j];
    }
#endif
}

/* total[i * columns + j] = A[i] . W[j] for `rows` rows A + i * lda and `columns` columns W + j * ldw of K contiguous numbers. */
INLINE void NAME(dots_tile)(const int rows, const int columns, ptrdiff_t K, const REAL *A, ptrdiff_t lda, const REAL *W,
                            ptrdiff_t ldw, REAL *RESTRICT total)
{
    NAME(vec) sum[FEW * FEW] = {{0}}, w[FEW];
    ptrdiff_t k = 0;
    for (; k + VLEN <= K; k += VLEN) {
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            w[j] = LOAD(W + j * ldw + k);
        UNROLL(4)
        for (int i = 0; i < rows; i++) {
            const NAME(vec) a = LOAD(A + i * lda + k);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                sum[i * columns + j] = NAME(multiply_add)(a, w[j], sum[i * columns + j]);
        }
    }
    if (k < K) {
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            w[j] = NAME(load_part)(W + j * ldw + k, K - k);
        UNROLL(4)
        for (int i = 0; i < rows; i++) {
            const NAME(vec) a = NAME(load_part)(A + i * lda + k, K - k);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                sum[i * columns + j] = NAME(multiply_add)(a, w[j], sum[i * columns + j]);
        }
    }
    NAME(sum_lanes)(sum, rows * columns > 8 ? 16 : rows * columns > 4 ? 8 : rows * columns > 2 ? 4 : rows * columns, total);
}

#define DOTS_CASE(rows, columns) \
    case (rows) * FEW + (columns) - 1: \
        NAME(dots_tile)(rows, columns, K, A, lda, W + n * ldw, ldw, total); \
        break;

/* `rows` <= FEW rows A + m * lda and N columns W + n * ldw, each of K contiguous numbers. */
static void NAME(few_dots)(int rows, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t lda, const REAL *W, ptrdiff_t ldw,
                           const REAL *bias, ptrdiff_t bias_row, ptrdiff_t bias_column, REAL *C, ptrdiff_t rsc, ptrdiff_t csc)
{
#if defined(__AVX512F__) || defined(__aarch64__)
    const int most = FEW; /* columns at a time: 16 sums in 32 registers */
#else
    const int most = rows > 2 ? FEW / 2 : FEW; /* 8 sums in 16 registers */
#endif
    for (ptrdiff_t n = 0; n < N; n += most) {
        const int columns = (int)(N - n < most ? N - n : most);
        REAL total[FEW * FEW];
        switch (rows * FEW + columns - 1) {
            DOTS_CASE(1, 1) DOTS_CASE(1, 2) DOTS_CASE(1, 3) DOTS_CASE(1, 4)
            DOTS_CASE(2, 1) DOTS_CASE(2, 2) DOTS_CASE(2, 3) DOTS_CASE(2, 4)
            DOTS_CASE(3, 1) DOTS_CASE(3, 2) DOTS_CASE(3, 3) DOTS_CASE(3, 4)
            DOTS_CASE(4, 1) DOTS_CASE(4, 2) DOTS_CASE(4, 3) DOTS_CASE(4, 4)
        }
        for (int m = 0; m < rows; m++)
            for (int j = 0; j < columns; j++)
                C[m * rsc + (n + j) * csc] =
                    total[m * columns + j] + (bias ? bias[m * bias_row + (n + j) * bias_column] : 0);
    }
}
#undef DOTS_CASE

/* C[m, n..] += A[m, k..] B[k.., n..] for `rows` rows and `depth` values of k, each row of B read once. */
INLINE void NAME(sums_tile)(const int rows, const int depth, ptrdiff_t N, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa,
                            const REAL *B, ptrdiff_t ldb, REAL *C, ptrdiff_t rsc)
{
    ptrdiff_t n = 0;
    for (; n + VLEN <= N; n += VLEN) {
        NAME(vec) b[FEW];
        UNROLL(4)
        for (int k = 0; k < depth; k++)
            b[k] = LOAD(B + k * ldb + n);
        UNROLL(4)
        for (int m = 0; m < rows; m++) {
            NAME(vec) sum = LOAD(C + m * rsc + n);
            UNROLL(4)
            for (int k = 0; k < depth; k++)
                sum += A[m * rsa + k * csa] * b[k];
            STORE(C + m * rsc + n, sum);
        }
    }
}

/* The same for N < VLEN columns, which stay in registers. */
INLINE void NAME(sums_tail)(const int rows, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa,
                            const REAL *B, ptrdiff_t ldb, REAL *C, ptrdiff_t rsc)
{
    NAME(vec) sum[FEW];
    UNROLL(4)
    for (int m = 0; m < rows; m++)
        sum[m] = NAME(load_part)(C + m * rsc, N);
    for (ptrdiff_t k = 0; k < K; k++) {
        const NAME(vec) b = NAME(load_part)(B + k * ldb, N);
        UNROLL(4)
        for (int m = 0; m < rows; m++)
            sum[m] += A[m * rsa + k * csa] * b;
    }
    UNROLL(4)
    for (int m = 0; m < rows; m++)
        NAME(store_part)(C + m * rsc, sum[m], N);
}

#define SUMS_CASE(rows) \
    case rows: \
        for (; k + FEW <= K; k += FEW) \
            NAME(sums_tile)(rows, FEW, body, A + k * csa, rsa, csa, B + k * ldb, ldb, C, rsc); \
        for (; k < K; k++) \
            NAME(sums_tile)(rows, 1, body, A + k * csa, rsa, csa, B + k * ldb, ldb, C, rsc); \
        if (body < N) \
            NAME(sums_tail)(rows, N - body, K, A, rsa, csa, B + body, ldb, C + body, rsc); \
        break;

/* `rows` <= FEW rows of A, whose element (m, k) is A[m * rsa + k * csa], and K rows B + k * ldb of N contiguous numbers;
 * rows C + m * rsc are contiguous as well. */
static void NAME(few_sums)(int rows, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa, const REAL *B,
                           ptrdiff_t ldb, const REAL *bias, ptrdiff_t bias_row, ptrdiff_t bias_column, REAL *C, ptrdiff_t rsc)
{
    const ptrdiff_t body = N - N % VLEN;
    ptrdiff_t k = 0;
    for (int m = 0; m < rows; m++)
        for (ptrdiff_t n = 0; n < N; n++)
            C[m * rsc + n] = bias ? bias[m * bias_row + n * bias_column] : 0;
    switch (rows) {
        SUMS_CASE(1)
        SUMS_CASE(2)
        SUMS_CASE(3)
        SUMS_CASE(4)
    }
}
#undef SUMS_CASE
#undef FEW
