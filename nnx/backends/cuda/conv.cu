// Convolution, channels-last: columns and what becomes of them, filters of one channel, images of few channels.
//
// Images are (N, D, H, W, C); fewer dimensions have ones in front. Sizes are such that elements are counted with 32
// bits.

DEVICE Pack<WIDTH>& operator+=(Pack<WIDTH>& a, const Pack<WIDTH>& b)
{
    for (int i = 0; i < WIDTH; i++)
        a.v[i] += b.v[i];
    return a;
}

// Input position i = o * stride + f * dilation - low in each of three dimensions, for output position o and tap f.
struct Geometry {
    int size[3], out[3], kernel[3], stride[3], dilation[3], low[3];
};

#define THREE(name) long long name##0, long long name##1, long long name##2
#define GEOMETRY THREE(size), THREE(out), THREE(kernel), THREE(stride), THREE(dilation), THREE(low)
#define PACKED(name) {(int)name##0, (int)name##1, (int)name##2}
#define PACK(g)                                                                                   \
    const Geometry g = {PACKED(size),   PACKED(out),      PACKED(kernel), \
                        PACKED(stride), PACKED(dilation), PACKED(low)}

// The image and the place in it of position number `p`, in images of `size`; returns the image.
DEVICE unsigned place(unsigned p, const int* size, int* at)
{
    at[2] = (int)(p % (unsigned)size[2]);
    p /= (unsigned)size[2];
    at[1] = (int)(p % (unsigned)size[1]);
    p /= (unsigned)size[1];
    at[0] = (int)(p % (unsigned)size[0]);
    return p / (unsigned)size[0];
}

DEVICE bool inside(int i, int n) { return (unsigned)i < (unsigned)n; }

// The output position whose tap f reads input position i, or -1 if there is none.
DEVICE int reader(int i, int f, const Geometry& g, int axis)
{
    const int t = i + g.low[axis] - f * g.dilation[axis];
    if (t < 0)
        return -1;
    const int o = g.stride[axis] == 1 ? t : (int)((unsigned)t / (unsigned)g.stride[axis]);
    return o * g.stride[axis] == t && o < g.out[axis] ? o : -1;
}

// columns[row][group][tap][channel of the group] = x under the filter at output position `first` + row, 0 beyond the
// image. A thread takes one channel at one position, all taps. `channels` and `group` (channels of one) count elements
// of type V.
template <typename V>
DEVICE void gather(const V* __restrict__ x, unsigned first, unsigned rows, unsigned channels, unsigned group,
                   const Geometry& g, V* __restrict__ columns)
{
    const unsigned taps = (unsigned)(g.kernel[0] * g.kernel[1] * g.kernel[2]);
    EACH (i, rows * channels) {
        const unsigned row = (unsigned)i / channels, channel = (unsigned)i % channels, part = channel / group;
        int o[3];
        const unsigned image = place(first + row, g.out, o);
        const V* from = x + (size_t)image * (g.size[0] * g.size[1] * g.size[2]) * channels + channel;
        V* to = columns + (size_t)row * taps * channels + part * taps * group + channel % group;
        const int d0 = o[0] * g.stride[0] - g.low[0], h0 = o[1] * g.stride[1] - g.low[1];
        const int w0 = o[2] * g.stride[2] - g.low[2];
        for (int fd = 0, d = d0; fd < g.kernel[0]; fd++, d += g.dilation[0])
            for (int fh = 0, h = h0; fh < g.kernel[1]; fh++, h += g.dilation[1]) {
                const bool row_inside = inside(d, g.size[0]) && inside(h, g.size[1]);
                const V* line = from + (d * g.size[1] + h) * g.size[2] * (long long)channels;
                for (int fw = 0, w = w0; fw < g.kernel[2]; fw++, w += g.dilation[2], to += group)
                    *to = row_inside && inside(w, g.size[2]) ? line[w * (long long)channels] : V();
            }
    }
}

KERNEL STANDARD im2col(const REAL* x, long long first, long long rows, long long channels, long long group, GEOMETRY,
                       REAL* columns)
{
    PACK(g);
    gather(x, (unsigned)first, (unsigned)rows, (unsigned)channels, (unsigned)group, g, columns);
}

// The same for WIDTH channels at a time: channels and group count packs.
KERNEL STANDARD im2col_packs(const REAL* x, long long first, long long rows, long long channels, long long group,
                             GEOMETRY, REAL* columns)
{
    PACK(g);
    gather((const Pack<WIDTH>*)x, (unsigned)first, (unsigned)rows, (unsigned)channels, (unsigned)group, g,
           (Pack<WIDTH>*)columns);
}

