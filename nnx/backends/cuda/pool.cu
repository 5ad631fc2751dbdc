// Pooling. Arrays are channels-last, (N, D, H, W, C) with 1 for dimensions that are not there, and have fewer than 2^31
// elements; so has every position that a window reaches.
//
// A thread computes one pixel of the result for one channel or, where they fill whole packs, for WIDTH of them: threads
// beside each other read and write channels beside each other. Gradients are gathered: an element of the input looks at
// the windows that hold it, always in the same order.

struct Axis {
    int size, out, kernel, stride, padding, dilation;
};

// Where a window lies inside the input, and the number that its elements count for.
struct Box {
    int start, end, count;
};

struct Range {
    int first, last;
};

#define AXIS(d)                                                                                        \
    long long size##d, long long out##d, long long kernel##d, long long stride##d, long long padding##d, \
        long long dilation##d
#define AXES AXIS(0), AXIS(1), AXIS(2)
#define TAKE(d) \
    {(int)size##d, (int)out##d, (int)kernel##d, (int)stride##d, (int)padding##d, (int)dilation##d}
#define TAKE_AXES const Axis a0 = TAKE(0), a1 = TAKE(1), a2 = TAKE(2)

// An index over (N, D, H, W, C / V) taken apart.
struct Place {
    int n, p0, p1, p2, c;
};

DEVICE Place place_of(unsigned i, unsigned n0, unsigned n1, unsigned n2, unsigned columns, int v) {
    Place p;
    p.c = (int)(i % columns) * v;
    i /= columns;
    p.p2 = (int)(i % n2);
    i /= n2;
    p.p1 = (int)(i % n1);
    i /= n1;
    p.p0 = (int)(i % n0);
    p.n = (int)(i / n0);
    return p;
}

// The place of an element in memory.
DEVICE int at(int n, int p0, int p1, int p2, int n0, int n1, int n2, int channels, int c) {
    return (((n * n0 + p0) * n1 + p1) * n2 + p2) * channels + c;
}

// -- maximum ----------------------------------------------------------------------------------------------------------

// The first element of a window behind the low padding, or the last of all.
DEVICE int first_tap(int start, const Axis& a) {
    return start >= 0 ? 0 : min((-start + a.dilation - 1) / a.dilation, a.kernel - 1);
}

template <int V, typename Index>
DEVICE void max_pool(unsigned images, int channels, const Axis& a0, const Axis& a1, const Axis& a2, const REAL* x,
                     REAL* y, Index* index) {
    const REAL lowest = r_log(R(0));
    const unsigned columns = (unsigned)channels / V, total = images * a0.out * a1.out * a2.out * columns;
    EACH(i, total) {
        const Place o = place_of((unsigned)i, a0.out, a1.out, a2.out, columns, V);
        const int s0 = o.p0 * a0.stride - a0.padding, s1 = o.p1 * a1.stride - a1.padding,
                  s2 = o.p2 * a2.stride - a2.padding;
        const int first0 = first_tap(s0, a0), first1 = first_tap(s1, a1), first2 = first_tap(s2, a2);
        Pack<V> best;
        Pack<V, Index> where;
        for (int v = 0; v < V; ++v) {
            best.v[v] = lowest;
            where.v[v] = (Index)((first0 * a1.kernel + first1) * a2.kernel + first2);
        }
        for (int f0 = first0, p0 = s0 + f0 * a0.dilation; f0 < a0.kernel && p0 < a0.size; ++f0, p0 += a0.dilation)
            for (int f1 = first1, p1 = s1 + f1 * a1.dilation; f1 < a1.kernel && p1 < a1.size; ++f1, p1 += a1.dilation)
                for (int f2 = first2, p2 = s2 + f2 * a2.dilation; f2 < a2.kernel && p2 < a2.size;
                     ++f2, p2 += a2.dilation) {
                    if (p0 < 0 || p1 < 0 || p2 < 0) continue;  // a window with nothing inside the input
                    const Index number = (Index)((f0 * a1.kernel + f1) * a2.kernel + f2);
                    const Pack<V> value = load<V>(x + at(o.n, p0, p1, p2, a0.size, a1.size, a2.size, channels, o.c));
                    for (int v = 0; v < V; ++v)
                        if (value.v[v] > best.v[v] || value.v[v] != value.v[v]) {
                            best.v[v] = value.v[v];
                            where.v[v] = number;
                        }
                }
        store<V>(y + i * V, best);
        store<V>(index + i * V, where);
    }
}

// The windows whose elements may lie at a position.
DEVICE Range windows_at(int position, const Axis& a) {
    const int end = position + a.padding, start = end - (a.kernel - 1) * a.dilation;
    return {start <= 0 ? 0 : (start + a.stride - 1) / a.stride, min(end / a.stride, a.out - 1)};
}

// Which element of window o lies at a position; -1: none does.
DEVICE int tap_at(int position, int o, const Axis& a) {
    const int distance = position + a.padding - o * a.stride;
    if (a.dilation == 1) return distance;
    return distance % a.dilation ? -1 : distance / a.dilation;
}

template <int V, typename Index>
DEVICE void max_pool_gradient(unsigned images, int channels, const Axis& a0, const Axis& a1, const Axis& a2,
                              const REAL* gy, const Index* index, REAL* gx) {
    const unsigned columns = (unsigned)channels / V, total = images * a0.size * a1.size * a2.size * columns;
    EACH(i, total) {
        const Place p = place_of((unsigned)i, a0.size, a1.size, a2.size, columns, V);
        const Range r0 = windows_at(p.p0, a0), r1 = windows_at(p.p1, a1), r2 = windows_at(p.p2, a2);
        Pack<V> sum;
        for (int v = 0; v < V; ++v) sum.v[v] = 0;
        for (int o0 = r0.first; o0 <= r0.last; ++o0) {
            const int f0 = tap_at(p.p0, o0, a0);
            if (f0 < 0) continue;
            for (int o1 = r1.first; o1 <= r1.last; ++o1) {
                const int f1 = tap_at(p.p1, o1, a1);
                if (f1 < 0) continue;
                for (int o2 = r2.first; o2 <= r2.last; ++o2) {
                    const int f2 = tap_at(p.p2, o2, a2);
                    if (f2 < 0) continue;
                    const Index number = (Index)((f0 * a1.kernel + f1) * a2.kernel + f2);
                    const int from = at(p.n, o0, o1, o2, a0.out, a1.out, a2.out, channels, p.c);
                    const Pack<V, Index> where = load<V>(index + from);
                    const Pack<V> g = load<V>(gy + from);
                    for (int v = 0; v < V; ++v)
                        if (where.v[v] == number) sum.v[v] += g.v[v];
                }
            }
        }
        store<V>(gx + i * V, sum);
    }
}

#define MAX_POOL(suffix, Index)                                                                                    \
    KERNEL STANDARD max_forward_##suffix(long long images, long long channels, AXES, const REAL* __restrict__ x,   \
                                         REAL* __restrict__ y, Index* __restrict__ index) {                        \
        TAKE_AXES;                                                                                                 \
        if (channels % WIDTH == 0 && aligned(x) && aligned(y) && aligned(index))                                   \
            max_pool<WIDTH>((unsigned)images, (int)channels, a0, a1, a2, x, y, index);                             \
        else                                                                                                       \
            max_pool<1>((unsigned)images, (int)channels, a0, a1, a2, x, y, index);                                 \
    }                                                                                                              \
    KERNEL STANDARD max_backward_##suffix(long long images, long long channels, AXES, const REAL* __restrict__ gy, \
                                          const Index* __restrict__ index, REAL* __restrict__ gx) {                \
        TAKE_AXES;                                                                                                 \
        if (channels % WIDTH == 0 && aligned(gy) && aligned(gx) && aligned(index))                                 \
            max_pool_gradient<WIDTH>((unsigned)images, (int)channels, a0, a1, a2, gy, index, gx);                  \
        else                                                                                                       \
            max_pool_gradient<1>((unsigned)images, (int)channels, a0, a1, a2, gy, index, gx);                      \
    }

