// Normalisation. Per-channel kernels see an array as (pixels, channels), channels-last; a block of 256 threads is
// (channels, lanes): threads beside each other take channels beside each other, and a lane every so many-th pixel.
//
// Sums are taken in REAL over eight numbers, in double over the eights, over the lanes in a tree and over the chunks of
// pixels that blocks have in the order of the chunks: the same bits in every run, and no digits lost in long sums.

#define STEPS 8

DEVICE bool is_finite(REAL x) { return x - x == 0; }

DEVICE REAL rstd_of(REAL var, REAL eps) { return 1 / r_sqrt(var + eps); }

// Sum over the lanes of a block (channels, lanes); lane 0 has the result. All threads come here.
DEVICE double over_lanes(double value, double* shared) {
    const int t = threadIdx.y * blockDim.x + threadIdx.x;
    shared[t] = value;
    __syncthreads();
    for (int half = (int)blockDim.y / 2; half > 0; half /= 2) {
        if ((int)threadIdx.y < half) shared[t] += shared[t + half * (int)blockDim.x];
        __syncthreads();
    }
    value = shared[t];
    __syncthreads();
    return value;
}

// Sum over the chunks of partial sums (chunks, columns); lane 0 has the result.
DEVICE double over_chunks(const double* partial, int chunks, long long columns, long long c, double* shared) {
    double sum = 0;
    for (int k = threadIdx.y; k < chunks && c < columns; k += blockDim.y) sum += partial[k * columns + c];
    return over_lanes(sum, shared);
}

// -- moments ----------------------------------------------------------------------------------------------------------
//
// Differences are summed, not the numbers: those of eight pixels to the first of them, in REAL, and that one's to the
// channel's first, in double. So nothing cancels, however large the mean is.

DEVICE REAL reference(REAL x) { return is_finite(x) ? x : R(0); }

// partial: (2, chunks, channels), the sums of the differences to the channel's first number and of their squares
KERNEL STANDARD moments_partial(long long pixels, long long channels, long long chunk, const REAL* __restrict__ x,
                                double* __restrict__ partial) {
    __shared__ double shared[256];
    const long long c = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = blockIdx.y * chunk, end = c < channels ? min(first + chunk, pixels) : 0;
    const int lanes = blockDim.y;
    const double shift = c < channels ? reference(x[c]) : 0;
    double sum = 0, squares = 0;
    for (long long p = first + threadIdx.y; p < end; p += STEPS * lanes) {
        REAL held[STEPS];
#pragma unroll
        for (int s = 0; s < STEPS; ++s) held[s] = x[min(p + s * lanes, end - 1) * channels + c];
        const REAL near = reference(held[0]);
        REAL part = 0, part_squares = 0;
        int count = 0;
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
            if (p + s * lanes < end) {
                const REAL d = held[s] - near;
                part += d;
                part_squares += d * d;
                ++count;
            }
        const double e = (double)near - shift;
        sum += part + count * e;
        squares += part_squares + e * (2 * (double)part + count * e);
    }
    sum = over_lanes(sum, shared);
    squares = over_lanes(squares, shared);
    if (threadIdx.y == 0 && c < channels) {
        partial[blockIdx.y * channels + c] = sum;
        partial[(gridDim.y + blockIdx.y) * channels + c] = squares;
    }
}

KERNEL STANDARD moments_finish(long long pixels, long long channels, long long chunks, double eps,
                               const REAL* __restrict__ x, const double* __restrict__ partial, REAL* __restrict__ mean,
                               REAL* __restrict__ var, REAL* __restrict__ rstd) {
    __shared__ double shared[256];
    const long long c = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const double sum = over_chunks(partial, (int)chunks, channels, c, shared);
    const double squares = over_chunks(partial + chunks * channels, (int)chunks, channels, c, shared);
    if (threadIdx.y == 0 && c < channels) {
        const double offset = sum / pixels;
        double v = squares / pixels - offset * offset;
        if (sum - sum == 0 && squares - squares != 0) v = -r_log(0.0);  // finite numbers, whose squares are not
        const REAL spread = R(v < 0 ? 0 : v);
        mean[c] = R(reference(x[c]) + offset);
        var[c] = spread;
        rstd[c] = rstd_of(spread, R(eps));
    }
}