// gx[n, i, channel] = the sum of the columns that were read from there, over the taps in order. `n` counts elements of
// gx.
template <typename V>
DEVICE void collect(const V* __restrict__ columns, unsigned n, unsigned channels, unsigned group, const Geometry& g,
                    V* __restrict__ gx)
{
    const unsigned taps = (unsigned)(g.kernel[0] * g.kernel[1] * g.kernel[2]);
    EACH (i, n) {
        const unsigned channel = (unsigned)i % channels, part = channel / group;
        int at[3];
        const unsigned image = place((unsigned)i / channels, g.size, at);
        const V* from = columns + part * taps * group + channel % group;
        V sum = V();
        for (int fd = 0; fd < g.kernel[0]; fd++) {
            const int od = reader(at[0], fd, g, 0);
            for (int fh = 0; od >= 0 && fh < g.kernel[1]; fh++) {
                const int oh = reader(at[1], fh, g, 1);
                for (int fw = 0; oh >= 0 && fw < g.kernel[2]; fw++) {
                    const int ow = reader(at[2], fw, g, 2);
                    if (ow < 0)
                        continue;
                    const size_t row = (((size_t)image * g.out[0] + od) * g.out[1] + oh) * g.out[2] + ow;
                    const int tap = (fd * g.kernel[1] + fh) * g.kernel[2] + fw;
                    sum += from[row * taps * channels + (size_t)tap * group];
                }
            }
        }
        gx[i] = sum;
    }
}

KERNEL STANDARD col2im(const REAL* columns, long long n, long long channels, long long group, GEOMETRY, REAL* gx)
{
    PACK(g);
    collect(columns, (unsigned)n, (unsigned)channels, (unsigned)group, g, gx);
}

// The same for WIDTH channels at a time: n, channels and group count packs.
KERNEL STANDARD col2im_packs(const REAL* columns, long long n, long long channels, long long group, GEOMETRY, REAL* gx)
{
    PACK(g);
    collect((const Pack<WIDTH>*)columns, (unsigned)n, (unsigned)channels, (unsigned)group, g, (Pack<WIDTH>*)gx);
}

// out[h, i, j, k] = w[offset + h * step + i * step0 + j * step1 + k * step2], an array (.., n0, n1, n2) of n elements.
KERNEL STANDARD rearrange(const REAL* __restrict__ w, long long offset, long long n, THREE(n), long long step,
                          THREE(step), REAL* __restrict__ out)
{
    EACH (e, n) {
        const unsigned k = (unsigned)e % (unsigned)n2, hij = (unsigned)e / (unsigned)n2;
        const unsigned j = hij % (unsigned)n1, hi = hij / (unsigned)n1;
        const unsigned i = hi % (unsigned)n0, h = hi / (unsigned)n0;
        out[e] = w[offset + h * step + i * step0 + j * step1 + k * step2];
    }
}

// out[i * step0 + j * step1 + k * step2] = the sum over the parts, in order, of their elements (i, j, k).
KERNEL STANDARD sum_parts(const REAL* __restrict__ parts, long long count, long long n, long long n1, long long n2,
                          THREE(step), REAL* __restrict__ out)
{
    EACH (e, n) {
        const unsigned k = (unsigned)e % (unsigned)n2, ij = (unsigned)e / (unsigned)n2;
        const unsigned j = ij % (unsigned)n1, i = ij / (unsigned)n1;
        REAL sum = parts[e];
        for (long long p = 1; p < count; p++)
            sum += parts[p * n + e];
        out[i * step0 + j * step1 + k * step2] = sum;
    }
}

// -- few channels ---------------------------------------------------------------------------------
// y = b + the sum over taps and channels of w x, or its positive part. Block (x, y) computes 1024 positions (a thread
// four of them, 256 apart) for the FILTERS filters from FILTERS y on, whose weights it keeps in shared memory as
// [tap][channel][filter]. w's element (filter, channel, tap) is w[offset + filter * step0 + channel * step1 + tap *
// step2].

#define FILTERS 8
#define PIXELS 4
#define MOST_WEIGHTS 256  // taps times channels

