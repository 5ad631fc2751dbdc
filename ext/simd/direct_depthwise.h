/* Convolution where lanes belong to several groups: a part of ext/simd/direct.h, which includes it once for each type.
 *
 * Depthwise, with one filter per channel, channels are lanes. In groups of a few channels and as many filters, filters are
 * lanes, those of several groups in a vector.
 */

#define DEPTHWISE_PIXELS 8
#define DEPTHWISE_TAPS 9

/* A pixel's vector of results; past the caches only where a vector is a whole line, since those of a pixel are not stored
 * together. */
INLINE void NAME(store_lanes)(const struct nnx_taps *d, const int relu, REAL *to, NAME(vec) sum)
{
    const NAME(vec) result = relu ? NAME(positive)(sum) : sum;
    if (d->stream && VECTOR_BYTES == 64)
        STREAM(to, result);
    else
        STORE(to, result);
}

/* `count` neighbouring pixels of a vector of channels; `count` is a constant. */
INLINE void NAME(depthwise_pixels)(const int count, const struct nnx_taps *d, struct nnx_inside in, const REAL *x,
                                   ptrdiff_t C, const REAL *w, NAME(vec) bias, const int relu, REAL *y,
                                   ptrdiff_t ldy)
{
    const ptrdiff_t step = d->pixel_step, plane = d->down * d->beside;
    NAME(vec) sum[DEPTHWISE_PIXELS];
    UNROLL(8)
    for (int i = 0; i < count; i++)
        sum[i] = bias;
    for (ptrdiff_t z = in.first_plane; z < in.last_plane; z++)
        for (ptrdiff_t k = z * plane + in.first; k < z * plane + in.last; k++) {
            const REAL *from = x + d->offset[k];
            const NAME(vec) f = LOAD(w + k * C);
            UNROLL(8)
            for (int i = 0; i < count; i++) {
                sum[i] += LOAD(from) * f;
                ADVANCE(from, step);
            }
        }
    UNROLL(8)
    for (int i = 0; i < count; i++)
        NAME(store_lanes)(d, relu, y + i * ldy, sum[i]);
}

/* The same where rows of `beside` taps, a constant, lie one pixel apart, as the results do: each vector of x is read once
 * for a row of taps. */
INLINE void NAME(depthwise_neighbours)(const int beside, const int count, const struct nnx_taps *d, struct nnx_inside in,
                                       const REAL *x, ptrdiff_t C, const REAL *w, NAME(vec) bias, const int relu, REAL *y,
                                       ptrdiff_t ldy)
{
    const ptrdiff_t step = d->pixel_step, plane = d->down * d->beside;
    NAME(vec) sum[DEPTHWISE_PIXELS], v[DEPTHWISE_PIXELS + 4];
    UNROLL(8)
    for (int i = 0; i < count; i++)
        sum[i] = bias;
    for (ptrdiff_t z = in.first_plane; z < in.last_plane; z++)
        for (ptrdiff_t k = z * plane + in.first; k < z * plane + in.last; k += beside) {
            const REAL *from = x + d->offset[k], *f = w + k * C;
            UNROLL(12)
            for (int i = 0; i < count + beside - 1; i++) {
                v[i] = LOAD(from);
                ADVANCE(from, step);
            }
            UNROLL(5)
            for (int j = 0; j < beside; j++) {
                const NAME(vec) filters = LOAD(f);
                ADVANCE(f, C);
                UNROLL(8)
                for (int i = 0; i < count; i++)
                    sum[i] += v[i + j] * filters;
            }
        }
    UNROLL(8)
    for (int i = 0; i < count; i++)
        NAME(store_lanes)(d, relu, y + i * ldy, sum[i]);
}

#if defined(__AVX512F__) || defined(__aarch64__)
#define NEIGHBOURS_MOST 8 /* pixels: with 5 taps 8 sums and 12 vectors of x in 32 registers */
#else
#define NEIGHBOURS_MOST 4
#endif