// -- batch norm -------------------------------------------------------------------------------------------------------
//
// spread is rstd or, with is_var, the variance. weight and bias are read where has_weight and has_bias say so.

template <int V>
DEVICE void normalize(long long pixels, long long channels, const REAL* x, const REAL* mean, const REAL* spread,
                      const REAL* weight, const REAL* bias, REAL* y, bool is_var, REAL eps, bool has_weight,
                      bool has_bias, bool relu) {
    const long long lanes = (long long)gridDim.y * blockDim.y;
    EACH(column, channels / V) {
        Pack<V> m, scale, shift;
        for (int v = 0; v < V; ++v) {
            const long long c = column * V + v;
            m.v[v] = mean[c];
            scale.v[v] = is_var ? rstd_of(spread[c], eps) : spread[c];
            if (has_weight) scale.v[v] *= weight[c];
            shift.v[v] = has_bias ? bias[c] : R(0);
        }
#pragma unroll 4
        for (long long p = (long long)blockIdx.y * blockDim.y + threadIdx.y; p < pixels; p += lanes) {
            const long long at = p * channels + column * V;
            Pack<V> value = load<V>(x + at);
            for (int v = 0; v < V; ++v) {
                value.v[v] = (value.v[v] - m.v[v]) * scale.v[v] + shift.v[v];
                if (relu) value.v[v] = r_max(value.v[v], 0);
            }
            store<V>(y + at, value);
        }
    }
}

KERNEL STANDARD normalize_channels(long long pixels, long long channels, const REAL* __restrict__ x,
                                   const REAL* __restrict__ mean, const REAL* __restrict__ spread,
                                   const REAL* __restrict__ weight, const REAL* __restrict__ bias, REAL* __restrict__ y,
                                   long long is_var, double eps, long long has_weight, long long has_bias,
                                   long long relu) {
    if (channels % WIDTH == 0 && aligned(x) && aligned(y))
        normalize<WIDTH>(pixels, channels, x, mean, spread, weight, bias, y, is_var, R(eps), has_weight, has_bias,
                         relu);
    else
        normalize<1>(pixels, channels, x, mean, spread, weight, bias, y, is_var, R(eps), has_weight, has_bias, relu);
}

// partial: (2, chunks, channels), the sums of gy and of gy z with z = (x - mean) rstd; with masked, gy is the gradient
// of the positive part y
KERNEL STANDARD sums_by_channel(long long pixels, long long channels, long long chunk, const REAL* __restrict__ gy,
                                const REAL* __restrict__ x, const REAL* __restrict__ y, const REAL* __restrict__ mean,
                                const REAL* __restrict__ spread, long long is_var, double eps, long long masked,
                                double* __restrict__ partial) {
    __shared__ double shared[256];
    const long long c = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = blockIdx.y * chunk, end = c < channels ? min(first + chunk, pixels) : 0;
    const int lanes = blockDim.y;
    const REAL m = c < channels ? mean[c] : R(0);
    const REAL rstd = c < channels ? (is_var ? rstd_of(spread[c], R(eps)) : spread[c]) : R(0);
    double sum = 0, products = 0;
    for (long long p = first + threadIdx.y; p < end; p += STEPS * lanes) {
        REAL part = 0, part_products = 0;
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
            if (p + s * lanes < end) {
                const long long at = (p + s * lanes) * channels + c;
                const REAL g = masked && y[at] <= 0 ? R(0) : gy[at];
                part += g;
                part_products += g * ((x[at] - m) * rstd);
            }
        sum += part;
        products += part_products;
    }
    sum = over_lanes(sum, shared);
    products = over_lanes(products, shared);
    if (threadIdx.y == 0 && c < channels) {
        partial[blockIdx.y * channels + c] = sum;
        partial[(gridDim.y + blockIdx.y) * channels + c] = products;
    }
}

