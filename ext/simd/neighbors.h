/* Distances between the rows of two matrices, and the k smallest of them. ext/neighbors.pyx cuts the tiles.
 *
 * A distance is computed by the same operations whatever tile its pair lies in, so it does not depend on the batch.
 * Bytes are subtracted and summed in integers, which are exact and never wrap; the sum is handed over as a double.
 */
#include "vector.h"

#if defined(__GNUC__)
#define ABSOLUTE(v) ((NAME(vec))((NAME(mask))(v) & (REAL_IS_FLOAT ? 0x7fffffff : 0x7fffffffffffffff)))
#define LANE(v, i) ((v)[i])
#else
#define ABSOLUTE(v) (REAL_IS_FLOAT ? fabsf((float)(v)) : fabs(v))
#define LANE(v, i) (v)
#endif

#define ABSOLUTE_ERROR 1
#define SQUARED_ERROR 2

/* d[i * ldd + j] = the distance of rows i of a and j of b, each of K numbers; constants where it is inlined: kind, M, N */
INLINE void NAME(block)(const int kind, const int M, const int N, ptrdiff_t K, const REAL *a, const REAL *b, REAL *d,
                               ptrdiff_t ldd)
{
    NAME(vec) sum[4][4];
    ptrdiff_t k = 0;
    memset(sum, 0, sizeof sum);
    for (; k + VLEN <= K; k += VLEN) {
        NAME(vec) x[4];
        UNROLL(4)
        for (int i = 0; i < M; i++)
            x[i] = LOAD(a + i * K + k);
        UNROLL(4)
        for (int j = 0; j < N; j++) {
            NAME(vec) y = LOAD(b + j * K + k);
            UNROLL(4)
            for (int i = 0; i < M; i++) {
                NAME(vec) e = x[i] - y;
                if (kind == ABSOLUTE_ERROR)
                    sum[i][j] += ABSOLUTE(e);
                else
                    sum[i][j] += e * e;
            }
        }
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            REAL total = 0;
            for (ptrdiff_t rest = k; rest < K; rest++) {
                REAL e = a[i * K + rest] - b[j * K + rest];
                total += kind == ABSOLUTE_ERROR ? (e < 0 ? -e : e) : e * e;
            }
            for (int lane = 0; lane < VLEN; lane++)
                total += LANE(sum[i][j], lane);
            d[i * ldd + j] = total;
        }
}

#define BYTES_AT_ONCE 32768 /* so many squares of differences fit into an int32_t */

INLINE void NAME(block_bytes)(const int kind, const int M, const int N, ptrdiff_t K, const uint8_t *a,
                                     const uint8_t *b, double *d, ptrdiff_t ldd)
{
    int64_t total[4][4] = {{0}};
    for (ptrdiff_t start = 0; start < K; start += BYTES_AT_ONCE) {
        const ptrdiff_t end = K - start < BYTES_AT_ONCE ? K : start + BYTES_AT_ONCE;
        int32_t sum[4][4] = {{0}};
        for (ptrdiff_t k = start; k < end; k++)
            UNROLL(4)
            for (int i = 0; i < M; i++)
                UNROLL(4)
                for (int j = 0; j < N; j++) {
                    const int16_t e = (int16_t)(a[i * K + k] - b[j * K + k]); /* there are products of 16-bit pairs */
                    sum[i][j] += kind == ABSOLUTE_ERROR ? (e < 0 ? -e : e) : e * e;
                }
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++)
                total[i][j] += sum[i][j];
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++)
            d[i * ldd + j] = (double)total[i][j];
}

