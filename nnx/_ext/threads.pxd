# The thread count, for compiled modules that are not handed one; kernels take it as an argument.

cdef int num_threads() noexcept nogil
