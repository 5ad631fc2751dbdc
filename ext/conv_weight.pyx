"""The gradient of a convolution with respect to its weights, by columns: see ext/conv.pyx.

Dimension letters: N images, C channels in, F filters (channels out), G groups; P pixels of a tile, T taps of a filter.
"""

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from nnx._ext.common cimport check_threads, check_writeable, real, real_type
from nnx._ext.conv cimport (
    LARGEST, MAX_TAPS, Geometry, Image, check_weights, input_view, nnx_conv, nnx_view, read_geometry, read_image,
    tile_rows, view_rows,
)
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    PARTIAL_BYTES = 16777216   # of all partial weight gradients together
    CHUNKS = 16                # partial weight gradients, at most
    CHANNEL_BLOCK = 64         # channels of one task of the weight gradient, at most
    TASK_BYTES = 262144        # of the partial gradient that a task adds to, about: it stays in the second-level cache
    TASKS = 8                  # without cutting the pixels into chunks, so many tasks are enough
    MANY_BYTES = 131072        # of a group's weight gradient: from here on it is computed in slabs of pixels
    SLAB_BYTES = 4194304       # packed columns of a slab, about
    SLAB_STEP = 48             # pixels that are gathered at a time for it
    SLAB_FILTERS = 96          # of one task
    SLAB_PANELS = 4            # of columns of one task: they stay in the second-level cache while its filters use them


def weight_grad(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gw, tuple stride, tuple padding, tuple dilation,
                Py_ssize_t groups, int num_threads):
    """gw = the gradient of forward() with respect to w.

    gy (N, F, axes) channels-last, x (N, C, axes) of any strides, gw (F, C / groups, taps) of any strides.
    """
    cdef Image X, W, Y
    cdef Geometry g
    cdef int kind = real_type(gw, "conv.weight_grad", "gw")
    check_threads(num_threads, "conv.weight_grad")
    check_writeable(gw, "conv.weight_grad", "gw")
    read_image(x, kind, False, "conv.weight_grad", "x", &X)
    read_image(gw, kind, False, "conv.weight_grad", "gw", &W)
    read_image(gy, kind, True, "conv.weight_grad", "gy", &Y)
    read_geometry(stride, padding, dilation, LARGEST, "conv.weight_grad", &g)
    check_weights(&W, &X, &Y, groups, "conv.weight_grad")
    if cnp.PyArray_SIZE(gw) == 0:
        return
    if kind == cnp.NPY_FLOAT:
        _weight_grad[float](<float *> W.data, X, W, Y, g, groups, num_threads)
    else:
        _weight_grad[double](<double *> W.data, X, W, Y, g, groups, num_threads)


