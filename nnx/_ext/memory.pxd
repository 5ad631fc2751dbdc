# Scratch memory for one call and arrays for results, out of one cache of large blocks (ext/memory.pyx).

cimport numpy as cnp

# A block of at least `size` bytes, aligned to 64; MemoryError if there is none. May be called without the GIL held by
# anybody else: the cache has a lock of its own.
cdef void *take_workspace(size_t size) except NULL
cdef void give_workspace(void *block) noexcept

cdef enum:
    STREAM_BYTES = 3145728  # of a result: more than stays in the caches until somebody reads it

# Whether a dense result of so many numbers is stored past the caches: it is large, its pixels are whole cache lines.
cdef inline bint is_streamed(const void *data, Py_ssize_t numbers, Py_ssize_t channels,
                             Py_ssize_t itemsize) noexcept nogil:
    return numbers * itemsize >= STREAM_BYTES and channels * itemsize % 64 == 0 and <size_t> data % 64 == 0

# Read an array from its first byte to its last, so that it is in the second-level cache when it is read in another
# order: processors fetch ahead only of what is read as it lies in memory.
cdef void fetch(const void *data, size_t size) noexcept nogil

# An uninitialised C-contiguous array of this NumPy type number, from the cache where it is large.
cdef cnp.ndarray empty_array(int ndim, cnp.npy_intp *shape, int kind)
