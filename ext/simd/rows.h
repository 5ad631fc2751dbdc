/* Sums and maxima over one row, for kernels that include this file once for each REAL.
 *
 * A sum is kept in WIDTH parts: element j goes to part j % WIDTH, and the parts are added in a fixed order. So its bits
 * depend on the row alone, not on where it lies.
 */
#include "elementary.h"

#ifndef WIDTH
#define WIDTH 16
#endif

static inline REAL NAME(add_parts)(REAL *part)
{
    for (int w = WIDTH / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            part[j] += part[j + w];
    return part[0];
}

/* The largest element; NaN is passed over, of nothing it is -inf. */
static inline REAL NAME(row_max)(const REAL *x, ptrdiff_t n)
{
    REAL part[WIDTH];
    ptrdiff_t i = 0;
    for (int j = 0; j < WIDTH; j++)
        part[j] = -INFINITY;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
    for (int j = 0; i + j < n; j++)
        part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
    for (int w = WIDTH / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            part[j] = part[j + w] > part[j] ? part[j + w] : part[j];
    return part[0];
}

static inline REAL NAME(row_sum)(const REAL *x, ptrdiff_t n)
{
    REAL part[WIDTH] = {0};
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] += x[i + j];
    for (int j = 0; i + j < n; j++)
        part[j] += x[i + j];
    return NAME(add_parts)(part);
}

static inline REAL NAME(row_dot)(const REAL *x, const REAL *y, ptrdiff_t n)
{
    REAL part[WIDTH] = {0};
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] = NAME(fma)(x[i + j], y[i + j], part[j]);
    for (int j = 0; i + j < n; j++)
        part[j] = NAME(fma)(x[i + j], y[i + j], part[j]);
    return NAME(add_parts)(part);
}

/* y = exp(x - shift), unless y is NULL; returns the sum. The rest of a row is filled up and takes the same code. */
static inline REAL NAME(row_exp)(const REAL *x, REAL *y, ptrdiff_t n, REAL shift)
{
    REAL part[WIDTH] = {0}, rest[WIDTH], result[WIDTH];
    for (ptrdiff_t i = 0; i < n; i += WIDTH) {
        const ptrdiff_t left = n - i;
        const REAL *in = x + i;
        if (left < WIDTH) {
            for (int j = 0; j < WIDTH; j++)
                rest[j] = -INFINITY;
            memcpy(rest, in, left * sizeof(REAL));
            in = rest;
        }
        for (int j = 0; j < WIDTH; j++) {
            result[j] = NAME(exp)(in[j] - shift);
            part[j] += result[j];
        }
        if (y)
            memcpy(y + i, result, (left < WIDTH ? left : WIDTH) * sizeof(REAL));
    }
    return NAME(add_parts)(part);
}
