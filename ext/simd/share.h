/* How threads share out a loop: each has a part of it that lies together, and helps the others when its own is done.
 *
 * The same thread then works on the same images in one operation after the other, and finds them in its own caches. Where
 * two threads do not share a cache, on processors of several chips or in virtual machines, that is worth more than an
 * even load: ResNet-20's step takes 66 ms instead of 83 (benchmarks/NOTES.md).
 *
 *     struct nnx_shares shares;
 *     nnx_share_out(&shares, n, threads);
 *     in each thread t < threads:  while ((i = nnx_next(&shares, t)) >= 0) ...
 */
#ifndef NNX_SHARE_H
#define NNX_SHARE_H

#include <stddef.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

#define NNX_MOST_SHARES 64 /* with more threads, several have one share */

struct nnx_share {
    volatile long long next;
    long long end;
    char apart[48]; /* a cache line for each: threads do not wait for each other's */
};

struct nnx_shares {
    struct nnx_share part[NNX_MOST_SHARES];
    int count;
};

static inline void nnx_share_out(struct nnx_shares *s, ptrdiff_t n, int threads)
{
    s->count = threads < 1 ? 1 : threads < NNX_MOST_SHARES ? threads : NNX_MOST_SHARES;
    for (int t = 0; t < s->count; t++) {
        /* n * t / count, which could overflow */
        const ptrdiff_t whole = n / s->count, rest = n % s->count;
        s->part[t].next = whole * t + (t < rest ? t : rest);
        s->part[t].end = s->part[t].next + whole + (t < rest);
    }
}

/* The next number for this thread, or -1 if there is none left. */
static inline ptrdiff_t nnx_next(struct nnx_shares *s, int thread)
{
    for (int k = 0; k < s->count; k++) {
        struct nnx_share *share = &s->part[(thread + k) % s->count];
        if (share->next >= share->end)
            continue;
#if defined(_MSC_VER) && !defined(__clang__)
        const long long i = _InterlockedExchangeAdd64(&share->next, 1);
#else
        const long long i = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED);
#endif
        if (i < share->end)
            return (ptrdiff_t)i;
    }
    return -1;
}

#endif
