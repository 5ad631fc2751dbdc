"""Convolution with few filters and stride 1: the lanes of a vector are pixels times filters.

A band of an image is copied, with the zeros of its padding, so that each number stands there F times, once for each
filter; then a row of the result is plain loads, times vectors of weights that repeat along the row. The kernels are in
ext/simd/spread.h. A unit of work is a band of one image; sums over bands have a fixed order: the bits do not depend on
the number of threads.

Dimension letters: N images, C channels in, F filters (channels out).
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from nnx._ext.common cimport check_threads, check_writeable, real, real_type
from nnx._ext.conv cimport Image, read_bias, read_image
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.pool cimport pool_squares, read_pooled
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "table.h" nogil:
    struct nnx_band:
        Py_ssize_t rows
        Py_ssize_t width
        Py_ssize_t C
        Py_ssize_t F
        Py_ssize_t down
        Py_ssize_t across
        Py_ssize_t ld

    ctypedef struct nnx_spread "struct nnx_spread":
        Py_ssize_t (*spread_lanes_f32)() noexcept nogil
        Py_ssize_t (*spread_lanes_f64)() noexcept nogil
        Py_ssize_t (*spread_period_f32)(Py_ssize_t F) noexcept nogil
        Py_ssize_t (*spread_period_f64)(Py_ssize_t F) noexcept nogil
        void (*spread_numbers_f32)(Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, float *,
                                   Py_ssize_t) noexcept nogil
        void (*spread_numbers_f64)(Py_ssize_t, Py_ssize_t, const double *, Py_ssize_t, double *,
                                   Py_ssize_t) noexcept nogil
        void (*spread_forward_f32)(const nnx_band *, const float *, const float *, const float *, int,
                                   float *) noexcept nogil
        void (*spread_forward_f64)(const nnx_band *, const double *, const double *, const double *, int,
                                   double *) noexcept nogil
        void (*spread_weight_f32)(const nnx_band *, const float *, const float *, float *) noexcept nogil
        void (*spread_weight_f64)(const nnx_band *, const double *, const double *, double *) noexcept nogil

cdef enum:
    BAND_BYTES = 131072    # of a spread band, about: it stays in the second-level cache
    ROW_BLOCK = 8          # rows of a band are a multiple of it, where the image has so many
    CHUNKS = 16            # partial weight gradients, at most
    MOST_FILTERS = 8
    MOST_BYTES = 4194304   # of a band of the fewest rows


def most_filters(Py_ssize_t itemsize):
    """Filters up to which this is worth it, for numbers of 4 or 8 bytes: three quarters of the lanes of the level in
    use, half of them where those are few."""
    cdef const nnx_spread *kernels = <const nnx_spread *> table().spread
    cdef Py_ssize_t lanes = kernels.spread_lanes_f32() if itemsize == sizeof(float) else kernels.spread_lanes_f64()
    return min(lanes * 3 // 4 if lanes >= 8 else lanes // 2, MOST_FILTERS)


cdef struct Plan:
    nnx_band band
    Py_ssize_t lanes
    Py_ssize_t period      # vectors after which the filters in the lanes are the same again
    Py_ssize_t low[2]      # zeros above and to the left
    Py_ssize_t out[2]      # rows and columns of y
    Py_ssize_t rows        # of y per band
    Py_ssize_t bands       # per image
    Py_ssize_t line        # numbers of a padded row of one channel
    Py_ssize_t taps        # numbers of one phase's weights


cdef int _plan(Image *x, Image *w, Image *y, tuple padding, int kind, str kernel, Plan *p) except -1:
    """Check the shapes and cut the images into bands."""
    cdef const nnx_spread *kernels = <const nnx_spread *> table().spread
    cdef bint single = kind == cnp.NPY_FLOAT
    cdef Py_ssize_t itemsize = sizeof(float) if single else sizeof(double), row_bytes
    cdef Py_ssize_t lanes = kernels.spread_lanes_f32() if single else kernels.spread_lanes_f64()
    cdef int axis
    if len(padding) != 2:
        raise ValueError(f"{kernel}: expected padding of 2 numbers, got {padding}")
    if w.size[0] != 1 or w.size[1] not in (3, 5, 7) or x.size[0] != 1 or y.size[0] != 1:
        raise ValueError(
            f"{kernel}: expected filters of 3, 5 or 7 rows on images of two dimensions, got {w.size[1]}x{w.size[2]}"
        )
    if w.channels != x.channels or w.images != y.channels or x.images != y.images:
        raise ValueError(
            f"{kernel}: expected x (N, C, ..), w (F, C, ..) and y (N, F, ..), got ({x.images}, {x.channels}), "
            f"({w.images}, {w.channels}) and ({y.images}, {y.channels})"
        )
    if w.images > MOST_FILTERS:
        raise ValueError(f"{kernel}: expected at most {MOST_FILTERS} filters, got {w.images}")
    for axis in range(2):
        p.low[axis] = padding[axis]
        p.out[axis] = y.size[axis + 1]
        if not 0 <= p.low[axis] < w.size[axis + 1]:
            raise ValueError(f"{kernel}: expected padding in [0, {w.size[axis + 1]}), got {padding}")
    p.band.C, p.band.F, p.band.down, p.band.across = x.channels, w.images, w.size[1], w.size[2]
    p.lanes = lanes
    p.period = kernels.spread_period_f32(w.images) if single else kernels.spread_period_f64(w.images)
    p.band.width = p.out[1] * p.band.F
    p.band.ld = _up(_up(p.band.width, lanes) + (p.band.across - 1) * p.band.F, lanes)
    p.line = p.band.ld // max(p.band.F, 1) + 2 * lanes
    p.taps = p.band.C * p.band.across * p.band.down * lanes
    if <double> (ROW_BLOCK + p.band.down) * p.band.C * p.band.ld * itemsize > MOST_BYTES or (
        <double> p.taps * itemsize > MOST_BYTES
    ):
        raise ValueError(
            f"{kernel}: expected {ROW_BLOCK} rows of all channels, {p.band.F} times, to fit {MOST_BYTES} bytes, got "
            f"{p.band.C} channels and {p.out[1]} columns"
        )
    row_bytes = max(p.band.C * p.band.ld * itemsize, 1)
    p.rows = max((BAND_BYTES // row_bytes - p.band.down + 1) // ROW_BLOCK, 1) * ROW_BLOCK
    p.rows = max(min(p.rows, p.out[0]), 1)
    p.bands = (p.out[0] + p.rows - 1) // p.rows
    return 0


cdef inline Py_ssize_t _up(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    return (n + step - 1) // step * step


cdef inline Py_ssize_t _band_size(const Plan *p) noexcept nogil:
    """Numbers of scratch memory: a spread band, and the lines it is made of."""
    return (p.rows + p.band.down - 1) * p.band.C * (p.band.ld + p.line) + 16


cdef nnx_band _band(const Plan *p, Py_ssize_t unit) noexcept nogil:
    cdef nnx_band band = p.band
    band.rows = min(p.rows, p.out[0] - unit % p.bands * p.rows)
    return band


cdef const real *_spread_band(const nnx_spread *kernels, const Plan *p, const Image *x, Py_ssize_t unit,
                              real *buffer) noexcept nogil:
    """Copy the rows under a band into lines with zeros around them, and spread those."""
    cdef Py_ssize_t first = unit % p.bands * p.rows, rows = min(p.rows, p.out[0] - first) + p.band.down - 1
    cdef Py_ssize_t top = first - p.low[0], C = p.band.C, F = p.band.F, i, c, j
    cdef Py_ssize_t columns = min(x.size[2], p.out[1] + p.band.across - 1 - p.low[1])
    cdef const real *image = <real *> x.data + unit // p.bands * x.image
    cdef const real *source
    cdef real *lines = buffer + (p.rows + p.band.down - 1) * C * p.band.ld
    cdef real *line
    memset(lines, 0, rows * C * p.line * sizeof(real))
    for i in range(max(-top, 0), min(rows, x.size[1] - top)):
        for c in range(C):
            source = image + (top + i) * x.stride[1] + c * x.channel
            line = lines + (i * C + c) * p.line + p.low[1]
            if x.stride[2] == 1:
                memcpy(line, source, columns * sizeof(real))
            else:
                for j in range(columns):
                    line[j] = source[j * x.stride[2]]
    if real is float:
        kernels.spread_numbers_f32(F, rows * C, lines, p.line, buffer, p.band.ld)
    else:
        kernels.spread_numbers_f64(F, rows * C, lines, p.line, buffer, p.band.ld)
    return buffer


def forward(cnp.ndarray x, cnp.ndarray w, object bias, cnp.ndarray y, tuple padding, bint relu, int num_threads):
    """y = x * w + bias (cross-correlation) with stride 1, or the positive part of that.

    x (N, C, H, W) of any strides, w (F, C, 3 or 5 or 7, ..), bias (F,) or None, y (N, F, H', W') channels-last.
    padding: zeros above and to the left, fewer than taps; those below and to the right follow from y's shape.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(y, "spread.forward", "y")
    check_threads(num_threads, "spread.forward")
    check_writeable(y, "spread.forward", "y")
    read_image(x, kind, False, "spread.forward", "x", &X)
    read_image(w, kind, False, "spread.forward", "w", &W)
    read_image(y, kind, True, "spread.forward", "y", &Y)
    _plan(&X, &W, &Y, padding, kind, "spread.forward", &p)
    cdef cnp.ndarray b = read_bias(bias, kind, Y.channels, "spread.forward")
    if cnp.PyArray_SIZE(y) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _forward[float](&p, X, W, Y, <float *> b_data, relu, NULL, num_threads)
    else:
        _forward[double](&p, X, W, Y, <double *> b_data, relu, NULL, num_threads)


