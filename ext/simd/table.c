/* The list of built levels, and what this CPU and operating system can run. Compiled with the baseline's flags.
 *
 * NNX_LEVELS(L) is defined by setup.py, from the lowest level to the highest: -DNNX_LEVELS(L)=L(base)L(v2)L(v3)
 */
#include "table.h"

#include <string.h>

#define NNX_DECLARE_AT(family, level) extern const struct nnx_##family nnx_##family##_##level;
#define NNX_POINT_AT(family, level) &nnx_##family##_##level,

#define NNX_DECLARE_base(family) NNX_DECLARE_AT(family, base)
#define NNX_DECLARE_v2(family) NNX_DECLARE_AT(family, v2)
#define NNX_DECLARE_v3(family) NNX_DECLARE_AT(family, v3)
#define NNX_DECLARE_v4(family) NNX_DECLARE_AT(family, v4)
#define NNX_DECLARE(level) NNX_FAMILIES(NNX_DECLARE_##level)
NNX_LEVELS(NNX_DECLARE)

#define NNX_POINT_base(family) NNX_POINT_AT(family, base)
#define NNX_POINT_v2(family) NNX_POINT_AT(family, v2)
#define NNX_POINT_v3(family) NNX_POINT_AT(family, v3)
#define NNX_POINT_v4(family) NNX_POINT_AT(family, v4)
#define NNX_TABLE_OF(level) {#level, NNX_FAMILIES(NNX_POINT_##level)},
const struct nnx_table nnx_tables[] = {NNX_LEVELS(NNX_TABLE_OF)};

const int nnx_table_count = sizeof(nnx_tables) / sizeof(nnx_tables[0]);

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

/* The compiler's run-time library asks both the CPU and (through XGETBV) the system, which must save the registers. */
int nnx_cpu_runs(const char *level)
{
    __builtin_cpu_init();
    if (!strcmp(level, "base"))
        return 1;
    int v2 = __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
             __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    if (!strcmp(level, "v2"))
        return v2;
    int v3 = v2 && __builtin_cpu_supports("avx") && __builtin_cpu_supports("avx2") &&
             __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
             __builtin_cpu_supports("fma");
#ifdef NNX_CPU_SUPPORTS_LEVELS
    v3 = v3 && __builtin_cpu_supports("x86-64-v3");
#endif
    if (!strcmp(level, "v3"))
        return v3;
    int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    return !strcmp(level, "v4") && v4;
}

#elif defined(_M_X64)

#include <windows.h>

int nnx_cpu_runs(const char *level)
{
    if (!strcmp(level, "base"))
        return 1;
    return !strcmp(level, "v3") && IsProcessorFeaturePresent(40 /* PF_AVX2_INSTRUCTIONS_AVAILABLE */);
}

#else

int nnx_cpu_runs(const char *level)
{
    return !strcmp(level, "base");
}

#endif
