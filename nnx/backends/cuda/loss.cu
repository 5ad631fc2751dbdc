// Losses of elements, and of rows of class scores.
//
// A gradient gy is one number for all (gy_step 0) or one for each loss (gy_step 1).

// -- elements ---------------------------------------------------------------------------------------

#define PAIRS const REAL *__restrict__ x_, const REAL *__restrict__ t_
#define X_ALONE const REAL *__restrict__ x_, const REAL *__restrict__
#define T_ALONE const REAL *__restrict__, const REAL *__restrict__ t_
#define GRADIENTS const REAL *__restrict__ gy_, long long gy_step
#define LOADED const REAL x = x_[i], t = t_[i]
#define GY gy_[i * gy_step]

DEVICE REAL cut_log(REAL x) { return r_max(r_log(x), (REAL)-100); }
DEVICE REAL cut_log1m(REAL x) { return r_max(r_log1p(-x), (REAL)-100); }

KERNEL STANDARD squared_error(PAIRS, REAL* __restrict__ y, long long n) {
    EACH(i, n) {
        LOADED;
        y[i] = (x - t) * (x - t);
    }
}

KERNEL STANDARD squared_error_backward(GRADIENTS, PAIRS, REAL* __restrict__ gx, long long n) {
    EACH(i, n) {
        LOADED;
        gx[i] = 2 * GY * (x - t);
    }
}

KERNEL STANDARD absolute_error(PAIRS, REAL* __restrict__ y, long long n) {
    EACH(i, n) {
        LOADED;
        y[i] = r_abs(x - t);
    }
}

KERNEL STANDARD absolute_error_backward(GRADIENTS, PAIRS, REAL* __restrict__ gx, long long n) {
    EACH(i, n) {
        LOADED;
        const REAL d = x - t;
        gx[i] = GY * (d > 0 ? (REAL)1 : d < 0 ? (REAL)-1 : d);  // d is 0 or NaN at the end
    }
}

KERNEL STANDARD huber(PAIRS, REAL* __restrict__ y, long long n, double delta_) {
    const REAL delta = (REAL)delta_, half = (REAL)(0.5 * delta_);
    EACH(i, n) {
        LOADED;
        const REAL d = r_abs(x - t);
        y[i] = d < delta ? (REAL)0.5 * d * d : delta * (d - half);
    }
}

KERNEL STANDARD huber_backward(GRADIENTS, PAIRS, REAL* __restrict__ gx, long long n, double delta_) {
    const REAL delta = (REAL)delta_;
    EACH(i, n) {
        LOADED;
        gx[i] = GY * r_min(r_max(x - t, -delta), delta);
    }
}

KERNEL STANDARD bce(PAIRS, REAL* __restrict__ y, long long n) {
    EACH(i, n) {
        LOADED;
        y[i] = (t - 1) * cut_log1m(x) - t * cut_log(x);
    }
}

KERNEL STANDARD bce_backward_x(GRADIENTS, PAIRS, REAL* __restrict__ gx, long long n) {
    EACH(i, n) {
        LOADED;
        gx[i] = GY * ((x - t) / r_max(x * (1 - x), (REAL)1e-12));
    }
}

KERNEL STANDARD bce_backward_t(GRADIENTS, X_ALONE, REAL* __restrict__ gt, long long n) {
    EACH(i, n) {
        const REAL x = x_[i];
        gt[i] = GY * (cut_log1m(x) - cut_log(x));
    }
}

// `weight` is null, or the factors of t in the shape of x.
KERNEL STANDARD bce_with_logits(PAIRS, const REAL* __restrict__ weight, REAL* __restrict__ y, long long n) {
    EACH(i, n) {
        LOADED;
        const REAL size = r_abs(x), w = weight ? weight[i] : (REAL)1;
        const REAL c = x > 0 ? 1 - t : w * t;
        REAL rest = r_log1p(r_exp(-size));
        if (weight) rest *= 1 + (w - 1) * t;
        y[i] = (c == 0 ? (REAL)0 : c * size) + rest;
    }
}