MAX_POOL(uint8, unsigned char)
MAX_POOL(int32, int)

// -- mean and sum -----------------------------------------------------------------------------------------------------

// What divides the sums of windows. kind: 0 elements inside the input count, 1 padded ones too, 2 windows cover the
// input evenly (adaptive pooling); number, if it is not 0, divides instead.
struct Divisor {
    int kind;
    REAL number;
};

DEVICE Box box_of(int o, const Axis& a, int kind) {
    if (kind == 2) {
        const long long first = (long long)o * a.size, last = first + a.size + a.out - 1;
        const int start = (int)(first / a.out), end = (int)(last / a.out);
        return {start, end, end - start};
    }
    const int start = o * a.stride - a.padding, stop = start + a.kernel;
    const int inner = max(start, 0), end = min(stop, a.size);
    const int count = kind == 1 ? min(stop, a.size + a.padding) - start : end - inner;
    return {inner, end, max(count, 1)};
}

DEVICE REAL divisor_of(const Divisor& d, const Box& b0, const Box& b1, const Box& b2) {
    return d.number != 0 ? d.number : R(b0.count) * R(b1.count) * R(b2.count);
}

template <int V>
DEVICE void mean_pool(unsigned images, int channels, const Axis& a0, const Axis& a1, const Axis& a2, const Divisor& d,
                      const REAL* x, REAL* y) {
    const unsigned columns = (unsigned)channels / V, total = images * a0.out * a1.out * a2.out * columns;
    EACH(i, total) {
        const Place o = place_of((unsigned)i, a0.out, a1.out, a2.out, columns, V);
        const Box b0 = box_of(o.p0, a0, d.kind), b1 = box_of(o.p1, a1, d.kind), b2 = box_of(o.p2, a2, d.kind);
        Pack<V> sum;
        for (int v = 0; v < V; ++v) sum.v[v] = 0;
        for (int p0 = b0.start; p0 < b0.end; ++p0)
            for (int p1 = b1.start; p1 < b1.end; ++p1)
                for (int p2 = b2.start; p2 < b2.end; ++p2) {
                    const Pack<V> value = load<V>(x + at(o.n, p0, p1, p2, a0.size, a1.size, a2.size, channels, o.c));
                    for (int v = 0; v < V; ++v) sum.v[v] += value.v[v];
                }
        const REAL divisor = divisor_of(d, b0, b1, b2);
        for (int v = 0; v < V; ++v) sum.v[v] /= divisor;
        store<V>(y + i * V, sum);
    }
}

