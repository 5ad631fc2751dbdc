"""Optimizer steps: one call updates a list of parameters, in blocks that threads share out.

Every step takes lists with one array per parameter. The arrays of a row have the same shape, strides and type and are
dense in memory. A step returns False and touches nothing if arrays share memory: blocks would race then, and rows would
no longer be updated one after the other.
"""

from libc.stdlib cimport calloc, free, qsort

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport (
    BLOCK, block_count, block_size, check_threads, check_writeable, dense_input, like_input, real, real_type,
)
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "table.h" nogil:
    struct nnx_optim:
        void (*sgd_f32)(float *p, const float *g, Py_ssize_t n, float lr, float decay, float sign) noexcept nogil
        void (*sgd_f64)(double *p, const double *g, Py_ssize_t n, double lr, double decay, double sign) noexcept nogil
        void (*sgd_momentum_f32)(
            float *p, const float *g, float *b, Py_ssize_t n, float lr, float decay, float sign,
            float momentum, float fresh, int first, int nesterov) noexcept nogil
        void (*sgd_momentum_f64)(
            double *p, const double *g, double *b, Py_ssize_t n, double lr, double decay, double sign,
            double momentum, double fresh, int first, int nesterov) noexcept nogil
        void (*adagrad_f32)(
            float *p, const float *g, float *s, Py_ssize_t n, float rate, float decay, float sign,
            float eps) noexcept nogil
        void (*adagrad_f64)(
            double *p, const double *g, double *s, Py_ssize_t n, double rate, double decay, double sign,
            double eps) noexcept nogil
        void (*adadelta_f32)(
            float *p, const float *g, float *v, float *a, Py_ssize_t n, float lr, float decay, float sign,
            float rho, float fresh, float eps) noexcept nogil
        void (*adadelta_f64)(
            double *p, const double *g, double *v, double *a, Py_ssize_t n, double lr, double decay, double sign,
            double rho, double fresh, double eps) noexcept nogil
        void (*rmsprop_f32)(
            float *p, const float *g, float *v, float *m, float *b, Py_ssize_t n, float lr, float decay,
            float sign, float alpha, float fresh, float eps, float momentum) noexcept nogil
        void (*rmsprop_f64)(
            double *p, const double *g, double *v, double *m, double *b, Py_ssize_t n, double lr, double decay,
            double sign, double alpha, double fresh, double eps, double momentum) noexcept nogil
        void (*adam_f32)(
            float *p, const float *g, float *m, float *v, float *largest, Py_ssize_t n, float rate, float root,
            float decay, float keep, float sign, float fresh1, float beta2, float fresh2, float eps) noexcept nogil
        void (*adam_f64)(
            double *p, const double *g, double *m, double *v, double *largest, Py_ssize_t n, double rate,
            double root, double decay, double keep, double sign, double fresh1, double beta2, double fresh2,
            double eps) noexcept nogil
        double (*square_sum_f32)(const float *x, Py_ssize_t n) noexcept nogil
        double (*square_sum_f64)(const double *x, Py_ssize_t n) noexcept nogil
        void (*scale_f32)(float *x, Py_ssize_t n, float factor) noexcept nogil
        void (*scale_f64)(double *x, Py_ssize_t n, double factor) noexcept nogil


cdef struct Span:  # the memory of one array
    size_t begin
    size_t end
    int written


cdef struct Table:  # arrays as pointers, and how their elements are cut into blocks
    Py_ssize_t count  # rows
    Py_ssize_t blocks  # of all rows together
    Py_ssize_t itemsize
    void **data  # count pointers per column, one column behind the other; NULL in a column that is left out
    Py_ssize_t *size  # elements per row
    Py_ssize_t *start  # number of each row's first block


