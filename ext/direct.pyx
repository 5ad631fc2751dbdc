"""Convolution that reads each number where it lies: for few filters or few channels.

An image, or a band of its rows, is copied once with the zeros of its padding around it (an unpadded channels-last image
is read in place); of a volume, the bands of all planes that one plane of the result reads. The kernels of
ext/simd/direct.h walk over it; no column matrix is built. The data gradient, in direct_data.pyx, goes the other way;
the weight gradient is in direct_weight.pyx.

A unit of work is a band of one image, or of one plane of a volume; its size depends on the shapes alone, sums over
bands have a fixed order, and no two tasks write the same number, so that the bits do not depend on the number of
threads.

Dimension letters: N images, C channels in, F filters (channels out), K numbers under a filter.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from nnx._ext.common cimport check_threads, check_writeable, real, real_type
from nnx._ext.conv cimport Geometry, Image, read_bias, read_geometry, read_image
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, is_streamed, take_workspace
from nnx._ext.pool cimport pool_squares, read_pooled
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    BAND_BYTES = 65536     # of a padded band, about: it stays in the second-level cache, beside the band of the result
    POOLED_BYTES = 131072  # of a band whose maxima are all that is kept, about
    LARGEST = 1 << 24      # stride, padding, dilation


cdef double MOST = 2.0 ** 48  # numbers of scratch memory


cdef int read_plan(Image *x, Image *w, Image *y, tuple stride, tuple padding, tuple dilation, Py_ssize_t groups,
                   str kernel, Plan *p) except -1:
    """Check the shapes and cut the images into bands."""
    cdef Geometry g
    cdef int axis
    read_geometry(stride, padding, dilation, LARGEST, kernel, &g)
    for axis in range(3):
        p.stride[axis] = g.stride[axis]
        p.low[axis] = g.padding[axis]
        p.dilation[axis] = g.dilation[axis]
        p.taps[axis] = w.size[axis]
        p.out[axis] = y.size[axis]
        p.reach[axis] = (p.taps[axis] - 1) * p.dilation[axis] + 1
    if len(stride) < 3 and (x.size[0] != 1 or w.size[0] != 1 or y.size[0] != 1):
        raise ValueError(f"{kernel}: expected images of 1 or 2 dimensions like stride, got 3")
    if groups < 1 or w.channels * groups != x.channels or w.images != y.channels or w.images % groups or (
        x.images != y.images
    ):
        raise ValueError(
            f"{kernel}: expected x (N, C, ..), w (F, C / groups, ..) and y (N, F, ..) in {groups} groups, "
            f"got ({x.images}, {x.channels}), ({w.images}, {w.channels}) and ({y.images}, {y.channels})"
        )
    p.C = x.channels
    p.groups = groups
    p.inside = w.channels
    cdef bint joined = p.dilation[2] == 1 and groups == 1
    p.runs = p.taps[0] * p.taps[1] * (1 if joined else p.taps[2])
    p.length = p.inside * (p.taps[2] if joined else 1)
    if p.runs > MAX_RUNS or max(p.taps[0], p.taps[1], p.taps[2]) > LARGEST:
        raise ValueError(
            f"{kernel}: expected filters of at most {MAX_RUNS} runs, got {p.taps[0]}x{p.taps[1]}x{p.taps[2]} taps"
        )
    p.width = (p.out[2] - 1) * p.stride[2] + p.reach[2]
    cdef Py_ssize_t height = (p.out[1] - 1) * p.stride[1] + p.reach[1]
    p.padded = (
        p.low[0] > 0 or p.low[1] > 0 or p.low[2] > 0 or p.width > x.size[2] or height > x.size[1]
        or (p.out[0] - 1) * p.stride[0] + p.reach[0] > x.size[0]
        or not (x.channel == 1 and x.stride[2] == p.C)
    )
    cdef Py_ssize_t row_bytes = p.width * p.C * p.taps[0] * sizeof(float), bands = 1, d, i, k, plane, pitch
    cdef Py_ssize_t planes = y.images * p.out[0]
    if row_bytes > 0:
        p.band = max((BAND_BYTES // row_bytes - p.reach[1]) // p.stride[1] + 1, 4)
    else:
        p.band = 1
    if planes * ((p.out[1] + p.band - 1) // p.band) < UNITS:
        bands = (UNITS + planes - 1) // max(planes, 1)
        p.band = min(p.band, max((p.out[1] + bands - 1) // bands, 4))
    p.band = max(min(p.band, p.out[1]), 1)
    p.bands = (p.out[1] + p.band - 1) // p.band
    # Sizes of scratch memory are products of these numbers: far beyond any machine's memory they could overflow.
    if (
        (<double> p.band * p.stride[1] + 2.0 * p.reach[1] + p.low[1]) * (<double> p.width + p.low[2]) * p.C
        * p.taps[0] > MOST
        or <double> p.runs * (p.length + 64.0) * (<double> p.out[2] + y.channels + 64) > MOST
    ):
        raise MemoryError(f"{kernel}: no memory for a band of {p.band} rows with stride {stride}")
    pitch = p.width * p.C if p.padded else x.stride[1]
    plane = _plane_size(p) if p.padded else p.dilation[0] * x.stride[0]
    for d in range(p.taps[0]):
        for i in range(p.taps[1]):
            if joined:
                p.offset[d * p.taps[1] + i] = d * plane + i * p.dilation[1] * pitch
            else:
                for k in range(p.taps[2]):
                    p.offset[(d * p.taps[1] + i) * p.taps[2] + k] = (
                        d * plane + i * p.dilation[1] * pitch + k * p.dilation[2] * p.C
                    )
    return 0


cdef inline Py_ssize_t _plane_size(const Plan *p) noexcept nogil:
    """Numbers of a padded band of one plane."""
    return ((p.band - 1) * p.stride[1] + p.reach[1]) * p.width * p.C


cdef Py_ssize_t padded_size(const Plan *p) noexcept nogil:
    """Numbers of a padded band."""
    return p.taps[0] * _plane_size(p)


cdef Py_ssize_t target_of(const Plan *p, const Image *y, Py_ssize_t unit) noexcept nogil:
    """Where in y a unit's band begins."""
    return (
        unit // p.bands // p.out[0] * y.image + unit // p.bands % p.out[0] * y.stride[0]
        + unit % p.bands * p.band * y.stride[1]
    )


