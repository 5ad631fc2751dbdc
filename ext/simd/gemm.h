/* Matrix products of one tile, on one thread: C = A B (+ C, or + bias). ext/gemm.pyx and ext/conv.pyx cut the tiles.
 *
 * B is packed into panels of PANEL columns: panel p holds rows 0..K-1 of columns p * PANEL ..., row after row, padded
 * with zeros, so that the inner loop reads whole vectors. A is read in place, one number at a time, in either order.
 * The micro-kernel keeps ROWS x PANEL sums in registers. Which product runs here and which in BLAS: benchmarks/NOTES.md.
 */
#include "prefetch.h"
#include "vector.h"

#define PANEL (2 * VLEN)
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 12 /* 24 sums in 32 registers */
#else
#define ROWS 6 /* 12 sums in 16 registers */
#endif
#define SIDE_BY_SIDE 4 /* panels that are packed at once where B's rows are contiguous */
#define AHEAD 8 /* rows that are asked for before they are packed */
#define DEPTH 464 /* rows of B per pass, at most: one panel and the rows of A beside it stay in the first-level cache's reach */

static ptrdiff_t NAME(gemm_panel)(void)
{
    return PANEL;
}

/* out[ROWS x PANEL] = init + A[rows x depth] B[depth x PANEL], or with `relu` its positive part; constants where it is
 * inlined: `rows`, `vectors` (1 computes the first half of the panel only) and `by_columns`. A's element (i, k) is
 * A[i * lda + k], or with by_columns A[k * lda + i]. */
INLINE void NAME(micro)(const int rows, const int vectors, const int by_columns, ptrdiff_t depth, const REAL *A,
                               ptrdiff_t lda, const REAL *B, const REAL *init, ptrdiff_t ldi, int relu, REAL *out, ptrdiff_t ldo)
{
    NAME(vec) sum[ROWS][2];
    UNROLL(12)
    for (int i = 0; i < rows; i++) {
        sum[i][0] = LOAD(init + i * ldi);
        if (vectors == 2)
            sum[i][1] = LOAD(init + i * ldi + VLEN);
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        NAME(vec) b0 = LOAD(B + k * PANEL), b1 = LOAD(B + k * PANEL + VLEN);
        UNROLL(12)
        for (int i = 0; i < rows; i++) {
            REAL a = by_columns ? A[k * lda + i] : A[i * lda + k];
            sum[i][0] += a * b0;
            if (vectors == 2)
                sum[i][1] += a * b1;
        }
    }
    if (relu) {
        UNROLL(12)
        for (int i = 0; i < rows; i++) {
            sum[i][0] = NAME(positive)(sum[i][0]);
            if (vectors == 2)
                sum[i][1] = NAME(positive)(sum[i][1]);
        }
    }
    UNROLL(12)
    for (int i = 0; i < rows; i++) {
        STORE(out + i * ldo, sum[i][0]);
        if (vectors == 2)
            STORE(out + i * ldo + VLEN, sum[i][1]);
    }
}

#define MICRO_CASE(n) \
    case n: \
        NAME(micro)(n, vectors, by_columns, depth, A, lda, B, init, ldi, relu, out, ldo); \
        break;

#define MICRO_ARGUMENTS \
    ptrdiff_t depth, const REAL *A, ptrdiff_t lda, const REAL *B, const REAL *init, ptrdiff_t ldi, int relu, REAL *out, \
        ptrdiff_t ldo

/* The number of rows becomes a constant here, the two flags in the four functions below. */
INLINE void NAME(micro_rows)(int rows, const int vectors, const int by_columns, MICRO_ARGUMENTS)
{
    switch (rows) {
        MICRO_CASE(1)
        MICRO_CASE(2)
        MICRO_CASE(3)
        MICRO_CASE(4)
        MICRO_CASE(5)
        MICRO_CASE(6)
#if ROWS == 12
        MICRO_CASE(7)
        MICRO_CASE(8)
        MICRO_CASE(9)
        MICRO_CASE(10)
        MICRO_CASE(11)
        MICRO_CASE(12)
#endif
    }
}

