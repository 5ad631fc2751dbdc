// The gates of recurrent layers, one time step of a layer at a time, behind the matrix product of the step. The
// formulas are those of nnx/backends/base/recurrent.py.
//
// a: W_ih x + b_ih; b: W_hh h; old, state: (batch, S) before and behind the step. A sequence with lengths[n] <= t
// keeps its state; `lengths` is null where all are full.

DEVICE REAL squash(REAL x) { return 1 / (1 + r_exp(-x)); }

#define STEP_OF_SEQUENCE const long long* __restrict__ lengths, long long t, long long batch, long long hidden
#define EACH_UNIT(i)                                                                        \
    EACH(i, batch * hidden) {                                                               \
        const unsigned int n = (unsigned int)i / (unsigned int)hidden;                      \
        const unsigned int j = (unsigned int)i - n * (unsigned int)hidden;                  \
        (void)j;                                                                            \
        const bool taken = !lengths || t < lengths[n];
#define END_EACH }

// `sums` is a + b with all biases, likewise in `lstm_forward`.
KERNEL STANDARD rnn_forward(const REAL* __restrict__ sums, const REAL* __restrict__ old, REAL* __restrict__ state,
                            STEP_OF_SEQUENCE, long long relu) {
    EACH_UNIT(i)
        state[i] = !taken ? old[i] : relu ? r_max(sums[i], (REAL)0) : r_tanh(sums[i]);
    END_EACH
}

// `bias` is that of b (null: none).
KERNEL STANDARD gru_forward(const REAL* __restrict__ a, const REAL* __restrict__ b, const REAL* __restrict__ bias,
                            const REAL* __restrict__ old, REAL* __restrict__ state, REAL* __restrict__ gates,
                            STEP_OF_SEQUENCE) {
    EACH_UNIT(i)
        const long long at = 3 * hidden * n + j;
        REAL* kept = gates + 4 * hidden * n + j;
        const REAL r = squash(a[at] + b[at] + (bias ? bias[j] : (REAL)0));
        const REAL z = squash(a[at + hidden] + b[at + hidden] + (bias ? bias[j + hidden] : (REAL)0));
        const REAL q = b[at + 2 * hidden] + (bias ? bias[j + 2 * hidden] : (REAL)0);
        const REAL c = r_tanh(a[at + 2 * hidden] + r * q);
        kept[0] = taken ? r : (REAL)0;
        kept[hidden] = taken ? z : (REAL)0;
        kept[2 * hidden] = taken ? q : (REAL)0;
        kept[3 * hidden] = taken ? c : (REAL)0;
        state[i] = taken ? c + z * (old[i] - c) : old[i];
    END_EACH
}

// S = width + hidden: h and behind it c. `m` (batch, hidden) gets o tanh(c) where it is to be projected, and
// `project` then writes h; it is null where o tanh(c) is h.
KERNEL STANDARD lstm_forward(const REAL* __restrict__ sums, const REAL* __restrict__ old, REAL* __restrict__ state,
                             REAL* __restrict__ gates, REAL* __restrict__ m, STEP_OF_SEQUENCE, long long width) {
    EACH_UNIT(i)
        const long long at = 4 * hidden * n + j, place = (width + hidden) * n + j;
        REAL v[4];
        for (int k = 0; k < 4; ++k) {
            const REAL sum = sums[at + k * hidden];
            v[k] = k == 2 ? r_tanh(sum) : squash(sum);
            gates[at + k * hidden] = taken ? v[k] : (REAL)0;
        }
        const REAL c = v[1] * old[place + width] + v[0] * v[2];
        const REAL out = v[3] * r_tanh(c);
        state[place + width] = taken ? c : old[place + width];
        if (m) {
            m[i] = out;
        } else {
            state[place] = taken ? out : old[place];
        }
    END_EACH
}

// The projected output p (batch, hidden) into the first numbers of the state, which has `width` in a row.
KERNEL STANDARD project(const REAL* __restrict__ p, const REAL* __restrict__ old, REAL* __restrict__ state,
                        STEP_OF_SEQUENCE, long long width) {
    EACH_UNIT(i)
        const long long place = width * n + j;
        state[place] = taken ? p[i] : old[place];
    END_EACH
}

// -- backward ---------------------------------------------------------------------------------------
//
// The gradient of the state behind a step is `gs` + `carry`: from above, and from the later step (`later` is 0 in the
// last one, which has none). The kernels write the gradients of the sums, `ga` (and for GRU `gb`, of those behind
// W_hh), and in `carry` what reaches the state before, but for the way through W_hh, which a matrix product adds.

#define GRADIENT_OF_STATE(place) (gs[place] + (later ? carry[place] : (REAL)0))

KERNEL STANDARD rnn_backward(const REAL* __restrict__ gs, REAL* __restrict__ carry, long long later,
                             const REAL* __restrict__ state, REAL* __restrict__ ga, STEP_OF_SEQUENCE,
                             long long relu) {
    EACH_UNIT(i)
        const REAL g = GRADIENT_OF_STATE(i), y = state[i];
        const REAL slope = relu ? (y <= 0 ? (REAL)0 : g) : g * ((1 - y) * (1 + y));
        ga[i] = taken ? slope : (REAL)0;
        carry[i] = taken ? (REAL)0 : g;
    END_EACH
}

KERNEL STANDARD gru_backward(const REAL* __restrict__ gs, REAL* __restrict__ carry, long long later,
                             const REAL* __restrict__ old, const REAL* __restrict__ gates,
                             REAL* __restrict__ ga, REAL* __restrict__ gb, STEP_OF_SEQUENCE) {
    EACH_UNIT(i)
        const long long at = 3 * hidden * n + j;
        const REAL* kept = gates + 4 * hidden * n + j;
        const REAL r = kept[0], z = kept[hidden], q = kept[2 * hidden], c = kept[3 * hidden];
        const REAL all = GRADIENT_OF_STATE(i), g = taken ? all : (REAL)0;
        const REAL gc = g * (1 - z) * ((1 - c) * (1 + c));
        const REAL gr = gc * q * (r * (1 - r)), gz = g * (old[i] - c) * (z * (1 - z));
        ga[at] = gb[at] = taken ? gr : (REAL)0;
        ga[at + hidden] = gb[at + hidden] = taken ? gz : (REAL)0;
        ga[at + 2 * hidden] = taken ? gc : (REAL)0;
        gb[at + 2 * hidden] = taken ? gc * r : (REAL)0;
        carry[i] = taken ? g * z : all;
    END_EACH
}

// Of the gradient of h (batch, hidden = its width), `gh` gets what the projection has to carry back.
KERNEL STANDARD project_backward(const REAL* __restrict__ gs, REAL* __restrict__ carry,
                                 long long later, REAL* __restrict__ gh,
                                 STEP_OF_SEQUENCE, long long width) {
    EACH_UNIT(i)
        const long long place = width * n + j;
        const REAL g = GRADIENT_OF_STATE(place);
        gh[i] = taken ? g : (REAL)0;
        carry[place] = taken ? (REAL)0 : g;
    END_EACH
}

// `gm` (batch, hidden) is the gradient of o tanh(c) behind a projection, and `m` then gets o tanh(c) itself; both are
// null where there is none.
KERNEL STANDARD lstm_backward(const REAL* __restrict__ gs, REAL* __restrict__ carry, long long later,
                              const REAL* __restrict__ old, const REAL* __restrict__ state,
                              const REAL* __restrict__ gates, const REAL* __restrict__ gm, REAL* __restrict__ ga,
                              REAL* __restrict__ m, STEP_OF_SEQUENCE, long long width) {
    EACH_UNIT(i)
        const long long at = 4 * hidden * n + j, place = (width + hidden) * n + j, cell = place + width;
        const REAL in = gates[at], f = gates[at + hidden], c = gates[at + 2 * hidden], o = gates[at + 3 * hidden];
        const REAL tc = r_tanh(state[cell]);
        const REAL all = GRADIENT_OF_STATE(cell);
        REAL g;
        if (gm) {
            g = gm[i];
            m[i] = taken ? o * tc : (REAL)0;
        } else {
            const REAL h = GRADIENT_OF_STATE(place);
            g = taken ? h : (REAL)0;
            carry[place] = taken ? (REAL)0 : h;
        }
        const REAL gc = (taken ? all : (REAL)0) + g * o * ((1 - tc) * (1 + tc));
        ga[at] = taken ? gc * c * (in * (1 - in)) : (REAL)0;
        ga[at + hidden] = taken ? gc * old[cell] * (f * (1 - f)) : (REAL)0;
        ga[at + 2 * hidden] = taken ? gc * in * ((1 - c) * (1 + c)) : (REAL)0;
        ga[at + 3 * hidden] = taken ? g * tc * (o * (1 - o)) : (REAL)0;
        carry[cell] = taken ? gc * f : all;
    END_EACH
}
