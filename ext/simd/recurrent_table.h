/* Kernels of the family "recurrent": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_recurrent(X, REAL) \
    X(void, rnn_tanh, (REAL *h, ptrdiff_t n)) \
    X(void, rnn_tanh_backward, (const REAL *h, REAL *gh, REAL *dg, ptrdiff_t n)) \
    X(void, rnn_relu, (REAL *h, ptrdiff_t n)) \
    X(void, rnn_relu_backward, (const REAL *h, REAL *gh, REAL *dg, ptrdiff_t n)) \
    X(void, gru, (REAL *gates, const REAL *before, REAL *h, ptrdiff_t n)) \
    X(void, gru_backward, (const REAL *gates, const REAL *before, REAL *gh, REAL *dg, ptrdiff_t n)) \
    X(void, lstm, (REAL *gates, const REAL *before, REAL *c, REAL *m, ptrdiff_t n)) \
    X(void, lstm_backward, (const REAL *gates, const REAL *before, const REAL *c, const REAL *gm, REAL *gc, REAL *dg, \
                            REAL *m, ptrdiff_t n))
