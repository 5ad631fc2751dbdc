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

/* -- over rows of n class scores; the label -1 skips a row, labels are in [-1, n) -- */

/* -sum(q log(softmax(x))), where q is keep = 1 - smoothing at the label plus smoothing / n everywhere: log_total minus
 * keep times the label's score minus smoothing times the mean score, scores being relative to the largest. */
static inline REAL NAME(smoothed)(REAL log_total, REAL score, REAL mean, REAL keep, REAL smoothing)
{
    const REAL loss = NAME(fma)(-keep, score, log_total);
    return smoothing != 0 ? NAME(fma)(-smoothing, mean, loss) : loss; /* 0 times an infinite mean would be NaN */
}

/* The loss of each row, its largest score, and the sum of exp(x - largest). */
static void NAME(cross_entropy)(
    const REAL *x, const int64_t *label, REAL *loss, REAL *top, REAL *total, ptrdiff_t rows, ptrdiff_t n,
    REAL keep, REAL smoothing)
{
    REAL tile[ROOM], highest[TILE], sum[TILE], mean[TILE], score[TILE], result[TILE];
    ptrdiff_t offset[TILE];
    for (ptrdiff_t r = 0; n > SHORT && r < rows; r++) {
        const REAL *row = x + r * n;
        top[r] = NAME(row_max)(row, n);
        total[r] = NAME(row_exp)(row, NULL, n, top[r]);
        const REAL average = smoothing != 0 ? NAME(row_sum)(row, n, top[r]) / n : 0;
        const REAL at_label = label[r] < 0 ? 0 : row[label[r]] - top[r];
        const REAL value = NAME(smoothed)(NAME(log_above)(total[r]), at_label, average, keep, smoothing);
        loss[r] = label[r] < 0 ? 0 : value;
    }
    for (ptrdiff_t r = 0; n <= SHORT && r < rows; r += TILE) {
        const int slices = NAME(tile_at)(r, rows, n, 1, offset, TILE);
        NAME(gather)(x, offset, slices, n, 1, tile, TILE);
        NAME(tile_max)(tile, n, highest, TILE);
        for (int j = 0; j < TILE; j++) {
            mean[j] = score[j] = 0;
            if (j < slices && label[r + j] >= 0)
                score[j] = tile[label[r + j] * TILE + j] - highest[j];
        }
        if (smoothing != 0)
            NAME(tile_sum)(tile, n, highest, mean, TILE);
        NAME(tile_exp)(tile, n, highest, sum, TILE);
        for (int j = 0; j < TILE; j++)
            result[j] = NAME(smoothed)(NAME(log_above)(sum[j]), score[j], mean[j] / n, keep, smoothing);
        for (int j = 0; j < slices; j++)
            loss[r + j] = label[r + j] < 0 ? 0 : result[j];
        memcpy(top + r, highest, slices * sizeof(REAL));
        memcpy(total + r, sum, slices * sizeof(REAL));
    }
}

/* gx = g (exp(x - top) / total - q), g being gy[r] or, with one = 1, gy[0]. */
static void NAME(cross_entropy_backward)(
    const REAL *gy, int one, const REAL *x, const int64_t *label, const REAL *top, const REAL *total, REAL *gx,
    ptrdiff_t rows, ptrdiff_t n, REAL keep, REAL smoothing)
{
    const REAL share = smoothing / n;
    REAL tile[ROOM], highest[TILE], factor[TILE], g[TILE], unused[TILE];
    ptrdiff_t offset[TILE];
    for (ptrdiff_t r = 0; n > SHORT && r < rows; r++) {
        const REAL scale = gy[one ? 0 : r], inverse = 1 / total[r];
        REAL *row = gx + r * n;
        if (label[r] < 0) {
            memset(row, 0, n * sizeof(REAL));
            continue;
        }
        NAME(row_exp)(x + r * n, row, n, top[r]);
        const REAL at_label = NAME(fma)(row[label[r]], inverse, -share) - keep;
        for (ptrdiff_t k = 0; k < n; k++)
            row[k] = scale * NAME(fma)(row[k], inverse, -share);
        row[label[r]] = scale * at_label;
    }
    for (ptrdiff_t r = 0; n <= SHORT && r < rows; r += TILE) {
        const int slices = NAME(tile_at)(r, rows, n, 1, offset, TILE);
        NAME(gather)(x, offset, slices, n, 1, tile, TILE);
        for (int j = 0; j < TILE; j++) {
            const ptrdiff_t at = r + (j < slices ? j : slices - 1);
            g[j] = gy[one ? 0 : at];
            highest[j] = top[at];
            factor[j] = 1 / total[at];
        }
        NAME(tile_exp)(tile, n, highest, unused, TILE);
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < TILE; j++)
                tile[k * TILE + j] = NAME(fma)(tile[k * TILE + j], factor[j], -share);
        for (int j = 0; j < slices; j++) {
            if (label[r + j] >= 0) {
                tile[label[r + j] * TILE + j] -= keep;
                continue;
            }
            g[j] = 0;
            for (ptrdiff_t k = 0; k < n; k++)
                tile[k * TILE + j] = 0;
        }
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < TILE; j++)
                tile[k * TILE + j] *= g[j];
        NAME(scatter)(tile, offset, slices, n, 1, gx, TILE);
    }
}
