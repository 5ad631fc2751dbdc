"""Normalisation per channel and per row.

Arrays are C-contiguous; an image comes as (N, spatial..., C), so that it is a matrix with a column for each channel.
It is cut into tiles of a fixed size, whose sums are added up in a fixed order: the bits do not depend on the number of
threads.
"""

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport numpy as cnp
from cython.parallel cimport prange

from nnx._ext.common cimport (
    _shape, check_ndim, check_threads, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()


cdef inline void add_up(const double *part, Py_ssize_t parts, Py_ssize_t n, double *total) noexcept nogil:
    """total[c] = part[0][c] + part[1][c] + ..., in this order."""
    cdef Py_ssize_t i, c
    for c in range(n):
        total[c] = 0
    for i in range(parts):
        for c in range(n):
            total[c] += part[i * n + c]


cdef inline void *data(cnp.ndarray a, int kind, Py_ssize_t n, str kernel, str argument) except? NULL:
    """The pointer of an argument that may be None."""
    return NULL if a is None else input_pointer(a, kind, n, kernel, argument)


cdef inline void *result(cnp.ndarray a, int kind, Py_ssize_t n, str kernel, str argument) except? NULL:
    return NULL if a is None else output_pointer(a, kind, n, kernel, argument)


# -- per channel -----------------------------------------------------------------------------------

cdef inline real root_of(real var, real eps) noexcept nogil:
    return <real> (1.0 / sqrt(<real> (var + eps)))


def moments(cnp.ndarray x, cnp.ndarray mean, cnp.ndarray var, int num_threads, cnp.ndarray rstd=None, double eps=0):
    """Mean and biased variance of each column of x (..., C), and rstd = 1 / sqrt(var + eps) where it is given."""
    cdef int kind = real_type(x, "moments", "x")
    cdef Py_ssize_t columns = columns_of(x, "moments"), size = cnp.PyArray_SIZE(x)
    cdef void *source = input_pointer(x, kind, size, "moments", "x")
    cdef void *means = output_pointer(mean, kind, columns, "moments", "mean")
    cdef void *variances = output_pointer(var, kind, columns, "moments", "var")
    cdef void *roots = result(rstd, kind, columns, "moments", "rstd")
    cdef Tiles t = tiles_of(size // columns, columns)
    cdef bint done
    check_threads(num_threads, "moments")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            done = _moments(
                <const float *> source, &t, <float *> means, <float *> variances, <float *> roots, <float> eps,
                num_threads)
        else:
            done = _moments(
                <const double *> source, &t, <double *> means, <double *> variances, <double *> roots, eps,
                num_threads)
    if not done:
        raise MemoryError("moments: no memory for the sums")


cdef bint _moments(
    const real *x, const Tiles *t, real *mean, real *var, real *rstd, real eps, int threads
) noexcept nogil:
    cdef Shares shares
    cdef int thread
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t n = t.columns, down = t.down, tile
    cdef Place p
    cdef double *part = <double *> malloc((2 * down + 2) * n * sizeof(double))
    if part == NULL:
        return False
    cdef double *sums = part
    cdef double *squares = part + down * n
    cdef double *total = part + 2 * down * n
    share_out(&shares, down * t.across, threads)
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        tile = next_of(&shares, thread)
        while tile >= 0:
            p = place_of(t, tile)
            if real is float:
                kernels.moments_f32(x + p.at, p.height, p.width, n, sums + p.sums, squares + p.sums)
            else:
                kernels.moments_f64(x + p.at, p.height, p.width, n, sums + p.sums, squares + p.sums)
            tile = next_of(&shares, thread)
    _merge(sums, squares, down, n, t.height, t.rows, total, mean, var, rstd, eps)
    free(part)
    return True


cdef void _merge(const double *sums, double *squares, Py_ssize_t parts, Py_ssize_t n, Py_ssize_t height,
                 Py_ssize_t rows, double *scratch, real *mean, real *var, real *rstd, real eps) noexcept nogil:
    """Mean and variance of n columns from the sums of parts of `height` rows, the last of which may have fewer, and the
    squares around their own means, which are lost; scratch for 2 n numbers."""
    cdef double *spread = scratch + n
    cdef double count, middle
    cdef Py_ssize_t i, c
    add_up(sums, parts, n, scratch)
    # sum (x - mean)^2 over all parts = sum of (each part's own + count (its mean - mean)^2)
    for i in range(parts):
        count = min(height, rows - i * height)
        for c in range(n):
            middle = sums[i * n + c] / count - scratch[c] / rows
            squares[i * n + c] += count * middle * middle
    add_up(squares, parts, n, spread)
    for c in range(n):
        mean[c] = <real> (scratch[c] / rows)
        var[c] = <real> (spread[c] / rows)
        if rstd != NULL:
            rstd[c] = root_of(var[c], eps)


def moments_of_sums(cnp.ndarray sums not None, Py_ssize_t height, Py_ssize_t rows, cnp.ndarray mean, cnp.ndarray var,
                    cnp.ndarray rstd, double eps):
    """`moments` of `rows` rows, and rstd, from the `sums` of winograd_images.forward: float64 (2, P, C), each of the P
    parts over `height` rows but for the last one. mean, var and rstd are float32."""
    if sums.ndim != 3 or sums.shape[0] != 2 or height < 1 or rows < 1 or (rows - 1) // height + 1 != sums.shape[1]:
        raise ValueError(
            f"moments_of_sums: expected sums (2, P, C) for parts of {height} out of {rows} rows, got {_shape(sums)}")
    cdef Py_ssize_t parts = sums.shape[1], columns = sums.shape[2]
    cdef const double *all_sums = <const double *> input_pointer(
        sums, cnp.NPY_DOUBLE, 2 * parts * columns, "moments_of_sums", "sums")
    cdef float *means = <float *> output_pointer(mean, cnp.NPY_FLOAT, columns, "moments_of_sums", "mean")
    cdef float *variances = <float *> output_pointer(var, cnp.NPY_FLOAT, columns, "moments_of_sums", "var")
    cdef float *roots = <float *> output_pointer(rstd, cnp.NPY_FLOAT, columns, "moments_of_sums", "rstd")
    cdef double *scratch = <double *> malloc(((parts + 2) * columns + 1) * sizeof(double))
    if scratch == NULL:
        raise MemoryError("moments_of_sums: no memory for the sums")
    memcpy(scratch + 2 * columns, all_sums + parts * columns, parts * columns * sizeof(double))
    _merge(all_sums, scratch + 2 * columns, parts, columns, height, rows, scratch, means, variances, roots, <float> eps)
    free(scratch)


def track(
    cnp.ndarray running_mean, cnp.ndarray running_var, cnp.ndarray mean, cnp.ndarray var, double momentum,
    double correction,
):
    """Move running averages by the share `momentum` towards mean and var * correction; both or either may be None."""
    cdef int kind = real_type(mean, "track", "mean")
    cdef Py_ssize_t columns = cnp.PyArray_SIZE(mean)
    cdef void *means = input_pointer(mean, kind, columns, "track", "mean")
    cdef void *variances = input_pointer(var, kind, columns, "track", "var")
    cdef void *moved_mean = result(running_mean, kind, columns, "track", "running_mean")
    cdef void *moved_var = result(running_var, kind, columns, "track", "running_var")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _track(<float *> moved_mean, <const float *> means, columns, 1 - momentum, momentum, 1)
            _track(<float *> moved_var, <const float *> variances, columns, 1 - momentum, momentum, correction)
        else:
            _track(<double *> moved_mean, <const double *> means, columns, 1 - momentum, momentum, 1)
            _track(<double *> moved_var, <const double *> variances, columns, 1 - momentum, momentum, correction)


cdef void _track(
    real *running, const real *value, Py_ssize_t columns, double keep, double share, double correction
) noexcept nogil:
    """running = keep running + share (correction value), each product rounded, as NumPy does it."""
    cdef Py_ssize_t c
    cdef real kept, moved
    if running == NULL:
        return
    for c in range(columns):
        kept = running[c] * <real> keep
        moved = value[c] * <real> correction
        running[c] = kept + moved * <real> share


def normalize(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, cnp.ndarray weight, cnp.ndarray bias,
    cnp.ndarray rstd, double eps, bint relu, int num_threads, cnp.ndarray added=None,
):
    """rstd = 1 / sqrt(var + eps); y = (x - mean) rstd weight + bias + added, or with `relu` its positive part.

    weight, bias and added may be None; x, y and added are (..., C). `added` needs a bias.
    """
    cdef int kind = real_type(x, "normalize", "x")
    cdef Py_ssize_t columns = columns_of(x, "normalize"), size = cnp.PyArray_SIZE(x)
    cdef void *source = input_pointer(x, kind, size, "normalize", "x")
    cdef void *target = output_pointer(y, kind, size, "normalize", "y")
    cdef void *means = input_pointer(mean, kind, columns, "normalize", "mean")
    cdef void *variances = input_pointer(var, kind, columns, "normalize", "var")
    cdef void *weights = data(weight, kind, columns, "normalize", "weight")
    cdef void *shifts = data(bias, kind, columns, "normalize", "bias")
    cdef void *others = data(added, kind, size, "normalize", "added")
    cdef void *roots = output_pointer(rstd, kind, columns, "normalize", "rstd")
    cdef Tiles t = tiles_of(size // columns, columns)
    cdef bint done
    check_threads(num_threads, "normalize")
    if added is not None and bias is None:
        raise ValueError("normalize: expected added only with a bias, got it without")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            done = _normalize(
                <const float *> source, <const float *> others, <float *> target, &t, <const float *> means,
                <const float *> variances, <const float *> weights, <const float *> shifts, <float *> roots,
                <float> eps, relu, num_threads)
        else:
            done = _normalize(
                <const double *> source, <const double *> others, <double *> target, &t, <const double *> means,
                <const double *> variances, <const double *> weights, <const double *> shifts, <double *> roots,
                eps, relu, num_threads)
    if not done:
        raise MemoryError("normalize: no memory for the scales")


cdef bint _normalize(
    const real *x, const real *added, real *y, const Tiles *t, const real *mean, const real *var, const real *weight,
    const real *bias, real *rstd, real eps, bint relu, int threads
) noexcept nogil:
    cdef Py_ssize_t n = t.columns, c
    cdef real *scale = <real *> malloc(n * sizeof(real))
    if scale == NULL:
        return False
    for c in range(n):
        rstd[c] = root_of(var[c], eps)
        scale[c] = rstd[c] * weight[c] if weight != NULL else rstd[c]
    _apply(x, added, y, t, mean, scale, bias, relu, threads)
    free(scale)
    return True


cdef void _apply(
    const real *x, const real *added, real *y, const Tiles *t, const real *mean, const real *scale, const real *bias,
    bint relu, int threads
) noexcept nogil:
    """y = (x - mean) scale + bias + added, or its positive part; bias and added may be NULL."""
    cdef Shares shares
    cdef int thread
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t n = t.columns, tile
    cdef Place p
    share_out(&shares, t.down * t.across, threads)
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        tile = next_of(&shares, thread)
        while tile >= 0:
            p = place_of(t, tile)
            if real is float:
                kernels.normalize_f32(
                    x + p.at, added + p.at if added != NULL else NULL, y + p.at, p.height, p.width, n,
                    mean + p.column, scale + p.column, bias + p.column if bias != NULL else NULL, relu)
            else:
                kernels.normalize_f64(
                    x + p.at, added + p.at if added != NULL else NULL, y + p.at, p.height, p.width, n,
                    mean + p.column, scale + p.column, bias + p.column if bias != NULL else NULL, relu)
            tile = next_of(&shares, thread)


def normalize_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, cnp.ndarray mean, cnp.ndarray rstd, cnp.ndarray weight,
    cnp.ndarray gw, cnp.ndarray gb, bint from_batch, int num_threads, bint relu=False, cnp.ndarray bias=None,
    cnp.ndarray factors=None, cnp.ndarray sums=None,
):
    """The gradients of `normalize`; gx, gw and gb may be None.

    from_batch: mean and rstd are those of x, so that gx has the part that goes through them
    relu:       the positive part was taken of the result, and gy is the gradient of that. Only with `from_batch`. Where
                it was positive is worked out again, from `bias` among others
    factors:    (4, C), instead of gx and only with `from_batch`: what `apply_gradient` makes gx of
    sums:       float64 (2, T, C), what `winograd_images.backward` has summed up of T tiles; gy and x are not read
    """
    cdef int kind = real_type(x, "normalize_backward", "x")
    cdef Py_ssize_t columns = columns_of(x, "normalize_backward"), size = cnp.PyArray_SIZE(x)
    cdef void *values = input_pointer(x, kind, size, "normalize_backward", "x")
    cdef void *source = input_pointer(gy, kind, size, "normalize_backward", "gy")
    cdef void *target = result(gx, kind, size, "normalize_backward", "gx")
    cdef void *means = input_pointer(mean, kind, columns, "normalize_backward", "mean")
    cdef void *roots = input_pointer(rstd, kind, columns, "normalize_backward", "rstd")
    cdef void *weights = data(weight, kind, columns, "normalize_backward", "weight")
    cdef void *shifts = data(bias, kind, columns, "normalize_backward", "bias")
    cdef void *target_w = result(gw, kind, columns, "normalize_backward", "gw")
    cdef void *target_b = result(gb, kind, columns, "normalize_backward", "gb")
    cdef void *kept = result(factors, kind, 4 * columns, "normalize_backward", "factors")
    cdef Tiles t = tiles_of(size // columns, columns)
    cdef const double *summed = NULL
    cdef bint done
    check_threads(num_threads, "normalize_backward")
    if sums is not None:
        summed = <const double *> input_pointer(
            sums, cnp.NPY_DOUBLE, 2 * t.down * columns, "normalize_backward", "sums")
    if relu and not from_batch:
        raise ValueError("normalize_backward: expected relu only with from_batch, got it without")
    if factors is not None and (gx is not None or not from_batch):
        raise ValueError(
            "normalize_backward: expected factors only with from_batch and without gx, got "
            f"from_batch={bool(from_batch)} and {'no ' if gx is None else ''}gx"
        )
    with nogil:
        if kind == cnp.NPY_FLOAT:
            done = _normalize_backward(
                <const float *> source, <const float *> values, <float *> target, &t, <const float *> means,
                <const float *> roots, <const float *> weights, <const float *> shifts, <float *> target_w,
                <float *> target_b, <float *> kept, summed, from_batch, relu, num_threads)
        else:
            done = _normalize_backward(
                <const double *> source, <const double *> values, <double *> target, &t, <const double *> means,
                <const double *> roots, <const double *> weights, <const double *> shifts, <double *> target_w,
                <double *> target_b, <double *> kept, summed, from_batch, relu, num_threads)
    if not done:
        raise MemoryError("normalize_backward: no memory for the sums")


cdef bint _normalize_backward(
    const real *gy, const real *x, real *gx, const Tiles *t, const real *mean, const real *rstd, const real *weight,
    const real *bias, real *gw, real *gb, real *kept, const double *summed, bint from_batch, bint relu, int threads
) noexcept nogil:
    cdef Shares shares
    cdef int thread
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t n = t.columns, down = t.down, tile, c
    cdef Place p
    cdef bint later = kept != NULL
    cdef double *part = <double *> malloc((2 * down + 2) * n * sizeof(double))
    cdef real *factor = kept if later else <real *> malloc(4 * n * sizeof(real))
    if part == NULL or factor == NULL:
        free(part)
        if not later:
            free(factor)
        return False
    cdef double *sums = part
    cdef double *dots = part + down * n
    cdef double *sum = part + 2 * down * n
    cdef double *dot = sum + n
    cdef real *scale = factor
    cdef real *shift = factor + n
    for c in range(n):
        scale[c] = rstd[c] * weight[c] if weight != NULL else rstd[c]
        shift[c] = bias[c] if bias != NULL else 0
    if gw != NULL or gb != NULL or ((gx != NULL or later) and from_batch):
        if summed == NULL:
            share_out(&shares, down * t.across, threads)
            for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                tile = next_of(&shares, thread)
                while tile >= 0:
                    p = place_of(t, tile)
                    if real is float:
                        kernels.dots_f32(
                            gy + p.at, x + p.at, p.height, p.width, n, mean + p.column, scale + p.column,
                            shift + p.column if relu else NULL, sums + p.sums, dots + p.sums)
                    else:
                        kernels.dots_f64(
                            gy + p.at, x + p.at, p.height, p.width, n, mean + p.column, scale + p.column,
                            shift + p.column if relu else NULL, sums + p.sums, dots + p.sums)
                    tile = next_of(&shares, thread)
            summed = part
        add_up(summed, down, n, sum)
        add_up(summed + down * n, down, n, dot)
        for c in range(n):
            if gw != NULL:
                gw[c] = <real> (dot[c] * rstd[c])
            if gb != NULL:
                gb[c] = <real> sum[c]
    if gx != NULL or later:
        for c in range(n):  # slope and offset
            factor[2 * n + c] = <real> (-dot[c] * rstd[c] * rstd[c] / t.rows) if from_batch else 0
            factor[3 * n + c] = <real> (-sum[c] / t.rows) if from_batch else 0
    if gx != NULL and from_batch:
        _apply_gradient(gy, x, gx, t, mean, factor, relu, threads)
    elif gx != NULL:
        _apply[real](gy, NULL, gx, t, factor + 3 * n, scale, NULL, False, threads)
    free(part)
    if not later:
        free(factor)
    return True


def apply_gradient(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, cnp.ndarray mean, cnp.ndarray factors, bint relu, int num_threads
):
    """gx of `normalize_backward`, from the factors (4, C) that it left: scale (g + (x - mean) slope + offset), where g
    is gy, or with `relu` 0 where the result was not positive."""
    cdef int kind = real_type(x, "apply_gradient", "x")
    cdef Py_ssize_t columns = columns_of(x, "apply_gradient"), size = cnp.PyArray_SIZE(x)
    cdef void *values = input_pointer(x, kind, size, "apply_gradient", "x")
    cdef void *source = input_pointer(gy, kind, size, "apply_gradient", "gy")
    cdef void *target = output_pointer(gx, kind, size, "apply_gradient", "gx")
    cdef void *means = input_pointer(mean, kind, columns, "apply_gradient", "mean")
    cdef void *kept = input_pointer(factors, kind, 4 * columns, "apply_gradient", "factors")
    cdef Tiles t = tiles_of(size // columns, columns)
    check_threads(num_threads, "apply_gradient")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _apply_gradient(
                <const float *> source, <const float *> values, <float *> target, &t, <const float *> means,
                <const float *> kept, relu, num_threads)
        else:
            _apply_gradient(
                <const double *> source, <const double *> values, <double *> target, &t, <const double *> means,
                <const double *> kept, relu, num_threads)


cdef void _apply_gradient(
    const real *gy, const real *x, real *gx, const Tiles *t, const real *mean, const real *factors, bint relu,
    int threads
) noexcept nogil:
    cdef Shares shares
    cdef int thread
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t n = t.columns, tile
    cdef Place p
    cdef const real *shift = factors + n if relu else NULL
    share_out(&shares, t.down * t.across, threads)
    for thread in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        tile = next_of(&shares, thread)
        while tile >= 0:
            p = place_of(t, tile)
            if real is float:
                kernels.gradient_f32(
                    gy + p.at, x + p.at, gx + p.at, p.height, p.width, n, mean + p.column, factors + p.column,
                    shift + p.column if relu else NULL, factors + 2 * n + p.column, factors + 3 * n + p.column)
            else:
                kernels.gradient_f64(
                    gy + p.at, x + p.at, gx + p.at, p.height, p.width, n, mean + p.column, factors + p.column,
                    shift + p.column if relu else NULL, factors + 2 * n + p.column, factors + 3 * n + p.column)
            tile = next_of(&shares, thread)


# -- per row ---------------------------------------------------------------------------------------

cdef inline Py_ssize_t period_of(cnp.ndarray weight, cnp.ndarray bias, Py_ssize_t rows, Py_ssize_t width) except -1:
    """How many rows of parameters there are: as `weight` or `bias` (P, D) say, where P divides the rows."""
    cdef cnp.ndarray a = weight if weight is not None else bias
    if a is None:
        return 1
    check_ndim(a, 2, "row_norm", "weight and bias")
    cdef Py_ssize_t period = cnp.PyArray_DIM(a, 0)
    if cnp.PyArray_DIM(a, 1) != width or period < 1 or rows % period != 0:
        raise ValueError(
            f"row_norm: expected weight and bias of shape (P, {width}) where P divides {rows}, "
            f"got ({period}, {cnp.PyArray_DIM(a, 1)})"
        )
    return period


def row_norm(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray mean, cnp.ndarray var,
    cnp.ndarray rstd, double eps, int num_threads,
):
    """Normalise each row of x (R, D); row r has weight and bias r % P of (P, D), either of which may be None."""
    cdef int kind = real_type(x, "row_norm", "x")
    check_ndim(x, 2, "row_norm", "x")
    cdef Py_ssize_t width = columns_of(x, "row_norm"), rows = cnp.PyArray_DIM(x, 0)
    cdef Py_ssize_t period = period_of(weight, bias, rows, width)
    cdef void *source = input_pointer(x, kind, rows * width, "row_norm", "x")
    cdef void *target = output_pointer(y, kind, rows * width, "row_norm", "y")
    cdef void *weights = data(weight, kind, period * width, "row_norm", "weight")
    cdef void *shifts = data(bias, kind, period * width, "row_norm", "bias")
    cdef void *means = output_pointer(mean, kind, rows, "row_norm", "mean")
    cdef void *variances = output_pointer(var, kind, rows, "row_norm", "var")
    cdef void *roots = output_pointer(rstd, kind, rows, "row_norm", "rstd")
    check_threads(num_threads, "row_norm")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            _row_norm(
                <const float *> source, <float *> target, rows, width, <const float *> weights,
                <const float *> shifts, period, <float *> means, <float *> variances, <float *> roots, <float> eps,
                num_threads)
        else:
            _row_norm(
                <const double *> source, <double *> target, rows, width, <const double *> weights,
                <const double *> shifts, period, <double *> means, <double *> variances, <double *> roots, eps,
                num_threads)


cdef void _row_norm(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t width, const real *weight, const real *bias,
    Py_ssize_t period, real *mean, real *var, real *rstd, real eps, int threads
) noexcept nogil:
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t r, p
    for r in prange(rows, num_threads=threads, schedule="static"):
        p = r % period * width
        if real is float:
            kernels.row_norm_f32(
                x + r * width, weight + p if weight != NULL else NULL, bias + p if bias != NULL else NULL,
                y + r * width, width, eps, mean + r, var + r, rstd + r)
        else:
            kernels.row_norm_f64(
                x + r * width, weight + p if weight != NULL else NULL, bias + p if bias != NULL else NULL,
                y + r * width, width, eps, mean + r, var + r, rstd + r)


def row_norm_backward(
    cnp.ndarray gy, cnp.ndarray x, cnp.ndarray gx, cnp.ndarray weight, cnp.ndarray mean, cnp.ndarray rstd,
    cnp.ndarray gw, cnp.ndarray gb, Py_ssize_t period, int num_threads,
):
    """The gradients of `row_norm`; gx, and gw and gb (P, D), may be None; P is `period`."""
    cdef int kind = real_type(x, "row_norm_backward", "x")
    check_ndim(x, 2, "row_norm_backward", "x")
    cdef Py_ssize_t width = columns_of(x, "row_norm_backward"), rows = cnp.PyArray_DIM(x, 0)
    if period < 1 or rows % period != 0:
        raise ValueError(f"row_norm_backward: expected period to divide {rows}, got {period}")
    cdef void *values = input_pointer(x, kind, rows * width, "row_norm_backward", "x")
    cdef void *source = input_pointer(gy, kind, rows * width, "row_norm_backward", "gy")
    cdef void *target = result(gx, kind, rows * width, "row_norm_backward", "gx")
    cdef void *weights = data(weight, kind, period * width, "row_norm_backward", "weight")
    cdef void *means = input_pointer(mean, kind, rows, "row_norm_backward", "mean")
    cdef void *roots = input_pointer(rstd, kind, rows, "row_norm_backward", "rstd")
    cdef void *target_w = result(gw, kind, period * width, "row_norm_backward", "gw")
    cdef void *target_b = result(gb, kind, period * width, "row_norm_backward", "gb")
    cdef bint done = True
    check_threads(num_threads, "row_norm_backward")
    with nogil:
        if kind == cnp.NPY_FLOAT:
            if target != NULL:
                _row_gradient(
                    <const float *> source, <const float *> values, <float *> target, rows, width,
                    <const float *> weights, period, <const float *> means, <const float *> roots, num_threads)
            if target_w != NULL or target_b != NULL:
                done = _row_dots(
                    <const float *> source, <const float *> values, rows, width, period, <const float *> means,
                    <const float *> roots, <float *> target_w, <float *> target_b, num_threads)
        else:
            if target != NULL:
                _row_gradient(
                    <const double *> source, <const double *> values, <double *> target, rows, width,
                    <const double *> weights, period, <const double *> means, <const double *> roots, num_threads)
            if target_w != NULL or target_b != NULL:
                done = _row_dots(
                    <const double *> source, <const double *> values, rows, width, period, <const double *> means,
                    <const double *> roots, <double *> target_w, <double *> target_b, num_threads)
    if not done:
        raise MemoryError("row_norm_backward: no memory for the sums")


cdef void _row_gradient(
    const real *gy, const real *x, real *gx, Py_ssize_t rows, Py_ssize_t width, const real *weight, Py_ssize_t period,
    const real *mean, const real *rstd, int threads
) noexcept nogil:
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t r, at
    for r in prange(rows, num_threads=threads, schedule="static"):
        at = r * width
        if real is float:
            kernels.row_gradient_f32(
                gy + at, x + at, weight + r % period * width if weight != NULL else NULL, gx + at, width, mean[r],
                rstd[r])
        else:
            kernels.row_gradient_f64(
                gy + at, x + at, weight + r % period * width if weight != NULL else NULL, gx + at, width, mean[r],
                rstd[r])


cdef bint _row_dots(
    const real *gy, const real *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t period, const real *mean,
    const real *rstd, real *gw, real *gb, int threads
) noexcept nogil:
    """The sums over rows r, r + P, r + 2 P, ..., which are the columns of a matrix with rows of P * D elements."""
    cdef const nnx_norm *kernels = <const nnx_norm *> table().norm
    cdef Py_ssize_t n = period * width, tile, i, j, c, at, p, column
    cdef Tiles t = tiles_of(rows // period, width)
    cdef Py_ssize_t down = t.down, across = t.across * period
    cdef double *part = <double *> malloc((2 * down + 2) * n * sizeof(double))
    if part == NULL:
        return False
    cdef double *sums = part
    cdef double *dots = part + down * n
    cdef double *sum = part + 2 * down * n
    cdef double *dot = sum + n
    for tile in prange(down * across, num_threads=threads, schedule="static"):
        i = tile // across
        p = tile % across // t.across
        j = tile % t.across
        column = p * width + j * NORM_WIDTH
        at = i * t.height * n + column
        if real is float:
            kernels.row_dots_f32(
                gy + at, x + at, height_of(&t, i), width_of(&t, j), n, mean + i * t.height * period + p,
                rstd + i * t.height * period + p, period, sums + i * n + column, dots + i * n + column)
        else:
            kernels.row_dots_f64(
                gy + at, x + at, height_of(&t, i), width_of(&t, j), n, mean + i * t.height * period + p,
                rstd + i * t.height * period + p, period, sums + i * n + column, dots + i * n + column)
    add_up(sums, down, n, sum)
    add_up(dots, down, n, dot)
    for c in range(n):
        if gw != NULL:
            gw[c] = <real> dot[c]
        if gb != NULL:
            gb[c] = <real> sum[c]
    free(part)
    return True
