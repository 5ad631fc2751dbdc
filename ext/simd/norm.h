/* Normalisation over tiles of a matrix, and over single rows.
 *
 * A tile has `rows` rows of `width` elements; row i starts at x + i * stride. Sums are taken in double: a mean rounded
 * to float at every step would leave a feature with a large mean, or a constant one, far from zero. Only the numbers of
 * four or eight rows are added as they are, in pairs, which is exact where they are equal: most of the time of a sum in
 * double goes into conversions.
 *
 * A narrow tile (a few channels) would give the vector units nothing to do. Where its rows lie end to end, `fold` of
 * them are taken as one wide row, whose column j belongs to channel j % width; what is left over is a last, shorter
 * row.
 */
#include "vector.h"

#ifndef NARROW
#define NARROW 32 /* below this width rows are folded */
#define WIDE 64   /* to at most this width */
#define PARTS 16  /* of a sum along one row */
#define CHUNK 64  /* channels of a pixel at a time */

/* Columns are taken a few vectors at a time, whose means and scales stay in registers while the rows go by: f(vectors,
 * whole, count, first column) for each of them, where the first two are constants, and `count` columns are in the last,
 * which is not whole.
 */
#if VECTOR_BYTES == 64
#define MOST_VECTORS 4
#else
#define MOST_VECTORS 2
#endif
#define FOR_COLUMNS(width, f) \
    for (ptrdiff_t c_ = 0, left_; (left_ = (width) - c_) > 0;) { \
        if (MOST_VECTORS == 4 && left_ >= 4 * VLEN) { \
            f(4, 1, 4 * VLEN, c_); \
            c_ += 4 * VLEN; \
        } else if (left_ >= 2 * VLEN) { \
            f(2, 1, 2 * VLEN, c_); \
            c_ += 2 * VLEN; \
        } else if (left_ >= VLEN) { \
            f(1, 1, VLEN, c_); \
            c_ += VLEN; \
        } else { \
            f(1, 0, left_, c_); \
            break; \
        } \
    }
#define AT(p, j) (whole ? LOAD((p) + (j) * VLEN) : NAME(load_part)((p) + (j) * VLEN, count))
#define PUT(p, j, v) \
    do { \
        if (whole) \
            STORE((p) + (j) * VLEN, v); \
        else \
            NAME(store_part)((p) + (j) * VLEN, v, count); \
    } while (0)
#endif
#define VEC NAME(vec)

static inline ptrdiff_t NAME(fold)(ptrdiff_t width, ptrdiff_t stride)
{
    return width > 0 && width < NARROW && width == stride ? WIDE / width : 1;
}

/* Repeat a vector `fold` times. */
static inline void NAME(spread)(const REAL *v, ptrdiff_t width, ptrdiff_t fold, REAL *out)
{
    for (ptrdiff_t j = 0; j < width * fold; j++)
        out[j] = v[j % width];
}

/* Add up the `fold` parts of a vector, in order. */
static inline void NAME(gather)(const double *wide, ptrdiff_t width, ptrdiff_t fold, double *out)
{
    for (ptrdiff_t c = 0; c < width; c++) {
        double total = 0;
        for (ptrdiff_t k = 0; k < fold; k++)
            total += wide[k * width + c];
        out[c] = total;
    }
}

/* sum[c] += part[c] in double */
INLINE void NAME(add_parts)(const int vectors, const int whole, ptrdiff_t count, const VEC *part, double *RESTRICT sum)
{
    REAL numbers[MOST_VECTORS * VLEN];
    UNROLL(4)
    for (int j = 0; j < vectors; j++)
        STORE(numbers + j * VLEN, part[j]);
    if (whole)
        for (int k = 0; k < vectors * VLEN; k++)
            sum[k] += numbers[k];
    else
        for (ptrdiff_t k = 0; k < count; k++)
            sum[k] += numbers[k];
}

