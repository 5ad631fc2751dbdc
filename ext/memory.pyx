"""A cache of large blocks of memory, for results and for scratch.

The first touch of a fresh page costs more than the arithmetic of a small layer, and the system takes freed blocks
back, so that a training step would pay for all its pages again. Here blocks are kept when they are freed and handed out
again for about the same size.

Results are ordinary NumPy arrays that own their memory: they are made under a memory handler of ours (NEP 49), which
NumPy calls when the array, and with it the last view of it, dies. So what a user holds is never handed out again.
"""

import os

from numpy import empty as _numpy_empty, empty_like as _numpy_empty_like

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy, memset

cnp.import_array()

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #if defined(_WIN32)
    #include <malloc.h>
    #define nnx_system_free _aligned_free
    #else
    #define nnx_system_free free
    #endif
    #define NNX_HUGE ((size_t)1 << 21)
    static void *nnx_system_allocate(size_t size) {
    #if defined(_WIN32)
        return _aligned_malloc(size, 64);
    #else
        void *block = NULL;
        /* From one huge page on, ask for huge pages: one fault instead of 512, fewer misses in the TLB. */
        size_t alignment = size >= NNX_HUGE ? NNX_HUGE : 64;
        if (posix_memalign(&block, alignment, size) != 0) return NULL;
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (alignment == NNX_HUGE) madvise(block, size, MADV_HUGEPAGE);
    #endif
        return block;
    #endif
    }
    static void nnx_fetch(const char *data, size_t size) {
        for (size_t i = 0; i < size; i += 64) (void)*(const volatile char *)(data + i);
    }
    """
    void nnx_fetch(const char *data, size_t size) noexcept nogil
    void *nnx_system_allocate(size_t size) noexcept nogil
    void nnx_system_free(void *block) noexcept nogil

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock() noexcept
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) noexcept nogil
    void PyThread_release_lock(PyThread_type_lock lock) noexcept nogil

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *block, size_t size) noexcept nogil
        void (*free)(void *ctx, void *block, size_t size) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator

    object PyDataMem_SetHandler(object handler)

cdef enum:
    HEADER = 64     # in front of each block: its size
    SLOTS = 512     # blocks that are kept at most
    SMALLEST = 65536  # bytes of an array from which on the cache is used

cdef void *_kept[SLOTS]
cdef int _count = 0
cdef size_t _bytes = 0
cdef size_t _limit = <size_t> 1 << 30
cdef PyThread_type_lock _lock = PyThread_allocate_lock()


cdef void fetch(const void *data, size_t size) noexcept nogil:
    nnx_fetch(<const char *> data, size)


cdef inline size_t _size_of(void *block) noexcept nogil:
    return (<size_t *> (<char *> block - HEADER))[0]


cdef void _release(void *block) noexcept nogil:
    nnx_system_free(<char *> block - HEADER)


cdef void *_take(size_t size) noexcept nogil:
    """A block of at least `size` bytes, or NULL. The last one that was freed and fits is taken: it is warm."""
    global _count, _bytes
    cdef int i
    cdef void *block = NULL
    if size > 4096 and _limit:
        size = (size + 4095) // 4096 * 4096
    # Without waiting: a fork may have copied a lock that nobody will ever open. Without the lock the system is asked.
    if _count and _lock != NULL and PyThread_acquire_lock(_lock, 0):
        for i in range(_count - 1, -1, -1):
            if size <= _size_of(_kept[i]) <= size + size // 4:
                block = _kept[i]
                _bytes -= _size_of(block)
                _count -= 1
                while i < _count:
                    _kept[i] = _kept[i + 1]
                    i = i + 1
                break
        PyThread_release_lock(_lock)
    if block != NULL:
        return block
    if size > (<size_t> 1 << (8 * sizeof(size_t) - 2)):
        return NULL
    block = nnx_system_allocate(size + HEADER)
    if block == NULL:
        return NULL
    (<size_t *> block)[0] = size
    return <char *> block + HEADER


cdef void _give(void *block) noexcept nogil:
    """Keep a block for later; the oldest ones go back to the system when there are too many."""
    global _count, _bytes
    cdef size_t size
    cdef int drop = 0, i
    if block == NULL:
        return
    size = _size_of(block)
    if size > _limit // 2 or _lock == NULL or not PyThread_acquire_lock(_lock, 0):
        _release(block)
        return
    while drop < _count and (_bytes + size > _limit or _count - drop == SLOTS):
        _bytes -= _size_of(_kept[drop])
        _release(_kept[drop])
        drop += 1
    if drop:
        _count -= drop
        for i in range(_count):
            _kept[i] = _kept[i + drop]
    _kept[_count] = block
    _count += 1
    _bytes += size
    PyThread_release_lock(_lock)


# -- scratch ----------------------------------------------------------------------------------------

cdef void *take_workspace(size_t size) except NULL:
    cdef void *block = _take(size)
    if block == NULL:
        raise MemoryError(f"workspace: could not allocate {size} bytes")
    return block


cdef void give_workspace(void *block) noexcept:
    _give(block)


# -- arrays -----------------------------------------------------------------------------------------

cdef void *_malloc(void *ctx, size_t size) noexcept nogil:
    return _take(size)


cdef void *_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef void *block
    if size and count > (<size_t> -1) // size:
        return NULL
    block = _take(count * size)
    if block != NULL:
        memset(block, 0, count * size)
    return block


cdef void *_realloc(void *ctx, void *block, size_t size) noexcept nogil:
    cdef void *larger = _take(size)
    if larger != NULL and block != NULL:
        memcpy(larger, block, min(size, _size_of(block)))
        _give(block)
    return larger


cdef void _free(void *ctx, void *block, size_t size) noexcept nogil:
    _give(block)


cdef PyDataMem_Handler _handler
memset(&_handler, 0, sizeof(_handler))
memcpy(_handler.name, b"nnx", 3)
_handler.version = 1
_handler.allocator.malloc = _malloc
_handler.allocator.calloc = _calloc
_handler.allocator.realloc = _realloc
_handler.allocator.free = _free

_capsule = PyCapsule_New(&_handler, "mem_handler", NULL)


cdef cnp.ndarray empty_array(int ndim, cnp.npy_intp *shape, int kind):
    cdef double size = 8
    cdef int axis
    for axis in range(ndim):
        size *= shape[axis]
    if size < SMALLEST:
        return cnp.PyArray_EMPTY(ndim, shape, kind, 0)
    previous = PyDataMem_SetHandler(_capsule)
    try:
        return cnp.PyArray_EMPTY(ndim, shape, kind, 0)
    finally:
        PyDataMem_SetHandler(previous)


def empty(tuple shape not None, dtype):
    """``numpy.empty(shape, dtype)``, out of the cache where the array is large."""
    cdef double numbers = 1
    for n in shape:
        numbers *= n
    if numbers * 4 < SMALLEST:
        return _numpy_empty(shape, dtype)
    previous = PyDataMem_SetHandler(_capsule)
    try:
        return _numpy_empty(shape, dtype)
    finally:
        PyDataMem_SetHandler(previous)


def empty_like(cnp.ndarray a not None, dtype=None):
    """``numpy.empty_like(a, dtype, subok=False)``, out of the cache where the array is large."""
    if cnp.PyArray_NBYTES(a) < SMALLEST:
        return _numpy_empty_like(a, dtype, subok=False)
    previous = PyDataMem_SetHandler(_capsule)
    try:
        return _numpy_empty_like(a, dtype, subok=False)
    finally:
        PyDataMem_SetHandler(previous)


# -- control ----------------------------------------------------------------------------------------

def empty_cache():
    """Give the memory that is kept for later back to the system; return the number of bytes."""
    global _count, _bytes
    cdef size_t freed = 0
    cdef int i
    if _lock != NULL and PyThread_acquire_lock(_lock, 1):
        for i in range(_count):
            _release(_kept[i])
        freed, _count, _bytes = _bytes, 0, 0
        PyThread_release_lock(_lock)
    return freed


def cached_bytes():
    """The number of bytes that are kept for later."""
    return _bytes


# for AddressSanitizer, which sees the ends of blocks only where nothing is kept or rounded up
if os.environ.get("NNX_CACHE_LIMIT", "").isdecimal():
    _limit = min(int(os.environ["NNX_CACHE_LIMIT"]), 1 << 62)


def set_cache_limit(limit):
    """Keep at most `limit` bytes (1 GiB at the start; 0 keeps nothing); return the previous limit."""
    global _limit
    previous = _limit
    if isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(f"set_cache_limit: expected limit to be an integer >= 0, got {limit!r}")
    if not 0 <= limit.__index__() < 1 << 62:
        raise ValueError(f"set_cache_limit: expected limit to be an integer >= 0, got {limit}")
    _limit = limit.__index__()
    if _bytes > _limit:
        empty_cache()
    return previous