typedef void (*NAME(micro_function))(int rows, MICRO_ARGUMENTS);

#define MICRO_VARIANT(name, vectors, by_columns) \
    static void NAME(name)(int rows, MICRO_ARGUMENTS) \
    { \
        NAME(micro_rows)(rows, vectors, by_columns, depth, A, lda, B, init, ldi, relu, out, ldo); \
    }
MICRO_VARIANT(micro_narrow_by_rows, 1, 0)
MICRO_VARIANT(micro_narrow_by_columns, 1, 1)
MICRO_VARIANT(micro_by_rows, 2, 0)
MICRO_VARIANT(micro_by_columns, 2, 1)

#if NNX_SHUFFLES
/* Transpose a square of VLEN x VLEN: stage s swaps the blocks of size s beside the diagonal of every block of size 2 s. */
INLINE void NAME(transpose_stage)(NAME(vec) *v, const int s)
{
    NAME(mask) low, high;
    UNROLL(16)
    for (int j = 0; j < VLEN; j++) {
        low[j] = j & s ? VLEN + j - s : j;
        high[j] = j & s ? VLEN + j : j + s;
    }
    UNROLL(16)
    for (int i = 0; i < VLEN; i++)
        if (!(i & s)) {
            NAME(vec) a = v[i], b = v[i + s];
            v[i] = __builtin_shuffle(a, b, low);
            v[i + s] = __builtin_shuffle(a, b, high);
        }
}

/* The rows of a square become its columns. */
INLINE void NAME(transpose_vectors)(NAME(vec) *v)
{
    NAME(transpose_stage)(v, 1);
#if VLEN >= 4
    NAME(transpose_stage)(v, 2);
#endif
#if VLEN >= 8
    NAME(transpose_stage)(v, 4);
#endif
#if VLEN >= 16
    NAME(transpose_stage)(v, 8);
#endif
}

/* to[k * step + j] = from[k + j * ld] for VLEN values of k and the first `lanes` of VLEN values of j, which are all read */
INLINE void NAME(transpose_lanes)(const REAL *from, ptrdiff_t ld, REAL *to, ptrdiff_t step, const int lanes)
{
    NAME(vec) v[VLEN];
    UNROLL(16)
    for (int j = 0; j < VLEN; j++)
        v[j] = LOAD(from + j * ld);
    NAME(transpose_vectors)(v);
    UNROLL(16)
    for (int k = 0; k < VLEN; k++)
        if (lanes == VLEN)
            STORE(to + k * step, v[k]);
        else
            NAME(store_part)(to + k * step, v[k], lanes);
}

static void NAME(transpose_square)(const REAL *from, ptrdiff_t ld, REAL *to, ptrdiff_t step)
{
    NAME(transpose_lanes)(from, ld, to, step, VLEN);
}

/* the same for the first `rows` < VLEN values of k: no others are read or written */
static void NAME(transpose_rows)(ptrdiff_t rows, const REAL *from, ptrdiff_t ld, REAL *to, ptrdiff_t step)
{
    NAME(vec) v[VLEN];
    UNROLL(16)
    for (int j = 0; j < VLEN; j++)
        v[j] = NAME(load_part)(from + j * ld, rows);
    NAME(transpose_vectors)(v);
    UNROLL(16)
    for (int k = 0; k < VLEN; k++)
        if (k < rows)
            STORE(to + k * step, v[k]);
}
#endif

