# Data gradients that are convolutions of gy, for direct_data.pyx.

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image
from nnx._ext.direct cimport Plan

cdef struct Joined:  # what happens to the gradient as it is stored; images like gx, or NULL
    const void *added
    const void *positive

cdef inline Py_ssize_t taps_from(Py_ssize_t phase, Py_ssize_t step, Py_ssize_t taps) noexcept nogil:
    """How many of the taps 0 ... taps - 1 are phase, phase + step, ..."""
    return (taps - phase + step - 1) // step if taps > phase else 0


cdef inline Py_ssize_t taps_below(Py_ssize_t phase, Py_ssize_t step, Py_ssize_t taps) noexcept nogil:
    """How many of them leave a smaller remainder than `phase`, divided by `step`."""
    return taps // step * phase + min(taps % step, phase)


cdef int data_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, const Joined *joined,
                        int num_threads) except -1
cdef int depthwise_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, int num_threads) except -1