KERNEL STANDARD direct(const REAL* __restrict__ x, const REAL* __restrict__ w, long long offset, THREE(step),
                       const REAL* b, long long biased, long long relu, long long positions, long long channels,
                       long long filters, GEOMETRY, REAL* y)
{
    __shared__ REAL weights[MOST_WEIGHTS * FILTERS];
    PACK(g);
    const int C = (int)channels, K = (int)filters, taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
    const int first = blockIdx.y * FILTERS;
    for (int i = threadIdx.x; i < taps * C * FILTERS; i += 256) {
        const int k = first + i % FILTERS, c = i / FILTERS % C, f = i / FILTERS / C;
        weights[i] = k < K ? w[offset + k * step0 + c * step1 + f * step2] : (REAL)0;
    }
    __syncthreads();

    REAL sums[PIXELS][FILTERS];
    const REAL* from[PIXELS];
    int at[PIXELS][3];
    const unsigned start = blockIdx.x * 256 * PIXELS + threadIdx.x;
    for (int p = 0; p < PIXELS; p++) {
        const unsigned position = start + p * 256 < positions ? start + p * 256 : 0;
        from[p] = x + (size_t)place(position, g.out, at[p]) * (g.size[0] * g.size[1] * g.size[2]) * C;
        for (int axis = 0; axis < 3; axis++)
            at[p][axis] = at[p][axis] * g.stride[axis] - g.low[axis];
        for (int k = 0; k < FILTERS; k++)
            sums[p][k] = 0;
    }
    const REAL* tap = weights;
    for (int fd = 0; fd < g.kernel[0]; fd++)
        for (int fh = 0; fh < g.kernel[1]; fh++)
            for (int fw = 0; fw < g.kernel[2]; fw++) {
                const REAL* pixel[PIXELS];
                for (int p = 0; p < PIXELS; p++) {
                    const int d = at[p][0] + fd * g.dilation[0], h = at[p][1] + fh * g.dilation[1];
                    const int v = at[p][2] + fw * g.dilation[2];
                    const bool there = inside(d, g.size[0]) && inside(h, g.size[1]) && inside(v, g.size[2]);
                    pixel[p] = there ? from[p] + ((size_t)(d * g.size[1] + h) * g.size[2] + v) * C : nullptr;
                }
                for (int c = 0; c < C; c++, tap += FILTERS) {
                    REAL value[PIXELS];
                    for (int p = 0; p < PIXELS; p++)
                        value[p] = pixel[p] ? pixel[p][c] : (REAL)0;
                    for (int k = 0; k < FILTERS; k++) {
                        const REAL weight = tap[k];
                        for (int p = 0; p < PIXELS; p++)
                            sums[p][k] += value[p] * weight;
                    }
                }
            }
    for (int p = 0; p < PIXELS; p++) {
        const unsigned position = start + p * 256;
        if (position >= positions)
            continue;
        for (int k = 0; k < FILTERS; k++)
            if (first + k < K) {
                const REAL v = sums[p][k] + (biased ? b[first + k] : (REAL)0);
                y[(size_t)position * K + first + k] = relu ? r_max(v, (REAL)0) : v;
            }
    }
}

// -- one channel per group ------------------------------------------------------------------------
// Filter k sees channel k / multiple only. w is [tap][filter] here, so that neighbours in a warp read neighbours.

KERNEL STANDARD depthwise(const REAL* __restrict__ x, const REAL* __restrict__ w, const REAL* b, long long biased,
                          long long relu, long long n, long long filters, long long multiple, GEOMETRY, REAL* y)
{
    PACK(g);
    const unsigned K = (unsigned)filters, C = K / (unsigned)multiple;
    EACH (i, n) {
        const unsigned k = (unsigned)i % K;
        int o[3];
        const unsigned image = place((unsigned)i / K, g.out, o);
        const REAL* from = x + (size_t)image * (g.size[0] * g.size[1] * g.size[2]) * C + k / (unsigned)multiple;
        const REAL* weight = w + k;
        REAL sum = biased ? b[k] : (REAL)0;
        for (int fd = 0; fd < g.kernel[0]; fd++) {
            const int d = o[0] * g.stride[0] + fd * g.dilation[0] - g.low[0];
            for (int fh = 0; fh < g.kernel[1]; fh++) {
                const int h = o[1] * g.stride[1] + fh * g.dilation[1] - g.low[1];
                for (int fw = 0; fw < g.kernel[2]; fw++, weight += K) {
                    const int v = o[2] * g.stride[2] + fw * g.dilation[2] - g.low[2];
                    const bool there = inside(d, g.size[0]) && inside(h, g.size[1]) && inside(v, g.size[2]);
                    sum += *weight * (there ? from[((size_t)(d * g.size[1] + h) * g.size[2] + v) * C] : (REAL)0);
                }
            }
        }
        y[i] = relu ? r_max(sum, (REAL)0) : sum;
    }
}

