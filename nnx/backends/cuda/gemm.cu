// What goes with a product of matrices: the bias and the positive part behind it, the sums of columns of its gradient.

DEVICE REAL finished(REAL v, REAL bias, int relu)
{
    v += bias;
    return relu ? r_max(v, (REAL)0) : v;
}

DEVICE Pack<WIDTH> finished(Pack<WIDTH> q, const Pack<WIDTH>& bias, int relu)
{
    for (int i = 0; i < WIDTH; i++)
        q.v[i] = finished(q.v[i], bias.v[i], relu);
    return q;
}

// y[row, column] + b[column] in place, or with `relu` its positive part; n < 2^31 elements, b only if `biased`.
template <typename V>
DEVICE void finish(V* y, const V* b, int biased, unsigned n, unsigned columns, int relu)
{
    EACH (i, n)
        y[i] = finished(y[i], biased ? b[(unsigned)i % columns] : V(), relu);
}

KERNEL STANDARD bias_relu(REAL* y, const REAL* b, long long biased, long long n, long long columns, long long relu)
{
    finish(y, b, (int)biased, (unsigned)n, (unsigned)columns, (int)relu);
}

// The same for WIDTH columns at a time: n and columns count packs.
KERNEL STANDARD bias_relu_packs(REAL* y, const REAL* b, long long biased, long long n, long long columns,
                                long long relu)
{
    finish((Pack<WIDTH>*)y, (const Pack<WIDTH>*)b, (int)biased, (unsigned)n, (unsigned)columns, (int)relu);
}

// sums[chunk, column] = the sum of a[row, column] over the chunk's rows. A block (x, y) takes the 256 columns from 256
// x on and chunk y; where there are fewer columns, its threads take several rows at once, so that they always read a
// run of memory.
KERNEL STANDARD column_sums(const REAL* __restrict__ a, long long rows, long long columns, long long chunk_rows,
                            REAL* __restrict__ sums)
{
    __shared__ REAL partial[256];
    const int thread = threadIdx.x, width = columns < 256 ? (int)columns : 256;
    const int lanes = 256 / width, lane = thread / width;
    const long long column = (long long)blockIdx.x * 256 + thread % width;
    const long long first = blockIdx.y * chunk_rows, end = first + chunk_rows < rows ? first + chunk_rows : rows;
    REAL sum = 0;
    if (lane < lanes && column < columns)
        for (long long row = first + lane; row < end; row += lanes)
            sum += a[row * columns + column];
    partial[thread] = sum;
    __syncthreads();
    for (int n = lanes; n > 1; n = (n + 1) / 2) {
        const int half = (n + 1) / 2;
        if (lane + half < n)
            partial[thread] += partial[thread + half * width];
        __syncthreads();
    }
    if (lane == 0 && column < columns)
        sums[blockIdx.y * columns + column] = partial[thread];
}
