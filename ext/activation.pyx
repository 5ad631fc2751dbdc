"""Activations, softmax and dropout, and their gradients: threads and checks around the C kernels.

An elementwise kernel takes arrays that are dense in memory in any order of the axes, all with the same
shape and strides; an output may be one of the inputs. Work is cut into blocks of fixed size.
"""

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport (
    BLOCK, block_count, block_size, check_dim, check_ndim, check_threads, check_type, dense_input, input_pointer,
    like_input, like_output, output_pointer, real, real_type,
)
from nnx._ext.simd cimport table

cnp.import_array()

# y = f(x), gx = g(gy, x or y); the last argument holds up to three parameters
ctypedef void (*map1_f32)(const float *, float *, Py_ssize_t, const float *) noexcept nogil
ctypedef void (*map1_f64)(const double *, double *, Py_ssize_t, const double *) noexcept nogil
ctypedef void (*map2_f32)(const float *, const float *, float *, Py_ssize_t, const float *) noexcept nogil
ctypedef void (*map2_f64)(const double *, const double *, double *, Py_ssize_t, const double *) noexcept nogil

# the same for slices of an array (outer, n, inner): first slice, number of slices, n, inner
ctypedef void (*slices1_f32)(
    const float *, float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*slices1_f64)(
    const double *, double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*slices2_f32)(
    const float *, const float *, float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*slices2_f64)(
    const double *, const double *, double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef enum:
    SHORT = 256  # as in ext/simd/rows.h: longer slices must be rows

cdef extern from "table.h" nogil:
    struct nnx_activation:
        map1_f32 relu_f32, leaky_relu_f32, hardtanh_f32, elu_f32, sigmoid_f32, tanh_f32, softplus_f32
        map1_f64 relu_f64, leaky_relu_f64, hardtanh_f64, elu_f64, sigmoid_f64, tanh_f64, softplus_f64
        map1_f32 silu_f32, mish_f32, gelu_f32, gelu_tanh_f32
        map1_f64 silu_f64, mish_f64, gelu_f64, gelu_tanh_f64
        map2_f32 add_f32
        map2_f64 add_f64
        map2_f32 relu_backward_f32, leaky_relu_backward_f32, hardtanh_backward_f32, elu_backward_f32
        map2_f64 relu_backward_f64, leaky_relu_backward_f64, hardtanh_backward_f64, elu_backward_f64
        map2_f32 sigmoid_backward_f32, tanh_backward_f32, softplus_backward_f32, silu_backward_f32
        map2_f64 sigmoid_backward_f64, tanh_backward_f64, softplus_backward_f64, silu_backward_f64
        map2_f32 mish_backward_f32, gelu_backward_f32, gelu_tanh_backward_f32
        map2_f64 mish_backward_f64, gelu_backward_f64, gelu_tanh_backward_f64
        slices1_f32 softmax_f32, log_softmax_f32
        slices1_f64 softmax_f64, log_softmax_f64
        slices2_f32 softmax_backward_f32, log_softmax_backward_f32
        slices2_f64 softmax_backward_f64, log_softmax_backward_f64
        void (*dropout_f32)(
            const float *x, const unsigned char *keep, float *y, Py_ssize_t n, float scale) noexcept nogil
        void (*dropout_f64)(
            const double *x, const unsigned char *keep, double *y, Py_ssize_t n, double scale) noexcept nogil


cdef inline const nnx_activation *_kernels() noexcept nogil:
    return <const nnx_activation *> table().activation


# -- one element at a time -----------------------------------------------------------------------


cdef int _map1(
    str name, map1_f32 f32, map1_f64 f64, cnp.ndarray x, cnp.ndarray y, int num_threads,
    double p0=0, double p1=0, double p2=0,
) except -1:
    cdef int kind = real_type(x, name, "x")
    cdef void *source = dense_input(x, kind, name, "x")
    cdef void *target = like_output(y, x, kind, name, "y")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef double[3] p = [p0, p1, p2]
    check_threads(num_threads, name)
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _run1(<void *> f32, <const float *> source, <float *> target, n, p, num_threads)
        else:
            _run1(<void *> f64, <const double *> source, <double *> target, n, p, num_threads)
    return 0


cdef void _run1(
    void *kernel, const real *x, real *y, Py_ssize_t n, const double *p, int threads
) noexcept nogil:
    cdef real[3] q = [<real> p[0], <real> p[1], <real> p[2]]
    cdef Py_ssize_t b, i
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        i = b * BLOCK
        if real is float:
            (<map1_f32> kernel)(x + i, y + i, block_size(n, b), q)
        else:
            (<map1_f64> kernel)(x + i, y + i, block_size(n, b), q)


cdef int _map2(
    str name, map2_f32 f32, map2_f64 f64, cnp.ndarray gy, str saved, cnp.ndarray z, cnp.ndarray gx,
    int num_threads, double p0=0, double p1=0, double p2=0,
) except -1:
    """`saved` is the name of z, the input or result of the forward kernel."""
    cdef int kind = real_type(z, name, saved)
    cdef void *known = dense_input(z, kind, name, saved)
    cdef void *source = like_input(gy, z, kind, name, "gy")
    cdef void *target = like_output(gx, z, kind, name, "gx")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(z)
    cdef double[3] p = [p0, p1, p2]
    check_threads(num_threads, name)
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _run2(
                <void *> f32, <const float *> source, <const float *> known, <float *> target, n, p, num_threads
            )
        else:
            _run2(
                <void *> f64, <const double *> source, <const double *> known, <double *> target, n, p, num_threads
            )
    return 0


cdef void _run2(
    void *kernel, const real *gy, const real *z, real *gx, Py_ssize_t n, const double *p, int threads
) noexcept nogil:
    cdef real[3] q = [<real> p[0], <real> p[1], <real> p[2]]
    cdef Py_ssize_t b, i
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        i = b * BLOCK
        if real is float:
            (<map2_f32> kernel)(gy + i, z + i, gx + i, block_size(n, b), q)
        else:
            (<map2_f64> kernel)(gy + i, z + i, gx + i, block_size(n, b), q)


def relu(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """y = max(x, 0)"""
    _map1("relu", _kernels().relu_f32, _kernels().relu_f64, x, y, num_threads)


def add(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, int num_threads):
    """out = a + b; out may be a or b"""
    cdef const nnx_activation *k = _kernels()
    _map2("add", k.add_f32, k.add_f64, a, "b", b, out, num_threads)


def relu_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    """gx = gy where y > 0, else 0"""
    cdef const nnx_activation *k = _kernels()
    _map2("relu_backward", k.relu_backward_f32, k.relu_backward_f64, gy, "y", y, gx, num_threads)


def leaky_relu(cnp.ndarray x, cnp.ndarray y, double slope, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map1("leaky_relu", k.leaky_relu_f32, k.leaky_relu_f64, x, y, num_threads, slope)


def leaky_relu_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, double slope, int num_threads
):
    cdef const nnx_activation *k = _kernels()
    _map2(
        "leaky_relu_backward", k.leaky_relu_backward_f32, k.leaky_relu_backward_f64, gy, "x", x, gx, num_threads,
        slope,
    )


def hardtanh(cnp.ndarray x, cnp.ndarray y, double low, double high, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map1("hardtanh", k.hardtanh_f32, k.hardtanh_f64, x, y, num_threads, low, high)


def hardtanh_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, double low, double high, int num_threads
):
    cdef const nnx_activation *k = _kernels()
    _map2(
        "hardtanh_backward", k.hardtanh_backward_f32, k.hardtanh_backward_f64, gy, "x", x, gx, num_threads, low,
        high,
    )


def elu(
    cnp.ndarray x, cnp.ndarray y, double alpha, double scale, double rate, int num_threads
):
    cdef const nnx_activation *k = _kernels()
    _map1("elu", k.elu_f32, k.elu_f64, x, y, num_threads, scale, scale * alpha, rate)


def elu_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, double alpha, double scale, double rate, int num_threads
):
    cdef const nnx_activation *k = _kernels()
    _map2(
        "elu_backward", k.elu_backward_f32, k.elu_backward_f64, gy, "x", x, gx, num_threads,
        scale, scale * alpha * rate, rate,
    )


def sigmoid(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("sigmoid", _kernels().sigmoid_f32, _kernels().sigmoid_f64, x, y, num_threads)


def sigmoid_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("sigmoid_backward", k.sigmoid_backward_f32, k.sigmoid_backward_f64, gy, "y", y, gx, num_threads)


def tanh(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("tanh", _kernels().tanh_f32, _kernels().tanh_f64, x, y, num_threads)


def tanh_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("tanh_backward", k.tanh_backward_f32, k.tanh_backward_f64, gy, "y", y, gx, num_threads)


def softplus(cnp.ndarray x, cnp.ndarray y, double beta, double threshold, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map1("softplus", k.softplus_f32, k.softplus_f64, x, y, num_threads, beta, threshold)


def softplus_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, double beta, double threshold, int num_threads
):
    cdef const nnx_activation *k = _kernels()
    _map2(
        "softplus_backward", k.softplus_backward_f32, k.softplus_backward_f64, gy, "x", x, gx, num_threads, beta,
        threshold,
    )


def silu(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("silu", _kernels().silu_f32, _kernels().silu_f64, x, y, num_threads)


def silu_backward(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("silu_backward", k.silu_backward_f32, k.silu_backward_f64, gy, "x", x, gx, num_threads)


def mish(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("mish", _kernels().mish_f32, _kernels().mish_f64, x, y, num_threads)


def mish_backward(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("mish_backward", k.mish_backward_f32, k.mish_backward_f64, gy, "x", x, gx, num_threads)


def gelu(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("gelu", _kernels().gelu_f32, _kernels().gelu_f64, x, y, num_threads)


def gelu_backward(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("gelu_backward", k.gelu_backward_f32, k.gelu_backward_f64, gy, "x", x, gx, num_threads)


def gelu_tanh(cnp.ndarray x, cnp.ndarray y, int num_threads):
    _map1("gelu_tanh", _kernels().gelu_tanh_f32, _kernels().gelu_tanh_f64, x, y, num_threads)


def gelu_tanh_backward(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, int num_threads):
    cdef const nnx_activation *k = _kernels()
    _map2("gelu_tanh_backward", k.gelu_tanh_backward_f32, k.gelu_tanh_backward_f64, gy, "x", x, gx, num_threads)


# -- over slices of an array (outer, n, inner) ---------------------------------------------------


cdef int _check_slices(cnp.ndarray x, str name, str argument) except -1:
    """C-contiguous with three dimensions; slices longer than SHORT are rows."""
    check_ndim(x, 3, name, argument)
    if cnp.PyArray_DIM(x, 1) > SHORT and cnp.PyArray_DIM(x, 2) != 1:
        raise ValueError(
            f"{name}: expected {argument} of shape (outer, n, 1) for n > {SHORT}, got shape {(<object> x).shape}"
        )
    return 0


cdef int _check_same_shape(cnp.ndarray a, cnp.ndarray ref, str name, str argument) except -1:
    check_ndim(a, 3, name, argument)
    cdef int axis
    for axis in range(3):
        check_dim(a, axis, cnp.PyArray_DIM(ref, axis), name, argument)
    return 0


cdef inline Py_ssize_t _slices_per_block(Py_ssize_t n) noexcept nogil:
    """About BLOCK elements: whole tiles of 64 or 16 slices as far as possible."""
    cdef Py_ssize_t slices = BLOCK // n
    if slices >= 64:
        return slices // 64 * 64
    if n <= SHORT:
        return 64 if n <= SHORT // 4 else 16
    return slices if slices > 0 else 1


cdef inline Py_ssize_t _smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef int _slices1(
    str name, slices1_f32 f32, slices1_f64 f64, cnp.ndarray x, cnp.ndarray y, int num_threads
) except -1:
    """y shares no memory with x."""
    cdef int kind = real_type(x, name, "x")
    _check_slices(x, name, "x")
    _check_same_shape(y, x, name, "y")
    cdef Py_ssize_t outer = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1), inner = cnp.PyArray_DIM(x, 2)
    cdef void *source = input_pointer(x, kind, outer * n * inner, name, "x")
    cdef void *target = output_pointer(y, kind, outer * n * inner, name, "y")
    check_threads(num_threads, name)
    if outer * n * inner == 0:
        return 0
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _run_slices1(<void *> f32, <const float *> source, <float *> target, outer, n, inner, num_threads)
        else:
            _run_slices1(<void *> f64, <const double *> source, <double *> target, outer, n, inner, num_threads)
    return 0


cdef void _run_slices1(
    void *kernel, const real *x, real *y, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner, int threads
) noexcept nogil:
    cdef Py_ssize_t slices = outer * inner, step = _slices_per_block(n), b, s
    for b in prange((slices + step - 1) // step, num_threads=threads, schedule="static"):
        s = b * step
        if real is float:
            (<slices1_f32> kernel)(x, y, s, _smaller(step, slices - s), n, inner)
        else:
            (<slices1_f64> kernel)(x, y, s, _smaller(step, slices - s), n, inner)


cdef int _slices2(
    str name, slices2_f32 f32, slices2_f64 f64, cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads
) except -1:
    """gx shares no memory with gy and y."""
    cdef int kind = real_type(y, name, "y")
    _check_slices(y, name, "y")
    _check_same_shape(gy, y, name, "gy")
    _check_same_shape(gx, y, name, "gx")
    cdef Py_ssize_t outer = cnp.PyArray_DIM(y, 0), n = cnp.PyArray_DIM(y, 1), inner = cnp.PyArray_DIM(y, 2)
    cdef void *known = input_pointer(y, kind, outer * n * inner, name, "y")
    cdef void *source = input_pointer(gy, kind, outer * n * inner, name, "gy")
    cdef void *target = output_pointer(gx, kind, outer * n * inner, name, "gx")
    check_threads(num_threads, name)
    if outer * n * inner == 0:
        return 0
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _run_slices2(
                <void *> f32, <const float *> source, <const float *> known, <float *> target, outer, n, inner,
                num_threads,
            )
        else:
            _run_slices2(
                <void *> f64, <const double *> source, <const double *> known, <double *> target, outer, n, inner,
                num_threads,
            )
    return 0


cdef void _run_slices2(
    void *kernel, const real *gy, const real *y, real *gx, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner,
    int threads,
) noexcept nogil:
    cdef Py_ssize_t slices = outer * inner, step = _slices_per_block(n), b, s
    for b in prange((slices + step - 1) // step, num_threads=threads, schedule="static"):
        s = b * step
        if real is float:
            (<slices2_f32> kernel)(gy, y, gx, s, _smaller(step, slices - s), n, inner)
        else:
            (<slices2_f64> kernel)(gy, y, gx, s, _smaller(step, slices - s), n, inner)


def softmax(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """y = exp(x) / sum(exp(x)) over the middle axis"""
    _slices1("softmax", _kernels().softmax_f32, _kernels().softmax_f64, x, y, num_threads)


def softmax_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    """gx = y (gy - sum(gy y))"""
    cdef const nnx_activation *k = _kernels()
    _slices2("softmax_backward", k.softmax_backward_f32, k.softmax_backward_f64, gy, y, gx, num_threads)


def log_softmax(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """y = x - log(sum(exp(x))) over the middle axis"""
    _slices1("log_softmax", _kernels().log_softmax_f32, _kernels().log_softmax_f64, x, y, num_threads)


def log_softmax_backward(cnp.ndarray gy, cnp.ndarray y, cnp.ndarray gx, int num_threads):
    """gx = gy - exp(y) sum(gy)"""
    cdef const nnx_activation *k = _kernels()
    _slices2(
        "log_softmax_backward", k.log_softmax_backward_f32, k.log_softmax_backward_f64, gy, y, gx, num_threads
    )


# -- dropout -------------------------------------------------------------------------------------


cdef int _check_order(cnp.ndarray keep, cnp.ndarray x) except -1:
    """Bytes of the shape of x, dense in the same order of the axes."""
    cdef int axis, ndim = cnp.PyArray_NDIM(x)
    cdef bint same = keep is not None and cnp.PyArray_NDIM(keep) == ndim
    check_type(keep, cnp.NPY_BOOL, "dropout", "keep")
    for axis in range(ndim if same else 0):
        if cnp.PyArray_DIM(keep, axis) != cnp.PyArray_DIM(x, axis):
            same = False
        elif cnp.PyArray_DIM(x, axis) != 1 and cnp.PyArray_SIZE(x) != 0:
            same = same and cnp.PyArray_STRIDE(keep, axis) * cnp.PyArray_ITEMSIZE(x) == cnp.PyArray_STRIDE(x, axis)
    if not same:
        raise ValueError(
            f"dropout: expected keep to have the shape and memory order of x, got shapes {(<object> keep).shape} "
            f"and {(<object> x).shape}, strides {(<object> keep).strides} and {(<object> x).strides}"
        )
    return 0


def dropout(cnp.ndarray x, cnp.ndarray keep, cnp.ndarray y, double scale, int num_threads):
    """y = scale x where the bool array keep holds, else 0; y shares no memory with x"""
    cdef int kind = real_type(x, "dropout", "x")
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef void *source = dense_input(x, kind, "dropout", "x")
    cdef void *target = like_output(y, x, kind, "dropout", "y")
    _check_order(keep, x)
    cdef void *mask = cnp.PyArray_DATA(keep)
    check_threads(num_threads, "dropout")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _dropout(<const float *> source, <const unsigned char *> mask, <float *> target, n, scale, num_threads)
        else:
            _dropout(<const double *> source, <const unsigned char *> mask, <double *> target, n, scale, num_threads)


cdef void _dropout(
    const real *x, const unsigned char *keep, real *y, Py_ssize_t n, double scale, int threads
) noexcept nogil:
    cdef const nnx_activation *k = _kernels()
    cdef Py_ssize_t b, i
    for b in prange(block_count(n), num_threads=threads, schedule="static"):
        i = b * BLOCK
        if real is float:
            k.dropout_f32(x + i, keep + i, y + i, block_size(n, b), <float> scale)
        else:
            k.dropout_f64(x + i, keep + i, y + i, block_size(n, b), scale)
