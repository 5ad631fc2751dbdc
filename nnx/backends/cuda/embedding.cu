// Rows of a table by number, and their gradients.

// y[i] = weight[index[i]] for n rows of `width` numbers; a number out of range gives NaN. Threads in groups of
// `group`, a power of two, take a row each.
KERNEL STANDARD take_rows(const REAL* __restrict__ weight, const long long* __restrict__ index, REAL* __restrict__ y,
                          long long n, long long num, long long width, long long group) {
    const int size = (int)group, lane = threadIdx.x & (size - 1);
    const long long together = blockDim.x / size;
    for (long long i = blockIdx.x * together + threadIdx.x / size; i < n; i += gridDim.x * together) {
        const long long row = index[i];
        const bool inside = row >= 0 && row < num;
        for (long long d = lane; d < width; d += size) {
            y[i * width + d] = inside ? weight[row * width + d] : (REAL)nan("");
        }
    }
}

// g[k] = sum of gy[i] over all i with index[i] == k, in the order of i, for every k below num.
//
// A block owns `rows` rows of g and `blockDim.x` of its columns (blockIdx.y says which). It reads all of `index`,
// four times 256 numbers at a time, writes down in order which of them belong to its rows, and then each thread adds
// these, number after number, in its column. Every element of g is written by one thread, so the sums are the same in
// each run.
KERNEL STANDARD add_rows(const REAL* __restrict__ gy, const long long* __restrict__ index, REAL* g, long long n,
                         long long num, long long width, long long rows) {
    __shared__ int before[257];     // hits of the threads with lower numbers
    __shared__ int found[1024];     // positions from `start` on of the hits, in order
    __shared__ long long row[1024]; // their rows
    __shared__ int any;
    const int t = threadIdx.x;
    const long long first = blockIdx.x * rows, last = first + rows < num ? first + rows : num;
    const long long d = (long long)blockIdx.y * 256 + t;
    if (d < width) {
        for (long long k = first; k < last; ++k) g[k * width + d] = (REAL)0;
    }
    for (long long start = 0; start < n; start += 1024) {
        int hits = 0;
        long long mine[4];
        for (int j = 0; j < 4; ++j) {
            const long long i = start + 4 * t + j;
            mine[j] = i < n ? index[i] : -1;
            hits += mine[j] >= first && mine[j] < last;
        }
        __syncthreads();  // the lists of the last turn are read
        if (t == 0) any = 0;
        __syncthreads();
        if (hits) any = 1;  // whoever writes it writes the same
        __syncthreads();
        if (!any) continue;
        before[t + 1] = hits;
        if (t == 0) before[0] = 0;
        __syncthreads();
        for (int step = 1; step < 256; step *= 2) {
            const int more = t + 1 > step ? before[t + 1 - step] : 0;
            __syncthreads();
            before[t + 1] += more;
            __syncthreads();
        }
        int place = before[t];
        for (int j = 0; j < 4; ++j) {
            if (mine[j] >= first && mine[j] < last) {
                found[place] = 4 * t + j;
                row[place] = mine[j];
                ++place;
            }
        }
        __syncthreads();
        if (d < width) {
            const int count = before[256];
            for (int e = 0; e < count; ++e) g[row[e] * width + d] += gy[(start + found[e]) * width + d];
        }
    }
}
