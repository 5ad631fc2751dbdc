"""One recurrent layer in one direction over all time steps; ext/simd/recurrent.h has the arithmetic of the gates.

The products with the input, which are known for all steps before the first, are done by the caller. What is left is a
product with the state for each step: W_hh is packed once (ext/simd/gemm.h) and stays in the cache. Sequences do not
touch each other, so that threads take some sequences each through all steps and never wait. Where there are fewer than
two blocks of sequences for a thread, threads take some columns of W_hh each, and wait twice in each step.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from nnx._ext.common cimport (
    check_dim, check_ndim, check_threads, input_pointer, output_pointer, real, real_type,
)
from nnx._ext.gemm cimport nnx_gemm
from nnx._ext.memory cimport give_workspace, take_workspace
from nnx._ext.share cimport Shares, next_of, share_out
from nnx._ext.simd cimport table

cnp.import_array()

cdef extern from "table.h" nogil:
    ctypedef struct nnx_recurrent "struct nnx_recurrent":
        void (*rnn_tanh_f32)(float *h, Py_ssize_t n) noexcept nogil
        void (*rnn_tanh_f64)(double *h, Py_ssize_t n) noexcept nogil
        void (*rnn_tanh_backward_f32)(const float *h, float *gh, float *dg, Py_ssize_t n) noexcept nogil
        void (*rnn_tanh_backward_f64)(const double *h, double *gh, double *dg, Py_ssize_t n) noexcept nogil
        void (*rnn_relu_f32)(float *h, Py_ssize_t n) noexcept nogil
        void (*rnn_relu_f64)(double *h, Py_ssize_t n) noexcept nogil
        void (*rnn_relu_backward_f32)(const float *h, float *gh, float *dg, Py_ssize_t n) noexcept nogil
        void (*rnn_relu_backward_f64)(const double *h, double *gh, double *dg, Py_ssize_t n) noexcept nogil
        void (*gru_f32)(float *gates, const float *before, float *h, Py_ssize_t n) noexcept nogil
        void (*gru_f64)(double *gates, const double *before, double *h, Py_ssize_t n) noexcept nogil
        void (*gru_backward_f32)(const float *gates, const float *before, float *gh, float *dg,
                                 Py_ssize_t n) noexcept nogil
        void (*gru_backward_f64)(const double *gates, const double *before, double *gh, double *dg,
                                 Py_ssize_t n) noexcept nogil
        void (*lstm_f32)(float *gates, const float *before, float *c, float *m, Py_ssize_t n) noexcept nogil
        void (*lstm_f64)(double *gates, const double *before, double *c, double *m, Py_ssize_t n) noexcept nogil
        void (*lstm_backward_f32)(const float *gates, const float *before, const float *c, const float *gm, float *gc,
                                  float *dg, float *m, Py_ssize_t n) noexcept nogil
        void (*lstm_backward_f64)(const double *gates, const double *before, const double *c, const double *gm,
                                  double *gc, double *dg, double *m, Py_ssize_t n) noexcept nogil

cdef enum:
    ROWS = 16      # sequences of a task
    COLUMNS = 128  # of W_hh of a task: a multiple of every panel's width

cdef enum:
    RNN_TANH
    RNN_RELU
    GRU
    LSTM

cdef struct Layer:
    int kind                 # NumPy's type number
    int mode
    bint reverse
    Py_ssize_t steps
    Py_ssize_t batch
    Py_ssize_t hidden        # units
    Py_ssize_t width         # of h: hidden, or what the projection leaves
    Py_ssize_t rows          # of W_hh: its gates times hidden
    Py_ssize_t state         # numbers of a state: width, and for LSTM hidden more
    Py_ssize_t gates         # numbers of a row of the gates; for RNN, which keeps none, of the states
    const int64_t *lengths   # or NULL
    void *states
    void *pre                # the gates, or the states behind each step
    void *bias               # GRU: of q, or NULL
    void *packed             # W_hh
    void *packed_hr          # the projection, or NULL
    void *scratch            # the projection's input and, in backward, its gradient: hidden numbers for each sequence
    # backward
    void *gs                 # the gradient of the states
    void *later              # of the state after a step, then of the one before it
    void *ga                 # of the gates
    void *gh                 # for the projection's gradient: that of its result and, in m, what it took
    void *m


cdef int read_layer(
    Layer *L, str mode, cnp.ndarray gates, cnp.ndarray states, cnp.ndarray w_hh, cnp.ndarray w_hr, cnp.ndarray lengths,
    bint reverse
) except -1:
    """Check everything that forward and backward share, and fill in what is known."""
    cdef str kernel = "recurrent"
    cdef Py_ssize_t count
    memset(L, 0, sizeof(Layer))
    L.mode = {"RNN_TANH": RNN_TANH, "RNN_RELU": RNN_RELU, "GRU": GRU, "LSTM": LSTM}.get(mode, -1)
    if L.mode < 0:
        raise ValueError(f"{kernel}: expected mode 'RNN_TANH', 'RNN_RELU', 'GRU' or 'LSTM', got {mode!r}")
    L.reverse = reverse
    L.kind = real_type(states, kernel, "states")
    check_ndim(states, 3, kernel, "states")
    check_ndim(w_hh, 2, kernel, "w_hh")
    L.steps = cnp.PyArray_DIM(states, 0) - 1
    L.batch = cnp.PyArray_DIM(states, 1)
    L.rows = cnp.PyArray_DIM(w_hh, 0)
    L.width = cnp.PyArray_DIM(w_hh, 1)
    count = 1 if L.mode <= RNN_RELU else 3 if L.mode == GRU else 4
    L.hidden = L.rows // count
    if L.steps < 1 or L.hidden < 1 or L.rows != L.hidden * count:
        raise ValueError(
            f"{kernel}: expected a state more than steps and w_hh with {count} rows for each unit, got "
            f"{L.steps + 1} states and {L.rows} rows"
        )
    if w_hr is None:
        check_dim(w_hh, 1, L.hidden, kernel, "w_hh")
    else:
        check_ndim(w_hr, 2, kernel, "w_hr")
        if L.mode != LSTM:
            raise ValueError(f"{kernel}: expected w_hr to be None for {mode}, got an array")
        check_dim(w_hr, 0, L.width, kernel, "w_hr")
        check_dim(w_hr, 1, L.hidden, kernel, "w_hr")
    L.state = L.width + (L.hidden if L.mode == LSTM else 0)
    check_dim(states, 2, L.state, kernel, "states")
    L.states = input_pointer(states, L.kind, (L.steps + 1) * L.batch * L.state, kernel, "states")
    if L.mode <= RNN_RELU:
        if gates is not None:
            raise ValueError(f"{kernel}: expected gates to be None for {mode}, got an array")
        L.gates = L.state
        L.pre = <char *> L.states + (0 if reverse else L.batch * L.state * cnp.PyArray_ITEMSIZE(states))
    else:
        L.gates = 4 * L.hidden
        L.pre = input_pointer(gates, L.kind, L.steps * L.batch * L.gates, kernel, "gates")
    if lengths is not None:
        L.lengths = <const int64_t *> input_pointer(lengths, cnp.NPY_INT64, L.batch, kernel, "lengths")
    return 0


cdef int pack(
    const real *w, Py_ssize_t K, Py_ssize_t N, Py_ssize_t rs, Py_ssize_t cs, void **packed, int threads
) except -1:
    """Pack a K x N matrix for the tile kernel into a workspace, which becomes the caller's."""
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    cdef Py_ssize_t panel = kernels.gemm_panel_f32() if real is float else kernels.gemm_panel_f64()
    cdef Py_ssize_t panels = (N + panel - 1) // panel, p
    cdef real *to = <real *> take_workspace(max(panels * panel * K, 1) * sizeof(real))
    packed[0] = to
    for p in prange(panels, nogil=True, num_threads=threads, schedule="static"):
        if real is float:
            kernels.pack_f32(K, min(panel, N - p * panel), w + p * panel * cs, rs, cs, to + p * panel * K)
        else:
            kernels.pack_f64(K, min(panel, N - p * panel), w + p * panel * cs, rs, cs, to + p * panel * K)
    return 0


