/* What convolution needs beside matrix products: rows of the column matrix, and depthwise convolution.
 *
 * Everything is channels-last: the numbers of a pixel's channels lie together, y and gy are (rows, channels).
 */
#include "vector.h"

#if defined(__GNUC__)
typedef REAL NAME(quad) __attribute__((vector_size(4 * sizeof(REAL)), aligned(REAL_IS_FLOAT ? 4 : 8), may_alias));
#endif

/* Runs are short (a pixel's channels, or a few pixels), so a call of memcpy would cost more than the copy. */
INLINE REAL *NAME(copy)(REAL *to, const REAL *from, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if defined(__GNUC__)
    for (; i + VLEN <= n; i += VLEN)
        STORE(to + i, LOAD(from + i));
    for (; i + 4 <= n; i += 4)
        *(NAME(quad) *)(to + i) = *(const NAME(quad) *)(from + i);
#endif
    for (; i < n; i++) {
        to[i] = from[i];
#if defined(__GNUC__)
        __asm__ volatile("" ::: "memory"); /* keeps the compiler from turning this loop into memcpy */
#endif
    }
    return to + n;
}

INLINE REAL *NAME(zero)(REAL *to, ptrdiff_t n)
{
    memset(to, 0, n * sizeof(REAL));
    return to + n;
}

/* columns[rows][taps][channels] */
static void NAME(gather)(const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows, REAL *columns)
{
    const struct nnx_view v = *view;
    const ptrdiff_t C = v.channels, run = v.taps[2] * C;
    ptrdiff_t q2 = first % v.count[2], rest = first / v.count[2];
    ptrdiff_t q1 = rest % v.count[1];
    rest /= v.count[1];
    ptrdiff_t q0 = rest % v.count[0], n = rest / v.count[0];
    /* neighbouring taps that are neighbours in memory are copied in one go */
    int joined = (v.channel == 1 || C == 1) && v.stride[2] == C;
    for (ptrdiff_t k = 1; k < v.taps[2]; k++)
        joined &= v.offset[2][k] == v.offset[2][k - 1] + 1;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const REAL *image = x + n * v.image;
        for (ptrdiff_t k0 = 0; k0 < v.taps[0]; k0++) {
            const ptrdiff_t i0 = q0 * v.step[0] + v.offset[0][k0];
            if (i0 < 0 || i0 >= v.size[0]) {
                columns = NAME(zero)(columns, v.taps[1] * run);
                continue;
            }
            for (ptrdiff_t k1 = 0; k1 < v.taps[1]; k1++) {
                const ptrdiff_t i1 = q1 * v.step[1] + v.offset[1][k1];
                if (i1 < 0 || i1 >= v.size[1]) {
                    columns = NAME(zero)(columns, run);
                    continue;
                }
                const REAL *line = image + i0 * v.stride[0] + i1 * v.stride[1];
                if (joined) {
                    const ptrdiff_t start = q2 * v.step[2] + v.offset[2][0];
                    if (start >= 0 && start + v.taps[2] <= v.size[2]) {
                        columns = NAME(copy)(columns, line + start * C, run);
                        continue;
                    }
                }
                for (ptrdiff_t k2 = 0; k2 < v.taps[2]; k2++) {
                    const ptrdiff_t i2 = q2 * v.step[2] + v.offset[2][k2];
                    if (i2 < 0 || i2 >= v.size[2])
                        columns = NAME(zero)(columns, C);
                    else if (v.channel == 1)
                        columns = NAME(copy)(columns, line + i2 * v.stride[2], C);
                    else
                        for (ptrdiff_t c = 0; c < C; c++)
                            *columns++ = line[i2 * v.stride[2] + c * v.channel];
                }
            }
        }
        if (++q2 == v.count[2]) {
            q2 = 0;
            if (++q1 == v.count[1]) {
                q1 = 0;
                if (++q0 == v.count[0]) {
                    q0 = 0;
                    n++;
                }
            }
        }
    }
}

/* Call `body` for each row and each tap that meets a source pixel; sees row r, tap number k and the pixel's channels p. */
#define FOR_EACH_TAP(body) \
    for (ptrdiff_t r = 0; r < rows; r++) { \
        const ptrdiff_t at = first + r, q2 = at % v.count[2], q1 = at / v.count[2] % v.count[1]; \
        const ptrdiff_t image = at / v.count[2] / v.count[1], q0 = image % v.count[0], n = image / v.count[0]; \
        ptrdiff_t k = 0; \
        for (ptrdiff_t k0 = 0; k0 < v.taps[0]; k0++) { \
            const ptrdiff_t i0 = q0 * v.step[0] + v.offset[0][k0]; \
            for (ptrdiff_t k1 = 0; k1 < v.taps[1]; k1++) { \
                const ptrdiff_t i1 = q1 * v.step[1] + v.offset[1][k1]; \
                for (ptrdiff_t k2 = 0; k2 < v.taps[2]; k2++, k++) { \
                    const ptrdiff_t i2 = q2 * v.step[2] + v.offset[2][k2]; \
                    if (i0 < 0 || i0 >= v.size[0] || i1 < 0 || i1 >= v.size[1] || i2 < 0 || i2 >= v.size[2]) \
                        continue; \
                    const REAL *p = x + n * v.image + i0 * v.stride[0] + i1 * v.stride[1] + i2 * v.stride[2]; \
                    body \
                } \
            } \
        } \
    }

/* y[r][c] = bias[c] + sum_k x[pixel of (r, k)][c] w[k][c], or with `relu` its positive part: one filter per channel,
 * nothing is shared between channels. */
static void NAME(depthwise)(const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows, const REAL *w,
                            const REAL *bias, int relu, REAL *y)
{
    const struct nnx_view v = *view;
    const ptrdiff_t C = v.channels;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < C; c++)
            y[r * C + c] = bias ? bias[c] : 0;
    FOR_EACH_TAP({
        REAL *RESTRICT out = y + r * C;
        const REAL *f = w + k * C;
        for (ptrdiff_t c = 0; c < C; c++)
            out[c] += p[c] * f[c];
    })
    if (relu)
        for (ptrdiff_t i = 0; i < rows * C; i++)
            y[i] = y[i] <= 0 ? 0 : y[i];
}

/* gw[k][c] += sum_r x[pixel of (r, k)][c] gy[r][c] */
static void NAME(depthwise_weight)(const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows,
                                   const REAL *gy, REAL *gw)
{
    const struct nnx_view v = *view;
    const ptrdiff_t C = v.channels;
    FOR_EACH_TAP({
        REAL *RESTRICT sum = gw + k * C;
        const REAL *g = gy + r * C;
        for (ptrdiff_t c = 0; c < C; c++)
            sum[c] += p[c] * g[c];
    })
}

#undef FOR_EACH_TAP
