// Optimizer updates: one launch for up to 64 parameters, whatever their sizes.
//
// The addresses come by value, as an argument, so that nothing has to be copied to the device before, and a captured
// graph holds them. A block takes one chunk of one row (a parameter, its gradient and its accumulators: up to 5
// columns).

#define ROWS 64
#define CHUNK 2048

struct Rows {
    long long address[5][ROWS];
    long long size[ROWS];       // numbers in a row
    long long first[ROWS + 1];  // the first chunk of each row; the last is the number of chunks
    long long count;
};

// The numbers that all rows share: in the argument, or at `live` while a graph is captured (see _capture.py).
struct Numbers {
    double at[10];
};

#define ARGUMENTS const Rows rows, const Numbers numbers, const double *__restrict__ live
#define NUMBER(k) ((REAL)(live ? live[k] : numbers.at[k]))
#define FLAG(k) ((live ? live[k] : numbers.at[k]) != 0)

// The row of this block's chunk.
DEVICE int row_of_block(const Rows& rows) {
    int low = 0, high = (int)rows.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (rows.first[middle] <= (long long)blockIdx.x) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

#define COLUMN(k) ((REAL*)rows.address[k][row])
#define EACH_OF_CHUNK(i)                                                           \
    const int row = row_of_block(rows);                                            \
    const long long begin = ((long long)blockIdx.x - rows.first[row]) * CHUNK;     \
    const long long behind = begin + CHUNK < rows.size[row] ? begin + CHUNK : rows.size[row]; \
    for (long long i = begin + threadIdx.x; i < behind; i += blockDim.x)

// The direction to go down: the gradient (its negative to maximize), with L2 decay.
DEVICE REAL descent(REAL p, REAL g, REAL decay, bool maximize) {
    if (maximize) g = -g;
    return decay != 0 ? g + decay * p : g;
}

// The column of the momentum has address 0 without it.
KERNEL STANDARD sgd_step(ARGUMENTS) {
    const REAL lr = NUMBER(0), momentum = NUMBER(1), fresh = NUMBER(2), decay = NUMBER(3);
    const bool first = FLAG(4), nesterov = FLAG(5), maximize = FLAG(6);
    EACH_OF_CHUNK(i) {
        REAL* p = COLUMN(0);
        REAL g = descent(p[i], COLUMN(1)[i], decay, maximize);
        REAL* buffer = COLUMN(2);
        if (buffer) {
            const REAL b = first ? g : momentum * buffer[i] + fresh * g;
            buffer[i] = b;
            g = nesterov ? g + momentum * b : b;
        }
        p[i] -= lr * g;
    }
}

KERNEL STANDARD adagrad_step(ARGUMENTS) {
    const REAL rate = NUMBER(0), eps = NUMBER(1), decay = NUMBER(2);
    const bool maximize = FLAG(3);
    EACH_OF_CHUNK(i) {
        REAL* p = COLUMN(0);
        const REAL g = descent(p[i], COLUMN(1)[i], decay, maximize);
        const REAL s = COLUMN(2)[i] + g * g;
        COLUMN(2)[i] = s;
        p[i] -= rate * g / (r_sqrt(s) + eps);
    }
}

KERNEL STANDARD adadelta_step(ARGUMENTS) {
    const REAL lr = NUMBER(0), rho = NUMBER(1), fresh = NUMBER(2), eps = NUMBER(3), decay = NUMBER(4);
    const bool maximize = FLAG(5);
    EACH_OF_CHUNK(i) {
        REAL* p = COLUMN(0);
        const REAL g = descent(p[i], COLUMN(1)[i], decay, maximize);
        const REAL v = rho * COLUMN(2)[i] + fresh * (g * g), a = COLUMN(3)[i];
        const REAL d = r_sqrt(a + eps) / r_sqrt(v + eps) * g;
        COLUMN(2)[i] = v;
        COLUMN(3)[i] = rho * a + fresh * (d * d);
        p[i] -= lr * d;
    }
}

// The columns of the mean gradient and of the momentum have address 0 where the method has none.
KERNEL STANDARD rmsprop_step(ARGUMENTS) {
    const REAL lr = NUMBER(0), alpha = NUMBER(1), fresh = NUMBER(2), eps = NUMBER(3), decay = NUMBER(4);
    const REAL momentum = NUMBER(5);
    const bool maximize = FLAG(6);
    EACH_OF_CHUNK(i) {
        REAL* p = COLUMN(0);
        REAL* mean = COLUMN(3);
        REAL* buffer = COLUMN(4);
        const REAL g = descent(p[i], COLUMN(1)[i], decay, maximize);
        const REAL v = alpha * COLUMN(2)[i] + fresh * (g * g);
        COLUMN(2)[i] = v;
        REAL spread = v;
        if (mean) {
            const REAL m = mean[i] + fresh * (g - mean[i]);
            mean[i] = m;
            spread -= m * m;
        }
        REAL d = g / (r_sqrt(spread) + eps);
        if (buffer) {
            d += momentum * buffer[i];
            buffer[i] = d;
        }
        p[i] -= lr * d;
    }
}

// The column of the largest second moments has address 0 without AMSGrad.
KERNEL STANDARD adam_step(ARGUMENTS) {
    const REAL rate = NUMBER(0), root = NUMBER(1), keep = NUMBER(2), fresh1 = NUMBER(3), beta2 = NUMBER(4);
    const REAL fresh2 = NUMBER(5), eps = NUMBER(6), decay = NUMBER(7);
    const bool maximize = FLAG(8);
    EACH_OF_CHUNK(i) {
        REAL* p = COLUMN(0);
        REAL* largest = COLUMN(4);
        const REAL g = descent(p[i], COLUMN(1)[i], decay, maximize);
        const REAL m0 = COLUMN(2)[i];
        const REAL m = m0 + fresh1 * (g - m0);
        REAL v = beta2 * COLUMN(3)[i] + fresh2 * (g * g);
        COLUMN(2)[i] = m;
        COLUMN(3)[i] = v;
        if (largest) {
            v = r_max(largest[i], v);
            largest[i] = v;
        }
        p[i] = keep * p[i] - rate * m / (r_sqrt(v) / root + eps);
    }
}

KERNEL STANDARD scale(ARGUMENTS) {
    const REAL factor = NUMBER(0);
    EACH_OF_CHUNK(i) COLUMN(0)[i] *= factor;
}

KERNEL STANDARD clamp(ARGUMENTS) {
    const REAL low = NUMBER(0), high = NUMBER(1);
    EACH_OF_CHUNK(i) COLUMN(0)[i] = r_min(r_max(COLUMN(0)[i], low), high);
}

// -- the norm of everything ---------------------------------------------------------------------------

// order: 0 for the largest number, else the exponent. NaN wins, and everything is added in a fixed order.
DEVICE double joined(double a, double b, double order) {
    if (order != 0) return a + b;
    return a >= b || a != a ? a : b;
}

DEVICE double block_joined(double* shared, double v, double order) {
    const int t = threadIdx.x;
    shared[t] = v;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (t < half) shared[t] = joined(shared[t], shared[t + half], order);
        __syncthreads();
    }
    return shared[0];
}

KERNEL STANDARD partial_norms(const Rows rows, double order, double* __restrict__ partial) {
    __shared__ double shared[256];
    double sum = 0;
    EACH_OF_CHUNK(i) {
        const double a = r_abs((double)COLUMN(0)[i]);
        sum = joined(sum, order == 2 ? a * a : order == 0 || order == 1 ? a : pow(a, order), order);
    }
    sum = block_joined(shared, sum, order);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// result[0]: the norm of all; result[1]: what scales it down to `most`, at most 1, NaN for a norm that is NaN.
KERNEL STANDARD finish_norm(const double* __restrict__ partial, long long n, double order, double most,
                            long long bounded, double* __restrict__ result) {
    __shared__ double shared[256];
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += 256) sum = joined(sum, partial[i], order);
    sum = block_joined(shared, sum, order);
    if (threadIdx.x == 0) {
        const double norm = order == 2 ? sqrt(sum) : order == 0 || order == 1 ? sum : pow(sum, 1 / order);
        const double factor = most / (norm + 1e-6);
        result[0] = norm;
        result[1] = !bounded || factor >= 1 ? 1.0 : factor;
    }
}
