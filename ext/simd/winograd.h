/* Winograd's minimal filtering F(4x4, 3x3) for 3x3 convolutions with stride 1 (Lavin and Gray, arXiv:1509.09308).
 *
 * A tile of 4x4 outputs reads a patch d of 6x6 inputs. With the matrices below,
 *     y  = A' [ (G w G') . (B' d B) ] A        (. is elementwise)
 * needs 36 multiplications per channel instead of 144; over all channels and many tiles they are 36 matrix products.
 * The gradient of the weights is  gw = G' [ (B' d B) . (A gy A') ] G, summed over all tiles.
 *
 *     B' = 4  0 -5  0  1  0     G = 1/4    0    0     A' = 1  1  1  1  1  0
 *          0 -4 -4  1  1  0        -1/6 -1/6 -1/6          0  1 -1  2 -2  0
 *          0  4 -4 -1  1  0        -1/6  1/6 -1/6          0  1  1  4  4  0
 *          0 -2 -1  2  1  0        1/24 1/12  1/6          0  1 -1  8 -8  1
 *          0  2 -1 -2  1  0       1/24 -1/12  1/6
 *          0  4  0 -5  0  1           0    0    1
 *
 * All images are channels-last, and LANES channels are transformed at once. V, M, D hold 36 matrices (tiles x channels)
 * with rows `ld` apart and matrices `step` apart.
 */
#include "vector.h"

#define VEC NAME(vec)

static ptrdiff_t NAME(winograd_lanes)(void)
{
    return VLEN;
}

/* The first n < VLEN numbers, zeros behind them: nothing beyond an array's end is read. */
INLINE VEC NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    REAL lanes[VLEN] = {0};
    for (ptrdiff_t i = 0; i < n; i++)
        lanes[i] = p[i];
    return LOAD(lanes);
}

/* One dimension of B' d, A' m, A e and G w; the two-dimensional transforms apply them to columns and then to rows. */
INLINE void NAME(patch_step)(const VEC *d, ptrdiff_t s, VEC *o)
{
    VEC even = d[4 * s] - 4 * d[2 * s], odd = d[3 * s] - 4 * d[s], far = d[4 * s] - d[2 * s];
    VEC twice = 2 * (d[3 * s] - d[s]);
    o[0] = 4 * d[0] - 5 * d[2 * s] + d[4 * s];
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = far + twice;
    o[4] = far - twice;
    o[5] = 4 * d[s] - 5 * d[3 * s] + d[5 * s];
}

INLINE void NAME(result_step)(const VEC *m, ptrdiff_t s, VEC *o)
{
    VEC sum1 = m[s] + m[2 * s], gap1 = m[s] - m[2 * s], sum2 = m[3 * s] + m[4 * s], gap2 = m[3 * s] - m[4 * s];
    o[0] = m[0] + sum1 + sum2;
    o[1] = gap1 + 2 * gap2;
    o[2] = sum1 + 4 * sum2;
    o[3] = gap1 + 8 * gap2 + m[5 * s];
}

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

