"""3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3): all three passes, in float32.

The transforms are in ext/simd/winograd.h, with the formulas. Tiles of 4x4 outputs are taken TILE_STEP at a time, so
that patches and products stay in the first-level cache, and for weight gradients in blocks. A block's size depends on
the shapes alone, and sums over blocks have a fixed order: the bits do not depend on the number of threads.

Dimension letters: N images, C channels in, F filters (channels out); 36 numbers per tile and channel.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memset

from nnx._ext.common cimport _shape, check_threads, check_writeable
from nnx._ext.conv cimport Image, joined_image, read_image
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, is_streamed, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    CHUNKS = 8                 # partial weight gradients, at most
    PARTIAL_BYTES = 33554432   # of all partial weight gradients together
    MANY_BYTES = 640000        # of one gradient dU: from here on threads share its matrices instead
    LEAST_SLAB_BYTES = 4194304  # transformed patches and gradients of the tiles that are summed at once then:
    MOST_SLAB_BYTES = 33554432  # half of dU, within these limits
    SLAB_ROWS = 96             # of dU that one thread computes


cdef void cut_tiles(nnx_tiles *t, const Image *a, const Image *y, Py_ssize_t top, Py_ssize_t left) noexcept nogil:
    """Describe image `a`, cut where the results `y` are cut into squares of 4x4."""
    t.height = a.size[1]
    t.width = a.size[2]
    t.channels = a.channels
    t.top = top
    t.left = left
    t.down = (y.size[1] + 3) // 4
    t.across = (y.size[2] + 3) // 4
    t.image = a.image
    t.row = a.stride[1]
    t.pixel = a.stride[2]
    t.stream = False
    t.added = t.positive = NULL


cdef int check_shapes(const Image *x, const Image *w, const Image *y, tuple padding, str kernel) except -1:
    if len(padding) != 2 or not (0 <= padding[0] <= 2 and 0 <= padding[1] <= 2):
        raise ValueError(f"{kernel}: expected padding to be two numbers in [0, 2], got {padding}")
    if w.size[0] != 1 or w.size[1] != 3 or w.size[2] != 3 or x.size[0] != 1 or y.size[0] != 1:
        raise ValueError(f"{kernel}: expected 3x3 filters on images of two dimensions, got {w.size[1]}x{w.size[2]}")
    if w.channels != x.channels or w.images != y.channels or x.images != y.images:
        raise ValueError(
            f"{kernel}: expected x (N, C, ..), w (F, C, 3, 3) and y (N, F, ..), got ({x.images}, {x.channels}), "
            f"({w.images}, {w.channels}) and ({y.images}, {y.channels})"
        )
    return 0


def forward(cnp.ndarray x, cnp.ndarray w, cnp.ndarray bias, cnp.ndarray y, tuple padding, bint relu, int num_threads):
    """y = x * w + bias with stride 1, or the positive part of that.

    x (N, C, H, W) and y (N, F, H', W') channels-last, w (F, C, 3, 3) of any strides, bias (F,) or None; all float32.
    padding: zeros above and to the left, at most 2; those below and to the right follow from y's shape.
    """
    cdef Image X, W, Y
    check_threads(num_threads, "winograd.forward")
    check_writeable(y, "winograd.forward", "y")
    read_image(x, cnp.NPY_FLOAT, True, "winograd.forward", "x", &X)
    read_image(w, cnp.NPY_FLOAT, False, "winograd.forward", "w", &W)
    read_image(y, cnp.NPY_FLOAT, True, "winograd.forward", "y", &Y)
    check_shapes(&X, &W, &Y, padding, "winograd.forward")
    if bias is not None and (
        cnp.PyArray_TYPE(bias) != cnp.NPY_FLOAT or cnp.PyArray_NDIM(bias) != 1
        or cnp.PyArray_DIM(bias, 0) != Y.channels or not cnp.PyArray_IS_C_CONTIGUOUS(bias)
        or not cnp.PyArray_ISBEHAVED_RO(bias)
    ):
        raise ValueError(
            f"winograd.forward: expected a contiguous float32 bias of {Y.channels} numbers, "
            f"got {bias.dtype} of shape {_shape(bias)}"
        )
    if cnp.PyArray_SIZE(y) == 0:
        return
    _products(X, Y, <float *> W.data, W.image, W.channel, W.stride[1], W.stride[2],
              NULL if bias is None else <float *> cnp.PyArray_DATA(bias), relu, padding[0], padding[1], NULL, NULL,
              num_threads)


def data_grad(cnp.ndarray gy, cnp.ndarray w, cnp.ndarray gx, tuple padding, int num_threads,
              cnp.ndarray added=None, cnp.ndarray positive=None):
    """gx = the gradient of forward() with respect to x: a convolution of gy with the filters turned by 180 degrees.

    added:     an array like gx: gx = that + the gradient
    positive:  an array like gx: 0 where that is not positive
    """
    cdef Image X, W, Y
    check_threads(num_threads, "winograd.data_grad")
    check_writeable(gx, "winograd.data_grad", "gx")
    read_image(gx, cnp.NPY_FLOAT, True, "winograd.data_grad", "gx", &X)
    read_image(w, cnp.NPY_FLOAT, False, "winograd.data_grad", "w", &W)
    read_image(gy, cnp.NPY_FLOAT, True, "winograd.data_grad", "gy", &Y)
    check_shapes(&X, &W, &Y, padding, "winograd.data_grad")
    cdef const void *sum_with = joined_image(added, &X, cnp.NPY_FLOAT, "winograd.data_grad", "added")
    cdef const void *cut_by = joined_image(positive, &X, cnp.NPY_FLOAT, "winograd.data_grad", "positive")
    if cnp.PyArray_SIZE(gx) == 0:
        return
    _products(Y, X, <float *> W.data + 2 * W.stride[1] + 2 * W.stride[2], W.channel, W.image, -W.stride[1],
              -W.stride[2], NULL, False, 2 - <Py_ssize_t> padding[0], 2 - <Py_ssize_t> padding[1], sum_with, cut_by,
              num_threads)


cdef int _products(Image X, Image Y, const float *w, Py_ssize_t sf, Py_ssize_t sc, Py_ssize_t sh, Py_ssize_t sw,
                   const float *bias, bint relu, Py_ssize_t top, Py_ssize_t left, const void *added,
                   const void *positive, int num_threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t lanes = winograd.winograd_lanes_f32(), panel = lanes if Y.channels <= lanes else 2 * lanes
    cdef Py_ssize_t C = X.channels, F = Y.channels, c_row = up(C, lanes), f_row = up(F, lanes)
    cdef nnx_tiles source, target
    cut_tiles(&source, &X, &Y, top, left)
    cut_tiles(&target, &Y, &Y, 0, 0)
    target.added, target.positive = added, positive
    target.stream = is_streamed(Y.data, Y.images * Y.image, F, sizeof(float))
    cdef Py_ssize_t tiles = Y.images * target.down * target.across
    cdef Py_ssize_t blocks = (tiles + TILE_STEP - 1) // TILE_STEP, groups = (F + lanes - 1) // lanes
    cdef Py_ssize_t u_step = up(F, panel) * C + WINOGRAD_PAD
    cdef Py_ssize_t v_step = TILE_STEP * c_row + WINOGRAD_PAD, m_step = TILE_STEP * f_row + WINOGRAD_PAD
    cdef Py_ssize_t scratch = 36 * (v_step + m_step), b, g, first, count
    cdef float *packed = NULL
    cdef float *buffer = NULL
    cdef float *V
    cdef float *M
    try:
        packed = <float *> take_workspace(36 * u_step * sizeof(float) + 64)
        buffer = <float *> take_workspace(num_threads * scratch * sizeof(float) + 64)
        with nogil:
            for g in prange(groups, num_threads=num_threads, schedule="static"):
                winograd.winograd_weights_f32(C, g * lanes, min(lanes, F - g * lanes), w, sf, sc, sh, sw, panel, packed,
                                              u_step)
            share_out(&shares, blocks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                b = next_of(&shares, thread)
                while b >= 0:
                    first = b * TILE_STEP
                    count = min(TILE_STEP, tiles - first)
                    V = buffer + thread * scratch
                    M = V if in_place(c_row, f_row, lanes) else V + 36 * v_step
                    winograd.winograd_input_f32(&source, <float *> X.data, first, count, V, c_row, v_step)
                    winograd.winograd_products_f32(count, C, c_row, f_row, V, v_step, packed, u_step, M, m_step)
                    winograd.winograd_output_f32(&target, <float *> Y.data, bias, relu, first, count, M, f_row, m_step,
                                                 NULL, False)
                    b = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


def weight_grad(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gw, tuple padding, int num_threads):
    """gw = the gradient of forward() with respect to w; gw of any strides."""
    cdef Image X, W, Y
    check_threads(num_threads, "winograd.weight_grad")
    check_writeable(gw, "winograd.weight_grad", "gw")
    read_image(x, cnp.NPY_FLOAT, True, "winograd.weight_grad", "x", &X)
    read_image(gw, cnp.NPY_FLOAT, False, "winograd.weight_grad", "gw", &W)
    read_image(gy, cnp.NPY_FLOAT, True, "winograd.weight_grad", "gy", &Y)
    check_shapes(&X, &W, &Y, padding, "winograd.weight_grad")
    if cnp.PyArray_SIZE(gw) == 0:
        return
    _weight_grad(X, W, Y, padding[0], padding[1], num_threads)


cdef int _weight_grad(Image X, Image W, Image Y, Py_ssize_t top, Py_ssize_t left, int num_threads) except -1:
    """Blocks are cut into chunks; each makes a part of the gradient from its dU (36, F, C); they are added in order."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t lanes = winograd.winograd_lanes_f32()
    cdef Py_ssize_t C = X.channels, F = Y.channels, c_row = up(C, lanes), f_row = up(F, lanes)
    cdef Py_ssize_t rows = min(up(F, WINOGRAD_ROWS), f_row)  # of a matrix of dU
    cdef nnx_tiles source, target
    cut_tiles(&source, &X, &Y, top, left)
    cut_tiles(&target, &Y, &Y, 0, 0)
    cdef Py_ssize_t tiles = Y.images * target.down * target.across, block = min(CHUNK_TILES, max(tiles // 2, 1))
    cdef Py_ssize_t blocks = (tiles + block - 1) // block, size = 36 * (rows * c_row + WINOGRAD_PAD)
    if size * <Py_ssize_t> sizeof(float) >= MANY_BYTES:
        return _weight_grad_by_matrix(X, W, &source, &target, Y, tiles, num_threads)
    cdef Py_ssize_t chunks = min(blocks, CHUNKS, PARTIAL_BYTES // (size * <Py_ssize_t> sizeof(float)))
    chunks = max(min(chunks, max(tiles // CHUNK_TILES, 2)), 1)
    cdef Py_ssize_t per_chunk = (blocks + chunks - 1) // chunks
    cdef Py_ssize_t v_step = block * c_row + WINOGRAD_PAD, d_step = block * f_row + WINOGRAD_PAD
    cdef Py_ssize_t scratch = 36 * (v_step + d_step) + 16, share = scratch + up(size, 16), part = F * 9 * c_row
    cdef Py_ssize_t chunk, f
    cdef float *partial = NULL
    cdef float *buffer = NULL
    cdef float *zeros = NULL
    try:
        partial = <float *> take_workspace(chunks * part * sizeof(float) + 64)
        buffer = <float *> take_workspace(num_threads * share * sizeof(float) + 64)
        zeros = <float *> take_workspace((max(C, F) + 64) * sizeof(float))
        memset(zeros, 0, max(C, F) * sizeof(float))
        with nogil:
            share_out(&shares, chunks, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                chunk = next_of(&shares, thread)
                while chunk >= 0:
                    _weight_chunk(winograd, &source, <float *> X.data, &target, <float *> Y.data, zeros,
                                  chunk * per_chunk, min((chunk + 1) * per_chunk, blocks), block, tiles, rows, c_row,
                                  f_row, v_step, d_step, buffer + thread * share + scratch, buffer + thread * share)
                    weight_parts(buffer + thread * share + scratch, C, F, rows, c_row, partial + chunk * part)
                    chunk = next_of(&shares, thread)
            for f in prange(F, num_threads=num_threads, schedule="static"):
                winograd.winograd_weight_sum_f32(chunks, part, C, c_row, partial + f * 9 * c_row,
                                                 <float *> W.data + f * W.image, W.channel, W.stride[1], W.stride[2])
    finally:
        give_workspace(zeros)
        give_workspace(buffer)
        give_workspace(partial)
    return 0


cdef void weight_parts(const float *dU, Py_ssize_t C, Py_ssize_t F, Py_ssize_t rows, Py_ssize_t c_row,
                       float *parts) noexcept nogil:
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef Py_ssize_t f
    for f in range(F):
        winograd.winograd_weight_gradient_f32(C, rows, c_row, f, dU, parts + f * 9 * c_row, 1, 3 * c_row, c_row)


cdef int _weight_grad_by_matrix(Image X, Image W, const nnx_tiles *source, const nnx_tiles *target, Image Y,
                                Py_ssize_t tiles, int num_threads) except -1:
    """The gradient where dU (36, F, C) is large: there is one of it, whose matrices the threads share out.

    Tiles are taken in slabs: all threads transform the slab's tiles, then add its products to their parts of dU.
    """
    cdef Shares shares
    cdef int thread
    cdef const nnx_winograd *winograd = <const nnx_winograd *> table().winograd
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32(), lanes = winograd.winograd_lanes_f32()
    cdef Py_ssize_t C = X.channels, F = Y.channels, c_row = up(C, lanes), f_row = up(F, lanes)
    cdef Py_ssize_t per_tile = 36 * (up(C, panel) + f_row) * <Py_ssize_t> sizeof(float)
    cdef Py_ssize_t slab_bytes = 36 * F * c_row * <Py_ssize_t> sizeof(float) // 2
    slab_bytes = min(max(slab_bytes, LEAST_SLAB_BYTES), MOST_SLAB_BYTES)
    cdef Py_ssize_t slab = min(up(tiles, TILE_STEP), max(slab_bytes // per_tile // TILE_STEP, 1) * TILE_STEP)
    cdef Py_ssize_t v_step = slab * up(C, panel) + WINOGRAD_PAD, d_step = slab * f_row + WINOGRAD_PAD
    cdef Py_ssize_t parts = (F + SLAB_ROWS - 1) // SLAB_ROWS, start = 0, count, steps, i, task, k, f
    cdef Py_ssize_t dU_step = F * c_row + WINOGRAD_PAD
    cdef float *dU = NULL
    cdef float *V = NULL
    cdef float *D = NULL
    cdef float *zeros = NULL
    try:
        dU = <float *> take_workspace(36 * dU_step * sizeof(float) + 64)
        V = <float *> take_workspace(36 * v_step * sizeof(float) + 64)
        D = <float *> take_workspace(36 * d_step * sizeof(float) + 64)
        zeros = <float *> take_workspace((max(C, F) + 64) * sizeof(float))
        memset(zeros, 0, max(C, F) * sizeof(float))
        with nogil:
            while start < tiles:
                count = min(slab, tiles - start)
                steps = (count + TILE_STEP - 1) // TILE_STEP
                for i in prange(steps, num_threads=num_threads, schedule="static"):
                    _transform(winograd, source, <float *> X.data, target, <float *> Y.data, zeros, start,
                               i * TILE_STEP, count, panel, f_row, V, v_step, D, d_step)
                share_out(&shares, 36 * parts, num_threads)
                for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                    task = next_of(&shares, thread)
                    while task >= 0:
                        k = task // parts
                        f = task % parts * SLAB_ROWS
                        gemm.gemm_f32(min(SLAB_ROWS, F - f), c_row, count, D + k * d_step + f, 1, f_row, V + k * v_step,
                                      count, dU + k * dU_step + f * c_row, c_row, 1, start > 0, NULL, NULL, 0)
                        task = next_of(&shares, thread)
                start = start + slab
            for f in prange(F, num_threads=num_threads, schedule="static"):
                winograd.winograd_weight_gradient_f32(C, F, c_row, f, dU, <float *> W.data + f * W.image, W.channel,
                                                      W.stride[1], W.stride[2])
    finally:
        give_workspace(zeros)
        give_workspace(D)
        give_workspace(V)
        give_workspace(dU)
    return 0


cdef void _transform(const nnx_winograd *winograd, const nnx_tiles *source, const float *x, const nnx_tiles *target,
                     const float *gy, const float *zeros, Py_ssize_t start, Py_ssize_t at, Py_ssize_t count,
                     Py_ssize_t panel, Py_ssize_t f_row, float *V, Py_ssize_t v_step, float *D,
                     Py_ssize_t d_step) noexcept nogil:
    """Transform TILE_STEP tiles from number `at` of a slab of `count` on, which begins with tile `start`."""
    cdef nnx_tiles part = source[0]
    cdef Py_ssize_t c = 0, n = min(TILE_STEP, count - at)
    while c < source.channels:
        part.channels = min(panel, source.channels - c)
        winograd.winograd_input_f32(&part, x + c, start + at, n, V + c * count + at * panel, panel, v_step)
        c += panel
    winograd.winograd_gradient_f32(target, gy, zeros, start + at, n, D + at * f_row, f_row, d_step)


cdef void _weight_chunk(const nnx_winograd *winograd, const nnx_tiles *source, const float *x, const nnx_tiles *target,
                        const float *gy, const float *zeros, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block,
                        Py_ssize_t tiles, Py_ssize_t rows, Py_ssize_t c_row, Py_ssize_t f_row, Py_ssize_t v_step,
                        Py_ssize_t d_step, float *dU, float *scratch) noexcept nogil:
    """dU (36, rows, c_row) = the sum over the blocks [start, stop)."""
    cdef float *V = scratch
    cdef float *D = V + 36 * v_step
    cdef Py_ssize_t b, first, count
    if start >= stop:
        memset(dU, 0, 36 * (rows * c_row + WINOGRAD_PAD) * sizeof(float))
    for b in range(start, stop):
        first = b * block
        count = min(block, tiles - first)
        winograd.winograd_input_f32(source, x, first, count, V, c_row, v_step)
        winograd.winograd_gradient_f32(target, gy, zeros, first, count, D, f_row, d_step)
        winograd.winograd_weight_products_f32(count, rows, c_row, f_row, V, v_step, D, d_step, dU, b > start)
