/* Elementwise kernels over n contiguous elements; an output may be one of the inputs. */

/* y = max(x, 0); NaN stays NaN, as every comparison with it is false. */
static void NAME(relu)(const REAL *x, REAL *y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

/* gx = gy where y > 0, else 0. A NaN in y lets gy pass: the NaN is in the result already. */
static void NAME(relu_backward)(const REAL *gy, const REAL *y, REAL *gx, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        gx[i] = y[i] <= 0 ? 0 : gy[i];
}
