/* The gates of recurrent layers, for one sequence and one time step: the formulas of nnx/backends/base/recurrent.py.
 *
 * n is the number of hidden units. Gates lie side by side, n numbers each; what comes in are the sums of the two
 * products, and the activated gates, which the gradient needs, take their place. Every row starts at its first unit, so
 * that its bits do not depend on which thread computes it.
 */
#include "elementary.h"
#include "elementwise.h"

/* -- RNN: h is activated in place; backward: dg is the gradient of the sums, and nothing else reaches the past -- */

static void NAME(rnn_tanh)(REAL *h, ptrdiff_t n)
{
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++)
        h[j] = NAME(tanh_of)(h[j]);
}

static void NAME(rnn_tanh_backward)(const REAL *h, REAL *gh, REAL *dg, ptrdiff_t n)
{
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        dg[j] = gh[j] * ((1 - h[j]) * (1 + h[j]));
        gh[j] = 0;
    }
}

static void NAME(rnn_relu)(REAL *h, ptrdiff_t n)
{
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++)
        h[j] = h[j] <= 0 ? 0 : h[j];
}

static void NAME(rnn_relu_backward)(const REAL *h, REAL *gh, REAL *dg, ptrdiff_t n)
{
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        dg[j] = h[j] <= 0 ? 0 : gh[j];
        gh[j] = 0;
    }
}

/* -- GRU: r, z, q, n -- */

static void NAME(gru)(REAL *gates, const REAL *before, REAL *h, ptrdiff_t n)
{
    REAL *r = gates, *z = gates + n, *q = gates + 2 * n, *candidate = gates + 3 * n;
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL rj = NAME(logistic)(r[j]), zj = NAME(logistic)(z[j]);
        const REAL nj = NAME(tanh_of)(NAME(fma)(rj, q[j], candidate[j]));
        r[j] = rj;
        z[j] = zj;
        candidate[j] = nj;
        h[j] = NAME(fma)(zj, before[j] - nj, nj);
    }
}

/* gh comes in as the gradient of the new state and leaves as that of the old one, but for the way through W_hh. */
static void NAME(gru_backward)(const REAL *gates, const REAL *before, REAL *gh, REAL *dg, ptrdiff_t n)
{
    const REAL *r = gates, *z = gates + n, *q = gates + 2 * n, *candidate = gates + 3 * n;
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL g = gh[j], rj = r[j], zj = z[j], nj = candidate[j];
        const REAL gn = g * (1 - zj) * ((1 - nj) * (1 + nj));
        dg[j] = gn * q[j] * (rj * (1 - rj));
        dg[n + j] = g * (before[j] - nj) * (zj * (1 - zj));
        dg[2 * n + j] = gn * rj;
        dg[3 * n + j] = gn;
        gh[j] = g * zj;
    }
}

/* -- LSTM: i, f, g, o -- */

/* c and m = o tanh(c), which is the new state or what the projection takes. */
static void NAME(lstm)(REAL *gates, const REAL *before, REAL *c, REAL *m, ptrdiff_t n)
{
    REAL *i = gates, *f = gates + n, *g = gates + 2 * n, *o = gates + 3 * n;
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL ij = NAME(logistic)(i[j]), fj = NAME(logistic)(f[j]), oj = NAME(logistic)(o[j]);
        const REAL gj = NAME(tanh_of)(g[j]);
        const REAL cj = NAME(fma)(fj, before[j], ij * gj);
        i[j] = ij;
        f[j] = fj;
        g[j] = gj;
        o[j] = oj;
        c[j] = cj;
        m[j] = oj * NAME(tanh_of)(cj);
    }
}

/* gm is the gradient of m, gc that of c: it comes in after the step and leaves before it. m is computed again. */
static void NAME(lstm_backward)(const REAL *gates, const REAL *before, const REAL *c, const REAL *gm, REAL *gc,
                                REAL *dg, REAL *m, ptrdiff_t n)
{
    const REAL *i = gates, *f = gates + n, *g = gates + 2 * n, *o = gates + 3 * n;
    NNX_INDEPENDENT
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL ij = i[j], fj = f[j], gj = g[j], oj = o[j], tc = NAME(tanh_of)(c[j]);
        const REAL total = NAME(fma)(gm[j] * oj, (1 - tc) * (1 + tc), gc[j]);
        dg[j] = total * gj * (ij * (1 - ij));
        dg[n + j] = total * before[j] * (fj * (1 - fj));
        dg[2 * n + j] = total * ij * ((1 - gj) * (1 + gj));
        dg[3 * n + j] = gm[j] * tc * (oj * (1 - oj));
        gc[j] = total * fj;
        m[j] = oj * tc;
    }
}