cdef int _weight_grad(real *gw, Image X, Image W, Image Y, Geometry g, Py_ssize_t groups,
                      int num_threads) except -1:
    """Pixels are cut into a fixed number of chunks. Each sums its tiles into a partial gradient (F, taps, C), depthwise
    (taps, C); the partial gradients are added in order."""
    cdef Shares shares
    cdef int thread
    cdef nnx_view v
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef const nnx_conv *conv = <const nnx_conv *> table().conv
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t T = W.size[0] * W.size[1] * W.size[2], C = W.channels, F = W.images // groups
    cdef bint depthwise = C == 1 and F == 1 and groups > 1 and X.channel == 1
    if depthwise:
        C, groups = groups, 1
    cdef Py_ssize_t *offsets = <Py_ssize_t *> take_workspace(3 * MAX_TAPS * sizeof(Py_ssize_t))
    input_view(&v, &X, &W, &Y, &g, offsets)
    cdef Py_ssize_t rows = view_rows(&v, Y.images), size = T * C * F
    if not depthwise and size * <Py_ssize_t> sizeof(real) >= MANY_BYTES:
        try:
            return _weight_grad_slabs[real](gw, &v, X, W, Y, groups, num_threads)
        finally:
            give_workspace(offsets)
    cdef Py_ssize_t fit = TASK_BYTES // (max(T * F, 1) * <Py_ssize_t> sizeof(real)) // 16 * 16
    cdef Py_ssize_t block = C if depthwise else min(C, max(min(fit, CHANNEL_BLOCK), 16))
    cdef Py_ssize_t blocks = (C + block - 1) // block
    # a task's tile may fill most of the second-level cache: the longer its sums, the less the partial gradient is moved
    cdef Py_ssize_t pixel_bytes = (2 * T * block + F) * sizeof(real)
    cdef Py_ssize_t tile = tile_rows(rows, pixel_bytes if depthwise else pixel_bytes // 3)
    cdef Py_ssize_t tiles = (rows + tile - 1) // tile
    cdef Py_ssize_t chunks = min(tiles, CHUNKS, max(PARTIAL_BYTES // (size * <Py_ssize_t> sizeof(real)), 2))
    if blocks >= TASKS:
        chunks = min(chunks, (2 * TASKS + blocks - 1) // blocks)
    cdef Py_ssize_t per_chunk, scratch, group, task, chunk, t, c, f, at
    if chunks < 1:
        chunks = 1
    per_chunk = (tiles + chunks - 1) // chunks
    scratch = tile * (T * block + (T * block + panel - 1) // panel * panel) + 16
    cdef real *partial = NULL
    cdef real *buffer = NULL
    cdef const real *x
    cdef const real *gy
    cdef real total
    try:
        partial = <real *> take_workspace(chunks * size * sizeof(real))
        buffer = <real *> take_workspace(num_threads * (scratch * sizeof(real) + sizeof(nnx_view)))
        for group in range(groups):
            x = <real *> X.data + group * C * X.channel
            gy = <real *> Y.data + group * F
            with nogil:
                share_out(&shares, chunks * blocks, num_threads)
                for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                    task = next_of(&shares, thread)
                    while task >= 0:
                        _weight_task[real](&v, gemm, conv, task // blocks, task % blocks, block, C, F, T, rows, tile,
                                           per_chunk, depthwise, x, X.channel, gy, Y.channels, panel,
                                           partial + task // blocks * size, buffer + thread * scratch)
                        task = next_of(&shares, thread)
                for f in prange(F, num_threads=num_threads, schedule="static"):
                    for t in range(T):
                        at = (t // W.size[2] // W.size[1] * W.stride[0] + t // W.size[2] % W.size[1] * W.stride[1]
                              + t % W.size[2] * W.stride[2])
                        at = at if depthwise else at + (group * F + f) * W.image
                        for c in range(C):
                            total = 0
                            for chunk in range(chunks):
                                total = total + partial[((chunk * F + f) * T + t) * C + c]
                            gw[at + c * (W.image if depthwise else W.channel)] = total
    finally:
        give_workspace(buffer)
        give_workspace(partial)
        give_workspace(offsets)
    return 0


cdef int _weight_grad_slabs(real *gw, nnx_view *v, Image X, Image W, Image Y, Py_ssize_t groups,
                            int num_threads) except -1:
    """The gradient of many weights: there is one of it, whose blocks the threads share out.

    Pixels are taken in slabs: all threads gather and pack the slab's columns, then add its products to their blocks.
    """
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef const nnx_conv *conv = <const nnx_conv *> table().conv
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t T = W.size[0] * W.size[1] * W.size[2], C = W.channels, F = W.images // groups, K = T * C
    cdef Py_ssize_t rows = view_rows(v, Y.images), width = (K + panel - 1) // panel * panel
    cdef Py_ssize_t slab = max(SLAB_BYTES // (K * <Py_ssize_t> sizeof(real)) // SLAB_STEP, 1) * SLAB_STEP
    cdef Py_ssize_t block = SLAB_PANELS * panel, across = (K + block - 1) // block
    cdef Py_ssize_t tasks = (F + SLAB_FILTERS - 1) // SLAB_FILTERS * across
    cdef Py_ssize_t group, start, count, steps, i, n, k, task, f, t, c, at
    cdef real *sums = NULL
    cdef real *packed = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef const real *x
    cdef const real *gy
    slab = min(slab, (rows + SLAB_STEP - 1) // SLAB_STEP * SLAB_STEP)
    v.channels = C
    try:
        sums = <real *> take_workspace(F * K * sizeof(real))
        packed = <real *> take_workspace(slab * width * sizeof(real))
        buffer = <real *> take_workspace(num_threads * SLAB_STEP * K * sizeof(real))
        for group in range(groups):
            x = <real *> X.data + group * C * X.channel
            gy = <real *> Y.data + group * F
            if rows == 0:
                memset(sums, 0, F * K * sizeof(real))
            start = 0
            with nogil:
                while start < rows:
                    count = min(slab, rows - start)
                    steps = (count + SLAB_STEP - 1) // SLAB_STEP
                    for i in prange(steps, num_threads=num_threads, schedule="static"):
                        mine = buffer + threadid() * SLAB_STEP * K
                        n = min(SLAB_STEP, count - i * SLAB_STEP)
                        if real is float:
                            conv.gather_f32(v, x, start + i * SLAB_STEP, n, mine)
                        else:
                            conv.gather_f64(v, x, start + i * SLAB_STEP, n, mine)
                        k = 0
                        while k < K:
                            if real is float:
                                gemm.pack_f32(n, min(panel, K - k), mine + k, K, 1,
                                              packed + k * count + i * SLAB_STEP * panel)
                            else:
                                gemm.pack_f64(n, min(panel, K - k), mine + k, K, 1,
                                              packed + k * count + i * SLAB_STEP * panel)
                            k = k + panel
                    share_out(&shares, tasks, num_threads)
                    for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                        task = next_of(&shares, thread)
                        while task >= 0:
                            f = task // across * SLAB_FILTERS
                            k = task % across * block
                            if real is float:
                                gemm.gemm_f32(min(SLAB_FILTERS, F - f), min(block, K - k), count,
                                              gy + start * Y.channels + f, 1, Y.channels, packed + k * count, count,
                                              sums + f * K + k, K, 1, start > 0, NULL, NULL, 0)
                            else:
                                gemm.gemm_f64(min(SLAB_FILTERS, F - f), min(block, K - k), count,
                                              gy + start * Y.channels + f, 1, Y.channels, packed + k * count, count,
                                              sums + f * K + k, K, 1, start > 0, NULL, NULL, 0)
                            task = next_of(&shares, thread)
                    start = start + slab
                for f in prange(F, num_threads=num_threads, schedule="static"):
                    for t in range(T):
                        at = ((group * F + f) * W.image + t // W.size[2] // W.size[1] * W.stride[0]
                              + t // W.size[2] % W.size[1] * W.stride[1] + t % W.size[2] * W.stride[2])
                        for c in range(C):
                            gw[at + c * W.channel] = sums[(f * T + t) * C + c]
    finally:
        give_workspace(buffer)
        give_workspace(packed)
        give_workspace(sums)
    return 0


cdef void _weight_task(const nnx_view *view, const nnx_gemm *gemm, const nnx_conv *conv, Py_ssize_t chunk,
                       Py_ssize_t number, Py_ssize_t block, Py_ssize_t C, Py_ssize_t F, Py_ssize_t T, Py_ssize_t rows,
                       Py_ssize_t tile, Py_ssize_t per_chunk, bint depthwise, const real *x, Py_ssize_t channel,
                       const real *gy, Py_ssize_t gy_stride, Py_ssize_t panel, real *partial,
                       real *scratch) noexcept nogil:
    """partial[f, t, c] for the channels c of one block = sum over the chunk's tiles of gy' . columns."""
    cdef nnx_view v = view[0]
    cdef Py_ssize_t start = number * block, t, f, first, count, tap, K
    cdef real *packed = scratch + tile * T * block
    v.channels = min(block, C - start)
    K = T * v.channels
    for f in range(F):
        for tap in range(T):
            memset(partial + (f * T + tap) * C + start, 0, v.channels * sizeof(real))
    for t in range(chunk * per_chunk, (chunk + 1) * per_chunk):
        first = t * tile
        if first >= rows:
            break
        count = min(tile, rows - first)
        if real is float:
            if depthwise:
                conv.depthwise_weight_f32(&v, x, first, count, gy + first * gy_stride, partial)
                continue
            conv.gather_f32(&v, x + start * channel, first, count, scratch)
            if v.channels == C:
                gemm.pack_f32(count, K, scratch, K, 1, packed)
                gemm.gemm_f32(F, K, count, gy + first * gy_stride, 1, gy_stride, packed, count, partial, K, 1, 1,
                              NULL, NULL, 0)
                continue
            for tap in range(T):
                gemm.pack_f32(count, v.channels, scratch + tap * v.channels, K, 1, packed)
                gemm.gemm_f32(F, v.channels, count, gy + first * gy_stride, 1, gy_stride, packed, count,
                              partial + tap * C + start, T * C, 1, 1, NULL, NULL, 0)
        else:
            if depthwise:
                conv.depthwise_weight_f64(&v, x, first, count, gy + first * gy_stride, partial)
                continue
            conv.gather_f64(&v, x + start * channel, first, count, scratch)
            if v.channels == C:
                gemm.pack_f64(count, K, scratch, K, 1, packed)
                gemm.gemm_f64(F, K, count, gy + first * gy_stride, 1, gy_stride, packed, count, partial, K, 1, 1,
                              NULL, NULL, 0)
                continue
            for tap in range(T):
                gemm.pack_f64(count, v.channels, scratch + tap * v.channels, K, 1, packed)
                gemm.gemm_f64(F, v.channels, count, gy + first * gy_stride, 1, gy_stride, packed, count,
                              partial + tap * C + start, T * C, 1, 1, NULL, NULL, 0)
