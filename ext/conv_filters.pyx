"""Filters as the matrix that columns are multiplied by, packed for the tile kernels: for conv.pyx.

Rows are taps and channels that are summed over, columns the other channels. Filters (F, C, taps) that lie in order are
turned by squares of numbers in registers; those of other strides are read number by number.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "prefetch.h" nogil:
    void nnx_prefetch(const void *source, Py_ssize_t bytes)

cdef enum:
    PACK_ROWS = 256     # rows of filters that are turned at once, at most, and
    PACK_COLUMNS = 32   # numbers of each
    AHEAD = 4           # filters whose numbers are asked for before they are packed


cdef Filters filters_of(void *data, Image *w, Py_ssize_t T, const Py_ssize_t *tap, Py_ssize_t I,
                        Py_ssize_t inner_stride, Py_ssize_t J, Py_ssize_t outer_stride) noexcept nogil:
    """The matrix of filters `w` from `data` on, with T of their taps, I inner and J outer channels."""
    cdef Filters f
    cdef Py_ssize_t every = w.size[0] * w.size[1] * w.size[2], t
    cdef bint in_order = w.channel == every and every <= PACK_ROWS
    f.data, f.taps, f.tap, f.inner, f.outer = data, T, tap, I, J
    f.inner_stride, f.outer_stride = inner_stride, outer_stride
    for t in range(every if in_order else 0):
        in_order = in_order and tap_of(w, t) == t
    f.in_order = every if in_order else 0
    return f


cdef Py_ssize_t tap_of(const Image *w, Py_ssize_t t) noexcept nogil:
    """Where tap number t of a filter lies."""
    return (t // w.size[2] // w.size[1] * w.stride[0] + t // w.size[2] % w.size[1] * w.stride[1]
            + t % w.size[2] * w.stride[2])


cdef void pack_filters(const Filters *f, Py_ssize_t first, Py_ssize_t columns, Py_ssize_t panel,
                       real *packed) noexcept nogil:
    """packed[panel][(t, i)][j] for `columns` columns: rows are taps and channels as in a gathered tile."""
    cdef Py_ssize_t K = f.taps * f.inner, n, p, width, i, t, j
    cdef real *to
    cdef const real *source
    for p in range((columns + panel - 1) // panel):
        n = p * panel
        width = min(panel, columns - n)
        to = packed + n * K
        source = <const real *> f.data + (first + n) * f.outer_stride
        if panel <= PACK_COLUMNS and f.in_order > 0 and f.inner_stride == f.in_order == f.taps:
            _pack_whole[real](f, source, width, panel, to)
        elif panel <= PACK_COLUMNS and f.in_order > 0 and f.outer_stride == f.in_order <= 2 * f.taps:
            _pack_channels[real](f, source, width, panel, to)
        else:
            for i in range(f.inner):
                for t in range(f.taps):
                    for j in range(width):
                        to[(t * f.inner + i) * panel + j] = source[f.tap[t] + i * f.inner_stride + j * f.outer_stride]
                    for j in range(width, panel):
                        to[(t * f.inner + i) * panel + j] = 0


cdef void _pack_whole(const Filters *f, const real *source, Py_ssize_t width, Py_ssize_t panel,
                      real *to) noexcept nogil:
    """One panel whose columns are filters that lie in order: squares of channels and taps by filters are turned."""
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t T = f.taps, step = min(16, PACK_ROWS // T), i = 0, k, rows
    cdef real buffer[PACK_ROWS * PACK_COLUMNS]
    while i < f.inner:
        rows = min(step, f.inner - i) * T
        if real is float:
            gemm.pack_f32(rows, width, source + i * T, 1, f.outer_stride, buffer)
        else:
            gemm.pack_f64(rows, width, source + i * T, 1, f.outer_stride, buffer)
        for k in range(rows):
            memcpy(to + (k % T * f.inner + i + k // T) * panel, buffer + k * panel, panel * sizeof(real))
        i = i + step


cdef void _pack_channels(const Filters *f, const real *source, Py_ssize_t width, Py_ssize_t panel,
                         real *to) noexcept nogil:
    """One panel whose columns are channels, each with its taps: filter by filter, all taps by channels are turned."""
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t i, t
    cdef real buffer[PACK_ROWS * PACK_COLUMNS]
    memset(buffer, 0, sizeof(buffer))  # for the columns that a last panel has not
    for i in range(f.inner):
        if i + AHEAD < f.inner:
            nnx_prefetch(source + (i + AHEAD) * f.inner_stride, width * f.in_order * sizeof(real))
        if real is float:
            gemm.transpose_f32(f.in_order, width, source + i * f.inner_stride, f.in_order, buffer, panel)
        else:
            gemm.transpose_f64(f.in_order, width, source + i * f.inner_stride, f.in_order, buffer, panel)
        for t in range(f.taps):
            memcpy(to + (t * f.inner + i) * panel, buffer + f.tap[t] * panel, panel * sizeof(real))