cdef inline void multiply(
    Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const real *A, Py_ssize_t lda, const real *packed, real *C,
    Py_ssize_t ldc, bint accumulate
) noexcept nogil:
    """C (+)= A B for a packed B."""
    cdef const nnx_gemm *kernels = <const nnx_gemm *> table().gemm
    if real is float:
        kernels.gemm_f32(M, N, K, A, lda, 1, packed, K, C, ldc, 1, accumulate, NULL, NULL, 0)
    else:
        kernels.gemm_f64(M, N, K, A, lda, 1, packed, K, C, ldc, 1, accumulate, NULL, NULL, 0)


cdef inline bint taken(Layer *L, Py_ssize_t t, Py_ssize_t n) noexcept nogil:
    """Whether sequence n reaches to step t."""
    return L.lengths == NULL or t < L.lengths[n]


cdef inline bint few_sequences(Layer *L, int threads) noexcept nogil:
    """Whether threads share out the columns: there are too few sequences, and a step is worth the waiting."""
    return L.batch <= ROWS * (threads - 1) and <double> L.batch * L.rows * L.width >= 500000


# -- forward -----------------------------------------------------------------------------------------

def forward(
    str mode not None, cnp.ndarray gates, cnp.ndarray states, cnp.ndarray w_hh, cnp.ndarray bias, cnp.ndarray w_hr,
    cnp.ndarray lengths, bint reverse, int num_threads
):
    """Take all steps: fill in the states behind the first one, which is number 0, or the last one if `reverse`.

    states (T + 1, N, S), gates (T, N, 4 H) or None, w_hh (G H, P), bias (H,) or None, w_hr (P, H) or None, lengths (N,)
    of int64 or None, all C-contiguous. What the gates get from the input, biases included, is already there: in the
    rows of `gates`, for GRU with a gap (r, z, -, n), or for RNN in the states behind each step. bias: b_hh of GRU's n.
    """
    cdef Layer L
    cdef int kind
    check_threads(num_threads, "recurrent")
    read_layer(&L, mode, gates, states, w_hh, w_hr, lengths, reverse)
    kind = L.kind
    output_pointer(states, kind, cnp.PyArray_SIZE(states), "recurrent", "states")
    if gates is not None:
        output_pointer(gates, kind, cnp.PyArray_SIZE(gates), "recurrent", "gates")
    cdef void *w = input_pointer(w_hh, kind, L.rows * L.width, "recurrent", "w_hh")
    cdef void *project = NULL
    if bias is not None:
        if L.mode != GRU:
            raise ValueError(f"recurrent: expected bias to be None for {mode}, got an array")
        L.bias = input_pointer(bias, kind, L.hidden, "recurrent", "bias")
    if w_hr is not None:
        project = input_pointer(w_hr, kind, L.width * L.hidden, "recurrent", "w_hr")
    if L.batch == 0:
        return
    try:
        if kind == cnp.NPY_FLOAT:
            _forward[float](&L, <const float *> w, <const float *> project, num_threads)
        else:
            _forward[double](&L, <const double *> w, <const double *> project, num_threads)
    finally:
        give_workspace(L.packed)
        give_workspace(L.packed_hr)
        give_workspace(L.scratch)


