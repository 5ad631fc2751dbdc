# Filters packed for products with columns, for conv.pyx.

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image

cdef struct Filters:
    # a matrix with a row for each tap t and inner channel i, and a column for each outer channel j:
    # data[tap[t] + i * inner_stride + j * outer_stride]. Inner channels are summed over.
    void *data
    Py_ssize_t taps, inner, outer
    const Py_ssize_t *tap
    Py_ssize_t inner_stride, outer_stride
    Py_ssize_t in_order  # all taps of a filter, where its channels and taps lie in order in memory; otherwise 0

# The matrix of filters `w` from `data` on, with T of their taps, I inner and J outer channels.
cdef Filters filters_of(void *data, Image *w, Py_ssize_t T, const Py_ssize_t *tap, Py_ssize_t I,
                        Py_ssize_t inner_stride, Py_ssize_t J, Py_ssize_t outer_stride) noexcept nogil

# Where tap number t of a filter lies.
cdef Py_ssize_t tap_of(const Image *w, Py_ssize_t t) noexcept nogil

# packed[panel][(t, i)][j] for `columns` columns from `first` on: rows are taps and channels as in a gathered tile.
cdef void pack_filters(const Filters *f, Py_ssize_t first, Py_ssize_t columns, Py_ssize_t panel,
                       real *packed) noexcept nogil
