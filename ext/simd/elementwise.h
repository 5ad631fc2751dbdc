/* Elementwise kernels from one expression each, for the headers of families.
 *
 *   MAP1(name, prologue, value)      out[j] = value, an expression in a = x[j]
 *   MAP2(name, prologue, value)      out[j] = value, an expression in a = x[j] and b = z[j]
 *
 * A prologue unpacks the parameters p. Elements are taken CHUNK at a time; the rest is copied to a full chunk, so that
 * every element goes through the same instructions wherever it lies. The output may be one of the inputs.
 */
#ifndef NNX_ELEMENTWISE_H
#define NNX_ELEMENTWISE_H

#define CHUNK 64

#if defined(_MSC_VER) && !defined(__clang__)
#define NNX_INDEPENDENT __pragma(loop(ivdep))
#elif defined(__clang__)
#define NNX_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define NNX_INDEPENDENT _Pragma("GCC ivdep")
#else
#define NNX_INDEPENDENT
#endif

#define MAP1(name, prologue, value) \
    static void NAME(name)(const REAL *x, REAL *out, ptrdiff_t n, const REAL *p) \
    { \
        REAL rest[CHUNK] = {0}; \
        prologue; \
        for (ptrdiff_t i = 0; i < n; i += CHUNK) { \
            const ptrdiff_t left = n - i; \
            const REAL *from = x + i; \
            REAL *to = out + i; \
            if (left < CHUNK) { \
                memcpy(rest, from, left * sizeof(REAL)); \
                from = to = rest; \
            } \
            NNX_INDEPENDENT \
            for (int j = 0; j < CHUNK; j++) { \
                const REAL a = from[j]; \
                to[j] = value; \
            } \
            if (left < CHUNK) \
                memcpy(out + i, rest, left * sizeof(REAL)); \
        } \
    }

#define MAP2(name, prologue, value) \
    static void NAME(name)(const REAL *x, const REAL *z, REAL *out, ptrdiff_t n, const REAL *p) \
    { \
        REAL rest[CHUNK] = {0}, other[CHUNK] = {0}; \
        prologue; \
        for (ptrdiff_t i = 0; i < n; i += CHUNK) { \
            const ptrdiff_t left = n - i; \
            const REAL *from = x + i, *with = z + i; \
            REAL *to = out + i; \
            if (left < CHUNK) { \
                memcpy(rest, from, left * sizeof(REAL)); \
                memcpy(other, with, left * sizeof(REAL)); \
                from = to = rest; \
                with = other; \
            } \
            NNX_INDEPENDENT \
            for (int j = 0; j < CHUNK; j++) { \
                const REAL a = from[j], b = with[j]; \
                to[j] = value; \
            } \
            if (left < CHUNK) \
                memcpy(out + i, rest, left * sizeof(REAL)); \
        } \
    }

#endif