// The same for a matrix (count, period * width), whose element (i, j) belongs to row i period + j / width of row_norm.
KERNEL STANDARD sums_by_row(long long count, long long period, long long width, long long chunk,
                            const REAL* __restrict__ gy, const REAL* __restrict__ x, const REAL* __restrict__ mean,
                            const REAL* __restrict__ rstd, double* __restrict__ partial) {
    __shared__ double shared[256];
    const long long columns = period * width, j = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = blockIdx.y * chunk, end = j < columns ? min(first + chunk, count) : 0;
    const long long within = j / width;
    const int lanes = blockDim.y;
    double sum = 0, products = 0;
    for (long long i = first + threadIdx.y; i < end; i += STEPS * lanes) {
        REAL part = 0, part_products = 0;
#pragma unroll 4
        for (int s = 0; s < STEPS; ++s)
            if (i + s * lanes < end) {
                const long long at = (i + s * lanes) * columns + j, row = (i + s * lanes) * period + within;
                part += gy[at];
                part_products += gy[at] * ((x[at] - mean[row]) * rstd[row]);
            }
        sum += part;
        products += part_products;
    }
    sum = over_lanes(sum, shared);
    products = over_lanes(products, shared);
    if (threadIdx.y == 0 && j < columns) {
        partial[blockIdx.y * columns + j] = sum;
        partial[(gridDim.y + blockIdx.y) * columns + j] = products;
    }
}

KERNEL STANDARD sums_finish(long long columns, long long chunks, const double* __restrict__ partial,
                            REAL* __restrict__ gb, REAL* __restrict__ gw) {
    __shared__ double shared[256];
    const long long c = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const double sum = over_chunks(partial, (int)chunks, columns, c, shared);
    const double products = over_chunks(partial + chunks * columns, (int)chunks, columns, c, shared);
    if (threadIdx.y == 0 && c < columns) {
        gb[c] = R(sum);
        gw[c] = R(products);
    }
}

template <int V>
DEVICE void normalize_gradient(long long pixels, long long channels, const REAL* gy, const REAL* x, const REAL* y,
                               const REAL* mean, const REAL* spread, const REAL* weight, const REAL* gb,
                               const REAL* gw, REAL* gx, bool is_var, REAL eps, bool has_weight, bool from_batch,
                               bool masked) {
    const long long lanes = (long long)gridDim.y * blockDim.y;
    EACH(column, channels / V) {
        Pack<V> m, rstd, scale, a, b;
        for (int v = 0; v < V; ++v) {
            const long long c = column * V + v;
            m.v[v] = mean[c];
            rstd.v[v] = is_var ? rstd_of(spread[c], eps) : spread[c];
            scale.v[v] = has_weight ? rstd.v[v] * weight[c] : rstd.v[v];
            a.v[v] = from_batch ? gb[c] / R(pixels) : R(0);
            b.v[v] = from_batch ? gw[c] / R(pixels) : R(0);
        }
#pragma unroll 2
        for (long long p = (long long)blockIdx.y * blockDim.y + threadIdx.y; p < pixels; p += lanes) {
            const long long at = p * channels + column * V;
            Pack<V> g = load<V>(gy + at);
            if (masked) {
                const Pack<V> positive = load<V>(y + at);
                for (int v = 0; v < V; ++v)
                    if (positive.v[v] <= 0) g.v[v] = 0;
            }
            if (from_batch) {
                const Pack<V> value = load<V>(x + at);
                for (int v = 0; v < V; ++v)
                    g.v[v] = g.v[v] - (value.v[v] - m.v[v]) * rstd.v[v] * b.v[v] - a.v[v];
            }
            for (int v = 0; v < V; ++v) g.v[v] *= scale.v[v];
            store<V>(gx + at, g);
        }
    }
}

