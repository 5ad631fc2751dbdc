/* Convolution without a column matrix: each tap's number is read where it lies in the image.
 *
 * Images are channels-last and carry the zeros of their padding, so that the taps of a filter's row are one run of
 * memory. The sums of up to ROWS pixels (forward) or ROWS numbers of a run (weight gradient) times one or two vectors of
 * filters stay in registers. ext/direct.pyx cuts the images into bands.
 */
#include "vector.h"

#define PANEL (2 * VLEN) /* as ext/simd/gemm.h packs */
#define ROWS 12          /* with one vector of filters: 12 sums fit 16 registers too */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS_WIDE 12 /* with two vectors */
#else
#define ROWS_WIDE 6
#endif

/* out[r][0..vectors) = bias + sum over runs and their numbers of x[r * step + ...] w[...]; `rows`, `vectors` are constants. */
INLINE void NAME(pixels)(const int rows, const int vectors, const struct nnx_taps *d, const REAL *x,
                                const REAL *w, const REAL *bias, const int relu, REAL *out, ptrdiff_t ldo)
{
    const ptrdiff_t step = d->pixel_step, length = d->length;
    NAME(vec) sum[ROWS][2];
    UNROLL(12)
    for (int r = 0; r < rows; r++) {
        sum[r][0] = LOAD(bias);
        if (vectors == 2)
            sum[r][1] = LOAD(bias + VLEN);
    }
    for (ptrdiff_t run = 0; run < d->runs; run++) {
        const REAL *from = x + d->offset[run];
        for (ptrdiff_t l = 0; l < length; l++, w += PANEL) {
            const NAME(vec) w0 = LOAD(w), w1 = LOAD(w + VLEN);
            UNROLL(12)
            for (int r = 0; r < rows; r++) {
                const REAL a = from[r * step + l];
                sum[r][0] += a * w0;
                if (vectors == 2)
                    sum[r][1] += a * w1;
            }
        }
    }
    UNROLL(12)
    for (int r = 0; r < rows; r++) {
        STORE(out + r * ldo, relu ? NAME(positive)(sum[r][0]) : sum[r][0]);
        if (vectors == 2)
            STORE(out + r * ldo + VLEN, relu ? NAME(positive)(sum[r][1]) : sum[r][1]);
    }
}

#define PIXELS_ARGUMENTS \
    const struct nnx_taps *d, const REAL *x, const REAL *w, const REAL *bias, int relu, REAL *out, ptrdiff_t ldo
#define PIXELS_CASE(n, vectors) \
    case n: \
        NAME(pixels)(n, vectors, d, x, w, bias, relu, out, ldo); \
        break;

static void NAME(pixels_narrow)(int rows, PIXELS_ARGUMENTS)
{
    switch (rows) {
        PIXELS_CASE(1, 1)
        PIXELS_CASE(2, 1)
        PIXELS_CASE(3, 1)
        PIXELS_CASE(4, 1)
        PIXELS_CASE(5, 1)
        PIXELS_CASE(6, 1)
        PIXELS_CASE(7, 1)
        PIXELS_CASE(8, 1)
        PIXELS_CASE(9, 1)
        PIXELS_CASE(10, 1)
        PIXELS_CASE(11, 1)
        PIXELS_CASE(12, 1)
    }
}

static void NAME(pixels_wide)(int rows, PIXELS_ARGUMENTS)
{
    switch (rows) {
        PIXELS_CASE(1, 2)
        PIXELS_CASE(2, 2)
        PIXELS_CASE(3, 2)
        PIXELS_CASE(4, 2)
        PIXELS_CASE(5, 2)
        PIXELS_CASE(6, 2)
#if ROWS_WIDE == 12
        PIXELS_CASE(7, 2)
        PIXELS_CASE(8, 2)
        PIXELS_CASE(9, 2)
        PIXELS_CASE(10, 2)
        PIXELS_CASE(11, 2)
        PIXELS_CASE(12, 2)
#endif
    }
}