KERNEL STANDARD bce_with_logits_backward_x(GRADIENTS, PAIRS, const REAL* __restrict__ weight, REAL* __restrict__ gx,
                                           long long n) {
    EACH(i, n) {
        LOADED;
        const REAL e = r_exp(-r_abs(x));
        if (weight) {
            const REAL below = (x >= 0 ? e : (REAL)1) / (1 + e);  // 1 - sigmoid(x)
            gx[i] = GY * ((1 - t) - (1 + (weight[i] - 1) * t) * below);
        } else {
            gx[i] = GY * ((x >= 0 ? (REAL)1 : e) / (1 + e) - t);
        }
    }
}

KERNEL STANDARD bce_with_logits_backward_t(GRADIENTS, X_ALONE, const REAL* __restrict__ weight, REAL* __restrict__ gt,
                                           long long n) {
    EACH(i, n) {
        const REAL x = x_[i];
        REAL slope = -x;
        if (weight) slope = (weight[i] - 1) * (r_log1p(r_exp(-r_abs(x))) - r_min(x, (REAL)0)) - x;
        gt[i] = GY * slope;
    }
}

KERNEL STANDARD kl(PAIRS, REAL* __restrict__ y, long long n, long long log_target) {
    EACH(i, n) {
        LOADED;
        const REAL p = log_target ? r_exp(t) : t, log_p = log_target ? t : r_log(t);
        y[i] = p == 0 ? (REAL)0 : p * (log_p - x);
    }
}

KERNEL STANDARD kl_backward_x(GRADIENTS, T_ALONE, REAL* __restrict__ gx, long long n, long long log_target) {
    EACH(i, n) {
        const REAL t = t_[i];
        gx[i] = GY * -(log_target ? r_exp(t) : t);
    }
}

KERNEL STANDARD kl_backward_t(GRADIENTS, PAIRS, REAL* __restrict__ gt, long long n, long long log_target) {
    EACH(i, n) {
        LOADED;
        const REAL p = log_target ? r_exp(t) : t;
        const REAL slope = log_target ? p * (t - x + 1) : r_log(t) + 1 - x;
        gt[i] = GY * (p == 0 ? (REAL)0 : slope);
    }
}

// -- rows of class scores ---------------------------------------------------------------------------
//
// Threads in groups of `group`, a power of two up to 256, take a row each. A row whose label is -1 is skipped: its
// loss and its gradient are 0. Any other label out of range makes them NaN: a kernel cannot raise.

#define ROWS_OF_BLOCK                                                                      \
    const int size = (int)group, lane = threadIdx.x & (size - 1);                          \
    const long long together = 256 / size;                                                 \
    for (long long start = blockIdx.x * together; start < rows; start += gridDim.x * together)

// The row of a group; groups behind the last row do the last one's work again, so that all threads meet at barriers.
#define THIS_ROW                                          \
    long long r = start + threadIdx.x / size;             \
    const bool real = r < rows;                           \
    if (!real) r = rows - 1;

DEVICE REAL group_sum(REAL* shared, REAL v, int size) {
    const int t = threadIdx.x;
    shared[t] = v;
    __syncthreads();
    for (int half = size / 2; half > 0; half /= 2) {
        if ((t & (size - 1)) < half) shared[t] += shared[t + half];
        __syncthreads();
    }
    const REAL sum = shared[t & ~(size - 1)];
    __syncthreads();
    return sum;
}

DEVICE REAL group_max(REAL* shared, REAL v, int size) {
    const int t = threadIdx.x;
    shared[t] = v;
    __syncthreads();
    for (int half = size / 2; half > 0; half /= 2) {
        if ((t & (size - 1)) < half) shared[t] = r_max(shared[t], shared[t + half]);
        __syncthreads();
    }
    const REAL largest = shared[t & ~(size - 1)];
    __syncthreads();
    return largest;
}

