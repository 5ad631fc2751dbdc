/* Activations: the formulas of nnx/backends/base/activation.py. A gradient kernel is called with x = gy and z = the
 * saved input or result: in its expression a is gy and b the saved number. Comparisons let NaN pass.
 */
#include "elementwise.h"
#include "rows.h"

/* Cut x where it is a factor only: 0 * inf would be NaN, and the other factor is 0 or 1 long before. */
static inline REAL NAME(near_below)(REAL x)
{
    return x < -1000 ? -1000 : x;
}

static inline REAL NAME(near)(REAL x)
{
    x = x < -1000 ? -1000 : x;
    return x > 1000 ? 1000 : x;
}

/* -- piecewise linear -- */

MAP2(add, (void)p, a + b)

MAP1(relu, (void)p, a <= 0 ? 0 : a)
MAP2(relu_backward, (void)p, b <= 0 ? 0 : a)

MAP1(leaky_relu, const REAL slope = p[0], a > 0 ? a : slope * a)
MAP2(leaky_relu_backward, const REAL slope = p[0], b > 0 ? a : slope * a)

MAP1(hardtanh, const REAL low = p[0]; const REAL high = p[1], a < low ? low : (a > high ? high : a))
MAP2(hardtanh_backward, const REAL low = p[0]; const REAL high = p[1], (b <= low) | (b >= high) ? 0 : a)

/* -- built on exp -- */

/* p: scale, scale alpha, rate */
MAP1(elu, const REAL scale = p[0]; const REAL bottom = p[1]; const REAL rate = p[2],
     a > 0 ? scale * a : bottom * NAME(expm1_below)(rate * a))
/* p: scale, scale alpha rate, rate */
MAP2(elu_backward, const REAL scale = p[0]; const REAL bottom = p[1]; const REAL rate = p[2],
     a * (b > 0 ? scale : bottom * NAME(exp)(rate * (b > 0 ? 0 : b))))

MAP1(sigmoid, (void)p, NAME(logistic)(a))
MAP2(sigmoid_backward, (void)p, a * (b * (1 - b)))

MAP1(tanh, (void)p, NAME(tanh_of)(a))
MAP2(tanh_backward, (void)p, a * ((1 - b) * (1 + b)))

/* p: beta, threshold */
MAP1(softplus, const REAL beta = p[0]; const REAL threshold = p[1],
     beta * a > threshold ? a : NAME(log_one_plus_exp)(beta * a) / beta)
MAP2(softplus_backward, const REAL beta = p[0]; const REAL threshold = p[1],
     beta * b > threshold ? a : a * NAME(logistic)(beta * b))

/* d/dx of x s(x) with s = sigmoid: s + x s (1 - s) */
static inline REAL NAME(silu_slope)(REAL x)
{
    const REAL e = NAME(exp)(-NAME(abs)(x)), large = 1 / (1 + e), small = e * large;
    const REAL s = x >= 0 ? large : small, others = x >= 0 ? small : large;
    return s * NAME(fma)(NAME(near)(x), others, 1);
}

MAP1(silu, (void)p, NAME(near_below)(a) * NAME(logistic)(a))
MAP2(silu_backward, (void)p, a * NAME(silu_slope)(b))

/* tanh(log(1 + exp(x))) = n / d, and d - n in `gap`; for x > 0 all are divided by exp(2 x). */
static inline REAL NAME(mish_ratio)(REAL x, REAL *n, REAL *gap)
{
    const REAL e = NAME(exp)(-NAME(abs)(x));
    *n = x > 0 ? 1 + 2 * e : e * (e + 2);
    *gap = x > 0 ? 2 * e * e : 2;
    return e;
}

static inline REAL NAME(mish_of)(REAL x)
{
    REAL n, gap;
    NAME(mish_ratio)(x, &n, &gap);
    return NAME(near_below)(x) * (n / (n + gap));
}

static inline REAL NAME(mish_slope)(REAL x)
{
    REAL n, gap;
    const REAL e = NAME(mish_ratio)(x, &n, &gap), d = n + gap, t = n / d;
    const REAL s = (x >= 0 ? 1 : e) / (1 + e);
    return NAME(fma)(NAME(near)(x) * (gap / d * (1 + t)), s, t); /* 1 - t^2 = (gap / d) (1 + t) */
}

MAP1(mish, (void)p, NAME(mish_of)(a))
MAP2(mish_backward, (void)p, a * NAME(mish_slope)(b))

