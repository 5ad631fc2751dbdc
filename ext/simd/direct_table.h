/* Kernels of the family "direct": X(result, name, (arguments)), see table.h. */
#ifndef NNX_DIRECT_TABLE_H
#define NNX_DIRECT_TABLE_H

#include <stddef.h>

/* How the pixels of a result read their source in place. The taps that lie together in memory are a run: `length`
 * numbers that begin offset[run] behind the pixel's first number. Steps are in numbers. */
struct nnx_taps {
    ptrdiff_t rows, columns;        /* pixels of the result */
    ptrdiff_t row_step, pixel_step; /* in the source */
    ptrdiff_t runs, length;
    const ptrdiff_t *offset;
    /* Which of them lie in the padding: tap (z, i) of the result's row r reads row top + r * stride + i * dilation of
     * plane front + z * depth_dilation. Runs are ordered by planes, then rows, of which each has `beside`. */
    ptrdiff_t planes, down, beside;       /* runs == planes * down * beside */
    ptrdiff_t front, depth, depth_dilation;
    ptrdiff_t top, height, stride, dilation;
    ptrdiff_t result_row; /* forward: from a row of the result to the next one, in numbers */
    /* forward: images like the result or NULL, of whole vectors of channels: what is added to it, and where it becomes 0:
     * where this one is not positive */
    const void *added, *positive;
    int stream; /* forward: whether results are stored past the caches; a pixel is whole cache lines */
};

#define NNX_TABLE_direct(X, REAL) \
    X(ptrdiff_t, direct_grouped_most, (void)) \
    X(void, direct_forward, (const struct nnx_taps *taps, const REAL *x, ptrdiff_t F, const REAL *packed, \
                             const REAL *bias, int relu, REAL *y, ptrdiff_t ldy, REAL *line)) \
    X(void, direct_weight, (const struct nnx_taps *taps, const REAL *x, ptrdiff_t F, const REAL *gy, ptrdiff_t ldg, \
                            ptrdiff_t first, ptrdiff_t last, int fresh, REAL *sum, ptrdiff_t ld)) \
    X(void, direct_weight_turned, (const struct nnx_taps *taps, const REAL *x, ptrdiff_t F, const REAL *gy, \
                                   ptrdiff_t ldg, ptrdiff_t first, ptrdiff_t last, int fresh, REAL *sum, ptrdiff_t ld)) \
    X(ptrdiff_t, direct_weight_blocks, (ptrdiff_t F)) \
    X(void, direct_depthwise, (const struct nnx_taps *taps, const REAL *x, ptrdiff_t C, const REAL *w, \
                               const REAL *bias, int relu, REAL *y, ptrdiff_t ldy)) \
    X(void, direct_depthwise_weight, (const struct nnx_taps *taps, const REAL *x, ptrdiff_t C, const REAL *gy, \
                                      REAL *sum)) \
    X(void, direct_depthwise_scatter, (const struct nnx_taps *taps, const REAL *gy, ptrdiff_t C, const REAL *w, \
                                       REAL *x)) \
    X(void, direct_add, (const struct nnx_taps *taps, const REAL *gy, ptrdiff_t first, ptrdiff_t last, \
                         const REAL *packed, ptrdiff_t reach, ptrdiff_t step, REAL *line, REAL *lines, \
                         ptrdiff_t ld)) \
    X(void, direct_scatter, (const struct nnx_taps *taps, const REAL *columns, ptrdiff_t padded, REAL *x))

#endif
