"""The weight gradient of direct convolution: products of gy and of what lies under the filters, read where they lie.

The sums over a band's pixels stay in registers, up to twelve times two vectors of them. Lanes are filters, or, where
these are no whole number of vectors, the numbers of a run of taps. Lanes of depthwise filters are channels.

The images are cut into a fixed number of chunks, whose sums are added in order. A chunk is worth its sums only if it
has many pixels: where there are few, there are few chunks, and each task goes over all of a chunk's pixels for a part
of the filters and runs. The parts depend on the number of threads, but the order of no sum does.
"""

cimport numpy as cnp
from cython.parallel cimport prange

from libc.string cimport memcpy, memset

from nnx._ext.common cimport check_threads, check_writeable, real, real_type
from nnx._ext.conv cimport Image, read_image
from nnx._ext.direct cimport (
    Plan, is_depthwise, nnx_direct, nnx_taps, padded_size, read_band, read_plan, taps_of, target_of,
)
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    CHUNKS = 16            # at most
    CHUNK_PIXELS = 2048    # of the result, at least, where the chunks' sums are more
    CHUNK_BYTES = 1048576  # than that
    TASKS_PER_THREAD = 2   # at least, where there are parts enough
    SUM_BLOCK = 1024       # numbers of a chunk's sums that one task adds up
    NARROW = 16            # per cent that a single vector of lanes costs more than half of a pair

cdef struct Sums:
    bint depthwise
    bint turned          # lanes are numbers of a run
    bint tail            # gy is copied, so that there is something to read behind its last filter
    Py_ssize_t lanes
    Py_ssize_t groups    # 1 for depthwise filters
    Py_ssize_t F         # filters of a group
    Py_ssize_t ld        # sums of a number under the filters, or turned, of a run
    Py_ssize_t group     # sums of a group
    Py_ssize_t parts     # of a group
    Py_ssize_t chunks


