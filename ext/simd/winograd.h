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

/* One dimension of B' d, A' m and G w; the two-dimensional transforms apply them to columns and then to rows. */
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

/* to[36] = G w G' of VLEN filters, whose taps are nine vectors. */
INLINE void NAME(filter_tile)(const REAL *w, REAL *to, ptrdiff_t step)
{
    VEC taps[9], half[18], out[6];
    UNROLL(9)
    for (int t = 0; t < 9; t++)
        taps[t] = LOAD(w + t * VLEN);
    UNROLL(3)
    for (int j = 0; j < 3; j++) {
        NAME(weight_step)(taps + j, 3, out);
        for (int i = 0; i < 6; i++)
            half[i * 3 + j] = out[i];
    }
    UNROLL(6)
    for (int i = 0; i < 6; i++) {
        NAME(weight_step)(half + i * 3, 1, out);
        for (int j = 0; j < 6; j++)
            STORE(to + (i * 6 + j) * step, out[j]);
    }
}

/* packed[36][panel][c][panel width] = G w G' for filters first ... first + filters - 1 (a multiple of VLEN but for the last
 * ones), zero beyond. w's element (f, c, i, j) is w[f * sf + c * sc + i * sh + j * sw]. */
static void NAME(winograd_weights)(ptrdiff_t C, ptrdiff_t first, ptrdiff_t filters, const REAL *w, ptrdiff_t sf,
                                   ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw, ptrdiff_t panel, REAL *packed,
                                   ptrdiff_t step)
{
    enum { AT_ONCE = 8 }; /* channels: a vector that is read right after its numbers were written has to wait for them */
    REAL taps[AT_ONCE * 9 * VLEN];
    ptrdiff_t at[9];
    for (int t = 0; t < 9; t++)
        at[t] = t / 3 * sh + t % 3 * sw;
    for (ptrdiff_t f = first; f < first + filters; f += VLEN) {
        const ptrdiff_t n = first + filters - f < VLEN ? first + filters - f : VLEN;
        REAL *to = packed + f / panel * panel * C + f % panel;
        if (n < VLEN)
            memset(taps, 0, sizeof taps);
        for (ptrdiff_t start = 0; start < C; start += AT_ONCE) {
            const ptrdiff_t count = C - start < AT_ONCE ? C - start : AT_ONCE;
            for (ptrdiff_t i = 0; i < n; i++) {
                const REAL *from = w + (f + i) * sf + start * sc;
                for (ptrdiff_t c = 0; c < count; c++, from += sc)
                    UNROLL(9)
                    for (int t = 0; t < 9; t++)
                        taps[(c * 9 + t) * VLEN + i] = from[at[t]];
            }
            for (ptrdiff_t c = 0; c < count; c++)
                NAME(filter_tile)(taps + c * 9 * VLEN, to + (start + c) * panel, step);
        }
    }
}

/* The numbers of one pixel: the first n of them and zeros behind, or if they are `whole`, a vector full. */
INLINE VEC NAME(numbers)(const REAL *p, ptrdiff_t n, const int whole)
{
    return whole ? LOAD(p) : NAME(load_part)(p, n);
}

/* One row of six matrices: B' over a row of half-transformed numbers. Returns where the next row goes. */
INLINE REAL *NAME(store_patch_row)(const VEC *d, REAL *to, ptrdiff_t step)
{
    VEC out[6];
    NAME(patch_step)(d, 1, out);
    for (int j = 0; j < 6; j++)
        STORE(to + j * step, out[j]);
    ADVANCE(to, 6 * step);
    return to;
}

/* V[k] = B' d B for VLEN channels of one tile, whose patch begins at `corner`. Rows of the result that share terms are made
 * together, and read their rows of d again: that costs less than to keep 36 half-transformed vectors in memory. */
