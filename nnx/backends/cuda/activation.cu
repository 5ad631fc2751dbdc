// Activations. Arrays are dense: elementwise kernels run over memory, whatever the order of the axes.
//
// The formulas are those of nnx/backends/base/activation.py. Elementwise kernels have three parameters a, b, c; what
// they mean is said there where they are used. An input may be the output.

#define FAR R(1000.0)
#define SQRT_1_OVER_2 R(0.7071067811865476)
#define SQRT_1_OVER_2PI R(0.3989422804014327)
#define SQRT_2_OVER_PI R(0.7978845608028654)
#define GELU_CUBIC R(0.044715)

// y = value, an expression in x
#define FORWARD(name, value)                                                                            \
    DEVICE REAL name##_of(REAL x, REAL a, REAL b, REAL c) {                                             \
        (void)a, (void)b, (void)c;                                                                      \
        return value;                                                                                   \
    }                                                                                                   \
    KERNEL STANDARD name##_forward(long long n, const REAL* x, REAL* y, double a, double b, double c) { \
        const REAL ra = R(a), rb = R(b), rc = R(c);                                                     \
        const long long packs = aligned(x) && aligned(y) ? n / WIDTH : 0, done = packs * WIDTH;         \
        EACH(i, packs) {                                                                                \
            Pack<WIDTH> p = load<WIDTH>(x + i * WIDTH);                                                 \
            for (int k = 0; k < WIDTH; ++k) p.v[k] = name##_of(p.v[k], ra, rb, rc);                     \
            store(y + i * WIDTH, p);                                                                    \
        }                                                                                               \
        EACH(i, n - done) y[done + i] = name##_of(x[done + i], ra, rb, rc);                             \
    }

// out = value, an expression in g (the gradient of the result) and x (what was saved: the input, or the result)
#define BACKWARD(name, value)                                                                                    \
    DEVICE REAL name##_of(REAL g, REAL x, REAL a, REAL b, REAL c) {                                              \
        (void)a, (void)b, (void)c;                                                                               \
        return value;                                                                                            \
    }                                                                                                            \
    KERNEL STANDARD name(long long n, const REAL* gy, const REAL* x, REAL* out, double a, double b, double c) {  \
        const REAL ra = R(a), rb = R(b), rc = R(c);                                                              \
        const long long packs = aligned(gy) && aligned(x) && aligned(out) ? n / WIDTH : 0, done = packs * WIDTH; \
        EACH(i, packs) {                                                                                         \
            Pack<WIDTH> g = load<WIDTH>(gy + i * WIDTH);                                                         \
            const Pack<WIDTH> p = load<WIDTH>(x + i * WIDTH);                                                    \
            for (int k = 0; k < WIDTH; ++k) g.v[k] = name##_of(g.v[k], p.v[k], ra, rb, rc);                      \
            store(out + i * WIDTH, g);                                                                           \
        }                                                                                                        \
        EACH(i, n - done) out[done + i] = name##_of(gy[done + i], x[done + i], ra, rb, rc);                      \
    }

DEVICE REAL clip(REAL x, REAL low, REAL high) { return r_min(r_max(x, low), high); }

DEVICE REAL sigmoid(REAL x) {
    const REAL e = r_exp(-r_abs(x));
    return (x >= 0 ? R(1) : e) / (1 + e);
}

DEVICE REAL softplus(REAL x) { return r_max(x, 0) + r_log1p(r_exp(-r_abs(x))); }

// t = tanh(softplus(x)) and 1 - t^2
struct Mish {
    REAL t, slope;
};

DEVICE Mish tanh_of_softplus(REAL x) {
    const REAL e = r_exp(-r_abs(x));
    const REAL n = x > 0 ? 1 + 2 * e : e * (e + 2), gap = x > 0 ? 2 * e * e : R(2), d = n + gap;
    return {n / d, gap * (n + d) / (d * d)};
}

