"""SciPy's BLAS (``scipy.linalg.cython_blas``): bound at the first product that needs it, and one product of it.

Loading it costs more than all of nnx.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer

from nnx._ext.common cimport real

import os
import sys

# SciPy's BLAS takes pointers to 32-bit integers, or in some builds 64-bit ones. Ours point to 64-bit integers that hold
# small positive numbers: on a little-endian machine both read the right value, so nothing has to be detected.
ctypedef void (*sgemm_t)(char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *,
                         float *, int *) noexcept nogil
ctypedef void (*dgemm_t)(char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *,
                         double *, int *) noexcept nogil

cdef sgemm_t _sgemm = NULL
cdef dgemm_t _dgemm = NULL
_blas_module = None


cpdef object bind_blas():
    """Load ``scipy.linalg.cython_blas`` and keep the addresses of its sgemm and dgemm; returns the module."""
    global _sgemm, _dgemm, _blas_module
    if _blas_module is not None:
        return _blas_module
    if sys.byteorder != "little":
        raise RuntimeError("gemm: expected a little-endian machine for SciPy's BLAS, got a big-endian one")
    module = sys.modules.get("scipy.linalg.cython_blas") or _load_alone()
    if module is None:
        import scipy.linalg.cython_blas as module
    capsules = module.__pyx_capi__
    _sgemm = <sgemm_t> _address(capsules["sgemm"])
    _dgemm = <dgemm_t> _address(capsules["dgemm"])
    _blas_module = module
    return module


cdef void *_address(object capsule) except NULL:
    return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


def _load_alone():
    """Load the extension module without the rest of scipy.linalg (a third of the time), or return None."""
    import importlib.machinery
    import importlib.util

    try:
        import scipy

        folder = os.path.join(os.path.dirname(scipy.__file__), "linalg")
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = os.path.join(folder, "cython_blas" + suffix)
            if os.path.exists(path):
                name = "scipy.linalg.cython_blas"
                loader = importlib.machinery.ExtensionFileLoader(name, path)
                spec = importlib.util.spec_from_file_location(name, path, loader=loader)
                module = importlib.util.module_from_spec(spec)
                loader.exec_module(module)
                return module
    except (ImportError, AttributeError, OSError):
        return None
    return None


def blas_info():
    """Return a dict about BLAS: whether it is bound, and what OpenBLAS says of itself if it can be asked."""
    if _blas_module is None:
        return {"bound": False}
    info = {"bound": True, "module": "scipy.linalg.cython_blas"}
    import ctypes

    try:
        library = ctypes.CDLL(_blas_module.__file__)
        for key in ("config", "corename"):
            function = getattr(library, f"scipy_openblas_get_{key}")
            function.restype = ctypes.c_char_p
            info[key] = function().decode()
    except (OSError, AttributeError):
        pass  # another BLAS than SciPy's own OpenBLAS: it has no such functions
    return info


cdef void blas_product(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const real *A, Py_ssize_t rsa, Py_ssize_t csa,
                       const real *B, Py_ssize_t rsb, Py_ssize_t csb, real *C, Py_ssize_t ldc,
                       int accumulate) noexcept nogil:
    """C = A B (+ C) with row-major C: BLAS, which is column-major, is asked for C' = B' A'."""
    cdef char trans_a = b"N" if csa == 1 else b"T"
    cdef char trans_b = b"N" if csb == 1 else b"T"
    cdef long long m = M, n = N, k = K, lda = rsa if csa == 1 else csa, ldb = rsb if csb == 1 else csb, ld = ldc
    cdef real one = 1, beta = 1 if accumulate else 0
    if real is float:
        _sgemm(&trans_b, &trans_a, <int *> &n, <int *> &m, <int *> &k, &one, <float *> B, <int *> &ldb,
               <float *> A, <int *> &lda, &beta, C, <int *> &ld)
    else:
        _dgemm(&trans_b, &trans_a, <int *> &n, <int *> &m, <int *> &k, &one, <double *> B, <int *> &ldb,
               <double *> A, <int *> &lda, &beta, C, <int *> &ld)