cdef int _forward(Layer *L, const real *w, const real *project, int threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t blocks = (L.batch + ROWS - 1) // ROWS, tiles = (L.rows + COLUMNS - 1) // COLUMNS, b, s, n, c
    cdef real *states = <real *> L.states
    pack[real](w, L.width, L.rows, 1, L.width, &L.packed, threads)
    if project != NULL:
        pack[real](project, L.hidden, L.width, 1, L.hidden, &L.packed_hr, threads)
        L.scratch = take_workspace(L.batch * L.hidden * sizeof(real))
    if few_sequences(L, threads):
        for s in range(L.steps):
            for c in prange(tiles, nogil=True, num_threads=threads, schedule="static"):
                multiply_step[real](L, states, s, 0, L.batch, c * COLUMNS, min(COLUMNS, L.rows - c * COLUMNS))
            for n in prange(L.batch, nogil=True, num_threads=threads, schedule="static"):
                activate[real](L, states, s, n, 1)
    else:
        share_out(&shares, blocks, threads)
        for thread in prange(threads, nogil=True, num_threads=threads, schedule="static", chunksize=1):
            b = next_of(&shares, thread)
            while b >= 0:
                for s in range(L.steps):
                    multiply_step[real](L, states, s, b * ROWS, min(ROWS, L.batch - b * ROWS), 0, L.rows)
                    activate[real](L, states, s, b * ROWS, min(ROWS, L.batch - b * ROWS))
                b = next_of(&shares, thread)
    return 0


cdef void multiply_step(
    Layer *L, const real *states, Py_ssize_t s, Py_ssize_t first, Py_ssize_t count, Py_ssize_t column,
    Py_ssize_t columns
) noexcept nogil:
    """Add W_hh h to `columns` of the sums of the gates, in step number s, for `count` sequences."""
    cdef Py_ssize_t t = L.steps - 1 - s if L.reverse else s, n, begin, end
    cdef const real *old = states + ((t + L.reverse) * L.batch + first) * L.state
    cdef real *pre = <real *> L.pre + (t * L.batch + first) * L.gates
    if L.mode == GRU:  # q, the last third of the columns, has no part that comes from the input
        begin = max(column, 2 * L.hidden)
        end = column + columns
        for n in range(count):
            if begin < end and L.bias != NULL:
                memcpy(pre + n * L.gates + begin, <const real *> L.bias + begin - 2 * L.hidden,
                       (end - begin) * sizeof(real))
            elif begin < end:
                memset(pre + n * L.gates + begin, 0, (end - begin) * sizeof(real))
    multiply[real](count, columns, L.width, old, L.state, <const real *> L.packed + column * L.width, pre + column,
                   L.gates, True)


cdef void activate(Layer *L, real *states, Py_ssize_t s, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """Make the new states of `count` sequences from the sums of the gates, in step number s."""
    cdef const nnx_recurrent *kernels = <const nnx_recurrent *> table().recurrent
    cdef Py_ssize_t t = L.steps - 1 - s if L.reverse else s, n, H = L.hidden
    cdef const real *old = states + ((t + L.reverse) * L.batch + first) * L.state
    cdef real *new = states + ((t + (not L.reverse)) * L.batch + first) * L.state
    cdef real *pre = <real *> L.pre + (t * L.batch + first) * L.gates
    cdef real *m = <real *> L.scratch + first * H if L.scratch != NULL else NULL
    cdef const real *o
    cdef real *h
    cdef real *p
    for n in range(count):
        o = old + n * L.state
        h = new + n * L.state
        p = pre + n * L.gates
        if not taken(L, t, first + n):
            if m != NULL:
                memset(m + n * H, 0, H * sizeof(real))
        elif L.mode == RNN_TANH:
            if real is float:
                kernels.rnn_tanh_f32(h, H)
            else:
                kernels.rnn_tanh_f64(h, H)
        elif L.mode == RNN_RELU:
            if real is float:
                kernels.rnn_relu_f32(h, H)
            else:
                kernels.rnn_relu_f64(h, H)
        elif L.mode == GRU:
            if real is float:
                kernels.gru_f32(p, o, h, H)
            else:
                kernels.gru_f64(p, o, h, H)
        else:
            if real is float:
                kernels.lstm_f32(p, o + L.width, h + L.width, h if m == NULL else m + n * H, H)
            else:
                kernels.lstm_f64(p, o + L.width, h + L.width, h if m == NULL else m + n * H, H)
    if m != NULL:
        multiply[real](count, L.width, H, m, H, <const real *> L.packed_hr, new, L.state, False)
    if L.lengths != NULL:
        for n in range(count):
            if not taken(L, t, first + n):
                memcpy(new + n * L.state, old + n * L.state, L.state * sizeof(real))
                if L.mode >= GRU:
                    memset(pre + n * L.gates, 0, L.gates * sizeof(real))


# -- backward ----------------------------------------------------------------------------------------

def backward(
    str mode not None, cnp.ndarray gs, cnp.ndarray gates, cnp.ndarray states, cnp.ndarray w_hh, cnp.ndarray w_hr,
    cnp.ndarray lengths, cnp.ndarray ga, cnp.ndarray gstate, cnp.ndarray gh, cnp.ndarray m, bint reverse,
    int num_threads
):
    """The gradient of the sums of the gates and of the first state, from `gs` (T + 1, N, S), that of all states.

    gates, states, w_hh, w_hr, lengths, reverse: as in forward, and as it left them.
    Written: ga, like gates (for GRU r, z, q, n), for RNN (T, N, H); gstate (N, S); and where there is a projection gh
    (T, N, P), the gradient of its results, and m (T, N, H), what it took.
    """
    cdef Layer L
    cdef int kind
    cdef void *project = NULL
    check_threads(num_threads, "recurrent")
    read_layer(&L, mode, gates, states, w_hh, w_hr, lengths, reverse)
    kind = L.kind
    cdef void *w = input_pointer(w_hh, kind, L.rows * L.width, "recurrent", "w_hh")
    L.gs = input_pointer(gs, kind, (L.steps + 1) * L.batch * L.state, "recurrent", "gs")
    L.later = output_pointer(gstate, kind, L.batch * L.state, "recurrent", "gstate")
    L.ga = output_pointer(ga, kind, L.steps * L.batch * L.gates, "recurrent", "ga")
    if w_hr is not None:
        project = input_pointer(w_hr, kind, L.width * L.hidden, "recurrent", "w_hr")
        L.gh = output_pointer(gh, kind, L.steps * L.batch * L.width, "recurrent", "gh")
        L.m = output_pointer(m, kind, L.steps * L.batch * L.hidden, "recurrent", "m")
    elif gh is not None or m is not None:
        raise ValueError("recurrent: expected gh and m to be None without w_hr, got an array")
    if L.batch == 0:
        return
    try:
        if kind == cnp.NPY_FLOAT:
            _backward[float](&L, <const float *> w, <const float *> project, num_threads)
        else:
            _backward[double](&L, <const double *> w, <const double *> project, num_threads)
    finally:
        give_workspace(L.packed)
        give_workspace(L.packed_hr)
        give_workspace(L.scratch)


cdef int _backward(Layer *L, const real *w, const real *project, int threads) except -1:
    cdef Shares shares
    cdef int thread
    cdef Py_ssize_t blocks = (L.batch + ROWS - 1) // ROWS, tiles = (L.width + COLUMNS - 1) // COLUMNS, b, s, n, c
    cdef real *later = <real *> L.later
    pack[real](w, L.rows, L.width, L.width, 1, &L.packed, threads)
    if project != NULL:
        pack[real](project, L.width, L.hidden, L.hidden, 1, &L.packed_hr, threads)
    L.scratch = take_workspace(L.batch * L.hidden * sizeof(real))
    memcpy(later, <real *> L.gs + (0 if L.reverse else L.steps * L.batch * L.state),
           L.batch * L.state * sizeof(real))
    if few_sequences(L, threads):
        for s in range(L.steps - 1, -1, -1):
            for n in prange(L.batch, nogil=True, num_threads=threads, schedule="static"):
                gradient[real](L, later, s, n, 1)
            for c in prange(tiles, nogil=True, num_threads=threads, schedule="static"):
                multiply_back[real](L, later, s, 0, L.batch, c * COLUMNS, min(COLUMNS, L.width - c * COLUMNS))
    else:
        share_out(&shares, blocks, threads)
        for thread in prange(threads, nogil=True, num_threads=threads, schedule="static", chunksize=1):
            b = next_of(&shares, thread)
            while b >= 0:
                for s in range(L.steps - 1, -1, -1):
                    gradient[real](L, later, s, b * ROWS, min(ROWS, L.batch - b * ROWS))
                    multiply_back[real](L, later, s, b * ROWS, min(ROWS, L.batch - b * ROWS), 0, L.width)
                b = next_of(&shares, thread)
    return 0


cdef void gradient(Layer *L, real *later, Py_ssize_t s, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """The gradient of the gates in step number s; `later` then holds what reaches the old state but through W_hh."""
    cdef const nnx_recurrent *kernels = <const nnx_recurrent *> table().recurrent
    cdef Py_ssize_t t = L.steps - 1 - s if L.reverse else s, n, at, H = L.hidden
    cdef const real *old = <const real *> L.states + ((t + L.reverse) * L.batch + first) * L.state
    cdef const real *new = <const real *> L.states + ((t + (not L.reverse)) * L.batch + first) * L.state
    cdef const real *gates = <const real *> L.pre + (t * L.batch + first) * L.gates
    cdef real *ga = <real *> L.ga + (t * L.batch + first) * L.gates
    cdef real *scratch = <real *> L.scratch + first * H  # the gradient of o tanh(c), then that itself
    cdef real *m
    cdef const real *o
    cdef const real *h
    cdef const real *p
    cdef const real *gm
    cdef real *g
    later += first * L.state
    if L.packed_hr != NULL:
        multiply[real](count, H, L.width, later, L.state, <const real *> L.packed_hr, scratch, H, False)
    for n in range(count):
        o = old + n * L.state
        h = new + n * L.state
        p = gates + n * L.gates
        g = later + n * L.state
        at = t * L.batch + first + n
        if not taken(L, t, first + n):
            memset(ga + n * L.gates, 0, L.gates * sizeof(real))
            if L.packed_hr != NULL:
                memset(<real *> L.gh + at * L.width, 0, L.width * sizeof(real))
                memset(<real *> L.m + at * H, 0, H * sizeof(real))
        elif L.mode == RNN_TANH:
            if real is float:
                kernels.rnn_tanh_backward_f32(h, g, ga + n * L.gates, H)
            else:
                kernels.rnn_tanh_backward_f64(h, g, ga + n * L.gates, H)
        elif L.mode == RNN_RELU:
            if real is float:
                kernels.rnn_relu_backward_f32(h, g, ga + n * L.gates, H)
            else:
                kernels.rnn_relu_backward_f64(h, g, ga + n * L.gates, H)
        elif L.mode == GRU:
            if real is float:
                kernels.gru_backward_f32(p, o, g, ga + n * L.gates, H)
            else:
                kernels.gru_backward_f64(p, o, g, ga + n * L.gates, H)
        else:
            m = scratch + n * H
            gm = g
            if L.packed_hr != NULL:
                gm = m
                m = <real *> L.m + at * H
                memcpy(<real *> L.gh + at * L.width, g, L.width * sizeof(real))
            if real is float:
                kernels.lstm_backward_f32(p, o + L.width, h + L.width, gm, g + L.width, ga + n * L.gates, m, H)
            else:
                kernels.lstm_backward_f64(p, o + L.width, h + L.width, gm, g + L.width, ga + n * L.gates, m, H)
            memset(g, 0, L.width * sizeof(real))


cdef void multiply_back(
    Layer *L, real *later, Py_ssize_t s, Py_ssize_t first, Py_ssize_t count, Py_ssize_t column, Py_ssize_t columns
) noexcept nogil:
    """Finish `columns` of h in `later`: what reaches the old state through W_hh, and from above."""
    cdef Py_ssize_t t = L.steps - 1 - s if L.reverse else s, n, j, end = column + columns
    cdef const real *ga = <const real *> L.ga + (t * L.batch + first) * L.gates
    cdef const real *gs = <const real *> L.gs + ((t + L.reverse) * L.batch + first) * L.state
    later += first * L.state
    multiply[real](count, columns, L.rows, ga, L.gates, <const real *> L.packed + column * L.rows, later + column,
                   L.state, True)
    if end == L.width:
        end = L.state  # c needs nothing else
    for n in range(count):
        for j in range(column, end):
            later[n * L.state + j] += gs[n * L.state + j]
