"""Normalisation across neighbouring channels: local response norm.

Arrays are C-contiguous; an image comes as (N, spatial..., C), so that it is a matrix with a column for each channel.
"""

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport check_threads, input_pointer, output_pointer, real, real_type
from nnx._ext.norm cimport NORM_REACH, columns_of, nnx_norm
from nnx._ext.simd cimport table

cnp.import_array()

REACH = NORM_REACH  # a window reaches no further to either side

cdef enum:
    TILE = 16384  # numbers of a task, about


cdef inline int check_window(Py_ssize_t below, Py_ssize_t above, str kernel) except -1:
    if not 0 <= below <= NORM_REACH or not 0 <= above <= NORM_REACH:
        raise ValueError(
            f"{kernel}: expected a window of at most {NORM_REACH} channels to either side, got {below} and {above}"
        )
    return 0


cdef inline Py_ssize_t pixels_of(Py_ssize_t channels) noexcept nogil:
    """Pixels of a task."""
    return max(TILE // channels, 1)


def response(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray scale, Py_ssize_t below, Py_ssize_t above, double alpha, double beta,
    double k, int num_threads,
):
    """scale = k + alpha (sum of x^2 over the channels c - below .. c + above), y = x scale^-beta; all (..., C)."""
    cdef int kind = real_type(x, "response", "x")
    cdef Py_ssize_t channels = columns_of(x, "response"), size = cnp.PyArray_SIZE(x)
    cdef void *source = input_pointer(x, kind, size, "response", "x")
    cdef void *target = output_pointer(y, kind, size, "response", "y")
    cdef void *scales = output_pointer(scale, kind, size, "response", "scale")
    check_window(below, above, "response")
    check_threads(num_threads, "response")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _response(
                <const float *> source, <float *> target, <float *> scales, size // channels, channels, below, above,
                <float> alpha, beta, <float> k, num_threads)
        else:
            _response(
                <const double *> source, <double *> target, <double *> scales, size // channels, channels, below,
                above, alpha, beta, k, num_threads)


cdef void _response(
    const real *x, real *y, real *scale, Py_ssize_t pixels, Py_ssize_t n, Py_ssize_t below, Py_ssize_t above,
    real alpha, double beta, real k, int threads
) noexcept nogil:
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t step = pixels_of(n), task, i
    for task in prange((pixels + step - 1) // step, num_threads=threads, schedule="static"):
        for i in range(task * step, min(task * step + step, pixels)):
            if real is float:
                kernels.response_f32(x + i * n, y + i * n, scale + i * n, n, below, above, alpha, beta, k)
            else:
                kernels.response_f64(x + i * n, y + i * n, scale + i * n, n, below, above, alpha, beta, k)


def response_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray scale, cnp.ndarray gx, Py_ssize_t below, Py_ssize_t above,
    double factor, double beta, int num_threads,
):
    """gx = gy scale^-beta - factor x (sum of gy x scale^(-beta - 1) over the channels c - below .. c + above)."""
    cdef int kind = real_type(x, "response_backward", "x")
    cdef Py_ssize_t channels = columns_of(x, "response_backward"), size = cnp.PyArray_SIZE(x)
    cdef void *values = input_pointer(x, kind, size, "response_backward", "x")
    cdef void *source = input_pointer(gy, kind, size, "response_backward", "gy")
    cdef void *scales = input_pointer(scale, kind, size, "response_backward", "scale")
    cdef void *target = output_pointer(gx, kind, size, "response_backward", "gx")
    check_window(below, above, "response_backward")
    check_threads(num_threads, "response_backward")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _response_backward(
                <const float *> source, <const float *> values, <const float *> scales, <float *> target,
                size // channels, channels, below, above, <float> factor, beta, num_threads)
        else:
            _response_backward(
                <const double *> source, <const double *> values, <const double *> scales, <double *> target,
                size // channels, channels, below, above, factor, beta, num_threads)


cdef void _response_backward(
    const real *gy, const real *x, const real *scale, real *gx, Py_ssize_t pixels, Py_ssize_t n, Py_ssize_t below,
    Py_ssize_t above, real factor, double beta, int threads
) noexcept nogil:
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t step = pixels_of(n), task, i
    for task in prange((pixels + step - 1) // step, num_threads=threads, schedule="static"):
        for i in range(task * step, min(task * step + step, pixels)):
            if real is float:
                kernels.response_gradient_f32(
                    gy + i * n, x + i * n, scale + i * n, gx + i * n, n, below, above, factor, beta)
            else:
                kernels.response_gradient_f64(
                    gy + i * n, x + i * n, scale + i * n, gx + i * n, n, below, above, factor, beta)