INLINE void NAME(input_tile)(const REAL *corner, ptrdiff_t row, ptrdiff_t pixel, REAL *V, ptrdiff_t step)
{
#define AT(i) LOAD(column + (i) * row)
    VEC a[6], b[6];
    const REAL *column = corner;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        a[j] = 4 * AT(0) - 5 * AT(2) + AT(4);
        ADVANCE(column, pixel);
    }
    V = NAME(store_patch_row)(a, V, step);
    column = corner;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        const VEC even = AT(4) - 4 * AT(2), odd = AT(3) - 4 * AT(1);
        a[j] = even + odd;
        b[j] = even - odd;
        ADVANCE(column, pixel);
    }
    V = NAME(store_patch_row)(a, V, step);
    V = NAME(store_patch_row)(b, V, step);
    column = corner;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        const VEC far = AT(4) - AT(2), twice = 2 * (AT(3) - AT(1));
        a[j] = far + twice;
        b[j] = far - twice;
        ADVANCE(column, pixel);
    }
    V = NAME(store_patch_row)(a, V, step);
    V = NAME(store_patch_row)(b, V, step);
    column = corner;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        a[j] = 4 * AT(1) - 5 * AT(3) + AT(5);
        ADVANCE(column, pixel);
    }
    NAME(store_patch_row)(a, V, step);
#undef AT
}

/* copy[36 x VLEN] = n channels of a patch that reaches out of the image, or beyond the last channel: zeros are there. */
static void NAME(copy_patch)(const struct nnx_tiles *x, const REAL *from, ptrdiff_t top, ptrdiff_t left, ptrdiff_t n,
                             REAL *copy)
{
    const ptrdiff_t first = left < 0 ? -left : 0, last = x->width - left < 6 ? x->width - left : 6;
    const VEC zero = {0};
    for (ptrdiff_t i = 0; i < 6; i++, from += x->row, copy += 6 * VLEN) {
        const int outside = top + i < 0 || top + i >= x->height;
        for (ptrdiff_t j = 0; j < 6; j++)
            if (outside || j < first || j >= last)
                STORE(copy + j * VLEN, zero);
            else
                STORE(copy + j * VLEN, NAME(numbers)(from + j * x->pixel, n, n >= VLEN));
    }
}

/* V[k][t] = B' d B for each tile t. Rows are written up to the next multiple of VLEN channels. */
static void NAME(winograd_input)(const struct nnx_tiles *x, const REAL *data, ptrdiff_t first, ptrdiff_t tiles, REAL *V,
                                 ptrdiff_t ld, ptrdiff_t step)
{
    REAL copy[36 * VLEN];
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const ptrdiff_t number = first + t, tile = number % (x->down * x->across);
        const ptrdiff_t top = tile / x->across * 4 - x->top, left = tile % x->across * 4 - x->left;
        const REAL *corner = data + number / (x->down * x->across) * x->image + top * x->row + left * x->pixel;
        const int inside = top >= 0 && left >= 0 && top + 6 <= x->height && left + 6 <= x->width;
        for (ptrdiff_t c = 0; c < x->channels; c += VLEN) {
            if (inside && c + VLEN <= x->channels) {
                NAME(input_tile)(corner + c, x->row, x->pixel, V + t * ld + c, step);
                continue;
            }
            NAME(copy_patch)(x, corner + c, top, left, x->channels - c, copy);
            NAME(input_tile)(copy, 6 * VLEN, VLEN, V + t * ld + c, step);
        }
    }
}

