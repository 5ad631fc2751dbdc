/* Kernels of the family "spread": X(result, name, (arguments)), see table.h. */
#ifndef NNX_SPREAD_TABLE_H
#define NNX_SPREAD_TABLE_H

#include <stddef.h>

/* A band of an image in which each number stands F times, once for each filter: spread[row][channel][pixel][F]. */
struct nnx_band {
    ptrdiff_t rows;         /* of the result */
    ptrdiff_t width;        /* numbers in a row of the result: its pixels times F */
    ptrdiff_t C, F;
    ptrdiff_t down, across; /* taps of a filter; `down` is 3, 5 or 7 */
    ptrdiff_t ld;           /* numbers from one channel of a row to the next */
};

#define NNX_TABLE_spread(X, REAL) \
    X(ptrdiff_t, spread_lanes, (void)) \
    X(ptrdiff_t, spread_period, (ptrdiff_t F)) \
    X(void, spread_numbers, (ptrdiff_t F, ptrdiff_t lines, const REAL *line, ptrdiff_t ldl, REAL *out, ptrdiff_t ld)) \
    X(void, spread_forward, (const struct nnx_band *s, const REAL *x, const REAL *weights, const REAL *bias, \
                             int relu, REAL *y)) \
    X(void, spread_weight, (const struct nnx_band *s, const REAL *x, const REAL *gy, REAL *sums))

#endif
