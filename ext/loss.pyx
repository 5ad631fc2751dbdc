"""Losses: threads and checks around the C kernels.

Elementwise losses take x, t and the output dense in memory, with the same shape and strides. Row losses
take scores (rows, classes), C-contiguous, and one int64 label per row, -1 for a row that is skipped.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from nnx._ext.common cimport (
    BLOCK, block_count, block_size, check_ndim, check_threads, dense_input, input_pointer, like_input, like_output,
    output_pointer, real, real_type,
)
from nnx._ext.simd cimport table

cnp.import_array()

ctypedef void (*map2_f32)(const float *, const float *, float *, Py_ssize_t, const float *) noexcept nogil
ctypedef void (*map2_f64)(const double *, const double *, double *, Py_ssize_t, const double *) noexcept nogil

cdef extern from "table.h" nogil:
    struct nnx_loss:
        map2_f32 squared_error_f32, absolute_error_f32, huber_f32, bce_with_logits_f32
        map2_f64 squared_error_f64, absolute_error_f64, huber_f64, bce_with_logits_f64
        map2_f32 squared_error_backward_f32, absolute_error_backward_f32
        map2_f64 squared_error_backward_f64, absolute_error_backward_f64
        map2_f32 huber_backward_f32, bce_with_logits_backward_f32
        map2_f64 huber_backward_f64, bce_with_logits_backward_f64
        void (*cross_entropy_f32)(
            const float *x, const int64_t *label, float *loss, float *top, float *total, Py_ssize_t rows,
            Py_ssize_t n, float keep, float smoothing) noexcept nogil
        void (*cross_entropy_f64)(
            const double *x, const int64_t *label, double *loss, double *top, double *total, Py_ssize_t rows,
            Py_ssize_t n, double keep, double smoothing) noexcept nogil
        void (*cross_entropy_backward_f32)(
            const float *gy, int one, const float *x, const int64_t *label, const float *top, const float *total,
            float *gx, Py_ssize_t rows, Py_ssize_t n, float keep, float smoothing) noexcept nogil
        void (*cross_entropy_backward_f64)(
            const double *gy, int one, const double *x, const int64_t *label, const double *top,
            const double *total, double *gx, Py_ssize_t rows, Py_ssize_t n, double keep,
            double smoothing) noexcept nogil


cdef inline const nnx_loss *_kernels() noexcept nogil:
    return <const nnx_loss *> table().loss


# -- elementwise ---------------------------------------------------------------------------------


cdef int _map2(
    str name, map2_f32 f32, map2_f64 f64, cnp.ndarray x, cnp.ndarray t, cnp.ndarray y, int num_threads,
    double p0=0, double p1=0,
) except -1:
    cdef int kind = real_type(x, name, "x")
    cdef void *source = dense_input(x, kind, name, "x")
    cdef void *target = like_input(t, x, kind, name, "t")
    cdef void *result = like_output(y, x, kind, name, "y")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef double[2] p = [p0, p1]
    check_threads(num_threads, name)
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _run2(<void *> f32, <const float *> source, <const float *> target, <float *> result, n, p, num_threads)
        else:
            _run2(
                <void *> f64, <const double *> source, <const double *> target, <double *> result, n, p, num_threads
            )
    return 0


cdef void _run2(
    void *kernel, const real *x, const real *t, real *y, Py_ssize_t n, const double *p, int threads
) noexcept nogil:
    cdef real[2] q = [<real> p[0], <real> p[1]]
    cdef Py_ssize_t b, i
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        i = b * BLOCK
        if real is float:
            (<map2_f32> kernel)(x + i, t + i, y + i, block_size(n, b), q)
        else:
            (<map2_f64> kernel)(x + i, t + i, y + i, block_size(n, b), q)


def squared_error(cnp.ndarray x, cnp.ndarray t, cnp.ndarray y, int num_threads):
    """y = (x - t)^2"""
    cdef const nnx_loss *k = _kernels()
    _map2("squared_error", k.squared_error_f32, k.squared_error_f64, x, t, y, num_threads)


def squared_error_backward(cnp.ndarray x, cnp.ndarray t, cnp.ndarray gx, double g, int num_threads):
    """gx = 2 g (x - t)"""
    cdef const nnx_loss *k = _kernels()
    _map2(
        "squared_error_backward", k.squared_error_backward_f32, k.squared_error_backward_f64, x, t, gx, num_threads,
        g,
    )


def absolute_error(cnp.ndarray x, cnp.ndarray t, cnp.ndarray y, int num_threads):
    """y = |x - t|"""
    cdef const nnx_loss *k = _kernels()
    _map2("absolute_error", k.absolute_error_f32, k.absolute_error_f64, x, t, y, num_threads)


def absolute_error_backward(cnp.ndarray x, cnp.ndarray t, cnp.ndarray gx, double g, int num_threads):
    """gx = g sign(x - t)"""
    cdef const nnx_loss *k = _kernels()
    _map2(
        "absolute_error_backward", k.absolute_error_backward_f32, k.absolute_error_backward_f64, x, t, gx,
        num_threads, g,
    )


def huber(cnp.ndarray x, cnp.ndarray t, cnp.ndarray y, double delta, int num_threads):
    """y = d^2 / 2 for d = |x - t| < delta, else delta (d - delta / 2)"""
    cdef const nnx_loss *k = _kernels()
    _map2("huber", k.huber_f32, k.huber_f64, x, t, y, num_threads, delta)


def huber_backward(
    cnp.ndarray x, cnp.ndarray t, cnp.ndarray gx, double g, double delta, int num_threads
):
    cdef const nnx_loss *k = _kernels()
    _map2("huber_backward", k.huber_backward_f32, k.huber_backward_f64, x, t, gx, num_threads, delta, g)


def bce_with_logits(cnp.ndarray x, cnp.ndarray t, cnp.ndarray y, int num_threads):
    """y = c |x| + log(1 + exp(-|x|)), where c is 1 - t for x > 0, else t"""
    cdef const nnx_loss *k = _kernels()
    _map2("bce_with_logits", k.bce_with_logits_f32, k.bce_with_logits_f64, x, t, y, num_threads)


def bce_with_logits_backward(cnp.ndarray x, cnp.ndarray t, cnp.ndarray gx, double g, int num_threads):
    """gx = g (sigmoid(x) - t)"""
    cdef const nnx_loss *k = _kernels()
    _map2(
        "bce_with_logits_backward", k.bce_with_logits_backward_f32, k.bce_with_logits_backward_f64, x, t, gx,
        num_threads, g,
    )


# -- over rows of class scores -------------------------------------------------------------------


cdef int _check_labels(const int64_t *labels, Py_ssize_t rows, Py_ssize_t n, str name) except -1:
    cdef Py_ssize_t r, wrong = -1
    with nogil:
        for r in range(rows):
            if labels[r] < -1 or labels[r] >= n:
                wrong = r
                break
    if wrong >= 0:
        raise ValueError(f"{name}: expected labels in [-1, {n - 1}], got {labels[wrong]} in row {wrong}")
    return 0


cdef inline Py_ssize_t _rows_per_block(Py_ssize_t n) noexcept nogil:
    """About BLOCK elements, and whole tiles of 16 rows where there are that many."""
    cdef Py_ssize_t rows = BLOCK // n if n > 0 else BLOCK
    return rows // 16 * 16 if rows >= 16 else (rows if rows > 0 else 1)


cdef inline Py_ssize_t _smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


def cross_entropy(
    cnp.ndarray x, cnp.ndarray labels, cnp.ndarray loss, cnp.ndarray top, cnp.ndarray total, double smoothing,
    int num_threads,
):
    """The cross-entropy of each row of scores (rows, n > 0), its largest score, and its sum of exp(x - largest)."""
    cdef str name = "cross_entropy"
    cdef int kind = real_type(x, name, "x")
    check_ndim(x, 2, name, "x")
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef void *scores = input_pointer(x, kind, rows * n, name, "x")
    cdef void *label = input_pointer(labels, cnp.NPY_INT64, rows, name, "labels")
    cdef void *out = output_pointer(loss, kind, rows, name, "loss")
    cdef void *tops = output_pointer(top, kind, rows, name, "top")
    cdef void *totals = output_pointer(total, kind, rows, name, "total")
    check_threads(num_threads, name)
    _check_labels(<const int64_t *> label, rows, n, name)
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _cross_entropy(
                <const float *> scores, <const int64_t *> label, <float *> out, <float *> tops, <float *> totals,
                rows, n, smoothing, num_threads,
            )
        else:
            _cross_entropy(
                <const double *> scores, <const int64_t *> label, <double *> out, <double *> tops,
                <double *> totals, rows, n, smoothing, num_threads,
            )


cdef void _cross_entropy(
    const real *x, const int64_t *label, real *loss, real *top, real *total, Py_ssize_t rows, Py_ssize_t n,
    double smoothing, int threads,
) noexcept nogil:
    cdef const nnx_loss *k = _kernels()
    cdef real keep = <real> (1 - smoothing), spread = <real> smoothing
    cdef Py_ssize_t step = _rows_per_block(n), b, r
    for b in prange((rows + step - 1) // step, num_threads=threads, schedule="static"):
        r = b * step
        if real is float:
            k.cross_entropy_f32(
                x + r * n, label + r, loss + r, top + r, total + r, _smaller(step, rows - r), n, keep, spread
            )
        else:
            k.cross_entropy_f64(
                x + r * n, label + r, loss + r, top + r, total + r, _smaller(step, rows - r), n, keep, spread
            )


def cross_entropy_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray labels, cnp.ndarray top, cnp.ndarray total, cnp.ndarray gx,
    double smoothing, int num_threads,
):
    """The gradient of `cross_entropy`, for gy with one element per row or one for all; gx (rows, n)"""
    cdef str name = "cross_entropy_backward"
    cdef int kind = real_type(x, name, "x")
    check_ndim(x, 2, name, "x")
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef void *scores = input_pointer(x, kind, rows * n, name, "x")
    cdef bint one = gy is not None and cnp.PyArray_SIZE(gy) == 1
    cdef void *g = input_pointer(gy, kind, 1 if one else rows, name, "gy")
    cdef void *label = input_pointer(labels, cnp.NPY_INT64, rows, name, "labels")
    cdef void *tops = input_pointer(top, kind, rows, name, "top")
    cdef void *totals = input_pointer(total, kind, rows, name, "total")
    cdef void *out = output_pointer(gx, kind, rows * n, name, "gx")
    check_threads(num_threads, name)
    _check_labels(<const int64_t *> label, rows, n, name)
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _cross_entropy_backward(
                <const float *> g, one, <const float *> scores, <const int64_t *> label, <const float *> tops,
                <const float *> totals, <float *> out, rows, n, smoothing, num_threads,
            )
        else:
            _cross_entropy_backward(
                <const double *> g, one, <const double *> scores, <const int64_t *> label, <const double *> tops,
                <const double *> totals, <double *> out, rows, n, smoothing, num_threads,
            )


cdef void _cross_entropy_backward(
    const real *gy, bint one, const real *x, const int64_t *label, const real *top, const real *total, real *gx,
    Py_ssize_t rows, Py_ssize_t n, double smoothing, int threads,
) noexcept nogil:
    cdef const nnx_loss *k = _kernels()
    cdef real keep = <real> (1 - smoothing), spread = <real> smoothing
    cdef Py_ssize_t step = _rows_per_block(n), b, r
    for b in prange((rows + step - 1) // step, num_threads=threads, schedule="static"):
        r = b * step
        if real is float:
            k.cross_entropy_backward_f32(
                gy if one else gy + r, one, x + r * n, label + r, top + r, total + r, gx + r * n,
                _smaller(step, rows - r), n, keep, spread,
            )
        else:
            k.cross_entropy_backward_f64(
                gy if one else gy + r, one, x + r * n, label + r, top + r, total + r, gx + r * n,
                _smaller(step, rows - r), n, keep, spread,
            )