// from_batch: mean and variance are those of x, else constants; then gb and gw are not read
KERNEL STANDARD normalize_channels_backward(long long pixels, long long channels, const REAL* __restrict__ gy,
                                            const REAL* __restrict__ x, const REAL* __restrict__ y,
                                            const REAL* __restrict__ mean, const REAL* __restrict__ spread,
                                            const REAL* __restrict__ weight, const REAL* __restrict__ gb,
                                            const REAL* __restrict__ gw, REAL* __restrict__ gx, long long is_var,
                                            double eps, long long has_weight, long long from_batch, long long masked) {
    if (channels % WIDTH == 0 && aligned(gy) && aligned(x) && aligned(y) && aligned(gx))
        normalize_gradient<WIDTH>(pixels, channels, gy, x, y, mean, spread, weight, gb, gw, gx, is_var, R(eps),
                                  has_weight, from_batch, masked);
    else
        normalize_gradient<1>(pixels, channels, gy, x, y, mean, spread, weight, gb, gw, gx, is_var, R(eps), has_weight,
                              from_batch, masked);
}

// -- rows -------------------------------------------------------------------------------------------------------------
//
// `lanes` neighbouring threads of 256 share a row, a power of two. Row r has the parameters of row r % period.

DEVICE double lanes_sum(double value, double* shared, int lanes) {
    const int t = threadIdx.x, lane = t & (lanes - 1);
    shared[t] = value;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half) shared[t] += shared[t + half];
        __syncthreads();
    }
    value = shared[t - lane];
    __syncthreads();
    return value;
}

KERNEL STANDARD row_norm(long long rows, long long width, long long period, long long lanes, double eps,
                         const REAL* __restrict__ x, const REAL* __restrict__ weight, const REAL* __restrict__ bias,
                         REAL* __restrict__ y, REAL* __restrict__ mean, REAL* __restrict__ var,
                         REAL* __restrict__ rstd, long long has_weight, long long has_bias) {
    __shared__ double shared[256];
    const int lane = threadIdx.x & ((int)lanes - 1), at_once = 256 / (int)lanes;
    for (long long first = (long long)blockIdx.x * at_once; first < rows; first += (long long)gridDim.x * at_once) {
        const long long row = first + threadIdx.x / (int)lanes, end = row < rows ? width : 0;
        const REAL* from = x + row * width;
        double sum = 0;
        for (long long i = lane; i < end; i += STEPS * lanes) {
            REAL part = 0;
#pragma unroll
            for (int s = 0; s < STEPS; ++s)
                if (i + s * lanes < end) part += from[i + s * lanes];
            sum += part;
        }
        const REAL m = R(lanes_sum(sum, shared, (int)lanes) / width);
        sum = 0;
        for (long long i = lane; i < end; i += STEPS * lanes) {
            REAL part = 0;
#pragma unroll
            for (int s = 0; s < STEPS; ++s)
                if (i + s * lanes < end) part += (from[i + s * lanes] - m) * (from[i + s * lanes] - m);
            sum += part;
        }
        const REAL spread = R(lanes_sum(sum, shared, (int)lanes) / width), r = rstd_of(spread, R(eps));
        const long long at = row % period * width;
        for (long long i = lane; i < end; i += lanes) {
            REAL z = (from[i] - m) * r;
            if (has_weight) z *= weight[at + i];
            if (has_bias) z += bias[at + i];
            y[row * width + i] = z;
        }
        if (lane == 0 && row < rows) {
            mean[row] = m;
            var[row] = spread;
            rstd[row] = r;
        }
    }
}

