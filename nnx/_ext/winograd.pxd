# What winograd.pyx and winograd_images.pyx share: kernels of ext/simd/winograd.h, and how images are cut into tiles.

cimport numpy as cnp

from nnx._ext.conv cimport Image

cdef extern from "table.h" nogil:
    struct nnx_tiles:
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t channels
        Py_ssize_t top
        Py_ssize_t left
        Py_ssize_t down
        Py_ssize_t across
        Py_ssize_t image
        Py_ssize_t row
        Py_ssize_t pixel
        int stream
        const void *added
        const void *positive

    enum:
        WINOGRAD_ROWS
        WINOGRAD_PAD

    ctypedef struct nnx_winograd "struct nnx_winograd":
        Py_ssize_t (*winograd_lanes_f32)() noexcept nogil
        void (*winograd_weights_f32)(Py_ssize_t C, Py_ssize_t first, Py_ssize_t filters, const float *w, Py_ssize_t sf,
                                     Py_ssize_t sc, Py_ssize_t sh, Py_ssize_t sw, Py_ssize_t panel, float *packed,
                                     Py_ssize_t step) noexcept nogil
        void (*winograd_input_f32)(const nnx_tiles *x, const float *data, Py_ssize_t first, Py_ssize_t tiles, float *V,
                                   Py_ssize_t ld, Py_ssize_t step) noexcept nogil
        void (*winograd_products_f32)(Py_ssize_t tiles, Py_ssize_t C, Py_ssize_t c_row, Py_ssize_t f_row,
                                      const float *V, Py_ssize_t v_step, const float *packed, Py_ssize_t u_step,
                                      float *M, Py_ssize_t m_step) noexcept nogil
        void (*winograd_output_f32)(const nnx_tiles *y, float *data, const float *bias, int relu, Py_ssize_t first,
                                    Py_ssize_t tiles, const float *M, Py_ssize_t ld, Py_ssize_t step,
                                    float *sums, int fresh) noexcept nogil
        void (*winograd_gradient_f32)(const nnx_tiles *gy, const float *data, const float *zeros, Py_ssize_t first,
                                      Py_ssize_t tiles, float *D, Py_ssize_t ld, Py_ssize_t step) noexcept nogil
        void (*winograd_weight_products_f32)(Py_ssize_t tiles, Py_ssize_t rows, Py_ssize_t c_row, Py_ssize_t f_row,
                                             const float *V, Py_ssize_t v_step, const float *D, Py_ssize_t d_step,
                                             float *dU, int accumulate) noexcept nogil
        void (*winograd_weight_gradient_f32)(Py_ssize_t C, Py_ssize_t F, Py_ssize_t ld, Py_ssize_t f, const float *dU,
                                             float *gw, Py_ssize_t sc, Py_ssize_t sh, Py_ssize_t sw) noexcept nogil
        void (*winograd_weight_sum_f32)(Py_ssize_t chunks, Py_ssize_t chunk, Py_ssize_t C, Py_ssize_t ld,
                                        const float *parts, float *gw, Py_ssize_t sc, Py_ssize_t sh,
                                        Py_ssize_t sw) noexcept nogil

cdef enum:
    TILE_STEP = 12         # tiles; a multiple of the rows that are computed together
    CHUNK_TILES = 64       # of a partial gradient, at least, and at a time: fewer are added to it too often

cdef inline Py_ssize_t up(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    """The next multiple of `step`."""
    return (n + step - 1) // step * step


cdef inline bint in_place(Py_ssize_t c_row, Py_ssize_t f_row, Py_ssize_t lanes) noexcept nogil:
    """Whether products may take the place of their tiles, and both stay in the first-level cache."""
    return c_row == f_row <= 2 * lanes


# parts[filter][tap][c_row] = the weight gradient of dU (36, rows, c_row) before it goes to its strides.
cdef void weight_parts(const float *dU, Py_ssize_t C, Py_ssize_t F, Py_ssize_t rows, Py_ssize_t c_row,
                       float *parts) noexcept nogil

# Describe image `a`, cut where the results `y` are cut into squares of 4x4.
cdef void cut_tiles(nnx_tiles *t, const Image *a, const Image *y, Py_ssize_t top, Py_ssize_t left) noexcept nogil

# Shapes and padding of y = x * w.
cdef int check_shapes(const Image *x, const Image *w, const Image *y, tuple padding, str kernel) except -1