cdef class Rows:
    """The checked arrays of a call. Holds them: they outlive the call whatever other threads do to the lists."""
    cdef Table t
    cdef int kind  # NPY_FLOAT or NPY_DOUBLE
    cdef bint overlapping
    cdef tuple columns

    def __cinit__(self, str kernel, tuple names, tuple columns, tuple written):
        """`written` tells which columns the kernel writes. The first column sets the layout of each row."""
        cdef Py_ssize_t row, used = 0
        cdef int column
        cdef cnp.ndarray a, first
        cdef Span *spans = NULL
        cdef void *data
        self.columns = columns = tuple([None if c is None else tuple(c) for c in columns])
        cdef Py_ssize_t count = len(columns[0])
        for column in range(1, len(columns)):
            if columns[column] is not None and len(columns[column]) != count:
                raise ValueError(
                    f"{kernel}: expected {names[column]} with {count} arrays like {names[0]}, "
                    f"got {len(columns[column])}"
                )
        self.t.count = count
        self.t.data = <void **> calloc(count * len(columns) + 1, sizeof(void *))
        self.t.size = <Py_ssize_t *> calloc(count + 1, sizeof(Py_ssize_t))
        self.t.start = <Py_ssize_t *> calloc(count + 1, sizeof(Py_ssize_t))
        if self.t.data == NULL or self.t.size == NULL or self.t.start == NULL:
            raise MemoryError
        if count == 0:
            return
        first = columns[0][0]
        self.kind = real_type(first, kernel, f"{names[0]}[0]")
        self.t.itemsize = cnp.PyArray_ITEMSIZE(first)
        spans = <Span *> calloc(count * len(columns), sizeof(Span))
        if spans == NULL:
            raise MemoryError
        try:
            for row in range(count):
                first = columns[0][row]
                self.t.size[row] = cnp.PyArray_SIZE(first)
                self.t.start[row] = self.t.blocks
                self.t.blocks += block_count(self.t.size[row])
                for column in range(len(columns)):
                    if columns[column] is None:
                        continue
                    a = columns[column][row]
                    if column == 0:
                        data = dense_input(a, self.kind, kernel, names[column])
                    else:
                        data = like_input(a, first, self.kind, kernel, names[column])
                    if written[column]:
                        check_writeable(a, kernel, names[column])
                    self.t.data[column * count + row] = data
                    if self.t.size[row] > 0:
                        spans[used].begin = <size_t> data
                        spans[used].end = <size_t> data + self.t.size[row] * self.t.itemsize
                        spans[used].written = written[column]
                        used += 1
            self.overlapping = overlap(spans, used)
        finally:
            free(spans)

    def __dealloc__(self):
        free(self.t.data)
        free(self.t.size)
        free(self.t.start)


def fit(tuple columns):
    """The elements of the first column, or -1 if the arrays are not all such that a step takes them as they are.

    columns: lists with one array per parameter: what is updated, gradients, accumulators; None where there is none
    """
    cdef cnp.ndarray first, a
    cdef Py_ssize_t row, elements = 0, column
    cdef int kind = -1, axis
    cdef object item
    cdef list rows
    for item in columns:
        if item is not None and (type(item) is not list or len(item) != len(columns[0])):
            return -1
    for row in range(len(columns[0])):
        item = (<list> columns[0])[row]
        if type(item) is not cnp.ndarray:
            return -1
        first = item
        if row == 0:
            kind = cnp.PyArray_TYPE(first)
            if kind != cnp.NPY_FLOAT and kind != cnp.NPY_DOUBLE:
                return -1
        if not (cnp.PyArray_IS_C_CONTIGUOUS(first) or cnp.PyArray_IS_F_CONTIGUOUS(first)):
            return -1
        elements += cnp.PyArray_SIZE(first)
        for column in range(len(columns)):
            if columns[column] is None:
                continue
            rows = columns[column]
            item = rows[row]
            if type(item) is not cnp.ndarray:
                return -1
            a = item
            if (
                cnp.PyArray_TYPE(a) != kind or not cnp.PyArray_ISBEHAVED_RO(a)
                or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(first)
                or (column != 1 and not cnp.PyArray_ISWRITEABLE(a))
            ):
                return -1
            for axis in range(cnp.PyArray_NDIM(first)):
                if (
                    cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(first, axis)
                    or cnp.PyArray_STRIDE(a, axis) != cnp.PyArray_STRIDE(first, axis)
                ):
                    return -1
    return elements


