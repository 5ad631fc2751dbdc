"""Rows of a table: looked up by number, and gradients added back to where they came from."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport (
    check_ndim, check_threads, input_pointer, output_pointer, real, real_type,
)

cnp.import_array()

cdef enum:
    ROWS = 16  # of a task: rows differ in how often they were taken, so tasks are given out one by one


cdef int64_t *checked(cnp.ndarray index, Py_ssize_t count, Py_ssize_t rows, str kernel) except? NULL:
    """A copy of the index, which no other thread can change once it is known to lie in [0, rows)."""
    cdef const int64_t *given = <const int64_t *> input_pointer(index, cnp.NPY_INT64, count, kernel, "index")
    cdef int64_t *own = <int64_t *> malloc(max(count, 1) * sizeof(int64_t))
    cdef Py_ssize_t i
    cdef int64_t low = 0, high = 0
    if own == NULL:
        raise MemoryError(f"{kernel}: no memory for the index")
    with nogil:
        memcpy(own, given, count * sizeof(int64_t))
        if count > 0:
            low = high = own[0]
        for i in range(count):
            low = own[i] if own[i] < low else low
            high = own[i] if own[i] > high else high
    if count > 0 and (low < 0 or high >= rows):
        free(own)
        raise IndexError(
            f"{kernel}: expected index in [0, {rows}), got values in [{low}, {high}]"
        )
    return own


def take(cnp.ndarray weight, cnp.ndarray index, cnp.ndarray y, int num_threads):
    """y[i] = weight[index[i]]; weight (num, D), index (n,) of int64, y (n, D), all C-contiguous."""
    cdef int kind = real_type(weight, "take", "weight")
    check_ndim(weight, 2, "take", "weight")
    check_ndim(index, 1, "take", "index")
    cdef Py_ssize_t num = cnp.PyArray_DIM(weight, 0), width = cnp.PyArray_DIM(weight, 1)
    cdef Py_ssize_t count = cnp.PyArray_DIM(index, 0), i
    cdef Py_ssize_t bytes = width * cnp.PyArray_ITEMSIZE(weight)
    cdef const char *source = <const char *> input_pointer(weight, kind, num * width, "take", "weight")
    cdef char *target = <char *> output_pointer(y, kind, count * width, "take", "y")
    check_threads(num_threads, "take")
    cdef int64_t *rows = checked(index, count, num, "take")
    with nogil:
        for i in prange(count, num_threads=num_threads, schedule="static"):
            memcpy(target + i * bytes, source + rows[i] * bytes, bytes)
        free(rows)


def scatter_add(cnp.ndarray gy, cnp.ndarray index, cnp.ndarray g, int num_threads):
    """g[k] = sum of gy[i] over all i with index[i] == k, in the order of i; g (num, D), gy (n, D), index (n,)."""
    cdef int kind = real_type(g, "scatter_add", "g")
    check_ndim(g, 2, "scatter_add", "g")
    check_ndim(index, 1, "scatter_add", "index")
    cdef Py_ssize_t num = cnp.PyArray_DIM(g, 0), width = cnp.PyArray_DIM(g, 1)
    cdef Py_ssize_t count = cnp.PyArray_DIM(index, 0)
    cdef void *target = output_pointer(g, kind, num * width, "scatter_add", "g")
    cdef void *source = input_pointer(gy, kind, count * width, "scatter_add", "gy")
    check_threads(num_threads, "scatter_add")
    cdef int64_t *rows = checked(index, count, num, "scatter_add")
    cdef int64_t *order = <int64_t *> malloc(max(count, 1) * sizeof(int64_t))
    cdef int64_t *end = <int64_t *> calloc(num + 1, sizeof(int64_t))
    if order == NULL or end == NULL:
        free(rows)
        free(order)
        free(end)
        raise MemoryError("scatter_add: no memory for the order of the rows")
    with nogil:
        _sort(rows, count, num, order, end)
        if kind == cnp.NPY_FLOAT:
            _add(<const float *> source, <float *> target, num, width, order, end, num_threads)
        else:
            _add(<const double *> source, <double *> target, num, width, order, end, num_threads)
        free(rows)
        free(order)
        free(end)


cdef void _sort(
    const int64_t *rows, Py_ssize_t count, Py_ssize_t num, int64_t *order, int64_t *end
) noexcept nogil:
    """order holds the numbers i sorted by rows[i], equal rows in order; those of row k end before end[k]."""
    cdef Py_ssize_t i
    cdef int64_t k
    for i in range(count):
        end[rows[i] + 1] += 1
    for k in range(num):
        end[k + 1] += end[k]
    for i in range(count):  # end[k] is where row k begins, and moves to its end
        k = rows[i]
        order[end[k]] = i
        end[k] += 1


cdef void _add(
    const real *gy, real *g, Py_ssize_t num, Py_ssize_t width, const int64_t *order, const int64_t *end,
    int threads
) noexcept nogil:
    cdef Py_ssize_t task, k
    for task in prange((num + ROWS - 1) // ROWS, num_threads=threads, schedule="dynamic"):
        for k in range(task * ROWS, num if num < (task + 1) * ROWS else (task + 1) * ROWS):
            add_rows(gy, g + k * width, width, order, end[k - 1] if k > 0 else 0, end[k])


cdef inline void add_rows(
    const real *gy, real *g, Py_ssize_t width, const int64_t *order, int64_t begin, int64_t end
) noexcept nogil:
    cdef Py_ssize_t d
    cdef int64_t j
    cdef const real *row
    memset(g, 0, width * sizeof(real))
    for j in range(begin, end):
        row = gy + order[j] * width
        for d in range(width):
            g[d] += row[d]