cdef nnx_taps taps_of(Plan *p, const Image *x, Py_ssize_t unit) noexcept nogil:
    cdef nnx_taps t
    cdef Py_ssize_t first = unit % p.bands * p.band
    t.rows = min(p.band, p.out[1] - first)
    t.columns = p.out[2]
    t.row_step = p.stride[1] * (p.width * p.C if p.padded else x.stride[1])
    t.pixel_step = p.stride[2] * p.C
    t.runs = p.runs
    t.length = p.length
    t.offset = p.offset
    t.planes = p.taps[0]
    t.down = p.taps[1]
    t.beside = 1 if p.runs == p.taps[0] * p.taps[1] else p.taps[2]
    t.front = unit // p.bands % p.out[0] * p.stride[0] - p.low[0]
    t.depth = x.size[0]
    t.depth_dilation = p.dilation[0]
    t.top = first * p.stride[1] - p.low[1]
    t.height = x.size[1]
    t.stride = p.stride[1]
    t.dilation = p.dilation[1]
    t.result_row = 0
    t.added = t.positive = NULL
    t.stream = False
    return t


cdef const real *read_band(const Plan *p, const Image *x, Py_ssize_t unit, real *buffer) noexcept nogil:
    """The source of a band: a place in x, or a copy with the zeros around it in `buffer`."""
    cdef Py_ssize_t first = unit % p.bands * p.band, rows = min(p.band, p.out[1] - first)
    cdef Py_ssize_t top = first * p.stride[1] - p.low[1], height = (rows - 1) * p.stride[1] + p.reach[1]
    cdef Py_ssize_t front = unit // p.bands % p.out[0] * p.stride[0] - p.low[0], d, z
    cdef const real *image = <real *> x.data + unit // p.bands // p.out[0] * x.image
    cdef Py_ssize_t begin = min(p.low[2], p.width), end = max(min(p.width, x.size[2] + p.low[2]), begin), i, j, c
    cdef real *row
    cdef const real *line
    if not p.padded:
        return image + front * x.stride[0] + top * x.stride[1]
    for d in range(p.taps[0]):
        z = front + d * p.dilation[0]
        for i in range(height):
            row = buffer + d * _plane_size(p) + i * p.width * p.C
            if z < 0 or z >= x.size[0] or top + i < 0 or top + i >= x.size[1]:
                memset(row, 0, p.width * p.C * sizeof(real))
                continue
            line = image + z * x.stride[0] + (top + i) * x.stride[1]
            memset(row, 0, begin * p.C * sizeof(real))
            if x.channel == 1 and x.stride[2] == p.C:
                memcpy(row + begin * p.C, line, (end - begin) * p.C * sizeof(real))
            else:
                for c in range(p.C):
                    for j in range(end - begin):
                        row[(begin + j) * p.C + c] = line[c * x.channel + j * x.stride[2]]
            memset(row + end * p.C, 0, (p.width - end) * p.C * sizeof(real))
    return buffer


