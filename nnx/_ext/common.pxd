# What every kernel module needs: checks that turn an ndarray argument into a pointer, and
# blocks of fixed size.
#
# A kernel is called with arrays (`cnp.ndarray`), not memoryviews, and must be safe whatever it is
# given: each argument goes through one of the functions below before its pointer is used.
# Messages start with the kernel's name. A module that cimports this file calls cnp.import_array().

cimport numpy as cnp

ctypedef fused real:
    float
    double

# Elements per task of an elementwise kernel. The size is fixed: the bits of a result that is
# summed block by block must not depend on the number of threads.
cdef enum:
    BLOCK = 8192


cdef inline Py_ssize_t block_count(Py_ssize_t n) noexcept nogil:
    """Number of blocks of n elements."""
    return (n + BLOCK - 1) // BLOCK


cdef inline Py_ssize_t block_size(Py_ssize_t n, Py_ssize_t b) noexcept nogil:
    """Number of elements in block b of n elements."""
    cdef Py_ssize_t left = n - b * BLOCK
    return left if left < BLOCK else BLOCK


cdef inline int check_threads(int num_threads, str kernel) except -1:
    if num_threads < 1:
        raise ValueError(f"{kernel}: expected num_threads to be at least 1, got {num_threads}")
    return num_threads


cdef inline int real_type(cnp.ndarray a, str kernel, str argument) except -1:
    """NPY_FLOAT or NPY_DOUBLE; TypeError for another, foreign-endian or unaligned array."""
    if a is None:
        raise TypeError(f"{kernel}: expected {argument} to be an array, got None")
    cdef int kind = cnp.PyArray_TYPE(a)
    if (kind != cnp.NPY_FLOAT and kind != cnp.NPY_DOUBLE) or not cnp.PyArray_ISBEHAVED_RO(a):
        raise TypeError(
            f"{kernel}: expected {argument} to be float32 or float64, native and aligned, "
            f"got {a.dtype.str}{'' if a.flags.aligned else ' (unaligned)'}"
        )
    return kind


cdef inline int check_type(cnp.ndarray a, int kind, str kernel, str argument) except -1:
    """TypeError unless the array has NumPy's type number `kind`, native and aligned."""
    if a is None:
        raise TypeError(f"{kernel}: expected {argument} to be an array, got None")
    if cnp.PyArray_TYPE(a) != kind or not cnp.PyArray_ISBEHAVED_RO(a):
        raise TypeError(
            f"{kernel}: expected {argument} to be {cnp.PyArray_DescrFromType(kind)}, "
            f"native and aligned, got {a.dtype.str}{'' if a.flags.aligned else ' (unaligned)'}"
        )
    return 0


cdef inline int check_writeable(cnp.ndarray a, str kernel, str argument) except -1:
    if not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{kernel}: expected {argument} to be writeable, got a read-only array")
    return 0


cdef inline int check_ndim(cnp.ndarray a, int ndim, str kernel, str argument) except -1:
    """For arrays whose shape is read by the kernel."""
    if a is None:
        raise TypeError(f"{kernel}: expected {argument} to be an array, got None")
    if cnp.PyArray_NDIM(a) != ndim:
        raise ValueError(
            f"{kernel}: expected {argument} with {ndim} dimensions, got shape {_shape(a)}"
        )
    return 0


cdef inline int check_dim(
    cnp.ndarray a, int axis, Py_ssize_t expected, str kernel, str argument
) except -1:
    """One dimension; the array is known to have more than `axis` of them."""
    if cnp.PyArray_DIM(a, axis) != expected:
        raise ValueError(
            f"{kernel}: expected {argument} to have {expected} in dimension {axis}, "
            f"got shape {_shape(a)}"
        )
    return 0


cdef inline int check_contiguous(
    cnp.ndarray a, Py_ssize_t size, str kernel, str argument
) except -1:
    """C-contiguous with exactly `size` elements."""
    if not cnp.PyArray_IS_C_CONTIGUOUS(a):
        raise ValueError(
            f"{kernel}: expected {argument} to be C-contiguous, "
            f"got shape {_shape(a)} with strides {_strides(a)}"
        )
    if cnp.PyArray_SIZE(a) != size:
        raise ValueError(
            f"{kernel}: expected {argument} with {size} elements, got shape {_shape(a)}"
        )
    return 0