cdef int compare_spans(const void *a, const void *b) noexcept nogil:
    cdef size_t x = (<const Span *> a).begin, y = (<const Span *> b).begin
    return -1 if x < y else x > y


cdef bint overlap(Span *spans, Py_ssize_t n) noexcept nogil:
    """Whether an array that is written shares memory with another one."""
    cdef Py_ssize_t k
    cdef size_t end = 0, written_end = 0  # of the spans so far, and of those of them that are written
    qsort(spans, n, sizeof(Span), compare_spans)
    for k in range(n):
        if spans[k].begin < (end if spans[k].written else written_end):
            return True
        end = max(end, spans[k].end)
        if spans[k].written:
            written_end = max(written_end, spans[k].end)
    return False


cdef inline Py_ssize_t first_block(const Table *t, Py_ssize_t row, int thread, int threads) noexcept nogil:
    """The block of a row that a thread begins with.

    Each has its part of every row: those who made a gradient, and those who will read a parameter, share it out so too.
    Rows of one block go to the threads in turn.
    """
    return (block_count(t.size[row]) * thread + row % threads) // threads


cdef inline void *at(const Table *t, int column, Py_ssize_t row, Py_ssize_t i) noexcept nogil:
    """Element i of an array, NULL where the column is left out."""
    cdef char *data = <char *> t.data[column * t.count + row]
    return NULL if data == NULL else data + i * t.itemsize


cdef inline double sign_of(bint maximize) noexcept nogil:
    return -1.0 if maximize else 1.0


def sgd_step(
    params, grads, buffers, bint first, double lr, double momentum, double dampening, double weight_decay,
    bint nesterov, bint maximize, int num_threads,
):
    """One step of SGD; `buffers` is None without momentum."""
    cdef Rows rows = Rows(
        "sgd_step", ("params", "grads", "buffers"), (params, grads, buffers), (True, False, True)
    )
    cdef Table t = rows.t
    cdef bint has_buffers = buffers is not None
    cdef double sign = sign_of(maximize), fresh = 1 - dampening
    check_threads(num_threads, "sgd_step")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            if has_buffers:
                _sgd_momentum(
                    &t, <float> lr, <float> weight_decay, <float> sign, <float> momentum, <float> fresh, first,
                    nesterov, num_threads,
                )
            else:
                _sgd(&t, <float> lr, <float> weight_decay, <float> sign, num_threads)
        elif has_buffers:
            _sgd_momentum(&t, lr, weight_decay, sign, momentum, fresh, first, nesterov, num_threads)
        else:
            _sgd(&t, lr, weight_decay, sign, num_threads)
    return True


cdef void _sgd(const Table *t, real lr, real decay, real sign, int threads) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.sgd_f32(<float *> at(t, 0, r, i), <float *> at(t, 1, r, i), n, lr, decay, sign)
                else:
                    kernels.sgd_f64(<double *> at(t, 0, r, i), <double *> at(t, 1, r, i), n, lr, decay, sign)


cdef void _sgd_momentum(
    const Table *t, real lr, real decay, real sign, real momentum, real fresh, int first, int nesterov,
    int threads,
) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.sgd_momentum_f32(
                        <float *> at(t, 0, r, i), <float *> at(t, 1, r, i), <float *> at(t, 2, r, i), n,
                        lr, decay, sign, momentum, fresh, first, nesterov,
                    )
                else:
                    kernels.sgd_momentum_f64(
                        <double *> at(t, 0, r, i), <double *> at(t, 1, r, i), <double *> at(t, 2, r, i), n,
                        lr, decay, sign, momentum, fresh, first, nesterov,
                    )


def adagrad_step(
    params, grads, sums, double rate, double eps, double weight_decay, bint maximize, int num_threads
):
    """One step of Adagrad; `rate` is the learning rate after its decay."""
    cdef Rows rows = Rows(
        "adagrad_step", ("params", "grads", "sums"), (params, grads, sums), (True, False, True)
    )
    cdef Table t = rows.t
    cdef double sign = sign_of(maximize)
    check_threads(num_threads, "adagrad_step")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _adagrad(&t, <float> rate, <float> weight_decay, <float> sign, <float> eps, num_threads)
        else:
            _adagrad(&t, rate, weight_decay, sign, eps, num_threads)
    return True


