"""The data gradient of ext/direct.pyx where filters move by a stride, or have one group for each channel: the pixels of
gx that meet the same taps are a convolution of gy with these taps, and each is computed once, in registers.

Pixel (i, j) of gx meets tap (k, l) where i + low - k and j + low - l are multiples of the strides, so pixels whose
i + low and j + low leave the same remainders (their phase) meet the same taps. A task makes a band of rows of one
image: the bits do not depend on the number of threads.

Dimension letters: N images, C channels in, F filters (channels out).
"""

from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image
from nnx._ext.direct cimport UNITS, Plan, nnx_direct, nnx_taps, pack_depthwise
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport fetch, give_workspace, is_streamed, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cdef enum:
    BAND_BYTES = 32768  # of gx that a task makes with one group, about
    GY_BYTES = 65536    # of gy that it reads with one filter per channel, about

cdef struct Cut:  # how images are cut into bands, and what a task's scratch memory holds
    Py_ssize_t left    # zeros beside gy, as many as the first pixel of a row of gx reaches
    Py_ssize_t width   # columns of gy and of the zeros on both sides
    Py_ssize_t band    # rows of gx that a task makes
    Py_ssize_t bands   # of an image
    bint padded        # whether gy is copied, with the zeros
    Py_ssize_t copied  # numbers of these copies
    bint stream
    # for one group:
    Py_ssize_t tap     # numbers of a tap of all filters, as they are packed
    Py_ssize_t line    # numbers behind the copies that `direct_forward` writes its lines to


