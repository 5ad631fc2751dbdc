/* Kernels of the family "norm": X(result, name, (arguments)), see table.h. */
#define NORM_WIDTH 256 /* columns of a tile at most */
#define NORM_REACH 32  /* channels to one side of a window at most */

#define NNX_TABLE_norm(X, REAL) \
    X(void, moments, \
      (const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, double *sum, double *square)) \
    X(void, normalize, \
      (const REAL *x, const REAL *added, REAL *y, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, \
       const REAL *mean, const REAL *scale, const REAL *shift, int relu)) \
    X(void, dots, \
      (const REAL *gy, const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean, \
       const REAL *scale, const REAL *shift, double *sum, double *dot)) \
    X(void, gradient, \
      (const REAL *gy, const REAL *x, REAL *gx, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, \
       const REAL *mean, const REAL *scale, const REAL *shift, const REAL *slope, const REAL *offset)) \
    X(void, row_norm, \
      (const REAL *x, const REAL *weight, const REAL *bias, REAL *y, ptrdiff_t n, REAL eps, REAL *mean, \
       REAL *var, REAL *rstd)) \
    X(void, row_gradient, \
      (const REAL *gy, const REAL *x, const REAL *weight, REAL *gx, ptrdiff_t n, REAL mean, REAL rstd)) \
    X(void, row_dots, \
      (const REAL *gy, const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean, \
       const REAL *rstd, ptrdiff_t step, double *sum, double *dot)) \
    X(void, response, \
      (const REAL *x, REAL *y, REAL *scale, ptrdiff_t n, ptrdiff_t below, ptrdiff_t above, REAL alpha, \
       double beta, REAL k)) \
    X(void, response_gradient, \
      (const REAL *gy, const REAL *x, const REAL *scale, REAL *gx, ptrdiff_t n, ptrdiff_t below, \
       ptrdiff_t above, REAL factor, double beta))
