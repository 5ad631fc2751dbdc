/* Ask for lines of memory before they are read: for runs that lie far apart, such as a row of each of many filters. The
 * processor guesses what comes next only within a page; here the next run is known. Any address may be asked for. */
#ifndef NNX_PREFETCH_H
#define NNX_PREFETCH_H

#include <stddef.h>

static inline void nnx_prefetch(const void *from, ptrdiff_t bytes)
{
#if defined(__GNUC__)
    for (ptrdiff_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)from + at);
#else
    (void)from, (void)bytes;
#endif
}

#endif
