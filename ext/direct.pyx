"""Convolution that reads each number where it lies: for few filters or few channels.

An image, or a band of its rows, is copied once with the zeros of its padding around it (an unpadded channels-last image
is read in place); of a volume, the bands of all planes that one plane of the result reads. The kernels of
ext/simd/direct.h walk over it; no column matrix is built. The data gradient, in direct_data.pyx, goes the other way.

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
    CHUNKS = 16            # partial weight gradients, at most
    SUM_BLOCK = 1024       # numbers of a partial gradient that one task adds up
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


cdef inline Py_ssize_t _padded_size(const Plan *p) noexcept nogil:
    """Numbers of a padded band."""
    return p.taps[0] * _plane_size(p)


cdef inline Py_ssize_t _target(const Plan *p, const Image *y, Py_ssize_t unit) noexcept nogil:
    """Where in y a unit's band begins."""
    return (
        unit // p.bands // p.out[0] * y.image + unit // p.bands % p.out[0] * y.stride[0]
        + unit % p.bands * p.band * y.stride[1]
    )


cdef nnx_taps _taps(Plan *p, const Image *x, Py_ssize_t unit) noexcept nogil:
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
    t.stream = False
    return t


cdef const real *_read_band(const Plan *p, const Image *x, Py_ssize_t unit, real *buffer) noexcept nogil:
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


