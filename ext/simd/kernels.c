/* One family of kernels at one instruction-set level, for float and double.
 *
 * Compiled with -DNNX_FAMILY=activation -DNNX_LEVEL=v3 -march=x86-64-v3 (and so on for every pair); the result is the
 * constant nnx_activation_v3. A family's header finds these names:
 *   REAL          float or double
 *   NAME(x)       x_f32 or x_f64
 *   BITS          the signed integer as wide as REAL
 *   REAL_IS_FLOAT 1 or 0, for #if
 *   VECTOR_BYTES  width of the level's vector registers: 64, 32 or 16
 *   LANES         VECTOR_BYTES / sizeof(REAL), as a constant for the preprocessor
 *   RESTRICT      C's restrict
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "table.h"

#define NNX_JOIN(a, b) NNX_JOIN_(a, b)
#define NNX_JOIN_(a, b) a##b
#define NNX_STRING(x) NNX_STRING_(x)
#define NNX_STRING_(x) #x
#define NNX_HEADER NNX_STRING(NNX_FAMILY.h)

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define RESTRICT __restrict
#else
#define RESTRICT restrict
#endif

#define REAL float
#define BITS int32_t
#define REAL_IS_FLOAT 1
#define LANES (VECTOR_BYTES / 4)
#define NAME(x) NNX_JOIN(x, _f32)
#include NNX_HEADER
#undef REAL
#undef BITS
#undef REAL_IS_FLOAT
#undef LANES
#undef NAME

#define REAL double
#define BITS int64_t
#define REAL_IS_FLOAT 0
#define LANES (VECTOR_BYTES / 8)
#define NAME(x) NNX_JOIN(x, _f64)
#include NNX_HEADER

#define NNX_ENTRY_F32(result, name, arguments) name##_f32,
#define NNX_ENTRY_F64(result, name, arguments) name##_f64,
#define NNX_FAMILY_STRUCT_NAME NNX_JOIN(nnx_, NNX_FAMILY)
#define NNX_FAMILY_TABLE NNX_JOIN(NNX_TABLE_, NNX_FAMILY)

extern const struct NNX_FAMILY_STRUCT_NAME NNX_JOIN(NNX_JOIN(NNX_FAMILY_STRUCT_NAME, _), NNX_LEVEL);
const struct NNX_FAMILY_STRUCT_NAME NNX_JOIN(NNX_JOIN(NNX_FAMILY_STRUCT_NAME, _), NNX_LEVEL) = {
    NNX_FAMILY_TABLE(NNX_ENTRY_F32, float)
    NNX_FAMILY_TABLE(NNX_ENTRY_F64, double)
};