INLINE void NAME(weight_step)(const VEC *w, ptrdiff_t s, VEC *o)
{
    const REAL sixth = (REAL)1 / 6, twelfth = (REAL)1 / 12, twenty_fourth = (REAL)1 / 24;
    VEC ends = -sixth * (w[0] + w[2 * s]), middle = sixth * w[s];
    VEC outer = twenty_fourth * w[0] + sixth * w[2 * s], inner = twelfth * w[s];
    o[0] = (REAL)0.25 * w[0];
    o[1] = ends - middle;
    o[2] = ends + middle;
    o[3] = outer + inner;
    o[4] = outer - inner;
    o[5] = w[2 * s];
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

/* packed[36][panel][c][panel width] = G w G' for filters first ... first + filters - 1 (a multiple of VLEN but for the last
 * ones), zero beyond. w's element (f, c, i, j) is w[f * sf + c * sc + i * sh + j * sw]. */
static void NAME(winograd_weights)(ptrdiff_t C, ptrdiff_t first, ptrdiff_t filters, const REAL *w, ptrdiff_t sf,
                                   ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw, ptrdiff_t panel, REAL *packed,
                                   ptrdiff_t step)
{
    for (ptrdiff_t f = first; f < first + filters; f += VLEN) {
        const ptrdiff_t n = first + filters - f < VLEN ? first + filters - f : VLEN;
        REAL *to = packed + f / panel * panel * C + f % panel;
        for (ptrdiff_t c = 0; c < C; c++) {
            VEC taps[9], half[18], out[6];
            for (int t = 0; t < 9; t++) {
                REAL lanes[VLEN] = {0};
                const REAL *from = w + f * sf + c * sc + t / 3 * sh + t % 3 * sw;
                for (ptrdiff_t i = 0; i < n; i++)
                    lanes[i] = from[i * sf];
                taps[t] = LOAD(lanes);
            }
            for (int j = 0; j < 3; j++) {
                NAME(weight_step)(taps + j, 3, out);
                for (int i = 0; i < 6; i++)
                    half[i * 3 + j] = out[i];
            }
            for (int i = 0; i < 6; i++) {
                NAME(weight_step)(half + i * 3, 1, out);
                for (int j = 0; j < 6; j++)
                    STORE(to + (i * 6 + j) * step + c * panel, out[j]);
            }
        }
    }
}

/* The addresses of the pixels of a square of `side` x `side`, `zeros` where there is none. */
INLINE void NAME(square)(const struct nnx_tiles *x, const REAL *data, const REAL *zeros, ptrdiff_t number, int side,
                         const REAL **pixels)
{
    const ptrdiff_t tile = number % (x->down * x->across), image = number / (x->down * x->across);
    const ptrdiff_t top = tile / x->across * 4 - x->top, left = tile % x->across * 4 - x->left;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            const ptrdiff_t h = top + i, w = left + j;
            const int inside = h >= 0 && h < x->height && w >= 0 && w < x->width;
            pixels[i * side + j] = inside ? data + image * x->image + h * x->row + w * x->pixel : zeros;
        }
}

/* V[k][t] = B' d B for each tile t. Rows are written up to the next multiple of VLEN channels. */
static void NAME(winograd_input)(const struct nnx_tiles *x, const REAL *data, const REAL *zeros, ptrdiff_t first,
                                 ptrdiff_t tiles, REAL *V, ptrdiff_t ld, ptrdiff_t step)
{
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const REAL *pixels[36];
        NAME(square)(x, data, zeros, first + t, 6, pixels);
        for (ptrdiff_t c = 0; c < x->channels; c += VLEN) {
            const ptrdiff_t n = x->channels - c;
            VEC half[36], d[6], out[6];
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                if (n >= VLEN)
                    for (int i = 0; i < 6; i++)
                        d[i] = LOAD(pixels[i * 6 + j] + c);
                else
                    for (int i = 0; i < 6; i++)
                        d[i] = NAME(load_part)(pixels[i * 6 + j] + c, n);
                NAME(patch_step)(d, 1, out);
                for (int i = 0; i < 6; i++)
                    half[i * 6 + j] = out[i];
            }
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                NAME(patch_step)(half + i * 6, 1, out);
                for (int j = 0; j < 6; j++)
                    STORE(V + (i * 6 + j) * step + t * ld + c, out[j]);
            }
        }
    }
}

