"""3x3 convolutions with stride 1 by Winograd's algorithm, image by image, and both gradients at once.

A task takes a few images at a time, as many as stay in the second-level cache, and does everything with them that has
to be done: it normalises them, if batch norm in front of the convolution left that to do, multiplies, and sums up the
results for a batch norm that follows; backward it makes the gradient in front of the batch norm that follows, then the
data gradient, then its part of the weight gradient. Neither the normalised images nor that gradient is ever written to
memory. Images that come from memory are first read from end to end: tiles are in an order in which no processor fetches
ahead. The results have the bits of one step after the other (ext/winograd.pyx), but for the weight gradient, whose sums
are cut elsewhere.

Dimension letters: N images, C channels in, F filters (channels out).
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memset

from nnx._ext.common cimport _shape, check_threads, check_writeable, input_pointer, output_pointer
from nnx._ext.conv cimport Image, joined_image, read_bias, read_image, same_shape
from nnx._ext.memory cimport fetch, give_workspace, is_streamed, take_workspace
from nnx._ext.norm cimport NORM_WIDTH, Place, Tiles, nnx_norm, place_of, tiles_of
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table
from nnx._ext.winograd cimport (
    CHUNK_TILES, TILE_STEP, WINOGRAD_PAD, WINOGRAD_ROWS, check_shapes, cut_tiles, in_place, nnx_tiles, nnx_winograd,
    up, weight_parts,
)

cnp.import_array()

cdef enum:
    GROUP_TILES = 4 * TILE_STEP  # of the images that are taken at a time, at least, or one image
    TASKS = 8                    # backward, at most: each has a partial weight gradient


cdef struct Norm:  # a batch norm, as ext/norm.pyx computes it; no `mean` where there is none
    const float *mean
    const float *scale
    const float *shift
    bint relu             # the positive part follows
    const float *x        # backward: its input,
    const float *slope    # and the gradient in front of it is scale (g + (x - mean) slope + offset)
    const float *offset


cdef struct Plan:
    nnx_tiles read      # of the images that are multiplied with the filters: x, or for the data gradient gy
    nnx_tiles made      # of the result: y or gx
    nnx_tiles source    # for the weight gradient: x
    nnx_tiles target    # and gy
    Norm before         # of x
    Norm behind         # of y
    const float *packed
    const float *bias
    bint relu
    Py_ssize_t u_step
    Py_ssize_t images
    Py_ssize_t group    # images that are taken at a time
    Py_ssize_t groups   # of a task of the weight gradient
    Py_ssize_t block    # tiles that are added to the weight gradient at a time
    Py_ssize_t rows     # of a matrix of dU
    Py_ssize_t c_row
    Py_ssize_t f_row
    double *sums        # of the gradient of `before`, in the tiles of ext/norm.pyx, or NULL
    Tiles tiles
    double *parts       # forward: `sums`, (2, n_parts, channels), or NULL
    Py_ssize_t n_parts  # times that images are taken


cdef int _read_before(tuple norm, Py_ssize_t channels, str kernel, Norm *n) except -1:
    n.mean = NULL
    if norm is None:
        return 0
    mean, scale, shift, relu = norm
    n.scale = <const float *> input_pointer(scale, cnp.NPY_FLOAT, channels, kernel, "scale")
    n.shift = <const float *> input_pointer(shift, cnp.NPY_FLOAT, channels, kernel, "shift")
    n.relu = relu
    n.mean = <const float *> input_pointer(mean, cnp.NPY_FLOAT, channels, kernel, "mean")
    return 0


cdef int _read_behind(tuple norm, const Image *Y, str kernel, Norm *n) except -1:
    cdef Image Z
    cdef const float *all_factors
    n.mean = NULL
    if norm is None:
        return 0
    z, mean, factors, relu = norm
    read_image(z, cnp.NPY_FLOAT, True, kernel, "z", &Z)
    if not same_shape(&Z, Y):
        raise ValueError(f"{kernel}: expected z of gy's shape, got {_shape(z)}")
    all_factors = <const float *> input_pointer(factors, cnp.NPY_FLOAT, 4 * Y.channels, kernel, "factors")
    n.x = <const float *> Z.data
    n.scale = all_factors
    n.shift = all_factors + Y.channels
    n.slope = all_factors + 2 * Y.channels
    n.offset = all_factors + 3 * Y.channels
    n.relu = relu
    n.mean = <const float *> input_pointer(mean, cnp.NPY_FLOAT, Y.channels, kernel, "mean")
    return 0


cdef void _normalize(const Norm *n, Py_ssize_t numbers, Py_ssize_t channels, const float *x,
                     float *result) noexcept nogil:
    cdef const nnx_norm *norm = <const nnx_norm *> table().norm
    cdef Py_ssize_t c = 0
    while c < channels:
        norm.normalize_f32(x + c, NULL, result + c, numbers // channels, min(NORM_WIDTH, channels - c), channels,
                           n.mean + c, n.scale + c, n.shift + c, n.relu)
        c = c + NORM_WIDTH


cdef void _gradient(const Norm *n, Py_ssize_t numbers, Py_ssize_t channels, const float *gy, const float *x,
                    float *result) noexcept nogil:
    cdef const nnx_norm *norm = <const nnx_norm *> table().norm
    cdef Py_ssize_t c = 0
    while c < channels:
        norm.gradient_f32(gy + c, x + c, result + c, numbers // channels, min(NORM_WIDTH, channels - c), channels,
                          n.mean + c, n.scale + c, n.shift + c if n.relu else NULL, n.slope + c, n.offset + c)
        c = c + NORM_WIDTH


cdef void _multiply(const Plan *p, Py_ssize_t image, Py_ssize_t images, const float *data, float *results,
                    float *scratch, float *sums, double *part) noexcept nogil:
    """`images` images, whose first pixel is at `data`, times the filters: results from number `image` on.

    sums: NULL, or scratch memory for sums over the results, which are left in `part`
    """
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t lanes = winograd.winograd_lanes_f32()
    cdef Py_ssize_t v_row = up(p.read.channels, lanes), m_row = up(p.made.channels, lanes)
    cdef Py_ssize_t v_step = TILE_STEP * v_row + WINOGRAD_PAD, m_step = TILE_STEP * m_row + WINOGRAD_PAD
    cdef Py_ssize_t per_image = p.made.down * p.made.across, tiles = images * per_image, first = 0, count
    cdef float *V = scratch
    cdef float *M = V if in_place(v_row, m_row, lanes) else V + 36 * v_step
    _fetch(<const float *> p.made.added, image, images, p.made.image)
    _fetch(<const float *> p.made.positive, image, images, p.made.image)
    if not p.made.stream:  # stores too have to wait for their lines
        _fetch(results, image, images, p.made.image)
    if sums != NULL:
        memset(part, 0, p.made.channels * sizeof(double))
        memset(part + p.n_parts * p.made.channels, 0, p.made.channels * sizeof(double))
    while first < tiles:
        count = min(TILE_STEP, tiles - first)
        winograd.winograd_input_f32(&p.read, data, first, count, V, v_row, v_step)
        winograd.winograd_products_f32(count, p.read.channels, v_row, m_row, V, v_step, p.packed, p.u_step, M, m_step)
        winograd.winograd_output_f32(&p.made, results, p.bias, p.relu, image * per_image + first, count, M, m_row,
                                     m_step, sums, first == 0)
        first = first + TILE_STEP
        if sums != NULL and first % GROUP_TILES == 0:
            _move_sums(p, sums, m_row, part)
    if sums != NULL:
        _move_sums(p, sums, m_row, part)
        _end_sums(p, images * p.made.height * p.made.width, sums, part)


cdef void _move_sums(const Plan *p, float *sums, Py_ssize_t m_row, double *part) noexcept nogil:
    """Add the sums of some tiles to those of all images that are taken at a time."""
    cdef Py_ssize_t F = p.made.channels, c
    cdef double *squares = part + p.n_parts * F
    for c in range(F):
        part[c] += sums[m_row + c]
        squares[c] += sums[2 * m_row + c]
    memset(sums + m_row, 0, 2 * m_row * sizeof(float))


cdef void _end_sums(const Plan *p, double count, const float *sums, double *part) noexcept nogil:
    """From sums over what `count` results exceed sums[0] by to their sum, and to the squares around their mean."""
    cdef Py_ssize_t F = p.made.channels, c
    cdef double *squares = part + p.n_parts * F
    for c in range(F):
        squares[c] -= part[c] * part[c] / count
        part[c] += count * sums[c]


cdef void _fetch(const float *data, Py_ssize_t image, Py_ssize_t images, Py_ssize_t numbers) noexcept nogil:
    """Images that will be read, or written, tile by tile; nothing where there are none."""
    if data != NULL:
        fetch(data + image * numbers, images * numbers * sizeof(float))


cdef Py_ssize_t _group(Py_ssize_t tiles, Py_ssize_t least, Py_ssize_t images) noexcept nogil:
    """Images that are taken at a time: so many that there are `least` tiles, about."""
    return min(max(least // tiles, 1), images)


# -- forward -------------------------------------------------------------------------------------------------------


cdef Py_ssize_t _forward_images(const nnx_tiles *made, Py_ssize_t images) noexcept nogil:
    """Images that are taken at a time, about as many each time."""
    cdef Py_ssize_t group = _group(made.down * made.across, GROUP_TILES, images)
    cdef Py_ssize_t groups = (images + group - 1) // group
    return (images + groups - 1) // groups


def images_of_sums(cnp.ndarray y):
    """How many images each of the `sums` of `forward` is over, but for the last one."""
    cdef Image Y
    cdef nnx_tiles made
    read_image(y, cnp.NPY_FLOAT, True, "winograd_images.images_of_sums", "y", &Y)
    if cnp.PyArray_SIZE(y) == 0:
        return 1
    cut_tiles(&made, &Y, &Y, 0, 0)
    return _forward_images(&made, Y.images)


def forward(cnp.ndarray x, tuple before, cnp.ndarray w, object bias, cnp.ndarray y, tuple padding, bint relu,
            int num_threads, cnp.ndarray sums=None):
    """y = z * w + bias with stride 1, or the positive part of that, where z is a batch norm of x.

    x (N, C, H, W) and y (N, F, H', W') channels-last, w (F, C, 3, 3) of any strides, bias (F,) or None; all float32.
    before:   None for z = x, or (mean, scale, shift, relu) of z = (x - mean) scale + shift, with `relu` cut at zero
    padding:  zeros above and to the left, at most 2; those below and to the right follow from y's shape
    sums:     None, or without bias and relu float64 (2, P, F): of each part of the images (`images_of_sums`) the sum
              over y, and over the squares of its distance from the part's mean, for `norm.moments_of_sums`
    """
    cdef Image X, W, Y
    cdef Plan p
    check_threads(num_threads, "winograd_images.forward")
    check_writeable(y, "winograd_images.forward", "y")
    read_image(x, cnp.NPY_FLOAT, True, "winograd_images.forward", "x", &X)
    read_image(w, cnp.NPY_FLOAT, False, "winograd_images.forward", "w", &W)
    read_image(y, cnp.NPY_FLOAT, True, "winograd_images.forward", "y", &Y)
    check_shapes(&X, &W, &Y, padding, "winograd_images.forward")
    _read_before(before, X.channels, "winograd_images.forward", &p.before)
    cdef cnp.ndarray b = read_bias(bias, cnp.NPY_FLOAT, Y.channels, "winograd_images.forward")
    if cnp.PyArray_SIZE(y) == 0 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError("winograd_images.forward: expected x and y with elements, got none")
    p.bias = NULL if b is None else <float *> cnp.PyArray_DATA(b)
    p.relu = relu
    cut_tiles(&p.read, &X, &Y, padding[0], padding[1])
    cut_tiles(&p.made, &Y, &Y, 0, 0)
    p.made.stream = is_streamed(Y.data, Y.images * Y.image, Y.channels, sizeof(float))
    p.group = _forward_images(&p.made, Y.images)
    p.n_parts = (Y.images + p.group - 1) // p.group
    p.parts = NULL
    if sums is not None:
        if b is not None or relu:
            raise ValueError("winograd_images.forward: expected sums only without bias and relu")
        p.parts = <double *> output_pointer(
            sums, cnp.NPY_DOUBLE, 2 * p.n_parts * Y.channels, "winograd_images.forward", "sums")
    _forward(&p, X, W, Y, num_threads)


cdef int _forward(Plan *p, Image X, Image W, Image Y, int num_threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t lanes = winograd.winograd_lanes_f32(), panel = lanes if Y.channels <= lanes else 2 * lanes
    cdef Py_ssize_t C = X.channels, F = Y.channels, g
    p.u_step = up(F, panel) * C + WINOGRAD_PAD
    p.images = X.images
    cdef Py_ssize_t scratch = 36 * (TILE_STEP * (up(C, lanes) + up(F, lanes)) + 2 * WINOGRAD_PAD) + 16
    cdef Py_ssize_t pixels = up(p.group * X.image, 16) if p.before.mean != NULL else 0
    cdef Py_ssize_t share = scratch + pixels + (up(3 * up(F, lanes), 16) if p.parts != NULL else 0)
    cdef float *packed = NULL
    cdef float *buffer = NULL
    try:
        packed = <float *> take_workspace(36 * p.u_step * sizeof(float) + 64)
        buffer = <float *> take_workspace(num_threads * share * sizeof(float) + 64)
        p.packed = packed
        with nogil:
            for g in prange((F + lanes - 1) // lanes, num_threads=num_threads, schedule="static"):
                winograd.winograd_weights_f32(C, g * lanes, min(lanes, F - g * lanes), <float *> W.data, W.image,
                                              W.channel, W.stride[1], W.stride[2], panel, packed, p.u_step)
            share_out(&shares, p.n_parts, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                g = next_of(&shares, thread)
                while g >= 0:
                    _forward_group(p, g, <float *> X.data, <float *> Y.data, buffer + thread * share, scratch,
                                   NULL if p.parts == NULL else buffer + thread * share + scratch + pixels)
                    g = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void _forward_group(const Plan *p, Py_ssize_t number, const float *x, float *y, float *scratch,
                         Py_ssize_t numbers, float *sums) noexcept nogil:
    cdef Py_ssize_t image = number * p.group, count = min(p.group, p.images - image)
    cdef const float *data = x + image * p.read.image
    if p.before.mean != NULL:
        _normalize(&p.before, count * p.read.image, p.read.channels, data, scratch + numbers)
        data = scratch + numbers
    else:
        _fetch(x, image, count, p.read.image)
    _multiply(p, image, count, data, y, scratch, sums, NULL if sums == NULL else p.parts + number * p.made.channels)


# -- backward ------------------------------------------------------------------------------------------------------


def sum_tiles(cnp.ndarray x, cnp.ndarray gy):
    """T of the `sums` of `backward`; 0 where the images that it takes at a time are no whole number of tiles."""
    cdef Image X, Y
    cdef nnx_tiles target
    read_image(x, cnp.NPY_FLOAT, True, "winograd_images.sum_tiles", "x", &X)
    read_image(gy, cnp.NPY_FLOAT, True, "winograd_images.sum_tiles", "gy", &Y)
    if cnp.PyArray_SIZE(gy) == 0 or cnp.PyArray_SIZE(x) == 0:
        return 0
    cut_tiles(&target, &Y, &Y, 0, 0)
    return _sum_tiles(&X, _group(target.down * target.across, CHUNK_TILES, X.images)).down


cdef Tiles _sum_tiles(const Image *X, Py_ssize_t group) noexcept nogil:
    cdef Py_ssize_t pixels = X.size[1] * X.size[2]
    cdef Tiles t = tiles_of(X.images * pixels, X.channels)
    if group < X.images and group * pixels % t.height != 0:
        t.down = 0
    return t


def backward(cnp.ndarray gy, tuple behind, cnp.ndarray x, tuple before, cnp.ndarray w, cnp.ndarray gx, cnp.ndarray gw,
             tuple padding, int num_threads, cnp.ndarray added=None, cnp.ndarray positive=None, cnp.ndarray sums=None):
    """gx and gw = the gradients of y = z * w with stride 1 with respect to z and w.

    gy (N, F, H', W'), x and gx (N, C, H, W) channels-last; w and gw (F, C, 3, 3) of any strides; all float32.
    behind:   None, or the (y, mean, factors, relu) of `norm.apply_gradient`: gy is the gradient of a batch norm of y
    before:   None for z = x, or (mean, scale, shift, relu) as in `forward`
    padding:  zeros above and to the left, at most 2; those below and to the right follow from the shapes
    added:    None, or an array like gx: gx = that + the gradient
    positive: None, or an array like gx: gx = 0 where that is not positive
    sums:     None, or float64 (2, T, C) with T from `sum_tiles`, only with `before`: the sums over the tiles of
              ext/norm.pyx that the gradient of `before` is made of (`normalize_backward`)
    """
    cdef Image X, W, Y, GX, GW
    cdef Plan p
    check_threads(num_threads, "winograd_images.backward")
    check_writeable(gx, "winograd_images.backward", "gx")
    check_writeable(gw, "winograd_images.backward", "gw")
    read_image(x, cnp.NPY_FLOAT, True, "winograd_images.backward", "x", &X)
    read_image(w, cnp.NPY_FLOAT, False, "winograd_images.backward", "w", &W)
    read_image(gy, cnp.NPY_FLOAT, True, "winograd_images.backward", "gy", &Y)
    check_shapes(&X, &W, &Y, padding, "winograd_images.backward")
    read_image(gx, cnp.NPY_FLOAT, True, "winograd_images.backward", "gx", &GX)
    if not same_shape(&GX, &X):
        raise ValueError(f"winograd_images.backward: expected gx of x's shape {_shape(x)}, got {_shape(gx)}")
    read_image(gw, cnp.NPY_FLOAT, False, "winograd_images.backward", "gw", &GW)
    if not same_shape(&GW, &W):
        raise ValueError(f"winograd_images.backward: expected gw of w's shape {_shape(w)}, got {_shape(gw)}")
    _read_before(before, X.channels, "winograd_images.backward", &p.before)
    _read_behind(behind, &Y, "winograd_images.backward", &p.behind)
    if cnp.PyArray_SIZE(gy) == 0 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError("winograd_images.backward: expected x and gy with elements, got none")
    p.bias = NULL
    p.relu = False
    p.sums = NULL
    if sums is not None:
        p.tiles = _sum_tiles(&X, _group((Y.size[1] + 3) // 4 * ((Y.size[2] + 3) // 4), CHUNK_TILES, X.images))
        if p.before.mean == NULL:
            raise ValueError("winograd_images.backward: expected sums only with before, got before=None")
        if p.tiles.down == 0:
            raise ValueError(
                "winograd_images.backward: expected no sums where sum_tiles is 0, got some for x of shape "
                f"{_shape(x)} and gy of shape {_shape(gy)}"
            )
        p.sums = <double *> output_pointer(
            sums, cnp.NPY_DOUBLE, 2 * p.tiles.down * X.channels, "winograd_images.backward", "sums")
    # The data gradient is a convolution of gy with the filters turned by 180 degrees.
    cut_tiles(&p.read, &Y, &X, 2 - <Py_ssize_t> padding[0], 2 - <Py_ssize_t> padding[1])
    cut_tiles(&p.made, &X, &X, 0, 0)
    p.made.added = joined_image(added, &X, cnp.NPY_FLOAT, "winograd_images.backward", "added")
    p.made.positive = joined_image(positive, &X, cnp.NPY_FLOAT, "winograd_images.backward", "positive")
    # Past the caches only from twice the usual size on: what follows reads it at once, and memory for gradients is soon
    # used again.
    p.made.stream = p.sums == NULL and is_streamed(GX.data, X.images * X.image // 2, X.channels, sizeof(float))
    cut_tiles(&p.source, &X, &Y, padding[0], padding[1])
    cut_tiles(&p.target, &Y, &Y, 0, 0)
    _backward(&p, X, W, Y, <float *> GX.data, GW, num_threads)


cdef int _backward(Plan *p, Image X, Image W, Image Y, float *gx, Image GW, int num_threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t lanes = winograd.winograd_lanes_f32(), panel = lanes if X.channels <= lanes else 2 * lanes
    cdef Py_ssize_t C = X.channels, F = Y.channels, tiles = p.target.down * p.target.across, g, task, f
    p.c_row, p.f_row = up(C, lanes), up(F, lanes)
    p.rows = min(up(F, WINOGRAD_ROWS), p.f_row)
    p.u_step = up(C, panel) * F + WINOGRAD_PAD
    p.images = X.images
    p.group = _group(tiles, CHUNK_TILES, p.images)
    tiles = tiles * p.group
    cdef Py_ssize_t blocks = (tiles + CHUNK_TILES - 1) // CHUNK_TILES, groups = (p.images + p.group - 1) // p.group
    p.block = (tiles + blocks - 1) // blocks
    p.groups = (groups + TASKS - 1) // TASKS
    cdef Py_ssize_t tasks = (groups + p.groups - 1) // p.groups, size = 36 * (p.rows * p.c_row + WINOGRAD_PAD)
    cdef Py_ssize_t scratch = 36 * (max(p.block, TILE_STEP) * (p.c_row + p.f_row) + 2 * WINOGRAD_PAD) + 16
    cdef Py_ssize_t gradients = up(p.group * Y.image, 16) if p.behind.mean != NULL else 0
    cdef Py_ssize_t pixels = up(p.group * X.image, 16) if p.before.mean != NULL else 0
    cdef Py_ssize_t share = scratch + gradients + pixels + up(size, 16), part = F * 9 * p.c_row
    cdef float *packed = NULL
    cdef float *partial = NULL
    cdef float *buffer = NULL
    cdef float *zeros = NULL
    cdef const float *turned = <float *> W.data + 2 * W.stride[1] + 2 * W.stride[2]
    try:
        packed = <float *> take_workspace(36 * p.u_step * sizeof(float) + 64)
        partial = <float *> take_workspace(tasks * part * sizeof(float) + 64)
        buffer = <float *> take_workspace(num_threads * share * sizeof(float) + 64)
        zeros = <float *> take_workspace((max(C, F) + 64) * sizeof(float))
        memset(zeros, 0, max(C, F) * sizeof(float))
        p.packed = packed
        with nogil:
            for g in prange((C + lanes - 1) // lanes, num_threads=num_threads, schedule="static"):
                winograd.winograd_weights_f32(F, g * lanes, min(lanes, C - g * lanes), turned, W.channel, W.image,
                                              -W.stride[1], -W.stride[2], panel, packed, p.u_step)
            share_out(&shares, tasks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                task = next_of(&shares, thread)
                while task >= 0:
                    _backward_task(p, task, <float *> Y.data, <float *> X.data, gx, zeros,
                                   buffer + thread * share + scratch + gradients + pixels, buffer + thread * share,
                                   scratch, gradients)
                    weight_parts(buffer + thread * share + scratch + gradients + pixels, C, F, p.rows, p.c_row,
                                 partial + task * part)
                    task = next_of(&shares, thread)
            for f in prange(F, num_threads=num_threads, schedule="static"):
                winograd.winograd_weight_sum_f32(tasks, part, C, p.c_row, partial + f * 9 * p.c_row,
                                                 <float *> GW.data + f * GW.image, GW.channel, GW.stride[1],
                                                 GW.stride[2])
    finally:
        give_workspace(zeros)
        give_workspace(buffer)
        give_workspace(partial)
        give_workspace(packed)
    return 0


cdef void _backward_task(const Plan *p, Py_ssize_t task, const float *gy, const float *x, float *gx,
                         const float *zeros, float *dU, float *scratch, Py_ssize_t numbers,
                         Py_ssize_t gradients) noexcept nogil:
    """gx of some images, and dU (36, rows, C) = the sum over their tiles."""
    cdef Py_ssize_t image = task * p.groups * p.group, stop = min(image + p.groups * p.group, p.images), count, at
    cdef bint more = False
    cdef const float *gradient
    cdef const float *pixels
    while image < stop:
        count = min(p.group, stop - image)
        at = image * p.target.image
        gradient = gy + at
        if p.behind.mean != NULL:
            _gradient(&p.behind, count * p.target.image, p.target.channels, gradient, p.behind.x + at,
                      scratch + numbers)
            gradient = scratch + numbers
        else:
            _fetch(gy, image, count, p.target.image)
        _multiply(p, image, count, gradient, gx, scratch, NULL, NULL)
        if p.sums != NULL:
            _sum_up(p, image, count, gx, x)
        pixels = x + image * p.source.image
        if p.before.mean != NULL:
            _normalize(&p.before, count * p.source.image, p.source.channels, pixels, scratch + numbers + gradients)
            pixels = scratch + numbers + gradients
        elif p.made.positive != <const void *> x:  # otherwise it has just been read
            _fetch(x, image, count, p.source.image)
        _add_weights(p, count, gradient, pixels, zeros, dU, more, scratch)
        more = True
        image = image + count


cdef void _sum_up(const Plan *p, Py_ssize_t image, Py_ssize_t images, const float *gx, const float *x) noexcept nogil:
    """What the gradient of `before` is made of, of some images whose gx is there and still in the cache."""
    cdef const nnx_norm *norm = <const nnx_norm *> table().norm
    cdef const Norm *n = &p.before
    cdef Py_ssize_t pixels = p.tiles.rows // p.images, channels = p.tiles.columns, tile
    cdef Py_ssize_t first = image * pixels // p.tiles.height * p.tiles.across
    cdef Py_ssize_t last = ((image + images) * pixels + p.tiles.height - 1) // p.tiles.height * p.tiles.across
    cdef Place place
    for tile in range(first, last):
        place = place_of(&p.tiles, tile)
        norm.dots_f32(gx + place.at, x + place.at, place.height, place.width, channels, n.mean + place.column,
                      n.scale + place.column, n.shift + place.column if n.relu else NULL, p.sums + place.sums,
                      p.sums + p.tiles.down * channels + place.sums)


cdef void _add_weights(const Plan *p, Py_ssize_t images, const float *gradient, const float *x, const float *zeros,
                       float *dU, bint more, float *scratch) noexcept nogil:
    """dU = the sum over the tiles of some images, or with `more` the sum of that and dU."""
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t v_step = p.block * p.c_row + WINOGRAD_PAD, d_step = p.block * p.f_row + WINOGRAD_PAD
    cdef Py_ssize_t tiles = images * p.target.down * p.target.across, first = 0, count
    cdef float *V = scratch
    cdef float *D = V + 36 * v_step
    while first < tiles:
        count = min(p.block, tiles - first)
        winograd.winograd_input_f32(&p.source, x, first, count, V, p.c_row, v_step)
        winograd.winograd_gradient_f32(&p.target, gradient, zeros, first, count, D, p.f_row, d_step)
        winograd.winograd_weight_products_f32(count, p.rows, p.c_row, p.f_row, V, v_step, D, d_step, dU,
                                              more or first > 0)
        first = first + p.block