// Labels as the kernels want them: -1 for those to ignore, `classes` for all that are out of range.
KERNEL STANDARD class_labels(const long long* __restrict__ labels, long long* __restrict__ y, long long n,
                             long long classes, long long ignores, long long ignored) {
    EACH(i, n) {
        const long long label = labels[i];
        y[i] = ignores && label == ignored ? -1 : label < 0 || label >= classes ? classes : label;
    }
}

KERNEL STANDARD softmax_cross_entropy(const REAL* __restrict__ x_, const long long* __restrict__ labels,
                                      REAL* __restrict__ loss, REAL* __restrict__ top, REAL* __restrict__ total,
                                      long long rows, long long classes, long long group, double smoothing) {
    __shared__ REAL shared[256];
    ROWS_OF_BLOCK {
        THIS_ROW
        const REAL* x = x_ + r * classes;
        REAL largest = x[lane < classes ? lane : 0];
        for (long long c = lane + size; c < classes; c += size) largest = r_max(largest, x[c]);
        largest = group_max(shared, largest, size);
        REAL sum = 0, shifted = 0;
        for (long long c = lane; c < classes; c += size) {
            const REAL z = x[c] - largest;
            sum += r_exp(z);
            shifted += z;
        }
        sum = group_sum(shared, sum, size);
        if (smoothing != 0) shifted = group_sum(shared, shifted, size);
        if (real && lane == 0) {
            const long long label = labels[r];
            REAL y = 0;
            if (label >= classes || label < -1) {
                y = (REAL)nan("");
            } else if (label >= 0) {
                y = r_log(sum) - (REAL)(1 - smoothing) * (x[label] - largest);
                if (smoothing != 0) y -= (REAL)smoothing * (shifted / (REAL)classes);
            }
            loss[r] = y;
            top[r] = largest;
            total[r] = sum;
        }
    }
}

KERNEL STANDARD softmax_cross_entropy_backward(GRADIENTS, const REAL* __restrict__ x_,
                                               const long long* __restrict__ labels, const REAL* __restrict__ top,
                                               const REAL* __restrict__ total, REAL* __restrict__ gx, long long rows,
                                               long long classes, long long group, double smoothing) {
    const REAL share = (REAL)(smoothing / (double)classes), rest = (REAL)(1 - smoothing);
    ROWS_OF_BLOCK {
        const long long r = start + threadIdx.x / size;
        if (r >= rows) continue;
        const long long label = labels[r];
        const bool wrong = label >= classes || label < -1;
        const REAL largest = top[r], sum = total[r], g = wrong ? (REAL)nan("") : gy_[r * gy_step];
        for (long long c = lane; c < classes; c += size) {
            const long long i = r * classes + c;
            REAL v = r_exp(x_[i] - largest) / sum - share;
            if (c == label) v -= rest;
            gx[i] = label == -1 ? (REAL)0 : v * g;
        }
    }
}

// The mean of the losses of rows that are not skipped, and how many there are. A block adds `chunk` rows; with one
// block result is (mean, number), else partial gets (sum, number) of each, for `finish_mean`.
KERNEL STANDARD mean_of_rows(const REAL* __restrict__ loss, const long long* __restrict__ labels,
                             double* __restrict__ partial, REAL* __restrict__ result, long long rows, long long chunk) {
    __shared__ double sums[256], counts[256];
    const int t = threadIdx.x;
    const long long behind = (blockIdx.x + 1) * chunk < rows ? (blockIdx.x + 1) * chunk : rows;
    double sum = 0, count = 0;
    for (long long r = blockIdx.x * chunk + t; r < behind; r += 256) {
        sum += loss[r];
        count += labels[r] >= 0;
    }
    sums[t] = sum;
    counts[t] = count;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (t < half) {
            sums[t] += sums[t + half];
            counts[t] += counts[t + half];
        }
        __syncthreads();
    }
    if (t == 0 && gridDim.x == 1) {
        result[0] = (REAL)(sums[0] / counts[0]);
        result[1] = (REAL)counts[0];
    } else if (t == 0) {
        partial[2 * blockIdx.x] = sums[0];
        partial[2 * blockIdx.x + 1] = counts[0];
    }
}