KERNEL STANDARD mean_forward(long long images, long long channels, AXES, long long kind, double number,
                             const REAL* __restrict__ x, REAL* __restrict__ y) {
    TAKE_AXES;
    const Divisor d = {(int)kind, R(number)};
    if (channels % WIDTH == 0 && aligned(x) && aligned(y))
        mean_pool<WIDTH>((unsigned)images, (int)channels, a0, a1, a2, d, x, y);
    else
        mean_pool<1>((unsigned)images, (int)channels, a0, a1, a2, d, x, y);
}

// For large windows: a block (channels, lanes) of 256 threads sums one window, each lane a part of its elements.
KERNEL STANDARD mean_forward_large(long long images, long long channels, AXES, long long kind, double number,
                                   const REAL* __restrict__ x, REAL* __restrict__ y) {
    __shared__ double shared[256];
    TAKE_AXES;
    const Divisor d = {(int)kind, R(number)};
    const int t = threadIdx.y * blockDim.x + threadIdx.x, lanes = blockDim.y;
    const int c = blockIdx.y * blockDim.x + threadIdx.x, windows = (int)images * a0.out * a1.out * a2.out;
    for (int window = blockIdx.x; window < windows; window += gridDim.x) {
        const Place o = place_of((unsigned)window, a0.out, a1.out, a2.out, 1, 1);
        const Box b0 = box_of(o.p0, a0, d.kind), b1 = box_of(o.p1, a1, d.kind), b2 = box_of(o.p2, a2, d.kind);
        const int n1 = b1.end - b1.start, n2 = b2.end - b2.start, n = (b0.end - b0.start) * n1 * n2;
        // Element k of the window is (k0, k1, k2), and `lanes` further on is (e0, e1, e2) further on, with carries.
        const int e0 = lanes / max(n1 * n2, 1), e1 = lanes / max(n2, 1) % max(n1, 1), e2 = lanes % max(n2, 1);
        int k = threadIdx.y, k0 = k / max(n1 * n2, 1), k1 = k / max(n2, 1) % max(n1, 1), k2 = k % max(n2, 1);
        double sum = 0;
        while (k < n && c < channels) {
            REAL part = 0;  // of a few, so that float sums do not lose digits
#pragma unroll
            for (int step = 0; step < 8; ++step) {
                if (k < n)
                    part += x[at(o.n, b0.start + k0, b1.start + k1, b2.start + k2, a0.size, a1.size, a2.size,
                                 (int)channels, c)];
                k += lanes;
                k2 += e2;
                const int carry2 = k2 >= n2;
                k2 -= carry2 ? n2 : 0;
                k1 += e1 + carry2;
                const int carry1 = k1 >= n1;
                k1 -= carry1 ? n1 : 0;
                k0 += e0 + carry1;
            }
            sum += part;
        }
        shared[t] = sum;
        __syncthreads();
        for (int half = lanes / 2; half > 0; half /= 2) {
            if ((int)threadIdx.y < half) shared[t] += shared[t + half * blockDim.x];
            __syncthreads();
        }
        if (threadIdx.y == 0 && c < channels)
            y[(long long)window * channels + c] = R(shared[t]) / divisor_of(d, b0, b1, b2);
        __syncthreads();
    }
}