/* x P(X <= x) for a standard normal X */
static inline REAL NAME(gelu_of)(REAL x)
{
    REAL e;
    const REAL tail = NAME(normal_tail)(NAME(abs)(x), &e);
    return NAME(near_below)(x) * (x < 0 ? tail : 1 - tail);
}

static inline REAL NAME(gelu_slope)(REAL x)
{
    REAL e;
    const REAL tail = NAME(normal_tail)(NAME(abs)(x), &e);
    return NAME(fma)(NAME(near)(x) * (REAL)0.3989422804014327, e, x < 0 ? tail : 1 - tail);
}

MAP1(gelu, (void)p, NAME(gelu_of)(a))
MAP2(gelu_backward, (void)p, a * NAME(gelu_slope)(b))

/* x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3); the argument 2 u */
static inline REAL NAME(gelu_tanh_argument)(REAL x)
{
    return (REAL)1.5957691216057307 * NAME(fma)((REAL)0.044715 * x, x * x, x);
}

static inline REAL NAME(gelu_tanh_slope)(REAL x)
{
    const REAL c = NAME(near)(x), v = NAME(gelu_tanh_argument)(c);
    const REAL e = NAME(exp)(-NAME(abs)(v)), large = 1 / (1 + e), small = e * large;
    const REAL v_slope = (REAL)1.5957691216057307 * NAME(fma)((REAL)0.134145 * c, c, 1);
    return NAME(fma)(c * (large * small), v_slope, v >= 0 ? large : small);
}

MAP1(gelu_tanh, (void)p, NAME(near_below)(a) * NAME(logistic)(NAME(gelu_tanh_argument)(NAME(near)(a))))
MAP2(gelu_tanh_backward, (void)p, a * NAME(gelu_tanh_slope)(b))

/* -- over the slices `first`, `first + 1`, ... of an array (outer, n, inner); inner is 1 if n > SHORT -- */

