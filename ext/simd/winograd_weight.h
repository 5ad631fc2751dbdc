/* The weight gradient of ext/simd/winograd.h, which includes this file: gw = G' [ (B' d B) . (A gy A') ] G. */

#if VLEN >= WINOGRAD_ROWS && (defined(__AVX512F__) || defined(__aarch64__))
#define WEIGHT_ROWS WINOGRAD_ROWS /* times two vectors are 16 sums in 32 registers */
#elif VLEN >= 4
#define WEIGHT_ROWS 4
#else
#define WEIGHT_ROWS VLEN
#endif

/* One dimension of A e. */
INLINE void NAME(spread_step)(const VEC *e, ptrdiff_t s, VEC *o)
{
    VEC even1 = e[0] + e[2 * s], odd1 = e[s] + e[3 * s], even2 = e[0] + 4 * e[2 * s], odd2 = 2 * e[s] + 8 * e[3 * s];
    o[0] = e[0];
    o[1] = even1 + odd1;
    o[2] = even1 - odd1;
    o[3] = even2 + odd2;
    o[4] = even2 - odd2;
    o[5] = e[3 * s];
}

INLINE REAL *NAME(store_gradient_row)(const VEC *e, REAL *to, ptrdiff_t step)
{
    VEC out[6];
    NAME(spread_step)(e, 1, out);
    for (int j = 0; j < 6; j++)
        STORE(to + j * step, out[j]);
    ADVANCE(to, 6 * step);
    return to;
}

/* D[k] = A gy A' for VLEN filters of one tile; rows are made in pairs, as in `input_tile`. */
INLINE void NAME(gradient_tile)(const REAL *const *pixels, ptrdiff_t f, ptrdiff_t n, REAL *D, ptrdiff_t step,
                                const int whole)
{
#define AT(i, j) NAME(numbers)(pixels[(i) * 4 + (j)] + f, n, whole)
    VEC a[4], b[4];
    UNROLL(4)
    for (int j = 0; j < 4; j++)
        a[j] = AT(0, j);
    D = NAME(store_gradient_row)(a, D, step);
    UNROLL(4)
    for (int j = 0; j < 4; j++) {
        const VEC even = AT(0, j) + AT(2, j), odd = AT(1, j) + AT(3, j);
        a[j] = even + odd;
        b[j] = even - odd;
    }
    D = NAME(store_gradient_row)(a, D, step);
    D = NAME(store_gradient_row)(b, D, step);
    UNROLL(4)
    for (int j = 0; j < 4; j++) {
        const VEC even = AT(0, j) + 4 * AT(2, j), odd = 2 * AT(1, j) + 8 * AT(3, j);
        a[j] = even + odd;
        b[j] = even - odd;
    }
    D = NAME(store_gradient_row)(a, D, step);
    D = NAME(store_gradient_row)(b, D, step);
    UNROLL(4)
    for (int j = 0; j < 4; j++)
        a[j] = AT(3, j);
    NAME(store_gradient_row)(a, D, step);
#undef AT
}

/* The addresses of a square of 4x4 pixels, and `zeros` where there is none. */
INLINE void NAME(square)(const struct nnx_tiles *y, const REAL *data, const REAL *zeros, ptrdiff_t number,
                         const REAL **pixels)
{
    const ptrdiff_t tile = number % (y->down * y->across), image = number / (y->down * y->across);
    const ptrdiff_t top = tile / y->across * 4, left = tile % y->across * 4;
    const REAL *corner = data + image * y->image + top * y->row + left * y->pixel;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            pixels[i * 4 + j] = top + i < y->height && left + j < y->width ? corner + i * y->row + j * y->pixel : zeros;
}

/* D[k][t] = A gy A' for each tile. */
static void NAME(winograd_gradient)(const struct nnx_tiles *gy, const REAL *data, const REAL *zeros, ptrdiff_t first,
                                    ptrdiff_t tiles, REAL *D, ptrdiff_t ld, ptrdiff_t step)
{
    const ptrdiff_t F = gy->channels;
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const REAL *pixels[16];
        NAME(square)(gy, data, zeros, first + t, pixels);
        ptrdiff_t f = 0;
        for (; f + VLEN <= F; f += VLEN)
            NAME(gradient_tile)(pixels, f, VLEN, D + t * ld + f, step, 1);
        if (f < F)
            NAME(gradient_tile)(pixels, f, F - f, D + t * ld + f, step, 0);
    }
}

