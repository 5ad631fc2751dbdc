// Winograd's minimal filtering F(4x4, 3x3): the transforms around 36 products of matrices (Lavin and Gray,
// arXiv:1509.09308).
//
// A tile of 4x4 outputs reads a patch d of 6x6 inputs. With the matrices below (the CPU's are the same),
//     y  = A' [ (G w G') . (B' d B) ] A        (. is elementwise)
// and the gradient of the weights is  gw = G' [ (B' d B) . (A gy A') ] G, summed over all tiles.
//
//     B' = 4  0 -5  0  1  0     G = 1/4    0    0     A' = 1  1  1  1  1  0
//          0 -4 -4  1  1  0        -1/6 -1/6 -1/6          0  1 -1  2 -2  0
//          0  4 -4 -1  1  0        -1/6  1/6 -1/6          0  1  1  4  4  0
//          0 -2 -1  2  1  0        1/24 1/12  1/6          0  1 -1  8 -8  1
//          0  2 -1 -2  1  0       1/24 -1/12  1/6
//          0  4  0 -5  0  1           0    0    1
//
// Images are (N, height, width, channels). A thread transforms one tile of one channel (or one filter of one channel),
// and neighbours in a warp take neighbouring channels: each of its loads and stores is a run of memory. Transformed
// arrays are 36 matrices (tiles x channels). Sizes are such that elements of one image batch, or of one such matrix,
// fit in 32 bits.

// One dimension of B' d, A' m, A e, G w and G' u: numbers `s` apart from `d`, the result `t` apart to `o`.
DEVICE void patch_step(const REAL* d, int s, REAL* o, int t)
{
    const REAL even = d[4 * s] - 4 * d[2 * s], odd = d[3 * s] - 4 * d[s], far = d[4 * s] - d[2 * s];
    const REAL twice = 2 * (d[3 * s] - d[s]);
    o[0] = 4 * d[0] - 5 * d[2 * s] + d[4 * s];
    o[t] = even + odd;
    o[2 * t] = even - odd;
    o[3 * t] = far + twice;
    o[4 * t] = far - twice;
    o[5 * t] = 4 * d[s] - 5 * d[3 * s] + d[5 * s];
}

DEVICE void result_step(const REAL* m, int s, REAL* o, int t)
{
    const REAL sum1 = m[s] + m[2 * s], gap1 = m[s] - m[2 * s], sum2 = m[3 * s] + m[4 * s], gap2 = m[3 * s] - m[4 * s];
    o[0] = m[0] + sum1 + sum2;
    o[t] = gap1 + 2 * gap2;
    o[2 * t] = sum1 + 4 * sum2;
    o[3 * t] = gap1 + 8 * gap2 + m[5 * s];
}

DEVICE void spread_step(const REAL* e, int s, REAL* o, int t)
{
    const REAL even1 = e[0] + e[2 * s], odd1 = e[s] + e[3 * s];
    const REAL even2 = e[0] + 4 * e[2 * s], odd2 = 2 * e[s] + 8 * e[3 * s];
    o[0] = e[0];
    o[t] = even1 + odd1;
    o[2 * t] = even1 - odd1;
    o[3 * t] = even2 + odd2;
    o[4 * t] = even2 - odd2;
    o[5 * t] = e[3 * s];
}

DEVICE void weight_step(const REAL* w, int s, REAL* o, int t)
{
    const REAL sixth = (REAL)1 / 6, twelfth = (REAL)1 / 12, twenty_fourth = (REAL)1 / 24;
    const REAL ends = -sixth * (w[0] + w[2 * s]), middle = sixth * w[s];
    const REAL outer = twenty_fourth * w[0] + sixth * w[2 * s], inner = twelfth * w[s];
    o[0] = (REAL)0.25 * w[0];
    o[t] = ends - middle;
    o[2 * t] = ends + middle;
    o[3 * t] = outer + inner;
    o[4 * t] = outer - inner;
    o[5 * t] = w[2 * s];
}

DEVICE void gather_step(const REAL* u, int s, REAL* o, int t)
{
    const REAL sixth = (REAL)1 / 6, twelfth = (REAL)1 / 12, twenty_fourth = (REAL)1 / 24;
    const REAL sum1 = u[s] + u[2 * s], gap1 = u[2 * s] - u[s], sum2 = u[3 * s] + u[4 * s], gap2 = u[3 * s] - u[4 * s];
    o[0] = (REAL)0.25 * u[0] - sixth * sum1 + twenty_fourth * sum2;
    o[t] = sixth * gap1 + twelfth * gap2;
    o[2 * t] = sixth * (sum2 - sum1) + u[5 * s];
}

// The image, and the output row and column at the corner, of a tile.
DEVICE unsigned corner(unsigned tile, unsigned down, unsigned across, int& top, int& left)
{
    const unsigned row = tile / across;
    left = (int)(tile % across) * 4;
    top = (int)(row % down) * 4;
    return row / down;
}

// U[36][filter][channel] = G w G' for all n pairs of w (filters, channels, 3, 3); with `turned` the taps run backwards.
KERNEL STANDARD winograd_filter(const REAL* __restrict__ w, long long n, long long turned, REAL* __restrict__ U)
{
    EACH (i, n) {
        REAL taps[9], half[18], out[36];
#pragma unroll
        for (int t = 0; t < 9; t++)
            taps[t] = w[i * 9 + (turned ? 8 - t : t)];
#pragma unroll
        for (int j = 0; j < 3; j++)
            weight_step(taps + j, 3, half + j, 3);
#pragma unroll
        for (int j = 0; j < 6; j++)
            weight_step(half + j * 3, 1, out + j * 6, 1);
#pragma unroll
        for (int k = 0; k < 36; k++)
            U[k * n + i] = out[k];
    }
}