/* The kernel `name` of one input out of name_row, for a long row, and name_tiles, for tiles of a constant width. */
#define SLICES1(name) \
    static void NAME(name)(const REAL *x, REAL *y, ptrdiff_t first, ptrdiff_t count, ptrdiff_t n, ptrdiff_t inner) \
    { \
        if (n > SHORT) \
            for (ptrdiff_t s = first; s < first + count; s++) \
                NAME(name##_row)(x + s * n, y + s * n, n); \
        else if (NAME(tile_width)(n, inner) == BROAD) \
            NAME(name##_tiles)(x, y, first, first + count, n, inner, BROAD); \
        else \
            NAME(name##_tiles)(x, y, first, first + count, n, inner, TILE); \
    }

/* The same for a gradient. */
#define SLICES2(name) \
    static void NAME(name)( \
        const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t first, ptrdiff_t count, ptrdiff_t n, ptrdiff_t inner) \
    { \
        if (n > SHORT) \
            for (ptrdiff_t s = first; s < first + count; s++) \
                NAME(name##_row)(gy + s * n, y + s * n, gx + s * n, n); \
        else if (NAME(tile_width)(n, inner) == BROAD) \
            NAME(name##_tiles)(gy, y, gx, first, first + count, n, inner, BROAD); \
        else \
            NAME(name##_tiles)(gy, y, gx, first, first + count, n, inner, TILE); \
    }

static inline void NAME(softmax_row)(const REAL *x, REAL *RESTRICT y, ptrdiff_t n)
{
    const REAL factor = 1 / NAME(row_exp)(x, y, n, NAME(row_max)(x, n));
    for (ptrdiff_t k = 0; k < n; k++)
        y[k] *= factor;
}

NNX_INLINE void NAME(softmax_tiles)(
    const REAL *x, REAL *y, ptrdiff_t first, ptrdiff_t end, ptrdiff_t n, ptrdiff_t inner, const int width)
{
    REAL tile[ROOM], top[BROAD], total[BROAD];
    ptrdiff_t offset[BROAD];
    for (ptrdiff_t s = first; s < end; s += width) {
        const int slices = NAME(tile_at)(s, end, n, inner, offset, width);
        NAME(gather)(x, offset, slices, n, inner, tile, width);
        NAME(tile_max)(tile, n, top, width);
        NAME(tile_exp)(tile, n, top, total, width);
        for (int j = 0; j < width; j++)
            total[j] = 1 / total[j];
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < width; j++)
                tile[k * width + j] *= total[j];
        NAME(scatter)(tile, offset, slices, n, inner, y, width);
    }
}

SLICES1(softmax)

/* gx = y (gy - sum(gy y)) */
static inline void NAME(softmax_backward_row)(const REAL *gy, const REAL *y, REAL *RESTRICT gx, ptrdiff_t n)
{
    const REAL dot = NAME(row_dot)(gy, y, n);
    for (ptrdiff_t k = 0; k < n; k++)
        gx[k] = y[k] * (gy[k] - dot);
}

NNX_INLINE void NAME(softmax_backward_tiles)(
    const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t first, ptrdiff_t end, ptrdiff_t n, ptrdiff_t inner,
    const int width)
{
    REAL tile[ROOM], other[ROOM], dot[BROAD];
    ptrdiff_t offset[BROAD];
    for (ptrdiff_t s = first; s < end; s += width) {
        const int slices = NAME(tile_at)(s, end, n, inner, offset, width);
        NAME(gather)(gy, offset, slices, n, inner, tile, width);
        NAME(gather)(y, offset, slices, n, inner, other, width);
        NAME(tile_dot)(tile, other, n, dot, width);
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < width; j++)
                tile[k * width + j] = other[k * width + j] * (tile[k * width + j] - dot[j]);
        NAME(scatter)(tile, offset, slices, n, inner, gx, width);
    }
}

SLICES2(softmax_backward)

static inline void NAME(log_softmax_row)(const REAL *x, REAL *RESTRICT y, ptrdiff_t n)
{
    const REAL top = NAME(row_max)(x, n), log_total = NAME(log_above)(NAME(row_exp)(x, NULL, n, top));
    for (ptrdiff_t k = 0; k < n; k++)
        y[k] = x[k] - top - log_total;
}

NNX_INLINE void NAME(log_softmax_tiles)(
    const REAL *x, REAL *y, ptrdiff_t first, ptrdiff_t end, ptrdiff_t n, ptrdiff_t inner, const int width)
{
    REAL tile[ROOM], scores[ROOM], top[BROAD], total[BROAD];
    ptrdiff_t offset[BROAD];
    for (ptrdiff_t s = first; s < end; s += width) {
        const int slices = NAME(tile_at)(s, end, n, inner, offset, width);
        NAME(gather)(x, offset, slices, n, inner, scores, width);
        memcpy(tile, scores, n * width * sizeof(REAL));
        NAME(tile_max)(tile, n, top, width);
        NAME(tile_exp)(tile, n, top, total, width);
        for (int j = 0; j < width; j++)
            total[j] = NAME(log_above)(total[j]);
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < width; j++)
                scores[k * width + j] = scores[k * width + j] - top[j] - total[j];
        NAME(scatter)(scores, offset, slices, n, inner, y, width);
    }
}

SLICES1(log_softmax)

/* gx = gy - exp(y) sum(gy) */
static inline void NAME(log_softmax_backward_row)(const REAL *gy, const REAL *y, REAL *RESTRICT gx, ptrdiff_t n)
{
    const REAL sum = NAME(row_sum)(gy, n, 0);
    NAME(row_exp)(y, gx, n, 0);
    for (ptrdiff_t k = 0; k < n; k++)
        gx[k] = NAME(fma)(-sum, gx[k], gy[k]);
}

NNX_INLINE void NAME(log_softmax_backward_tiles)(
    const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t first, ptrdiff_t end, ptrdiff_t n, ptrdiff_t inner,
    const int width)
{
    REAL tile[ROOM], other[ROOM], sum[BROAD];
    const REAL none[BROAD] = {0};
    ptrdiff_t offset[BROAD];
    for (ptrdiff_t s = first; s < end; s += width) {
        const int slices = NAME(tile_at)(s, end, n, inner, offset, width);
        NAME(gather)(gy, offset, slices, n, inner, tile, width);
        NAME(gather)(y, offset, slices, n, inner, other, width);
        NAME(tile_sum)(tile, n, none, sum, width);
        for (ptrdiff_t k = 0; k < n; k++)
            for (int j = 0; j < width; j++)
                tile[k * width + j] = NAME(fma)(-sum[j], NAME(exp)(other[k * width + j]), tile[k * width + j]);
        NAME(scatter)(tile, offset, slices, n, inner, gx, width);
    }
}

SLICES2(log_softmax_backward)

/* -- dropout -- */

/* y = scale x where keep, else 0 */
static void NAME(dropout)(
    const REAL *RESTRICT x, const unsigned char *RESTRICT keep, REAL *RESTRICT y, ptrdiff_t n, REAL scale)
{
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = keep[i] ? scale * x[i] : 0;
}

#undef SLICES1
#undef SLICES2
