"""Convolution in one, two and three dimensions by columns: forward and data gradient (weights: conv_weight.pyx).

Images are channels-last in memory. Each operation cuts the rows of its column matrix (one row per pixel) into tiles,
gathers a tile into scratch memory that stays in the second-level cache, and multiplies it by the packed weights
(conv_filters.pyx): the column matrix of a whole batch is never built, but of few pixels, where filters are many. A
tile's size depends on the shapes alone and every sum has a fixed order, so that the bits do not depend on the number
of threads.

Dimension letters: N images, C channels in, F filters (channels out), G groups; P pixels of a tile, T taps of a filter.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy

from nnx._ext.common cimport _shape, _strides, check_threads, check_writeable, real, real_type
from nnx._ext.conv_filters cimport Filters, filters_of, pack_filters, tap_of
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    TILE_BYTES = 196608        # a tile of the column matrix: a part of the second-level cache
    TILE_PIXELS = 384          # at most
    TILES = 16                 # at least, where there are pixels enough, so that threads share the work evenly
    ROW_STEP = 12              # rows of the largest micro-kernel
    FEW_PIXELS = 256           # of a batch, at most, where each task packs
    FEW_COLUMNS = 128          # filters, at most: fewer where that gives each thread fewer than
    TASKS = 4                  # of them. But only for
    MANY_WEIGHTS = 262144      # numbers, at least: they do not stay in the second-level cache


# -- arguments --------------------------------------------------------------------------------------

cdef int read_image(cnp.ndarray a, int kind, bint channels_last, str kernel, str argument, Image *result) except -1:
    """Read the shape and strides of an (N, C, 1-3 axes) array; `channels_last`: it must be dense in that order."""
    if real_type(a, kernel, argument) != kind:
        raise TypeError(f"{kernel}: expected arrays of one dtype, got {argument} of {a.dtype}")
    cdef int ndim = cnp.PyArray_NDIM(a), axis, extra
    if ndim < 3 or ndim > 5:
        raise ValueError(f"{kernel}: expected {argument} with 3 to 5 dimensions, got shape {_shape(a)}")
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a), expected
    for axis in range(ndim):
        if cnp.PyArray_STRIDE(a, axis) % size:
            raise ValueError(f"{kernel}: expected {argument} with strides of whole numbers, got {_strides(a)}")
    extra = 5 - ndim
    result.data = cnp.PyArray_DATA(a)
    result.images = cnp.PyArray_DIM(a, 0)
    result.channels = cnp.PyArray_DIM(a, 1)
    result.image = cnp.PyArray_STRIDE(a, 0) // size
    result.channel = cnp.PyArray_STRIDE(a, 1) // size
    for axis in range(3):
        if axis < extra:
            result.size[axis] = 1
            result.stride[axis] = 0
        else:
            result.size[axis] = cnp.PyArray_DIM(a, axis - extra + 2)
            result.stride[axis] = cnp.PyArray_STRIDE(a, axis - extra + 2) // size
    # strides of axes of length 1 are arbitrary: give them the value that channels-last order has
    expected = 1
    if result.channels == 1 or (channels_last and cnp.PyArray_SIZE(a) == 0):
        result.channel = 1
    cdef bint fits = result.channel == 1
    expected = result.channels
    for axis in range(2, -1, -1):
        if result.size[axis] == 1:
            result.stride[axis] = expected
        fits = fits and result.stride[axis] == expected
        expected *= result.size[axis]
    if result.images == 1:
        result.image = expected
    fits = fits and result.image == expected
    if channels_last and not fits and cnp.PyArray_SIZE(a) > 0:
        raise ValueError(
            f"{kernel}: expected {argument} to be channels-last in memory, "
            f"got shape {_shape(a)} with strides {_strides(a)}"
        )
    return 0


cdef int read_geometry(tuple stride, tuple padding, tuple dilation, Py_ssize_t largest, str kernel,
                       Geometry *g) except -1:
    """Tuples of 1 to 3 integers, none above `largest`; missing axes get stride 1, padding 0, dilation 1."""
    cdef int n = len(stride), axis
    if n < 1 or n > 3 or len(padding) != n or len(dilation) != n:
        raise ValueError(
            f"{kernel}: expected stride, padding and dilation of 1 to 3 numbers, got {stride}, {padding}, {dilation}"
        )
    for axis in range(3):
        g.stride[axis] = 1 if axis < 3 - n else stride[axis - 3 + n]
        g.padding[axis] = 0 if axis < 3 - n else padding[axis - 3 + n]
        g.dilation[axis] = 1 if axis < 3 - n else dilation[axis - 3 + n]
        if not (
            1 <= g.stride[axis] <= largest and 0 <= g.padding[axis] <= largest and 1 <= g.dilation[axis] <= largest
        ):
            raise ValueError(
                f"{kernel}: expected stride and dilation >= 1 and padding >= 0, got {stride}, {dilation}, {padding}"
            )
    return 0


cdef int check_weights(Image *w, Image *x, Image *y, Py_ssize_t groups, str kernel) except -1:
    """Check weights (F, C / G, taps) against C channels in and F channels out."""
    if groups < 1 or x.channels != w.channels * groups or y.channels != w.images or w.images % groups:
        raise ValueError(
            f"{kernel}: expected weights of {y.channels} filters for {x.channels} channels in {groups} groups, "
            f"got {w.images} filters for {w.channels} channels each"
        )
    if x.images != y.images:
        raise ValueError(f"{kernel}: expected as many images in as out, got {x.images} and {y.images}")
    cdef int axis
    for axis in range(3):
        if w.size[axis] > MAX_TAPS:
            raise ValueError(f"{kernel}: expected at most {MAX_TAPS} taps per axis, got {w.size[axis]}")
    return 0


cdef const void *joined_image(cnp.ndarray a, const Image *y, int kind, str kernel, str argument) except? NULL:
    """The data of an image to join with results like `y`, channels-last as they are, or NULL for None."""
    cdef Image other
    if a is None:
        return NULL
    read_image(a, kind, True, kernel, argument, &other)
    if not same_shape(&other, y):
        raise ValueError(
            f"{kernel}: expected {argument} of the result's shape ({y.images}, {y.channels}, {y.size[1]}, "
            f"{y.size[2]}), got {_shape(a)}"
        )
    return other.data


cdef cnp.ndarray read_bias(object bias, int kind, Py_ssize_t filters, str kernel):
    """`bias`, checked to be (F,) of this type, or None."""
    if bias is None:
        return None
    cdef cnp.ndarray b = bias
    if real_type(b, kernel, "bias") != kind or cnp.PyArray_NDIM(b) != 1 or cnp.PyArray_DIM(b, 0) != filters or (
        not cnp.PyArray_IS_C_CONTIGUOUS(b)
    ):
        raise ValueError(f"{kernel}: expected a contiguous bias of {filters} numbers like x, got shape {_shape(b)}")
    return b


# -- views ------------------------------------------------------------------------------------------

cdef Py_ssize_t view_rows(const nnx_view *v, Py_ssize_t images) noexcept nogil:
    return images * v.count[0] * v.count[1] * v.count[2]


cdef Py_ssize_t _taps(const nnx_view *v) noexcept nogil:
    return v.taps[0] * v.taps[1] * v.taps[2]


cdef void _source(nnx_view *v, Image *a, Py_ssize_t channels) noexcept nogil:
    cdef int axis
    v.channels = channels
    v.image = a.image
    v.channel = a.channel
    for axis in range(3):
        v.size[axis] = a.size[axis]
        v.stride[axis] = a.stride[axis]


cdef void input_view(nnx_view *v, Image *x, Image *w, Image *y, Geometry *g, Py_ssize_t *offsets) noexcept nogil:
    """The column matrix of a convolution: rows are output pixels, source is the input."""
    cdef int axis
    cdef Py_ssize_t k
    _source(v, x, w.channels)
    for axis in range(3):
        v.count[axis] = y.size[axis]
        v.step[axis] = g.stride[axis]
        v.taps[axis] = w.size[axis]
        for k in range(w.size[axis]):
            offsets[axis * MAX_TAPS + k] = k * g.dilation[axis] - g.padding[axis]
        v.offset[axis] = offsets + axis * MAX_TAPS


cdef Py_ssize_t tile_rows(Py_ssize_t rows, Py_ssize_t row_bytes) noexcept nogil:
    """Pixels per tile: as many as fit into TILE_BYTES, fewer where that would leave too few tiles."""
    cdef Py_ssize_t fit = TILE_BYTES // max(row_bytes, 1)
    cdef Py_ssize_t share = (rows + TILES - 1) // TILES
    fit = min(fit, TILE_PIXELS, max(share, 4 * ROW_STEP))
    return max((fit + ROW_STEP - 1) // ROW_STEP * ROW_STEP, ROW_STEP)


cdef inline Py_ssize_t _position(const nnx_view *v, const Py_ssize_t *scatter, Py_ssize_t row) noexcept nogil:
    """Where row number `row` of a view goes, by the strides {image, d, h, w}."""
    cdef Py_ssize_t rest = row // v.count[2]
    return (
        row % v.count[2] * scatter[3] + rest % v.count[1] * scatter[2] + rest // v.count[1] % v.count[0] * scatter[1]
        + rest // v.count[1] // v.count[0] * scatter[0]
    )


# -- a product of a gathered matrix and packed weights ----------------------------------------------

cdef int _columns_times(const nnx_view *v, Py_ssize_t images, const real *x, const Filters *filters, const real *bias,
                        bint relu, real *y, Py_ssize_t row_stride, const Py_ssize_t *scatter,
                        int num_threads) except -1:
    """y[row] = columns[row] . filters + bias, or with `relu` its positive part, for all rows of the view.

    scatter: NULL where row r is y + r * row_stride; else {image, d, h, w}, the strides of the positions of y.
    """
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t panels = (filters.outer + panel - 1) // panel, K = filters.taps * filters.inner, p
    if view_rows(v, images) <= FEW_PIXELS and K * filters.outer >= MANY_WEIGHTS and panels >= num_threads:
        return _few_columns_times[real](v, images, x, filters, bias, relu, y, row_stride, scatter, num_threads)
    cdef real *packed = <real *> take_workspace(max(panels * panel * K, 1) * sizeof(real))
    try:
        for p in prange(panels, nogil=True, num_threads=num_threads, schedule="static"):
            pack_filters[real](filters, p * panel, min(panel, filters.outer - p * panel), panel,
                               packed + p * panel * K)
        _columns_times_packed[real](v, images, x, packed, filters.outer, bias, relu, y, row_stride, scatter,
                                    num_threads)
    finally:
        give_workspace(packed)
    return 0


cdef int _few_columns_times(const nnx_view *v, Py_ssize_t images, const real *x, const Filters *filters,
                            const real *bias, bint relu, real *y, Py_ssize_t row_stride, const Py_ssize_t *scatter,
                            int num_threads) except -1:
    """The same for few rows and filters that do not stay in a cache: each task packs those that it multiplies.

    So they are read once and never written to memory; the whole column matrix is gathered before.
    """
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef const nnx_conv *conv = <const nnx_conv *> table().conv
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t rows = view_rows(v, images), K = filters.taps * filters.inner, part = FEW_COLUMNS
    cdef Py_ssize_t t, n, r, columns
    while part > panel and (filters.outer + part - 1) // part < TASKS * num_threads:
        part = part // 2
    cdef Py_ssize_t scratch = part * K + (rows * part if scatter != NULL else 0)
    cdef real *matrix = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef real *out
    try:
        matrix = <real *> take_workspace(max(rows * K, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            for t in prange((rows + ROW_STEP - 1) // ROW_STEP, num_threads=num_threads, schedule="static"):
                n = t * ROW_STEP
                if real is float:
                    conv.gather_f32(v, x, n, min(ROW_STEP, rows - n), matrix + n * K)
                else:
                    conv.gather_f64(v, x, n, min(ROW_STEP, rows - n), matrix + n * K)
            share_out(&shares, (filters.outer + part - 1) // part, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                mine = buffer + thread * scratch
                t = next_of(&shares, thread)
                while t >= 0:
                    n = t * part
                    columns = min(part, filters.outer - n)
                    pack_filters[real](filters, n, columns, panel, mine)
                    out = y + n if scatter == NULL else mine + part * K
                    if real is float:
                        gemm.gemm_f32(rows, columns, K, matrix, K, 1, mine, K, out,
                                      row_stride if scatter == NULL else part, 1, 0,
                                      bias + n if bias != NULL else NULL, NULL, relu)
                    else:
                        gemm.gemm_f64(rows, columns, K, matrix, K, 1, mine, K, out,
                                      row_stride if scatter == NULL else part, 1, 0,
                                      bias + n if bias != NULL else NULL, NULL, relu)
                    if scatter != NULL:
                        for r in range(rows):
                            memcpy(y + n + _position(v, scatter, r), out + r * part, columns * sizeof(real))
                    t = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(matrix)
    return 0


cdef int _columns_times_packed(const nnx_view *v, Py_ssize_t images, const real *x, const real *packed,
                               Py_ssize_t columns, const real *bias, bint relu, real *y, Py_ssize_t row_stride,
                               const Py_ssize_t *scatter, int num_threads) except -1:
    """The same with all filters packed before, a tile of columns at a time."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef const nnx_conv *conv = <const nnx_conv *> table().conv
    cdef Py_ssize_t rows = view_rows(v, images), K = _taps(v) * v.channels
    cdef Py_ssize_t tile = tile_rows(rows, (K + (columns if scatter != NULL else 0)) * sizeof(real))
    cdef Py_ssize_t tiles = (rows + tile - 1) // tile, t, first, count, r
    # a 1x1 convolution with stride 1 needs no gathering: its rows are the source's pixels
    cdef bint direct = _taps(v) == 1 and v.channel == 1
    cdef int axis
    for axis in range(3):
        direct = direct and v.step[axis] == 1 and v.offset[axis][0] == 0 and v.count[axis] == v.size[axis]
    direct = direct and v.stride[1] == v.size[2] * v.stride[2] and v.stride[0] == v.size[1] * v.stride[1]
    direct = direct and v.image == v.size[0] * v.stride[0]
    if tiles < num_threads:
        num_threads = max(tiles, 1)
    cdef Py_ssize_t scratch = tile * ((0 if direct else K) + (columns if scatter != NULL else 0)) + 16
    cdef real *buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
    cdef real *mine
    cdef real *out
    cdef const real *a
    cdef Py_ssize_t lda
    with nogil:
        share_out(&shares, tiles, num_threads)
        for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
            t = next_of(&shares, thread)
            while t >= 0:
                first = t * tile
                count = min(tile, rows - first)
                mine = buffer + thread * scratch
                if direct:
                    a = x + first * v.stride[2]
                    lda = v.stride[2]
                else:
                    a = mine
                    lda = K
                    if real is float:
                        conv.gather_f32(v, x, first, count, mine)
                    else:
                        conv.gather_f64(v, x, first, count, mine)
                out = y + first * row_stride if scatter == NULL else mine + (0 if direct else tile * K)
                if real is float:
                    gemm.gemm_f32(count, columns, K, a, lda, 1, packed, K, out,
                                  row_stride if scatter == NULL else columns, 1, 0, bias, NULL, relu)
                else:
                    gemm.gemm_f64(count, columns, K, a, lda, 1, packed, K, out,
                                  row_stride if scatter == NULL else columns, 1, 0, bias, NULL, relu)
                if scatter != NULL:
                    for r in range(count):
                        memcpy(y + _position(v, scatter, first + r), out + r * columns, columns * sizeof(real))
                t = next_of(&shares, thread)
    give_workspace(buffer)
    return 0


