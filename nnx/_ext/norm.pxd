# The kernels of ext/simd/norm.h, as ext/norm.pyx, ext/local_response.pyx and ext/winograd_images.pyx call them.

cimport numpy as cnp

cdef extern from "table.h" nogil:
    enum:
        NORM_WIDTH
        NORM_REACH
    ctypedef struct nnx_norm "struct nnx_norm":
        void (*moments_f32)(
            const float *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, double *sum,
            double *square) noexcept nogil
        void (*moments_f64)(
            const double *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, double *sum,
            double *square) noexcept nogil
        void (*normalize_f32)(
            const float *x, const float *added, float *y, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
            const float *mean, const float *scale, const float *shift, int relu) noexcept nogil
        void (*normalize_f64)(
            const double *x, const double *added, double *y, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
            const double *mean, const double *scale, const double *shift, int relu) noexcept nogil
        void (*dots_f32)(
            const float *gy, const float *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, const float *mean,
            const float *scale, const float *shift, double *sum, double *dot) noexcept nogil
        void (*dots_f64)(
            const double *gy, const double *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, const double *mean,
            const double *scale, const double *shift, double *sum, double *dot) noexcept nogil
        void (*gradient_f32)(
            const float *gy, const float *x, float *gx, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
            const float *mean, const float *scale, const float *shift, const float *slope,
            const float *offset) noexcept nogil
        void (*gradient_f64)(
            const double *gy, const double *x, double *gx, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
            const double *mean, const double *scale, const double *shift, const double *slope,
            const double *offset) noexcept nogil
        void (*row_norm_f32)(
            const float *x, const float *weight, const float *bias, float *y, Py_ssize_t n, float eps, float *mean,
            float *var, float *rstd) noexcept nogil
        void (*row_norm_f64)(
            const double *x, const double *weight, const double *bias, double *y, Py_ssize_t n, double eps,
            double *mean, double *var, double *rstd) noexcept nogil
        void (*row_gradient_f32)(
            const float *gy, const float *x, const float *weight, float *gx, Py_ssize_t n, float mean,
            float rstd) noexcept nogil
        void (*row_gradient_f64)(
            const double *gy, const double *x, const double *weight, double *gx, Py_ssize_t n, double mean,
            double rstd) noexcept nogil
        void (*row_dots_f32)(
            const float *gy, const float *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, const float *mean,
            const float *rstd, Py_ssize_t step, double *sum, double *dot) noexcept nogil
        void (*row_dots_f64)(
            const double *gy, const double *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
            const double *mean, const double *rstd, Py_ssize_t step, double *sum, double *dot) noexcept nogil
        void (*response_f32)(
            const float *x, float *y, float *scale, Py_ssize_t n, Py_ssize_t below, Py_ssize_t above, float alpha,
            double beta, float k) noexcept nogil
        void (*response_f64)(
            const double *x, double *y, double *scale, Py_ssize_t n, Py_ssize_t below, Py_ssize_t above, double alpha,
            double beta, double k) noexcept nogil
        void (*response_gradient_f32)(
            const float *gy, const float *x, const float *scale, float *gx, Py_ssize_t n, Py_ssize_t below,
            Py_ssize_t above, float factor, double beta) noexcept nogil
        void (*response_gradient_f64)(
            const double *gy, const double *x, const double *scale, double *gx, Py_ssize_t n, Py_ssize_t below,
            Py_ssize_t above, double factor, double beta) noexcept nogil


cdef enum:
    NORM_TILE = 16384    # numbers of a tile, about: a quarter of a typical second-level cache for the largest type
    NORM_TILE_ROWS = 64  # at least, so that the sums of a tile are few beside its numbers

cdef struct Tiles:  # a matrix cut into down * across tiles
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t height  # rows of a tile
    Py_ssize_t down
    Py_ssize_t across


cdef inline Py_ssize_t least(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Tiles tiles_of(Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    cdef Tiles t
    cdef Py_ssize_t width = least(columns, NORM_WIDTH)
    t.rows, t.columns = rows, columns
    t.height = NORM_TILE // width if width > 0 and NORM_TILE // width > NORM_TILE_ROWS else NORM_TILE_ROWS
    t.down = (rows + t.height - 1) // t.height
    t.across = (columns + NORM_WIDTH - 1) // NORM_WIDTH
    return t


cdef inline Py_ssize_t height_of(const Tiles *t, Py_ssize_t row) noexcept nogil:
    return least(t.height, t.rows - row * t.height)


cdef inline Py_ssize_t width_of(const Tiles *t, Py_ssize_t column) noexcept nogil:
    return least(NORM_WIDTH, t.columns - column * NORM_WIDTH)


cdef struct Place:  # where a tile lies
    Py_ssize_t at      # its first number
    Py_ssize_t column  # its first column
    Py_ssize_t sums    # where its sums begin: a row of columns for each row of tiles
    Py_ssize_t height
    Py_ssize_t width


cdef inline Place place_of(const Tiles *t, Py_ssize_t tile) noexcept nogil:
    cdef Place p
    cdef Py_ssize_t row = tile // t.across
    p.column = tile % t.across * NORM_WIDTH
    p.at = row * t.height * t.columns + p.column
    p.sums = row * t.columns + p.column
    p.height = height_of(t, row)
    p.width = width_of(t, tile % t.across)
    return p


cdef inline Py_ssize_t columns_of(cnp.ndarray x, str kernel) except -1:
    """The last dimension of x, which has at least one element."""
    if x is None or cnp.PyArray_NDIM(x) == 0 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(f"{kernel}: expected x with elements in at least one dimension, got none")
    return cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