/* out[rows x vectors] = A[rows x depth] B[depth x panel]; rows and vectors are constants, twelve sums at most. */
INLINE void NAME(tile_products)(const int rows, const int vectors, ptrdiff_t depth, const REAL *A, ptrdiff_t lda,
                                const REAL *B, const ptrdiff_t panel, REAL *out, ptrdiff_t ldo)
{
    VEC sum[12][2];
    UNROLL(12)
    for (int i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = (VEC){0};
    for (ptrdiff_t k = 0; k < depth; k++) {
        const VEC b0 = LOAD(B + k * panel), b1 = LOAD(B + k * panel + (vectors - 1) * VLEN);
        UNROLL(12)
        for (int i = 0; i < rows; i++) {
            const REAL a = A[i * lda + k];
            sum[i][0] += a * b0;
            if (vectors == 2)
                sum[i][1] += a * b1;
        }
    }
    UNROLL(12)
    for (int i = 0; i < rows; i++) {
        STORE(out + i * ldo, sum[i][0]);
        if (vectors == 2)
            STORE(out + i * ldo + VLEN, sum[i][1]);
    }
}

/* M[k] = V[k] U[k] for so few tiles that V and M stay in the first-level cache. Rows are computed up to a multiple of 6.
 * With rows of the same length and one panel of them M may be V: numbers are stored once their rows have been read.
 * Panels of `packed` are one vector wide where there is only one, two otherwise. One vector of channels in and out meets
 * twelve rows at a time, at addresses that are constants: with a load for each product nothing else may be loaded. */
static void NAME(winograd_products)(ptrdiff_t tiles, ptrdiff_t C, ptrdiff_t c_row, ptrdiff_t f_row, const REAL *V,
                                    ptrdiff_t v_step, const REAL *packed, ptrdiff_t u_step, REAL *M, ptrdiff_t m_step)
{
    for (int k = 0; k < 36; k++, V += v_step, M += m_step, packed += u_step) {
        if (f_row == VLEN && c_row == VLEN) {
            ptrdiff_t t = 0;
            for (; t + 6 < tiles; t += 12)
                NAME(tile_products)(12, 1, C, V + t * VLEN, VLEN, packed, VLEN, M + t * VLEN, VLEN);
            if (t < tiles)
                NAME(tile_products)(6, 1, C, V + t * VLEN, VLEN, packed, VLEN, M + t * VLEN, VLEN);
            continue;
        }
        for (ptrdiff_t f = 0; f < f_row; f += 2 * VLEN)
            for (ptrdiff_t t = 0; t < tiles; t += 6) {
                const REAL *a = V + t * c_row, *b = packed + f * C;
                REAL *out = M + t * f_row + f;
                if (f_row == VLEN)
                    NAME(tile_products)(6, 1, C, a, c_row, b, VLEN, out, f_row);
                else if (f_row - f > VLEN)
                    NAME(tile_products)(6, 2, C, a, c_row, b, 2 * VLEN, out, f_row);
                else
                    NAME(tile_products)(6, 1, C, a, c_row, b, 2 * VLEN, out, f_row);
            }
    }
}

/* Pointers to one place of the results: to them, and to what is added to them and what cuts them, which may be NULL. */
struct NAME(place) {
    REAL *to;
    const REAL *added, *positive;
};

INLINE struct NAME(place) NAME(moved)(struct NAME(place) p, ptrdiff_t by)
{
    p.to += by;
    p.added = p.added ? p.added + by : NULL;
    p.positive = p.positive ? p.positive + by : NULL;
    return p;
}

/* Sums over results, less `shift`, and over their squares. */
struct NAME(sums) {
    VEC shift, sum, square;
};

/* A row of a tile of y: A' over a row of half-transformed numbers, plus bias, of which `columns` are inside the image. */
INLINE void NAME(store_result_row)(const VEC *m, VEC bias, int relu, const int stream, const int joined,
                                   struct NAME(sums) *sums, struct NAME(place) p, ptrdiff_t pixel, int columns,
                                   ptrdiff_t n)
{
    VEC out[4];
    NAME(result_step)(m, 1, out);
    for (int j = 0; j < 4 && j < columns; j++) {
        VEC result = out[j];
        if (!sums)
            result += bias;
        if (relu)
            result = NAME(positive)(result);
        if (joined && p.added)
            result = NAME(numbers)(p.added + j * pixel, n, n >= VLEN) + result;
        if (joined && p.positive)
            result = NAME(where_positive)(result, NAME(numbers)(p.positive + j * pixel, n, n >= VLEN));
        if (stream)
            STREAM(p.to + j * pixel, result);
        else if (n >= VLEN)
            STORE(p.to + j * pixel, result);
        else
            NAME(store_part)(p.to + j * pixel, result, n);
    }
    if (sums) {
        VEC gap = out[0] - sums->shift, sum = gap, square = gap * gap;
        for (int j = 1; j < 4 && j < columns; j++) {
            gap = out[j] - sums->shift;
            sum += gap;
            square += gap * gap;
        }
        sums->sum += sum;
        sums->square += square;
    }
}

/* y = A' m A + bias for VLEN filters of one tile; rows are made in pairs, as in `input_tile`. */
INLINE void NAME(output_tile)(const REAL *m, ptrdiff_t step, VEC bias, int relu, const int stream, const int joined,
                              struct NAME(sums) *sums, struct NAME(place) to, ptrdiff_t row, ptrdiff_t pixel, int rows,
                              int columns, ptrdiff_t n)
{
#define AT(i) LOAD(column + (i) * 6 * step)
    VEC a[6], b[6];
    const REAL *column = m;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        const VEC sum1 = AT(1) + AT(2), sum2 = AT(3) + AT(4);
        a[j] = AT(0) + sum1 + sum2;
        b[j] = sum1 + 4 * sum2;
        ADVANCE(column, step);
    }
    NAME(store_result_row)(a, bias, relu, stream, joined, sums, to, pixel, columns, n);
    if (rows > 2)
        NAME(store_result_row)(b, bias, relu, stream, joined, sums, NAME(moved)(to, 2 * row), pixel, columns, n);
    if (rows < 2)
        return;
    column = m;
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        const VEC gap1 = AT(1) - AT(2), gap2 = AT(3) - AT(4);
        a[j] = gap1 + 2 * gap2;
        b[j] = gap1 + 8 * gap2 + AT(5);
        ADVANCE(column, step);
    }
    NAME(store_result_row)(a, bias, relu, stream, joined, sums, NAME(moved)(to, row), pixel, columns, n);
    if (rows > 3)
        NAME(store_result_row)(b, bias, relu, stream, joined, sums, NAME(moved)(to, 3 * row), pixel, columns, n);