/* y[rows][columns][F] = bias + x * w, and with `relu` its positive part; pixels of y are ldy numbers apart.
 *
 * packed: panels of filters, each [runs][length][PANEL] with zeros behind the last filter.
 * line: scratch of columns * F + PANEL numbers. Whole vectors are stored there pixel by pixel, each on top of what the
 * one before it wrote too far. */
static void NAME(direct_forward)(const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *packed,
                                 const REAL *bias, int relu, REAL *y, ptrdiff_t ldy, REAL *line)
{
    const ptrdiff_t K = d->runs * d->length, columns = d->columns;
    REAL tile[ROWS * PANEL];
    for (ptrdiff_t f = 0; f < F; f += PANEL, packed += K * PANEL) {
        const ptrdiff_t width = F - f < PANEL ? F - f : PANEL;
        const int narrow = width <= VLEN, most = narrow ? ROWS : ROWS_WIDE;
        const int whole = width == PANEL || width == VLEN, overlap = !whole && ldy == width;
        REAL start[PANEL] = {0};
        if (bias)
            memcpy(start, bias + f, width * sizeof(REAL));
        for (ptrdiff_t i = 0; i < d->rows; i++) {
            REAL *row = overlap ? line : y + i * columns * ldy + f;
            /* blocks of even size: 28 pixels are 10 + 9 + 9, not 12 + 12 + 4 */
            ptrdiff_t blocks = (columns + most - 1) / most, j = 0;
            for (; blocks > 0; blocks--) {
                const int rows = (int)((columns - j + blocks - 1) / blocks);
                const REAL *from = x + i * d->row_step + j * d->pixel_step;
                REAL *out = whole || overlap ? row + j * ldy : tile;
                const ptrdiff_t ldo = whole || overlap ? ldy : PANEL;
                if (narrow)
                    NAME(pixels_narrow)(rows, d, from, packed, start, relu, out, ldo);
                else
                    NAME(pixels_wide)(rows, d, from, packed, start, relu, out, ldo);
                if (out == tile)
                    for (int r = 0; r < rows; r++)
                        memcpy(row + (j + r) * ldy, tile + r * PANEL, width * sizeof(REAL));
                j += rows;
            }
            if (overlap)
                memcpy(y + i * columns * ldy, line, columns * ldy * sizeof(REAL));
        }
    }
}

/* sum[n][0..vectors) += sum over pixels of x[pixel + n] gy[pixel]: `count` numbers of a run, a constant. */
INLINE void NAME(products)(const int count, const int vectors, const struct nnx_taps *d, const REAL *x,
                                  ptrdiff_t F, const REAL *gy, REAL *out, ptrdiff_t ld)
{
    const ptrdiff_t step = d->pixel_step, columns = d->columns;
    NAME(vec) sum[ROWS][2];
    UNROLL(12)
    for (int n = 0; n < count; n++) {
        sum[n][0] = LOAD(out + n * ld);
        if (vectors == 2)
            sum[n][1] = LOAD(out + n * ld + VLEN);
    }
    for (ptrdiff_t i = 0; i < d->rows; i++) {
        const REAL *from = x + i * d->row_step;
        for (ptrdiff_t j = 0; j < columns; j++, from += step, gy += F) {
            NAME(vec) g0 = LOAD(gy), g1 = g0;
            if (vectors == 2)
                g1 = LOAD(gy + VLEN);
            UNROLL(12)
            for (int n = 0; n < count; n++) {
                const REAL a = from[n];
                sum[n][0] += a * g0;
                if (vectors == 2)
                    sum[n][1] += a * g1;
            }
        }
    }
    UNROLL(12)
    for (int n = 0; n < count; n++) {
        STORE(out + n * ld, sum[n][0]);
        if (vectors == 2)
            STORE(out + n * ld + VLEN, sum[n][1]);
    }
}

#define PRODUCTS_CASE(n, vectors) \
    case n: \
        NAME(products)(n, vectors, d, x, F, gy, out, ld); \
        break;

