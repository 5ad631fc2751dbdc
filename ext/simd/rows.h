/* Softmax and its relatives work on slices of n elements along the middle axis of an array (outer, n, inner): on rows,
 * if inner is 1. For kernels that include this file once for each REAL.
 *
 * Short slices are handled some at a time: a tile holds element k of `width` slices side by side, so that vectors run
 * across slices and nothing is summed inside a vector. Longer ones must be rows, and vectors run along them; a sum is
 * kept in WIDTH parts, element j in part j % WIDTH, and the parts are added in a fixed order. Either way the bits of a
 * slice depend on its own elements only, not on where it lies.
 */
#include "elementary.h"

#ifndef TILE
#define TILE 16    /* slices of a tile */
#define BROAD 64   /* the same where slices lie side by side over a long way: whole cache lines of several slices */
#define SHORT 256  /* elements of the longest slice that goes into a tile */
#define ROOM (SHORT * TILE)
#define STEP 16
#define WIDTH 64
#if defined(__GNUC__)
#define NNX_INLINE static inline __attribute__((always_inline)) /* so that a width is a constant in loops */
#else
#define NNX_INLINE static inline
#endif
#endif

/* -- tiles: ROOM elements, at least n width -- */

/* The width for an array (outer, n, inner). */
static inline int NAME(tile_width)(ptrdiff_t n, ptrdiff_t inner)
{
    return inner >= 4 * BROAD && n * BROAD <= ROOM ? BROAD : TILE;
}

/* Where the slices s, s + 1, ... of an array (outer, n, inner) begin; returns how many there are in front of `end`. The
 * places behind them repeat the last. */
NNX_INLINE int NAME(tile_at)(
    ptrdiff_t s, ptrdiff_t end, ptrdiff_t n, ptrdiff_t inner, ptrdiff_t *offset, const int width)
{
    const int slices = end - s < width ? (int)(end - s) : width;
    ptrdiff_t i = s % inner, at = s / inner * n * inner + i;
    for (int j = 0; j < width; j++) {
        offset[j] = at;
        if (j + 1 < slices) {
            at++;
            if (++i == inner) {
                i = 0;
                at += (n - 1) * inner;
            }
        }
    }
    return slices;
}

/* Whether the slices of a tile are neighbours: offsets of different slices differ, so the last says it for all. */
NNX_INLINE int NAME(side_by_side)(const ptrdiff_t *offset, int slices, const int width)
{
    return slices == width && offset[width - 1] - offset[0] == width - 1;
}

NNX_INLINE void NAME(gather)(
    const REAL *x, const ptrdiff_t *offset, int slices, ptrdiff_t n, ptrdiff_t inner, REAL *RESTRICT tile,
    const int width)
{
    if (NAME(side_by_side)(offset, slices, width))
        for (ptrdiff_t k = 0; k < n; k++)
            memcpy(tile + k * width, x + offset[0] + k * inner, width * sizeof(REAL));
    else
        for (int j = 0; j < width; j++)
            for (ptrdiff_t k = 0; k < n; k++)
                tile[k * width + j] = x[offset[j] + k * inner];
}

NNX_INLINE void NAME(scatter)(
    const REAL *RESTRICT tile, const ptrdiff_t *offset, int slices, ptrdiff_t n, ptrdiff_t inner, REAL *y,
    const int width)
{
    if (NAME(side_by_side)(offset, slices, width))
        for (ptrdiff_t k = 0; k < n; k++)
            memcpy(y + offset[0] + k * inner, tile + k * width, width * sizeof(REAL));
    else
        for (int j = 0; j < slices; j++)
            for (ptrdiff_t k = 0; k < n; k++)
                y[offset[j] + k * inner] = tile[k * width + j];
}

/* The largest element of each slice; NaN is passed over. */
NNX_INLINE void NAME(tile_max)(const REAL *tile, ptrdiff_t n, REAL *RESTRICT top, const int width)
{
    for (int j = 0; j < width; j++)
        top[j] = -INFINITY;
    for (ptrdiff_t k = 0; k < n; k++)
        for (int j = 0; j < width; j++)
            top[j] = tile[k * width + j] > top[j] ? tile[k * width + j] : top[j];
}