DEVICE Range boxes_at(int position, const Axis& a, int kind) {
    if (kind != 2) return windows_at(position, a);
    const long long first = (long long)position * a.out;
    return {(int)(first / a.size), (int)((first + a.out + a.size - 1) / a.size) - 1};
}

template <int V>
DEVICE void mean_pool_gradient(unsigned images, int channels, const Axis& a0, const Axis& a1, const Axis& a2,
                               const Divisor& d, const REAL* gy, REAL* gx) {
    const unsigned columns = (unsigned)channels / V, total = images * a0.size * a1.size * a2.size * columns;
    EACH(i, total) {
        const Place p = place_of((unsigned)i, a0.size, a1.size, a2.size, columns, V);
        const Range r0 = boxes_at(p.p0, a0, d.kind), r1 = boxes_at(p.p1, a1, d.kind), r2 = boxes_at(p.p2, a2, d.kind);
        Pack<V> sum;
        for (int v = 0; v < V; ++v) sum.v[v] = 0;
        for (int o0 = r0.first; o0 <= r0.last; ++o0) {
            const Box b0 = box_of(o0, a0, d.kind);
            for (int o1 = r1.first; o1 <= r1.last; ++o1) {
                const Box b1 = box_of(o1, a1, d.kind);
                for (int o2 = r2.first; o2 <= r2.last; ++o2) {
                    const REAL divisor = divisor_of(d, b0, b1, box_of(o2, a2, d.kind));
                    const Pack<V> g = load<V>(gy + at(p.n, o0, o1, o2, a0.out, a1.out, a2.out, channels, p.c));
                    for (int v = 0; v < V; ++v) sum.v[v] += g.v[v] / divisor;
                }
            }
        }
        store<V>(gx + i * V, sum);
    }
}

KERNEL STANDARD mean_backward(long long images, long long channels, AXES, long long kind, double number,
                              const REAL* __restrict__ gy, REAL* __restrict__ gx) {
    TAKE_AXES;
    const Divisor d = {(int)kind, R(number)};
    if (channels % WIDTH == 0 && aligned(gy) && aligned(gx))
        mean_pool_gradient<WIDTH>((unsigned)images, (int)channels, a0, a1, a2, d, gy, gx);
    else
        mean_pool_gradient<1>((unsigned)images, (int)channels, a0, a1, a2, d, gy, gx);
}
