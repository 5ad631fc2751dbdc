# The tile kernels of ext/simd/gemm.h, for modules that cut their own tiles (convolution).

from nnx._ext.common cimport real

cdef extern from "table.h" nogil:
    ctypedef struct nnx_gemm "struct nnx_gemm":
        Py_ssize_t (*gemm_panel_f32)() noexcept nogil
        Py_ssize_t (*gemm_panel_f64)() noexcept nogil
        void (*pack_f32)(Py_ssize_t K, Py_ssize_t N, const float *B, Py_ssize_t rsb, Py_ssize_t csb,
                         float *packed) noexcept nogil
        void (*pack_f64)(Py_ssize_t K, Py_ssize_t N, const double *B, Py_ssize_t rsb, Py_ssize_t csb,
                         double *packed) noexcept nogil
        void (*gemm_f32)(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const float *A, Py_ssize_t rsa, Py_ssize_t csa,
                         const float *packed, Py_ssize_t panel_rows, float *C, Py_ssize_t rsc, Py_ssize_t csc,
                         int accumulate, const float *column_bias, const float *row_bias, int relu) noexcept nogil
        void (*gemm_f64)(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const double *A, Py_ssize_t rsa, Py_ssize_t csa,
                         const double *packed, Py_ssize_t panel_rows, double *C, Py_ssize_t rsc, Py_ssize_t csc,
                         int accumulate, const double *column_bias, const double *row_bias,
                         int relu) noexcept nogil
        void (*positive_part_f32)(float *y, Py_ssize_t n) noexcept nogil
        void (*positive_part_f64)(double *y, Py_ssize_t n) noexcept nogil
        void (*column_sums_f32)(Py_ssize_t rows, Py_ssize_t columns, const float *a, float *sums) noexcept nogil
        void (*column_sums_f64)(Py_ssize_t rows, Py_ssize_t columns, const double *a, double *sums) noexcept nogil
        void (*few_dots_f32)(int rows, Py_ssize_t N, Py_ssize_t K, const float *A, Py_ssize_t lda, const float *W,
                             Py_ssize_t ldw, const float *bias, Py_ssize_t bias_row, Py_ssize_t bias_column, float *C,
                             Py_ssize_t rsc, Py_ssize_t csc) noexcept nogil
        void (*few_dots_f64)(int rows, Py_ssize_t N, Py_ssize_t K, const double *A, Py_ssize_t lda, const double *W,
                             Py_ssize_t ldw, const double *bias, Py_ssize_t bias_row, Py_ssize_t bias_column, double *C,
                             Py_ssize_t rsc, Py_ssize_t csc) noexcept nogil
        void (*few_sums_f32)(int rows, Py_ssize_t N, Py_ssize_t K, const float *A, Py_ssize_t rsa, Py_ssize_t csa,
                             const float *B, Py_ssize_t ldb, const float *bias, Py_ssize_t bias_row,
                             Py_ssize_t bias_column, float *C, Py_ssize_t rsc) noexcept nogil
        void (*few_sums_f64)(int rows, Py_ssize_t N, Py_ssize_t K, const double *A, Py_ssize_t rsa, Py_ssize_t csa,
                             const double *B, Py_ssize_t ldb, const double *bias, Py_ssize_t bias_row,
                             Py_ssize_t bias_column, double *C, Py_ssize_t rsc) noexcept nogil
        void (*transpose_f32)(Py_ssize_t rows, Py_ssize_t columns, const float *source, Py_ssize_t ld, float *to,
                              Py_ssize_t ldt) noexcept nogil
        void (*transpose_f64)(Py_ssize_t rows, Py_ssize_t columns, const double *source, Py_ssize_t ld, double *to,
                              Py_ssize_t ldt) noexcept nogil