/* packed[panel][k][PANEL] = B[k, panel * PANEL + j], zero beyond column N. B's element (k, j) is B[k * rsb + j * csb]. */
static void NAME(pack)(ptrdiff_t K, ptrdiff_t N, const REAL *B, ptrdiff_t rsb, ptrdiff_t csb, REAL *RESTRICT packed)
{
    for (ptrdiff_t n = 0; n < N; n += PANEL) {
        ptrdiff_t width = N - n < PANEL ? N - n : PANEL, k = 0;
        const REAL *b = B + n * csb;
        if (csb == 1 && width == PANEL) {
            /* long runs of each row, which memory gives faster than short ones of one panel after another */
            const ptrdiff_t side = N - n < SIDE_BY_SIDE * PANEL ? (N - n) / PANEL : SIDE_BY_SIDE;
            for (; k < K; k++) {
                if (k + AHEAD < K)
                    nnx_prefetch(b + (k + AHEAD) * rsb, side * PANEL * sizeof(REAL));
                for (ptrdiff_t p = 0; p < side; p++)
                    memcpy(packed + (p * K + k) * PANEL, b + k * rsb + p * PANEL, PANEL * sizeof(REAL));
            }
            packed += (side - 1) * K * PANEL;
            n += (side - 1) * PANEL;
        }
#if NNX_SHUFFLES
        else if (width == PANEL && rsb == 1)
            for (; k + VLEN <= K; k += VLEN) {
                NAME(transpose_square)(b + k, csb, packed + k * PANEL, PANEL);
                NAME(transpose_square)(b + k + VLEN * csb, csb, packed + k * PANEL + VLEN, PANEL);
            }
#endif
        for (; k < K; k++)
            for (ptrdiff_t j = 0; j < PANEL; j++)
                packed[k * PANEL + j] = j < width ? b[k * rsb + j * csb] : 0;
        packed += K * PANEL;
    }
}

/* The first `width` numbers of a row of C, neither VLEN nor PANEL of them, into a tile and back. A loop costs more than that. */
INLINE void NAME(tile_from_row)(const REAL *c, REAL *tile, int width)
{
    if (width > VLEN)
        STORE(tile, LOAD(c));
    STORE(tile + (width > VLEN) * VLEN, NAME(load_part)(c + (width > VLEN) * VLEN, width % VLEN));
}

INLINE void NAME(row_from_tile)(const REAL *tile, REAL *c, int width)
{
    if (width > VLEN)
        STORE(c, LOAD(tile));
    NAME(store_part)(c + (width > VLEN) * VLEN, LOAD(tile + (width > VLEN) * VLEN), width % VLEN);
}

/* gemm() for a C of contiguous rows, `ldc` apart */
static void NAME(gemm_along)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa,
                             const REAL *packed, ptrdiff_t panel_rows, REAL *C, ptrdiff_t ldc, int accumulate,
                             const REAL *column_bias, const REAL *row_bias, int relu)
{
    REAL tile[ROWS * PANEL], strip[ROWS * DEPTH];
    const ptrdiff_t passes = K > 0 ? (K + DEPTH - 1) / DEPTH : 1, part = (K + passes - 1) / passes;
    ptrdiff_t k = 0;
    do {
        ptrdiff_t depth = K - k < part ? K - k : part;
        int from_c = accumulate || k > 0;
        for (ptrdiff_t m = 0; m < M; m += ROWS) {
            int rows = (int)(M - m < ROWS ? M - m : ROWS);
            int by_columns = csa != 1;
            const REAL *a = A + m * rsa + k * csa;
            ptrdiff_t lda = by_columns ? csa : rsa;
            /* columns far apart touch a cache line per number row, and rows a power of two apart share their cache sets */
            if (by_columns && lda > 2 * ROWS && (N > 2 * PANEL || lda > 4 * PANEL)) {
                for (ptrdiff_t d = 0; d < depth; d++)
                    if (rows == ROWS)
                        memcpy(strip + d * ROWS, a + d * lda, ROWS * sizeof(REAL));
                    else
                        memcpy(strip + d * ROWS, a + d * lda, rows * sizeof(REAL));
                a = strip;
                lda = ROWS;
            } else if (!by_columns && lda * sizeof(REAL) % 2048 == 0 && N > 2 * PANEL) {
                for (int i = 0; i < rows; i++)
                    memcpy(strip + i * DEPTH, a + i * lda, depth * sizeof(REAL));
                a = strip;
                lda = DEPTH;
            }
            for (ptrdiff_t n = 0; n < N; n += PANEL) {
                int width = (int)(N - n < PANEL ? N - n : PANEL);
                const REAL *panel = packed + n * panel_rows + k * PANEL, *init;
                REAL *c = C + m * ldc + n, *out = c;
                REAL bias[PANEL] = {0};
                ptrdiff_t ldi = 0, ldo = ldc;
                const int direct = width == PANEL || width == VLEN;
                if (!direct) {
                    out = tile;
                    ldo = PANEL;
                }
                if (from_c && direct) {
                    init = c;
                    ldi = ldc;
                } else if (from_c) {
                    for (int i = 0; i < rows; i++)
                        NAME(tile_from_row)(c + i * ldc, tile + i * PANEL, width);
                    init = tile;
                    ldi = PANEL;
                } else if (row_bias) {
                    for (int i = 0; i < rows; i++) {
                        const REAL b = row_bias[m + i];
                        for (int j = 0; j < PANEL; j++)
                            tile[i * PANEL + j] = b;
                    }
                    init = tile;
                    ldi = PANEL;
                } else {
                    if (column_bias)
                        memcpy(bias, column_bias + n, width * sizeof(REAL));
                    init = bias;
                }
                const NAME(micro_function) micro = width > VLEN ? by_columns ? NAME(micro_by_columns) : NAME(micro_by_rows)
                                                   : by_columns ? NAME(micro_narrow_by_columns)
                                                                : NAME(micro_narrow_by_rows);
                micro(rows, depth, a, lda, panel, init, ldi, relu && k + depth == K, out, ldo);
                if (!direct)
                    for (int i = 0; i < rows; i++)
                        NAME(row_from_tile)(tile + i * PANEL, c + i * ldc, width);
            }
        }
        k += depth;
    } while (k < K);
}