KERNEL STANDARD row_norm_backward(long long rows, long long width, long long period, long long lanes,
                                  const REAL* __restrict__ gy, const REAL* __restrict__ x,
                                  const REAL* __restrict__ weight, const REAL* __restrict__ mean,
                                  const REAL* __restrict__ rstd, REAL* __restrict__ gx, long long has_weight) {
    __shared__ double shared[256];
    const int lane = threadIdx.x & ((int)lanes - 1), at_once = 256 / (int)lanes;
    for (long long first = (long long)blockIdx.x * at_once; first < rows; first += (long long)gridDim.x * at_once) {
        const long long row = first + threadIdx.x / (int)lanes, end = row < rows ? width : 0;
        const long long start = row * width, at = row % period * width;
        const REAL m = row < rows ? mean[row] : R(0), r = row < rows ? rstd[row] : R(0);
        double sum = 0, products = 0;
        for (long long i = lane; i < end; i += STEPS * lanes) {
            REAL part = 0, part_products = 0;
#pragma unroll
            for (int s = 0; s < STEPS; ++s) {
                const long long j = i + s * lanes;
                if (j < end) {
                    const REAL g = has_weight ? gy[start + j] * weight[at + j] : gy[start + j];
                    part += g;
                    part_products += g * ((x[start + j] - m) * r);
                }
            }
            sum += part;
            products += part_products;
        }
        const REAL a = R(lanes_sum(sum, shared, (int)lanes) / width);
        const REAL b = R(lanes_sum(products, shared, (int)lanes) / width);
        for (long long i = lane; i < end; i += lanes) {
            const REAL g = has_weight ? gy[start + i] * weight[at + i] : gy[start + i];
            gx[start + i] = (g - (x[start + i] - m) * r * b - a) * r;
        }
    }
}

// -- local response norm: a sum over the channels c - below .. c + above ----------------------------------------------

#define EACH_PIXEL(p, c, pixels, channels)                                             \
    EACH(c, channels)                                                                  \
    for (long long p = (long long)blockIdx.y * blockDim.y + threadIdx.y; p < (pixels); \
         p += (long long)gridDim.y * blockDim.y)

KERNEL STANDARD response(long long pixels, long long channels, long long below, long long above, double factor,
                         double k, double beta, const REAL* __restrict__ x, REAL* __restrict__ y,
                         REAL* __restrict__ scale) {
    EACH_PIXEL(p, c, pixels, channels) {
        const REAL* pixel = x + p * channels;
        const int last = (int)min(c + above, channels - 1);
        REAL sum = 0;
        for (int j = (int)max(c - below, 0LL); j <= last; ++j) sum += pixel[j] * pixel[j];
        const REAL s = sum * R(factor) + R(k);
        scale[p * channels + c] = s;
        y[p * channels + c] = pixel[c] * r_pow(s, R(-beta));
    }
}

// term = gy x scale^(-beta - 1), which response_backward sums
KERNEL STANDARD response_term(long long pixels, long long channels, double beta, const REAL* __restrict__ gy,
                              const REAL* __restrict__ x, const REAL* __restrict__ scale, REAL* __restrict__ term) {
    EACH(i, pixels * channels) term[i] = gy[i] * x[i] / scale[i] * r_pow(scale[i], R(-beta));
}

KERNEL STANDARD response_backward(long long pixels, long long channels, long long below, long long above, double factor,
                                  double beta, const REAL* __restrict__ gy, const REAL* __restrict__ x,
                                  const REAL* __restrict__ scale, const REAL* __restrict__ term,
                                  REAL* __restrict__ gx) {
    EACH_PIXEL(p, c, pixels, channels) {
        const REAL* pixel = term + p * channels;
        const long long at = p * channels + c;
        const int last = (int)min(c + above, channels - 1);
        REAL sum = 0;
        for (int j = (int)max(c - below, 0LL); j <= last; ++j) sum += pixel[j];
        gx[at] = gy[at] * r_pow(scale[at], R(-beta)) - x[at] * sum * R(factor);
    }
}
