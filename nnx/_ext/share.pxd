# How threads share out a loop: see ext/simd/share.h.
#
#     share_out(&shares, n, num_threads)
#     for t in prange(num_threads, num_threads=num_threads, schedule="static", chunksize=1):
#         i = next_of(&shares, t)
#         while i >= 0:
#             ...
#             i = next_of(&shares, t)

cdef extern from "share.h" nogil:
    ctypedef struct Shares "struct nnx_shares":
        pass

    void share_out "nnx_share_out"(Shares *shares, Py_ssize_t n, int threads)
    Py_ssize_t next_of "nnx_next"(Shares *shares, int thread)
