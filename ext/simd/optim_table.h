/* Kernels of the family "optim": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_optim(X, REAL) \
    X(void, sgd, (REAL *p, const REAL *g, ptrdiff_t n, REAL lr, REAL decay, REAL sign)) \
    X(void, sgd_momentum, \
      (REAL *p, const REAL *g, REAL *b, ptrdiff_t n, REAL lr, REAL decay, REAL sign, \
       REAL momentum, REAL fresh, int first, int nesterov)) \
    X(void, adagrad, \
      (REAL *p, const REAL *g, REAL *s, ptrdiff_t n, REAL rate, REAL decay, REAL sign, REAL eps)) \
    X(void, adadelta, \
      (REAL *p, const REAL *g, REAL *v, REAL *a, ptrdiff_t n, REAL lr, REAL decay, REAL sign, \
       REAL rho, REAL fresh, REAL eps)) \
    X(void, rmsprop, \
      (REAL *p, const REAL *g, REAL *v, REAL *m, REAL *b, ptrdiff_t n, REAL lr, REAL decay, \
       REAL sign, REAL alpha, REAL fresh, REAL eps, REAL momentum)) \
    X(void, adam, \
      (REAL *p, const REAL *g, REAL *m, REAL *v, REAL *largest, ptrdiff_t n, REAL rate, REAL root, \
       REAL decay, REAL keep, REAL sign, REAL fresh1, REAL beta2, REAL fresh2, REAL eps)) \
    X(double, square_sum, (const REAL *x, ptrdiff_t n)) \
    X(void, scale, (REAL *x, ptrdiff_t n, REAL factor))