#define NEIGHBOURS_ROW(beside) \
    static void NAME(neighbours_##beside)(const struct nnx_taps *d, struct nnx_inside in, const REAL *x, ptrdiff_t C, \
                                          const REAL *w, NAME(vec) bias, int relu, REAL *y, ptrdiff_t ldy) \
    { \
        const ptrdiff_t step = d->pixel_step, most = NEIGHBOURS_MOST; \
        ptrdiff_t left = d->columns; \
        for (; left >= most; left -= most, x += most * step, y += most * ldy) \
            NAME(depthwise_neighbours)(beside, NEIGHBOURS_MOST, d, in, x, C, w, bias, relu, y, ldy); \
        for (; left >= 2; left -= 2, x += 2 * step, y += 2 * ldy) \
            NAME(depthwise_neighbours)(beside, 2, d, in, x, C, w, bias, relu, y, ldy); \
        if (left) \
            NAME(depthwise_neighbours)(beside, 1, d, in, x, C, w, bias, relu, y, ldy); \
    }
NEIGHBOURS_ROW(3)
NEIGHBOURS_ROW(5)
#undef NEIGHBOURS_ROW

/* `count` taps of a vector of channels, over all pixels: out[tap] += x gy, rows of `out` are `ld` apart. */
INLINE void NAME(depthwise_taps)(const int count, const struct nnx_taps *d, const ptrdiff_t *offset, const REAL *x,
                                 ptrdiff_t C, const REAL *gy, REAL *out, ptrdiff_t ld)
{
    const ptrdiff_t step = d->pixel_step, columns = d->columns;
    NAME(vec) sum[DEPTHWISE_TAPS];
    UNROLL(9)
    for (int k = 0; k < count; k++)
        sum[k] = LOAD(out + k * ld);
    for (ptrdiff_t i = 0; i < d->rows; i++) {
        const REAL *from = x + i * d->row_step;
        ptrdiff_t j = 0;
        for (; j + 2 <= columns; j += 2, from += 2 * step, gy += 2 * C) {
            const NAME(vec) g0 = LOAD(gy), g1 = LOAD(gy + C);
            UNROLL(9)
            for (int k = 0; k < count; k++) {
                const REAL *p = from + offset[k];
                sum[k] += LOAD(p) * g0;
                sum[k] += LOAD(p + step) * g1;
            }
        }
        for (; j < columns; j++, from += step, gy += C) {
            const NAME(vec) g = LOAD(gy);
            UNROLL(9)
            for (int k = 0; k < count; k++)
                sum[k] += LOAD(from + offset[k]) * g;
        }
    }
    UNROLL(9)
    for (int k = 0; k < count; k++)
        STORE(out + k * ld, sum[k]);
}

/* -- groups of a few channels and as many filters: filters are lanes, those of several groups in a vector ------------- */

#define GROUPED_SUMS 8

#if NNX_SHUFFLES && LANES >= 4
#define GROUPED_MOST (LANES / 2 < 8 ? LANES / 2 : 8) /* channels of a group: two groups to a vector, at least */

/* Channel e of each group, in all lanes of the group; `each` and e are constants. */
INLINE NAME(vec) NAME(of_group)(NAME(vec) v, const int each, const int e)
{
    NAME(mask) at;
    UNROLL(16)
    for (int j = 0; j < VLEN; j++)
        at[j] = j / each * each + e;
    return __builtin_shuffle(v, at);
}