def forward_pooled(cnp.ndarray x, cnp.ndarray w, object bias, cnp.ndarray y, cnp.ndarray index, tuple size,
                   tuple padding, int num_threads):
    """y, index = the maxima of squares of 2x2 numbers of the positive part of forward(): as max_pool() of that.

    size: rows and columns of forward()'s result; y and index (bytes) have half of them, rounded down, channels-last.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(y, "spread.forward_pooled", "y")
    check_threads(num_threads, "spread.forward_pooled")
    read_image(x, kind, False, "spread.forward_pooled", "x", &X)
    read_image(w, kind, False, "spread.forward_pooled", "w", &W)
    cdef uint8_t *number = read_pooled(y, index, size, kind, "spread.forward_pooled", &Y)
    _plan(&X, &W, &Y, padding, kind, "spread.forward_pooled", &p)
    cdef cnp.ndarray b = read_bias(bias, kind, Y.channels, "spread.forward_pooled")
    if cnp.PyArray_SIZE(y) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _forward[float](&p, X, W, Y, <float *> b_data, True, number, num_threads)
    else:
        _forward[double](&p, X, W, Y, <double *> b_data, True, number, num_threads)


cdef int _forward(Plan *p, Image X, Image W, Image Y, const real *bias, bint relu, uint8_t *index,
                  int num_threads) except -1:
    """With an index, Y is the pooled result: a band goes to scratch memory, and its maxima to Y."""
    cdef const nnx_spread *kernels = <const nnx_spread *> table().spread
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t units = Y.images * p.bands, unit, v, k, i, c, j, f, at, step = 1 if index == NULL else 2
    cdef Py_ssize_t input = _band_size(p), scratch = input + (p.rows * p.band.width + p.lanes if index != NULL else 0)
    cdef real *weights = NULL
    cdef real *buffer = NULL
    cdef real *biases
    cdef real *out
    cdef const real *source
    cdef nnx_band band
    if units < num_threads:
        num_threads = units
    try:
        weights = <real *> take_workspace(p.period * (p.taps + p.lanes) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        biases = weights + p.period * p.taps
        with nogil:
            for v in range(p.period):
                for j in range(p.lanes):
                    f = (v * p.lanes + j) % p.band.F
                    biases[v * p.lanes + j] = bias[f] if bias != NULL else 0
                    for c in range(p.band.C):
                        for k in range(p.band.across):
                            for i in range(p.band.down):
                                weights[
                                    v * p.taps + ((c * p.band.across + k) * p.band.down + i) * p.lanes + j
                                ] = (<real *> W.data)[f * W.image + c * W.channel + i * W.stride[1] + k * W.stride[2]]
            share_out(&shares, units, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    source = _spread_band[real](kernels, p, &X, unit, buffer + thread * scratch)
                    band = _band(p, unit)
                    at = unit // p.bands * Y.image + unit % p.bands * p.rows // step * Y.stride[1]
                    out = <real *> Y.data + at if index == NULL else buffer + thread * scratch + input
                    if real is float:
                        kernels.spread_forward_f32(&band, source, weights, biases, relu, out)
                    else:
                        kernels.spread_forward_f64(&band, source, weights, biases, relu, out)
                    if index != NULL:
                        pool_squares[real](out, band.rows, p.out[1], p.band.F, <real *> Y.data + at, index + at)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(weights)
    return 0


def weight_grad(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gw, tuple padding, int num_threads):
    """gw = the gradient of forward() with respect to w.

    gy (N, F, H', W') channels-last, x (N, C, H, W) and gw (F, C, 3 or 5 or 7, ..) of any strides.
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(gw, "spread.weight_grad", "gw")
    check_threads(num_threads, "spread.weight_grad")
    check_writeable(gw, "spread.weight_grad", "gw")
    read_image(x, kind, False, "spread.weight_grad", "x", &X)
    read_image(gw, kind, False, "spread.weight_grad", "gw", &W)
    read_image(gy, kind, True, "spread.weight_grad", "gy", &Y)
    _plan(&X, &W, &Y, padding, kind, "spread.weight_grad", &p)
    if cnp.PyArray_SIZE(gw) == 0:
        return
    if kind == cnp.NPY_FLOAT:
        _weight_grad[float](<float *> W.data, &p, X, W, Y, num_threads)
    else:
        _weight_grad[double](<double *> W.data, &p, X, W, Y, num_threads)


