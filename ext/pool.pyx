"""Max and average pooling. Arrays are channels-last: (N, D, H, W, C), with 1 for dimensions that are not there.

Every row of the result is computed by one call of a C kernel and by one thread, so the bits do not depend on the number
of threads. Gradients are gathered: a row of the input collects from the windows that reach it, no two rows meet. (Where
there are few channels, the gradient of a maximum is scattered instead, by one thread for each image.)
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport int64_t, uint8_t

from nnx._ext.common cimport (
    _shape, check_dim, check_ndim, check_threads, check_writeable, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.conv cimport Image, read_image
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    LIMIT = 2147483647  # of every size: products of two do not overflow
    FEW = 4             # fewer channels do not fill a vector


# -- maximum ----------------------------------------------------------------------------------------

def max_pool(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray index, tuple kernel, tuple stride, tuple padding, tuple dilation,
    int num_threads, bint positive=False,
):
    """y = the largest element of each window of x, index (uint8 or int32) = its number inside the window.

    positive: x is a positive part; where the largest element is 0 the index is 255 or -1, that of no element
    """
    cdef nnx_pool_windows g
    cdef int kind = real_type(x, "max_pool", "x")
    _windows(&g, x, y, kernel, stride, padding, dilation, "max_pool", "y")
    cdef int wide = _index_kind(&g, index, "max_pool")
    cdef Py_ssize_t images = _same_shape(y, index, "max_pool")
    cdef void *source = input_pointer(x, kind, cnp.PyArray_SIZE(x), "max_pool", "x")
    cdef void *target = output_pointer(y, kind, cnp.PyArray_SIZE(y), "max_pool", "y")
    cdef void *number = output_pointer(
        index, cnp.PyArray_TYPE(index), cnp.PyArray_SIZE(y), "max_pool", "index"
    )
    check_dim(x, 0, images, "max_pool", "x")
    check_threads(num_threads, "max_pool")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _max_pool(&g, <const float *> source, <float *> target, <char *> number, wide, positive, images,
                      num_threads)
        else:
            _max_pool(&g, <const double *> source, <double *> target, <char *> number, wide, positive, images,
                      num_threads)


cdef bint _squares(const nnx_pool_windows *g) noexcept nogil:
    """Whether the windows are 2x2, beside each other, and whole: the kernels of that name do them."""
    return (
        g.kernel[0] == g.stride[0] == 1 and g.kernel[1] == g.stride[1] == 2 and g.kernel[2] == g.stride[2] == 2
        and g.padding[0] == g.padding[1] == g.padding[2] == 0 and g.dilation[1] == g.dilation[2] == 1
        and g.out[0] == g.size[0] and 2 * g.out[1] <= g.size[1] and 2 * g.out[2] <= g.size[2]
    )


cdef uint8_t *read_pooled(cnp.ndarray y, cnp.ndarray index, tuple size, int kind, str kernel,
                          Image *image) except? NULL:
    read_image(y, kind, True, kernel, "y", image)
    check_writeable(y, kernel, "y")
    check_ndim(y, 4, kernel, "y")
    check_ndim(index, 4, kernel, "index")
    if len(size) != 2:
        raise ValueError(f"{kernel}: expected size to be rows and columns, got {size}")
    cdef Py_ssize_t rows = size[0], columns = size[1], half = cnp.PyArray_DIM(y, 2), across = cnp.PyArray_DIM(y, 3)
    if not 0 <= rows - 2 * half <= 1 or not 0 <= columns - 2 * across <= 1:
        raise ValueError(f"{kernel}: expected y with half of {size} rows and columns, got shape {_shape(y)}")
    if _shape(index) != _shape(y):
        raise ValueError(f"{kernel}: expected index of y's shape {_shape(y)}, got {_shape(index)}")
    image.size[1], image.size[2] = rows, columns
    return <uint8_t *> output_pointer(
        (<object> index).transpose(0, 2, 3, 1), cnp.NPY_UINT8, cnp.PyArray_SIZE(y), kernel, "index"
    )


cdef void _max_pool(
    const nnx_pool_windows *g, const real *x, real *y, char *index, int wide, bint positive, Py_ssize_t images,
    int threads
) noexcept nogil:
    cdef const nnx_pool *kernels = <const nnx_pool *> table().pool
    cdef Py_ssize_t rows = g.out[0] * g.out[1], row = g.out[2] * g.channels, bytes = 4 if wide else 1
    cdef Py_ssize_t image = g.size[0] * g.size[1] * g.size[2] * g.channels
    cdef Py_ssize_t r, plane = g.size[1] * g.size[2] * g.channels
    cdef bint squares = _squares(g)
    for r in prange(images * rows, num_threads=threads, schedule="static"):
        if real is float:
            if squares:
                kernels.max_row_squares_f32(
                    g, x + r // g.out[1] * plane, r % g.out[1], y + r * row, <uint8_t *> index + r * row
                )
            else:
                kernels.max_row_f32(
                    g, x + r // rows * image, r % rows // g.out[1], r % g.out[1], y + r * row,
                    index + r * row * bytes, wide
                )
            if positive:
                kernels.max_row_drop_f32(row, y + r * row, index + r * row * bytes, wide)
        else:
            if squares:
                kernels.max_row_squares_f64(
                    g, x + r // g.out[1] * plane, r % g.out[1], y + r * row, <uint8_t *> index + r * row
                )
            else:
                kernels.max_row_f64(
                    g, x + r // rows * image, r % rows // g.out[1], r % g.out[1], y + r * row,
                    index + r * row * bytes, wide
                )
            if positive:
                kernels.max_row_drop_f64(row, y + r * row, index + r * row * bytes, wide)


def max_pool_backward(
    cnp.ndarray gy, cnp.ndarray index, cnp.ndarray gx, tuple kernel, tuple stride, tuple padding, tuple dilation,
    int num_threads,
):
    """gx = for each element, the sum of gy over the windows whose maximum it was, by `index` from max_pool."""
    cdef nnx_pool_windows g
    cdef int kind = real_type(gy, "max_pool_backward", "gy")
    _windows(&g, gx, gy, kernel, stride, padding, dilation, "max_pool_backward", "gy")
    cdef int wide = _index_kind(&g, index, "max_pool_backward")
    cdef Py_ssize_t images = _same_shape(gy, index, "max_pool_backward")
    cdef void *source = input_pointer(gy, kind, cnp.PyArray_SIZE(gy), "max_pool_backward", "gy")
    cdef void *number = input_pointer(
        index, cnp.PyArray_TYPE(index), cnp.PyArray_SIZE(gy), "max_pool_backward", "index"
    )
    cdef void *target = output_pointer(gx, kind, cnp.PyArray_SIZE(gx), "max_pool_backward", "gx")
    check_dim(gx, 0, images, "max_pool_backward", "gx")
    check_threads(num_threads, "max_pool_backward")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _max_pool_backward(
                &g, <const float *> source, <const char *> number, wide, <float *> target, images, num_threads
            )
        else:
            _max_pool_backward(
                &g, <const double *> source, <const char *> number, wide, <double *> target, images, num_threads
            )


cdef void _max_pool_backward(
    const nnx_pool_windows *g, const real *gy, const char *index, int wide, real *gx, Py_ssize_t images, int threads
) noexcept nogil:
    cdef const nnx_pool *kernels = <const nnx_pool *> table().pool
    cdef Py_ssize_t rows = g.size[0] * g.size[1], row = g.size[2] * g.channels, bytes = 4 if wide else 1
    cdef Py_ssize_t image = g.out[0] * g.out[1] * g.out[2] * g.channels
    cdef Py_ssize_t r, i, pooled = g.out[2] * g.channels, plane = g.size[1] * row
    if _squares(g) and g.out[1] > 0:
        for r in prange(images * g.out[0] * g.out[1], num_threads=threads, schedule="static"):
            if real is float:
                kernels.max_row_squares_backward_f32(
                    g, gy + r * pooled, <const uint8_t *> index + r * pooled, r % g.out[1], gx + r // g.out[1] * plane
                )
            else:
                kernels.max_row_squares_backward_f64(
                    g, gy + r * pooled, <const uint8_t *> index + r * pooled, r % g.out[1], gx + r // g.out[1] * plane
                )
        return
    if g.channels < FEW:
        for r in prange(images, num_threads=threads, schedule="static"):
            i = r * image
            if real is float:
                kernels.max_image_backward_f32(g, gy + i, index + i * bytes, wide, gx + r * rows * row)
            else:
                kernels.max_image_backward_f64(g, gy + i, index + i * bytes, wide, gx + r * rows * row)
        return
    for r in prange(images * rows, num_threads=threads, schedule="static"):
        i = r // rows * image
        if real is float:
            kernels.max_row_backward_f32(
                g, gy + i, index + i * bytes, wide, r % rows // g.size[1], r % g.size[1], gx + r * row
            )
        else:
            kernels.max_row_backward_f64(
                g, gy + i, index + i * bytes, wide, r % rows // g.size[1], r % g.size[1], gx + r * row
            )


# -- mean and sum -----------------------------------------------------------------------------------

def mean_pool(cnp.ndarray x, cnp.ndarray y, tuple starts, tuple ends, tuple counts, int num_threads):
    """y = the sums of x over boxes, each divided by the product of its counts.

    starts, ends (int64), counts (float64): an array per axis; output o covers [start[o], end[o]).
    """
    cdef nnx_pool_boxes g
    cdef int kind = real_type(x, "mean_pool", "x")
    cdef Py_ssize_t images = _boxes(&g, x, y, starts, ends, counts, "mean_pool", "y")
    cdef void *source = input_pointer(x, kind, cnp.PyArray_SIZE(x), "mean_pool", "x")
    cdef void *target = output_pointer(y, kind, cnp.PyArray_SIZE(y), "mean_pool", "y")
    check_threads(num_threads, "mean_pool")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _mean_pool(&g, <const float *> source, <float *> target, images, num_threads)
        else:
            _mean_pool(&g, <const double *> source, <double *> target, images, num_threads)


cdef void _mean_pool(
    const nnx_pool_boxes *g, const real *x, real *y, Py_ssize_t images, int threads
) noexcept nogil:
    cdef const nnx_pool *kernels = <const nnx_pool *> table().pool
    cdef Py_ssize_t rows = g.out[0] * g.out[1], row = g.out[2] * g.channels
    cdef Py_ssize_t image = g.size[0] * g.size[1] * g.size[2] * g.channels
    cdef Py_ssize_t r
    for r in prange(images * rows, num_threads=threads, schedule="static"):
        if real is float:
            kernels.mean_row_f32(g, x + r // rows * image, r % rows // g.out[1], r % g.out[1], y + r * row)
        else:
            kernels.mean_row_f64(g, x + r // rows * image, r % rows // g.out[1], r % g.out[1], y + r * row)


def mean_pool_backward(
    cnp.ndarray gy, cnp.ndarray gx, tuple starts, tuple ends, tuple counts, int num_threads
):
    """gx = for each element, the sum of gy / (product of counts) over the boxes that hold it."""
    cdef nnx_pool_boxes g
    cdef int kind = real_type(gy, "mean_pool_backward", "gy")
    cdef Py_ssize_t images = _boxes(&g, gx, gy, starts, ends, counts, "mean_pool_backward", "gy")
    cdef void *source = input_pointer(gy, kind, cnp.PyArray_SIZE(gy), "mean_pool_backward", "gy")
    cdef void *target = output_pointer(gx, kind, cnp.PyArray_SIZE(gx), "mean_pool_backward", "gx")
    check_threads(num_threads, "mean_pool_backward")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _mean_pool_backward(&g, <const float *> source, <float *> target, images, num_threads)
        else:
            _mean_pool_backward(&g, <const double *> source, <double *> target, images, num_threads)


cdef void _mean_pool_backward(
    const nnx_pool_boxes *g, const real *gy, real *gx, Py_ssize_t images, int threads
) noexcept nogil:
    cdef const nnx_pool *kernels = <const nnx_pool *> table().pool
    cdef Py_ssize_t rows = g.size[0] * g.size[1], row = g.size[2] * g.channels
    cdef Py_ssize_t image = g.out[0] * g.out[1] * g.out[2] * g.channels
    cdef Py_ssize_t r
    for r in prange(images * rows, num_threads=threads, schedule="static"):
        if real is float:
            kernels.mean_row_backward_f32(
                g, gy + r // rows * image, r % rows // g.size[1], r % g.size[1], gx + r * row
            )
        else:
            kernels.mean_row_backward_f64(
                g, gy + r // rows * image, r % rows // g.size[1], r % g.size[1], gx + r * row
            )


# -- arguments --------------------------------------------------------------------------------------

cdef int _windows(
    nnx_pool_windows *g, cnp.ndarray x, cnp.ndarray y, tuple kernel, tuple stride, tuple padding, tuple dilation,
    str name, str result,
) except -1:
    """Fill in the geometry. Any that passes is safe: the kernels leave out what lies outside the arrays."""
    cdef int axis
    check_ndim(x, 5, name, "the input side")
    check_ndim(y, 5, name, result)
    for axis in range(5):
        _limited(cnp.PyArray_DIM(x, axis), 0, name, "size")
        _limited(cnp.PyArray_DIM(y, axis), 0, name, "size")
    g.channels = cnp.PyArray_DIM(x, 4)
    check_dim(y, 4, g.channels, name, result)
    if len(kernel) != 3 or len(stride) != 3 or len(padding) != 3 or len(dilation) != 3:
        raise ValueError(f"{name}: expected kernel, stride, padding and dilation with 3 entries each")
    taps = 1
    for axis in range(3):
        g.size[axis] = cnp.PyArray_DIM(x, axis + 1)
        g.out[axis] = cnp.PyArray_DIM(y, axis + 1)
        g.kernel[axis] = _limited(kernel[axis], 1, name, "kernel")
        g.stride[axis] = _limited(stride[axis], 1, name, "stride")
        g.padding[axis] = _limited(padding[axis], 0, name, "padding")
        g.dilation[axis] = _limited(dilation[axis], 1, name, "dilation")
        taps *= kernel[axis]
    _limited(taps, 1, name, "window")
    return 0


cdef int _index_kind(nnx_pool_windows *g, cnp.ndarray index, str name) except -1:
    """1 for int32, 0 for uint8, which must be able to number the window."""
    check_ndim(index, 5, name, "index")
    cdef int kind = cnp.PyArray_TYPE(index)
    if kind == cnp.NPY_INT32:
        return 1
    if kind != cnp.NPY_UINT8 or g.kernel[0] * g.kernel[1] * g.kernel[2] > 256:
        raise TypeError(
            f"{name}: expected index to be int32, or uint8 for windows of at most 256 elements, got {index.dtype} for "
            f"{g.kernel[0] * g.kernel[1] * g.kernel[2]}"
        )
    return 0


cdef Py_ssize_t _same_shape(cnp.ndarray y, cnp.ndarray index, str name) except -1:
    """The number of images, if index has y's shape."""
    cdef int axis
    for axis in range(5):
        check_dim(index, axis, cnp.PyArray_DIM(y, axis), name, "index")
    return cnp.PyArray_DIM(y, 0)


