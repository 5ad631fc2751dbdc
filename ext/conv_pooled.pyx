"""The gradient of a convolution's weights and bias behind max pooling, from the pooled gradients.

Only one number of each window has a gradient, and `index` from max_pool says which: with windows of four, three
quarters of the products of the usual weight gradient are with zeros, and the gradient of the convolution's result need
not be written at all. A unit of work is a band of windows of one image, with a padded copy of the input's rows under
it; each of a fixed number of chunks sums its bands, and chunks are added in order: the bits do not depend on the number
of threads. The kernel is in ext/simd/conv_pooled.h.

Dimension letters: N images, C channels in, F filters (channels out); P, Q rows and columns of windows.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from nnx._ext.common cimport (
    _shape, check_ndim, check_threads, check_writeable, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.conv cimport Geometry, Image, read_geometry, read_image
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "table.h" nogil:
    ctypedef struct nnx_pooled "struct nnx_pooled":
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t row_step
        Py_ssize_t column_step
        Py_ssize_t F
        Py_ssize_t taps
        Py_ssize_t down
        Py_ssize_t run
        Py_ssize_t ld
        Py_ssize_t place[256]

    ctypedef struct nnx_conv_pooled "struct nnx_conv_pooled":
        Py_ssize_t (*pooled_lanes_f32)() noexcept nogil
        Py_ssize_t (*pooled_lanes_f64)() noexcept nogil
        void (*pooled_weight_f32)(const nnx_pooled *, const float *, const unsigned char *, const float *, float *,
                                  float *) noexcept nogil
        void (*pooled_weight_f64)(const nnx_pooled *, const double *, const unsigned char *, const double *, double *,
                                  double *) noexcept nogil

cdef enum:
    BAND_BYTES = 16384  # of a padded band, about: it stays in the first-level cache
    CHUNKS = 16         # partial gradients, at most
    LARGEST = 1 << 16   # stride, padding
    MOST = 1 << 26      # numbers of a padded band of the fewest rows, and of a partial gradient


cdef struct Plan:
    nnx_pooled band
    Py_ssize_t C
    Py_ssize_t low[2]       # zeros above and to the left
    Py_ssize_t out[2]       # rows and columns of windows
    Py_ssize_t window_step  # rows of x from one row of windows to the next
    Py_ssize_t reach        # rows of x under one row of windows
    Py_ssize_t width        # columns of a padded band
    Py_ssize_t rows         # of windows per band
    Py_ssize_t bands        # per image
    Py_ssize_t row          # numbers of a filter's row, up to whole vectors
    Py_ssize_t size         # numbers of a band, with what is read behind it


cdef int _plan(Image *x, Image *w, Image *y, tuple stride, tuple padding, tuple kernel, tuple pool_stride,
               tuple pool_dilation, int kind, Plan *p) except -1:
    """Check the shapes and cut the images into bands."""
    cdef const nnx_conv_pooled *kernels = <const nnx_conv_pooled *> table().conv_pooled
    cdef Py_ssize_t lanes = kernels.pooled_lanes_f32() if kind == cnp.NPY_FLOAT else kernels.pooled_lanes_f64()
    cdef Py_ssize_t itemsize = sizeof(float) if kind == cnp.NPY_FLOAT else sizeof(double), k
    cdef Py_ssize_t window[2]
    cdef Geometry conv, pool
    if len(stride) != 2 or len(kernel) != 2:
        raise ValueError(
            f"pooled_weight_grad: expected images of 2 dimensions, got stride {stride} and windows {kernel}"
        )
    read_geometry(stride, padding, (1, 1), LARGEST, "pooled_weight_grad", &conv)
    read_geometry(pool_stride, (0, 0), pool_dilation, LARGEST, "pooled_weight_grad", &pool)
    for k in range(2):
        window[k] = kernel[k]
        if not 1 <= window[k] <= 255:
            raise ValueError(f"pooled_weight_grad: expected windows of 1 to 255 elements, got {kernel}")
    if window[0] * window[1] > 255:
        raise ValueError(f"pooled_weight_grad: expected windows of 1 to 255 elements, got {kernel}")
    if w.channels != x.channels or w.images != y.channels or x.images != y.images:
        raise ValueError(
            f"pooled_weight_grad: expected x (N, C, ..), gw (F, C, ..) and gy (N, F, ..), "
            f"got ({x.images}, {x.channels}), ({w.images}, {w.channels}) and ({y.images}, {y.channels})"
        )
    if x.channels * w.size[1] * w.size[2] == 0:
        raise ValueError("pooled_weight_grad: expected filters of at least one number")
    p.C = x.channels
    p.out[0], p.out[1] = y.size[1], y.size[2]
    p.low[0], p.low[1] = conv.padding[1], conv.padding[2]
    # in pixels of x, then in numbers: strides of windows times the convolution's stride
    p.window_step = pool.stride[1] * conv.stride[1]
    p.reach = (window[0] - 1) * pool.dilation[1] * conv.stride[1] + w.size[1]
    if <double> p.out[1] * pool.stride[2] * conv.stride[2] > MOST or <double> p.reach + w.size[2] > MOST:
        raise ValueError("pooled_weight_grad: expected a band of x that fits into memory")
    p.width = (
        (max(p.out[1], 1) - 1) * pool.stride[2] * conv.stride[2] + (window[1] - 1) * pool.dilation[2] * conv.stride[2]
        + w.size[2]
    )
    p.band.columns = p.out[1]
    p.band.F = y.channels
    p.band.taps = window[0] * window[1]
    p.band.down = w.size[1]
    p.band.run = w.size[2] * p.C
    p.band.ld = p.width * p.C
    p.row = (p.band.run + lanes - 1) // lanes * lanes
    if <double> p.width * p.C * p.reach > MOST or <double> p.row * p.band.down * max(p.band.F, 1) > MOST:
        raise ValueError("pooled_weight_grad: expected a band of x and the gradient to fit into memory")
    p.band.row_step = p.window_step * p.band.ld
    p.band.column_step = pool.stride[2] * conv.stride[2] * p.C
    memset(p.band.place, 0, sizeof(p.band.place))
    for k in range(p.band.taps):
        p.band.place[k] = (
            k // window[1] * pool.dilation[1] * conv.stride[1] * p.band.ld
            + k % window[1] * pool.dilation[2] * conv.stride[2] * p.C
        )
    p.rows = (BAND_BYTES // max(p.band.ld * itemsize, 1) - p.reach) // max(p.window_step, 1) + 1
    p.rows = max(min(p.rows, p.out[0]), 1)
    p.bands = (p.out[0] + p.rows - 1) // p.rows
    p.size = ((p.rows - 1) * p.window_step + p.reach) * p.band.ld + 2 * lanes
    return 0


cdef nnx_pooled _band(const Plan *p, Py_ssize_t unit) noexcept nogil:
    cdef nnx_pooled band = p.band
    band.rows = min(p.rows, p.out[0] - unit % p.bands * p.rows)
    return band


cdef void _copy_band(const Plan *p, const Image *x, Py_ssize_t unit, real *buffer) noexcept nogil:
    """The rows of x under a band, channels-last, with zeros around them."""
    cdef Py_ssize_t rows = (min(p.rows, p.out[0] - unit % p.bands * p.rows) - 1) * p.window_step + p.reach
    cdef Py_ssize_t top = unit % p.bands * p.rows * p.window_step - p.low[0], C = p.C, i, j, c
    cdef Py_ssize_t columns = min(x.size[2], p.width - p.low[1])
    cdef const real *image = <real *> x.data + unit // p.bands * x.image
    cdef const real *source
    cdef real *to
    memset(buffer, 0, p.size * sizeof(real))
    if columns <= 0:
        return
    for i in range(max(-top, 0), min(rows, x.size[1] - top)):
        source = image + (top + i) * x.stride[1]
        to = buffer + i * p.band.ld + p.low[1] * C
        if x.channel == 1 and x.stride[2] == C:
            memcpy(to, source, columns * C * sizeof(real))
        else:
            for j in range(columns):
                for c in range(C):
                    to[j * C + c] = source[j * x.stride[2] + c * x.channel]


def weight_grad(cnp.ndarray gy, cnp.ndarray index, cnp.ndarray x, cnp.ndarray gw, cnp.ndarray gb, tuple stride,
                tuple padding, tuple kernel, tuple pool_stride, tuple pool_dilation, int num_threads):
    """gw and gb = the gradients of a convolution's weights and bias, behind max pooling without padding.

    gy (N, F, P, Q) channels-last, index (N, F, P, Q) of bytes likewise, x (N, C, H, W) of any strides, gw (F, C, ..) of
    any strides, gb (F,). stride, padding: of the convolution; kernel, pool_stride, pool_dilation: of the windows.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(gw, "pooled_weight_grad", "gw"), axis
    check_threads(num_threads, "pooled_weight_grad")
    check_writeable(gw, "pooled_weight_grad", "gw")
    read_image(x, kind, False, "pooled_weight_grad", "x", &X)
    read_image(gw, kind, False, "pooled_weight_grad", "gw", &W)
    read_image(gy, kind, True, "pooled_weight_grad", "gy", &Y)
    if cnp.PyArray_NDIM(x) != 4 or cnp.PyArray_NDIM(gw) != 4 or cnp.PyArray_NDIM(gy) != 4:
        raise ValueError(
            f"pooled_weight_grad: expected gy, x and gw with 4 dimensions, got {cnp.PyArray_NDIM(gy)}, "
            f"{cnp.PyArray_NDIM(x)} and {cnp.PyArray_NDIM(gw)}"
        )
    check_ndim(index, 4, "pooled_weight_grad", "index")
    for axis in range(4):
        if cnp.PyArray_DIM(index, axis) != cnp.PyArray_DIM(gy, axis):
            raise ValueError(
                f"pooled_weight_grad: expected index of gy's shape, got {_shape(index)} and {_shape(gy)}"
            )
    _plan(&X, &W, &Y, stride, padding, kernel, pool_stride, pool_dilation, kind, &p)
    cdef void *bias = output_pointer(gb, kind, Y.channels, "pooled_weight_grad", "gb")
    cdef const unsigned char *number = <const unsigned char *> input_pointer(
        (<object> index).transpose(0, 2, 3, 1), cnp.NPY_UINT8, cnp.PyArray_SIZE(gy), "pooled_weight_grad", "index"
    )
    if kind == cnp.NPY_FLOAT:
        _weight_grad[float](<float *> W.data, <float *> bias, number, &p, X, W, Y, num_threads)
    else:
        _weight_grad[double](<double *> W.data, <double *> bias, number, &p, X, W, Y, num_threads)