INLINE void NAME(sum_span)(
    const int vectors, const int whole, ptrdiff_t count, const REAL *x, ptrdiff_t rows, ptrdiff_t stride, double *sum)
{
    VEC part[MOST_VECTORS];
    ptrdiff_t r = 0;
    for (; r + 8 <= rows; r += 8, x += 8 * stride) {
        const REAL *half = x + 4 * stride;
        UNROLL(4)
        for (int j = 0; j < vectors; j++)
            part[j] = ((AT(x, j) + AT(x + stride, j)) + (AT(x + 2 * stride, j) + AT(x + 3 * stride, j)))
                      + ((AT(half, j) + AT(half + stride, j)) + (AT(half + 2 * stride, j) + AT(half + 3 * stride, j)));
        NAME(add_parts)(vectors, whole, count, part, sum);
    }
    for (; r < rows; r++, x += stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++)
            part[j] = AT(x, j);
        NAME(add_parts)(vectors, whole, count, part, sum);
    }
}

/* sum[c] += x[r][c] over all rows */
static void NAME(add_columns)(const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, double *sum)
{
#define SPAN(vectors, whole, count, c) NAME(sum_span)(vectors, whole, count, x + c, rows, stride, sum + c)
    FOR_COLUMNS(width, SPAN)
#undef SPAN
}

INLINE VEC NAME(square)(VEC a)
{
    return a * a;
}

INLINE void NAME(square_span)(
    const int vectors, const int whole, ptrdiff_t count, const REAL *x, ptrdiff_t rows, ptrdiff_t stride,
    const REAL *mean, double *square)
{
    VEC part[MOST_VECTORS], m[MOST_VECTORS];
    UNROLL(4)
    for (int j = 0; j < vectors; j++)
        m[j] = AT(mean, j);
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++)
            part[j] = (NAME(square)(AT(x, j) - m[j]) + NAME(square)(AT(x + stride, j) - m[j]))
                      + (NAME(square)(AT(x + 2 * stride, j) - m[j]) + NAME(square)(AT(x + 3 * stride, j) - m[j]));
        NAME(add_parts)(vectors, whole, count, part, square);
    }
    for (; r < rows; r++, x += stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++)
            part[j] = NAME(square)(AT(x, j) - m[j]);
        NAME(add_parts)(vectors, whole, count, part, square);
    }
}

/* square[c] += (x[r][c] - mean[c])^2 */
static void NAME(add_squares)(
    const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean, double *square)
{
#define SPAN(vectors, whole, count, c) \
    NAME(square_span)(vectors, whole, count, x + c, rows, stride, mean + c, square + c)
    FOR_COLUMNS(width, SPAN)
#undef SPAN
}

/* Of each of at most NORM_WIDTH columns of a tile: its sum, and the sum of squared distances from its mean. */
static void NAME(moments)(
    const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, double *sum, double *square)
{
    REAL mean[NORM_WIDTH]; /* rounded, so the squares need a small correction at the end */
    ptrdiff_t fold = NAME(fold)(width, stride), whole = rows / fold, wide = width * fold;
    const REAL *rest = x + whole * wide;
    ptrdiff_t left = (rows - whole * fold) * width;
    double folded[WIDE] = {0};
    double *target = fold > 1 ? folded : sum;
    for (ptrdiff_t c = 0; c < width; c++)
        sum[c] = square[c] = 0;
    NAME(add_columns)(x, whole, wide, fold > 1 ? wide : stride, target);
    if (fold > 1) {
        NAME(add_columns)(rest, 1, left, left, folded);
        NAME(gather)(folded, width, fold, sum);
    }
    for (ptrdiff_t c = 0; c < width; c++)
        mean[c] = (REAL)(sum[c] / (double)rows);
    if (fold > 1) {
        REAL means[WIDE];
        NAME(spread)(mean, width, fold, means);
        memset(folded, 0, sizeof folded);
        NAME(add_squares)(x, whole, wide, wide, means, folded);
        NAME(add_squares)(rest, 1, left, left, means, folded);
        NAME(gather)(folded, width, fold, square);
    } else {
        NAME(add_squares)(x, whole, width, stride, mean, square);
    }
    for (ptrdiff_t c = 0; c < width; c++) {
        double rounding = sum[c] / (double)rows - mean[c];
        square[c] -= (double)rows * rounding * rounding;
    }
}