/* `count` neighbouring pixels of a vector of filters; `each`, the channels of a group, and `count` are constants. */
INLINE void NAME(grouped_pixels)(const int each, const int count, const struct nnx_taps *d, struct nnx_inside in,
                                 const REAL *x, ptrdiff_t C, const REAL *w, NAME(vec) bias, const int relu, REAL *y,
                                 ptrdiff_t ldy)
{
    const ptrdiff_t step = d->pixel_step, plane = d->down * d->beside;
    NAME(vec) sum[GROUPED_SUMS], v[GROUPED_SUMS];
    UNROLL(8)
    for (int i = 0; i < count; i++)
        sum[i] = bias;
    for (ptrdiff_t z = in.first_plane; z < in.last_plane; z++)
        for (ptrdiff_t k = z * plane + in.first; k < z * plane + in.last; k++) {
            const REAL *from = x + d->offset[k], *f = w + k * each * C;
            UNROLL(8)
            for (int i = 0; i < count; i++) {
                v[i] = LOAD(from);
                ADVANCE(from, step);
            }
            UNROLL(8)
            for (int e = 0; e < each; e++) {
                const NAME(vec) filters = LOAD(f);
                ADVANCE(f, C);
                UNROLL(8)
                for (int i = 0; i < count; i++)
                    sum[i] += NAME(of_group)(v[i], each, e) * filters;
            }
        }
    UNROLL(8)
    for (int i = 0; i < count; i++)
        NAME(store_lanes)(d, relu, y + i * ldy, sum[i]);
}

/* `count` taps of a vector of filters, over all pixels: rows of `out`, `each` for a tap, += x gy; they are `ld` apart. */
INLINE void NAME(grouped_taps)(const int each, const int count, const struct nnx_taps *d, const ptrdiff_t *offset,
                               const REAL *x, ptrdiff_t C, const REAL *gy, REAL *out, ptrdiff_t ld)
{
    const ptrdiff_t step = d->pixel_step, columns = d->columns;
    NAME(vec) sum[GROUPED_SUMS];
    UNROLL(8)
    for (int k = 0; k < count * each; k++)
        sum[k] = LOAD(out + k * ld);
    for (ptrdiff_t i = 0; i < d->rows; i++) {
        const REAL *from = x + i * d->row_step;
        for (ptrdiff_t j = 0; j < columns; j++, from += step, gy += C) {
            const NAME(vec) g = LOAD(gy);
            UNROLL(8)
            for (int k = 0; k < count; k++) {
                const NAME(vec) v = LOAD(from + offset[k]);
                UNROLL(8)
                for (int e = 0; e < each; e++)
                    sum[k * each + e] += NAME(of_group)(v, each, e) * g;
            }
        }
    }
    UNROLL(8)
    for (int k = 0; k < count * each; k++)
        STORE(out + k * ld, sum[k]);
}

#define GROUPED_ROWS(each) \
    static void NAME(grouped_row_##each)(const struct nnx_taps *d, struct nnx_inside in, const REAL *x, ptrdiff_t C, \
                                         const REAL *w, NAME(vec) bias, int relu, REAL *y, ptrdiff_t ldy) \
    { \
        const ptrdiff_t step = d->pixel_step; \
        ptrdiff_t left = d->columns; \
        for (; left >= 8; left -= 8, x += 8 * step, y += 8 * ldy) \
            NAME(grouped_pixels)(each, 8, d, in, x, C, w, bias, relu, y, ldy); \
        for (; left >= 4; left -= 4, x += 4 * step, y += 4 * ldy) \
            NAME(grouped_pixels)(each, 4, d, in, x, C, w, bias, relu, y, ldy); \
        for (; left > 0; left--, x += step, y += ldy) \
            NAME(grouped_pixels)(each, 1, d, in, x, C, w, bias, relu, y, ldy); \
    } \
    static void NAME(grouped_sums_##each)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *gy, REAL *sum) \
    { \
        const int most = GROUPED_SUMS / each; \
        ptrdiff_t k = 0; \
        for (; k + most <= d->runs; k += most) \
            NAME(grouped_taps)(each, most, d, d->offset + k, x, C, gy, sum + k * each * C, C); \
        for (; k < d->runs; k++) \
            NAME(grouped_taps)(each, 1, d, d->offset + k, x, C, gy, sum + k * each * C, C); \
    }

GROUPED_ROWS(2)
#if LANES >= 8
GROUPED_ROWS(4)
#endif
#if LANES >= 16
GROUPED_ROWS(8)
#endif
#undef GROUPED_ROWS

static void NAME(grouped)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *w, const REAL *bias,
                          int relu, REAL *y, ptrdiff_t ldy)
{
    for (ptrdiff_t i = 0; i < d->rows; i++) {
        const struct nnx_inside in = NAME(inside)(d, i);
        for (ptrdiff_t c = 0; c < C; c += VLEN) {
            const REAL *from = x + i * d->row_step + c;
            REAL *to = y + i * d->columns * ldy + c;
            const NAME(vec) start = bias ? LOAD(bias + c) : (NAME(vec)){0};
            if (d->length == 2)
                NAME(grouped_row_2)(d, in, from, C, w + c, start, relu, to, ldy);
#if LANES >= 8
            else if (d->length == 4)
                NAME(grouped_row_4)(d, in, from, C, w + c, start, relu, to, ldy);
#endif
#if LANES >= 16
            else if (d->length == 8)
                NAME(grouped_row_8)(d, in, from, C, w + c, start, relu, to, ldy);
#endif
        }
    }
    if (d->stream)
        STREAMED();
}