cdef Cut _cut_columns(const Plan *p, const Image *X) noexcept nogil:
    """How many zeros the pixels of a row of gx reach on either side of gy."""
    cdef Cut cut
    cdef Py_ssize_t reach = max((p.taps[2] - 1) * p.dilation[2] - p.low[2], 0)
    cdef Py_ssize_t right = max((X.size[2] - 1 + p.low[2]) // p.stride[2] - (p.out[2] - 1), 0)
    memset(&cut, 0, sizeof(cut))
    cut.left = (reach + p.stride[2] - 1) // p.stride[2]
    cut.width = cut.left + p.out[2] + right
    cut.padded = cut.width > p.out[2]
    return cut


cdef void _cut_rows(const Plan *p, const Image *X, Cut *cut, Py_ssize_t fit, Py_ssize_t F) noexcept nogil:
    """The bands, of `fit` rows of gx at most."""
    cdef Py_ssize_t H = X.size[1], wanted = max((UNITS + X.images - 1) // X.images, 1)
    cut.band = max(min((H + wanted - 1) // wanted, fit), 1)
    cut.bands = (H + cut.band - 1) // cut.band
    # the rows of gy that a band reads, at most
    cut.copied = _up(min((cut.band - 1 + p.reach[1]) // p.stride[1] + 1, p.out[1]) * cut.width * F)


cdef inline Py_ssize_t _up(Py_ssize_t numbers) noexcept nogil:
    return (numbers + 15) // 16 * 16


cdef void _copy_rows(const Plan *p, const Cut *cut, const Image *Y, Py_ssize_t image, Py_ssize_t first,
                     Py_ssize_t last, real *to) noexcept nogil:
    """Rows first ... last of gy, with zeros on both sides."""
    cdef Py_ssize_t i, F = Y.channels, right = cut.width - cut.left - p.out[2]
    for i in range(first, last + 1):
        memset(to, 0, cut.left * F * sizeof(real))
        memcpy(to + cut.left * F, <real *> Y.data + image * Y.image + i * Y.stride[1], p.out[2] * F * sizeof(real))
        memset(to + (cut.left + p.out[2]) * F, 0, right * F * sizeof(real))
        to += cut.width * F


# -- one group -----------------------------------------------------------------------------------------------------


cdef int data_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, const Joined *joined,
                        int num_threads) except -1:
    """gx = the gradient, for one group and no dilation."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t C = X.channels, F = Y.channels, row = X.size[2] * C, tap, i, unit
    cdef Py_ssize_t step_bytes = p.stride[1] * row * sizeof(real)
    cdef Cut cut = _cut_columns(p, &X)
    _cut_rows(p, &X, &cut, max(BAND_BYTES // step_bytes, 1) * p.stride[1], F)
    if not cut.padded:
        cut.copied = 0
    cut.tap = (C + panel - 1) // panel * panel * F
    cut.line = _up(row + panel)
    cut.stream = is_streamed(X.data, X.images * X.image, C, sizeof(real))
    cdef Py_ssize_t scratch = cut.copied + cut.line
    cdef real *packed = NULL
    cdef real *buffer = NULL
    for i in range(p.taps[1]):
        p.offset[i] = i * (cut.width * F if cut.padded else Y.stride[1])
    if X.images * cut.bands < num_threads:
        num_threads = X.images * cut.bands
    try:
        packed = <real *> take_workspace(max(p.taps[1] * p.taps[2] * cut.tap, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            for tap in prange(p.taps[1] * p.taps[2], num_threads=num_threads, schedule="static"):
                _pack_tap[real](p, &W, F, panel, tap // p.taps[2], tap % p.taps[2], packed)
            share_out(&shares, X.images * cut.bands, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    _band_by_phases[real](p, &cut, &X, &Y, unit // cut.bands, unit % cut.bands * cut.band, packed,
                                          bias, joined, buffer + thread * scratch)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void _band_by_phases(const Plan *p, const Cut *cut, const Image *X, const Image *Y, Py_ssize_t image,
                          Py_ssize_t top, const real *packed, const real *bias, const Joined *joined,
                          real *scratch) noexcept nogil:
    """A band of an image of gx, from row `top` on."""
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef Py_ssize_t s = p.stride[1], t = p.stride[2], C = p.C, F = Y.channels, row = X.size[2] * C
    cdef Py_ssize_t end = min(top + cut.band, X.size[1]), begin = image * X.image + top * X.stride[1]
    cdef Py_ssize_t first = max(top + p.low[1] - p.reach[1] + s, 0) // s  # the rows of gy that reach the band
    cdef Py_ssize_t last = min((end - 1 + p.low[1]) // s, p.out[1] - 1)
    cdef Py_ssize_t i, j, at, low, left, down, across
    cdef real *gx = <real *> X.data + begin
    cdef real *gy = <real *> Y.data + image * Y.image + first * Y.stride[1]
    cdef const real *source
    cdef const real *w
    cdef nnx_taps taps
    if cut.padded:
        _copy_rows[real](p, cut, Y, image, first, last, scratch)
        gy = scratch
    _fetch_band[real](joined, <real *> X.data, begin, (end - top) * row, cut.stream)
    taps.planes = taps.depth = taps.depth_dilation = taps.beside = taps.stride = taps.dilation = 1
    taps.front = 0
    taps.height = p.out[1]
    taps.row_step = cut.width * F if cut.padded else Y.stride[1]
    taps.pixel_step = F
    taps.offset = &p.offset[0]
    taps.result_row = s * row
    taps.stream = cut.stream
    for i in range(top, min(top + s, end)):
        low = (i + p.low[1]) % s
        down = taps_from(low, s, p.taps[1])
        # Taps low, low + s, ... read this row of gy and the ones above it: from the last tap to the first, downwards.
        taps.top = (i + p.low[1]) // s - down + 1
        taps.down = taps.runs = down
        taps.rows = (end - i + s - 1) // s
        for j in range(min(t, X.size[2])):
            left = (j + p.low[2]) % t
            across = taps_from(left, t, p.taps[2])
            taps.length = across * F
            taps.columns = (X.size[2] - j + t - 1) // t
            source = gy + (taps.top - first) * taps.row_step + (cut.left + (j + p.low[2]) // t - across + 1) * F
            w = packed + _taps_before(p, low, left) * cut.tap
            at = (i - top) * row + j * C
            taps.added = NULL if joined.added == NULL else <real *> joined.added + begin + at
            taps.positive = NULL if joined.positive == NULL else <real *> joined.positive + begin + at
            if real is float:
                kernels.direct_forward_f32(&taps, source, C, w, bias, False, gx + at, t * C,
                                           scratch + cut.copied)
            else:
                kernels.direct_forward_f64(&taps, source, C, w, bias, False, gx + at, t * C,
                                           scratch + cut.copied)


cdef void _fetch_band(const Joined *joined, const real *gx, Py_ssize_t begin, Py_ssize_t numbers,
                      bint stream) noexcept nogil:
    """Read what the band is joined to, and where it will be stored, from end to end: pixels beside each other are made
    at different times, and no processor fetches ahead of that."""
    if joined.added != NULL:
        fetch(<real *> joined.added + begin, numbers * sizeof(real))
    if joined.positive != NULL:
        fetch(<real *> joined.positive + begin, numbers * sizeof(real))
    if not stream:
        fetch(gx + begin, numbers * sizeof(real))


cdef inline Py_ssize_t _taps_before(const Plan *p, Py_ssize_t low, Py_ssize_t left) noexcept nogil:
    """Taps that are packed before those of phase (low, left)."""
    cdef Py_ssize_t s = p.stride[1], t = p.stride[2]
    return (taps_below(low, s, p.taps[1]) * p.taps[2]
            + taps_from(low, s, p.taps[1]) * taps_below(left, t, p.taps[2]))


cdef void _pack_tap(const Plan *p, const Image *W, Py_ssize_t F, Py_ssize_t panel, Py_ssize_t i, Py_ssize_t j,
                    real *packed) noexcept nogil:
    """Tap (i, j) of packed[phase][panel][tap, the last one first][filter][channel of the panel], zeros behind C."""
    cdef Py_ssize_t s = p.stride[1], t = p.stride[2], low = i % s, left = j % t, c = 0, f, n
    cdef Py_ssize_t down = taps_from(low, s, p.taps[1]), across = taps_from(left, t, p.taps[2]), width
    cdef real *to = packed + _taps_before(p, low, left) * ((p.C + panel - 1) // panel * panel * F)
    cdef const real *w
    to += ((down - 1 - i // s) * across + across - 1 - j // t) * F * panel
    while c < p.C:
        width = min(panel, p.C - c)
        for f in range(F):
            w = <real *> W.data + f * W.image + c * W.channel + i * W.stride[1] + j * W.stride[2]
            for n in range(width):
                to[f * panel + n] = w[n * W.channel]
            for n in range(width, panel):
                to[f * panel + n] = 0
        to += down * across * F * panel
        c = c + panel


# -- one group for each channel -----------------------------------------------------------------------------------


cdef int depthwise_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, int num_threads) except -1:
    """One filter per channel, and at least a vector of channels: what each pixel of gx gets is added up in a register.

    Columns of gx that are a stride apart meet the same taps: they are a row of a convolution of gy with these taps.
    """
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t C = p.C, taps = p.taps[1] * p.taps[2], unit
    cdef Cut cut = _cut_columns(p, &X)
    cdef Py_ssize_t row_bytes = cut.width * C * sizeof(real)
    _cut_rows(p, &X, &cut, max(GY_BYTES // row_bytes, 1) * p.stride[1], C)
    cdef Py_ssize_t scratch = taps * C + cut.copied + 16
    # Past the caches only where the result has twice the usual size: pixels that are neighbours are stored at different
    # times, which costs more than a result that is still in the cache.
    cut.stream = is_streamed(X.data, X.images * X.image // 2, C, sizeof(real))
    cdef real *packed = NULL
    cdef real *buffer = NULL
    cdef Py_ssize_t *offsets = NULL
    if X.images * cut.bands < num_threads:
        num_threads = X.images * cut.bands
    try:
        packed = <real *> take_workspace(max(p.runs * C, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        offsets = <Py_ssize_t *> take_workspace(num_threads * max(taps, 1) * sizeof(Py_ssize_t))
        with nogil:
            pack_depthwise[real](p, &W, packed)
            share_out(&shares, X.images * cut.bands, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    _depthwise_band[real](p, &cut, &X, &Y, unit // cut.bands, unit % cut.bands * cut.band, packed,
                                          bias, buffer + thread * scratch, offsets + thread * taps)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(offsets)
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void _depthwise_band(const Plan *p, const Cut *cut, const Image *X, const Image *Y, Py_ssize_t image,
                          Py_ssize_t top, const real *packed, const real *bias, real *scratch,
                          Py_ssize_t *offsets) noexcept nogil:
    """A band of an image of gx, from row `top` on."""
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef Py_ssize_t C = p.C, s = p.stride[1], t = p.stride[2], end = min(top + cut.band, X.size[1])
    cdef Py_ssize_t i, j, k, row, at, column
    # the rows of gy that reach the band
    cdef Py_ssize_t first = max(top + p.low[1] - p.reach[1] + s, 0) // s
    cdef Py_ssize_t last = min((end - 1 + p.low[1]) // s, p.out[1] - 1)
    cdef real *w = scratch
    cdef real *gy = scratch + p.taps[1] * p.taps[2] * C
    cdef real *to
    cdef nnx_taps taps
    _copy_rows[real](p, cut, Y, image, first, last, gy)
    taps.rows = taps.planes = taps.beside = taps.depth = taps.depth_dilation = taps.dilation = 1
    taps.front = taps.top = taps.stride = taps.row_step = 0
    taps.pixel_step = C
    taps.length = 1
    taps.offset = offsets
    taps.stream = cut.stream
    for row in range(top, end):
        for j in range(min(t, X.size[2])):
            taps.columns = (X.size[2] - j + t - 1) // t
            taps.runs = 0
            for i in range(p.taps[1]):
                at = row + p.low[1] - i * p.dilation[1]
                if at < 0 or at % s != 0 or at // s >= p.out[1]:
                    continue
                for k in range(p.taps[2]):
                    column = j + p.low[2] - k * p.dilation[2]
                    if column % t == 0:
                        offsets[taps.runs] = ((at // s - first) * cut.width + cut.left + column // t) * C
                        memcpy(w + taps.runs * C, packed + (i * p.taps[2] + k) * C, C * sizeof(real))
                        taps.runs += 1
            taps.down = taps.height = taps.runs
            to = <real *> X.data + image * X.image + row * X.stride[1] + j * C
            if real is float:
                kernels.direct_depthwise_f32(&taps, gy, C, w, bias, False, to, t * C)
            else:
                kernels.direct_depthwise_f64(&taps, gy, C, w, bias, False, to, t * C)