/* Blocks of 2 x 4 pairs share what they load; the pairs that are left go one by one. */
#define DISTANCES(name, block, kind, TYPE, SUM) \
    static void NAME(name)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const TYPE *a, const TYPE *b, SUM *d, ptrdiff_t ldd) \
    { \
        ptrdiff_t j = 0; \
        for (; j + 4 <= N; j += 4) { \
            ptrdiff_t i = 0; \
            for (; i + 2 <= M; i += 2) \
                NAME(block)(kind, 2, 4, K, a + i * K, b + j * K, d + i * ldd + j, ldd); \
            for (; i < M; i++) \
                NAME(block)(kind, 1, 4, K, a + i * K, b + j * K, d + i * ldd + j, ldd); \
        } \
        for (; j < N; j++) \
            for (ptrdiff_t i = 0; i < M; i++) \
                NAME(block)(kind, 1, 1, K, a + i * K, b + j * K, d + i * ldd + j, ldd); \
    }
DISTANCES(absolute, block, ABSOLUTE_ERROR, REAL, REAL)
DISTANCES(squared, block, SQUARED_ERROR, REAL, REAL)
DISTANCES(absolute_bytes, block_bytes, ABSOLUTE_ERROR, uint8_t, double)
DISTANCES(squared_bytes, block_bytes, SQUARED_ERROR, uint8_t, double)

/* y = x - center; the square of its length */
static double NAME(shift)(ptrdiff_t K, const REAL *RESTRICT x, const REAL *RESTRICT center, REAL *RESTRICT y)
{
    double sums[8] = {0}, sum = 0;
    ptrdiff_t k = 0;
    for (; k + 8 <= K; k += 8)
        for (int i = 0; i < 8; i++) {
            const REAL v = x[k + i] - center[k + i];
            y[k + i] = v;
            sums[i] += (double)v * v;
        }
    for (; k < K; k++) {
        y[k] = x[k] - center[k];
        sum += (double)y[k] * y[k];
    }
    for (int i = 0; i < 8; i++)
        sum += sums[i];
    return sum;
}

/* Put a pair into its place in the list, if it belongs there. A distance that is NaN counts as infinite. */
static void NAME(insert)(REAL d, int64_t i, ptrdiff_t k, REAL *best, int64_t *number)
{
    ptrdiff_t place = k;
    if (d != d)
        d = (REAL)INFINITY;
    while (place > 0 && (d < best[place - 1] || (d == best[place - 1] && i < number[place - 1])))
        place--;
    for (ptrdiff_t p = k - 1; p > place; p--) {
        best[p] = best[p - 1];
        number[p] = number[p - 1];
    }
    if (place < k) {
        best[place] = d;
        number[place] = i;
    }
}

/* Distances d[j] of points first + j to one query. */
static void NAME(offer)(ptrdiff_t N, const REAL *d, int64_t first, ptrdiff_t k, REAL *best, int64_t *number)
{
    REAL worst = best[k - 1];
    for (ptrdiff_t j = 0; j < N; j++)
        if (!(d[j] > worst)) {
            NAME(insert)(d[j], first + j, k, best, number);
            worst = best[k - 1];
        }
}

/* Points first + j whose squared distance to q is at least 2 (half + halves[j] - dots[j]): those for which this is not
 * above the worst of the list are measured. `best` is in squared distances; `points` begins at point `first`. */
static void NAME(refine)(ptrdiff_t N, const REAL *dots, const REAL *halves, REAL half, ptrdiff_t K, const REAL *q,
                         const REAL *points, int64_t first, ptrdiff_t k, REAL *best, int64_t *number)
{
    REAL limit = best[k - 1] / 2 - half;
    for (ptrdiff_t j = 0; j < N; j++)
        if (!(halves[j] - dots[j] > limit)) {
            REAL d;
            NAME(squared)(1, 1, K, q, points + j * K, &d, 1);
            NAME(insert)(d, first + j, k, best, number);
            limit = best[k - 1] / 2 - half;
        }
}

#undef ABSOLUTE
#undef LANE
#undef ABSOLUTE_ERROR
#undef SQUARED_ERROR
#undef BYTES_AT_ONCE
#undef DISTANCES