static void NAME(products_narrow)(int count, const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *gy,
                                  REAL *out, ptrdiff_t ld)
{
    switch (count) {
        PRODUCTS_CASE(1, 1)
        PRODUCTS_CASE(2, 1)
        PRODUCTS_CASE(3, 1)
        PRODUCTS_CASE(4, 1)
        PRODUCTS_CASE(5, 1)
        PRODUCTS_CASE(6, 1)
        PRODUCTS_CASE(7, 1)
        PRODUCTS_CASE(8, 1)
        PRODUCTS_CASE(9, 1)
        PRODUCTS_CASE(10, 1)
        PRODUCTS_CASE(11, 1)
        PRODUCTS_CASE(12, 1)
    }
}

static void NAME(products_wide)(int count, const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *gy,
                                REAL *out, ptrdiff_t ld)
{
    switch (count) {
        PRODUCTS_CASE(1, 2)
        PRODUCTS_CASE(2, 2)
        PRODUCTS_CASE(3, 2)
        PRODUCTS_CASE(4, 2)
        PRODUCTS_CASE(5, 2)
        PRODUCTS_CASE(6, 2)
#if ROWS_WIDE == 12
        PRODUCTS_CASE(7, 2)
        PRODUCTS_CASE(8, 2)
        PRODUCTS_CASE(9, 2)
        PRODUCTS_CASE(10, 2)
        PRODUCTS_CASE(11, 2)
        PRODUCTS_CASE(12, 2)
#endif
    }
}

/* sum[runs * length][ld] += the band's part of the weight gradient. gy's pixels are ldg numbers apart, and it is readable
 * up to a vector behind its end; what the numbers behind F add to lands in sum's columns behind F, which mean nothing. */
static void NAME(direct_weight)(const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *gy, ptrdiff_t ldg,
                                REAL *sum, ptrdiff_t ld)
{
    for (ptrdiff_t f = 0; f < F;) {
        const int narrow = F - f <= VLEN;
        const ptrdiff_t most = narrow ? ROWS : ROWS_WIDE;
        for (ptrdiff_t run = 0; run < d->runs; run++) {
            ptrdiff_t blocks = (d->length + most - 1) / most, l = 0;
            for (; blocks > 0; blocks--) {
                const int count = (int)((d->length - l + blocks - 1) / blocks);
                const REAL *from = x + d->offset[run] + l;
                REAL *out = sum + (run * d->length + l) * ld + f;
                if (narrow)
                    NAME(products_narrow)(count, d, from, ldg, gy + f, out, ld);
                else
                    NAME(products_wide)(count, d, from, ldg, gy + f, out, ld);
                l += count;
            }
        }
        f += narrow ? VLEN : PANEL;
    }
}

/* One filter per channel: y[pixel][c] = bias[c] + sum over taps of x[pixel + tap][c] w[tap][c], for C >= a vector of
 * channels. Where C is no whole number of vectors the last one begins earlier: it computes some channels again. */
static void NAME(direct_depthwise)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *w,
                                   const REAL *bias, int relu, REAL *y)
{
    const ptrdiff_t taps = d->runs, columns = d->columns, step = d->pixel_step;
    for (ptrdiff_t i = 0; i < d->rows; i++)
        for (ptrdiff_t c = 0; c < C; c += VLEN) {
            const ptrdiff_t at = c + VLEN <= C ? c : C - VLEN;
            const REAL *from = x + i * d->row_step + at;
            REAL *to = y + i * columns * C + at;
            const NAME(vec) start = bias ? LOAD(bias + at) : (NAME(vec)){0};
            ptrdiff_t j = 0;
            for (; j + 4 <= columns; j += 4, from += 4 * step, to += 4 * C) {
                NAME(vec) s0 = start, s1 = start, s2 = start, s3 = start;
                for (ptrdiff_t k = 0; k < taps; k++) {
                    const REAL *p = from + d->offset[k];
                    const NAME(vec) f = LOAD(w + k * C + at);
                    s0 += LOAD(p) * f;
                    s1 += LOAD(p + step) * f;
                    s2 += LOAD(p + 2 * step) * f;
                    s3 += LOAD(p + 3 * step) * f;
                }
                STORE(to, relu ? NAME(positive)(s0) : s0);
                STORE(to + C, relu ? NAME(positive)(s1) : s1);
                STORE(to + 2 * C, relu ? NAME(positive)(s2) : s2);
                STORE(to + 3 * C, relu ? NAME(positive)(s3) : s3);
            }
            for (; j < columns; j++, from += step, to += C) {
                NAME(vec) s = start;
                for (ptrdiff_t k = 0; k < taps; k++)
                    s += LOAD(from + d->offset[k]) * LOAD(w + k * C + at);
                STORE(to, relu ? NAME(positive)(s) : s);
            }
        }
}

