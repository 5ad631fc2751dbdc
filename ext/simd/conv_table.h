/* Kernels of the family "conv": X(result, name, (arguments)), see table.h. */
#ifndef NNX_CONV_TABLE_H
#define NNX_CONV_TABLE_H

#include <stddef.h>

/* How the rows of a column matrix are read from an image batch. Row (n, q0, q1, q2) and tap (k0, k1, k2) meet the source
 * pixel q[d] * step[d] + offset[d][k[d]] of image n, which is zero outside of size[d].
 * A convolution reads its input so (step = stride, offset = k * dilation - padding); its data gradient reads gy so, with
 * step 1, once for each remainder of the input position modulo the stride. */
struct nnx_view {
    ptrdiff_t channels;       /* channels that are read */
    ptrdiff_t image, channel; /* strides of the source, in numbers */
    ptrdiff_t stride[3];
    ptrdiff_t size[3];  /* the source's depth, height, width */
    ptrdiff_t count[3]; /* positions q per image */
    ptrdiff_t step[3];
    ptrdiff_t taps[3];
    const ptrdiff_t *offset[3]; /* for each axis and tap */
};

#define NNX_TABLE_conv(X, REAL) \
    X(void, gather, (const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows, REAL *columns)) \
    X(void, depthwise, (const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows, const REAL *w, \
                        const REAL *bias, int relu, REAL *y)) \
    X(void, depthwise_weight, (const struct nnx_view *view, const REAL *x, ptrdiff_t first, ptrdiff_t rows, \
                               const REAL *gy, REAL *gw))

#endif