cdef void _adagrad(const Table *t, real rate, real decay, real sign, real eps, int threads) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.adagrad_f32(
                        <float *> at(t, 0, r, i), <float *> at(t, 1, r, i), <float *> at(t, 2, r, i), n,
                        rate, decay, sign, eps,
                    )
                else:
                    kernels.adagrad_f64(
                        <double *> at(t, 0, r, i), <double *> at(t, 1, r, i), <double *> at(t, 2, r, i), n,
                        rate, decay, sign, eps,
                    )


def adadelta_step(
    params, grads, square_avgs, acc_deltas, double lr, double rho, double eps, double weight_decay,
    bint maximize, int num_threads,
):
    """One step of Adadelta."""
    cdef Rows rows = Rows(
        "adadelta_step", ("params", "grads", "square_avgs", "acc_deltas"),
        (params, grads, square_avgs, acc_deltas), (True, False, True, True),
    )
    cdef Table t = rows.t
    cdef double sign = sign_of(maximize), fresh = 1 - rho
    check_threads(num_threads, "adadelta_step")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _adadelta(
                &t, <float> lr, <float> weight_decay, <float> sign, <float> rho, <float> fresh, <float> eps,
                num_threads,
            )
        else:
            _adadelta(&t, lr, weight_decay, sign, rho, fresh, eps, num_threads)
    return True


cdef void _adadelta(
    const Table *t, real lr, real decay, real sign, real rho, real fresh, real eps, int threads
) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.adadelta_f32(
                        <float *> at(t, 0, r, i), <float *> at(t, 1, r, i), <float *> at(t, 2, r, i),
                        <float *> at(t, 3, r, i), n, lr, decay, sign, rho, fresh, eps,
                    )
                else:
                    kernels.adadelta_f64(
                        <double *> at(t, 0, r, i), <double *> at(t, 1, r, i), <double *> at(t, 2, r, i),
                        <double *> at(t, 3, r, i), n, lr, decay, sign, rho, fresh, eps,
                    )


def rmsprop_step(
    params, grads, square_avgs, grad_avgs, buffers, double lr, double alpha, double eps, double weight_decay,
    double momentum, bint maximize, int num_threads,
):
    """One step of RMSprop; `grad_avgs` is None unless centered, `buffers` without momentum."""
    cdef Rows rows = Rows(
        "rmsprop_step", ("params", "grads", "square_avgs", "grad_avgs", "buffers"),
        (params, grads, square_avgs, grad_avgs, buffers), (True, False, True, True, True),
    )
    cdef Table t = rows.t
    cdef double sign = sign_of(maximize), fresh = 1 - alpha
    check_threads(num_threads, "rmsprop_step")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _rmsprop(
                &t, <float> lr, <float> weight_decay, <float> sign, <float> alpha, <float> fresh, <float> eps,
                <float> momentum, num_threads,
            )
        else:
            _rmsprop(&t, lr, weight_decay, sign, alpha, fresh, eps, momentum, num_threads)
    return True


cdef void _rmsprop(
    const Table *t, real lr, real decay, real sign, real alpha, real fresh, real eps, real momentum, int threads
) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.rmsprop_f32(
                        <float *> at(t, 0, r, i), <float *> at(t, 1, r, i), <float *> at(t, 2, r, i),
                        <float *> at(t, 3, r, i), <float *> at(t, 4, r, i), n,
                        lr, decay, sign, alpha, fresh, eps, momentum,
                    )
                else:
                    kernels.rmsprop_f64(
                        <double *> at(t, 0, r, i), <double *> at(t, 1, r, i), <double *> at(t, 2, r, i),
                        <double *> at(t, 3, r, i), <double *> at(t, 4, r, i), n,
                        lr, decay, sign, alpha, fresh, eps, momentum,
                    )


