"""What the CPU backend asks about arrays in every operation: whether a kernel takes them, and how images lie in memory.

Compiled, because these few questions are asked some hundred times in a training step of a deep network, where the code
and the objects that Python touches on its way fall out of the cache between two kernels (benchmarks/NOTES.md).
"""

cimport numpy as cnp

from nnx._ext.memory cimport empty_array

import numpy as np

cnp.import_array()

cdef enum:
    MOST = 5  # dimensions of images: (N, C, three axes)


cdef inline int _kind_of(object a):
    """NumPy's number of float32 or float64 where kernels take `a`, which is native and aligned; otherwise -1."""
    if not cnp.PyArray_Check(a) or not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> a):
        return -1
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray> a)
    return kind if kind == cnp.NPY_FLOAT or kind == cnp.NPY_DOUBLE else -1


def has_kernel(*arrays):
    """Tell whether all arrays are float32 or all float64, native and aligned."""
    cdef int kind = -1
    for item in arrays:
        if kind == -1:
            kind = _kind_of(item)
        if kind == -1 or _kind_of(item) != kind:
            return False
    return kind != -1


def takes_images(cnp.ndarray x not None, *others):
    """Tell whether x has numbers and 2 to 5 dimensions, and `has_kernel` of it and of the others that are not None."""
    cdef int kind = _kind_of(x)
    if kind == -1 or not 2 <= cnp.PyArray_NDIM(x) <= MOST or cnp.PyArray_SIZE(x) == 0:
        return False
    for item in others:
        if item is not None and _kind_of(item) != kind:
            return False
    return True


def are_per_channel(x, bint moves, weight, bias, mean, var):
    """Tell whether x is an array (N, C, ...) that kernels take, and the others None or arrays (C,) of its type.

    moves:  mean and var have to be writeable
    """
    cdef cnp.ndarray a
    cdef int kind = _kind_of(x)
    if kind == -1 or cnp.PyArray_NDIM(<cnp.ndarray> x) < 2:
        return False
    for item in (weight, bias, mean, var):
        if item is None:
            continue
        if _kind_of(item) != kind:
            return False
        a = <cnp.ndarray> item
        if cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(<cnp.ndarray> x, 1):
            return False
        if moves and (item is mean or item is var) and not cnp.PyArray_ISWRITEABLE(a):
            return False
    return True


def are_for_conv(int spatial, x, w, b):
    """Tell whether w is an array (F, C, taps), none of them empty, and x and b, or None, are of its type: float32 or
    float64 that kernels take."""
    cdef int kind = _kind_of(w), axis
    if kind == -1 or cnp.PyArray_NDIM(<cnp.ndarray> w) != spatial + 2:
        return False
    for axis in range(spatial + 2):
        if cnp.PyArray_DIM(<cnp.ndarray> w, axis) == 0:
            return False
    return _kind_of(x) == kind and (b is None or _kind_of(b) == kind)


def empty_per_channel(cnp.ndarray x not None, int count):
    """Return `count` uninitialised arrays with a number for each channel of x (N, C, ...), in a tuple.

    Each is an array of its own, which may become a parameter's gradient as it is."""
    if cnp.PyArray_NDIM(x) < 2:
        raise ValueError(f"empty_per_channel: expected an array of 2 dimensions or more, got {cnp.PyArray_NDIM(x)}")
    cdef cnp.npy_intp channels = cnp.PyArray_DIM(x, 1)
    return tuple([cnp.PyArray_EMPTY(1, &channels, cnp.PyArray_TYPE(x), 0) for _ in range(count)])


cdef int _check(Py_ssize_t dimensions, str function) except -1:
    if not 2 <= dimensions <= MOST:
        raise ValueError(f"{function}: expected an array of 2 to {MOST} dimensions, got {dimensions}")
    return 0


cdef object _transposed(cnp.ndarray a, bint to_last):
    """Channels behind the spatial axes, or back to their place before them."""
    cdef cnp.npy_intp axes[MOST]
    cdef cnp.PyArray_Dims order
    cdef int ndim = cnp.PyArray_NDIM(a), axis
    axes[0] = 0
    for axis in range(1, ndim):
        axes[axis] = axis % (ndim - 1) + 1 if to_last else (axis + ndim - 3) % (ndim - 1) + 1
    order.ptr, order.len = axes, ndim
    return cnp.PyArray_Transpose(a, &order)


def nhwc(cnp.ndarray a not None):
    """Return the view (N, spatial..., C) of an array (N, C, spatial...) of 2 to 5 dimensions.

    It is C-contiguous exactly if `a` is channels-last in memory. A kernel takes this view and
    computes its steps from the shape: the strides of axes of length 1 mean nothing, so an array
    with one channel or with 1x1 maps is channels-last whatever its strides say, and never copied.
    """
    _check(cnp.PyArray_NDIM(a), "nhwc")
    return _transposed(a, True)


def nchw(cnp.ndarray a not None):
    """Return the view (N, C, spatial...) of an array (N, spatial..., C): the way back."""
    _check(cnp.PyArray_NDIM(a), "nchw")
    return _transposed(a, False)


def is_channels_last(cnp.ndarray a not None):
    """Tell whether an array (N, C, spatial...) of 2 to 5 dimensions is channels-last in memory."""
    cdef int ndim = cnp.PyArray_NDIM(a), axis, i
    cdef cnp.npy_intp expected = cnp.PyArray_ITEMSIZE(a)
    _check(ndim, "is_channels_last")
    if cnp.PyArray_SIZE(a) == 0:
        return True
    for i in range(ndim):  # the channels, the spatial axes from the last one on, the images
        axis = 1 if i == 0 else 0 if i == ndim - 1 else ndim - i
        if cnp.PyArray_DIM(a, axis) != 1:
            if cnp.PyArray_STRIDE(a, axis) != expected:
                return False
            expected *= cnp.PyArray_DIM(a, axis)
    return True


def empty_channels_last(tuple shape not None, dtype):
    """Return an uninitialised array of shape (N, C, spatial...) that is channels-last in memory."""
    cdef cnp.npy_intp sizes[MOST]
    cdef int ndim, axis
    _check(len(shape), "empty_channels_last")
    ndim = <int> len(shape)
    sizes[0], sizes[ndim - 1] = shape[0], shape[1]
    for axis in range(2, ndim):
        sizes[axis - 1] = shape[axis]
    return _transposed(empty_array(ndim, sizes, np.dtype(dtype).num), False)