// Each element of gx gathers what its taps have read, over taps and filters in order; n counts elements of gx.
KERNEL STANDARD depthwise_data(const REAL* __restrict__ gy, const REAL* __restrict__ w, long long n, long long filters,
                               long long multiple, GEOMETRY, REAL* __restrict__ gx)
{
    PACK(g);
    const unsigned K = (unsigned)filters, m = (unsigned)multiple, C = K / m;
    EACH (i, n) {
        const unsigned c = (unsigned)i % C;
        int at[3];
        const unsigned image = place((unsigned)i / C, g.size, at);
        REAL sum = 0;
        for (int fd = 0; fd < g.kernel[0]; fd++) {
            const int od = reader(at[0], fd, g, 0);
            for (int fh = 0; od >= 0 && fh < g.kernel[1]; fh++) {
                const int oh = reader(at[1], fh, g, 1);
                for (int fw = 0; oh >= 0 && fw < g.kernel[2]; fw++) {
                    const int ow = reader(at[2], fw, g, 2);
                    if (ow < 0)
                        continue;
                    const size_t row = (((size_t)image * g.out[0] + od) * g.out[1] + oh) * g.out[2] + ow;
                    const int tap = (fd * g.kernel[1] + fh) * g.kernel[2] + fw;
                    for (unsigned j = 0; j < m; j++)
                        sum += w[(size_t)tap * K + c * m + j] * gy[row * K + c * m + j];
                }
            }
        }
        gx[i] = sum;
    }
}

// parts[chunk][tap][filter] = the sum over the chunk's positions of gy x. A block (x, y, z) takes the 256 filters from
// 256 x on, chunk y and the TAPS taps from TAPS z on; where there are fewer filters, its threads take several
// positions at once.

#define TAPS 9

KERNEL STANDARD depthwise_weight(const REAL* __restrict__ gy, const REAL* __restrict__ x, long long positions,
                                 long long chunk, long long filters, long long multiple, GEOMETRY,
                                 REAL* __restrict__ parts)
{
    __shared__ REAL partial[256];
    PACK(g);
    const int thread = threadIdx.x, width = filters < 256 ? (int)filters : 256;
    const int lanes = 256 / width, lane = thread / width;
    const unsigned K = (unsigned)filters, m = (unsigned)multiple, C = K / m;
    const unsigned k = blockIdx.x * 256 + thread % width;
    const int taps = g.kernel[0] * g.kernel[1] * g.kernel[2], first = blockIdx.z * TAPS;
    const int count = taps - first < TAPS ? taps - first : TAPS;
    const bool active = lane < lanes && k < K;

    int f[TAPS][3];
    REAL sums[TAPS];
#pragma unroll
    for (int t = 0; t < TAPS; t++) {
        place(first + t, g.kernel, f[t]);
        for (int axis = 0; axis < 3; axis++)
            f[t][axis] = f[t][axis] * g.dilation[axis] - g.low[axis];
        sums[t] = 0;
    }
    const long long begin = blockIdx.y * chunk, end = begin + chunk < positions ? begin + chunk : positions;
    for (long long p = begin + lane; active && p < end; p += lanes) {
        int o[3];
        const unsigned image = place((unsigned)p, g.out, o);
        const REAL* from = x + (size_t)image * (g.size[0] * g.size[1] * g.size[2]) * C + k / m;
        const REAL gradient = gy[p * K + k];
#pragma unroll
        for (int t = 0; t < TAPS; t++) {
            const int d = o[0] * g.stride[0] + f[t][0], h = o[1] * g.stride[1] + f[t][1];
            const int v = o[2] * g.stride[2] + f[t][2];
            const bool there = t < count && inside(d, g.size[0]) && inside(h, g.size[1]) && inside(v, g.size[2]);
            sums[t] += gradient * (there ? from[((size_t)(d * g.size[1] + h) * g.size[2] + v) * C] : (REAL)0);
        }
    }
#pragma unroll
    for (int t = 0; t < TAPS; t++) {
        if (t >= count)
            break;  // of the whole block
        partial[thread] = sums[t];
        __syncthreads();
        for (int n = lanes; n > 1; n = (n + 1) / 2) {
            const int half = (n + 1) / 2;
            if (lane + half < n)
                partial[thread] += partial[thread + half * width];
            __syncthreads();
        }
        if (lane == 0 && k < K)
            parts[((size_t)blockIdx.y * taps + first + t) * K + k] = partial[thread];
        __syncthreads();
    }
}
