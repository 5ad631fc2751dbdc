# SciPy's BLAS, for gemm.pyx.

from nnx._ext.common cimport real

# Load it and keep its addresses, unless that was done before; returns the module.
cpdef object bind_blas()

# C = A B (+ C) with row-major C; only after bind_blas(), and of sizes for which BLAS stays on one thread
cdef void blas_product(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const real *A, Py_ssize_t rsa, Py_ssize_t csa,
                       const real *B, Py_ssize_t rsb, Py_ssize_t csb, real *C, Py_ssize_t ldc,
                       int accumulate) noexcept nogil
