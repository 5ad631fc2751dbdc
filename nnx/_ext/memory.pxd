# Scratch memory for one call and arrays for results, out of one cache of large blocks (ext/memory.pyx).

cimport numpy as cnp

# A block of at least `size` bytes, aligned to 64; MemoryError if there is none. May be called without the GIL held by
# anybody else: the cache has a lock of its own.
cdef void *take_workspace(size_t size) except NULL
cdef void give_workspace(void *block) noexcept

# An uninitialised C-contiguous array of this NumPy type number, from the cache where it is large.
cdef cnp.ndarray empty_array(int ndim, cnp.npy_intp *shape, int kind)
