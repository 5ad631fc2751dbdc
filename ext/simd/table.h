/* The tables of C kernels, one per instruction-set level.
 *
 * To add a kernel to the family `pool`:
 *   1. write it once for both types in pool.h:      static void NAME(max_row)(const REAL *x, ...) { ... }
 *   2. list it in pool_table.h:                     X(void, max_row, (const REAL *x, ...))
 *   3. declare what you call in ext/pool.pyx:       cdef extern from "table.h": struct nnx_pool: void (*max_row_f32)(...) noexcept nogil
 *   4. call it:                                     (<const nnx_pool *> table().pool).max_row_f32(...)
 * To add a family: pool.h, pool_table.h, its include and its name below, one line in nnx/_ext/simd.pxd.
 *
 * setup.py compiles kernels.c once for every family and level; nothing that those objects contain is visible outside
 * of them but their table, so that no AVX code can slip into a function shared with another level.
 */
#ifndef NNX_TABLE_H
#define NNX_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "activation_table.h"
#include "conv_pooled_table.h"
#include "conv_table.h"
#include "direct_table.h"
#include "gemm_table.h"
#include "loss_table.h"
#include "neighbors_table.h"
#include "norm_table.h"
#include "optim_table.h"
#include "pool_table.h"
#include "recurrent_table.h"
#include "spread_table.h"
#include "winograd_table.h"

#define NNX_FAMILIES(F) \
    F(activation) \
    F(conv) \
    F(conv_pooled) \
    F(direct) \
    F(gemm) \
    F(loss) \
    F(neighbors) \
    F(norm) \
    F(optim) \
    F(pool) \
    F(recurrent) \
    F(spread) \
    F(winograd)

/* struct nnx_activation { void (*relu_f32)(const float *, ...); ... void (*relu_f64)(const double *, ...); ... }; */
#define NNX_FIELD_F32(result, name, arguments) result(*name##_f32) arguments;
#define NNX_FIELD_F64(result, name, arguments) result(*name##_f64) arguments;
#define NNX_FAMILY_STRUCT(family) \
    struct nnx_##family { \
        NNX_TABLE_##family(NNX_FIELD_F32, float) \
        NNX_TABLE_##family(NNX_FIELD_F64, double) \
    };
NNX_FAMILIES(NNX_FAMILY_STRUCT)

#define NNX_FAMILY_MEMBER(family) const struct nnx_##family *family;
struct nnx_table {
    const char *level;
    NNX_FAMILIES(NNX_FAMILY_MEMBER)
};

/* The built levels from the lowest to the highest, and whether this CPU and system can run one (table.c). */
extern const struct nnx_table nnx_tables[];
extern const int nnx_table_count;
int nnx_cpu_runs(const char *level);

#endif
