/* Vectors of the level's width, for the headers of families: included by each of them, once for each type.
 *
 *   NAME(vec), VLEN    a vector of REAL, and its numbers; a single number where the compiler has no vectors
 *   NAME(mask)         integers as wide: what comparisons give
 *   LOAD, STORE        from and to any address of a REAL
 *   NAME(positive)(v)  max(v, 0), NaN stays
 *   ADVANCE(p, by)     p += by, and the compiler forgets where p comes from: it steps the pointer through an unrolled
 *                      loop instead of keeping an address for each step, of which there are more than registers
 */
#ifndef NNX_VECTOR_H
#define NNX_VECTOR_H

#if defined(__GNUC__)
#define VLEN LANES
#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) _Pragma(NNX_STRING(GCC unroll n))
#define ADVANCE(p, by)           \
    do {                         \
        (p) += (by);             \
        __asm__("" : "+r"(p));   \
    } while (0)
#else
#define VLEN 1
#define INLINE static inline
#define UNROLL(n)
#define ADVANCE(p, by) ((p) += (by))
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
#else
typedef REAL NAME(vec);

INLINE NAME(vec) NAME(positive)(NAME(vec) v)
{
    return v <= 0 ? 0 : v;
}
#endif