/* out[WEIGHT_ROWS x vectors] (+)= sum over tiles of D[tile][row] V[tile][column]; vectors is a constant. */
INLINE void NAME(weight_rows)(const int vectors, ptrdiff_t tiles, const REAL *D, ptrdiff_t ldd, const REAL *V,
                              ptrdiff_t ldv, REAL *out, int accumulate)
{
    VEC sum[WEIGHT_ROWS][2];
    UNROLL(8)
    for (int i = 0; i < WEIGHT_ROWS; i++)
        for (int j = 0; j < vectors; j++)
            sum[i][j] = accumulate ? LOAD(out + i * ldv + j * VLEN) : (VEC){0};
    for (ptrdiff_t t = 0; t < tiles; t++, D += ldd, V += ldv) {
        const VEC v0 = LOAD(V), v1 = LOAD(V + (vectors - 1) * VLEN);
        UNROLL(8)
        for (int i = 0; i < WEIGHT_ROWS; i++) {
            const REAL a = D[i];
            sum[i][0] += a * v0;
            if (vectors == 2)
                sum[i][1] += a * v1;
        }
    }
    UNROLL(8)
    for (int i = 0; i < WEIGHT_ROWS; i++)
        for (int j = 0; j < vectors; j++)
            STORE(out + i * ldv + j * VLEN, sum[i][j]);
}

/* dU[k] (+)= D[k]' V[k], (rows x c_row). `rows` is a multiple of WINOGRAD_ROWS or of VLEN, at most f_row. */
static void NAME(winograd_weight_products)(ptrdiff_t tiles, ptrdiff_t rows, ptrdiff_t c_row, ptrdiff_t f_row,
                                           const REAL *V, ptrdiff_t v_step, const REAL *D, ptrdiff_t d_step, REAL *dU,
                                           int accumulate)
{
    for (int k = 0; k < 36; k++, V += v_step, D += d_step, dU += rows * c_row + WINOGRAD_PAD)
        for (ptrdiff_t c = 0; c < c_row; c += 2 * VLEN)
            for (ptrdiff_t f = 0; f < rows; f += WEIGHT_ROWS)
                if (c_row - c > VLEN)
                    NAME(weight_rows)(2, tiles, D + f, f_row, V + c, c_row, dU + f * c_row + c, accumulate);
                else
                    NAME(weight_rows)(1, tiles, D + f, f_row, V + c, c_row, dU + f * c_row + c, accumulate);
}

/* The first n lanes, `apart` from each other. */
INLINE void NAME(store_lanes_apart)(VEC v, REAL *to, ptrdiff_t apart, ptrdiff_t n)
{
    REAL lanes[VLEN];
    if (apart == 1 && n == VLEN) {
        STORE(to, v);
        return;
    }
    STORE(lanes, v);
    for (ptrdiff_t k = 0; k < n; k++)
        to[k * apart] = lanes[k];
}

/* One dimension of G' u. */
INLINE void NAME(gather_step)(const VEC *u, ptrdiff_t s, VEC *o)
{
    const REAL sixth = (REAL)1 / 6, twelfth = (REAL)1 / 12, twenty_fourth = (REAL)1 / 24;
    VEC sum1 = u[s] + u[2 * s], gap1 = u[2 * s] - u[s], sum2 = u[3 * s] + u[4 * s], gap2 = u[3 * s] - u[4 * s];
    o[0] = (REAL)0.25 * u[0] - sixth * sum1 + twenty_fourth * sum2;
    o[1] = sixth * gap1 + twelfth * gap2;
    o[2] = sixth * (sum2 - sum1) + u[5 * s];
}

/* gw[c, i, j] of filter f = G' dU[k][f][c] G; rows of dU are `ld` apart. */
static void NAME(winograd_weight_gradient)(ptrdiff_t C, ptrdiff_t F, ptrdiff_t ld, ptrdiff_t f, const REAL *dU, REAL *gw,
                                           ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw)
{
    for (ptrdiff_t c = 0; c < C; c += VLEN) {
        const ptrdiff_t n = C - c < VLEN ? C - c : VLEN;
        VEC u[6], half[18], out[3];
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < 6; i++)
                u[i] = LOAD(dU + (i * 6 + j) * (F * ld + WINOGRAD_PAD) + f * ld + c);
            NAME(gather_step)(u, 1, out);
            for (int i = 0; i < 3; i++)
                half[i * 6 + j] = out[i];
        }
        for (int i = 0; i < 3; i++) {
            NAME(gather_step)(half + i * 6, 1, out);
            for (int j = 0; j < 3; j++)
                NAME(store_lanes_apart)(out[j], gw + c * sc + i * sh + j * sw, sc, n);
        }
    }
}

/* gw[c, i, j] = the sum of the chunks' parts[i * 3 + j][c], in order; rows of parts are `ld` apart, chunks `chunk`. */
static void NAME(winograd_weight_sum)(ptrdiff_t chunks, ptrdiff_t chunk, ptrdiff_t C, ptrdiff_t ld, const REAL *parts,
                                      REAL *gw, ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw)
{
    for (ptrdiff_t c = 0; c < C; c += VLEN)
        for (int tap = 0; tap < 9; tap++) {
            const REAL *from = parts + tap * ld + c;
            VEC sum = LOAD(from);
            for (ptrdiff_t i = 1; i < chunks; i++)
                sum += LOAD(from + i * chunk);
            NAME(store_lanes_apart)(sum, gw + c * sc + tap / 3 * sh + tap % 3 * sw, sc, C - c < VLEN ? C - c : VLEN);
        }
}

#undef WEIGHT_ROWS
