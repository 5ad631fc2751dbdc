/* Convolution with fewer filters than a vector has lanes: the lanes are pixels times filters.
 *
 * A row of the result is pixels x F numbers that lie together. Vector v of it holds the numbers from v * VLEN on; number q
 * is filter q % F of pixel q / F. Where each number of the image stands F times, the number that tap k of q meets is
 * number q + k * F of the image's row: a plain load. The filters' weights repeat with a period of F / gcd(F, VLEN) vectors,
 * so there is a vector of them for each phase of the period and each tap. Several rows of the result are made at once:
 * a row of the image is loaded once for all of them.
 */
#include "vector.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define SPREAD_ROWS 8
#else
#define SPREAD_ROWS 4
#endif
#define SPREAD_DOWN 7 /* taps, at most */

static ptrdiff_t NAME(spread_lanes)(void)
{
    return VLEN;
}

/* Vectors after which the filters in the lanes are the same again. */
static ptrdiff_t NAME(spread_period)(ptrdiff_t F)
{
    ptrdiff_t a = F, b = VLEN;
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return F / a;
}

/* out[q] = line[q / F] for ld numbers (a multiple of VLEN) of each line; `line` is read up to VLEN numbers behind the last
 * of these. */
static void NAME(spread_numbers)(ptrdiff_t F, ptrdiff_t lines, const REAL *line, ptrdiff_t ldl, REAL *out, ptrdiff_t ld)
{
#if NNX_SHUFFLES
    enum { MOST = 8 };
    const ptrdiff_t period = NAME(spread_period)(F);
    NAME(mask) lanes[MOST];
    ptrdiff_t first[MOST];
    if (period <= MOST) {
        for (ptrdiff_t v = 0; v < period; v++) {
            first[v] = v * VLEN / F;
            for (ptrdiff_t j = 0; j < VLEN; j++)
                lanes[v][j] = (BITS)((v * VLEN + j) / F - first[v]);
        }
        const ptrdiff_t pixels = period * VLEN / F;
        for (ptrdiff_t i = 0; i < lines; i++, line += ldl, out += ld) {
            const REAL *from = line;
            for (ptrdiff_t q = 0, v = 0; q < ld; q += VLEN) {
                STORE(out + q, __builtin_shuffle(LOAD(from + first[v]), lanes[v]));
                if (++v == period) {
                    v = 0;
                    from += pixels;
                }
            }
        }
        return;
    }
#endif
    for (ptrdiff_t i = 0; i < lines; i++, line += ldl, out += ld)
        for (ptrdiff_t q = 0; q < ld; q++)
            out[q] = line[q / F];
}

/* One vector of `rows` rows of the result: constants are `rows` and `down`. weights[channel][tap across][tap down]. */
INLINE void NAME(spread_vectors)(const int rows, const int down, const struct nnx_band *s, const REAL *x,
                                 const REAL *weights, NAME(vec) bias, NAME(vec) *sum)
{
    const ptrdiff_t row = s->C * s->ld;
    UNROLL(8)
    for (int r = 0; r < rows; r++)
        sum[r] = bias;
    for (ptrdiff_t c = 0; c < s->C; c++, x += s->ld)
        for (ptrdiff_t k = 0; k < s->across; k++, weights += down * VLEN) {
            const REAL *from = x + k * s->F;
            NAME(vec) w[SPREAD_DOWN];
            UNROLL(7)
            for (int i = 0; i < down; i++)
                w[i] = LOAD(weights + i * VLEN);
            UNROLL(14)
            for (int t = 0; t < rows + down - 1; t++) {
                const NAME(vec) a = LOAD(from);
                ADVANCE(from, row);
                UNROLL(7)
                for (int i = 0; i < down; i++)
                    if (t - i >= 0 && t - i < rows)
                        sum[t - i] += a * w[i];
            }
        }
}

/* `rows` rows of the result, whose rows lie behind each other. */
INLINE void NAME(spread_rows)(const int rows, const int down, const struct nnx_band *s, const REAL *x,
                              const REAL *weights, const REAL *bias, int relu, REAL *y)
{
    const ptrdiff_t period = NAME(spread_period)(s->F), size = s->C * s->across * down * VLEN, width = s->width;
    for (ptrdiff_t q = 0, v = 0; q < width; q += VLEN, v = v + 1 == period ? 0 : v + 1) {
        const ptrdiff_t n = width - q < VLEN ? width - q : VLEN;
        NAME(vec) sum[SPREAD_ROWS];
        NAME(spread_vectors)(rows, down, s, x + q, weights + v * size, LOAD(bias + v * VLEN), sum);
        UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const NAME(vec) result = relu ? NAME(positive)(sum[r]) : sum[r];
            if (n == VLEN)
                STORE(y + r * width + q, result);
            else
                NAME(store_part)(y + r * width + q, result, n);
        }
    }
}

/* Call f(rows, down, arguments) for blocks of rows: 8, 4, 2 or 1, with constants. */
#define SPREAD_BLOCKS(f, total, ...) \
    switch (down) { \
    case 3: \
        SPREAD_STEPS(f, 3, total, __VA_ARGS__) \
        break; \
    case 5: \
        SPREAD_STEPS(f, 5, total, __VA_ARGS__) \
        break; \
    case 7: \
        SPREAD_STEPS(f, 7, total, __VA_ARGS__) \
        break; \
    }
#if SPREAD_ROWS == 8
#define SPREAD_STEPS(f, down, total, ...) \
    for (; i + 8 <= total; i += 8) \
        NAME(f)(8, down, __VA_ARGS__); \
    SPREAD_REST(f, down, total, __VA_ARGS__)
