/* One optimizer step over n contiguous elements. No two arguments share memory.
 *
 * p parameter, g gradient; `decay` is the L2 weight decay, `sign` is -1 to maximize. A weight 1 - beta comes as
 * `fresh`, rounded from double once. What a loop decides by a scalar is decided in front of it by the compiler (unswitching).
 */

/* Down the slope: the gradient with L2 decay. Not `g + 0 * p`, which would spread an infinite parameter as NaN. */
static inline REAL NAME(descent)(REAL p, REAL g, REAL decay, REAL sign)
{
    return decay != 0 ? sign * g + decay * p : sign * g;
}

static inline REAL NAME(root)(REAL x)
{
#if REAL_IS_FLOAT
    return sqrtf(x);
#else
    return sqrt(x);
#endif
}

/* p -= lr d */
static void NAME(sgd)(REAL *RESTRICT p, const REAL *RESTRICT g, ptrdiff_t n, REAL lr, REAL decay, REAL sign)
{
    for (ptrdiff_t i = 0; i < n; i++)
        p[i] -= lr * NAME(descent)(p[i], g[i], decay, sign);
}

/* b = momentum b + fresh d (b = d in the first step); p -= lr b, or lr (d + momentum b) with nesterov */
static void NAME(sgd_momentum)(
    REAL *RESTRICT p, const REAL *RESTRICT g, REAL *RESTRICT b, ptrdiff_t n, REAL lr, REAL decay, REAL sign,
    REAL momentum, REAL fresh, int first, int nesterov)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL d = NAME(descent)(p[i], g[i], decay, sign);
        b[i] = first ? d : momentum * b[i] + fresh * d;
        p[i] -= lr * (nesterov ? d + momentum * b[i] : b[i]);
    }
}

/* s += d^2; p -= rate d / (sqrt(s) + eps) */
static void NAME(adagrad)(
    REAL *RESTRICT p, const REAL *RESTRICT g, REAL *RESTRICT s, ptrdiff_t n, REAL rate, REAL decay, REAL sign,
    REAL eps)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL d = NAME(descent)(p[i], g[i], decay, sign);
        s[i] += d * d;
        p[i] -= rate * d / (NAME(root)(s[i]) + eps);
    }
}

/* v = rho v + fresh d^2; d *= sqrt(a + eps) / sqrt(v + eps); a = rho a + fresh d^2; p -= lr d */
static void NAME(adadelta)(
    REAL *RESTRICT p, const REAL *RESTRICT g, REAL *RESTRICT v, REAL *RESTRICT a, ptrdiff_t n, REAL lr,
    REAL decay, REAL sign, REAL rho, REAL fresh, REAL eps)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL d = NAME(descent)(p[i], g[i], decay, sign);
        v[i] = rho * v[i] + fresh * (d * d);
        d *= NAME(root)(a[i] + eps) / NAME(root)(v[i] + eps);
        a[i] = rho * a[i] + fresh * (d * d);
        p[i] -= lr * d;
    }
}

/* v = alpha v + fresh d^2; d /= sqrt(v) + eps, with m (the mean gradient) d /= sqrt(v - m^2) + eps;
 * p -= lr d, with b (the momentum) b = momentum b + d and p -= lr b. m and b may be NULL. */
static void NAME(rmsprop)(
    REAL *RESTRICT p, const REAL *RESTRICT g, REAL *RESTRICT v, REAL *RESTRICT m, REAL *RESTRICT b, ptrdiff_t n,
    REAL lr, REAL decay, REAL sign, REAL alpha, REAL fresh, REAL eps, REAL momentum)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL d = NAME(descent)(p[i], g[i], decay, sign);
        REAL spread = v[i] = alpha * v[i] + fresh * (d * d);
        if (m) {
            m[i] += fresh * (d - m[i]);
            spread -= m[i] * m[i];
        }
        d /= NAME(root)(spread) + eps;
        if (b)
            d = b[i] = momentum * b[i] + d;
        p[i] -= lr * d;
    }
}

/* m += fresh1 (d - m); v = beta2 v + fresh2 d^2; p = keep p - rate m / (sqrt(v) / root + eps), where `keep` is 1 but
 * for decoupled decay. `largest` (the largest v so far, which then takes the place of v) may be NULL. */
static void NAME(adam)(
    REAL *RESTRICT p, const REAL *RESTRICT g, REAL *RESTRICT m, REAL *RESTRICT v, REAL *RESTRICT largest,
    ptrdiff_t n, REAL rate, REAL root, REAL decay, REAL keep, REAL sign, REAL fresh1, REAL beta2, REAL fresh2,
    REAL eps)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL d = NAME(descent)(p[i], g[i], decay, sign);
        REAL second = beta2 * v[i] + fresh2 * (d * d);
        m[i] += fresh1 * (d - m[i]);
        v[i] = second;
        if (largest) {
            /* NaN on either side stays, as in np.maximum */
            second = largest[i] >= second || largest[i] != largest[i] ? largest[i] : second;
            largest[i] = second;
        }
        p[i] = keep * p[i] - rate * m[i] / (NAME(root)(second) / root + eps);
    }
}

/* The sum of x^2 in double, over sixteen partial sums whatever the level's width is. */
static double NAME(square_sum)(const REAL *x, ptrdiff_t n)
{
    double part[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            part[j] += (double)x[i + j] * x[i + j];
    for (int j = 0; i + j < n; j++)
        part[j] += (double)x[i + j] * x[i + j];
    for (int width = 8; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            part[j] += part[j + width];
    return part[0];
}

/* x *= factor */
static void NAME(scale)(REAL *RESTRICT x, ptrdiff_t n, REAL factor)
{
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] *= factor;
}
