/* Pooling of one row, channels-last: forward a row of outputs, backward a row of the input's gradient.
 *
 * Each row is written by one call and read by none, so that rows may run in any order on any thread. Vectors run over
 * the channels: a block of WIDTH channels stays in registers while the window passes by.
 */
#if defined(__GNUC__)
#define POOL_INLINE static inline __attribute__((always_inline))
#else
#define POOL_INLINE static inline
#endif

#define WIDTH (4 * LANES)

/* Call function(channel, n, ...) for blocks of channels; n is a constant but for the last few of them. */
#define POOL_BLOCKS(channels, function, ...) \
    do { \
        ptrdiff_t c_ = 0; \
        for (; c_ + WIDTH <= (channels); c_ += WIDTH) \
            function(c_, WIDTH, __VA_ARGS__); \
        for (; c_ + LANES <= (channels); c_ += LANES) \
            function(c_, LANES, __VA_ARGS__); \
        if (c_ < (channels)) \
            function(c_, (channels) - c_, __VA_ARGS__); \
    } while (0)

/* -- maximum ------------------------------------------------------------------------------------------------------- */

/* The taps of output o along an axis that lie inside the input: first[axis] <= tap < last[axis], perhaps none. */
POOL_INLINE void NAME(taps)(const struct nnx_pool_windows *g, int axis, ptrdiff_t o, ptrdiff_t *first, ptrdiff_t *last)
{
    ptrdiff_t k = g->kernel[axis], dilation = g->dilation[axis];
    ptrdiff_t start = o * g->stride[axis] - g->padding[axis], left = g->size[axis] - start;
    first[axis] = 0;
    last[axis] = k;
    if (start < 0)
        first[axis] = (dilation - 1 - start) / dilation;
    if (left <= (k - 1) * dilation)
        last[axis] = left <= 0 ? 0 : (left + dilation - 1) / dilation;
}

/* n channels of one output: the largest element and the number of its tap. A NaN is taken over everything, and a
 * window of -inf keeps its first tap inside the input (`number`, also where there is none). */
POOL_INLINE void NAME(max_window)(ptrdiff_t c, const ptrdiff_t n, const struct nnx_pool_windows *g, const REAL *x,
                                  ptrdiff_t corner, const ptrdiff_t *first, const ptrdiff_t *last, ptrdiff_t number,
                                  REAL *y, void *index, int wide)
{
    REAL best[WIDTH];
    BITS where[WIDTH];
    for (ptrdiff_t i = 0; i < n; i++) {
        best[i] = -(REAL)INFINITY;
        where[i] = (BITS)number;
    }
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row;
    for (ptrdiff_t kd = first[0]; kd < last[0]; kd++)
        for (ptrdiff_t kh = first[1]; kh < last[1]; kh++)
            for (ptrdiff_t kw = first[2]; kw < last[2]; kw++) {
                const REAL *p = x + (corner + kd * g->dilation[0] * plane + kh * g->dilation[1] * row +
                                     kw * g->dilation[2] * pixel + c);
                BITS tap = (BITS)((kd * g->kernel[1] + kh) * g->kernel[2] + kw);
                for (ptrdiff_t i = 0; i < n; i++) {
                    REAL v = p[i];
                    int better = (v > best[i]) | (v != v);
                    best[i] = better ? v : best[i];
                    where[i] = better ? tap : where[i];
                }
            }
    for (ptrdiff_t i = 0; i < n; i++)
        y[c + i] = best[i];
    if (wide)
        for (ptrdiff_t i = 0; i < n; i++)
            ((int32_t *)index)[c + i] = (int32_t)where[i];
    else
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint8_t *)index)[c + i] = (uint8_t)where[i];
}

/* Row (od, oh) of the output of the image x. */
static void NAME(max_row)(const struct nnx_pool_windows *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y,
                          void *index, int wide)
{
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row, first[3], last[3];
    NAME(taps)(g, 0, od, first, last);
    NAME(taps)(g, 1, oh, first, last);
    ptrdiff_t start_d = od * g->stride[0] - g->padding[0], start_h = oh * g->stride[1] - g->padding[1];
    for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
        NAME(taps)(g, 2, ow, first, last);
        ptrdiff_t start_w = ow * g->stride[2] - g->padding[2], number = 0;
        for (int axis = 0; axis < 3; axis++)
            number = number * g->kernel[axis] + (first[axis] < g->kernel[axis] ? first[axis] : g->kernel[axis] - 1);
        ptrdiff_t corner = start_d * plane + start_h * row + start_w * pixel; /* in the padding, perhaps */
        POOL_BLOCKS(pixel, NAME(max_window), g, x, corner, first, last, number, y + ow * pixel,
                    (char *)index + ow * pixel * (wide ? 4 : 1), wide);
    }
}

/* gx[i] += gy[i] where the maximum was at `tap`. */
POOL_INLINE void NAME(add_where)(ptrdiff_t n, const REAL *RESTRICT gy, const void *RESTRICT index, int wide, int32_t tap,
                                 REAL *RESTRICT gx)
{
    if (wide)
        for (ptrdiff_t i = 0; i < n; i++)
            gx[i] += ((const int32_t *)index)[i] == tap ? gy[i] : 0;
    else
        for (ptrdiff_t i = 0; i < n; i++)
            gx[i] += ((const uint8_t *)index)[i] == tap ? gy[i] : 0;
}