/* y = A' m A + bias for each tile, or with `relu` its positive part; only pixels inside of the image are written. */
static void NAME(winograd_output)(const struct nnx_tiles *y, REAL *data, const REAL *bias, int relu, ptrdiff_t first,
                                  ptrdiff_t tiles, const REAL *M, ptrdiff_t ld, ptrdiff_t step)
{
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const ptrdiff_t number = first + t, tile = number % (y->down * y->across), image = number / (y->down * y->across);
        const ptrdiff_t top = tile / y->across * 4, left = tile % y->across * 4;
        const int rows = (int)(y->height - top < 4 ? y->height - top : 4);
        const int columns = (int)(y->width - left < 4 ? y->width - left : 4);
        REAL *corner = data + image * y->image + top * y->row + left * y->pixel;
        for (ptrdiff_t f = 0; f < y->channels; f += VLEN) {
            const ptrdiff_t n = y->channels - f;
            const REAL *m = M + t * ld + f;
            VEC half[24], d[6], out[4], b = {0};
            if (bias)
                b = n >= VLEN ? LOAD(bias + f) : NAME(load_part)(bias + f, n);
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                for (int i = 0; i < 6; i++)
                    d[i] = LOAD(m + (i * 6 + j) * step);
                NAME(result_step)(d, 1, out);
                for (int i = 0; i < 4; i++)
                    half[i * 6 + j] = out[i];
            }
            for (int i = 0; i < rows; i++) {
                NAME(result_step)(half + i * 6, 1, out);
                for (int j = 0; j < columns; j++) {
                    REAL *to = corner + i * y->row + j * y->pixel + f;
                    const VEC sum = out[j] + b, result = relu ? NAME(positive)(sum) : sum;
                    if (n >= VLEN)
                        STORE(to, result);
                    else {
                        REAL lanes[VLEN];
                        STORE(lanes, result);
                        memcpy(to, lanes, n * sizeof(REAL));
                    }
                }
            }
        }
    }
}

/* D[k][t] = A gy A' for each tile. */
static void NAME(winograd_gradient)(const struct nnx_tiles *gy, const REAL *data, const REAL *zeros, ptrdiff_t first,
                                    ptrdiff_t tiles, REAL *D, ptrdiff_t ld, ptrdiff_t step)
{
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const REAL *pixels[16];
        NAME(square)(gy, data, zeros, first + t, 4, pixels);
        for (ptrdiff_t f = 0; f < gy->channels; f += VLEN) {
            const ptrdiff_t n = gy->channels - f;
            VEC half[24], e[4], out[6];
            UNROLL(6)
            for (int j = 0; j < 4; j++) {
                for (int i = 0; i < 4; i++)
                    e[i] = n >= VLEN ? LOAD(pixels[i * 4 + j] + f) : NAME(load_part)(pixels[i * 4 + j] + f, n);
                NAME(spread_step)(e, 1, out);
                for (int i = 0; i < 6; i++)
                    half[i * 4 + j] = out[i];
            }
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                NAME(spread_step)(half + i * 4, 1, out);
                for (int j = 0; j < 6; j++)
                    STORE(D + (i * 6 + j) * step + t * ld + f, out[j]);
            }
        }
    }
}

/* gw[c, i, j] of filter f = G' (sum of the chunks' dU[k][f][c], in order) G; rows of dU are `ld` apart, chunks `chunk`. */
static void NAME(winograd_weight_gradient)(ptrdiff_t chunks, ptrdiff_t chunk, ptrdiff_t C, ptrdiff_t F, ptrdiff_t ld,
                                           ptrdiff_t f, const REAL *dU, REAL *gw, ptrdiff_t sc, ptrdiff_t sh,
                                           ptrdiff_t sw)
{
    for (ptrdiff_t c = 0; c < C; c += VLEN) {
        const ptrdiff_t n = C - c < VLEN ? C - c : VLEN;
        VEC u[36], half[18], out[3];
        for (int k = 0; k < 36; k++) {
            const REAL *from = dU + (k * F + f) * ld + c;
            u[k] = LOAD(from);
            for (ptrdiff_t i = 1; i < chunks; i++)
                u[k] += LOAD(from + i * chunk);
        }
        for (int j = 0; j < 6; j++) {
            NAME(gather_step)(u + j, 6, out);
            for (int i = 0; i < 3; i++)
                half[i * 6 + j] = out[i];
        }
        for (int i = 0; i < 3; i++) {
            NAME(gather_step)(half + i * 6, 1, out);
            for (int j = 0; j < 3; j++) {
                REAL lanes[VLEN];
                STORE(lanes, out[j]);
                for (ptrdiff_t k = 0; k < n; k++)
                    gw[(c + k) * sc + i * sh + j * sw] = lanes[k];
            }
        }
    }
}

#undef VEC
