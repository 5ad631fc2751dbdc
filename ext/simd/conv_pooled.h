/* The gradient of a convolution's weights behind max pooling, from the pooled gradients alone: ext/conv_pooled.pyx.
 *
 * Of the gradient of the convolution's result all numbers are zero but one in each window. Each of these, times the numbers
 * of the input under its filter, is added to sums that stay in registers: those of a block of the filter's rows, whose
 * numbers lie together in a channels-last image. Where a row is short, half a vector costs less: fewer of its loads reach
 * into the next cache line.
 */
#include "vector.h"
#include "conv_pooled_table.h"

#ifndef POOLED_ROWS
#define POOLED_ROWS 6 /* of a filter, in a block: with two vectors each, or with two sets of one, 12 sums */
#endif

static ptrdiff_t NAME(pooled_lanes)(void)
{
    return VLEN;
}

/* g, or 0 where the maximum was no element: by bits, for a branch would often be guessed wrong */
INLINE REAL NAME(pooled_gradient)(REAL g, ptrdiff_t number, ptrdiff_t taps)
{
    BITS bits;
    memcpy(&bits, &g, sizeof(REAL));
    bits &= -(BITS)(number < taps);
    memcpy(&g, &bits, sizeof(REAL));
    return g;
}

/* name(rows, vectors, sets, ...): sums[r] += the products of one filter, for `rows` rows of it; `total` += the gradients.
 * Constants where it is inlined: rows, vectors in a row, and sets of sums, so that additions need not wait for each other. */
#define POOLED_BLOCK(name, vec, width) \
    INLINE void NAME(name##_add)(const int rows, const int vectors, REAL g, const REAL *x, ptrdiff_t ld, vec sum[][2]) \
    { \
        UNROLL(6) \
        for (int r = 0; r < rows; r++) { \
            sum[r][0] += g * *(const vec *)(x + r * ld); \
            if (vectors == 2) \
                sum[r][1] += g * *(const vec *)(x + r * ld + width); \
        } \
    } \
    INLINE void NAME(name)(const int rows, const int vectors, const int sets, const struct nnx_pooled *s, const REAL *gy, \
                           const uint8_t *index, const REAL *x, REAL *sums, ptrdiff_t lds, REAL *total) \
    { \
        const ptrdiff_t F = s->F, ld = s->ld, taps = s->taps; \
        REAL all = *total; \
        vec even[POOLED_ROWS][2], odd[POOLED_ROWS][2]; \
        memset(even, 0, sizeof(even)); \
        memset(odd, 0, sizeof(odd)); \
        for (ptrdiff_t i = 0; i < s->rows; i++) { \
            const REAL *window = x + i * s->row_step; \
            ptrdiff_t left = s->columns; \
            for (; sets == 2 && left >= 2; left -= 2, gy += 2 * F, index += 2 * F, window += 2 * s->column_step) { \
                const ptrdiff_t k = index[0], next = index[F]; \
                const REAL g = NAME(pooled_gradient)(gy[0], k, taps), h = NAME(pooled_gradient)(gy[F], next, taps); \
                all += g + h; \
                NAME(name##_add)(rows, vectors, g, window + s->place[k], ld, even); \
                NAME(name##_add)(rows, vectors, h, window + s->column_step + s->place[next], ld, odd); \
            } \
            for (; left > 0; left--, gy += F, index += F, window += s->column_step) { \
                const REAL g = NAME(pooled_gradient)(*gy, *index, taps); \
                all += g; \
                NAME(name##_add)(rows, vectors, g, window + s->place[*index], ld, even); \
            } \
        } \
        *total = all; \
        UNROLL(6) \
        for (int r = 0; r < rows; r++) { \
            vec *to = (vec *)(sums + r * lds); \
            *to += even[r][0] + odd[r][0]; \
            if (vectors == 2) { \
                to = (vec *)(sums + r * lds + width); \
                *to += even[r][1] + odd[r][1]; \
            } \
        } \
    }

#define POOLED_CASE(name, vectors, sets, n) \
    case n: \
        NAME(name)(n, vectors, sets, s, gy, index, x, sums, lds, total); \
        break;

/* The number of rows becomes a constant here. */
#define POOLED_FUNCTION(function, name, vectors, sets) \
    static void NAME(function)(int rows, const struct nnx_pooled *s, const REAL *gy, const uint8_t *index, const REAL *x, \
                               REAL *sums, ptrdiff_t lds, REAL *total) \
    { \
        switch (rows) { \
            POOLED_CASE(name, vectors, sets, 1) \
            POOLED_CASE(name, vectors, sets, 2) \
            POOLED_CASE(name, vectors, sets, 3) \
            POOLED_CASE(name, vectors, sets, 4) \
            POOLED_CASE(name, vectors, sets, 5) \
            POOLED_CASE(name, vectors, sets, 6) \
        } \
    }

POOLED_BLOCK(pooled_whole, NAME(vec), VLEN)
POOLED_FUNCTION(pooled_one, pooled_whole, 1, 2)
POOLED_FUNCTION(pooled_two, pooled_whole, 2, 1)
#if defined(__GNUC__) && LANES >= 8
typedef REAL NAME(half_vec) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(REAL_IS_FLOAT ? 4 : 8), may_alias));
POOLED_BLOCK(pooled_half, NAME(half_vec), (VLEN / 2))
POOLED_FUNCTION(pooled_short, pooled_half, 1, 2)
#else
#define pooled_short_f32 pooled_one_f32
#define pooled_short_f64 pooled_one_f64
#endif

/* sums[f][row][numbers of a row, up to whole vectors] += the gradient of the weights from a band; total[f] += that of the
 * bias. gy and index: of the band's windows, channels-last. x: the padded band, readable up to 2 VLEN numbers behind it. */
static void NAME(pooled_weight)(const struct nnx_pooled *s, const REAL *gy, const uint8_t *index, const REAL *x, REAL *sums,
                                REAL *total)
{
    const ptrdiff_t lds = (s->run + VLEN - 1) / VLEN * VLEN, blocks = (s->down + POOLED_ROWS - 1) / POOLED_ROWS;
    for (ptrdiff_t f = 0; f < s->F; f++, sums += s->down * lds)
        for (ptrdiff_t b = 0; b < blocks; b++) {
            const ptrdiff_t first = s->down * b / blocks, rows = s->down * (b + 1) / blocks - first;
            const REAL *from = x + first * s->ld;
            REAL *to = sums + first * lds;
            for (ptrdiff_t c = 0; c < s->run; c += 2 * VLEN) {
                REAL rest = 0, *bias = b == 0 && c == 0 ? total + f : &rest;
                if (s->run - c > VLEN)
                    NAME(pooled_two)((int)rows, s, gy + f, index + f, from + c, to + c, lds, bias);
                else if (s->run - c > VLEN / 2)
                    NAME(pooled_one)((int)rows, s, gy + f, index + f, from + c, to + c, lds, bias);
                else
                    NAME(pooled_short)((int)rows, s, gy + f, index + f, from + c, to + c, lds, bias);
            }
        }
}
