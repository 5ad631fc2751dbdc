/* Kernels of the family "loss": X(result, name, (arguments)), see table.h. */
#define NNX_LOSS(X, REAL, name) \
    X(void, name, (const REAL *x, const REAL *t, REAL *out, ptrdiff_t n, const REAL *p)) \
    X(void, name##_backward, (const REAL *x, const REAL *t, REAL *out, ptrdiff_t n, const REAL *p))

#define NNX_TABLE_loss(X, REAL) \
    NNX_LOSS(X, REAL, squared_error) \
    NNX_LOSS(X, REAL, absolute_error) \
    NNX_LOSS(X, REAL, huber) \
    NNX_LOSS(X, REAL, bce_with_logits) \
    X(void, cross_entropy, \
      (const REAL *x, const int64_t *label, REAL *loss, REAL *top, REAL *total, ptrdiff_t rows, ptrdiff_t n, \
       REAL keep, REAL smoothing)) \
    X(void, cross_entropy_backward, \
      (const REAL *gy, int one, const REAL *x, const int64_t *label, const REAL *top, const REAL *total, \
       REAL *gx, ptrdiff_t rows, ptrdiff_t n, REAL keep, REAL smoothing))