INLINE void NAME(normalize_span)(
    const int vectors, const int whole, ptrdiff_t count, const int shifted, const int summed, const int relu,
    const REAL *x, const REAL *added, REAL *y, ptrdiff_t rows, ptrdiff_t stride, const REAL *mean, const REAL *scale,
    const REAL *shift)
{
    VEC m[MOST_VECTORS], s[MOST_VECTORS], h[MOST_VECTORS];
    UNROLL(4)
    for (int j = 0; j < vectors; j++) {
        m[j] = AT(mean, j);
        s[j] = AT(scale, j);
        h[j] = shifted ? AT(shift, j) : (VEC){0};
    }
    for (ptrdiff_t r = 0; r < rows; r++, x += stride, y += stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++) {
            const VEC d = AT(x, j) - m[j];
            VEC v = shifted ? NAME(multiply_add)(d, s[j], h[j]) : (VEC)(d * s[j]);
            if (summed)
                v = v + AT(added, j);
            if (relu)
                v = NAME(positive)(v);
            PUT(y, j, v);
        }
        if (summed)
            added += stride;
    }
}

static void NAME(normalize_rows)(
    const REAL *x, const REAL *added, REAL *y, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, int relu)
{
#define SPAN(vectors, whole, count, c) \
    if (added && relu) \
        NAME(normalize_span)(vectors, whole, count, 1, 1, 1, x + c, added + c, y + c, rows, stride, mean + c, \
                             scale + c, shift + c); \
    else if (added) \
        NAME(normalize_span)(vectors, whole, count, 1, 1, 0, x + c, added + c, y + c, rows, stride, mean + c, \
                             scale + c, shift + c); \
    else if (shift && relu) \
        NAME(normalize_span)(vectors, whole, count, 1, 0, 1, x + c, NULL, y + c, rows, stride, mean + c, scale + c, \
                             shift + c); \
    else if (shift) \
        NAME(normalize_span)(vectors, whole, count, 1, 0, 0, x + c, NULL, y + c, rows, stride, mean + c, scale + c, \
                             shift + c); \
    else if (relu) \
        NAME(normalize_span)(vectors, whole, count, 0, 0, 1, x + c, NULL, y + c, rows, stride, mean + c, scale + c, \
                             NULL); \
    else \
        NAME(normalize_span)(vectors, whole, count, 0, 0, 0, x + c, NULL, y + c, rows, stride, mean + c, scale + c, NULL)
    FOR_COLUMNS(width, SPAN)
#undef SPAN
}

/* y = (x - mean) scale + shift by column, plus `added`, or with `relu` its positive part. Without shift, which may be
 * NULL, nothing is added: product and sum would be rounded at once.
 */
static void NAME(normalize)(
    const REAL *x, const REAL *added, REAL *y, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, int relu)
{
    ptrdiff_t fold = NAME(fold)(width, stride);
    if (fold == 1) {
        NAME(normalize_rows)(x, added, y, rows, width, stride, mean, scale, shift, relu);
        return;
    }
    REAL means[WIDE], scales[WIDE], shifts[WIDE];
    NAME(spread)(mean, width, fold, means);
    NAME(spread)(scale, width, fold, scales);
    if (shift)
        NAME(spread)(shift, width, fold, shifts);
    ptrdiff_t whole = rows / fold, wide = width * fold, left = (rows - whole * fold) * width;
    NAME(normalize_rows)(x, added, y, whole, wide, wide, means, scales, shift ? shifts : NULL, relu);
    x += whole * wide, y += whole * wide, added = added ? added + whole * wide : NULL;
    NAME(normalize_rows)(x, added, y, 1, left, left, means, scales, shift ? shifts : NULL, relu);
}

/* gy, or with `masked` 0 where the result of normalize, worked out again from d = x - mean, is not positive. NaN counts
 * as positive.
 */
