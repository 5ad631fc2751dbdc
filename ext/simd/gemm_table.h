/* Kernels of the family "gemm": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_gemm(X, REAL) \
    X(ptrdiff_t, gemm_panel, (void)) \
    X(void, pack, (ptrdiff_t K, ptrdiff_t N, const REAL *B, ptrdiff_t rsb, ptrdiff_t csb, REAL *packed)) \
    X(void, gemm, (ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa, \
                   const REAL *packed, ptrdiff_t panel_rows, REAL *C, ptrdiff_t rsc, ptrdiff_t csc, int accumulate, \
                   const REAL *column_bias, const REAL *row_bias, int relu)) \
    X(void, positive_part, (REAL *y, ptrdiff_t n)) \
    X(void, column_sums, (ptrdiff_t rows, ptrdiff_t columns, const REAL *a, REAL *sums)) \
    X(void, few_dots, (int rows, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t lda, const REAL *W, ptrdiff_t ldw, \
                       const REAL *bias, ptrdiff_t bias_row, ptrdiff_t bias_column, REAL *C, ptrdiff_t rsc, \
                       ptrdiff_t csc)) \
    X(void, few_sums, (int rows, ptrdiff_t N, ptrdiff_t K, const REAL *A, ptrdiff_t rsa, ptrdiff_t csa, const REAL *B, \
                       ptrdiff_t ldb, const REAL *bias, ptrdiff_t bias_row, ptrdiff_t bias_column, REAL *C, \
                       ptrdiff_t rsc)) \
    X(void, transpose, (ptrdiff_t rows, ptrdiff_t columns, const REAL *from, ptrdiff_t ld, REAL *to, ptrdiff_t ldt))
