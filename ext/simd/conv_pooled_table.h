/* Kernels of the family "conv_pooled": X(result, name, (arguments)), see table.h. */
#ifndef NNX_CONV_POOLED_TABLE_H
#define NNX_CONV_POOLED_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* A band of the outputs of a max pooling, and the padded band of the convolution's input that lies under it. The maximum
 * whose index is k came from the pixel under which the filter begins at place[k] numbers behind the window's first. */
struct nnx_pooled {
    ptrdiff_t rows, columns;         /* windows of the band */
    ptrdiff_t row_step, column_step; /* from one window to the next, in numbers of the padded band */
    ptrdiff_t F;                     /* channels of the pooling, filters of the convolution */
    ptrdiff_t taps;                  /* of a window; an index from `taps` on is that of no element */
    ptrdiff_t down, run, ld;         /* rows of a filter, numbers in each, and from one to the next in the band */
    ptrdiff_t place[256];
};

#define NNX_TABLE_conv_pooled(X, REAL) \
    X(ptrdiff_t, pooled_lanes, (void)) \
    X(void, pooled_weight, (const struct nnx_pooled *s, const REAL *gy, const uint8_t *index, const REAL *x, REAL *sums, \
                            REAL *total))

#endif