/* The sum of x - shift over each slice: sums of STEP elements, then their sum, so that roundings do not pile up. */
NNX_INLINE void NAME(tile_sum)(
    const REAL *tile, ptrdiff_t n, const REAL *shift, REAL *RESTRICT total, const int width)
{
    for (int j = 0; j < width; j++)
        total[j] = 0;
    for (ptrdiff_t first = 0; first < n; first += STEP) {
        REAL part[BROAD] = {0};
        for (ptrdiff_t k = first; k < n && k < first + STEP; k++)
            for (int j = 0; j < width; j++)
                part[j] += tile[k * width + j] - shift[j];
        for (int j = 0; j < width; j++)
            total[j] += part[j];
    }
}

/* exp(x - shift) in place, and the sum of each slice */
NNX_INLINE void NAME(tile_exp)(
    REAL *RESTRICT tile, ptrdiff_t n, const REAL *shift, REAL *RESTRICT total, const int width)
{
    for (int j = 0; j < width; j++)
        total[j] = 0;
    for (ptrdiff_t first = 0; first < n; first += STEP) {
        REAL part[BROAD] = {0};
        for (ptrdiff_t k = first; k < n && k < first + STEP; k++)
            for (int j = 0; j < width; j++) {
                tile[k * width + j] = NAME(exp)(tile[k * width + j] - shift[j]);
                part[j] += tile[k * width + j];
            }
        for (int j = 0; j < width; j++)
            total[j] += part[j];
    }
}

/* The sum of x y over each slice. */
NNX_INLINE void NAME(tile_dot)(
    const REAL *tile, const REAL *other, ptrdiff_t n, REAL *RESTRICT total, const int width)
{
    for (int j = 0; j < width; j++)
        total[j] = 0;
    for (ptrdiff_t first = 0; first < n; first += STEP) {
        REAL part[BROAD] = {0};
        for (ptrdiff_t k = first; k < n && k < first + STEP; k++)
            for (int j = 0; j < width; j++)
                part[j] = NAME(fma)(tile[k * width + j], other[k * width + j], part[j]);
        for (int j = 0; j < width; j++)
            total[j] += part[j];
    }
}

/* -- long rows -- */

static inline REAL NAME(add_parts)(REAL *part)
{
    for (int w = WIDTH / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            part[j] += part[j + w];
    return part[0];
}

/* The largest element; NaN is passed over. */
static inline REAL NAME(row_max)(const REAL *x, ptrdiff_t n)
{
    REAL part[WIDTH];
    ptrdiff_t i = 0;
    for (int j = 0; j < WIDTH; j++)
        part[j] = -INFINITY;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
    for (int j = 0; i + j < n; j++)
        part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
    for (int w = WIDTH / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            part[j] = part[j + w] > part[j] ? part[j + w] : part[j];
    return part[0];
}

/* sum(x - shift) */
static inline REAL NAME(row_sum)(const REAL *x, ptrdiff_t n, REAL shift)
{
    REAL part[WIDTH] = {0};
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] += x[i + j] - shift;
    for (int j = 0; i + j < n; j++)
        part[j] += x[i + j] - shift;
    return NAME(add_parts)(part);
}

static inline REAL NAME(row_dot)(const REAL *x, const REAL *y, ptrdiff_t n)
{
    REAL part[WIDTH] = {0};
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++)
            part[j] = NAME(fma)(x[i + j], y[i + j], part[j]);
    for (int j = 0; i + j < n; j++)
        part[j] = NAME(fma)(x[i + j], y[i + j], part[j]);
    return NAME(add_parts)(part);
}

/* y = exp(x - shift), unless y is NULL; returns the sum. The rest of a row is filled up and takes the same code. */
static inline REAL NAME(row_exp)(const REAL *x, REAL *y, ptrdiff_t n, REAL shift)
{
    REAL part[WIDTH] = {0}, rest[WIDTH], result[WIDTH];
    for (ptrdiff_t i = 0; i < n; i += WIDTH) {
        const ptrdiff_t left = n - i;
        const REAL *from = x + i;
        REAL *to = y && left >= WIDTH ? y + i : result;
        if (left < WIDTH) {
            for (int j = 0; j < WIDTH; j++)
                rest[j] = -INFINITY;
            memcpy(rest, from, left * sizeof(REAL));
            from = rest;
        }
        NNX_INDEPENDENT
        for (int j = 0; j < WIDTH; j++) {
            const REAL e = NAME(exp)(from[j] - shift);
            to[j] = e;
            part[j] += e;
        }
        if (y && left < WIDTH)
            memcpy(y + i, result, left * sizeof(REAL));
    }
    return NAME(add_parts)(part);
}
