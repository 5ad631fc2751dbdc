# The level's tables of C kernels, for other compiled modules: see ext/simd/table.h.

cdef extern from "table.h" nogil:
    # A family is declared with its kernels where it is used, e.g. in ext/activation.pyx:
    #     struct nnx_activation:
    #         void (*relu_f32)(const float *x, float *y, Py_ssize_t n) noexcept nogil
    #     (<const nnx_activation *> table().activation).relu_f32(x, y, n)
    ctypedef struct nnx_table "struct nnx_table":
        const char *level
        const void *activation
        const void *conv
        const void *conv_pooled
        const void *direct
        const void *gemm
        const void *loss
        const void *neighbors
        const void *norm
        const void *optim
        const void *pool
        const void *recurrent
        const void *spread
        const void *winograd

# The tables of the level in use. Ask once per operation: force_level() may change the answer.
cdef const nnx_table *table() noexcept nogil