cdef int _depthwise(const nnx_view *v, Py_ssize_t images, const real *x, const real *w, const real *bias, bint relu,
                    real *y, const Py_ssize_t *scatter, int num_threads) except -1:
    """The same for one filter per channel; w is (taps, channels)."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_conv *conv = <const nnx_conv *> table().conv
    cdef Py_ssize_t rows = view_rows(v, images), C = v.channels, t, first, count, r
    cdef Py_ssize_t tile = tile_rows(rows, C * sizeof(real))
    cdef Py_ssize_t tiles = (rows + tile - 1) // tile
    if tiles < num_threads:
        num_threads = max(tiles, 1)
    cdef real *buffer = <real *> take_workspace(num_threads * tile * C * sizeof(real) + 64)
    cdef real *out
    with nogil:
        share_out(&shares, tiles, num_threads)
        for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
            t = next_of(&shares, thread)
            while t >= 0:
                first = t * tile
                count = min(tile, rows - first)
                out = y + first * C if scatter == NULL else buffer + thread * tile * C
                if real is float:
                    conv.depthwise_f32(v, x, first, count, w, bias, relu, out)
                else:
                    conv.depthwise_f64(v, x, first, count, w, bias, relu, out)
                if scatter != NULL:
                    for r in range(count):
                        memcpy(y + _position(v, scatter, first + r), out + r * C, C * sizeof(real))
                t = next_of(&shares, thread)
    give_workspace(buffer)
    return 0


# -- forward ----------------------------------------------------------------------------------------

def forward(cnp.ndarray x, cnp.ndarray w, object bias, cnp.ndarray y, tuple stride, tuple padding, tuple dilation,
            Py_ssize_t groups, bint relu, int num_threads):
    """y = x * w + bias (cross-correlation), or with `relu` its positive part.

    x (N, C, 1-3 axes) of any strides, w (F, C / groups, taps), bias (F,) or None, y (N, F, axes) channels-last.
    padding: zeros before the first pixel of each axis; those behind the last follow from y's shape.
    """
    cdef Image X, W, Y
    cdef Geometry g
    cdef int kind = real_type(y, "conv.forward", "y")
    check_threads(num_threads, "conv.forward")
    check_writeable(y, "conv.forward", "y")
    read_image(x, kind, False, "conv.forward", "x", &X)
    read_image(w, kind, False, "conv.forward", "w", &W)
    read_image(y, kind, True, "conv.forward", "y", &Y)
    read_geometry(stride, padding, dilation, LARGEST, "conv.forward", &g)
    check_weights(&W, &X, &Y, groups, "conv.forward")
    cdef cnp.ndarray b = read_bias(bias, kind, W.images, "conv.forward")
    if cnp.PyArray_SIZE(y) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _forward[float](X, W, Y, g, <float *> b_data, groups, relu, num_threads)
    else:
        _forward[double](X, W, Y, g, <double *> b_data, groups, relu, num_threads)


cdef int _forward(Image X, Image W, Image Y, Geometry g, const real *bias, Py_ssize_t groups, bint relu,
                  int num_threads) except -1:
    cdef nnx_view v
    cdef Filters filters
    cdef Py_ssize_t T = W.size[0] * W.size[1] * W.size[2], C = W.channels, F = W.images // groups, group, t
    cdef bint depthwise = C == 1 and F == 1 and groups > 1 and X.channel == 1
    cdef Py_ssize_t *offsets = <Py_ssize_t *> take_workspace(3 * MAX_TAPS * sizeof(Py_ssize_t))
    cdef Py_ssize_t *tap = NULL
    cdef real *packed = NULL
    try:
        tap = <Py_ssize_t *> take_workspace(max(T, 1) * sizeof(Py_ssize_t))
        packed = <real *> take_workspace(max(T * groups if depthwise else 1, 1) * sizeof(real))
        input_view(&v, &X, &W, &Y, &g, offsets)
        for t in range(T):
            tap[t] = tap_of(&W, t)
        if depthwise:
            v.channels = groups
            for t in range(T):
                for group in range(groups):
                    packed[t * groups + group] = (<real *> W.data)[tap[t] + group * W.image]
            return _depthwise[real](&v, Y.images, <real *> X.data, packed, bias, relu, <real *> Y.data, NULL,
                                    num_threads)
        for group in range(groups):
            filters = filters_of(<real *> W.data + group * F * W.image, &W, T, tap, C, W.channel, F, W.image)
            _columns_times[real](&v, Y.images, <real *> X.data + group * C * X.channel, &filters,
                                 bias + group * F if bias != NULL else NULL, relu, <real *> Y.data + group * F,
                                 Y.channels, NULL, num_threads)
    finally:
        give_workspace(packed)
        give_workspace(tap)
        give_workspace(offsets)
    return 0


# -- data gradient ----------------------------------------------------------------------------------

def data_grad(cnp.ndarray gy, cnp.ndarray w, object bias, cnp.ndarray gx, tuple stride, tuple padding, tuple dilation,
              Py_ssize_t groups, int num_threads):
    """gx = the gradient of forward() with respect to x, from gy; with a bias it is a transposed convolution.

    gy (N, F, axes) of any strides, w (F, C / groups, taps), bias (C,) or None, gx (N, C, axes) channels-last.
    """
    cdef Image X, W, Y
    cdef Geometry g
    cdef int kind = real_type(gx, "conv.data_grad", "gx")
    check_threads(num_threads, "conv.data_grad")
    check_writeable(gx, "conv.data_grad", "gx")
    read_image(gx, kind, True, "conv.data_grad", "gx", &X)
    read_image(w, kind, False, "conv.data_grad", "w", &W)
    read_image(gy, kind, False, "conv.data_grad", "gy", &Y)
    read_geometry(stride, padding, dilation, LARGEST, "conv.data_grad", &g)
    check_weights(&W, &X, &Y, groups, "conv.data_grad")
    cdef cnp.ndarray b = read_bias(bias, kind, X.channels, "conv.data_grad")
    if cnp.PyArray_SIZE(gx) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    if kind == cnp.NPY_FLOAT:
        _data_grad[float](X, W, Y, g, <float *> b_data, groups, num_threads)
    else:
        _data_grad[double](X, W, Y, g, <double *> b_data, groups, num_threads)


cdef int _data_grad(Image X, Image W, Image Y, Geometry g, const real *bias, Py_ssize_t groups,
                    int num_threads) except -1:
    """Input positions are taken by their remainder modulo the stride: those of one remainder meet the same taps, and
    read gy like a convolution with step 1. So every number of gx is written once, by one thread."""
    cdef nnx_view v
    cdef Filters filters
    cdef Py_ssize_t T = W.size[0] * W.size[1] * W.size[2], C = W.channels, F = W.images // groups, group, t, k
    cdef bint depthwise = C == 1 and F == 1 and groups > 1 and Y.channel == 1
    cdef Py_ssize_t remainders[3]
    cdef Py_ssize_t first[3]
    cdef Py_ssize_t scatter[4]
    cdef Py_ssize_t kernel_tap[3]
    cdef Py_ssize_t phase, reached, used
    cdef int axis
    cdef bint dense = g.stride[0] == 1 and g.stride[1] == 1 and g.stride[2] == 1
    cdef Py_ssize_t *offsets = <Py_ssize_t *> take_workspace(6 * MAX_TAPS * sizeof(Py_ssize_t))
    cdef Py_ssize_t *chosen = offsets + 3 * MAX_TAPS  # the taps of this remainder, per axis
    cdef Py_ssize_t *tap = NULL
    cdef real *packed = NULL
    cdef real *out
    try:
        tap = <Py_ssize_t *> take_workspace(max(T, 1) * sizeof(Py_ssize_t))
        packed = <real *> take_workspace(max(T * groups if depthwise else 1, 1) * sizeof(real))
        for axis in range(3):
            remainders[axis] = min(g.stride[axis], X.size[axis])
        for phase in range(remainders[0] * remainders[1] * remainders[2]):
            first[2] = phase % remainders[2]
            first[1] = phase // remainders[2] % remainders[1]
            first[0] = phase // remainders[2] // remainders[1]
            _source(&v, &Y, F)
            for axis in range(3):
                # position first + stride * q meets tap k if first + padding - k * dilation is a multiple of the stride
                v.count[axis] = (X.size[axis] - first[axis] + g.stride[axis] - 1) // g.stride[axis]
                v.step[axis] = 1
                used = 0
                for k in range(W.size[axis] - 1, -1, -1):  # so that the source positions ascend
                    reached = first[axis] + g.padding[axis] - k * g.dilation[axis]
                    if reached % g.stride[axis] == 0:
                        offsets[axis * MAX_TAPS + used] = _exact(reached, g.stride[axis])
                        chosen[axis * MAX_TAPS + used] = k
                        used += 1
                v.taps[axis] = used
                v.offset[axis] = offsets + axis * MAX_TAPS
            for t in range(_taps(&v)):
                kernel_tap[2] = chosen[2 * MAX_TAPS + t % v.taps[2]]
                kernel_tap[1] = chosen[MAX_TAPS + t // v.taps[2] % v.taps[1]]
                kernel_tap[0] = chosen[t // v.taps[2] // v.taps[1]]
                tap[t] = kernel_tap[0] * W.stride[0] + kernel_tap[1] * W.stride[1] + kernel_tap[2] * W.stride[2]
            out = <real *> X.data
            scatter[0] = X.image
            for axis in range(3):
                out = out + first[axis] * X.stride[axis]
                scatter[axis + 1] = g.stride[axis] * X.stride[axis]
            if depthwise:
                v.channels = groups
                for t in range(_taps(&v)):
                    for group in range(groups):
                        packed[t * groups + group] = (<real *> W.data)[tap[t] + group * W.image]
                _depthwise[real](&v, X.images, <real *> Y.data, packed, bias, False, out, NULL if dense else scatter,
                                 num_threads)
                continue
            for group in range(groups):
                filters = filters_of(<real *> W.data + group * F * W.image, &W, _taps(&v), tap, F, W.image, C,
                                     W.channel)
                _columns_times[real](&v, X.images, <real *> Y.data + group * F * Y.channel, &filters,
                                     bias + group * C if bias != NULL else NULL, False, out + group * C, X.channels,
                                     NULL if dense else scatter, num_threads)
    finally:
        give_workspace(packed)
        give_workspace(tap)
        give_workspace(offsets)
    return 0


cdef inline Py_ssize_t _exact(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """a / b for a multiple of b; C's division rounds towards zero, which is exact here for negative a too."""
    return a // b
