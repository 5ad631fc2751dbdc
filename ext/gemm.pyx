"""Matrix products: BLAS for small ones, the tile kernels of ext/simd/gemm.h for the rest.

BLAS (blas.pyx) is called only below the size at which OpenBLAS stays on one thread: its idle workers would spin
beside ours. Larger products are cut into fixed tiles, so that the bits do not depend on the number of threads.
"""

cimport numpy as cnp
from cython.parallel cimport prange

from libc.string cimport memset

from nnx._ext.blas cimport bind_blas, blas_product
from nnx._ext.common cimport (
    _shape, check_dim, check_ndim, check_threads, check_writeable, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.memory cimport empty_array, give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table
from nnx._ext.threads cimport num_threads as available_threads

cnp.import_array()

# The largest M * N * K for which OpenBLAS never starts its own threads (interface/gemm.c: 65536 * 4).
cdef enum:
    BLAS_LIMIT = 262144
    BLAS_TILE = 64      # 64 ** 3 == BLAS_LIMIT
    TILE_STEP = 12      # a multiple of the micro-kernel's 12 and 6 rows
    TILE_ROWS = 48      # a multiple of that
    TILE_COLUMNS = 128  # a multiple of every panel's width
    SHALLOW = 256       # up to this many products per sum tiles are wider: their part of B still stays in a cache
    ROWS_AT_ONCE = 256  # up to this many rows of A a task packs the columns of B that it multiplies
    PART = 448          # rows of B that it packs at a time: with TILE_COLUMNS they fill a quarter of a second cache
    TASKS = 8           # of them per thread, at least, where B has the columns
    FEW_ROWS = 4        # ext/simd/gemm_few.h: FEW
    DOTS = 64           # columns of a task there, where they are contiguous
    SUMS = 512          # and where rows are
    FEW_TILES = 32      # with fewer, smaller ones: a thread that is late then costs less
    WORK_PER_THREAD = 300000  # multiplications that are worth a thread of their own: some 5 us
    READ_PER_THREAD = 65536   # numbers that are worth a thread where each is used once

cdef enum:
    AUTO = 0
    BLAS = 1
    KERNEL = 2

# -- one product ------------------------------------------------------------------------------------

cdef struct Matrix:
    # a view of M x N numbers; strides in elements
    void *data
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t rs
    Py_ssize_t cs


cdef Matrix _transposed(Matrix a) noexcept nogil:
    cdef Matrix t
    t.data, t.rows, t.columns, t.rs, t.cs = a.data, a.columns, a.rows, a.cs, a.rs
    return t


cdef int _matrix(cnp.ndarray a, int kind, str argument, Matrix *result) except -1:
    """Fill `result` with a 2-D array of this type whose strides are whole elements, one of them 1."""
    check_ndim(a, 2, "gemm", argument)
    if real_type(a, "gemm", argument) != kind:
        raise TypeError(f"gemm: expected a, b, c of one dtype, got {argument} of {a.dtype}")
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef Py_ssize_t row = cnp.PyArray_STRIDE(a, 0), column = cnp.PyArray_STRIDE(a, 1)
    result.data = cnp.PyArray_DATA(a)
    result.rows = cnp.PyArray_DIM(a, 0)
    result.columns = cnp.PyArray_DIM(a, 1)
    # the stride of an axis of length 1 is never used: give it the value that makes the layout regular
    if result.rows <= 1:
        row = size if column != size else size * max(result.columns, 1)
    if result.columns <= 1:
        column = size if row != size else size * max(result.rows, 1)
    if row % size or column % size or (row != size and column != size):
        raise ValueError(
            f"gemm: expected {argument} to be contiguous along one axis, "
            f"got strides {(cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1))}"
        )
    result.rs = row // size
    result.cs = column // size
    return 0


cdef inline bint _fits_blas(Matrix *a) noexcept nogil:
    """Whether the strides are what BLAS calls a leading dimension."""
    if a.cs == 1:
        return a.rs >= a.columns and a.rs >= 1
    return a.cs >= a.rows and a.cs >= 1


cpdef product(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray c, cnp.ndarray bias, int num_threads, str method="auto", bint relu=False
):
    """c = a b + bias, for 2-D arrays of one float type, each contiguous along one of its axes.

    a (M, K), b (K, N), c (M, N), bias (N,) contiguous or None. c must not overlap a or b.
    relu: the positive part of that
    method: "auto", or "blas" or "kernel" to compare the two (benchmarks and tests).
    """
    cdef Matrix A, B, C
    cdef int kind = real_type(c, "gemm", "c")
    check_threads(num_threads, "gemm")
    check_writeable(c, "gemm", "c")
    _matrix(a, kind, "a", &A)
    _matrix(b, kind, "b", &B)
    _matrix(c, kind, "c", &C)
    if A.columns != B.rows or C.rows != A.rows or C.columns != B.columns:
        raise ValueError(
            f"gemm: expected shapes (M, K), (K, N) and (M, N), got ({A.rows}, {A.columns}), "
            f"({B.rows}, {B.columns}) and ({C.rows}, {C.columns})"
        )
    cdef void *bias_data = NULL
    if bias is not None:
        check_ndim(bias, 1, "gemm", "bias")
        if real_type(bias, "gemm", "bias") != kind or cnp.PyArray_DIM(bias, 0) != C.columns or (
            not cnp.PyArray_IS_C_CONTIGUOUS(bias)
        ):
            raise ValueError(
                f"gemm: expected a contiguous bias of {C.columns} numbers like c, got shape {_shape(bias)}"
            )
        bias_data = cnp.PyArray_DATA(bias)
    cdef int how = {"auto": AUTO, "blas": BLAS, "kernel": KERNEL}.get(method, -1) if method != "auto" else AUTO
    if how < 0:
        raise ValueError(f"gemm: expected method 'auto', 'blas' or 'kernel', got {method!r}")
    if C.rows == 0 or C.columns == 0:
        return
    if kind == cnp.NPY_FLOAT:
        _product[float](A, B, C, <float *> bias_data, NULL, relu, num_threads, how)
    else:
        _product[double](A, B, C, <double *> bias_data, NULL, relu, num_threads, how)


cdef bint _is_regular(cnp.ndarray a) noexcept:
    """Whether product() takes this matrix: whole strides, one of them a single number."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a), row = cnp.PyArray_STRIDE(a, 0), column = cnp.PyArray_STRIDE(a, 1)
    if cnp.PyArray_DIM(a, 0) <= 1 or cnp.PyArray_DIM(a, 1) <= 1:
        return cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_IS_F_CONTIGUOUS(a)
    return row % size == 0 and column % size == 0 and (row == size or column == size)


def try_multiply(object a, object b):
    """a b as a new array for two matrices of one float type whose shapes fit, of any strides; else None."""
    if not isinstance(a, cnp.ndarray) or not isinstance(b, cnp.ndarray):
        return None
    cdef cnp.ndarray x = a, y = b
    cdef int kind = cnp.PyArray_TYPE(x)
    if (kind != cnp.NPY_FLOAT and kind != cnp.NPY_DOUBLE) or cnp.PyArray_TYPE(y) != kind:
        return None
    if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_NDIM(y) != 2 or cnp.PyArray_DIM(x, 1) != cnp.PyArray_DIM(y, 0):
        return None
    if not cnp.PyArray_ISBEHAVED_RO(x) or not cnp.PyArray_ISBEHAVED_RO(y):
        return None
    return multiply(x, y, None)


cpdef multiply(cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias, bint relu=False):
    """a b + bias, or with `relu` its positive part, as a new array.

    For matrices of one float type and any strides; bias (N,) or None.
    """
    cdef cnp.npy_intp shape[2]
    cdef int kind = real_type(a, "gemm", "a"), threads = available_threads()
    check_ndim(a, 2, "gemm", "a")
    check_ndim(b, 2, "gemm", "b")
    if not _is_regular(a):
        a = cnp.PyArray_GETCONTIGUOUS(a)
    if not _is_regular(b):
        b = cnp.PyArray_GETCONTIGUOUS(b)
    if bias is not None:
        bias = cnp.PyArray_GETCONTIGUOUS(bias)
    shape[0] = cnp.PyArray_DIM(a, 0)
    shape[1] = cnp.PyArray_DIM(b, 1)
    cdef double work = <double> shape[0] * shape[1] * cnp.PyArray_DIM(a, 1), share = WORK_PER_THREAD
    if shape[0] <= FEW_ROWS or shape[1] <= FEW_ROWS:
        share = READ_PER_THREAD * min(shape[0], shape[1])  # reading the other operand takes the time
    if work < share * threads:
        threads = max(<int> (work / share), 1)
    cdef cnp.ndarray c = empty_array(2, shape, kind)
    product(a, b, c, bias, threads, "auto", relu)
    return c


cdef int _product(Matrix A, Matrix B, Matrix C, real *column_bias, real *row_bias, bint relu, int num_threads,
                  int method) except -1:
    cdef bint small = <double> A.rows * A.columns * B.columns <= BLAS_LIMIT
    cdef bint blas = _fits_blas(&A) and _fits_blas(&B) and _fits_blas(&C) and A.columns > 0
    if method == KERNEL or (method == AUTO and not small):
        blas = False  # beyond one BLAS call our kernels win at every level: see benchmarks/NOTES.md
    if method == AUTO and A.rows <= FEW_ROWS:
        if _few_rows[real](A, B, C, column_bias, row_bias, relu, num_threads):
            return 0
    if method == AUTO and B.columns <= FEW_ROWS:
        if _few_rows[real](_transposed(B), _transposed(A), _transposed(C), row_bias, column_bias, relu,
                           num_threads):
            return 0
    if blas:
        bind_blas()
        if C.cs != 1:
            A, B = _transposed(B), _transposed(A)
            C = _transposed(C)
            column_bias, row_bias = row_bias, column_bias
        _blas_tiles[real](A, B, C, column_bias, row_bias, relu, num_threads)
        return 0
    cdef Py_ssize_t panel = _panel[real](<real *> C.data)
    if _cost_of_packing(_transposed(B), _transposed(A), _transposed(C), panel) < _cost_of_packing(A, B, C, panel):
        A, B = _transposed(B), _transposed(A)
        C = _transposed(C)
        column_bias, row_bias = row_bias, column_bias
    cdef bint enough = num_threads == 1 or (C.columns + panel - 1) // panel >= 2 * num_threads
    if enough and A.cs == 1 and 0 < A.columns and C.rows <= ROWS_AT_ONCE and (C.cs == 1 or A.columns <= PART):
        return _kernel_columns[real](A, B, C, column_bias, row_bias, relu, num_threads)
    return _kernel_tiles[real](A, B, C, column_bias, row_bias, relu, num_threads)


cdef inline Py_ssize_t _panel(real *data) noexcept nogil:
    """The number of columns of this type that are packed side by side."""
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    return kernels.gemm_panel_f32() if real is float else kernels.gemm_panel_f64()


cdef double _cost_of_packing(Matrix A, Matrix B, Matrix C, Py_ssize_t panel) noexcept nogil:
    """What it costs to pack B rather than A, in units of a number that is copied (figures: NOTES.md)."""
    cdef double a = <double> A.rows * A.columns, b = <double> B.rows * B.columns, c = <double> C.rows * C.columns
    cdef double cost = b if B.cs == 1 else 2 * b
    if A.cs != 1:
        cost += a      # read by columns, A is copied too
    if C.cs != 1:
        cost += 16 * c  # and the result transposed
    if B.columns % (panel // 2):
        cost += 2 * a  # a last vector that is not full is computed all the same
    return cost


cdef inline void _positive_part(real *y, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """Zero for each of n numbers that is not positive; NaN stays."""
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t i
    if stride != 1:
        for i in range(n):
            if y[i * stride] <= 0:
                y[i * stride] = 0
    elif real is float:
        kernels.positive_part_f32(y, n)
    else:
        kernels.positive_part_f64(y, n)


cdef int _blas_tiles(Matrix A, Matrix B, Matrix C, real *column_bias, real *row_bias, bint relu,
                     int num_threads) except -1:
    """Tiles of at most BLAS_LIMIT, each summed over K in order. C is row-major."""
    cdef bint whole = <double> A.rows * A.columns * B.columns <= BLAS_LIMIT
    cdef Py_ssize_t tm = C.rows if whole else BLAS_TILE
    cdef Py_ssize_t tn = C.columns if whole else BLAS_TILE
    cdef Py_ssize_t tk = A.columns if whole else BLAS_TILE
    cdef Py_ssize_t across = (C.columns + tn - 1) // tn
    cdef Py_ssize_t tiles = (C.rows + tm - 1) // tm * across
    cdef Py_ssize_t t, m, n, k, i, j, rows, columns
    cdef bint biased = column_bias != NULL or row_bias != NULL
    cdef real *c = <real *> C.data
    if tiles == 1:
        num_threads = 1
    for t in prange(tiles, nogil=True, num_threads=num_threads, schedule="static"):
        m = t // across * tm
        n = t % across * tn
        rows = min(tm, C.rows - m)
        columns = min(tn, C.columns - n)
        if biased:
            for i in range(m, m + rows):
                for j in range(n, n + columns):
                    c[i * C.rs + j] = column_bias[j] if column_bias != NULL else row_bias[i]
        k = 0
        while k < A.columns:
            blas_product[real](rows, columns, min(tk, A.columns - k), <real *> A.data + m * A.rs + k * A.cs, A.rs, A.cs,
                               <real *> B.data + k * B.rs + n * B.cs, B.rs, B.cs, c + m * C.rs + n, C.rs,
                               biased or k > 0)
            k = k + tk
        if relu:
            for i in range(m, m + rows):
                _positive_part[real](c + i * C.rs + n, columns, 1)
    return 0


cdef int _kernel_tiles(Matrix A, Matrix B, Matrix C, real *column_bias, real *row_bias, bint relu,
                       int num_threads) except -1:
    """Pack B, then compute fixed tiles of C."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = _panel[real](<real *> C.data)
    cdef Py_ssize_t panels = (B.columns + panel - 1) // panel, K = A.columns
    cdef Py_ssize_t tm = TILE_ROWS, tn = TILE_COLUMNS
    if <double> C.rows * C.columns > 262144:
        tm, tn = 2 * tm, 2 * tn
    if <double> C.rows * C.columns > 2097152 and K > 1024:
        tm = 2 * tm  # a tile's part of B does not stay in the second cache: fewer tiles read it
    if K <= SHALLOW:
        tn = 2 * tn
    cdef Py_ssize_t across = (C.columns + tn - 1) // tn, down = (C.rows + tm - 1) // tm, tiles
    while across * down < FEW_TILES and tm > TILE_STEP:
        tm = tm // 2
        down = (C.rows + tm - 1) // tm
    if across * down < FEW_TILES:
        tn = tn // 2
        across = (C.columns + tn - 1) // tn
    tiles = down * across
    cdef Py_ssize_t t, m, n, p
    # Each thread keeps to a part of B's columns, which it has packed itself, where B is large beside the rest;
    # otherwise to rows of C, as most of those do that will read them.
    cdef bint wide = C.columns > C.rows and K > 2 * C.rows
    cdef real *packed = <real *> take_workspace(max(panels * panel * K, 1) * sizeof(real))
    with nogil:
        for p in prange(panels, num_threads=num_threads, schedule="static"):
            n = p * panel
            if real is float:
                kernels.pack_f32(K, min(panel, B.columns - n), <float *> B.data + n * B.cs, B.rs, B.cs,
                                 packed + n * K)
            else:
                kernels.pack_f64(K, min(panel, B.columns - n), <double *> B.data + n * B.cs, B.rs, B.cs,
                                 packed + n * K)
        share_out(&shares, tiles, num_threads)
        for thread in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
            t = next_of(&shares, thread)
            while t >= 0:
                m = (t % down if wide else t // across) * tm
                n = (t // down if wide else t % across) * tn
                if real is float:
                    kernels.gemm_f32(
                        min(tm, C.rows - m), min(tn, C.columns - n), K, <float *> A.data + m * A.rs, A.rs, A.cs,
                        packed + n * K, K, <float *> C.data + m * C.rs + n * C.cs, C.rs, C.cs, 0,
                        column_bias + n if column_bias != NULL else NULL, row_bias + m if row_bias != NULL else NULL,
                        relu)
                else:
                    kernels.gemm_f64(
                        min(tm, C.rows - m), min(tn, C.columns - n), K, <double *> A.data + m * A.rs, A.rs, A.cs,
                        packed + n * K, K, <double *> C.data + m * C.rs + n * C.cs, C.rs, C.cs, 0,
                        column_bias + n if column_bias != NULL else NULL, row_bias + m if row_bias != NULL else NULL,
                        relu)
                t = next_of(&shares, thread)
    give_workspace(packed)
    return 0


cdef int _kernel_columns(Matrix A, Matrix B, Matrix C, real *column_bias, real *row_bias, bint relu,
                         int num_threads) except -1:
    """For a C of few rows: every task packs the columns of B that it alone reads, a part at a time.

    So they come from memory once and never go back there.
    """
    cdef Shares shares
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = _panel[real](<real *> C.data)
    cdef Py_ssize_t K = A.columns, parts = (K + PART - 1) // PART, part = (K + parts - 1) // parts
    cdef Py_ssize_t tn = TILE_COLUMNS, t, n, k, rows, columns
    cdef int thread
    cdef real *packed
    cdef bint last
    part = (part + 15) // 16 * 16
    while tn > panel and (C.columns + tn - 1) // tn < TASKS * num_threads:
        tn = tn // 2
    cdef real *scratch = <real *> take_workspace(num_threads * part * tn * sizeof(real))
    share_out(&shares, (C.columns + tn - 1) // tn, num_threads)
    for thread in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        packed = scratch + thread * part * tn
        t = next_of(&shares, thread)
        while t >= 0:
            n = t * tn
            columns = min(tn, C.columns - n)
            k = 0
            while k < K:
                rows = min(part, K - k)
                last = k + rows == K
                if real is float:
                    kernels.pack_f32(rows, columns, <float *> B.data + k * B.rs + n * B.cs, B.rs, B.cs, packed)
                    kernels.gemm_f32(
                        C.rows, columns, rows, <float *> A.data + k * A.cs, A.rs, A.cs, packed, rows,
                        <float *> C.data + n * C.cs, C.rs, C.cs, k > 0,
                        column_bias + n if column_bias != NULL else NULL, row_bias, relu and last)
                else:
                    kernels.pack_f64(rows, columns, <double *> B.data + k * B.rs + n * B.cs, B.rs, B.cs, packed)
                    kernels.gemm_f64(
                        C.rows, columns, rows, <double *> A.data + k * A.cs, A.rs, A.cs, packed, rows,
                        <double *> C.data + n * C.cs, C.rs, C.cs, k > 0,
                        column_bias + n if column_bias != NULL else NULL, row_bias, relu and last)
                k = k + part
            t = next_of(&shares, thread)
    give_workspace(scratch)
    return 0


cdef bint _few_rows(Matrix A, Matrix B, Matrix C, real *column_bias, real *row_bias, bint relu,
                    int num_threads) except? 1:
    """C for at most FEW_ROWS rows of A, reading B once without packing; False where the layout does not allow it."""
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t K = A.columns, N = B.columns, block, blocks, t, m, n, k, count
    cdef bint dots = B.rs == 1
    cdef const real *a = <real *> A.data
    cdef real *rows = NULL
    cdef const real *b = <real *> B.data
    cdef const real *bias = row_bias if row_bias != NULL else column_bias
    cdef const real *part
    cdef Py_ssize_t bias_row = 1 if row_bias != NULL else 0, bias_column = 1 - bias_row
    cdef real *c = <real *> C.data
    if not dots and (B.cs != 1 or C.cs != 1):
        return False
    if dots and A.cs != 1:
        rows = <real *> take_workspace(max(A.rows * K, 1) * sizeof(real))
        for m in range(A.rows):
            for k in range(K):
                rows[m * K + k] = a[m * A.rs + k * A.cs]
        a, A.rs = rows, K
    block = DOTS if dots else SUMS
    blocks = (N + block - 1) // block
    if blocks == 1:
        num_threads = 1
    for t in prange(blocks, nogil=True, num_threads=num_threads, schedule="static"):
        n = t * block
        count = min(block, N - n)
        part = bias + n * bias_column if bias != NULL else NULL
        if dots:
            if real is float:
                kernels.few_dots_f32(A.rows, count, K, a, A.rs, b + n * B.cs, B.cs, part, bias_row, bias_column,
                                     c + n * C.cs, C.rs, C.cs)
            else:
                kernels.few_dots_f64(A.rows, count, K, a, A.rs, b + n * B.cs, B.cs, part, bias_row, bias_column,
                                     c + n * C.cs, C.rs, C.cs)
        else:
            if real is float:
                kernels.few_sums_f32(A.rows, count, K, a, A.rs, A.cs, b + n, B.rs, part, bias_row, bias_column,
                                     c + n, C.rs)
            else:
                kernels.few_sums_f64(A.rows, count, K, a, A.rs, A.cs, b + n, B.rs, part, bias_row, bias_column,
                                     c + n, C.rs)
        if relu:
            for m in range(A.rows):
                _positive_part[real](c + m * C.rs + n * C.cs, count, C.cs)
    give_workspace(rows)
    return True


# -- sums of columns ---------------------------------------------------------------------------------

cdef enum:
    SUM_ROWS = 256       # rows per partial sum, at least
    SUM_NUMBERS = 16384  # and so many numbers


def column_sums(cnp.ndarray a, cnp.ndarray out, int num_threads):
    """out[c] = sum of a[:, c]; a (R, C) C-contiguous, out (C,). Partial sums of fixed blocks are added in order."""
    cdef int kind = real_type(a, "column_sums", "a")
    check_threads(num_threads, "column_sums")
    check_ndim(a, 2, "column_sums", "a")
    cdef void *x = input_pointer(a, kind, cnp.PyArray_SIZE(a), "column_sums", "a")
    cdef void *y = output_pointer(out, kind, cnp.PyArray_DIM(a, 1), "column_sums", "out")
    if kind == cnp.NPY_FLOAT:
        _column_sums[float](<float *> x, cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), <float *> y, num_threads)
    else:
        _column_sums[double](<double *> x, cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), <double *> y, num_threads)


cdef int _column_sums(const real *a, Py_ssize_t rows, Py_ssize_t columns, real *out, int num_threads) except -1:
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t height = max(SUM_ROWS, SUM_NUMBERS // max(columns, 1)), b, c
    cdef Py_ssize_t blocks = (rows + height - 1) // height if columns > 0 else 0
    cdef real *partial = <real *> take_workspace(max(blocks * columns, 1) * sizeof(real))
    with nogil:
        for b in prange(blocks, num_threads=num_threads, schedule="static"):
            memset(partial + b * columns, 0, columns * sizeof(real))
            if real is float:
                kernels.column_sums_f32(min(height, rows - b * height), columns, a + b * height * columns,
                                        partial + b * columns)
            else:
                kernels.column_sums_f64(min(height, rows - b * height), columns, a + b * height * columns,
                                        partial + b * columns)
        for c in range(columns):
            out[c] = 0
        for b in range(blocks):
            for c in range(columns):
                out[c] = out[c] + partial[b * columns + c]
    give_workspace(partial)
    return 0


# -- transposition -----------------------------------------------------------------------------------

cdef enum:
    SLAB = 256  # rows of the result per task


def transpose(cnp.ndarray a, cnp.ndarray out, int num_threads):
    """out[n, q, p] = a[n, p, q] for C-contiguous arrays: from channels-first images to channels-last ones, or back."""
    cdef int kind = real_type(a, "transpose", "a")
    check_threads(num_threads, "transpose")
    check_ndim(a, 3, "transpose", "a")
    check_ndim(out, 3, "transpose", "out")
    cdef Py_ssize_t N = cnp.PyArray_DIM(a, 0), P = cnp.PyArray_DIM(a, 1), Q = cnp.PyArray_DIM(a, 2)
    check_dim(out, 0, N, "transpose", "out")
    check_dim(out, 1, Q, "transpose", "out")
    check_dim(out, 2, P, "transpose", "out")
    cdef void *x = input_pointer(a, kind, N * P * Q, "transpose", "a")
    cdef void *y = output_pointer(out, kind, N * P * Q, "transpose", "out")
    if kind == cnp.NPY_FLOAT:
        _transpose[float](<float *> x, <float *> y, N, P, Q, num_threads)
    else:
        _transpose[double](<double *> x, <double *> y, N, P, Q, num_threads)


cdef void _transpose(const real *x, real *y, Py_ssize_t N, Py_ssize_t P, Py_ssize_t Q, int num_threads) noexcept:
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t slabs = (Q + SLAB - 1) // SLAB, t, n, q
    for t in prange(N * slabs, nogil=True, num_threads=num_threads, schedule="static"):
        n = t // slabs
        q = t % slabs * SLAB
        if real is float:
            kernels.transpose_f32(min(SLAB, Q - q), P, x + n * P * Q + q, Q, y + n * P * Q + q * P, P)
        else:
            kernels.transpose_f64(min(SLAB, Q - q), P, x + n * P * Q + q, Q, y + n * P * Q + q * P, P)