# -- forward ----------------------------------------------------------------------------------------

def forward(cnp.ndarray x, cnp.ndarray w, object bias, cnp.ndarray y, tuple stride, tuple padding, tuple dilation,
            Py_ssize_t groups, bint relu, int num_threads):
    """y = x * w + bias (cross-correlation), or the positive part of that.

    x (N, C, axes) of any strides, w (F, C / groups, taps), bias (F,) or None, y (N, F, axes) channels-last; one to
    three axes.
    padding: zeros at the low side per axis; those at the high side follow from y's shape.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(y, "direct.forward", "y")
    check_threads(num_threads, "direct.forward")
    check_writeable(y, "direct.forward", "y")
    read_image(x, kind, False, "direct.forward", "x", &X)
    read_image(w, kind, False, "direct.forward", "w", &W)
    read_image(y, kind, True, "direct.forward", "y", &Y)
    read_plan(&X, &W, &Y, stride, padding, dilation, groups, "direct.forward", &p)
    cdef cnp.ndarray b = read_bias(bias, kind, Y.channels, "direct.forward")
    if cnp.PyArray_SIZE(y) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _forward[float](&p, X, W, Y, <float *> b_data, relu, NULL, num_threads)
    else:
        _forward[double](&p, X, W, Y, <double *> b_data, relu, NULL, num_threads)


def forward_pooled(cnp.ndarray x, cnp.ndarray w, object bias, cnp.ndarray y, cnp.ndarray index, tuple size,
                   tuple stride, tuple padding, tuple dilation, Py_ssize_t groups, int num_threads):
    """y, index = the maxima of squares of 2x2 numbers of the positive part of forward(): as max_pool() of that.

    size: rows and columns of forward()'s result; y and index (bytes) have half of them, rounded down, channels-last.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(y, "direct.forward_pooled", "y")
    check_threads(num_threads, "direct.forward_pooled")
    read_image(x, kind, False, "direct.forward_pooled", "x", &X)
    read_image(w, kind, False, "direct.forward_pooled", "w", &W)
    cdef uint8_t *number = read_pooled(y, index, size, kind, "direct.forward_pooled", &Y)
    if len(stride) != 2:
        raise ValueError(f"direct.forward_pooled: expected strides of 2 dimensions, got {stride}")
    read_plan(&X, &W, &Y, stride, padding, dilation, groups, "direct.forward_pooled", &p)
    cdef cnp.ndarray b = read_bias(bias, kind, Y.channels, "direct.forward_pooled")
    if cnp.PyArray_SIZE(y) == 0:
        return
    cdef Py_ssize_t row_bytes = p.out[2] * Y.channels * cnp.PyArray_ITEMSIZE(y)
    p.band = min(p.band, max(POOLED_BYTES // row_bytes, 2))
    if p.band < p.out[1]:
        p.band = max(p.band // 2 * 2, 2)  # no square lies in two bands
    p.bands = (p.out[1] + p.band - 1) // p.band
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _forward[float](&p, X, W, Y, <float *> b_data, True, number, num_threads)
    else:
        _forward[double](&p, X, W, Y, <double *> b_data, True, number, num_threads)


cdef bint is_depthwise(const Plan *p, const Image *Y, Py_ssize_t lanes, Py_ssize_t most) noexcept nogil:
    """Whether lanes belong to several groups: one filter for each channel and at least a vector of them, or as many
    filters as channels in each group, 2, 4 or 8 up to `most`, and whole vectors of them."""
    if p.groups == 1 or Y.channels != p.C:
        return False
    if p.inside == 1:
        return p.C >= lanes
    return p.inside <= most and p.inside & (p.inside - 1) == 0 and p.C % lanes == 0


cdef int _forward(Plan *p, Image X, Image W, Image Y, const real *bias, bint relu, uint8_t *index,
                  int num_threads) except -1:
    """With an index, Y is the pooled result: a band goes to scratch memory, and its maxima to Y."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t F = Y.channels // p.groups, K = p.runs * p.length
    cdef Py_ssize_t group_size = (F + panel - 1) // panel * panel * K, units = Y.images * p.out[0] * p.bands, unit, g
    cdef Py_ssize_t line = p.out[2] * Y.channels + panel, input = line + (padded_size(p) if p.padded else 0) + 16
    cdef Py_ssize_t scratch = input + (p.band * p.out[2] * Y.channels + panel if index != NULL else 0)
    cdef Py_ssize_t at
    cdef Py_ssize_t most = kernels.direct_grouped_most_f32() if real is float else kernels.direct_grouped_most_f64()
    cdef bint depthwise = is_depthwise(p, &Y, panel // 2, most)
    cdef bint stream = is_streamed(Y.data, Y.images * Y.image, Y.channels, sizeof(real)) and index == NULL and (
        p.groups == 1 or depthwise)
    cdef real *packed = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef real *out
    cdef const real *source
    cdef nnx_taps taps
    if units < num_threads:
        num_threads = units
    try:
        packed = <real *> take_workspace(max(p.groups * group_size, K * p.C if depthwise else 0, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            if depthwise:
                pack_depthwise[real](p, &W, packed)
            else:
                for g in range(p.groups):
                    _pack[real](p, &W, g * F, F, panel, packed + g * group_size)
            share_out(&shares, units, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    mine = buffer + thread * scratch
                    source = read_band[real](p, &X, unit, mine + line)
                    taps = taps_of(p, &X, unit)
                    taps.stream = stream
                    taps.result_row = p.out[2] * Y.channels
                    out = <real *> Y.data + target_of(p, &Y, unit) if index == NULL else mine + input
                    if depthwise:
                        if real is float:
                            kernels.direct_depthwise_f32(&taps, source, p.C, packed, bias, relu, out, p.C)
                        else:
                            kernels.direct_depthwise_f64(&taps, source, p.C, packed, bias, relu, out, p.C)
                    for g in range(0 if depthwise else p.groups):
                        if real is float:
                            kernels.direct_forward_f32(&taps, source + g * p.inside, F, packed + g * group_size,
                                                       bias + g * F if bias != NULL else NULL, relu, out + g * F,
                                                       Y.channels, mine)
                        else:
                            kernels.direct_forward_f64(&taps, source + g * p.inside, F, packed + g * group_size,
                                                       bias + g * F if bias != NULL else NULL, relu, out + g * F,
                                                       Y.channels, mine)
                    if index != NULL:
                        at = unit // p.bands * Y.image + unit % p.bands * p.band // 2 * Y.stride[1]
                        pool_squares[real](out, taps.rows, p.out[2], Y.channels, <real *> Y.data + at, index + at)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void pack_depthwise(const Plan *p, const Image *W, real *packed) noexcept nogil:
    """packed[tap][channel of the group][filter]"""
    cdef Py_ssize_t t, e, f
    cdef const real *w
    for t in range(p.runs):
        for e in range(p.inside):
            w = <real *> W.data + _tap(p, W, t) + e * W.channel
            for f in range(p.C):
                packed[f] = w[f * W.image]
            packed += p.C


cdef inline Py_ssize_t _tap(const Plan *p, const Image *W, Py_ssize_t number) noexcept nogil:
    """Where in a filter the tap with this number is."""
    return (
        number // p.taps[2] // p.taps[1] * W.stride[0] + number // p.taps[2] % p.taps[1] * W.stride[1]
        + number % p.taps[2] * W.stride[2]
    )


cdef void _pack(const Plan *p, const Image *W, Py_ssize_t first, Py_ssize_t F, Py_ssize_t panel,
                real *packed) noexcept nogil:
    """packed[panel][(tap, channel)][filter of the panel] of F filters, zeros behind the last one."""
    cdef Py_ssize_t f = 0, t, c, j, width
    cdef const real *tap
    cdef const real *w
    while f < F:
        width = min(panel, F - f)
        for t in range(p.taps[0] * p.taps[1] * p.taps[2]):
            tap = <real *> W.data + (first + f) * W.image + _tap(p, W, t)
            for c in range(p.inside):
                w = tap + c * W.channel
                for j in range(width):
                    packed[j] = w[j * W.image]
                for j in range(width, panel):
                    packed[j] = 0
                packed += panel
        f += panel