#undef AT
}

/* A result of the first tile, its second one in both directions (for the first one, half of the patch may be padding), is
 * the number that all others of a channel are compared with. */
static void NAME(begin_sums)(const REAL *M, ptrdiff_t ld, ptrdiff_t step, REAL *sums)
{
    const VEC zero = {0};
    for (ptrdiff_t f = 0; f < ld; f += VLEN) {
        VEC column[6], rows[4], result[4];
        for (int j = 0; j < 6; j++) {
            VEC m[6];
            for (int i = 0; i < 6; i++)
                m[i] = LOAD(M + (i * 6 + j) * step + f);
            NAME(result_step)(m, 1, rows);
            column[j] = rows[1];
        }
        NAME(result_step)(column, 1, result);
        STORE(sums + f, result[1]);
        STORE(sums + ld + f, zero);
        STORE(sums + 2 * ld + f, zero);
    }
}

/* One tile of results that is not whole: in its rows and columns, or in the channels. */
APART void NAME(output_part)(const REAL *m, ptrdiff_t step, VEC bias, int relu, int joined, REAL *sums, ptrdiff_t ld,
                             struct NAME(place) to, const struct nnx_tiles *y, int rows, int columns, ptrdiff_t n)
{
    if (sums) {
        struct NAME(sums) s = {LOAD(sums), LOAD(sums + ld), LOAD(sums + 2 * ld)};
        NAME(output_tile)(m, step, bias, 0, 0, 0, &s, to, y->row, y->pixel, rows, columns, n);
        STORE(sums + ld, s.sum);
        STORE(sums + 2 * ld, s.square);
    } else {
        NAME(output_tile)(m, step, bias, relu, 0, joined, NULL, to, y->row, y->pixel, rows, columns, n);
    }
}