def adam_step(
    params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, double rate, double root, double keep, double beta1,
    double beta2, double eps, double weight_decay, bint maximize, int num_threads,
):
    """One step of Adam or AdamW.

    rate, root:    the learning rate with the first bias correction, and the root of the second
    keep:          1, or with decoupled decay ``1 - lr decay`` (`weight_decay` is 0 then)
    """
    cdef Rows rows = Rows(
        "adam_step", ("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"),
        (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), (True, False, True, True, True),
    )
    cdef Table t = rows.t
    cdef double sign = sign_of(maximize), fresh1 = 1 - beta1, fresh2 = 1 - beta2
    check_threads(num_threads, "adam_step")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _adam(
                &t, <float> rate, <float> root, <float> weight_decay, <float> keep, <float> sign,
                <float> fresh1, <float> beta2, <float> fresh2, <float> eps, num_threads,
            )
        else:
            _adam(&t, rate, root, weight_decay, keep, sign, fresh1, beta2, fresh2, eps, num_threads)
    return True


cdef void _adam(
    const Table *t, real rate, real root, real decay, real keep, real sign, real fresh1, real beta2, real fresh2,
    real eps, int threads,
) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.adam_f32(
                        <float *> at(t, 0, r, i), <float *> at(t, 1, r, i), <float *> at(t, 2, r, i),
                        <float *> at(t, 3, r, i), <float *> at(t, 4, r, i), n,
                        rate, root, decay, keep, sign, fresh1, beta2, fresh2, eps,
                    )
                else:
                    kernels.adam_f64(
                        <double *> at(t, 0, r, i), <double *> at(t, 1, r, i), <double *> at(t, 2, r, i),
                        <double *> at(t, 3, r, i), <double *> at(t, 4, r, i), n,
                        rate, root, decay, keep, sign, fresh1, beta2, fresh2, eps,
                    )


def square_sum(arrays, int num_threads):
    """The sum of the squares of all elements, in double: one partial sum per block, added in order."""
    cdef Rows rows = Rows("square_sum", ("arrays",), (arrays,), (False,))
    cdef Table t = rows.t
    cdef double total = 0
    cdef Py_ssize_t b
    check_threads(num_threads, "square_sum")
    cdef double *parts = <double *> calloc(t.blocks + 1, sizeof(double))
    if parts == NULL:
        raise MemoryError
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _square_sum(&t, parts, <float> 0, num_threads)
        else:
            _square_sum(&t, parts, <double> 0, num_threads)
        for b in range(t.blocks):
            total += parts[b]
        free(parts)
    return total


cdef void _square_sum(const Table *t, double *parts, real zero, int threads) noexcept nogil:
    """`zero` only chooses the type."""
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    parts[t.start[r] + b] = kernels.square_sum_f32(<float *> at(t, 0, r, i), n)
                else:
                    parts[t.start[r] + b] = kernels.square_sum_f64(<double *> at(t, 0, r, i), n)


def scale(arrays, double factor, int num_threads):
    """Multiply every element of all arrays by `factor`."""
    cdef Rows rows = Rows("scale", ("arrays",), (arrays,), (True,))
    cdef Table t = rows.t
    check_threads(num_threads, "scale")
    if rows.overlapping:
        return False
    with nogil:
        if rows.kind == cnp.NPY_FLOAT:
            _scale(&t, <float> factor, num_threads)
        else:
            _scale(&t, factor, num_threads)
    return True


cdef void _scale(const Table *t, real factor, int threads) noexcept nogil:
    cdef const nnx_optim *kernels = <const nnx_optim *> table().optim
    cdef Py_ssize_t b, r, i, n
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        for r in range(t.count):
            for b in range(first_block(t, r, thread, threads), first_block(t, r, thread + 1, threads)):
                i = b * BLOCK
                n = block_size(t.size[r], b)
                if real is float:
                    kernels.scale_f32(<float *> at(t, 0, r, i), n, factor)
                else:
                    kernels.scale_f64(<double *> at(t, 0, r, i), n, factor)