// V[36][tile][channel] = B' d B for `rows` tiles from `first` on, zeros for tiles beyond the last, number tiles - 1.
KERNEL STANDARD winograd_input(const REAL* __restrict__ x, long long first, long long rows, long long tiles,
                               long long down, long long across, long long height, long long width, long long channels,
                               long long low0, long long low1, REAL* __restrict__ V)
{
    const int H = (int)height, W = (int)width, C = (int)channels;
    const long long n = rows * channels;
    EACH (i, n) {
        const unsigned tile = (unsigned)first + (unsigned)i / (unsigned)C, c = (unsigned)i % (unsigned)C;
        int top, left;
        const unsigned image = corner(tile, (unsigned)down, (unsigned)across, top, left);
        top -= (int)low0;
        left -= (int)low1;
        const REAL* from = x + (size_t)image * H * W * C + c;
        REAL d[36], out[36];
#pragma unroll
        for (int j = 0; j < 36; j++) {
            const int h = top + j / 6, v = left + j % 6;
            const bool there = tile < tiles && (unsigned)h < (unsigned)H && (unsigned)v < (unsigned)W;
            d[j] = there ? from[(size_t)(h * W + v) * C] : (REAL)0;
        }
#pragma unroll
        for (int j = 0; j < 6; j++)
            patch_step(d + j, 6, out + j, 6);
#pragma unroll
        for (int j = 0; j < 6; j++)
            patch_step(out + j * 6, 1, d + j * 6, 1);
#pragma unroll
        for (int k = 0; k < 36; k++)
            V[k * n + i] = d[k];
    }
}

// y = A' m A + b for `rows` tiles from `first` on, or with `relu` its positive part; only what is inside the image.
KERNEL STANDARD winograd_output(const REAL* __restrict__ M, const REAL* b, long long biased, long long relu,
                                long long first, long long rows, long long down, long long across, long long height,
                                long long width, long long filters, REAL* y)
{
    const int H = (int)height, W = (int)width, K = (int)filters;
    const long long n = rows * filters;
    EACH (i, n) {
        const unsigned tile = (unsigned)first + (unsigned)i / (unsigned)K, k = (unsigned)i % (unsigned)K;
        int top, left;
        const unsigned image = corner(tile, (unsigned)down, (unsigned)across, top, left);
        REAL m[36], half[24], out[16];
#pragma unroll
        for (int j = 0; j < 36; j++)
            m[j] = M[j * n + i];
#pragma unroll
        for (int j = 0; j < 6; j++)
            result_step(m + j, 6, half + j, 6);
#pragma unroll
        for (int j = 0; j < 4; j++)
            result_step(half + j * 6, 1, out + j * 4, 1);
        const REAL bias = biased ? b[k] : (REAL)0;
        REAL* to = y + (size_t)image * H * W * K + k;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            const int h = top + j / 4, v = left + j % 4;
            const REAL value = out[j] + bias;
            if (h < H && v < W)
                to[(size_t)(h * W + v) * K] = relu ? r_max(value, (REAL)0) : value;
        }
    }
}

// E[36][tile][filter] = A gy A' for `rows` tiles from `first` on, zeros for tiles beyond the last, number tiles - 1.
KERNEL STANDARD winograd_gradient(const REAL* __restrict__ gy, long long first, long long rows, long long tiles,
                                  long long down, long long across, long long height, long long width,
                                  long long filters, REAL* __restrict__ E)
{
    const int H = (int)height, W = (int)width, K = (int)filters;
    const long long n = rows * filters;
    EACH (i, n) {
        const unsigned tile = (unsigned)first + (unsigned)i / (unsigned)K, k = (unsigned)i % (unsigned)K;
        int top, left;
        const unsigned image = corner(tile, (unsigned)down, (unsigned)across, top, left);
        const REAL* from = gy + (size_t)image * H * W * K + k;
        REAL e[16], half[24], out[36];
#pragma unroll
        for (int j = 0; j < 16; j++) {
            const int h = top + j / 4, v = left + j % 4;
            e[j] = tile < tiles && h < H && v < W ? from[(size_t)(h * W + v) * K] : (REAL)0;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            spread_step(e + j, 4, half + j, 4);
#pragma unroll
        for (int j = 0; j < 6; j++)
            spread_step(half + j * 4, 1, out + j * 6, 1);
#pragma unroll
        for (int k2 = 0; k2 < 36; k2++)
            E[k2 * n + i] = out[k2];
    }
}

// gw (filters, channels, 3, 3) = G' u G for all n pairs, where u[36] sums the parts of dU[36][part][filter][channel]
// in order.
KERNEL STANDARD winograd_weight(const REAL* __restrict__ dU, long long parts, long long n, REAL* __restrict__ gw)
{
    EACH (i, n) {
        REAL u[36], half[18], out[9];
#pragma unroll
        for (int k = 0; k < 36; k++) {
            const REAL* from = dU + k * parts * n + i;
            u[k] = from[0];
            for (long long p = 1; p < parts; p++)
                u[k] += from[p * n];
        }
#pragma unroll
        for (int j = 0; j < 6; j++)
            gather_step(u + j, 6, half + j, 6);
#pragma unroll
        for (int j = 0; j < 3; j++)
            gather_step(half + j * 6, 1, out + j * 3, 1);
#pragma unroll
        for (int t = 0; t < 9; t++)
            gw[i * 9 + t] = out[t];
    }
}
