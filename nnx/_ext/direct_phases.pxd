# Data gradients that are convolutions of gy, for direct_data.pyx.

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image
from nnx._ext.direct cimport Plan

cdef struct Joined:  # what happens to the gradient as it is stored; images like gx, or NULL
    const void *added
    const void *positive

cdef int data_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, const Joined *joined,
                        int num_threads) except -1
cdef int depthwise_by_phases(Plan *p, Image X, Image W, Image Y, const real *bias, int num_threads) except -1