static void NAME(grouped_weight)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *gy, REAL *sum)
{
    for (ptrdiff_t c = 0; c < C; c += VLEN)
        if (d->length == 2)
            NAME(grouped_sums_2)(d, x + c, C, gy + c, sum + c);
#if LANES >= 8
        else if (d->length == 4)
            NAME(grouped_sums_4)(d, x + c, C, gy + c, sum + c);
#endif
#if LANES >= 16
        else if (d->length == 8)
            NAME(grouped_sums_8)(d, x + c, C, gy + c, sum + c);
#endif
}
#else
#define GROUPED_MOST 1
#endif

/* The largest number of channels of a group for which `direct_depthwise` has lanes for the filters of several groups. */
static ptrdiff_t NAME(direct_grouped_most)(void)
{
    return GROUPED_MOST;
}

/* y[pixel][c] = bias[c] + sum over taps of x[pixel + tap][c] w[tap][c], for C >= a vector of channels; pixels of y are ldy
 * numbers apart. Where C is no whole number of vectors the last one begins earlier: it computes some channels again.
 *
 * With runs of `length` > 1 numbers, that many channels and filters are a group: x[pixel + tap][first + e] w[tap][e][c] is
 * summed over e too, where `first` is the first channel of c's group. Only for powers of two up to `direct_grouped_most`,
 * and whole vectors of channels. */
static void NAME(direct_depthwise)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *w,
                                   const REAL *bias, int relu, REAL *y, ptrdiff_t ldy)
{
#if GROUPED_MOST > 1
    if (d->length > 1) {
        NAME(grouped)(d, x, C, w, bias, relu, y, ldy);
        return;
    }
#endif
#define PIXELS_CASE_(n) \
    case n: \
        NAME(depthwise_pixels)(n, d, in, from, C, w + at, start, relu, to, ldy); \
        break;
    const ptrdiff_t columns = d->columns, step = d->pixel_step;
    /* stride and dilation 1: taps beside each other are as far apart as pixels */
    const int neighbours = step == C && d->beside > 1 && d->runs > 1 && d->offset[1] - d->offset[0] == C;
    for (ptrdiff_t i = 0; i < d->rows; i++) {
        const struct nnx_inside in = NAME(inside)(d, i);
        for (ptrdiff_t c = 0; c < C; c += VLEN) {
            const ptrdiff_t at = c + VLEN <= C ? c : C - VLEN;
            const REAL *from = x + i * d->row_step + at;
            REAL *to = y + i * columns * ldy + at;
            const NAME(vec) start = bias ? LOAD(bias + at) : (NAME(vec)){0};
            if (neighbours && d->beside == 3) {
                NAME(neighbours_3)(d, in, from, C, w + at, start, relu, to, ldy);
                continue;
            }
            if (neighbours && d->beside == 5) {
                NAME(neighbours_5)(d, in, from, C, w + at, start, relu, to, ldy);
                continue;
            }
            /* blocks of even size: 14 pixels are 7 + 7 */
            ptrdiff_t blocks = (columns + DEPTHWISE_PIXELS - 1) / DEPTHWISE_PIXELS, j = 0;
            for (; blocks > 0; blocks--) {
                const int count = (int)((columns - j + blocks - 1) / blocks);
                switch (count) {
                    PIXELS_CASE_(1)
                    PIXELS_CASE_(2)
                    PIXELS_CASE_(3)
                    PIXELS_CASE_(4)
                    PIXELS_CASE_(5)
                    PIXELS_CASE_(6)
                    PIXELS_CASE_(7)
                    PIXELS_CASE_(8)
                }
                j += count;
                from += count * step;
                to += count * ldy;
            }
        }
    }
    if (d->stream)
        STREAMED();
#undef PIXELS_CASE_
}

