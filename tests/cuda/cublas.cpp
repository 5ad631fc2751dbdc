// The part of cuBLAS that nnx calls, for the stand-in: the same names and arguments, checks of what cuBLAS refuses,
// and plain loops. Products are handed to a hook, which decides when they are computed: a capturing stream only
// records them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { SINGLE = 0, DOUBLE = 1, SINGLE_COMPUTE = 68, DOUBLE_COMPUTE = 70, BFLOAT16_COMPUTE = 75, TF32_COMPUTE = 77 };

struct Handle {
    int magic;
    const void *stream, *workspace;
};

struct Product {
    int64_t transposed[2], m, n, k, step[3], stride[3], count, kind, compute;
    const void *a, *b;
    void* c;
    double alpha, beta;
    const void* stream;
    int64_t has_workspace;
};

static int (*hook)(const Product*) = nullptr;

static float rounded(float x, int compute)  // to the nearest number of 11 or 8 bits, ties to even
{
    const int cut = compute == TF32_COMPUTE ? 13 : compute == BFLOAT16_COMPUTE ? 16 : 0;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (cut && std::isfinite(x)) {
        bits += (1u << (cut - 1)) - 1 + (bits >> cut & 1);
        bits &= ~((1u << cut) - 1);
        memcpy(&x, &bits, sizeof bits);
    }
    return x;
}

static double rounded(double x, int) { return x; }

template <class T> static void run(const Product& p)
{
    std::vector<T> a(p.m * p.k), column(p.m);
    for (int64_t i = 0; i < p.count; i++) {
        const T* A = (const T*)p.a + i * p.stride[0];
        const T* B = (const T*)p.b + i * p.stride[1];
        T* C = (T*)p.c + i * p.stride[2];
        for (int64_t l = 0; l < p.k; l++)
            for (int64_t r = 0; r < p.m; r++)
                a[l * p.m + r] = rounded(p.transposed[0] ? A[l + r * p.step[0]] : A[r + l * p.step[0]], (int)p.compute);
        for (int64_t j = 0; j < p.n; j++) {
            std::fill(column.begin(), column.end(), (T)0);
            for (int64_t l = 0; l < p.k; l++) {
                const T b = rounded(p.transposed[1] ? B[j + l * p.step[1]] : B[l + j * p.step[1]], (int)p.compute);
                for (int64_t r = 0; r < p.m; r++)
                    column[r] += a[l * p.m + r] * b;
            }
            for (int64_t r = 0; r < p.m; r++) {
                T& c = C[r + j * p.step[2]];
                c = (T)p.alpha * column[r] + (p.beta == 0 ? (T)0 : (T)p.beta * c);
            }
        }
    }
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void nnx_set_hook(int (*function)(const Product*)) { hook = function; }

EXPORT void nnx_run(const Product* p) { p->kind == SINGLE ? run<float>(*p) : run<double>(*p); }

EXPORT int cublasCreate_v2(Handle** handle)
{
    *handle = new Handle{0xB1A5, nullptr, nullptr};
    return SUCCESS;
}

EXPORT int cublasSetStream_v2(Handle* handle, const void* stream)
{
    handle->stream = stream;
    handle->workspace = nullptr;  // cuBLAS goes back to its own
    return SUCCESS;
}

EXPORT int cublasSetWorkspace_v2(Handle* handle, const void* workspace, size_t)
{
    handle->workspace = workspace;
    return (uintptr_t)workspace % 256 ? INVALID_VALUE : SUCCESS;
}

EXPORT int cublasGemmStridedBatchedEx_64(Handle* handle, int transa, int transb, int64_t m, int64_t n, int64_t k,
                                         const void* alpha, const void* A, int a_kind, int64_t lda, long long a_stride,
                                         const void* B, int b_kind, int64_t ldb, long long b_stride, const void* beta,
                                         void* C, int c_kind, int64_t ldc, long long c_stride, int64_t count,
                                         int compute, int algorithm)
{
    if (!handle || handle->magic != 0xB1A5)
        return NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || count < 0 || (transa | transb) & ~1)
        return INVALID_VALUE;
    if (lda < (transa ? k : m) || ldb < (transb ? n : k) || ldc < m || lda < 1 || ldb < 1 || ldc < 1)
        return INVALID_VALUE;
    const bool of_single = compute == SINGLE_COMPUTE || compute == TF32_COMPUTE || compute == BFLOAT16_COMPUTE;
    const bool single = a_kind == SINGLE && of_single, twice = a_kind == DOUBLE && compute == DOUBLE_COMPUTE;
    if (a_kind != b_kind || a_kind != c_kind || algorithm != -1 || !(single || twice))
        return NOT_SUPPORTED;
    Product p = {{transa, transb}, m, n, k, {lda, ldb, ldc}, {a_stride, b_stride, c_stride}, count, a_kind, compute,
                 A, B, C, 0, 0, handle->stream, handle->workspace != nullptr};
    p.alpha = single ? *(const float*)alpha : *(const double*)alpha;
    p.beta = single ? *(const float*)beta : *(const double*)beta;
    return hook(&p);
}

EXPORT int cublasGemmEx_64(Handle* handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void* alpha,
                           const void* A, int a_kind, int64_t lda, const void* B, int b_kind, int64_t ldb,
                           const void* beta, void* C, int c_kind, int64_t ldc, int compute, int algorithm)
{
    return cublasGemmStridedBatchedEx_64(handle, transa, transb, m, n, k, alpha, A, a_kind, lda, 0, B, b_kind, ldb, 0,
                                         beta, C, c_kind, ldc, 0, 1, compute, algorithm);
}
