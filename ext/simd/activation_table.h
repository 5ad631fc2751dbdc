/* Kernels of the family "activation": X(result, name, (arguments)), see table.h. */
#define NNX_MAP1(X, REAL, name) X(void, name, (const REAL *x, REAL *out, ptrdiff_t n, const REAL *p))
#define NNX_MAP2(X, REAL, name) \
    X(void, name, (const REAL *x, const REAL *z, REAL *out, ptrdiff_t n, const REAL *p))
#define NNX_SLICES1(X, REAL, name) \
    X(void, name, (const REAL *x, REAL *y, ptrdiff_t first, ptrdiff_t count, ptrdiff_t n, ptrdiff_t inner))
#define NNX_SLICES2(X, REAL, name) \
    X(void, name, \
      (const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t first, ptrdiff_t count, ptrdiff_t n, ptrdiff_t inner))
#define NNX_ACTIVATION(X, REAL, name) \
    NNX_MAP1(X, REAL, name) \
    NNX_MAP2(X, REAL, name##_backward)

#define NNX_TABLE_activation(X, REAL) \
    NNX_MAP2(X, REAL, add) \
    NNX_ACTIVATION(X, REAL, relu) \
    NNX_ACTIVATION(X, REAL, leaky_relu) \
    NNX_ACTIVATION(X, REAL, hardtanh) \
    NNX_ACTIVATION(X, REAL, elu) \
    NNX_ACTIVATION(X, REAL, sigmoid) \
    NNX_ACTIVATION(X, REAL, tanh) \
    NNX_ACTIVATION(X, REAL, softplus) \
    NNX_ACTIVATION(X, REAL, silu) \
    NNX_ACTIVATION(X, REAL, mish) \
    NNX_ACTIVATION(X, REAL, gelu) \
    NNX_ACTIVATION(X, REAL, gelu_tanh) \
    NNX_SLICES1(X, REAL, softmax) \
    NNX_SLICES2(X, REAL, softmax_backward) \
    NNX_SLICES1(X, REAL, log_softmax) \
    NNX_SLICES2(X, REAL, log_softmax_backward) \
    X(void, dropout, (const REAL *x, const unsigned char *keep, REAL *y, ptrdiff_t n, REAL scale))
