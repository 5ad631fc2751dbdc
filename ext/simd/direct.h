/* Convolution without a column matrix: each tap's number is read where it lies in the image.
 *
 * Images are channels-last and carry the zeros of their padding, so that the taps of a filter's row are one run of
 * memory. The sums of up to ROWS pixels (forward) or ROWS numbers of a run (weight gradient) times one or two vectors of
 * filters stay in registers. ext/direct.pyx cuts the images into bands.
 */
#include "vector.h"

#ifndef NNX_INSIDE
#define NNX_INSIDE
struct nnx_inside { /* planes of taps, and runs of each of them */
    ptrdiff_t first_plane, last_plane, first, last;
};
#endif

#define PANEL (2 * VLEN) /* as ext/simd/gemm.h packs */
#define ROWS 12          /* with one vector of filters: 12 sums fit 16 registers too */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS_WIDE 12 /* with two vectors */
#else
#define ROWS_WIDE 6
#endif

/* The taps [*first, *last) out of n, `dilation` apart, that meet one of `size` rows, where the first of them is at `start`. */
INLINE void NAME(taps_inside)(ptrdiff_t start, ptrdiff_t dilation, ptrdiff_t n, ptrdiff_t size, ptrdiff_t *first,
                              ptrdiff_t *last)
{
    const ptrdiff_t left = size - start;
    *first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    *last = left <= 0 ? 0 : (left + dilation - 1) / dilation;
    if (*last > n)
        *last = n;
    if (*first > *last)
        *first = *last;
}

/* The planes of taps, and in each of them the runs, that are not all padding for row r of the result. */
INLINE struct nnx_inside NAME(inside)(const struct nnx_taps *d, ptrdiff_t r)
{
    struct nnx_inside in;
    NAME(taps_inside)(d->front, d->depth_dilation, d->planes, d->depth, &in.first_plane, &in.last_plane);
    NAME(taps_inside)(d->top + r * d->stride, d->dilation, d->down, d->height, &in.first, &in.last);
    in.first *= d->beside;
    in.last *= d->beside;
    return in;
}