def weight_grad(cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gw, tuple stride, tuple padding, tuple dilation,
                Py_ssize_t groups, int num_threads):
    """gw = the gradient of direct.forward() with respect to w.

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


cdef Sums _sums_of(const Plan *p, const Image *Y, Py_ssize_t units, Py_ssize_t itemsize) noexcept nogil:
    """What is in lanes, and how many chunks and parts there are."""
    cdef Sums s
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef bint single = itemsize == sizeof(float)
    cdef Py_ssize_t lanes = (gemm.gemm_panel_f32() if single else gemm.gemm_panel_f64()) // 2
    cdef Py_ssize_t most = kernels.direct_grouped_most_f32() if single else kernels.direct_grouped_most_f64()
    cdef Py_ssize_t of_filters, of_run, worth
    s.lanes = lanes
    s.depthwise = is_depthwise(p, Y, lanes, most)
    s.groups = 1 if s.depthwise else p.groups
    s.F = p.C if s.depthwise else Y.channels // p.groups
    of_filters = (s.F + lanes - 1) // lanes
    of_run = (p.length + lanes - 1) // lanes
    # Behind a run's end the next numbers of x are read, which must be there.
    s.turned = not s.depthwise and (p.padded or p.length == of_run * lanes) and (
        s.F * p.runs * (100 * of_run + NARROW * (of_run % 2))
        < p.runs * p.length * (100 * of_filters + NARROW * (of_filters % 2)))
    if s.turned:
        s.ld = of_run * lanes
        s.group = s.F * p.runs * s.ld
        s.parts = p.runs * (
            kernels.direct_weight_blocks_f32(s.F) if single else kernels.direct_weight_blocks_f64(s.F))
    else:
        s.ld = of_filters * lanes
        s.group = p.runs * p.length * s.ld
        s.parts = p.runs * ((of_filters + 1) // 2)
    # Where lanes belong to several groups, a band is gone through once for each vector of channels: it is copied to be
    # in the cache.
    s.tail = s.ld > 2 * lanes if s.depthwise else not s.turned and s.ld != s.F
    worth = max(Y.images * p.out[0] * p.out[1] * p.out[2] // CHUNK_PIXELS,
                CHUNK_BYTES // (s.groups * s.group * itemsize))
    s.chunks = max(min(units, min(worth, CHUNKS)), 1)
    return s


cdef int _weight_grad(real *gw, Plan *p, Image X, Image W, Image Y, int num_threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t units = Y.images * p.out[0] * p.bands if Y.size[1] * Y.size[2] > 0 else 0
    cdef Sums s = _sums_of(p, &Y, units, sizeof(real))
    cdef Py_ssize_t size = s.groups * s.group, parts = 1, task, part, chunk, unit, g, f
    cdef Py_ssize_t copy = (p.band * p.out[2] * Y.channels + s.lanes + 15) // 16 * 16 if s.tail else 0
    cdef Py_ssize_t scratch = copy + (padded_size(p) if p.padded else 0) + 16
    cdef real *partial = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef const real *source
    cdef const real *gy
    cdef nnx_taps taps
    if not s.depthwise:
        parts = max(min((TASKS_PER_THREAD * num_threads + s.chunks - 1) // s.chunks, s.groups * s.parts), 1)
    if s.chunks * parts < num_threads:
        num_threads = s.chunks * parts
    try:
        partial = <real *> take_workspace(max(s.chunks * size, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            if units == 0:
                memset(partial, 0, s.chunks * size * sizeof(real))
            share_out(&shares, s.chunks * parts, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                task = next_of(&shares, thread)
                while task >= 0:
                    chunk = task // parts
                    part = task % parts
                    mine = buffer + thread * scratch
                    if s.depthwise:  # whose kernel only adds
                        memset(partial + chunk * size, 0, size * sizeof(real))
                    if s.tail:
                        memset(mine, 0, copy * sizeof(real))
                    for unit in range(units * chunk // s.chunks, units * (chunk + 1) // s.chunks):
                        source = read_band[real](p, &X, unit, mine + copy)
                        taps = taps_of(p, &X, unit)
                        gy = <real *> Y.data + target_of(p, &Y, unit)
                        if s.tail:
                            memcpy(mine, gy, taps.rows * taps.columns * Y.channels * sizeof(real))
                            gy = mine
                        _add_band[real](
                            &s, &taps, source, p.inside, gy, Y.channels, s.groups * s.parts * part // parts,
                            s.groups * s.parts * (part + 1) // parts, unit == units * chunk // s.chunks,
                            partial + chunk * size)
                    task = next_of(&shares, thread)
            for g in prange((size + SUM_BLOCK - 1) // SUM_BLOCK, num_threads=num_threads, schedule="static"):
                _add_chunks[real](partial, size, s.chunks, g * SUM_BLOCK, min((g + 1) * SUM_BLOCK, size))
            for f in prange(s.groups * s.F, num_threads=num_threads, schedule="static"):
                _unpack[real](&s, p, &W, partial + f // s.F * s.group, f % s.F, gw + f * W.image)
    finally:
        give_workspace(buffer)
        give_workspace(partial)
    return 0


cdef void _add_band(const Sums *s, const nnx_taps *taps, const real *x, Py_ssize_t inside, const real *gy,
                    Py_ssize_t ldg, Py_ssize_t first, Py_ssize_t last, bint fresh, real *sums) noexcept nogil:
    """Add what a band gives to parts first ... last - 1 of all groups' parts; the first band of a chunk is `fresh`."""
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef Py_ssize_t g, start, stop
    if s.depthwise:
        if real is float:
            kernels.direct_depthwise_weight_f32(taps, x, s.F, gy, sums)
        else:
            kernels.direct_depthwise_weight_f64(taps, x, s.F, gy, sums)
        return
    for g in range(first // s.parts, (last + s.parts - 1) // s.parts):
        start = max(first - g * s.parts, 0)
        stop = min(last - g * s.parts, s.parts)
        if s.turned:
            if real is float:
                kernels.direct_weight_turned_f32(taps, x + g * inside, s.F, gy + g * s.F, ldg, start, stop, fresh,
                                                 sums + g * s.group, s.ld)
            else:
                kernels.direct_weight_turned_f64(taps, x + g * inside, s.F, gy + g * s.F, ldg, start, stop, fresh,
                                                 sums + g * s.group, s.ld)
        else:
            if real is float:
                kernels.direct_weight_f32(taps, x + g * inside, s.F, gy + g * s.F, ldg, start, stop, fresh,
                                          sums + g * s.group, s.ld)
            else:
                kernels.direct_weight_f64(taps, x + g * inside, s.F, gy + g * s.F, ldg, start, stop, fresh,
                                          sums + g * s.group, s.ld)


cdef void _add_chunks(real *partial, Py_ssize_t size, Py_ssize_t chunks, Py_ssize_t start,
                      Py_ssize_t stop) noexcept nogil:
    """Add numbers start ... stop - 1 of all chunks to those of the first, chunk after chunk, as they lie in memory."""
    cdef Py_ssize_t chunk, i
    cdef const real *other
    for chunk in range(1, chunks):
        other = partial + chunk * size
        for i in range(start, stop):
            partial[i] += other[i]


cdef void _unpack(const Sums *s, const Plan *p, const Image *W, const real *sums, Py_ssize_t f,
                  real *gw) noexcept nogil:
    """The gradient of filter f of a group, of any strides, from the group's sums."""
    cdef Py_ssize_t d, i, k, c, step = 1 if s.turned else s.ld, behind_tap = 0, behind_row = 0
    cdef real *to
    if s.turned:
        sums += f * p.runs * s.ld
        if p.runs == p.taps[0] * p.taps[1]:  # a run is a row of taps
            behind_row = s.ld - p.length
        else:
            behind_tap = s.ld - p.length
    elif s.depthwise and f >= s.F // s.lanes * s.lanes:
        sums += s.ld - s.F + f  # the last vector of channels begins earlier
    else:
        sums += f
    for d in range(p.taps[0]):
        for i in range(p.taps[1]):
            for k in range(p.taps[2]):
                to = gw + d * W.stride[0] + i * W.stride[1] + k * W.stride[2]
                for c in range(p.inside):
                    to[c * W.channel] = sums[c * step]
                sums += p.inside * step + behind_tap
            sums += behind_row