#define ACROSS 128 /* columns whose sums wait to be written the other way round: 8 KB of them stay in the first cache */
#define PADDED ((ROWS + VLEN - 1) / VLEN * VLEN)

/* c[i + j * ldc] = sums[i * ACROSS + j] */
static void NAME(write_across)(ptrdiff_t rows, ptrdiff_t columns, const REAL *sums, REAL *c, ptrdiff_t ldc)
{
    ptrdiff_t j = 0;
#if NNX_SHUFFLES
    if (rows == ROWS)
        for (; j + VLEN <= columns; j += VLEN) {
            UNROLL(3)
            for (int i = 0; i + VLEN <= ROWS; i += VLEN)
                NAME(transpose_square)(sums + i * ACROSS + j, ACROSS, c + i + j * ldc, ldc);
#if ROWS % VLEN
            NAME(transpose_lanes)(sums + ROWS / VLEN * VLEN * ACROSS + j, ACROSS, c + ROWS / VLEN * VLEN + j * ldc, ldc,
                                  ROWS % VLEN);
#endif
        }
#endif
    for (; j < columns; j++)
        for (ptrdiff_t i = 0; i < rows; i++)
            c[i + j * ldc] = sums[i * ACROSS + j];
}

/* C[M x N] = A[M x K] B[K x N] + (accumulate: C; else column_bias[n] or row_bias[m] or 0), or with `relu` its positive part.
 * A's element (m, k) is A[m * rsa + k * csa], where rsa or csa is 1; C's is C[m * rsc + n * csc], likewise.
 * packed: B as pack() writes it, of which this tile starts at column 0 and whose panels are `panel_rows` rows apart. */
static void NAME(gemm)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa,
                       const REAL *packed, ptrdiff_t panel_rows, REAL *C, ptrdiff_t rsc, ptrdiff_t csc, int accumulate,
                       const REAL *column_bias, const REAL *row_bias, int relu)
{
    if (csc == 1) {
        NAME(gemm_along)(M, N, K, A, rsa, csa, packed, panel_rows, C, rsc, accumulate, column_bias, row_bias, relu);
        return;
    }
    REAL sums[PADDED * ACROSS];
    memset(sums + ROWS * ACROSS, 0, (PADDED - ROWS) * ACROSS * sizeof(REAL));
    for (ptrdiff_t n = 0; n < N; n += ACROSS)
        for (ptrdiff_t m = 0; m < M; m += ROWS) {
            const ptrdiff_t rows = M - m < ROWS ? M - m : ROWS, columns = N - n < ACROSS ? N - n : ACROSS;
            REAL *c = C + m * rsc + n * csc;
            if (accumulate)
                for (ptrdiff_t i = 0; i < rows; i++)
                    for (ptrdiff_t j = 0; j < columns; j++)
                        sums[i * ACROSS + j] = c[i * rsc + j * csc];
            NAME(gemm_along)(rows, columns, K, A + m * rsa, rsa, csa, packed + n * panel_rows, panel_rows, sums, ACROSS,
                             accumulate, column_bias ? column_bias + n : NULL, row_bias ? row_bias + m : NULL, relu);
            NAME(write_across)(rows, columns, sums, c, csc);
        }
}