/* `winograd_output` with constants: whether results are stored past the caches, joined to other images, and summed up. */
INLINE void NAME(output)(const int stream, const int joined, const int summed, const struct nnx_tiles *y, REAL *data,
                         const REAL *bias, int relu, ptrdiff_t first, ptrdiff_t tiles, const REAL *M, ptrdiff_t ld,
                         ptrdiff_t step, REAL *sums)
{
    const ptrdiff_t F = y->channels, row = y->row, pixel = y->pixel;
    const struct NAME(place) start = {data, y->added, y->positive};
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const ptrdiff_t number = first + t, tile = number % (y->down * y->across), image = number / (y->down * y->across);
        const ptrdiff_t top = tile / y->across * 4, left = tile % y->across * 4;
        const int rows = (int)(y->height - top < 4 ? y->height - top : 4);
        const int columns = (int)(y->width - left < 4 ? y->width - left : 4);
        const struct NAME(place) corner = NAME(moved)(start, image * y->image + top * row + left * pixel);
        const REAL *m = M + t * ld;
        for (ptrdiff_t f = 0; f < F; f += VLEN) {
            const ptrdiff_t n = F - f;
            const struct NAME(place) to = NAME(moved)(corner, f);
            const VEC b = bias ? NAME(numbers)(bias + f, n, n >= VLEN) : (VEC){0};
            if (rows < 4 || columns < 4 || n < VLEN) {
                NAME(output_part)(m + f, step, b, relu, joined, summed ? sums + f : NULL, ld, to, y, rows, columns, n);
            } else if (summed) {
                struct NAME(sums) s = {LOAD(sums + f), LOAD(sums + ld + f), LOAD(sums + 2 * ld + f)};
                NAME(output_tile)(m + f, step, b, 0, stream, 0, &s, to, row, pixel, 4, 4, VLEN);
                STORE(sums + ld + f, s.sum);
                STORE(sums + 2 * ld + f, s.square);
            } else {
                NAME(output_tile)(m + f, step, b, relu, stream, joined, NULL, to, row, pixel, 4, 4, VLEN);
            }
        }
    }
}

#define OUTPUT(name, stream, joined, summed) \
    APART void NAME(name)(const struct nnx_tiles *y, REAL *data, const REAL *bias, int relu, ptrdiff_t first, \
                          ptrdiff_t tiles, const REAL *M, ptrdiff_t ld, ptrdiff_t step, REAL *sums) \
    { \
        NAME(output)(stream, joined, summed, y, data, bias, relu, first, tiles, M, ld, step, sums); \
    }

OUTPUT(output_plain, 0, 0, 0)
OUTPUT(output_joined, 0, 1, 0)
OUTPUT(output_summed, 0, 0, 1)
OUTPUT(output_past, 1, 0, 0)
OUTPUT(output_joined_past, 1, 1, 0)
OUTPUT(output_summed_past, 1, 0, 1)

/* y = A' m A + bias for each tile, or with `relu` its positive part; only pixels inside of the image are written.
 * sums: NULL, or without bias and relu (3, ld) numbers: of each channel one that is about as large as its results, the
 * sum of what they exceed that by, and the sum of the squares of that. This call adds to them, or if `fresh` begins them. */
static void NAME(winograd_output)(const struct nnx_tiles *y, REAL *data, const REAL *bias, int relu, ptrdiff_t first,
                                  ptrdiff_t tiles, const REAL *M, ptrdiff_t ld, ptrdiff_t step, REAL *sums, int fresh)
{
    const int joined = y->added || y->positive;
    if (sums && fresh)
        NAME(begin_sums)(M, ld, step, sums);
    if (y->stream && VECTOR_BYTES == 64) { /* a vector is a line: those of a pixel are not stored together */
        (sums ? NAME(output_summed_past) : joined ? NAME(output_joined_past) : NAME(output_past))(
            y, data, bias, relu, first, tiles, M, ld, step, sums);
        STREAMED();
    } else {
        (sums ? NAME(output_summed) : joined ? NAME(output_joined) : NAME(output_plain))(
            y, data, bias, relu, first, tiles, M, ld, step, sums);
    }
}

#undef OUTPUT

#include "winograd_weight.h"

#undef VEC