cdef int _weight_grad(real *gw, Plan *p, Image X, Image W, Image Y, int num_threads) except -1:
    """Each of a fixed number of chunks sums its bands, lane by lane; chunks, then lanes are added in order."""
    cdef const nnx_spread *kernels = <const nnx_spread *> table().spread
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t units = Y.images * p.bands if p.band.width > 0 and p.out[0] > 0 else 0
    cdef Py_ssize_t chunks = max(min(units, CHUNKS), 1), chunk, unit, size = (p.period + 1) * p.taps
    cdef Py_ssize_t scratch = _band_size(p), F = p.band.F, rest = p.band.width % p.lanes, f, c, k, i, at, v, j
    cdef real *partial = NULL
    cdef real *buffer = NULL
    cdef real *sums
    cdef const real *source
    cdef const real *gy
    cdef real total[MOST_FILTERS]
    cdef nnx_band band
    if chunks < num_threads:
        num_threads = chunks
    try:
        partial = <real *> take_workspace(chunks * size * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            share_out(&shares, chunks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                chunk = next_of(&shares, thread)
                while chunk >= 0:
                    sums = partial + chunk * size
                    memset(sums, 0, size * sizeof(real))
                    for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
                        source = _spread_band[real](kernels, p, &X, unit, buffer + thread * scratch)
                        band = _band(p, unit)
                        gy = <real *> Y.data + unit // p.bands * Y.image + unit % p.bands * p.rows * Y.stride[1]
                        if real is float:
                            kernels.spread_weight_f32(&band, source, gy, sums)
                        else:
                            kernels.spread_weight_f64(&band, source, gy, sums)
                    chunk = next_of(&shares, thread)
            for chunk in range(1, chunks):
                for at in range(size):
                    partial[at] += partial[chunk * size + at]
            for c in range(p.band.C):
                for k in range(p.band.across):
                    for i in range(p.band.down):
                        at = ((c * p.band.across + k) * p.band.down + i) * p.lanes
                        for f in range(F):
                            total[f] = 0
                        f = 0
                        for v in range(p.period):
                            for j in range(p.lanes):
                                total[f] += partial[v * p.taps + at + j]
                                f = f + 1 if f + 1 < F else 0
                        f = (p.band.width - rest) % F
                        for j in range(rest):  # the ends of rows
                            total[f] += partial[p.period * p.taps + at + j]
                            f = f + 1 if f + 1 < F else 0
                        for f in range(F):
                            gw[f * W.image + c * W.channel + i * W.stride[1] + k * W.stride[2]] = total[f]
    finally:
        give_workspace(buffer)
        give_workspace(partial)
    return 0