/* sum[tap][c] += sum over pixels of x[pixel + tap][c] gy[pixel][c]; `sum` has room for ceil(C / VLEN) vectors of channels
 * per tap: the last vector of channels, which may begin earlier, has its own place. */
static void NAME(direct_depthwise_weight)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *gy, REAL *sum)
{
    const ptrdiff_t taps = d->runs, columns = d->columns, step = d->pixel_step, ld = (C + VLEN - 1) / VLEN * VLEN;
    for (ptrdiff_t c = 0; c < C; c += VLEN) {
        const ptrdiff_t at = c + VLEN <= C ? c : C - VLEN;
        for (ptrdiff_t k = 0; k < taps; k += 4) {
            const ptrdiff_t n = taps - k < 4 ? taps - k : 4;
            const ptrdiff_t o0 = d->offset[k], o1 = d->offset[n > 1 ? k + 1 : k], o2 = d->offset[n > 2 ? k + 2 : k];
            const ptrdiff_t o3 = d->offset[n > 3 ? k + 3 : k];
            REAL *out = sum + k * ld + c;
            NAME(vec) s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            for (ptrdiff_t i = 0; i < d->rows; i++) {
                const REAL *from = x + i * d->row_step + at, *g = gy + i * columns * C + at;
                for (ptrdiff_t j = 0; j < columns; j++, from += step, g += C) {
                    const NAME(vec) v = LOAD(g);
                    s0 += LOAD(from + o0) * v;
                    s1 += LOAD(from + o1) * v;
                    s2 += LOAD(from + o2) * v;
                    s3 += LOAD(from + o3) * v;
                }
            }
            STORE(out, LOAD(out) + s0);
            if (n > 1)
                STORE(out + ld, LOAD(out + ld) + s1);
            if (n > 2)
                STORE(out + 2 * ld, LOAD(out + 2 * ld) + s2);
            if (n > 3)
                STORE(out + 3 * ld, LOAD(out + 3 * ld) + s3);
        }
    }
}

/* x[pixel + run] += columns[pixel][run]: the adjoint of reading, for one row of pixels. A run takes `padded` numbers of
 * `columns`, a whole number of vectors; x is writeable that far. What stands behind the run's end counts as 0 (it is
 * 0 times gy, and so NaN where gy is infinite). */
static void NAME(direct_scatter)(const struct nnx_taps *d, const REAL *columns, ptrdiff_t padded, REAL *x)
{
    const ptrdiff_t whole = d->length / VLEN * VLEN;
#if defined(__GNUC__)
    NAME(mask) tail;
    for (int j = 0; j < VLEN; j++)
        tail[j] = whole + j < d->length ? -1 : 0;
#endif
    for (ptrdiff_t j = 0; j < d->columns; j++, x += d->pixel_step)
        for (ptrdiff_t run = 0; run < d->runs; run++, columns += padded) {
            REAL *to = x + d->offset[run];
            for (ptrdiff_t l = 0; l < whole; l += VLEN)
                STORE(to + l, LOAD(to + l) + LOAD(columns + l));
#if defined(__GNUC__)
            if (whole < padded) {
                const NAME(vec) rest = (NAME(vec))((NAME(mask))LOAD(columns + whole) & tail);
                STORE(to + whole, LOAD(to + whole) + rest);
            }
#endif
        }
}

#undef PANEL
#undef ROWS
#undef ROWS_WIDE
#undef PIXELS_ARGUMENTS
#undef PIXELS_CASE
#undef PRODUCTS_CASE
