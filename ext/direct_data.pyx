"""The data gradient of ext/direct.pyx. With a vector of channels or more it is a convolution of gy for the pixels that
meet the same taps (ext/direct_phases.pyx). With fewer a row of the result is added up at a time; with gaps between the
taps, or pixels far from each other, each pixel's products are added to a padded image, which is then copied without its
border.

A task makes a band of rows of one image, and no two tasks write the same number: the bits do not depend on the number
of threads.

Dimension letters: N images, C channels in, F filters (channels out).
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from nnx._ext.common cimport check_threads, check_writeable, real, real_type
from nnx._ext.conv cimport Image, joined_image, read_bias, read_image
from nnx._ext.direct cimport UNITS, Plan, nnx_direct, nnx_taps, pack_depthwise, read_plan
from nnx._ext.direct_phases cimport Joined, data_by_phases, depthwise_by_phases, taps_below, taps_from
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef enum:
    PIXEL_STEP = 32   # from one pixel's number to the next one's; below, what they give overlaps within a vector
    BANDS = 4         # of an image's rows, so that threads share the work of a few images evenly

cdef extern from "table.h" nogil:
    ctypedef struct nnx_activation "struct nnx_activation":
        void (*add_f32)(const float *, const float *, float *, Py_ssize_t, const float *) noexcept nogil
        void (*add_f64)(const double *, const double *, double *, Py_ssize_t, const double *) noexcept nogil
        void (*relu_backward_f32)(const float *, const float *, float *, Py_ssize_t, const float *) noexcept nogil
        void (*relu_backward_f64)(const double *, const double *, double *, Py_ssize_t, const double *) noexcept nogil


def data_grad(cnp.ndarray gy, cnp.ndarray w, object bias, cnp.ndarray gx, tuple stride, tuple padding, tuple dilation,
              Py_ssize_t groups, int num_threads, cnp.ndarray added=None, cnp.ndarray positive=None):
    """gx = the gradient of forward() with respect to x, from gy; with a bias it is a transposed convolution.

    gy (N, F, axes) channels-last, w (F, C, taps), bias (C,) or None, gx (N, C, axes) channels-last; one group, or
    one filter and one group for each channel, w (C, 1, taps).
    added, positive: None, or arrays like gx, with one group: gx = added + the gradient, 0 where positive <= 0
    """
    cdef Image X, W, Y
    cdef Plan p
    cdef int kind = real_type(gx, "direct.data_grad", "gx")
    check_threads(num_threads, "direct.data_grad")
    check_writeable(gx, "direct.data_grad", "gx")
    read_image(gx, kind, True, "direct.data_grad", "gx", &X)
    read_image(w, kind, False, "direct.data_grad", "w", &W)
    read_image(gy, kind, True, "direct.data_grad", "gy", &Y)
    read_plan(&X, &W, &Y, stride, padding, dilation, groups, "direct.data_grad", &p)
    if len(stride) == 3:
        raise ValueError("direct.data_grad: expected images of 1 or 2 dimensions, got 3")
    if groups != 1 and not (p.inside == 1 and Y.channels == p.C):
        raise ValueError(f"direct.data_grad: expected 1 group or one filter per channel, got {Y.channels} in {groups}")
    cdef cnp.ndarray b = read_bias(bias, kind, X.channels, "direct.data_grad")
    cdef Joined joined
    joined.added = joined_image(added, &X, kind, "direct.data_grad", "added")
    joined.positive = joined_image(positive, &X, kind, "direct.data_grad", "positive")
    if groups != 1 and (joined.added != NULL or joined.positive != NULL):
        raise ValueError(f"direct.data_grad: expected 1 group with added or positive, got {groups}")
    if cnp.PyArray_SIZE(gx) == 0:
        return
    cdef void *b_data = NULL if b is None else cnp.PyArray_DATA(b)
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if kind == cnp.NPY_FLOAT else gemm.gemm_panel_f64()
    cdef bint plain = groups == 1 and p.dilation[1] == 1 and p.dilation[2] == 1
    if groups != 1 and p.C >= panel // 2:
        if kind == cnp.NPY_FLOAT:
            depthwise_by_phases[float](&p, X, W, Y, <float *> b_data, num_threads)
        else:
            depthwise_by_phases[double](&p, X, W, Y, <double *> b_data, num_threads)
    elif plain and p.C >= panel // 2:
        if kind == cnp.NPY_FLOAT:
            data_by_phases[float](&p, X, W, Y, <float *> b_data, &joined, num_threads)
        else:
            data_by_phases[double](&p, X, W, Y, <double *> b_data, &joined, num_threads)
    elif plain and p.stride[2] * p.C < PIXEL_STEP:
        if kind == cnp.NPY_FLOAT:
            _data_rows[float](&p, X, W, Y, <float *> b_data, &joined, num_threads)
        else:
            _data_rows[double](&p, X, W, Y, <double *> b_data, &joined, num_threads)
    elif kind == cnp.NPY_FLOAT:
        _data_grad[float](&p, X, W, Y, <float *> b_data, &joined, num_threads)
    else:
        _data_grad[double](&p, X, W, Y, <double *> b_data, &joined, num_threads)


cdef int _data_rows(Plan *p, Image X, Image W, Image Y, const real *bias, const Joined *joined,
                    int num_threads) except -1:
    """The same for few channels and without dilation: row by row of gx, which nothing is added to afterwards."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t runs = p.taps[1], F = Y.channels, C = X.channels, i, unit
    cdef Py_ssize_t band = max((X.size[1] + BANDS - 1) // BANDS, 1), bands = (X.size[1] + band - 1) // band
    cdef Py_ssize_t line = (max(p.width, p.low[2] + X.size[2]) * C + 2 * panel + 15) // 16 * 16
    # one line for the sums, and those of NAME(direct_add)
    cdef Py_ssize_t scratch = (1 + (min(p.length, panel) + p.stride[2] * C - 1) // (p.stride[2] * C)) * line
    cdef Py_ssize_t packed_row = (p.length + panel - 1) // panel * panel * F  # numbers of a row of the filters
    cdef real *packed = NULL
    cdef real *buffer = NULL
    for i in range(runs):
        p.offset[i] = -i * Y.stride[1]
    if X.images * bands < num_threads:
        num_threads = X.images * bands
    try:
        packed = <real *> take_workspace(max(runs * packed_row, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            _pack_rows[real](p, &W, F, panel, packed)
            share_out(&shares, X.images * bands, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    _data_band[real](p, &X, &Y, unit // bands, unit % bands * band, band, packed, packed_row, bias,
                                     joined, buffer + thread * scratch, line)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void _data_band(Plan *p, const Image *X, const Image *Y, Py_ssize_t image, Py_ssize_t row, Py_ssize_t band,
                     const real *packed, Py_ssize_t packed_row, const real *bias, const Joined *joined, real *sums,
                     Py_ssize_t line) noexcept nogil:
    """Up to `band` rows of an image of gx, from `row` on."""
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef Py_ssize_t s = p.stride[1], step = p.stride[2] * p.C, phase, top, first, last
    cdef const real *gy
    cdef const real *w
    cdef nnx_taps taps
    taps.columns = p.out[2]
    taps.stream = False
    taps.pixel_step = Y.channels
    taps.length = Y.channels
    taps.down = taps.beside = 0
    taps.offset = p.offset
    for row in range(row, min(row + band, X.size[1])):
        memset(sums, 0, line * sizeof(real))
        # Of the filters' rows, every s-th meets this one; the first of them reads row `top` of gy.
        phase = (row + p.low[1]) % s
        top = (row + p.low[1]) // s
        taps.runs = taps_from(phase, s, p.taps[1])
        first, last = max(top - p.out[1] + 1, 0), min(top + 1, taps.runs)
        if first < last:
            gy = <real *> Y.data + image * Y.image + top * Y.stride[1]
            w = packed + taps_below(phase, s, p.taps[1]) * packed_row
            if real is float:
                kernels.direct_add_f32(&taps, gy, first, last, w, p.length, step, sums, sums + line, line)
            else:
                kernels.direct_add_f64(&taps, gy, first, last, w, p.length, step, sums, sums + line, line)
        _store_row[real](X, image, row, sums + p.low[2] * p.C, bias, joined)


cdef void _store_row(const Image *X, Py_ssize_t image, Py_ssize_t row, const real *source, const real *bias,
                     const Joined *joined) noexcept nogil:
    """A row of gx, from its sums."""
    cdef const nnx_activation *kernels = <const nnx_activation *> table().activation
    cdef Py_ssize_t at = image * X.image + row * X.stride[1], n = X.size[2] * X.channels, j, c
    cdef real *to = <real *> X.data + at
    if bias != NULL:
        for j in range(X.size[2]):
            for c in range(X.channels):
                to[j * X.channels + c] = source[j * X.channels + c] + bias[c]
        source = to
    if joined.added != NULL:
        if real is float:
            kernels.add_f32(<const float *> joined.added + at, source, to, n, NULL)
        else:
            kernels.add_f64(<const double *> joined.added + at, source, to, n, NULL)
        source = to
    if joined.positive != NULL:
        if real is float:
            kernels.relu_backward_f32(source, <const float *> joined.positive + at, to, n, NULL)
        else:
            kernels.relu_backward_f64(source, <const double *> joined.positive + at, to, n, NULL)
        source = to
    if source != to:
        memcpy(to, source, n * sizeof(real))


cdef void _pack_rows(const Plan *p, const Image *W, Py_ssize_t F, Py_ssize_t panel, real *packed) noexcept nogil:
    """packed[phase][panel][row of the filter][filter][number of the row], zeros behind the last number."""
    cdef Py_ssize_t phase, s = p.stride[1], at, i, f, place, c, k
    cdef const real *w
    for phase in range(min(s, p.taps[1])):
        at = 0
        while at < p.length:
            i = phase
            while i < p.taps[1]:
                for f in range(F):
                    w = <real *> W.data + f * W.image + i * W.stride[1]
                    c = at % p.C
                    k = at // p.C
                    for place in range(panel):
                        packed[place] = w[c * W.channel + k * W.stride[2]] if at + place < p.length else 0
                        c += 1
                        if c == p.C:
                            c = 0
                            k += 1
                    packed += panel
                i += s
            at += panel


cdef int _data_grad(Plan *p, Image X, Image W, Image Y, const real *bias, const Joined *joined,
                    int num_threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef const nnx_direct *kernels = <const nnx_direct *> table().direct
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t lanes = panel // 2, run = (p.length + lanes - 1) // lanes * lanes, columns = p.runs * run
    cdef Py_ssize_t panels = (columns + panel - 1) // panel, F = Y.channels, H = X.size[1], C = X.channels
    # A task makes a band of gx's rows [top, end): it adds up what the rows of gy give that reach one of them.
    cdef Py_ssize_t wanted = max((UNITS + X.images - 1) // X.images, 1)
    cdef Py_ssize_t band = max((H + wanted - 1) // wanted, p.reach[1]), bands = (H + band - 1) // band
    cdef Py_ssize_t width = max(p.width, p.low[2] + X.size[2]), s = p.stride[1], top, end, first, last, origin
    cdef Py_ssize_t image = ((band + 2 * p.reach[1]) * width * C + lanes + 15) // 16 * 16, tile = p.out[2] * columns
    cdef bint depthwise = p.groups != 1
    cdef Py_ssize_t scratch = image + (0 if depthwise else (tile + 15) // 16 * 16) + 16, unit, i
    cdef real *packed = NULL
    cdef real *buffer = NULL
    cdef real *mine
    cdef const real *source
    cdef nnx_taps taps
    taps.rows = 1
    taps.columns = p.out[2]
    taps.stream = False
    taps.row_step = 0
    taps.pixel_step = p.stride[2] * C
    taps.runs = p.runs
    taps.length = p.length
    taps.offset = p.offset
    cdef bint whole_rows = p.runs == p.taps[1]
    for i in range(p.runs):
        p.offset[i] = (i if whole_rows else i // p.taps[2]) * p.dilation[1] * width * C
        if not whole_rows:
            p.offset[i] += i % p.taps[2] * p.dilation[2] * C
    if X.images * bands < num_threads:
        num_threads = X.images * bands
    try:
        packed = <real *> take_workspace(max(p.runs * C if depthwise else panels * panel * F, 1) * sizeof(real))
        buffer = <real *> take_workspace(num_threads * scratch * sizeof(real))
        with nogil:
            if depthwise:
                pack_depthwise[real](p, &W, packed)
            else:
                _pack_transposed[real](p, &W, F, panel, run, columns, packed)
            share_out(&shares, X.images * bands, num_threads)
            for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
                unit = next_of(&shares, thread)
                while unit >= 0:
                    mine = buffer + thread * scratch
                    top = unit % bands * band
                    end = min(top + band, H)
                    first = max((top + p.low[1] - p.reach[1] + s) // s, 0) if top + p.low[1] >= p.reach[1] else 0
                    last = min((end - 1 + p.low[1]) // s, p.out[1] - 1)
                    origin = min(first * s, top + p.low[1])  # the padded row that `mine` begins with
                    memset(mine, 0, image * sizeof(real))
                    source = <real *> Y.data + unit // bands * Y.image
                    for i in range(first, last + 1):
                        if real is float:
                            if depthwise:
                                kernels.direct_depthwise_scatter_f32(&taps, source + i * Y.stride[1], C, packed,
                                                                     mine + (i * s - origin) * width * C)
                            else:
                                gemm.gemm_f32(p.out[2], columns, F, source + i * Y.stride[1], F, 1, packed, F,
                                              mine + image, columns, 1, 0, NULL, NULL, 0)
                                kernels.direct_scatter_f32(&taps, mine + image, run,
                                                           mine + (i * s - origin) * width * C)
                        elif depthwise:
                            kernels.direct_depthwise_scatter_f64(&taps, source + i * Y.stride[1], C, packed,
                                                                 mine + (i * s - origin) * width * C)
                        else:
                            gemm.gemm_f64(p.out[2], columns, F, source + i * Y.stride[1], F, 1, packed, F,
                                          mine + image, columns, 1, 0, NULL, NULL, 0)
                            kernels.direct_scatter_f64(&taps, mine + image, run, mine + (i * s - origin) * width * C)
                    for i in range(top, end):
                        source = mine + ((i + p.low[1] - origin) * width + p.low[2]) * C
                        _store_row[real](&X, unit // bands, i, source, bias, joined)
                    unit = next_of(&shares, thread)
    finally:
        give_workspace(buffer)
        give_workspace(packed)
    return 0


cdef void _pack_transposed(const Plan *p, const Image *W, Py_ssize_t F, Py_ssize_t panel, Py_ssize_t run,
                           Py_ssize_t columns, real *packed) noexcept nogil:
    """packed[panel][filter][column of the panel]; a run of taps takes `run` columns, zeros behind its end."""
    cdef Py_ssize_t at, f, k, place, i
    cdef bint joined = p.runs == p.taps[1]
    cdef const real *w
    cdef real *to
    for at in range((columns + panel - 1) // panel * panel):
        to = packed + at // panel * F * panel + at % panel
        k = at // run  # the run's number
        place = at % run
        if at >= columns or place >= p.length:
            for f in range(F):
                to[f * panel] = 0
            continue
        i = k if joined else k // p.taps[2]
        k = place // p.C if joined else k % p.taps[2]
        w = <real *> W.data + place % p.C * W.channel + i * W.stride[1] + k * W.stride[2]
        for f in range(F):
            to[f * panel] = w[f * W.image]