#else
#define SPREAD_STEPS(f, down, total, ...) SPREAD_REST(f, down, total, __VA_ARGS__)
#endif
#define SPREAD_REST(f, down, total, ...) \
    for (; i + 4 <= total; i += 4) \
        NAME(f)(4, down, __VA_ARGS__); \
    for (; i + 2 <= total; i += 2) \
        NAME(f)(2, down, __VA_ARGS__); \
    for (; i < total; i++) \
        NAME(f)(1, down, __VA_ARGS__);

/* y = bias + x * w for a band, or with `relu` its positive part. x: see nnx_band, readable up to VLEN numbers behind the
 * last that a tap meets. weights[phase][channel][tap across][tap down][VLEN], bias[phase][VLEN]. */
static void NAME(spread_forward)(const struct nnx_band *s, const REAL *x, const REAL *weights, const REAL *bias,
                                 int relu, REAL *y)
{
    const ptrdiff_t row = s->C * s->ld;
    const int down = (int)s->down;
    ptrdiff_t i = 0;
    SPREAD_BLOCKS(spread_rows, s->rows, s, x + i * row, weights, bias, relu, y + i * s->width)
}

/* One or two neighbouring taps of a channel: sums[tap across][tap down] += x gy over the vectors of one phase. */
INLINE void NAME(spread_products)(const int rows, const int down, const int taps, const struct nnx_band *s,
                                  const REAL *x, const REAL *gy, ptrdiff_t ldg, ptrdiff_t vectors, ptrdiff_t step,
                                  REAL *sums)
{
    const ptrdiff_t row = s->C * s->ld, F = s->F;
    NAME(vec) sum[2][SPREAD_DOWN];
    UNROLL(2)
    for (int k = 0; k < taps; k++)
        UNROLL(7)
        for (int i = 0; i < down; i++)
            sum[k][i] = LOAD(sums + (k * down + i) * VLEN);
    for (ptrdiff_t v = 0; v < vectors; v++, x += step, gy += step) {
        NAME(vec) g[SPREAD_ROWS];
        const REAL *from = x, *to = gy;
        UNROLL(8)
        for (int r = 0; r < rows; r++) {
            g[r] = LOAD(to);
            ADVANCE(to, ldg);
        }
        UNROLL(14)
        for (int t = 0; t < rows + down - 1; t++) {
            const NAME(vec) a = LOAD(from), b = taps == 2 ? LOAD(from + F) : a;
            ADVANCE(from, row);
            UNROLL(7)
            for (int i = 0; i < down; i++)
                if (t - i >= 0 && t - i < rows) {
                    sum[0][i] += a * g[t - i];
                    if (taps == 2)
                        sum[1][i] += b * g[t - i];
                }
        }
    }
    UNROLL(2)
    for (int k = 0; k < taps; k++)
        UNROLL(7)
        for (int i = 0; i < down; i++)
            STORE(sums + (k * down + i) * VLEN, sum[k][i]);
}

/* The vectors of one phase in `rows` rows, for all taps. */
INLINE void NAME(spread_phase)(const int rows, const int down, const struct nnx_band *s, const REAL *x,
                               const REAL *gy, ptrdiff_t ldg, ptrdiff_t vectors, ptrdiff_t step, REAL *sums)
{
    for (ptrdiff_t c = 0; c < s->C; c++, x += s->ld) {
        ptrdiff_t k = 0;
        for (; k + 2 <= s->across; k += 2, sums += 2 * down * VLEN)
            NAME(spread_products)(rows, down, 2, s, x + k * s->F, gy, ldg, vectors, step, sums);
        for (; k < s->across; k++, sums += down * VLEN)
            NAME(spread_products)(rows, down, 1, s, x + k * s->F, gy, ldg, vectors, step, sums);
    }
}

/* `rows` rows of gy. The last vector of a row, if it is no whole one, has a place of its own behind the phases, whose lanes
 * behind the row's end mean nothing. */
INLINE void NAME(spread_weight_rows)(const int rows, const int down, const struct nnx_band *s, const REAL *x,
                                     const REAL *gy, REAL *sums)
{
    const ptrdiff_t period = NAME(spread_period)(s->F), size = s->C * s->across * down * VLEN;
    const ptrdiff_t whole = s->width / VLEN, rest = s->width % VLEN;
    for (ptrdiff_t v = 0; v < period && v < whole; v++)
        NAME(spread_phase)(rows, down, s, x + v * VLEN, gy + v * VLEN, s->width, (whole - v + period - 1) / period,
                           period * VLEN, sums + v * size);
    if (rest) {
        REAL tail[SPREAD_ROWS * VLEN] = {0};
        for (int r = 0; r < rows; r++)
            memcpy(tail + r * VLEN, gy + r * s->width + whole * VLEN, rest * sizeof(REAL));
        NAME(spread_phase)(rows, down, s, x + whole * VLEN, tail, VLEN, 1, 0, sums + period * size);
    }
}

/* sums[phase, and one more for the rows' ends][channel][tap across][tap down][VLEN] += the band's part of the weight
 * gradient, lane by lane. */
static void NAME(spread_weight)(const struct nnx_band *s, const REAL *x, const REAL *gy, REAL *sums)
{
    const ptrdiff_t row = s->C * s->ld;
    const int down = (int)s->down;
    ptrdiff_t i = 0;
    SPREAD_BLOCKS(spread_weight_rows, s->rows, s, x + i * row, gy + i * s->width, sums)
}

#undef SPREAD_ROWS
#undef SPREAD_DOWN
#undef SPREAD_BLOCKS
#undef SPREAD_STEPS
#undef SPREAD_REST
