/* Losses: the formulas of nnx/backends/base/loss.py. In the elementwise ones a is the prediction and b the target; the
 * last parameter of a gradient is the gradient of each loss, one number for all of them.
 */
#include "elementwise.h"
#include "rows.h"

MAP2(squared_error, (void)p, (a - b) * (a - b))
MAP2(squared_error_backward, const REAL twice = 2 * p[0], twice * (a - b))

static inline REAL NAME(sign)(REAL x)
{
    return x > 0 ? 1 : (x < 0 ? -1 : x); /* 0 and NaN are themselves */
}

MAP2(absolute_error, (void)p, NAME(abs)(a - b))
MAP2(absolute_error_backward, const REAL g = p[0], g * NAME(sign)(a - b))

static inline REAL NAME(huber_of)(REAL d, REAL delta)
{
    return d < delta ? (REAL)0.5 * d * d : delta * (d - (REAL)0.5 * delta);
}

static inline REAL NAME(huber_slope)(REAL d, REAL delta)
{
    d = d < -delta ? -delta : d;
    return d > delta ? delta : d;
}

MAP2(huber, const REAL delta = p[0], NAME(huber_of)(NAME(abs)(a - b), delta))
MAP2(huber_backward, const REAL delta = p[0]; const REAL g = p[1], g * NAME(huber_slope)(a - b, delta))

static inline REAL NAME(bce_with_logits_of)(REAL x, REAL t)
{
    const REAL size = NAME(abs)(x), c = x > 0 ? 1 - t : t;
    return (c == 0 ? 0 : c * size) + NAME(log1p_unit)(NAME(exp)(-size));
}

MAP2(bce_with_logits, (void)p, NAME(bce_with_logits_of)(a, b))
MAP2(bce_with_logits_backward, const REAL g = p[0], g * (NAME(logistic)(a) - b))

/* -- over rows of n class scores; the label -1 skips a row -- */

/* loss = log(total) - sum(q (x - top)), where q is 1 - smoothing at the label plus smoothing / n everywhere,
 * top = max(x), total = sum(exp(x - top)). Labels are in [-1, n). */
static void NAME(cross_entropy)(
    const REAL *x, const int64_t *label, REAL *loss, REAL *top, REAL *total, ptrdiff_t rows, ptrdiff_t n,
    REAL keep, REAL smoothing)
{
    for (ptrdiff_t r = 0; r < rows; r++, x += n) {
        top[r] = NAME(row_max)(x, n);
        total[r] = NAME(row_exp)(x, NULL, n, top[r]);
        if (label[r] < 0) {
            loss[r] = 0;
            continue;
        }
        loss[r] = NAME(log_above)(total[r]) - keep * (x[label[r]] - top[r]);
        if (smoothing != 0) {
            REAL part[WIDTH] = {0};
            for (ptrdiff_t i = 0; i < n; i += WIDTH)
                for (int j = 0; j < WIDTH && i + j < n; j++)
                    part[j] += x[i + j] - top[r];
            loss[r] -= smoothing * (NAME(add_parts)(part) / n);
        }
    }
}

/* gx = g (exp(x - top) / total - q), g being gy[r] or, with one = 1, gy[0] */
static void NAME(cross_entropy_backward)(
    const REAL *gy, int one, const REAL *x, const int64_t *label, const REAL *top, const REAL *total, REAL *gx,
    ptrdiff_t rows, ptrdiff_t n, REAL keep, REAL smoothing)
{
    const REAL share = smoothing / n;
    for (ptrdiff_t r = 0; r < rows; r++, x += n, gx += n) {
        if (label[r] < 0) {
            memset(gx, 0, n * sizeof(REAL));
            continue;
        }
        const REAL g = gy[one ? 0 : r], factor = 1 / total[r];
        NAME(row_exp)(x, gx, n, top[r]);
        const REAL at_label = NAME(fma)(gx[label[r]], factor, -share) - keep;
        for (ptrdiff_t j = 0; j < n; j++)
            gx[j] = g * NAME(fma)(gx[j], factor, -share);
        gx[label[r]] = g * at_label;
    }
}