/* y[i] = max(y[i], 0), NaN stays */
static void NAME(positive_part)(REAL *y, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + VLEN <= n; i += VLEN)
        STORE(y + i, NAME(positive)(LOAD(y + i)));
    for (; i < n; i++)
        y[i] = y[i] <= 0 ? 0 : y[i];
}

/* to[k * ldt + j] = from[k + j * ld] for `rows` values of k and `columns` values of j: a matrix the other way round. */
static void NAME(transpose)(ptrdiff_t rows, ptrdiff_t columns, const REAL *from, ptrdiff_t ld, REAL *RESTRICT to,
                            ptrdiff_t ldt)
{
    ptrdiff_t k = 0, done = 0; /* columns of the last rows */
#if NNX_SHUFFLES
    for (; k + VLEN <= rows; k += VLEN) {
        ptrdiff_t j = 0;
        for (; j + VLEN <= columns; j += VLEN)
            NAME(transpose_square)(from + k + j * ld, ld, to + k * ldt + j, ldt);
        for (; j < columns; j++)
            for (ptrdiff_t i = k; i < k + VLEN; i++)
                to[i * ldt + j] = from[i + j * ld];
    }
    if (2 * (rows - k) >= VLEN)
        for (; done + VLEN <= columns; done += VLEN)
            NAME(transpose_rows)(rows - k, from + k + done * ld, ld, to + k * ldt + done, ldt);
#endif
    for (; k < rows; k++)
        for (ptrdiff_t j = done; j < columns; j++)
            to[k * ldt + j] = from[k + j * ld];
}

#ifndef SUM_WIDTH
#define SUM_WIDTH 64 /* columns of a narrow matrix, folded */
#endif

/* sums[c] += the sum of column c. Rows of a narrow matrix are folded into wide ones, whose parts are added up at the end. */
static void NAME(column_sums)(ptrdiff_t rows, ptrdiff_t columns, const REAL *RESTRICT a, REAL *RESTRICT sums)
{
    const ptrdiff_t fold = columns < SUM_WIDTH ? SUM_WIDTH / columns : 1;
    ptrdiff_t r = 0;
    if (fold > 1) {
        REAL wide[SUM_WIDTH] = {0};
        const ptrdiff_t width = fold * columns;
        for (; r + fold <= rows; r += fold, a += width)
            for (ptrdiff_t c = 0; c < width; c++)
                wide[c] += a[c];
        for (ptrdiff_t k = 0; k < fold; k++)
            for (ptrdiff_t c = 0; c < columns; c++)
                sums[c] += wide[k * columns + c];
    }
    for (; r + 4 <= rows; r += 4, a += 4 * columns)
        for (ptrdiff_t c = 0; c < columns; c++)
            sums[c] += (a[c] + a[columns + c]) + (a[2 * columns + c] + a[3 * columns + c]);
    for (; r < rows; r++, a += columns)
        for (ptrdiff_t c = 0; c < columns; c++)
            sums[c] += a[c];
}

#include "gemm_few.h"

#undef PANEL
#undef ROWS
#undef DEPTH
#undef AHEAD
#undef SIDE_BY_SIDE
#undef ACROSS
#undef PADDED
#undef MICRO_CASE
#undef MICRO_ARGUMENTS
#undef MICRO_VARIANT
