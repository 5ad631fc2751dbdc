# The kernels of ext/simd/norm.h, as ext/norm.pyx, ext/local_response.pyx and ext/winograd_norm.pyx call them.

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


cdef inline Py_ssize_t columns_of(cnp.ndarray x, str kernel) except -1:
    """The last dimension of x, which has at least one element."""
    if x is None or cnp.PyArray_NDIM(x) == 0 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(f"{kernel}: expected x with elements in at least one dimension, got none")
    return cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