cdef bint _depthwise(const Plan *p, const Image *Y, Py_ssize_t lanes, Py_ssize_t most) noexcept nogil:
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
    cdef Py_ssize_t line = p.out[2] * Y.channels + panel, input = line + (_padded_size(p) if p.padded else 0) + 16
    cdef Py_ssize_t scratch = input + (p.band * p.out[2] * Y.channels + panel if index != NULL else 0)
    cdef Py_ssize_t at
    cdef Py_ssize_t most = kernels.direct_grouped_most_f32() if real is float else kernels.direct_grouped_most_f64()
    cdef bint depthwise = _depthwise(p, &Y, panel // 2, most)
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
                    source = _read_band[real](p, &X, unit, mine + line)
                    taps = _taps(p, &X, unit)
                    taps.stream = stream
                    out = <real *> Y.data + _target(p, &Y, unit) if index == NULL else mine + input
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
    for t in range(p.runs):
        for e in range(p.inside):
            for f in range(p.C):
                packed[f] = (<real *> W.data)[f * W.image + e * W.channel + _tap(p, W, t)]
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
    cdef Py_ssize_t f, t, c, j
    cdef const real *w
    f = 0
    while f < F:
        for t in range(p.taps[0] * p.taps[1] * p.taps[2]):
            for c in range(p.inside):
                w = <real *> W.data + first * W.image + _tap(p, W, t) + c * W.channel
                for j in range(panel):
                    packed[j] = w[(f + j) * W.image] if f + j < F else 0
                packed += panel
        f += panel


# -- weight gradient --------------------------------------------------------------------------------

def weight_grad(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gw, tuple stride, tuple padding, tuple dilation,
                Py_ssize_t groups, int num_threads):
    """gw = the gradient of forward() with respect to w.

    gy (N, F, axes) channels-last, x (N, C, axes) of any strides, gw (F, C / groups, taps) of any strides.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(gw, "direct.weight_grad", "gw")
    check_threads(num_threads, "direct.weight_grad")
    check_writeable(gw, "direct.weight_grad", "gw")
    read_image(x, kind, False, "direct.weight_grad", "x", &X)
    read_image(gw, kind, False, "direct.weight_grad", "gw", &W)
    read_image(gy, kind, True, "direct.weight_grad", "gy", &Y)
    read_plan(&X, &W, &Y, stride, padding, dilation, groups, "direct.weight_grad", &p)
    if cnp.PyArray_SIZE(gw) == 0:
        return
    if kind == cnp.NPY_FLOAT:
        _weight_grad[float](<float *> W.data, &p, X, W, Y, num_threads)
    else:
        _weight_grad[double](<double *> W.data, &p, X, W, Y, num_threads)


cdef int _weight_grad(real *gw, Plan *p, Image X, Image W, Image Y, int num_threads) except -1:
    """Each of a fixed number of chunks sums its bands; the chunks' sums are added in order."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t lanes = (gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()) // 2
    cdef Py_ssize_t most = kernels.direct_grouped_most_f32() if real is float else kernels.direct_grouped_most_f64()
    cdef bint depthwise = _depthwise(p, &Y, lanes, most)
    cdef Py_ssize_t F = p.C if depthwise else Y.channels // p.groups, ld = (F + lanes - 1) // lanes * lanes
    cdef Py_ssize_t K = p.runs * p.length, groups = 1 if depthwise else p.groups, size = groups * K * ld
    cdef Py_ssize_t units = Y.images * p.out[0] * p.bands if Y.size[1] * Y.size[2] > 0 else 0
    cdef Py_ssize_t chunks = max(min(units, CHUNKS), 1), chunk, unit, g, f, k, at, place
    # Whole vectors are read: behind the last filter there must be something to read. Where lanes belong to several
    # groups, a band is gone through once for each vector of channels: it is copied to be in the cache.
    cdef bint tail = ld > 2 * lanes if depthwise else ld != F
    cdef Py_ssize_t copy = p.band * p.out[2] * Y.channels + lanes if tail else 0
    cdef Py_ssize_t scratch = (copy + 15) // 16 * 16 + (_padded_size(p) if p.padded else 0) + 16
    cdef real *partial = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef real *sums
    cdef const real *source
    cdef const real *gy
    cdef nnx_taps taps
    if chunks < num_threads:
        num_threads = chunks
    try:
        partial = <real *> take_workspace(max(chunks * size, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            share_out(&shares, chunks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                chunk = next_of(&shares, thread)
                while chunk >= 0:
                    mine = buffer + thread * scratch
                    sums = partial + chunk * size
                    memset(sums, 0, size * sizeof(real))
                    if tail:
                        memset(mine, 0, copy * sizeof(real))
                    for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
                        source = _read_band[real](p, &X, unit, mine + (copy + 15) // 16 * 16)
                        taps = _taps(p, &X, unit)
                        gy = <real *> Y.data + _target(p, &Y, unit)
                        if tail:
                            memcpy(mine, gy, taps.rows * taps.columns * Y.channels * sizeof(real))
                            gy = mine
                        if depthwise:
                            if real is float:
                                kernels.direct_depthwise_weight_f32(&taps, source, F, gy, sums)
                            else:
                                kernels.direct_depthwise_weight_f64(&taps, source, F, gy, sums)
                            continue
                        for g in range(groups):
                            if real is float:
                                kernels.direct_weight_f32(&taps, source + g * p.inside, F, gy + g * F, Y.channels,
                                                          sums + g * K * ld, ld)
                            else:
                                kernels.direct_weight_f64(&taps, source + g * p.inside, F, gy + g * F, Y.channels,
                                                          sums + g * K * ld, ld)
                    chunk = next_of(&shares, thread)
            for g in prange((size + SUM_BLOCK - 1) // SUM_BLOCK, num_threads=num_threads, schedule="static"):
                _add_chunks[real](partial, size, chunks, g * SUM_BLOCK, min((g + 1) * SUM_BLOCK, size))
            for f in prange(groups * F, num_threads=num_threads, schedule="static"):
                place = f % F
                if depthwise and place >= F // lanes * lanes:
                    place = ld - F + place  # the last vector of channels begins earlier
                for k in range(K):
                    at = k % p.inside * W.channel + _tap(p, &W, k // p.inside)
                    gw[f * W.image + at] = partial[(f // F * K + k) * ld + place]
    finally:
        give_workspace(buffer)
        give_workspace(partial)
    return 0


cdef void _add_chunks(real *partial, Py_ssize_t size, Py_ssize_t chunks, Py_ssize_t start,
                      Py_ssize_t stop) noexcept nogil:
    """Add numbers start ... stop - 1 of all chunks to those of the first, chunk after chunk, as they lie in memory."""
    cdef Py_ssize_t chunk, i
    cdef const real *other
    for chunk in range(1, chunks):
        other = partial + chunk * size
        for i in range(start, stop):
            partial[i] += other[i]