INLINE VEC NAME(masked)(const int masked, VEC gy, VEC d, VEC scale, VEC shift)
{
    return masked ? NAME(where_positive)(gy, NAME(multiply_add)(d, scale, shift)) : gy;
}

INLINE void NAME(dot_span)(
    const int vectors, const int whole, ptrdiff_t count, const int masked, const REAL *gy, const REAL *x, ptrdiff_t rows,
    ptrdiff_t stride, const REAL *mean, const REAL *scale, const REAL *shift, double *sum, double *dot)
{
    VEC m[MOST_VECTORS], s[MOST_VECTORS], h[MOST_VECTORS], sums[MOST_VECTORS], dots[MOST_VECTORS];
    UNROLL(4)
    for (int j = 0; j < vectors; j++) {
        m[j] = AT(mean, j);
        s[j] = masked ? AT(scale, j) : (VEC){0};
        h[j] = masked ? AT(shift, j) : (VEC){0};
    }
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * stride, gy += 4 * stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++) {
            const VEC d0 = AT(x, j) - m[j], d1 = AT(x + stride, j) - m[j];
            const VEC d2 = AT(x + 2 * stride, j) - m[j], d3 = AT(x + 3 * stride, j) - m[j];
            const VEC g0 = NAME(masked)(masked, AT(gy, j), d0, s[j], h[j]);
            const VEC g1 = NAME(masked)(masked, AT(gy + stride, j), d1, s[j], h[j]);
            const VEC g2 = NAME(masked)(masked, AT(gy + 2 * stride, j), d2, s[j], h[j]);
            const VEC g3 = NAME(masked)(masked, AT(gy + 3 * stride, j), d3, s[j], h[j]);
            sums[j] = (g0 + g1) + (g2 + g3);
            dots[j] = (g0 * d0 + g1 * d1) + (g2 * d2 + g3 * d3);
        }
        NAME(add_parts)(vectors, whole, count, sums, sum);
        NAME(add_parts)(vectors, whole, count, dots, dot);
    }
    for (; r < rows; r++, x += stride, gy += stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++) {
            const VEC d = AT(x, j) - m[j];
            sums[j] = NAME(masked)(masked, AT(gy, j), d, s[j], h[j]);
            dots[j] = sums[j] * d;
        }
        NAME(add_parts)(vectors, whole, count, sums, sum);
        NAME(add_parts)(vectors, whole, count, dots, dot);
    }
}

/* sum[c] += g, dot[c] += g (x - mean), where g is gy, or with a shift gy behind a ReLU */
static void NAME(add_dots_of)(
    const REAL *gy, const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, double *sum, double *dot)
{
#define SPAN(vectors, whole, count, c) \
    if (shift) \
        NAME(dot_span)(vectors, whole, count, 1, gy + c, x + c, rows, stride, mean + c, scale + c, shift + c, sum + c, \
                       dot + c); \
    else \
        NAME(dot_span)(vectors, whole, count, 0, gy + c, x + c, rows, stride, mean + c, NULL, NULL, sum + c, dot + c)
    FOR_COLUMNS(width, SPAN)
#undef SPAN
}

/* Of each column of a tile: the sum of gy, and the sum of gy (x - mean). With scale and shift gy is behind a ReLU, and
 * counts where (x - mean) scale + shift is positive.
 */
static void NAME(dots)(
    const REAL *gy, const REAL *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, double *sum, double *dot)
{
    ptrdiff_t fold = NAME(fold)(width, stride);
    if (fold == 1) {
        for (ptrdiff_t c = 0; c < width; c++)
            sum[c] = dot[c] = 0;
        NAME(add_dots_of)(gy, x, rows, width, stride, mean, scale, shift, sum, dot);
        return;
    }
    double sums[WIDE] = {0}, dots[WIDE] = {0};
    REAL means[WIDE], scales[WIDE], shifts[WIDE];
    NAME(spread)(mean, width, fold, means);
    if (shift) {
        NAME(spread)(scale, width, fold, scales);
        NAME(spread)(shift, width, fold, shifts);
        scale = scales, shift = shifts;
    }
    ptrdiff_t whole = rows / fold, wide = width * fold, left = (rows - whole * fold) * width;
    ptrdiff_t done = whole * wide;
    NAME(add_dots_of)(gy, x, whole, wide, wide, means, scale, shift, sums, dots);
    NAME(add_dots_of)(gy + done, x + done, 1, left, left, means, scale, shift, sums, dots);
    NAME(gather)(sums, width, fold, sum);
    NAME(gather)(dots, width, fold, dot);
}