cdef int _weight_grad(real *gw, real *gb, const unsigned char *index, Plan *p, Image X, Image W, Image Y,
                      int num_threads) except -1:
    cdef const nnx_conv_pooled *kernels = <const nnx_conv_pooled *> table().conv_pooled
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t units = Y.images * p.bands if p.out[0] > 0 and p.out[1] > 0 else 0
    cdef Py_ssize_t chunks = max(min(units, CHUNKS), 1), chunk, unit, first, F = p.band.F, f, i, j, c
    cdef Py_ssize_t filter = p.band.down * p.row, size = F * (filter + 1)
    cdef real *partial = NULL
    cdef real *buffer = NULL
    cdef real *sums
    cdef real total
    cdef nnx_pooled band
    if chunks < num_threads:
        num_threads = chunks
    try:
        partial = <real *> take_workspace(chunks * size * sizeof(real) + 64)
        buffer = <real *> take_workspace(num_threads * p.size * sizeof(real))
        with nogil:
            share_out(&shares, chunks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                chunk = next_of(&shares, thread)
                while chunk >= 0:
                    sums = partial + chunk * size
                    memset(sums, 0, size * sizeof(real))
                    for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
                        _copy_band[real](p, &X, unit, buffer + thread * p.size)
                        band = _band(p, unit)
                        first = (unit // p.bands * p.out[0] + unit % p.bands * p.rows) * p.out[1] * F
                        if real is float:
                            kernels.pooled_weight_f32(&band, <float *> Y.data + first, index + first,
                                                      buffer + thread * p.size, sums, sums + F * filter)
                        else:
                            kernels.pooled_weight_f64(&band, <double *> Y.data + first, index + first,
                                                      buffer + thread * p.size, sums, sums + F * filter)
                    chunk = next_of(&shares, thread)
            for f in prange(F, num_threads=num_threads, schedule="static"):
                for i in range(p.band.down):
                    for j in range(W.size[2]):
                        for c in range(p.C):
                            total = 0
                            for chunk in range(chunks):
                                total = total + partial[chunk * size + f * filter + i * p.row + j * p.C + c]
                            gw[f * W.image + c * W.channel + i * W.stride[1] + j * W.stride[2]] = total
                total = 0
                for chunk in range(chunks):
                    total = total + partial[chunk * size + F * filter + f]
                gb[f] = total
    finally:
        give_workspace(buffer)
        give_workspace(partial)
    return 0