/* sum[tap][c] += sum over pixels of x[pixel + tap][c] gy[pixel][c]; `sum` has room for ceil(C / VLEN) vectors of channels
 * per tap: the last vector of channels, which may begin earlier, has its own place. With groups of `length` channels it
 * is sum[tap][e][c] += x[pixel + tap][first + e] gy[pixel][c]. */
static void NAME(direct_depthwise_weight)(const struct nnx_taps *d, const REAL *x, ptrdiff_t C, const REAL *gy, REAL *sum)
{
#if GROUPED_MOST > 1
    if (d->length > 1) {
        NAME(grouped_weight)(d, x, C, gy, sum);
        return;
    }
#endif
#define TAPS_CASE_(n) \
    case n: \
        NAME(depthwise_taps)(n, d, d->offset + k, x + at, C, gy + at, sum + k * ld + c, ld); \
        break;
    const ptrdiff_t taps = d->runs, ld = (C + VLEN - 1) / VLEN * VLEN;
    for (ptrdiff_t c = 0; c < C; c += VLEN) {
        const ptrdiff_t at = c + VLEN <= C ? c : C - VLEN;
        ptrdiff_t blocks = (taps + DEPTHWISE_TAPS - 1) / DEPTHWISE_TAPS, k = 0;
        for (; blocks > 0; blocks--) {
            const int count = (int)((taps - k + blocks - 1) / blocks);
            switch (count) {
                TAPS_CASE_(1)
                TAPS_CASE_(2)
                TAPS_CASE_(3)
                TAPS_CASE_(4)
                TAPS_CASE_(5)
                TAPS_CASE_(6)
                TAPS_CASE_(7)
                TAPS_CASE_(8)
                TAPS_CASE_(9)
            }
            k += count;
        }
    }
#undef TAPS_CASE_
}

/* x[pixel + tap][c] += gy[pixel][c] w[tap][c] for one row of pixels: the gradient with respect to x, for C < a vector of
 * channels. */
static void NAME(direct_depthwise_scatter)(const struct nnx_taps *d, const REAL *gy, ptrdiff_t C, const REAL *w, REAL *x)
{
    const ptrdiff_t taps = d->runs, step = d->pixel_step;
    for (ptrdiff_t j = 0; j < d->columns; j++, gy += C, x += step) {
        const NAME(vec) g = NAME(load_part)(gy, C);
        for (ptrdiff_t k = 0; k < taps; k++) {
            REAL *to = x + d->offset[k];
            NAME(store_part)(to, NAME(load_part)(to, C) + g * NAME(load_part)(w + k * C, C), C);
        }
    }
}

#undef DEPTHWISE_PIXELS
#undef NEIGHBOURS_MOST
#undef DEPTHWISE_TAPS
#undef GROUPED_SUMS
#undef GROUPED_MOST
