/* Pooling of one row, channels-last: forward a row of outputs, backward a row of the input's gradient.
 *
 * Each row is written by one call and read by none, so that rows may run in any order on any thread. A block of channels
 * stays in registers while the window passes by: vectors are written out, because compilers turn the selection of a
 * maximum into branches, which random numbers mispredict, where they do not see a long loop.
 */
#if defined(__GNUC__)
#define POOL_INLINE static inline __attribute__((always_inline))
#else
#define POOL_INLINE static inline
#endif

/* mask ? a : b, without a branch. */
POOL_INLINE REAL NAME(pick)(BITS mask, REAL a, REAL b)
{
    union {
        REAL number;
        BITS bits;
    } from = {a}, other = {b};
    from.bits = (from.bits & mask) | (other.bits & ~mask);
    return from.number;
}

/* Blocks of four vectors, of one vector, of one with 16 bytes, and of one element; without vectors all the same. */
#if defined(__GNUC__)
#define POOL_LANES LANES
#define POOL_QUAD (16 / (int)sizeof(REAL))
#define POOL_VECTOR(type, lanes, name) \
    typedef type NAME(name) __attribute__((vector_size((lanes) * sizeof(type)), aligned(sizeof(type)), may_alias));
#define POOL_TYPES(lanes, suffix) \
    POOL_VECTOR(REAL, lanes, v##suffix) \
    POOL_VECTOR(BITS, lanes, m##suffix) \
    POOL_VECTOR(uint8_t, lanes, b##suffix) \
    POOL_VECTOR(int32_t, lanes, i##suffix)
#define MASK(condition) ((VEC(m))(condition))
#define SELECT(mask, a, b) ((VEC(v))(((VEC(m))(a) & (mask)) | ((VEC(m))(b) & ~(mask))))
#define CONVERT(a, type) __builtin_convertvector(a, type)
POOL_TYPES(POOL_LANES, _lanes)
POOL_TYPES(POOL_QUAD, _quad)
#define VEC(kind) NAME(kind##_lanes)
#define VECTORS 4
#define BLOCK(name) NAME(name##_wide)
#include "pool_block.h"
#undef VECTORS
#undef BLOCK
#define VECTORS 1
#define BLOCK(name) NAME(name##_lanes)
#include "pool_block.h"
#undef VEC
#undef BLOCK
#define VEC(kind) NAME(kind##_quad)
#define BLOCK(name) NAME(name##_quad)
#include "pool_block.h"
#undef VEC
#undef VECTORS
#undef BLOCK
#undef MASK
#undef SELECT
#undef CONVERT
#endif
typedef REAL NAME(v_one);
typedef BITS NAME(m_one);
typedef uint8_t NAME(b_one);
typedef int32_t NAME(i_one);
#define VEC(kind) NAME(kind##_one)
#define VECTORS 1
#define BLOCK(name) NAME(name##_one)
#define MASK(condition) (-(BITS)(condition))
#define SELECT(mask, a, b) NAME(pick)(mask, a, b)
#define CONVERT(a, type) ((type)(a))
#include "pool_block.h"
#undef VEC
#undef VECTORS
#undef BLOCK
#undef MASK
#undef SELECT
#undef CONVERT

/* Do all channels of a pixel, the largest blocks first: CALL(function, c) does the block of channels that starts at c. Where
 * it may do a channel twice, the last block overlaps the one before it; single channels are slow. */
#if defined(__GNUC__)
#define POOL_CHANNELS(channels, twice, name, CALL) \
    do { \
        ptrdiff_t c_ = 0, left_ = (channels); \
        for (; left_ >= 4 * POOL_LANES; left_ -= 4 * POOL_LANES, c_ += 4 * POOL_LANES) \
            CALL(NAME(name##_wide), c_); \
        for (; left_ >= POOL_LANES; left_ -= POOL_LANES, c_ += POOL_LANES) \
            CALL(NAME(name##_lanes), c_); \
        for (; left_ >= POOL_QUAD; left_ -= POOL_QUAD, c_ += POOL_QUAD) \
            CALL(NAME(name##_quad), c_); \
        if (twice && left_ > 0 && (channels) >= POOL_QUAD) { \
            CALL(NAME(name##_quad), (channels) - POOL_QUAD); \
            left_ = 0; \
        } \
        for (; left_ > 0; left_--, c_++) \
            CALL(NAME(name##_one), c_); \
    } while (0)
#else
#define POOL_CHANNELS(channels, twice, name, CALL) \
    for (ptrdiff_t c_ = 0; c_ < (channels); c_++) \
        CALL(NAME(name##_one), c_)
#endif

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

/* Row (od, oh) of the output of the image x. */
static void NAME(max_row)(const struct nnx_pool_windows *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y,
                          void *index, int wide)
{
    ptrdiff_t pixel = g->channels, first[3], last[3];
    ptrdiff_t start[3] = {od * g->stride[0] - g->padding[0], oh * g->stride[1] - g->padding[1], 0};
    NAME(taps)(g, 0, od, first, last);
    NAME(taps)(g, 1, oh, first, last);
    for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
        NAME(taps)(g, 2, ow, first, last);
        ptrdiff_t at = ow * pixel, number = 0;
        start[2] = ow * g->stride[2] - g->padding[2];
        for (int axis = 0; axis < 3; axis++)
            number = number * g->kernel[axis] + (first[axis] < g->kernel[axis] ? first[axis] : g->kernel[axis] - 1);
#define MAX_WINDOW(function, c) \
    function(g, x + (c), start, first, last, number, y + (at + (c)), (char *)index + (at + (c)) * (wide ? 4 : 1), wide)
        POOL_CHANNELS(pixel, 1, max_window, MAX_WINDOW);
#undef MAX_WINDOW
    }
}

/* gx += gy for those of n channels whose maximum was at `tap`. */
#define POOL_ADD_WHERE(name, type) \
    POOL_INLINE void NAME(name)(ptrdiff_t n, const REAL *RESTRICT gy, const type *RESTRICT index, type tap, \
                                REAL *RESTRICT gx) \
    { \
        for (ptrdiff_t i = 0; i < n; i++) \
            gx[i] += NAME(pick)(-(BITS)(index[i] == tap), gy[i], 0); \
    }
POOL_ADD_WHERE(add_where_b, uint8_t)
POOL_ADD_WHERE(add_where_i, int32_t)

/* Row (d, h) of the gradient of an image: it collects from the output rows whose windows reach it. */
static void NAME(max_row_backward)(const struct nnx_pool_windows *g, const REAL *gy, const void *index, int wide,
                                   ptrdiff_t d, ptrdiff_t h, REAL *gx)
{
    ptrdiff_t pixel = g->channels;
    memset(gx, 0, (size_t)(g->size[2] * pixel) * sizeof(REAL));
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
                    if (wide)
                        NAME(add_where_i)(pixel, gy + at, (const int32_t *)index + at, tap, gx + w * pixel);
                    else
                        NAME(add_where_b)(pixel, gy + at, (const uint8_t *)index + at, (uint8_t)tap, gx + w * pixel);
                }
            }
        }
    }
}

/* The whole gradient of an image of few channels, which no vector can be filled with: each output adds to one element.
 * A number that its window does not have, or whose element lies outside of the image, adds nothing. */
static void NAME(max_image_backward)(const struct nnx_pool_windows *g, const REAL *gy, const void *index, int wide,
                                     REAL *gx)
{
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row, at = 0;
    uint32_t columns = (uint32_t)g->kernel[2], slice = (uint32_t)g->kernel[1] * columns;
    uint32_t taps = (uint32_t)g->kernel[0] * slice;
    memset(gx, 0, (size_t)(g->size[0] * plane) * sizeof(REAL));
    for (ptrdiff_t od = 0; od < g->out[0]; od++)
        for (ptrdiff_t oh = 0; oh < g->out[1]; oh++)
            for (ptrdiff_t ow = 0; ow < g->out[2]; ow++)
                for (ptrdiff_t c = 0; c < pixel; c++, at++) {
                    uint32_t tap = wide ? (uint32_t)((const int32_t *)index)[at] : ((const uint8_t *)index)[at];
                    uint32_t rest = tap % slice;
                    ptrdiff_t d = od * g->stride[0] - g->padding[0] + (ptrdiff_t)(tap / slice) * g->dilation[0];
                    ptrdiff_t h = oh * g->stride[1] - g->padding[1] + (ptrdiff_t)(rest / columns) * g->dilation[1];
                    ptrdiff_t w = ow * g->stride[2] - g->padding[2] + (ptrdiff_t)(rest % columns) * g->dilation[2];
                    if (tap < taps && d >= 0 && d < g->size[0] && h >= 0 && h < g->size[1] && w >= 0 && w < g->size[2])
                        gx[d * plane + h * row + w * pixel + c] += gy[at];
                }
}

/* Row `oh` of the output of one plane of x for windows of 2x2 that do not overlap, all inside of the plane. Where a pixel has
 * fewer channels than a vector, whole vectors are read and written as long as the rows go on: what is too much is
 * written again by the next pixel. */
static void NAME(max_row_squares)(const struct nnx_pool_windows *g, const REAL *x, ptrdiff_t oh, REAL *y, uint8_t *index)
{
    const ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, end = g->out[2] * pixel;
    const REAL *top = x + 2 * oh * row, *bottom = top + row;
    ptrdiff_t at = 0;
#if defined(__GNUC__)
    if (pixel < POOL_LANES)
        for (; at + POOL_LANES <= end && 2 * at + pixel + POOL_LANES <= row; at += pixel)
            NAME(max_square_lanes)(top + 2 * at, bottom + 2 * at, pixel, y + at, index + at);
#endif
    for (; at < end; at += pixel) {
#define MAX_SQUARE(function, c) function(top + 2 * at + (c), bottom + 2 * at + (c), pixel, y + at + (c), index + at + (c))
        POOL_CHANNELS(pixel, 1, max_square, MAX_SQUARE);
#undef MAX_SQUARE
    }
}

/* The rows of the plane's gradient that belong to row `oh` of gy, and with the last of them the rows that no window has. */
static void NAME(max_row_squares_backward)(const struct nnx_pool_windows *g, const REAL *gy, const uint8_t *index,
                                           ptrdiff_t oh, REAL *gx)
{
    const ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, end = g->out[2] * pixel;
    const ptrdiff_t below = oh + 1 == g->out[1] ? g->size[1] - 2 * g->out[1] : 0;
    REAL *top = gx + 2 * oh * row, *bottom = top + row;
    ptrdiff_t at = 0;
#if defined(__GNUC__)
    if (pixel < POOL_LANES)
        for (; at + POOL_LANES <= end && 2 * at + pixel + POOL_LANES <= row; at += pixel)
            NAME(max_square_backward_lanes)(gy + at, index + at, pixel, top + 2 * at, bottom + 2 * at);
#endif
    for (; at < end; at += pixel) {
#define MAX_SQUARE(function, c) function(gy + at + (c), index + at + (c), pixel, top + 2 * at + (c), bottom + 2 * at + (c))
        POOL_CHANNELS(pixel, 1, max_square_backward, MAX_SQUARE);
#undef MAX_SQUARE
    }
    memset(top + 2 * end, 0, (size_t)(row - 2 * end) * sizeof(REAL));
    memset(bottom + 2 * end, 0, (size_t)(row - 2 * end) * sizeof(REAL));
    memset(bottom + row, 0, (size_t)(below * row) * sizeof(REAL));
}

/* Where the maximum is no positive number (nor NaN), its index is that of no element. */
static void NAME(max_row_drop)(ptrdiff_t n, const REAL *RESTRICT y, void *index, int wide)
{
    int32_t *RESTRICT numbers = index;
    uint8_t *RESTRICT bytes = index;
    if (wide)
        for (ptrdiff_t i = 0; i < n; i++)
            numbers[i] |= -(int32_t)(y[i] <= 0);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            bytes[i] |= (uint8_t)-(int)(y[i] <= 0);
}

/* -- mean and sum -------------------------------------------------------------------------------------------------- */

/* Row (od, oh) of the output of the image x. */
static void NAME(mean_row)(const struct nnx_pool_boxes *g, const REAL *x, ptrdiff_t od, ptrdiff_t oh, REAL *y)
{
    int64_t start[3] = {g->start[0][od], g->start[1][oh], 0}, end[3] = {g->end[0][od], g->end[1][oh], 0};
    for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
        start[2] = g->start[2][ow];
        end[2] = g->end[2][ow];
        REAL divisor = (REAL)(g->count[0][od] * g->count[1][oh] * g->count[2][ow]);
#define MEAN_BOX(function, c) function(g, x + (c), start, end, divisor, y + (ow * g->channels + (c)))
        POOL_CHANNELS(g->channels, 1, mean_box, MEAN_BOX);
#undef MEAN_BOX
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
            const REAL *line = gy + (od * g->out[1] + oh) * g->out[2] * pixel;
            for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
                REAL divisor = (REAL)(g->count[0][od] * g->count[1][oh] * g->count[2][ow]);
                ptrdiff_t start = g->start[2][ow], end = g->end[2][ow];
#define SHARE(function, c) function(line + (ow * pixel + (c)), divisor, start, end, pixel, gx + (c))
                POOL_CHANNELS(pixel, 0, share, SHARE);
#undef SHARE
            }
        }
    }
}
