// Dropout: masks from counter-based random numbers, and their use.

// Philox-4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). Four random words
// for each value of the counter c; k is the key.
DEVICE void philox(unsigned int* c, unsigned int k0, unsigned int k1) {
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ULL * c[0];
        const unsigned long long p1 = 0xCD9E8D57ULL * c[2];
        c[0] = (unsigned int)(p1 >> 32) ^ c[1] ^ k0;
        c[1] = (unsigned int)p1;
        c[2] = (unsigned int)(p0 >> 32) ^ c[3] ^ k1;
        c[3] = (unsigned int)p0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
}

// keep[i] = 1 where word i of the stream of `seed` is at least `threshold`, else 0. `live` is where the seed is read
// instead while a graph is captured. Each thread makes four, which it writes as one word: `keep` lies at a multiple
// of 4.
KERNEL STANDARD draw_mask(unsigned char* __restrict__ keep, long long n, long long threshold, long long seed,
                          const double* __restrict__ live) {
    const unsigned long long key = live ? (unsigned long long)live[0] : (unsigned long long)seed;
    const unsigned int least = (unsigned int)threshold;
    EACH(i, (n + 3) / 4) {
        unsigned int c[4] = {(unsigned int)i, (unsigned int)((unsigned long long)i >> 32), 0U, 0U};
        philox(c, (unsigned int)key, (unsigned int)(key >> 32));
        if (4 * i + 3 < n) {
            ((unsigned int*)keep)[i] = (unsigned int)(c[0] >= least) | (unsigned int)(c[1] >= least) << 8 |
                                       (unsigned int)(c[2] >= least) << 16 | (unsigned int)(c[3] >= least) << 24;
            continue;
        }
        for (int j = 0; 4 * i + j < n; ++j) keep[4 * i + j] = c[j] >= least;
    }
}

// A mask with an element for each of x, in the order of its memory.
KERNEL STANDARD apply_mask(const REAL* __restrict__ x, const unsigned char* __restrict__ keep, REAL* __restrict__ y,
                           long long n, double scale) {
    const REAL factor = (REAL)scale;
    EACH(i, n) y[i] = keep[i] ? x[i] * factor : (REAL)0;
}

// A mask (samples, channels) for x (samples, pixels, channels): blockIdx.y is the sample.
KERNEL STANDARD apply_channel_mask(const REAL* __restrict__ x, const unsigned char* __restrict__ keep,
                                   REAL* __restrict__ y, long long samples, long long numbers, long long channels,
                                   double scale) {
    const REAL factor = (REAL)scale;
    for (long long s = blockIdx.y; s < samples; s += gridDim.y) {
        const REAL* from = x + s * numbers;
        REAL* to = y + s * numbers;
        const unsigned char* kept = keep + s * channels;
        EACH(i, numbers) to[i] = kept[i % channels] ? from[i] * factor : (REAL)0;
    }
}