# Pointers to C-contiguous arrays. `kind` is NPY_FLOAT, NPY_DOUBLE, NPY_INT64, ...: mostly what
# real_type() returned.

cdef inline void *input_pointer(
    cnp.ndarray a, int kind, Py_ssize_t size, str kernel, str argument
) except? NULL:
    """The data of a C-contiguous array of `size` elements that is read."""
    check_type(a, kind, kernel, argument)
    check_contiguous(a, size, kernel, argument)
    return cnp.PyArray_DATA(a)


cdef inline void *output_pointer(
    cnp.ndarray a, int kind, Py_ssize_t size, str kernel, str argument
) except? NULL:
    """The data of a C-contiguous array of `size` elements that is written."""
    check_type(a, kind, kernel, argument)
    check_contiguous(a, size, kernel, argument)
    check_writeable(a, kernel, argument)
    return cnp.PyArray_DATA(a)


# Pointers for elementwise kernels: any order of the axes, as long as the memory has no holes and
# all arguments agree.

cdef inline bint is_dense(cnp.ndarray a) noexcept:
    """Whether the elements fill one block of memory, in any order of the axes."""
    if cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_IS_F_CONTIGUOUS(a):
        return True
    cdef int ndim = cnp.PyArray_NDIM(a), axis, used = 0, todo = 0
    cdef Py_ssize_t expected = cnp.PyArray_ITEMSIZE(a)
    cdef unsigned long long taken = 0
    for axis in range(ndim):
        todo += cnp.PyArray_DIM(a, axis) != 1
    while used < todo:
        for axis in range(ndim):
            if (
                cnp.PyArray_DIM(a, axis) != 1
                and not (taken >> axis) & 1
                and cnp.PyArray_STRIDE(a, axis) == expected
            ):
                break
        else:
            return False
        taken |= 1ULL << axis
        expected *= cnp.PyArray_DIM(a, axis)
        used += 1
    return True


cdef inline bint same_layout(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether both have the same shape and the same strides, apart from axes of length 1."""
    cdef int axis, ndim = cnp.PyArray_NDIM(a)
    cdef bint agree = True
    if cnp.PyArray_NDIM(b) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return False
        if cnp.PyArray_DIM(a, axis) != 1:
            agree &= cnp.PyArray_STRIDE(a, axis) == cnp.PyArray_STRIDE(b, axis)
    return agree or cnp.PyArray_SIZE(a) == 0


cdef inline void *dense_input(cnp.ndarray a, int kind, str kernel, str argument) except? NULL:
    """The data of the first argument of an elementwise kernel, which the others must agree with."""
    check_type(a, kind, kernel, argument)
    if not is_dense(a):
        raise ValueError(
            f"{kernel}: expected {argument} to be dense in memory, "
            f"got shape {_shape(a)} with strides {_strides(a)}"
        )
    return cnp.PyArray_DATA(a)


cdef inline void *like_input(
    cnp.ndarray a, cnp.ndarray ref, int kind, str kernel, str argument
) except? NULL:
    """The data of a further argument that is read: shape and strides of `ref`, which is dense."""
    check_type(a, kind, kernel, argument)
    if not same_layout(a, ref):
        raise ValueError(
            f"{kernel}: expected {argument} with shape {_shape(ref)} and "
            f"strides {_strides(ref)}, got {_shape(a)} and {_strides(a)}"
        )
    return cnp.PyArray_DATA(a)


cdef inline void *like_output(
    cnp.ndarray a, cnp.ndarray ref, int kind, str kernel, str argument
) except? NULL:
    """The data of an argument that is written: shape and strides of `ref`, which is dense."""
    cdef void *data = like_input(a, ref, kind, kernel, argument)
    check_writeable(a, kernel, argument)
    return data


cdef inline tuple _shape(cnp.ndarray a):
    cdef int axis
    return tuple([cnp.PyArray_DIM(a, axis) for axis in range(cnp.PyArray_NDIM(a))])


cdef inline tuple _strides(cnp.ndarray a):
    cdef int axis
    return tuple([cnp.PyArray_STRIDE(a, axis) for axis in range(cnp.PyArray_NDIM(a))])