DEVICE REAL gelu_u(REAL x) { return SQRT_2_OVER_PI * (x + GELU_CUBIC * (x * x * x)); }
DEVICE REAL normal_cdf(REAL x) { return R(0.5) * r_erfc(-SQRT_1_OVER_2 * x); }

DEVICE REAL mish_slope(REAL x) {
    const Mish m = tanh_of_softplus(x);
    return m.t + clip(x, -FAR, FAR) * m.slope * sigmoid(x);
}

DEVICE REAL gelu_slope(REAL x) {
    const REAL near = clip(x, -FAR, FAR);
    return normal_cdf(x) + near * (SQRT_1_OVER_2PI * r_exp(R(-0.5) * near * near));
}

DEVICE REAL gelu_tanh_slope(REAL x) {
    const REAL near = clip(x, -FAR, FAR), u = 2 * gelu_u(near);
    const REAL slope = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * near * near);
    return sigmoid(u) + near * (sigmoid(u) * sigmoid(-u)) * (2 * slope);
}

BACKWARD(add, g + x)

FORWARD(relu, r_max(x, 0))
BACKWARD(relu_backward, x <= 0 ? 0 : g)
FORWARD(leaky_relu, x > 0 ? x : a * x)
BACKWARD(leaky_relu_backward, x > 0 ? g : a * g)
FORWARD(hardtanh, clip(x, a, b))
BACKWARD(hardtanh_backward, x <= a || x >= b ? 0 : g)
FORWARD(hardsigmoid, clip(x + 3, 0, 6) / 6)
BACKWARD(hardsigmoid_backward, x <= -3 || x >= 3 ? 0 : g / 6)
FORWARD(hardswish, x <= -3 ? 0 : x * (clip(x + 3, 0, 6) / 6))
BACKWARD(hardswish_backward, x <= -3 ? 0 : x >= 3 ? g : g * (x / 3 + R(0.5)))

// a = scale, b = scale alpha (backward: scale alpha rate), c = rate
FORWARD(elu, x > 0 ? a * x : b * r_expm1(c * x))
BACKWARD(elu_backward, g * (x > 0 ? a : b * r_exp(c * x)))
FORWARD(sigmoid, sigmoid(x))
BACKWARD(sigmoid_backward, g * (x * (1 - x)))
FORWARD(tanh, r_tanh(x))
BACKWARD(tanh_backward, g * ((1 - x) * (1 + x)))
// a = beta, b = threshold
FORWARD(softplus, a * x > b ? x : softplus(a * x) / a)
BACKWARD(softplus_backward, a * x > b ? g : g * sigmoid(a * x))
FORWARD(silu, r_max(x, -FAR) * sigmoid(x))
BACKWARD(silu_backward, g * (sigmoid(x) * (1 + clip(x, -FAR, FAR) * sigmoid(-x))))
FORWARD(mish, r_max(x, -FAR) * tanh_of_softplus(x).t)
BACKWARD(mish_backward, g * mish_slope(x))
FORWARD(gelu, r_max(x, -FAR) * normal_cdf(x))
BACKWARD(gelu_backward, g * gelu_slope(x))
FORWARD(gelu_tanh, r_max(x, -FAR) * sigmoid(2 * gelu_u(clip(x, -FAR, FAR))))
BACKWARD(gelu_tanh_backward, g * gelu_tanh_slope(x))
// Beyond 2^60 the quotient is 1.
FORWARD(softsign, clip(x, R(-1152921504606846976.0), R(1152921504606846976.0)) /
                      (1 + r_abs(clip(x, R(-1152921504606846976.0), R(1152921504606846976.0)))))
BACKWARD(softsign_backward, g / ((1 + r_abs(x)) * (1 + r_abs(x))))

// -- PReLU: the weight of an element is that of its channel, (i / inner) % count for element i in memory; n < 2^31 ---

