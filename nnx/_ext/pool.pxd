# The kernels of ext/simd/pool.h, and the pooling of a band that another module has just computed (convolution).

from libc.stdint cimport int64_t, uint8_t

cimport numpy as cnp

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image
from nnx._ext.simd cimport table

cdef extern from "table.h" nogil:
    struct nnx_pool_windows:
        Py_ssize_t channels
        Py_ssize_t size[3]
        Py_ssize_t out[3]
        Py_ssize_t kernel[3]
        Py_ssize_t stride[3]
        Py_ssize_t padding[3]
        Py_ssize_t dilation[3]

    struct nnx_pool_boxes:
        Py_ssize_t channels
        Py_ssize_t size[3]
        Py_ssize_t out[3]
        const int64_t *start[3]
        const int64_t *end[3]
        const double *count[3]

    struct nnx_pool:
        void (*max_row_f32)(
            const nnx_pool_windows *, const float *, Py_ssize_t, Py_ssize_t, float *, void *, int
        ) noexcept nogil
        void (*max_row_f64)(
            const nnx_pool_windows *, const double *, Py_ssize_t, Py_ssize_t, double *, void *, int
        ) noexcept nogil
        void (*max_row_backward_f32)(
            const nnx_pool_windows *, const float *, const void *, int, Py_ssize_t, Py_ssize_t, float *
        ) noexcept nogil
        void (*max_row_backward_f64)(
            const nnx_pool_windows *, const double *, const void *, int, Py_ssize_t, Py_ssize_t, double *
        ) noexcept nogil
        void (*max_image_backward_f32)(
            const nnx_pool_windows *, const float *, const void *, int, float *
        ) noexcept nogil
        void (*max_image_backward_f64)(
            const nnx_pool_windows *, const double *, const void *, int, double *
        ) noexcept nogil
        void (*max_row_squares_f32)(
            const nnx_pool_windows *, const float *, Py_ssize_t, float *, uint8_t *
        ) noexcept nogil
        void (*max_row_squares_f64)(
            const nnx_pool_windows *, const double *, Py_ssize_t, double *, uint8_t *
        ) noexcept nogil
        void (*max_row_squares_backward_f32)(
            const nnx_pool_windows *, const float *, const uint8_t *, Py_ssize_t, float *
        ) noexcept nogil
        void (*max_row_squares_backward_f64)(
            const nnx_pool_windows *, const double *, const uint8_t *, Py_ssize_t, double *
        ) noexcept nogil
        void (*max_row_drop_f32)(Py_ssize_t, const float *, void *, int) noexcept nogil
        void (*max_row_drop_f64)(Py_ssize_t, const double *, void *, int) noexcept nogil
        void (*mean_row_f32)(
            const nnx_pool_boxes *, const float *, Py_ssize_t, Py_ssize_t, float *
        ) noexcept nogil
        void (*mean_row_f64)(
            const nnx_pool_boxes *, const double *, Py_ssize_t, Py_ssize_t, double *
        ) noexcept nogil
        void (*mean_row_backward_f32)(
            const nnx_pool_boxes *, const float *, Py_ssize_t, Py_ssize_t, float *
        ) noexcept nogil
        void (*mean_row_backward_f64)(
            const nnx_pool_boxes *, const double *, Py_ssize_t, Py_ssize_t, double *
        ) noexcept nogil

# The image batch y of maxima with the rows and columns, `size`, of what is pooled; returns the data of `index`. Both
# are channels-last, with half as many rows and columns.
cdef uint8_t *read_pooled(cnp.ndarray y, cnp.ndarray index, tuple size, int kind, str kernel, Image *image) except? NULL

# y, index = the largest number of each square of 2x2 pixels of a band, which is a positive part: as max_pool(). An odd
# last row or column belongs to no square.
cdef inline void pool_squares(const real *band, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t channels, real *y,
                              uint8_t *index) noexcept nogil:
    cdef const nnx_pool *kernels = <const nnx_pool *> table().pool
    cdef nnx_pool_windows g
    cdef Py_ssize_t row = columns // 2 * channels, r
    g.channels, g.size[2], g.out[2] = channels, columns, columns // 2
    for r in range(rows // 2):
        if real is float:
            kernels.max_row_squares_f32(&g, band, r, y + r * row, index + r * row)
            kernels.max_row_drop_f32(row, y + r * row, index + r * row, False)
        else:
            kernels.max_row_squares_f64(&g, band, r, y + r * row, index + r * row)
            kernels.max_row_drop_f64(row, y + r * row, index + r * row, False)