cdef Py_ssize_t _boxes(
    nnx_pool_boxes *g, cnp.ndarray x, cnp.ndarray y, tuple starts, tuple ends, tuple counts, str name, str result
) except -1:
    """Fill in the geometry, check that every box lies inside the input, and return the number of images."""
    cdef int axis
    cdef Py_ssize_t o
    check_ndim(x, 5, name, "the input side")
    check_ndim(y, 5, name, result)
    g.channels = cnp.PyArray_DIM(x, 4)
    check_dim(y, 4, g.channels, name, result)
    check_dim(y, 0, cnp.PyArray_DIM(x, 0), name, result)
    if len(starts) != 3 or len(ends) != 3 or len(counts) != 3:
        raise ValueError(f"{name}: expected starts, ends and counts with 3 entries each")
    for axis in range(3):
        g.size[axis] = cnp.PyArray_DIM(x, axis + 1)
        g.out[axis] = cnp.PyArray_DIM(y, axis + 1)
        g.start[axis] = <const int64_t *> input_pointer(starts[axis], cnp.NPY_INT64, g.out[axis], name, "starts")
        g.end[axis] = <const int64_t *> input_pointer(ends[axis], cnp.NPY_INT64, g.out[axis], name, "ends")
        g.count[axis] = <const double *> input_pointer(counts[axis], cnp.NPY_DOUBLE, g.out[axis], name, "counts")
        for o in range(g.out[axis]):
            if g.start[axis][o] < 0 or g.end[axis][o] > g.size[axis]:
                raise ValueError(
                    f"{name}: expected boxes inside [0, {g.size[axis]}), got [{g.start[axis][o]}, {g.end[axis][o]})"
                )
    return cnp.PyArray_DIM(x, 0)


cdef Py_ssize_t _limited(object value, Py_ssize_t minimum, str name, str argument) except -1:
    if not minimum <= value <= LIMIT:
        raise ValueError(f"{name}: expected {argument} in [{minimum}, {LIMIT}], got {value}")
    return value