/* out[r][0..vectors) = bias + sum over runs and their numbers of x[r * step + ...] w[...]; `rows`, `vectors` are constants. */
INLINE void NAME(pixels)(const int rows, const int vectors, const struct nnx_taps *d, struct nnx_inside in,
                         const REAL *x, const REAL *packed, const REAL *bias, const int relu, REAL *out, ptrdiff_t ldo)
{
    const ptrdiff_t step = d->pixel_step, length = d->length, plane = d->down * d->beside;
    NAME(vec) sum[ROWS][2];
    UNROLL(12)
    for (int r = 0; r < rows; r++) {
        sum[r][0] = LOAD(bias);
        if (vectors == 2)
            sum[r][1] = LOAD(bias + VLEN);
    }
    for (ptrdiff_t z = in.first_plane; z < in.last_plane; z++) {
        const REAL *w = packed + (z * plane + in.first) * length * PANEL;
        for (ptrdiff_t run = in.first; run < in.last; run++) {
            const REAL *from = x + d->offset[z * plane + run];
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
    }
    if (d->stream) {
        UNROLL(12)
        for (int r = 0; r < rows; r++) {
            STREAM(out + r * ldo, relu ? NAME(positive)(sum[r][0]) : sum[r][0]);
            if (vectors == 2)
                STREAM(out + r * ldo + VLEN, relu ? NAME(positive)(sum[r][1]) : sum[r][1]);
        }
        return;
    }
    UNROLL(12)
    for (int r = 0; r < rows; r++) {
        STORE(out + r * ldo, relu ? NAME(positive)(sum[r][0]) : sum[r][0]);
        if (vectors == 2)
            STORE(out + r * ldo + VLEN, relu ? NAME(positive)(sum[r][1]) : sum[r][1]);
    }
}

#define PIXELS_ARGUMENTS \
    const struct nnx_taps *d, struct nnx_inside in, const REAL *x, const REAL *packed, const REAL *bias, int relu, \
        REAL *out, ptrdiff_t ldo
#define PIXELS_CASE(n, vectors) \
    case n: \
        NAME(pixels)(n, vectors, d, in, x, packed, bias, relu, out, ldo); \
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

/* `width` numbers of each pixel of `tile` to where they belong, `place` numbers behind y: plus d->added, and 0 where
 * d->positive is not positive. */
static void NAME(join_pixels)(const struct nnx_taps *d, const REAL *tile, int rows, ptrdiff_t width, REAL *y,
                              ptrdiff_t place, ptrdiff_t ldy)
{
    const REAL *added = d->added, *positive = d->positive;
    for (int r = 0; r < rows; r++, tile += PANEL, place += ldy)
        for (ptrdiff_t i = 0; i < width; i += VLEN) {
            const ptrdiff_t n = width - i, at = place + i;
            NAME(vec) v = LOAD(tile + i);
            if (added)
                v += n >= VLEN ? LOAD(added + at) : NAME(load_part)(added + at, n);
            if (positive)
                v = NAME(where_positive)(v, n >= VLEN ? LOAD(positive + at) : NAME(load_part)(positive + at, n));
            if (d->stream)
                STREAM(y + at, v);
            else if (n >= VLEN)
                STORE(y + at, v);
            else
                NAME(store_part)(y + at, v, n);
        }
}

/* y[rows][columns][F] = bias + x * w, and with `relu` its positive part; pixels of y are ldy numbers apart.
 *
 * packed: panels of filters, each [runs][length][PANEL] with zeros behind the last filter.
 * line: scratch of columns * F + PANEL numbers. Whole vectors are stored there pixel by pixel, each on top of what the
 * one before it wrote too far. With `joined` pixels are stored by `join_pixels`, which `to` describes. */
INLINE void NAME(band)(const int joined, const struct nnx_taps *d, const struct nnx_taps *to, const REAL *x, ptrdiff_t F,
                       const REAL *packed, const REAL *bias, int relu, REAL *y, ptrdiff_t ldy, REAL *line)
{
    const ptrdiff_t K = d->runs * d->length, columns = d->columns;
    REAL tile[ROWS * PANEL];
    for (ptrdiff_t f = 0; f < F; f += PANEL, packed += K * PANEL) {
        const ptrdiff_t width = F - f < PANEL ? F - f : PANEL;
        const int narrow = width <= VLEN, most = narrow ? ROWS : ROWS_WIDE;
        const int whole = (width == PANEL || width == VLEN) && !joined, overlap = !whole && !joined && ldy == width;
        REAL start[PANEL] = {0};
        if (bias)
            memcpy(start, bias + f, width * sizeof(REAL));
        for (ptrdiff_t i = 0; i < d->rows; i++) {
            const struct nnx_inside in = NAME(inside)(d, i);
            REAL *row = overlap ? line : y + i * d->result_row + f;
            /* blocks of even size: 28 pixels are 10 + 9 + 9, not 12 + 12 + 4 */
            ptrdiff_t blocks = (columns + most - 1) / most, j = 0;
            for (; blocks > 0; blocks--) {
                const int rows = (int)((columns - j + blocks - 1) / blocks);
                const REAL *from = x + i * d->row_step + j * d->pixel_step;
                REAL *out = whole || overlap ? row + j * ldy : tile;
                const ptrdiff_t ldo = whole || overlap ? ldy : PANEL;
                if (narrow)
                    NAME(pixels_narrow)(rows, d, in, from, packed, start, relu, out, ldo);
                else
                    NAME(pixels_wide)(rows, d, in, from, packed, start, relu, out, ldo);
                if (joined)
                    NAME(join_pixels)(to, tile, rows, width, y, i * d->result_row + j * ldy + f, ldy);
                else if (out == tile)
                    for (int r = 0; r < rows; r++)
                        memcpy(row + (j + r) * ldy, tile + r * PANEL, width * sizeof(REAL));
                j += rows;
            }
            if (overlap)
                memcpy(y + i * d->result_row, line, columns * ldy * sizeof(REAL));
        }
    }
}

static void NAME(direct_forward)(const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *packed,
                                 const REAL *bias, int relu, REAL *y, ptrdiff_t ldy, REAL *line)
{
    if (d->added || d->positive) {
        struct nnx_taps aside = *d;
        aside.stream = 0;
        NAME(band)(1, &aside, d, x, F, packed, bias, relu, y, ldy, line);
    } else {
        NAME(band)(0, d, d, x, F, packed, bias, relu, y, ldy, line);
    }
    if (d->stream)
        STREAMED();
}

/* Where a side of a product's numbers begin, and how far apart those of two pixels and of two rows are. */
struct NAME(side) {
    const REAL *at;
    ptrdiff_t step, row;
};

/* out[n][0..vectors) += sum over pixels of one[n] many[0..vectors), or with `fresh` = that; `count`, `vectors` are constants. */
INLINE void NAME(products)(const int count, const int vectors, ptrdiff_t rows, ptrdiff_t columns, struct NAME(side) one,
                           struct NAME(side) many, int fresh, REAL *out, ptrdiff_t ld)
{
    NAME(vec) sum[ROWS][2];
    UNROLL(12)
    for (int n = 0; n < count; n++) {
        sum[n][0] = sum[n][1] = (NAME(vec)){0};
        if (!fresh) {
            sum[n][0] = LOAD(out + n * ld);
            if (vectors == 2)
                sum[n][1] = LOAD(out + n * ld + VLEN);
        }
    }
    for (ptrdiff_t i = 0; i < rows; i++) {
        const REAL *a = one.at + i * one.row, *b = many.at + i * many.row;
        for (ptrdiff_t j = 0; j < columns; j++, a += one.step, b += many.step) {
            NAME(vec) b0 = LOAD(b), b1 = b0;
            if (vectors == 2)
                b1 = LOAD(b + VLEN);
            UNROLL(12)
            for (int n = 0; n < count; n++) {
                sum[n][0] += a[n] * b0;
                if (vectors == 2)
                    sum[n][1] += a[n] * b1;
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

#define PRODUCTS_ARGUMENTS \
    ptrdiff_t rows, ptrdiff_t columns, struct NAME(side) one, struct NAME(side) many, int fresh, REAL *out, ptrdiff_t ld
#define PRODUCTS_CASE(n, vectors) \
    case n: \
        NAME(products)(n, vectors, rows, columns, one, many, fresh, out, ld); \
        break;

static void NAME(products_narrow)(int count, PRODUCTS_ARGUMENTS)
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

static void NAME(products_wide)(int count, PRODUCTS_ARGUMENTS)
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

/* sum += the band's part of the weight gradient, or with `fresh` = that, padding included: what is not finite in gy is to be
 * seen. gy's pixels are ldg numbers apart.
 *
 * sum[runs * length][ld], with filters in lanes; gy is readable up to a vector behind its end, and what the numbers behind F
 * add to lands in columns behind F, which mean nothing. Of parts [first, last), part n is run n % runs of panel n / runs of
 * filters. */
static void NAME(direct_weight)(const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *gy, ptrdiff_t ldg,
                                ptrdiff_t first, ptrdiff_t last, int fresh, REAL *sum, ptrdiff_t ld)
{
    for (ptrdiff_t part = first; part < last; part++) {
        const ptrdiff_t run = part % d->runs, f = part / d->runs * PANEL;
        const int narrow = F - f <= VLEN;
        const ptrdiff_t most = narrow ? ROWS : ROWS_WIDE;
        const struct NAME(side) many = {gy + f, ldg, d->columns * ldg};
        ptrdiff_t l = 0;
        for (ptrdiff_t blocks = (d->length + most - 1) / most; blocks > 0; blocks--) {
            const int count = (int)((d->length - l + blocks - 1) / blocks);
            const struct NAME(side) one = {x + d->offset[run] + l, d->pixel_step, d->row_step};
            REAL *out = sum + (run * d->length + l) * ld + f;
            if (narrow)
                NAME(products_narrow)(count, d->rows, d->columns, one, many, fresh, out, ld);
            else
                NAME(products_wide)(count, d->rows, d->columns, one, many, fresh, out, ld);
            l += count;
        }
    }
}

/* Blocks of filters of direct_weight_turned. */
static ptrdiff_t NAME(direct_weight_blocks)(ptrdiff_t F)
{
    return (F + ROWS_WIDE - 1) / ROWS_WIDE;
}

/* The same as sum[F][runs][ld], with the numbers of a run in lanes: for filters that are no whole number of panels. ld is a
 * whole number of vectors; x is readable up to a vector behind the last run's end, and what stands behind a run's end lands
 * behind the sums. Of parts [first, last), part n is run n % runs of block n / runs of filters. */
static void NAME(direct_weight_turned)(const struct nnx_taps *d, const REAL *x, ptrdiff_t F, const REAL *gy, ptrdiff_t ldg,
                                       ptrdiff_t first, ptrdiff_t last, int fresh, REAL *sum, ptrdiff_t ld)
{
    const ptrdiff_t blocks = NAME(direct_weight_blocks)(F);
    for (ptrdiff_t part = first; part < last; part++) {
        const ptrdiff_t run = part % d->runs, f = F * (part / d->runs) / blocks;
        const int count = (int)(F * (part / d->runs + 1) / blocks - f);
        const struct NAME(side) one = {gy + f, ldg, d->columns * ldg};
        for (ptrdiff_t l = 0; l < d->length; l += PANEL) {
            const struct NAME(side) many = {x + d->offset[run] + l, d->pixel_step, d->row_step};
            REAL *out = sum + (f * d->runs + run) * ld + l;
            if (d->length - l <= VLEN)
                NAME(products_narrow)(count, d->rows, d->columns, one, many, fresh, out, d->runs * ld);
            else
                NAME(products_wide)(count, d->rows, d->columns, one, many, fresh, out, d->runs * ld);
        }
    }
}

#include "direct_depthwise.h"

/* line[pixel * step + l] += sum over the runs [first, last) and the filters f of gy[pixel + offset[run]][f] w[run][f][l] for
 * l < reach, for one row of gx: what the rows of gy give that reach it. All but the sums over a filter's columns stay in
 * registers. `packed` has panels of `reach`, each [runs][filters][PANEL]; line is writeable up to a panel behind its end.
 *
 * What neighbouring pixels give overlaps, by no whole number of vectors, and reading what was just stored at another
 * address has to wait for the cache. So pixel j is stored in the (j % m)-th of m lines, of which none has overlaps, and
 * the lines are added up at the end. lines: scratch of m * ld numbers, m = min(reach, PANEL) / step, rounded up; ld is the
 * length of `line` and two panels.
 */
static void NAME(direct_add)(const struct nnx_taps *d, const REAL *gy, ptrdiff_t first, ptrdiff_t last, const REAL *packed,
                             ptrdiff_t reach, ptrdiff_t step, REAL *line, REAL *lines, ptrdiff_t ld)
{
    const struct nnx_inside in = {0, 1, first, last};
    const REAL zeros[PANEL] = {0};
    const NAME(vec) zero = LOAD(zeros);
    const ptrdiff_t columns = d->columns;
    REAL tile[ROWS * PANEL];
    for (ptrdiff_t l = 0; l < reach; l += PANEL, packed += d->runs * d->length * PANEL, line += PANEL) {
        const ptrdiff_t left = reach - l, width = left <= VLEN ? VLEN : PANEL;
        const ptrdiff_t end = ((columns - 1) * step + width + VLEN - 1) / VLEN * VLEN;
        const ptrdiff_t m = ((left < width ? left : width) + step - 1) / step, most = width == VLEN ? ROWS : ROWS_WIDE;
        const NAME(mask) low = NAME(first_lanes)(left), high = NAME(first_lanes)(left - VLEN);
        ptrdiff_t j = 0, q = 0;
        for (ptrdiff_t k = 1; k < m; k++)
            for (ptrdiff_t i = 0; i < k * step; i += VLEN)
                STORE(lines + k * ld + i, zero);
        for (ptrdiff_t blocks = (columns + most - 1) / most; blocks > 0; blocks--) {
            const int count = (int)((columns - j + blocks - 1) / blocks);
            const REAL *from = gy + j * d->pixel_step, *sum = tile;
            if (width == VLEN)
                NAME(pixels_narrow)(count, d, in, from, packed, zeros, 0, tile, PANEL);
            else
                NAME(pixels_wide)(count, d, in, from, packed, zeros, 0, tile, PANEL);
            for (int p = 0; p < count; p++, j++, sum += PANEL, q = q + 1 < m ? q + 1 : 0) {
                REAL *to = lines + q * ld + j * step;
                STORE(to, NAME(keep)(LOAD(sum), low));
                if (width == PANEL)
                    STORE(to + VLEN, NAME(keep)(LOAD(sum + VLEN), high));
                /* up to the next pixel of this line, or its end */
                const ptrdiff_t next = j + m < columns ? m * step : end - j * step;
                for (ptrdiff_t i = width; i < next; i += VLEN)
                    STORE(to + i, zero);
            }
        }
        for (ptrdiff_t i = 0; i < end; i += VLEN) {
            NAME(vec) v = LOAD(line + i);
            for (ptrdiff_t k = 0; k < m && k < columns; k++)
                v += LOAD(lines + k * ld + i);
            STORE(line + i, v);
        }
    }
}

/* x[pixel + run] += columns[pixel][run]: the adjoint of reading, for one row of pixels. A run takes `padded` numbers of
 * `columns`, a whole number of vectors; x is writeable that far. What stands behind the run's end counts as 0 (it is
 * 0 times gy, and so NaN where gy is infinite). */
static void NAME(direct_scatter)(const struct nnx_taps *d, const REAL *columns, ptrdiff_t padded, REAL *x)
{
    const ptrdiff_t whole = d->length / VLEN * VLEN;
    const NAME(mask) tail = NAME(first_lanes)(d->length - whole);
    for (ptrdiff_t j = 0; j < d->columns; j++, x += d->pixel_step)
        for (ptrdiff_t run = 0; run < d->runs; run++, columns += padded) {
            REAL *to = x + d->offset[run];
            for (ptrdiff_t l = 0; l < whole; l += VLEN)
                STORE(to + l, LOAD(to + l) + LOAD(columns + l));
            if (whole < padded)
                STORE(to + whole, LOAD(to + whole) + NAME(keep)(LOAD(columns + whole), tail));
        }
}

#undef PANEL
#undef ROWS
#undef ROWS_WIDE
#undef PIXELS_ARGUMENTS
#undef PIXELS_CASE
#undef PRODUCTS_ARGUMENTS
#undef PRODUCTS_CASE
