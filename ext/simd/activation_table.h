/* Kernels of the family "activation": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_activation(X, REAL) \
    X(void, relu, (const REAL *x, REAL *y, ptrdiff_t n)) \
    X(void, relu_backward, (const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t n))