INLINE void NAME(gradient_span)(
    const int vectors, const int whole, ptrdiff_t count, const int masked, const REAL *gy, const REAL *x, REAL *gx,
    ptrdiff_t rows, ptrdiff_t stride, const REAL *mean, const REAL *scale, const REAL *shift, const REAL *slope,
    const REAL *offset)
{
    VEC m[MOST_VECTORS], s[MOST_VECTORS], h[MOST_VECTORS], k[MOST_VECTORS], o[MOST_VECTORS];
    UNROLL(4)
    for (int j = 0; j < vectors; j++) {
        m[j] = AT(mean, j);
        s[j] = AT(scale, j);
        h[j] = masked ? AT(shift, j) : (VEC){0};
        k[j] = AT(slope, j);
        o[j] = AT(offset, j);
    }
    for (ptrdiff_t r = 0; r < rows; r++, x += stride, gy += stride, gx += stride) {
        UNROLL(4)
        for (int j = 0; j < vectors; j++) {
            const VEC d = AT(x, j) - m[j], g = NAME(masked)(masked, AT(gy, j), d, s[j], h[j]);
            PUT(gx, j, s[j] * (NAME(multiply_add)(d, k[j], g) + o[j]));
        }
    }
}

static void NAME(gradient_rows_of)(
    const REAL *gy, const REAL *x, REAL *gx, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, const REAL *slope, const REAL *offset)
{
#define SPAN(vectors, whole, count, c) \
    if (shift) \
        NAME(gradient_span)(vectors, whole, count, 1, gy + c, x + c, gx + c, rows, stride, mean + c, scale + c, \
                            shift + c, slope + c, offset + c); \
    else \
        NAME(gradient_span)(vectors, whole, count, 0, gy + c, x + c, gx + c, rows, stride, mean + c, scale + c, NULL, \
                            slope + c, offset + c)
    FOR_COLUMNS(width, SPAN)
#undef SPAN
}

/* gx = scale (gy + (x - mean) slope + offset) by column; with shift, gy is behind a ReLU as in `dots` */
static void NAME(gradient)(
    const REAL *gy, const REAL *x, REAL *gx, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride, const REAL *mean,
    const REAL *scale, const REAL *shift, const REAL *slope, const REAL *offset)
{
    ptrdiff_t fold = NAME(fold)(width, stride);
    if (fold == 1) {
        NAME(gradient_rows_of)(gy, x, gx, rows, width, stride, mean, scale, shift, slope, offset);
        return;
    }
    REAL means[WIDE], scales[WIDE], shifts[WIDE], slopes[WIDE], offsets[WIDE];
    if (shift) {
        NAME(spread)(shift, width, fold, shifts);
        shift = shifts;
    }
    NAME(spread)(mean, width, fold, means);
    NAME(spread)(scale, width, fold, scales);
    NAME(spread)(slope, width, fold, slopes);
    NAME(spread)(offset, width, fold, offsets);
    ptrdiff_t whole = rows / fold, wide = width * fold, left = (rows - whole * fold) * width;
    ptrdiff_t done = whole * wide;
    NAME(gradient_rows_of)(gy, x, gx, whole, wide, wide, means, scales, shift, slopes, offsets);
    NAME(gradient_rows_of)(gy + done, x + done, gx + done, 1, left, left, means, scales, shift, slopes, offsets);
}

/* Single rows ---------------------------------------------------------------------------------------------------
 *
 * Sums along a row are taken in PARTS parts, which are added up in a fixed order at the end.
 */

static inline double NAME(total)(const double *part)
{
    double a = 0;
    for (int j = 0; j < PARTS; j++)
        a += part[j];
    return a;
}