KERNEL STANDARD prelu_forward(long long n, long long inner, long long count, const REAL* __restrict__ x,
                              const REAL* __restrict__ weight, REAL* __restrict__ y) {
    EACH(i, n) {
        const REAL w = weight[(unsigned)i / (unsigned)inner % (unsigned)count];
        y[i] = x[i] > 0 ? x[i] : w * x[i];
    }
}

// gx if need_x, and in the shape of x the gradients of the weights if need_w
KERNEL STANDARD prelu_backward(long long n, long long inner, long long count, const REAL* __restrict__ gy,
                               const REAL* __restrict__ x, const REAL* __restrict__ weight, REAL* __restrict__ gx,
                               REAL* __restrict__ gw, long long need_x, long long need_w) {
    EACH(i, n) {
        const REAL w = weight[(unsigned)i / (unsigned)inner % (unsigned)count];
        if (need_x) gx[i] = x[i] > 0 ? gy[i] : w * gy[i];
        if (need_w) gw[i] = x[i] > 0 ? R(0) : x[i] * gy[i];
    }
}

// -- softmax over rows that lie one behind the other ------------------------------------------------------------------
//
// `lanes` neighbouring threads share a row, a power of two up to 256: a block takes 256 / lanes rows at a time. Every
// thread of the block goes through the same barriers, those without a row too.

DEVICE REAL lanes_sum(REAL value, REAL* shared, int lanes) {
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

DEVICE REAL lanes_max(REAL value, REAL* shared, int lanes) {
    const int t = threadIdx.x, lane = t & (lanes - 1);
    shared[t] = value;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half) shared[t] = r_max(shared[t], shared[t + half]);
        __syncthreads();
    }
    value = shared[t - lane];
    __syncthreads();
    return value;
}

#define EACH_ROW(row, lane, rows, lanes)                                                                      \
    const int at_once = 256 / (int)(lanes), lane = threadIdx.x & ((int)(lanes) - 1);                          \
    for (long long first_row = (long long)blockIdx.x * at_once, row = first_row + threadIdx.x / (int)(lanes); \
         first_row < (rows);                                                                                  \
         first_row += (long long)gridDim.x * at_once, row += (long long)gridDim.x * at_once)

KERNEL STANDARD softmax_rows(long long rows, long long n, long long lanes, const REAL* __restrict__ x,
                             REAL* __restrict__ y, long long logarithm) {
    __shared__ REAL shared[256];
    EACH_ROW(row, lane, rows, lanes) {
        const REAL* from = x + row * n;
        REAL* to = y + row * n;
        const long long end = row < rows ? n : 0;
        REAL most = end ? from[0] : R(0), sum = 0;
        for (long long i = lane; i < end; i += lanes) most = r_max(most, from[i]);
        most = lanes_max(most, shared, lanes);
        for (long long i = lane; i < end; i += lanes) sum += r_exp(from[i] - most);
        sum = lanes_sum(sum, shared, lanes);
        if (logarithm) {
            const REAL log_sum = r_log(sum);
            for (long long i = lane; i < end; i += lanes) to[i] = from[i] - most - log_sum;
        } else {
            for (long long i = lane; i < end; i += lanes) to[i] = r_exp(from[i] - most) / sum;
        }
    }
}

KERNEL STANDARD softmax_rows_backward(long long rows, long long n, long long lanes, const REAL* __restrict__ gy,
                                      const REAL* __restrict__ y, REAL* __restrict__ gx, long long logarithm) {
    __shared__ REAL shared[256];
    EACH_ROW(row, lane, rows, lanes) {
        const long long first = row * n, end = row < rows ? n : 0;
        REAL sum = 0;
        for (long long i = lane; i < end; i += lanes)
            sum += logarithm ? gy[first + i] : gy[first + i] * y[first + i];
        sum = lanes_sum(sum, shared, lanes);
        for (long long i = lane; i < end; i += lanes) {
            const REAL g = gy[first + i], v = y[first + i];
            gx[first + i] = logarithm ? g - r_exp(v) * sum : v * (g - sum);
        }
    }
}

