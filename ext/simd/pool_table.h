/* Kernels of the family "pool": X(result, name, (arguments)), see table.h. */

/* Arrays are (D, H, W, C) in memory, images and rows one after the other; fewer spatial dimensions are padded with 1. */

/* Windows of max pooling: the same along the whole axis. */
struct nnx_pool_windows {
    ptrdiff_t channels, size[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
};

/* Boxes of average pooling: output o is the sum over [start[o], end[o]) along each axis, divided by the counts' product. */
struct nnx_pool_boxes {
    ptrdiff_t channels, size[3], out[3];
    const int64_t *start[3], *end[3];
    const double *count[3];
};

#define NNX_TABLE_pool(X, REAL) \
    X(void, max_row, \
      (const struct nnx_pool_windows *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y, void *index, int wide)) \
    X(void, max_row_backward, \
      (const struct nnx_pool_windows *g, const REAL *gy, const void *index, int wide, ptrdiff_t d, ptrdiff_t h, \
       REAL *gx)) \
    X(void, max_image_backward, \
      (const struct nnx_pool_windows *g, const REAL *gy, const void *index, int wide, REAL *gx)) \
    X(void, max_row_squares, \
      (const struct nnx_pool_windows *g, const REAL *x, ptrdiff_t oh, REAL *y, uint8_t *index)) \
    X(void, max_row_squares_backward, \
      (const struct nnx_pool_windows *g, const REAL *gy, const uint8_t *index, ptrdiff_t oh, REAL *gx)) \
    X(void, max_row_drop, (ptrdiff_t n, const REAL *y, void *index, int wide)) \
    X(void, mean_row, (const struct nnx_pool_boxes *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y)) \
    X(void, mean_row_backward, \
      (const struct nnx_pool_boxes *g, const REAL *gy, ptrdiff_t d, ptrdiff_t h, REAL *gx))