KERNEL STANDARD finish_mean(const double* __restrict__ partial, REAL* __restrict__ result, long long blocks) {
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    double sum = 0, count = 0;
    for (long long b = 0; b < blocks; ++b) {
        sum += partial[2 * b];
        count += partial[2 * b + 1];
    }
    result[0] = (REAL)(sum / count);
    result[1] = (REAL)count;
}

KERNEL STANDARD nll(const REAL* __restrict__ x, const long long* __restrict__ labels, REAL* __restrict__ y,
                    long long rows, long long classes) {
    EACH(r, rows) {
        const long long label = labels[r];
        if (label >= classes || label < -1) {
            y[r] = (REAL)nan("");
        } else {
            y[r] = label < 0 ? (REAL)0 : -x[r * classes + label];
        }
    }
}

KERNEL STANDARD nll_backward(GRADIENTS, const long long* __restrict__ labels, REAL* __restrict__ gx, long long rows,
                             long long classes, long long group) {
    ROWS_OF_BLOCK {
        const long long r = start + threadIdx.x / size;
        if (r >= rows) continue;
        const long long label = labels[r];
        const bool wrong = label >= classes || label < -1;
        for (long long c = lane; c < classes; c += size) {
            gx[r * classes + c] = wrong ? (REAL)nan("") : c == label ? -gy_[r * gy_step] : (REAL)0;
        }
    }
}

// max(0, margin + x[c] - x[label])
DEVICE REAL gap(const REAL* x, long long c, REAL own, REAL margin) { return r_max(x[c] - own + margin, (REAL)0); }

KERNEL STANDARD multiclass_hinge(const REAL* __restrict__ x_, const long long* __restrict__ labels,
                                 REAL* __restrict__ y, long long rows, long long classes, long long group, long long p,
                                 double margin) {
    __shared__ REAL shared[256];
    ROWS_OF_BLOCK {
        THIS_ROW
        const REAL* x = x_ + r * classes;
        const long long label = labels[r];
        const bool wrong = label >= classes || label < -1;
        REAL sum = 0;
        if (label >= 0 && !wrong) {
            const REAL own = x[label];
            for (long long c = lane; c < classes; c += size) {
                const REAL d = gap(x, c, own, (REAL)margin);
                if (c != label) sum += p == 2 ? d * d : d;
            }
        }
        sum = group_sum(shared, sum, size);
        if (real && lane == 0) y[r] = wrong ? (REAL)nan("") : sum;
    }
}

KERNEL STANDARD multiclass_hinge_backward(GRADIENTS, const REAL* __restrict__ x_, const long long* __restrict__ labels,
                                          REAL* __restrict__ gx, long long rows, long long classes, long long group,
                                          long long p, double margin) {
    __shared__ REAL shared[256];
    ROWS_OF_BLOCK {
        THIS_ROW
        const REAL* x = x_ + r * classes;
        const long long label = labels[r];
        const bool wrong = label >= classes || label < -1;
        const REAL g = wrong ? (REAL)nan("") : gy_[r * gy_step];
        const REAL own = label >= 0 && !wrong ? x[label] : (REAL)0;
        REAL sum = 0;
        for (long long c = lane; c < classes; c += size) {
            const REAL d = gap(x, c, own, (REAL)margin);
            const REAL slope = p == 2 ? 2 * d : d > 0 ? (REAL)1 : d;  // d is 0 or NaN at the end
            const REAL v = label == -1 ? (REAL)0 : slope * g;
            if (c != label) sum += v;
            if (real && c != label) gx[r * classes + c] = v;
        }
        sum = group_sum(shared, sum, size);
        if (real && lane == 0 && label >= 0 && !wrong) gx[r * classes + label] = -sum;
    }
}