// -- softmax over (outer, n, inner), a thread for each of the outer * inner slices; fewer than 2^31 elements ----------

KERNEL STANDARD softmax_columns(long long outer, long long n, long long inner, const REAL* __restrict__ x,
                                REAL* __restrict__ y, long long logarithm) {
    EACH(i, outer * inner) {
        const unsigned o = (unsigned)i / (unsigned)inner;
        const unsigned first = o * (unsigned)(n * inner) + (unsigned)i % (unsigned)inner;
        const REAL* from = x + first;
        REAL* to = y + first;
        REAL most = from[0], sum = 0;
        for (long long k = 1; k < n; ++k) most = r_max(most, from[k * inner]);
        for (long long k = 0; k < n; ++k) sum += r_exp(from[k * inner] - most);
        if (logarithm) {
            const REAL log_sum = r_log(sum);
            for (long long k = 0; k < n; ++k) to[k * inner] = from[k * inner] - most - log_sum;
        } else {
            for (long long k = 0; k < n; ++k) to[k * inner] = r_exp(from[k * inner] - most) / sum;
        }
    }
}

KERNEL STANDARD softmax_columns_backward(long long outer, long long n, long long inner, const REAL* __restrict__ gy,
                                         const REAL* __restrict__ y, REAL* __restrict__ gx, long long logarithm) {
    EACH(i, outer * inner) {
        const unsigned o = (unsigned)i / (unsigned)inner;
        const unsigned first = o * (unsigned)(n * inner) + (unsigned)i % (unsigned)inner;
        REAL sum = 0;
        for (long long k = 0; k < n; ++k) {
            const long long at = first + k * inner;
            sum += logarithm ? gy[at] : gy[at] * y[at];
        }
        for (long long k = 0; k < n; ++k) {
            const long long at = first + k * inner;
            gx[at] = logarithm ? gy[at] - r_exp(y[at]) * sum : y[at] * (gy[at] - sum);
        }
    }
}

// -- maxout: (outer, count, pieces, inner) to (outer, count, inner); x has fewer than 2^31 elements -------------------

template <typename Index>
DEVICE void maxout(long long total, unsigned pieces, unsigned inner, const REAL* __restrict__ x, REAL* __restrict__ y,
                   Index* __restrict__ index) {
    EACH(i, total) {
        const REAL* from = x + ((unsigned)i / inner * pieces * inner + (unsigned)i % inner);
        REAL best = from[0];
        unsigned which = 0;
        for (unsigned k = 1; k < pieces; ++k) {
            const REAL value = from[k * inner];
            if (!(value <= best) && best == best) {
                best = value;
                which = k;
            }
        }
        y[i] = best;
        index[i] = (Index)which;
    }
}

template <typename Index>
DEVICE void maxout_gradient(long long total, unsigned pieces, unsigned inner, const REAL* __restrict__ gy,
                            const Index* __restrict__ index, REAL* __restrict__ gx) {
    EACH(i, total) {
        const unsigned rest = (unsigned)i / inner, at = rest / pieces * inner + (unsigned)i % inner;
        gx[i] = (unsigned)index[at] == rest % pieces ? gy[at] : R(0);
    }
}

// total: of y, or of gx. Two types of index.
#define MAXOUT(suffix, Index)                                                                                    \
    KERNEL STANDARD maxout_forward_##suffix(long long total, long long pieces, long long inner, const REAL* x,   \
                                            REAL* y, Index* index) {                                             \
        maxout(total, (unsigned)pieces, (unsigned)inner, x, y, index);                                           \
    }                                                                                                            \
    KERNEL STANDARD maxout_backward_##suffix(long long total, long long pieces, long long inner, const REAL* gy, \
                                             const Index* index, REAL* gx) {                                     \
        maxout_gradient(total, (unsigned)pieces, (unsigned)inner, gy, index, gx);                                \
    }

MAXOUT(uint8, unsigned char)
MAXOUT(int32, int)
