/* Kernels of the family "neighbors": X(result, name, (arguments)), see table.h. */

/* d: distances; best, number: the k first (distance, number) pairs that one query has met so far, in order. */
#define NNX_TABLE_neighbors(X, REAL) \
    X(void, absolute, (ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const REAL *a, const REAL *b, REAL *d, ptrdiff_t ldd)) \
    X(void, squared, (ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const REAL *a, const REAL *b, REAL *d, ptrdiff_t ldd)) \
    X(void, absolute_bytes, \
      (ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const uint8_t *a, const uint8_t *b, double *d, ptrdiff_t ldd)) \
    X(void, squared_bytes, \
      (ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const uint8_t *a, const uint8_t *b, double *d, ptrdiff_t ldd)) \
    X(double, shift, (ptrdiff_t K, const REAL *x, const REAL *center, REAL *y)) \
    X(void, offer, (ptrdiff_t N, const REAL *d, int64_t first, ptrdiff_t k, REAL *best, int64_t *number)) \
    X(void, refine, \
      (ptrdiff_t N, const REAL *dots, const REAL *halves, REAL half, ptrdiff_t K, const REAL *q, const REAL *points, \
       int64_t first, ptrdiff_t k, REAL *best, int64_t *number))
