/* Kernels of the family "winograd": X(result, name, (arguments)), see table.h. */
#ifndef NNX_WINOGRAD_TABLE_H
#define NNX_WINOGRAD_TABLE_H

#include <stddef.h>

/* A batch of channels-last images cut into tiles of 4x4 output pixels. */
struct nnx_tiles {
    ptrdiff_t height, width; /* of the image that is read or written */
    ptrdiff_t channels;
    ptrdiff_t top, left; /* zeros before the first row and column (0 for an image of results) */
    ptrdiff_t down, across; /* tiles per image */
    ptrdiff_t image, row, pixel; /* strides, in numbers */
    int stream; /* results: whether they are stored past the caches; a pixel is whole cache lines */
    /* results, images like them or NULL: what is added to them, and where they become 0: where this one is not positive */
    const void *added, *positive;
};

#define WINOGRAD_ROWS 8 /* of a weight gradient, which are computed together: as many filters, or a vector of them */

#define WINOGRAD_PAD 16 /* numbers between two of 36 matrices, which would fall onto the same sets of the caches otherwise */

#define NNX_TABLE_winograd(X, REAL) \
    X(ptrdiff_t, winograd_lanes, (void)) \
    X(void, winograd_weights, (ptrdiff_t C, ptrdiff_t first, ptrdiff_t filters, const REAL *w, ptrdiff_t sf, \
                               ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw, ptrdiff_t panel, REAL *packed, \
                               ptrdiff_t step)) \
    X(void, winograd_input, (const struct nnx_tiles *x, const REAL *data, ptrdiff_t first, ptrdiff_t tiles, REAL *V, \
                             ptrdiff_t ld, ptrdiff_t step)) \
    X(void, winograd_products, (ptrdiff_t tiles, ptrdiff_t C, ptrdiff_t c_row, ptrdiff_t f_row, const REAL *V, \
                                ptrdiff_t v_step, const REAL *packed, ptrdiff_t u_step, REAL *M, ptrdiff_t m_step)) \
    X(void, winograd_output, (const struct nnx_tiles *y, REAL *data, const REAL *bias, int relu, ptrdiff_t first, \
                              ptrdiff_t tiles, const REAL *M, ptrdiff_t ld, ptrdiff_t step, REAL *sums, int fresh)) \
    X(void, winograd_gradient, (const struct nnx_tiles *gy, const REAL *data, const REAL *zeros, ptrdiff_t first, \
                                ptrdiff_t tiles, REAL *D, ptrdiff_t ld, ptrdiff_t step)) \
    X(void, winograd_weight_products, (ptrdiff_t tiles, ptrdiff_t rows, ptrdiff_t c_row, ptrdiff_t f_row, \
                                       const REAL *V, ptrdiff_t v_step, const REAL *D, ptrdiff_t d_step, REAL *dU, \
                                       int accumulate)) \
    X(void, winograd_weight_gradient, (ptrdiff_t C, ptrdiff_t F, ptrdiff_t ld, ptrdiff_t f, const REAL *dU, REAL *gw, \
                                       ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw)) \
    X(void, winograd_weight_sum, (ptrdiff_t chunks, ptrdiff_t chunk, ptrdiff_t C, ptrdiff_t ld, const REAL *parts, \
                                  REAL *gw, ptrdiff_t sc, ptrdiff_t sh, ptrdiff_t sw))

#endif