/* Row (d, h) of the gradient of an image: it collects from the output rows whose windows reach it. */
static void NAME(max_row_backward)(const struct nnx_pool_windows *g, const REAL *gy, const void *index, int wide,
                                   ptrdiff_t d, ptrdiff_t h, REAL *gx)
{
    ptrdiff_t pixel = g->channels, width = g->size[2];
    memset(gx, 0, (size_t)(width * pixel) * sizeof(REAL));
    for (ptrdiff_t kd = 0; kd < g->kernel[0]; kd++) {
        ptrdiff_t from_d = d + g->padding[0] - kd * g->dilation[0]; /* od * stride */
        if (from_d < 0)
            break;
        if (from_d % g->stride[0] || from_d / g->stride[0] >= g->out[0])
            continue;
        for (ptrdiff_t kh = 0; kh < g->kernel[1]; kh++) {
            ptrdiff_t from_h = h + g->padding[1] - kh * g->dilation[1];
            if (from_h < 0)
                break;
            if (from_h % g->stride[1] || from_h / g->stride[1] >= g->out[1])
                continue;
            ptrdiff_t line = (from_d / g->stride[0] * g->out[1] + from_h / g->stride[1]) * g->out[2];
            for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
                ptrdiff_t at = (line + ow) * pixel, first[3], last[3];
                NAME(taps)(g, 2, ow, first, last);
                for (ptrdiff_t kw = first[2]; kw < last[2]; kw++) {
                    ptrdiff_t w = ow * g->stride[2] - g->padding[2] + kw * g->dilation[2];
                    int32_t tap = (int32_t)((kd * g->kernel[1] + kh) * g->kernel[2] + kw);
                    NAME(add_where)(pixel, gy + at, (const char *)index + at * (wide ? 4 : 1), wide, tap, gx + w * pixel);
                }
            }
        }
    }
}

/* -- mean and sum -------------------------------------------------------------------------------------------------- */

/* n channels of one output: the box's sum over its divisor. */
POOL_INLINE void NAME(mean_box)(ptrdiff_t c, const ptrdiff_t n, const struct nnx_pool_boxes *g, const REAL *x,
                                const int64_t *start, const int64_t *end, REAL divisor, REAL *y)
{
    REAL sum[WIDTH];
    for (ptrdiff_t i = 0; i < n; i++)
        sum[i] = 0;
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row;
    for (ptrdiff_t d = start[0]; d < end[0]; d++)
        for (ptrdiff_t h = start[1]; h < end[1]; h++)
            for (ptrdiff_t w = start[2]; w < end[2]; w++) {
                const REAL *p = x + d * plane + h * row + w * pixel + c;
                for (ptrdiff_t i = 0; i < n; i++)
                    sum[i] += p[i];
            }
    for (ptrdiff_t i = 0; i < n; i++)
        y[c + i] = sum[i] / divisor;
}

/* Row (od, oh) of the output of the image x. */
static void NAME(mean_row)(const struct nnx_pool_boxes *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y)
{
    int64_t start[3] = {g->start[0][od], g->start[1][oh], 0}, end[3] = {g->end[0][od], g->end[1][oh], 0};
    for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
        start[2] = g->start[2][ow];
        end[2] = g->end[2][ow];
        REAL divisor = (REAL)(g->count[0][od] * g->count[1][oh] * g->count[2][ow]);
        POOL_BLOCKS(g->channels, NAME(mean_box), g, x, start, end, divisor, y + ow * g->channels);
    }
}

/* n channels of one output's gradient, shared among the columns [start, end) of one row. */
POOL_INLINE void NAME(share)(ptrdiff_t c, const ptrdiff_t n, const REAL *gy, REAL divisor, ptrdiff_t start,
                             ptrdiff_t end, ptrdiff_t pixel, REAL *gx)
{
    REAL part[WIDTH];
    for (ptrdiff_t i = 0; i < n; i++)
        part[i] = gy[c + i] / divisor;
    for (ptrdiff_t w = start; w < end; w++) {
        REAL *p = gx + w * pixel + c;
        for (ptrdiff_t i = 0; i < n; i++)
            p[i] += part[i];
    }
}

/* Row (d, h) of the gradient of an image: it collects from the outputs whose boxes hold it. */
static void NAME(mean_row_backward)(const struct nnx_pool_boxes *g, const REAL *gy, ptrdiff_t d, ptrdiff_t h, REAL *gx)
{
    ptrdiff_t pixel = g->channels;
    memset(gx, 0, (size_t)(g->size[2] * pixel) * sizeof(REAL));
    for (ptrdiff_t od = 0; od < g->out[0]; od++) {
        if (d < g->start[0][od] || d >= g->end[0][od])
            continue;
        for (ptrdiff_t oh = 0; oh < g->out[1]; oh++) {
            if (h < g->start[1][oh] || h >= g->end[1][oh])
                continue;
            double count = g->count[0][od] * g->count[1][oh];
            const REAL *line = gy + (od * g->out[1] + oh) * g->out[2] * pixel;
            for (ptrdiff_t ow = 0; ow < g->out[2]; ow++)
                POOL_BLOCKS(pixel, NAME(share), line + ow * pixel, (REAL)(count * g->count[2][ow]),
                            (ptrdiff_t)g->start[2][ow], (ptrdiff_t)g->end[2][ow], pixel, gx);
        }
    }
}
