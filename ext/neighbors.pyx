"""The k nearest rows of one matrix for each row of another: distances in tiles, of which only the k smallest are kept.

Pairs are ordered by distance and, where it is equal, by number. The k first of all pairs do not depend on how the work
is cut, and a distance does not depend on the tile in which it is computed, so the result has the same bits for any
number of threads and any batch.

Squared distances of many queries come from matrix products: |q - p|^2 = |q|^2 + |p|^2 - 2 q p, after both were shifted
by a common center. The rounding errors of this form are bounded, and a pair is measured directly unless the bound rules
it out: what is returned are directly computed distances of the true winners. Bytes are measured directly, in integers,
which takes no longer.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t, uint8_t

from nnx._ext.common cimport (
    check_dim, check_ndim, check_threads, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.simd cimport nnx_table, table

cnp.import_array()

cdef extern from "table.h" nogil:
    struct nnx_neighbors:
        void (*absolute_f32)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const float *, const float *, float *,
                             Py_ssize_t) noexcept nogil
        void (*absolute_f64)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const double *, const double *, double *,
                             Py_ssize_t) noexcept nogil
        void (*squared_f32)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const float *, const float *, float *,
                            Py_ssize_t) noexcept nogil
        void (*squared_f64)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const double *, const double *, double *,
                            Py_ssize_t) noexcept nogil
        void (*absolute_bytes_f32)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const uint8_t *, const uint8_t *, double *,
                                   Py_ssize_t) noexcept nogil
        void (*squared_bytes_f32)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const uint8_t *, const uint8_t *, double *,
                                  Py_ssize_t) noexcept nogil
        double (*shift_f32)(Py_ssize_t, const float *, const float *, float *) noexcept nogil
        double (*shift_f64)(Py_ssize_t, const double *, const double *, double *) noexcept nogil
        void (*offer_f32)(Py_ssize_t, const float *, int64_t, Py_ssize_t, float *, int64_t *) noexcept nogil
        void (*offer_f64)(Py_ssize_t, const double *, int64_t, Py_ssize_t, double *, int64_t *) noexcept nogil
        void (*refine_f32)(Py_ssize_t, const float *, const float *, float, Py_ssize_t, const float *, const float *,
                           int64_t, Py_ssize_t, float *, int64_t *) noexcept nogil
        void (*refine_f64)(Py_ssize_t, const double *, const double *, double, Py_ssize_t, const double *,
                           const double *, int64_t, Py_ssize_t, double *, int64_t *) noexcept nogil

cdef enum:
    QUERIES = 64           # rows of a tile of queries
    POINTS = 32            # rows of a tile of points: with those of the queries they stay in the second-level cache
    TASKS = 32             # at least, if there are points enough
    SLOT = 1024            # points that are worth a task of their own
    MANY = 16              # queries from which packing the points pays
    COLUMNS = 128          # points of a product: a multiple of every panel's width
    WIDEST = 65536         # numbers of a row: one product's tile should not take much memory
    BLOCK_BYTES = 8388608  # of shifted points, and four times this of shifted queries, at a time
    LONGEST = 1 << 30      # bytes of a row, whose squared differences are summed exactly in float64


cdef struct Search:
    # x (queries, K) against y (points, K); `lists` are slots x queries x k
    const void *x
    const void *y
    bint bytes
    bint manhattan
    Py_ssize_t queries
    Py_ssize_t points
    Py_ssize_t K
    Py_ssize_t k
    Py_ssize_t slots
    void *best
    int64_t *number


def nearest(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray distances, cnp.ndarray index, int p, cnp.ndarray center, int num_threads
):
    """index[i] = the numbers of the k rows of y that are nearest to row i of x, nearest first, equal ones by number.

    x (Q, K), y (N, K): both uint8, float32 or float64; distances, index (Q, k) with 1 <= k <= N. p = 1: sums of
    absolute values; p = 2: *squared* Euclidean distances. Those of bytes are exact, in float64; others have the type of
    x. center: (K,) of the type of distances, near the middle of y, for matrix products; None computes p = 2 directly,
    as do bytes. A distance that is not a number counts as infinite. All arrays are C-contiguous; index is int64.
    """
    cdef str owner = "nearest"
    cdef int kind = real_type(distances, owner, "distances")
    cdef Search s
    check_ndim(x, 2, owner, "x")
    check_ndim(y, 2, owner, "y")
    check_ndim(distances, 2, owner, "distances")
    check_ndim(index, 2, owner, "index")
    check_threads(num_threads, owner)
    s.bytes = cnp.PyArray_TYPE(x) == cnp.NPY_UINT8
    s.queries, s.K = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    s.points, s.k = cnp.PyArray_DIM(y, 0), cnp.PyArray_DIM(distances, 1)
    check_dim(y, 1, s.K, owner, "y")
    check_dim(distances, 0, s.queries, owner, "distances")
    check_dim(index, 0, s.queries, owner, "index")
    check_dim(index, 1, s.k, owner, "index")
    if p != 1 and p != 2:
        raise ValueError(f"{owner}: expected p to be 1 or 2, got {p}")
    if not 1 <= s.k <= s.points:
        raise ValueError(f"{owner}: expected 1 to {s.points} neighbours, the rows of y, got {s.k}")
    s.manhattan = p == 1
    if s.bytes and (kind != cnp.NPY_DOUBLE or s.K > LONGEST):
        raise ValueError(
            f"{owner}: expected distances of float64 and at most {LONGEST} bytes in a row, "
            f"got {distances.dtype} and {s.K} bytes"
        )
    s.x = input_pointer(x, cnp.NPY_UINT8 if s.bytes else kind, s.queries * s.K, owner, "x")
    s.y = input_pointer(y, cnp.NPY_UINT8 if s.bytes else kind, s.points * s.K, owner, "y")
    cdef void *d = output_pointer(distances, kind, s.queries * s.k, owner, "distances")
    cdef int64_t *numbers = <int64_t *> output_pointer(index, cnp.NPY_INT64, s.queries * s.k, owner, "index")
    cdef void *middle = NULL
    if center is not None:
        check_ndim(center, 1, owner, "center")
        middle = input_pointer(center, kind, s.K, owner, "center")
    if s.queries == 0:
        return
    # Few queries are cut along the points, into slots with lists of their own: by the shapes alone.
    cdef Py_ssize_t tiles = (s.queries + QUERIES - 1) // QUERIES
    s.slots = max(min((TASKS + tiles - 1) // tiles, s.points // max(SLOT, 4 * s.k)), 1)
    cdef Py_ssize_t entries = s.slots * s.queries * s.k
    cdef bint products = p == 2 and middle != NULL and not s.bytes and s.queries >= MANY and 0 < s.K <= WIDEST
    s.best = take_workspace(entries * cnp.PyArray_ITEMSIZE(distances))
    try:
        s.number = <int64_t *> take_workspace(entries * sizeof(int64_t))
        try:
            if kind == cnp.NPY_FLOAT:
                _search[float](&s, <float *> d, numbers, middle if products else NULL, num_threads)
            else:
                _search[double](&s, <double *> d, numbers, middle if products else NULL, num_threads)
        finally:
            give_workspace(s.number)
    finally:
        give_workspace(s.best)


cdef int _search(Search *s, real *distances, int64_t *index, const void *center, int threads) except -1:
    cdef real *best = <real *> s.best
    cdef Py_ssize_t i, entries = s.slots * s.queries * s.k
    with nogil:
        for i in range(entries):
            best[i] = INFINITY
            s.number[i] = INT64_MAX  # behind every point, however far
    if center == NULL:
        _directly[real](s, best, threads)
    else:
        _by_products[real](s, best, <const real *> center, threads)
    with nogil:
        for i in prange(s.queries, num_threads=threads, schedule="static"):
            _merge[real](s, i, distances + i * s.k, index + i * s.k)
    return 0


cdef void _merge(Search *s, Py_ssize_t q, real *distances, int64_t *index) noexcept nogil:
    """The k first of the lists of all slots, whose heads are compared."""
    cdef const real *best = <const real *> s.best
    cdef Py_ssize_t taken[TASKS]
    cdef Py_ssize_t place, slot, entry, chosen, first
    for slot in range(s.slots):
        taken[slot] = 0
    for place in range(s.k):
        chosen = 0
        first = q * s.k + taken[0]
        for slot in range(1, s.slots):
            entry = (slot * s.queries + q) * s.k + taken[slot]
            if best[entry] < best[first] or (best[entry] == best[first] and s.number[entry] < s.number[first]):
                chosen = slot
                first = entry
        distances[place] = best[first]
        index[place] = s.number[first]
        taken[chosen] += 1


cdef inline Py_ssize_t _slot_begin(const Search *s, Py_ssize_t slot) noexcept nogil:
    return s.points * slot // s.slots


# -- distances computed directly ---------------------------------------------------------------------

cdef int _directly(Search *s, real *best, int threads) except -1:
    cdef Py_ssize_t tiles = (s.queries + QUERIES - 1) // QUERIES, t
    with nogil:
        for t in prange(tiles * s.slots, num_threads=threads, schedule="dynamic"):
            _direct_task[real](s, best, t // s.slots * QUERIES, t % s.slots)
    return 0


cdef void _direct_task(const Search *s, real *best, Py_ssize_t first, Py_ssize_t slot) noexcept nogil:
    """One tile of queries against the points of one slot."""
    cdef const nnx_neighbors *kernels = <const nnx_neighbors *> table().neighbors
    cdef real tile[QUERIES * POINTS]
    cdef Py_ssize_t rows = min(QUERIES, s.queries - first), width = 1 if s.bytes else sizeof(best[0])
    cdef Py_ssize_t point = _slot_begin(s, slot), end = _slot_begin(s, slot + 1), columns, i, entry
    cdef const char *x = <const char *> s.x + first * s.K * width
    cdef const char *y
    while point < end:
        columns = min(POINTS, end - point)
        y = <const char *> s.y + point * s.K * width
        if real is float:
            if s.manhattan:
                kernels.absolute_f32(rows, columns, s.K, <const float *> x, <const float *> y, tile, POINTS)
            else:
                kernels.squared_f32(rows, columns, s.K, <const float *> x, <const float *> y, tile, POINTS)
        elif s.bytes:
            if s.manhattan:
                kernels.absolute_bytes_f32(rows, columns, s.K, <const uint8_t *> x, <const uint8_t *> y, tile, POINTS)
            else:
                kernels.squared_bytes_f32(rows, columns, s.K, <const uint8_t *> x, <const uint8_t *> y, tile, POINTS)
        elif s.manhattan:
            kernels.absolute_f64(rows, columns, s.K, <const double *> x, <const double *> y, tile, POINTS)
        else:
            kernels.squared_f64(rows, columns, s.K, <const double *> x, <const double *> y, tile, POINTS)
        for i in range(rows):
            entry = (slot * s.queries + first + i) * s.k
            if real is float:
                kernels.offer_f32(columns, tile + i * POINTS, point, s.k, best + entry, s.number + entry)
            else:
                kernels.offer_f64(columns, tile + i * POINTS, point, s.k, best + entry, s.number + entry)
        point = point + columns


# -- distances by matrix products --------------------------------------------------------------------

cdef int _by_products(Search *s, real *best, const real *center, int threads) except -1:
    """Blocks of shifted queries against blocks of shifted and packed points; memory is bounded by the blocks."""
    cdef const nnx_gemm *gemm = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = gemm.gemm_panel_f32() if real is float else gemm.gemm_panel_f64()
    cdef Py_ssize_t fit = max(<Py_ssize_t> (BLOCK_BYTES // (s.K * <Py_ssize_t> sizeof(real))), 1)
    # a block of points is cut into the slots, each a whole number of products
    cdef Py_ssize_t wide = min(max(fit // COLUMNS, 1), 64) * COLUMNS
    cdef Py_ssize_t tall = min(max(4 * fit // QUERIES, 1), 64) * QUERIES
    cdef Py_ssize_t q, n, i, rows, columns, panels, chunks, tiles, t
    wide, tall = min(wide, (s.points + COLUMNS - 1) // COLUMNS * COLUMNS), min(tall, s.queries)
    cdef size_t size = (tall + 2 * wide) * s.K + tall + wide
    cdef real *queries = <real *> take_workspace(size * sizeof(real))
    cdef real *points = queries + tall * s.K
    cdef real *packed = points + wide * s.K
    cdef real *half = packed + wide * s.K
    cdef real *halves = half + tall
    # Rounding errors of (|q|^2 + |p|^2) / 2 - q p, relative to its first term: K additions in the product, K in each
    # length, 2 K in half of the directly computed distance, which is at most twice that term, and a few single steps.
    cdef double keep = 1 - (4.0 * s.K + 64) * (6e-8 if real is float else 1.2e-16)
    with nogil:
        q = 0
        while q < s.queries:
            rows = min(tall, s.queries - q)
            for i in prange(rows, num_threads=threads, schedule="static"):
                half[i] = _half[real](<const real *> s.x, q + i, s.K, center, queries + i * s.K, keep)
            n = 0
            while n < s.points:
                columns = min(wide, s.points - n)
                for i in prange(columns, num_threads=threads, schedule="static"):
                    halves[i] = _half[real](<const real *> s.y, n + i, s.K, center, points + i * s.K, keep)
                panels = (columns + panel - 1) // panel
                for i in prange(panels, num_threads=threads, schedule="static"):
                    if real is float:
                        gemm.pack_f32(s.K, min(panel, columns - i * panel), points + i * panel * s.K, 1, s.K,
                                      packed + i * panel * s.K)
                    else:
                        gemm.pack_f64(s.K, min(panel, columns - i * panel), points + i * panel * s.K, 1, s.K,
                                      packed + i * panel * s.K)
                chunks = min(s.slots, (columns + COLUMNS - 1) // COLUMNS)
                tiles = (rows + QUERIES - 1) // QUERIES
                for t in prange(tiles * chunks, num_threads=threads, schedule="dynamic"):
                    _product_task[real](s, best, queries, packed, half, halves, q, t // chunks * QUERIES, rows, n,
                                        columns, t % chunks, chunks)
                n = n + columns
            q = q + rows
    give_workspace(queries)
    return 0


cdef inline real _half(
    const real *rows, Py_ssize_t row, Py_ssize_t K, const real *center, real *shifted, double keep
) noexcept nogil:
    """Write a shifted row; half of its squared length, made smaller by what rounding may have added."""
    cdef const nnx_neighbors *kernels = <const nnx_neighbors *> table().neighbors
    if real is float:
        return <float> (0.5 * keep * kernels.shift_f32(K, rows + row * K, center, shifted))
    else:
        return 0.5 * keep * kernels.shift_f64(K, rows + row * K, center, shifted)


cdef void _product_task(
    const Search *s, real *best, const real *queries, const real *packed, const real *half, const real *halves,
    Py_ssize_t q, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t columns, Py_ssize_t chunk,
    Py_ssize_t chunks
) noexcept nogil:
    """One tile of the block of queries that begins at q, against one chunk of the block of points that begins at n."""
    cdef const nnx_table *level = table()
    cdef const nnx_gemm *gemm = <const nnx_gemm *> level.gemm
    cdef const nnx_neighbors *kernels = <const nnx_neighbors *> level.neighbors
    cdef real dots[QUERIES * COLUMNS]
    cdef Py_ssize_t products = (columns + COLUMNS - 1) // COLUMNS
    cdef Py_ssize_t point = products * chunk // chunks * COLUMNS
    cdef Py_ssize_t end = min(products * (chunk + 1) // chunks * COLUMNS, columns)
    cdef Py_ssize_t count = min(QUERIES, rows - first), part, i, entry
    cdef const real *x
    cdef const real *y
    while point < end:
        part = min(COLUMNS, end - point)
        if real is float:
            gemm.gemm_f32(count, part, s.K, queries + first * s.K, s.K, 1, packed + point * s.K, s.K, dots, COLUMNS, 1,
                          0, NULL, NULL, 0)
        else:
            gemm.gemm_f64(count, part, s.K, queries + first * s.K, s.K, 1, packed + point * s.K, s.K, dots, COLUMNS, 1,
                          0, NULL, NULL, 0)
        y = <const real *> s.y + (n + point) * s.K
        for i in range(count):
            entry = (chunk * s.queries + q + first + i) * s.k
            x = <const real *> s.x + (q + first + i) * s.K
            if real is float:
                kernels.refine_f32(part, dots + i * COLUMNS, halves + point, half[first + i], s.K, x, y, n + point, s.k,
                                   best + entry, s.number + entry)
            else:
                kernels.refine_f64(part, dots + i * COLUMNS, halves + point, half[first + i], s.K, x, y, n + point, s.k,
                                   best + entry, s.number + entry)
        point = point + part
