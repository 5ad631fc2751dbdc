/* Vectors of the level's width, for the headers of families: included by each of them, once for each type.
 *
 *   NAME(vec), VLEN    a vector of REAL, and its numbers; a single number where the compiler has no vectors
 *   NAME(mask)         integers as wide: what comparisons give
 *   LOAD, STORE        from and to any address of a REAL
 *   NAME(positive)(v)  max(v, 0), NaN stays
 *   NAME(where_positive)(v, p)  v, or 0 where p <= 0
 *   NAME(multiply_add)(a, b, c)  a b + c, rounded once wherever the level can: not where the compiler happens to see it
 *   NAME(first_lanes)(n), NAME(keep)(v, mask)  a mask of the first n numbers; v there, and zeros elsewhere
 *   NAME(load_part)(p, n), NAME(store_part)(p, v, n)  the first n < VLEN numbers, zeros behind them; no others are touched
 *   STREAM(p, v)       to an aligned address, past the caches: saves reading the line that is written. Whole lines of 64
 *                      bytes, one vector right after the other; then STREAMED(), before another thread may read them
 *   INLINE, APART      a function that is always, or never, compiled into its callers
 *   ADVANCE(p, by)     p += by, and the compiler forgets where p comes from: it steps the pointer through an unrolled
 *                      loop instead of keeping an address for each step, of which there are more than registers
 */
#ifndef NNX_VECTOR_H
#define NNX_VECTOR_H

#if defined(__GNUC__) && defined(__AVX__)
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define VLEN LANES
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#define UNROLL(n) _Pragma(NNX_STRING(GCC unroll n))
#define ADVANCE(p, by)           \
    do {                         \
        (p) += (by);             \
        __asm__("" : "+r"(p));   \
    } while (0)
#else
#define VLEN 1
#define INLINE static inline
#define APART static
#define UNROLL(n)
#define ADVANCE(p, by) ((p) += (by))
#endif

#if defined(__GNUC__) && !defined(__clang__)
#define NNX_SHUFFLES 1 /* __builtin_shuffle, which takes positions that are not known before */
#else
#define NNX_SHUFFLES 0
#endif

#if defined(__GNUC__) && defined(__AVX512F__)
#define STREAM(p, v) _mm512_stream_ps((float *)(p), (__m512)(v))
#define STREAMED() _mm_sfence()
#elif defined(__GNUC__) && defined(__AVX__)
#define STREAM(p, v) _mm256_stream_ps((float *)(p), (__m256)(v))
#define STREAMED() _mm_sfence()
#else
#define STREAM(p, v) STORE(p, v)
#define STREAMED() ((void)0)
#endif

#define LOAD(p) (*(const NAME(vec) *)(p))
#define STORE(p, v) (*(NAME(vec) *)(p) = (v))

#endif

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(REAL_IS_FLOAT ? 4 : 8), may_alias));
typedef BITS NAME(mask) __attribute__((vector_size(VECTOR_BYTES)));

INLINE NAME(vec) NAME(positive)(NAME(vec) v)
{
    return (NAME(vec))(~(NAME(mask))(v <= 0) & (NAME(mask))v);
}

INLINE NAME(vec) NAME(where_positive)(NAME(vec) v, NAME(vec) p)
{
    return (NAME(vec))(~(NAME(mask))(p <= 0) & (NAME(mask))v);
}

#if defined(__AVX512F__) && REAL_IS_FLOAT
#define FUSED(a, b, c) (NAME(vec))_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#elif defined(__AVX512F__)
#define FUSED(a, b, c) (NAME(vec))_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c))
#elif defined(__FMA__) && REAL_IS_FLOAT
#define FUSED(a, b, c) (NAME(vec))_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#elif defined(__FMA__)
#define FUSED(a, b, c) (NAME(vec))_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c))
#elif defined(__aarch64__) && REAL_IS_FLOAT
#define FUSED(a, b, c) (NAME(vec))vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b))
#elif defined(__aarch64__)
#define FUSED(a, b, c) (NAME(vec))vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b))
#else
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif

INLINE NAME(vec) NAME(multiply_add)(NAME(vec) a, NAME(vec) b, NAME(vec) c)
{
    return FUSED(a, b, c);
}
#undef FUSED

INLINE NAME(mask) NAME(first_lanes)(ptrdiff_t n)
{
    NAME(mask) where;
    for (int j = 0; j < VLEN; j++)
        where[j] = j < n ? -1 : 0;
    return where;
}

INLINE NAME(vec) NAME(keep)(NAME(vec) v, NAME(mask) where)
{
    return (NAME(vec))((NAME(mask))v & where);
}

/* As masked instructions where there are some: a loop of n steps costs more than a kernel's arithmetic. */
#if defined(__AVX512F__) && REAL_IS_FLOAT
INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    return (NAME(vec))_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif defined(__AVX512F__)
INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    return (NAME(vec))_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
}
#elif defined(__AVX__) && REAL_IS_FLOAT
INLINE __m256i NAME(first)(ptrdiff_t n)
{
    const NAME(mask) number = {0, 1, 2, 3, 4, 5, 6, 7};
    return (__m256i)(number < (BITS)n);
}

INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    return (NAME(vec))_mm256_maskload_ps(p, NAME(first)(n));
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    _mm256_maskstore_ps(p, NAME(first)(n), (__m256)v);
}
#elif defined(__AVX__)
INLINE __m256i NAME(first)(ptrdiff_t n)
{
    const NAME(mask) number = {0, 1, 2, 3};
    return (__m256i)(number < (BITS)n);
}

INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    return (NAME(vec))_mm256_maskload_pd(p, NAME(first)(n));
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    _mm256_maskstore_pd(p, NAME(first)(n), (__m256d)v);
}
#else
INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    REAL lanes[VLEN] = {0};
    for (ptrdiff_t i = 0; i < n; i++)
        lanes[i] = p[i];
    return LOAD(lanes);
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    REAL lanes[VLEN];
    STORE(lanes, v);
    for (ptrdiff_t i = 0; i < n; i++)
        p[i] = lanes[i];
}
#endif
#else
typedef REAL NAME(vec);
typedef int NAME(mask);

INLINE NAME(mask) NAME(first_lanes)(ptrdiff_t n)
{
    return n > 0;
}

INLINE NAME(vec) NAME(keep)(NAME(vec) v, NAME(mask) where)
{
    return where ? v : 0;
}

INLINE NAME(vec) NAME(load_part)(const REAL *p, ptrdiff_t n)
{
    return n > 0 ? *p : 0;
}

INLINE void NAME(store_part)(REAL *p, NAME(vec) v, ptrdiff_t n)
{
    if (n > 0)
        *p = v;
}

INLINE NAME(vec) NAME(positive)(NAME(vec) v)
{
    return v <= 0 ? 0 : v;
}

INLINE NAME(vec) NAME(where_positive)(NAME(vec) v, NAME(vec) p)
{
    return p <= 0 ? 0 : v;
}

INLINE NAME(vec) NAME(multiply_add)(NAME(vec) a, NAME(vec) b, NAME(vec) c)
{
    return a * b + c;
}
#endif
