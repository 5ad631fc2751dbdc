"""Elementwise activations and their gradients."""

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport (
    BLOCK, block_count, block_size, check_threads, dense_input, like_input, like_output, real, real_type,
)
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "table.h" nogil:
    struct nnx_activation:
        void (*relu_f32)(const float *x, float *y, Py_ssize_t n) noexcept nogil
        void (*relu_f64)(const double *x, double *y, Py_ssize_t n) noexcept nogil
        void (*relu_backward_f32)(const float *gy, const float *y, float *gx, Py_ssize_t n) noexcept nogil
        void (*relu_backward_f64)(const double *gy, const double *y, double *gx, Py_ssize_t n) noexcept nogil


def relu(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """y = max(x, 0); x dense, y with the same shape and strides (it may be x)."""
    cdef int kind = real_type(x, "relu", "x")
    cdef void *source = dense_input(x, kind, "relu", "x")
    cdef void *target = like_output(y, x, kind, "relu", "y")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    check_threads(num_threads, "relu")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _relu(<const float *> source, <float *> target, n, num_threads)
        else:
            _relu(<const double *> source, <double *> target, n, num_threads)


cdef void _relu(const real *x, real *y, Py_ssize_t n, int threads) noexcept nogil:
    cdef const nnx_activation *kernels = <const nnx_activation *> table().activation
    cdef Py_ssize_t b
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        if real is float:
            kernels.relu_f32(x + b * BLOCK, y + b * BLOCK, block_size(n, b))
        else:
            kernels.relu_f64(x + b * BLOCK, y + b * BLOCK, block_size(n, b))


def relu_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    """gx = gy where y > 0, else 0; y dense, gy and gx with the same shape and strides."""
    cdef int kind = real_type(y, "relu_backward", "y")
    cdef void *result = dense_input(y, kind, "relu_backward", "y")
    cdef void *source = like_input(gy, y, kind, "relu_backward", "gy")
    cdef void *target = like_output(gx, y, kind, "relu_backward", "gx")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(y)
    check_threads(num_threads, "relu_backward")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _relu_backward(<const float *> source, <const float *> result, <float *> target, n, num_threads)
        else:
            _relu_backward(<const double *> source, <const double *> result, <double *> target, n, num_threads)


cdef void _relu_backward(
    const real *gy, const real *y, real *gx, Py_ssize_t n, int threads
) noexcept nogil:
    cdef const nnx_activation *kernels = <const nnx_activation *> table().activation
    cdef Py_ssize_t b, i
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        i = b * BLOCK
        if real is float:
            kernels.relu_backward_f32(gy + i, y + i, gx + i, block_size(n, b))
        else:
            kernels.relu_backward_f64(gy + i, y + i, gx + i, block_size(n, b))