/* y = (x - mean) rstd weight + bias over one row; stats receives mean, variance and rstd. weight, bias may be NULL. */
static void NAME(row_norm)(
    const REAL *RESTRICT x, const REAL *RESTRICT weight, const REAL *RESTRICT bias, REAL *RESTRICT y,
    ptrdiff_t n, REAL eps, REAL *mean, REAL *var, REAL *rstd)
{
    double part[PARTS] = {0};
    ptrdiff_t i = 0;
    for (; i + PARTS <= n; i += PARTS)
        for (int j = 0; j < PARTS; j++)
            part[j] += x[i + j];
    for (; i < n; i++)
        part[0] += x[i];
    REAL m = (REAL)(NAME(total)(part) / (double)n);
    memset(part, 0, sizeof part);
    for (i = 0; i + PARTS <= n; i += PARTS)
        for (int j = 0; j < PARTS; j++) {
            double d = x[i + j] - m;
            part[j] += d * d;
        }
    for (; i < n; i++) {
        double d = x[i] - m;
        part[0] += d * d;
    }
    REAL v = (REAL)(NAME(total)(part) / (double)n);
#if REAL_IS_FLOAT
    REAL s = 1 / sqrtf(v + eps);
#else
    REAL s = 1 / sqrt(v + eps);
#endif
    if (weight && bias)
        for (i = 0; i < n; i++)
            y[i] = (x[i] - m) * s * weight[i] + bias[i];
    else if (weight)
        for (i = 0; i < n; i++)
            y[i] = (x[i] - m) * s * weight[i];
    else if (bias)
        for (i = 0; i < n; i++)
            y[i] = (x[i] - m) * s + bias[i];
    else
        for (i = 0; i < n; i++)
            y[i] = (x[i] - m) * s;
    *mean = m, *var = v, *rstd = s;
}

/* With g = gy weight and z = (x - mean) rstd: gx = rstd (g - mean(g) - z mean(g z)). weight may be NULL. */
static void NAME(row_gradient)(
    const REAL *RESTRICT gy, const REAL *RESTRICT x, const REAL *RESTRICT weight, REAL *RESTRICT gx,
    ptrdiff_t n, REAL mean, REAL rstd)
{
    double sums[PARTS] = {0}, dots[PARTS] = {0};
    ptrdiff_t i = 0;
    for (; i + PARTS <= n; i += PARTS)
        for (int j = 0; j < PARTS; j++) {
            double g = weight ? gy[i + j] * weight[i + j] : gy[i + j];
            sums[j] += g;
            dots[j] += g * ((x[i + j] - mean) * rstd);
        }
    for (; i < n; i++) {
        double g = weight ? gy[i] * weight[i] : gy[i];
        sums[0] += g;
        dots[0] += g * ((x[i] - mean) * rstd);
    }
    REAL a = (REAL)(NAME(total)(sums) / (double)n), b = (REAL)(NAME(total)(dots) / (double)n);
    for (i = 0; i < n; i++) {
        REAL g = weight ? gy[i] * weight[i] : gy[i];
        gx[i] = (g - (x[i] - mean) * rstd * b - a) * rstd;
    }
}

/* Of each column of a tile whose row i has its own mean[i * step] and rstd[i * step]: the sums of gy and of gy z. */
static void NAME(row_dots)(
    const REAL *RESTRICT gy, const REAL *RESTRICT x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t stride,
    const REAL *mean, const REAL *rstd, ptrdiff_t step, double *RESTRICT sum, double *RESTRICT dot)
{
    for (ptrdiff_t c = 0; c < width; c++)
        sum[c] = dot[c] = 0;
    for (ptrdiff_t r = 0; r < rows; r++, x += stride, gy += stride) {
        REAL m = mean[r * step], s = rstd[r * step];
        for (ptrdiff_t c = 0; c < width; c++) {
            sum[c] += gy[c];
            dot[c] += (double)gy[c] * ((x[c] - m) * s);
        }
    }
}

