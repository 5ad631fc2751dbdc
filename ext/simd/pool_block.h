/* Part of pool.h: what pooling does with a block of channels that fits into a few vectors.
 *
 * Included once for each size of block, with these defined: VEC(kind), a vector type of kind v (REAL), m (BITS: masks
 * and indices), b (bytes) or i (int32_t); VECTORS, their number in a block; BLOCK(name), the functions' names;
 * MASK(condition), all bits set where it holds; SELECT(mask, a, b); CONVERT(a, type).
 */

/* One output, whose window begins at `start` in the image x: the largest element and the number of its tap. A NaN is taken
 * over everything; a window of -inf keeps `number`, its first tap inside the input. */
POOL_INLINE void BLOCK(max_window)(const struct nnx_pool_windows *g, const REAL *x, const ptrdiff_t *start,
                                   const ptrdiff_t *first, const ptrdiff_t *last, ptrdiff_t number, REAL *y,
                                   void *index, int wide)
{
    VEC(v) best[VECTORS];
    VEC(m) where[VECTORS];
    for (int u = 0; u < VECTORS; u++) {
        best[u] = (VEC(v)){0} - (REAL)INFINITY;
        where[u] = (VEC(m)){0} + (BITS)number;
    }
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row;
    for (ptrdiff_t kd = first[0]; kd < last[0]; kd++)
        for (ptrdiff_t kh = first[1]; kh < last[1]; kh++)
            for (ptrdiff_t kw = first[2]; kw < last[2]; kw++) {
                ptrdiff_t d = start[0] + kd * g->dilation[0], h = start[1] + kh * g->dilation[1];
                ptrdiff_t w = start[2] + kw * g->dilation[2];
                const VEC(v) *p = (const VEC(v) *)(x + (d * plane + h * row + w * pixel));
                VEC(m) tap = (VEC(m)){0} + (BITS)((kd * g->kernel[1] + kh) * g->kernel[2] + kw);
                for (int u = 0; u < VECTORS; u++) {
                    VEC(m) better = MASK((p[u] > best[u]) | (p[u] != p[u]));
                    best[u] = SELECT(better, p[u], best[u]);
                    where[u] = (tap & better) | (where[u] & ~better);
                }
            }
    for (int u = 0; u < VECTORS; u++) {
        ((VEC(v) *)y)[u] = best[u];
        if (wide)
            ((VEC(i) *)index)[u] = CONVERT(where[u], VEC(i));
        else
            ((VEC(b) *)index)[u] = CONVERT(where[u], VEC(b));
    }
}

/* One output: the sum over a box of the image x, divided. */
POOL_INLINE void BLOCK(mean_box)(const struct nnx_pool_boxes *g, const REAL *x, const int64_t *start,
                                 const int64_t *end, REAL divisor, REAL *y)
{
    VEC(v) sum[VECTORS];
    for (int u = 0; u < VECTORS; u++)
        sum[u] = (VEC(v)){0};
    ptrdiff_t pixel = g->channels, row = g->size[2] * pixel, plane = g->size[1] * row;
    for (ptrdiff_t d = start[0]; d < end[0]; d++)
        for (ptrdiff_t h = start[1]; h < end[1]; h++)
            for (ptrdiff_t w = start[2]; w < end[2]; w++) {
                const VEC(v) *p = (const VEC(v) *)(x + (d * plane + h * row + w * pixel));
                for (int u = 0; u < VECTORS; u++)
                    sum[u] += p[u];
            }
    for (int u = 0; u < VECTORS; u++)
        ((VEC(v) *)y)[u] = sum[u] / divisor;
}

/* One output's gradient, divided and added to the columns [start, end) of a row. */
POOL_INLINE void BLOCK(share)(const REAL *gy, REAL divisor, ptrdiff_t start, ptrdiff_t end, ptrdiff_t pixel, REAL *gx)
{
    VEC(v) part[VECTORS];
    for (int u = 0; u < VECTORS; u++)
        part[u] = ((const VEC(v) *)gy)[u] / divisor;
    for (ptrdiff_t w = start; w < end; w++) {
        VEC(v) *p = (VEC(v) *)(gx + w * pixel);
        for (int u = 0; u < VECTORS; u++)
            p[u] += part[u];
    }
}

/* One output of windows of 2x2 that do not overlap: `top` and `bottom` are its pixels' first rows of channels. As
 * max_window does it, tap by tap. */
POOL_INLINE void BLOCK(max_square)(const REAL *top, const REAL *bottom, ptrdiff_t pixel, REAL *y, uint8_t *index)
{
    const VEC(v) *taps[4] = {(const VEC(v) *)top, (const VEC(v) *)(top + pixel), (const VEC(v) *)bottom,
                             (const VEC(v) *)(bottom + pixel)};
    for (int u = 0; u < VECTORS; u++) {
        VEC(v) best = taps[0][u];
        VEC(m) where = {0};
        for (int tap = 1; tap < 4; tap++) {
            const VEC(v) value = taps[tap][u];
            const VEC(m) better = MASK((value > best) | (value != value));
            best = SELECT(better, value, best);
            where = (((VEC(m)){0} + (BITS)tap) & better) | (where & ~better);
        }
        ((VEC(v) *)y)[u] = best;
        ((VEC(b) *)index)[u] = CONVERT(where, VEC(b));
    }
}

/* Its gradient goes to the pixel that was the largest, and 0 to the three others. */
POOL_INLINE void BLOCK(max_square_backward)(const REAL *gy, const uint8_t *index, ptrdiff_t pixel, REAL *top,
                                            REAL *bottom)
{
    VEC(v) *taps[4] = {(VEC(v) *)top, (VEC(v) *)(top + pixel), (VEC(v) *)bottom, (VEC(v) *)(bottom + pixel)};
    for (int u = 0; u < VECTORS; u++) {
        const VEC(m) where = CONVERT(((const VEC(b) *)index)[u], VEC(m));
        const VEC(v) g = ((const VEC(v) *)gy)[u];
        for (int tap = 0; tap < 4; tap++)
            taps[tap][u] = SELECT(MASK(where == (BITS)tap), g, (VEC(v)){0});
    }
}