/* Across channels -----------------------------------------------------------------------------------------------
 *
 * One pixel has n channels that lie next to each other. Channels are taken CHUNK at a time, with the neighbours that
 * the window reaches on either side, at most NORM_REACH, in a buffer; those outside of the pixel are 0.
 */

/* s^-beta; the usual 3/4 by two square roots, which have vector instructions */
static inline void NAME(negative_power)(const REAL *RESTRICT s, REAL *RESTRICT p, ptrdiff_t n, double beta)
{
    if (beta == 0.75)
        for (ptrdiff_t c = 0; c < n; c++) {
#if REAL_IS_FLOAT
            REAL root = sqrtf(s[c]);
            p[c] = 1 / (root * sqrtf(root));
#else
            REAL root = sqrt(s[c]);
            p[c] = 1 / (root * sqrt(root));
#endif
        }
    else
        for (ptrdiff_t c = 0; c < n; c++)
#if REAL_IS_FLOAT
            p[c] = powf(s[c], (REAL)-beta);
#else
            p[c] = pow(s[c], -beta);
#endif
}

/* scale = k + alpha (sum of x^2 over the channels c - below .. c + above), y = x scale^-beta */
static void NAME(response)(
    const REAL *RESTRICT x, REAL *RESTRICT y, REAL *RESTRICT scale, ptrdiff_t n, ptrdiff_t below,
    ptrdiff_t above, REAL alpha, double beta, REAL k)
{
    REAL square[CHUNK + 2 * NORM_REACH], power[CHUNK];
    for (ptrdiff_t first = 0; first < n; first += CHUNK) {
        ptrdiff_t count = n - first < CHUNK ? n - first : CHUNK;
        for (ptrdiff_t j = 0; j < count + below + above; j++) {
            ptrdiff_t c = first - below + j;
            square[j] = c >= 0 && c < n ? x[c] * x[c] : 0;
        }
        REAL *s = scale + first;
        for (ptrdiff_t c = 0; c < count; c++)
            s[c] = 0;
        for (ptrdiff_t j = 0; j <= below + above; j++)
            for (ptrdiff_t c = 0; c < count; c++)
                s[c] += square[c + j];
        for (ptrdiff_t c = 0; c < count; c++)
            s[c] = alpha * s[c] + k;
        NAME(negative_power)(s, power, count, beta);
        for (ptrdiff_t c = 0; c < count; c++)
            y[first + c] = x[first + c] * power[c];
    }
}

/* gx = gy s^-beta - factor x (sum of gy x s^(-beta - 1) over the channels c - below .. c + above) */
static void NAME(response_gradient)(
    const REAL *RESTRICT gy, const REAL *RESTRICT x, const REAL *RESTRICT scale, REAL *RESTRICT gx,
    ptrdiff_t n, ptrdiff_t below, ptrdiff_t above, REAL factor, double beta)
{
    REAL power[CHUNK + 2 * NORM_REACH], term[CHUNK + 2 * NORM_REACH], total[CHUNK];
    for (ptrdiff_t first = 0; first < n; first += CHUNK) {
        ptrdiff_t count = n - first < CHUNK ? n - first : CHUNK;
        ptrdiff_t begin = first < below ? 0 : first - below;
        ptrdiff_t end = n - first - count < above ? n : first + count + above;
        NAME(negative_power)(scale + begin, power + (begin - first + below), end - begin, beta);
        for (ptrdiff_t j = 0; j < count + below + above; j++) {
            ptrdiff_t c = first - below + j;
            term[j] = c >= 0 && c < n ? power[j] * (gy[c] * x[c] / scale[c]) : 0;
        }
        for (ptrdiff_t c = 0; c < count; c++)
            total[c] = 0;
        for (ptrdiff_t j = 0; j <= below + above; j++)
            for (ptrdiff_t c = 0; c < count; c++)
                total[c] += term[c + j];
        for (ptrdiff_t c = 0; c < count; c++)
            gx[first + c] = gy[first + c] * power[c + below] - x[first + c] * total[c] * factor;
    }
}

#undef VEC
