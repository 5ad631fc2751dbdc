// What a kernel file needs to be compiled as C++ and run on the CPU; put in front of its text.
//
// A block's threads run one after the other on one OS thread. A thread that reaches a barrier is parked with its stack
// until all have reached it; a kernel without a barrier is a plain loop. Shared memory is a section of the library
// that is filled with NaN before every block.

#include <math.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include <csetjmp>
#include <sys/mman.h>
#include <ucontext.h>

#include <tuple>
#include <utility>

#undef INFINITY  // NVRTC has no headers, and so none of these
#undef NAN
#undef M_PI

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("nnx_shared")))
#define __restrict__ __restrict
#define __align__(n) alignas(n)

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
uint3 threadIdx, blockIdx;  // not static, so that they are read again after a barrier
dim3 blockDim, gridDim;
static const int warpSize __attribute__((unused)) = 32;

#define NNX_VECTOR(T, base)                                                            \
    struct alignas(2 * sizeof(base)) T##2 { base x, y; };                              \
    struct T##3 { base x, y, z; };                                                     \
    struct alignas(4 * sizeof(base) > 16 ? 16 : 4 * sizeof(base)) T##4 { base x, y, z, w; }; \
    static inline T##2 make_##T##2(base x, base y) { return {x, y}; }                  \
    static inline T##3 make_##T##3(base x, base y, base z) { return {x, y, z}; }       \
    static inline T##4 make_##T##4(base x, base y, base z, base w) { return {x, y, z, w}; }
NNX_VECTOR(float, float)
NNX_VECTOR(double, double)
NNX_VECTOR(int, int)

// CUDA's functions at global scope, for every pair of types that it has them for.
#define NNX_MIN_MAX(T)                                             \
    static inline T min(T a, T b) { return b < a ? b : a; }        \
    static inline T max(T a, T b) { return a < b ? b : a; }
NNX_MIN_MAX(int)
NNX_MIN_MAX(unsigned)
NNX_MIN_MAX(long)
NNX_MIN_MAX(unsigned long)
NNX_MIN_MAX(long long)
NNX_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __int_as_float(int i) { float x; memcpy(&x, &i, sizeof x); return x; }
static inline int __float_as_int(float x) { int i; memcpy(&i, &x, sizeof i); return i; }
static inline float __uint_as_float(unsigned i) { float x; memcpy(&x, &i, sizeof x); return x; }
static inline unsigned __float_as_uint(float x) { unsigned i; memcpy(&i, &x, sizeof i); return i; }
static inline double __longlong_as_double(long long i) { double x; memcpy(&x, &i, sizeof x); return x; }
static inline long long __double_as_longlong(double x) { long long i; memcpy(&i, &x, sizeof i); return i; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> static inline T __ldg(const T* p) { return *p; }
#define __expf expf  // glibc has functions of these names
#define __logf logf
#define __fmaf_rn fmaf
#define __fma_rn fma

// -- blocks and threads ---------------------------------------------------------------------------

namespace nnx {

constexpr size_t STACK = 256 * 1024;  // of a thread; only what is touched takes memory
constexpr int MOST = 1024;

struct Fiber {
    jmp_buf here;
    ucontext_t start;
    unsigned thread;
    int line;  // of the barrier it waits at
};

static Fiber fibers[MOST + 1];
static char* stacks = nullptr;
static jmp_buf scheduler;
static int current;                // fiber
static unsigned next, threads;     // thread to start next, in the order of the run
static unsigned finished;
static bool descending;
static void (*body)(void**);
static void** arguments;
static char message[256];

static void set_thread(unsigned t) {
    threadIdx.x = t % blockDim.x;
    threadIdx.y = t / blockDim.x % blockDim.y;
    threadIdx.z = t / (blockDim.x * blockDim.y);
}

// A fiber runs threads until one waits; that one then owns the fiber's stack.
static void run_threads() {
    for (;;) {
        while (next < threads) {
            const unsigned t = descending ? threads - 1 - next : next;
            next++;
            fibers[current].thread = t;
            set_thread(t);
            body(arguments);
            finished++;
            if (fibers[current].line) _longjmp(scheduler, 1);  // it had waited: others take turns
        }
        _longjmp(scheduler, 1);
    }
}

static __attribute__((noinline)) void barrier(int line) {
    Fiber& fiber = fibers[current];
    fiber.line = line;
    if (_setjmp(fiber.here) == 0) _longjmp(scheduler, 2);
}

static __attribute__((noinline)) void resume(int i, bool fresh) {
    current = i;
    Fiber& fiber = fibers[i];
    if (!fresh) {
        set_thread(fiber.thread);
        _longjmp(fiber.here, 1);
    }
    fiber.line = 0;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks + (size_t)i * STACK;
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_threads, 0);
    setcontext(&fiber.start);
}

// 1: a thread ended, or all did; 2: a thread waits; 3: something undefined.
static __attribute__((noinline)) int switch_to(int i, bool fresh) {
    const int why = _setjmp(scheduler);
    if (why == 0) resume(i, fresh);
    return why;
}

// -fsanitize=undefined calls these; its own library is not used.
struct Location {
    const char* file;
    unsigned line, column;
};
static void undefined(const Location* where, const char* what) {
    snprintf(message, sizeof message, "%s, in line %u", what, where->line);
    _longjmp(scheduler, 3);  // not back to what cannot go on
}
#define NNX_UNDEFINED(name, what)                                        \
    extern "C" __attribute__((used)) void __ubsan_handle_##name(Location* where, ...) { undefined(where, what); }
NNX_UNDEFINED(out_of_bounds, "an index outside of an array")
NNX_UNDEFINED(shift_out_of_bounds, "a shift by too many bits")
NNX_UNDEFINED(add_overflow, "an integer that overflows")
NNX_UNDEFINED(sub_overflow, "an integer that overflows")
NNX_UNDEFINED(mul_overflow, "an integer that overflows")
NNX_UNDEFINED(negate_overflow, "an integer that overflows")
NNX_UNDEFINED(divrem_overflow, "an integer that overflows or is divided by 0")
NNX_UNDEFINED(type_mismatch_v1, "an address that is null or not aligned")

static bool run_block() {
    int waiting = 0;
    next = finished = 0;
    while (next < threads) {
        const int why = switch_to(waiting, true);
        if (why == 3) return false;
        if (why == 2) waiting++;
    }
    while (waiting) {
        if (finished) {
            snprintf(message, sizeof message, "%u of %u threads ended while others wait at __syncthreads() in line %d",
                     finished, threads, fibers[0].line);
            return false;
        }
        for (int i = 1; i < waiting; i++)
            if (fibers[i].line != fibers[0].line) {
                snprintf(message, sizeof message, "threads wait at different __syncthreads(), in lines %d and %d",
                         fibers[0].line, fibers[i].line);
                return false;
            }
        int still = 0;
        for (int i = 0; i < waiting; i++) {
            const int why = switch_to(i, false);
            if (why == 3) return false;
            if (why == 2) still++;
        }
        if (still && finished) continue;  // the error above
        waiting = still;
    }
    return true;
}

extern "C" char __start_nnx_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_nnx_shared[] __attribute__((visibility("hidden")));
static char any_shared __attribute__((section("nnx_shared"), used));

static const char* launch(void (*kernel)(void**), const unsigned* size, int backwards, void** args) {
    if (!stacks) {
        void* room = mmap(nullptr, (MOST + 1) * STACK, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return "no memory for the stacks of threads";
        stacks = (char*)room;
    }
    gridDim = {size[0], size[1], size[2]};
    blockDim = {size[3], size[4], size[5]};
    threads = size[3] * size[4] * size[5];
    body = kernel;
    arguments = args;
    descending = backwards;
    const unsigned long long blocks = (unsigned long long)size[0] * size[1] * size[2];
    for (unsigned long long k = 0; k < blocks; k++) {
        const unsigned long long b = backwards ? blocks - 1 - k : k;
        blockIdx.x = (unsigned)(b % gridDim.x);
        blockIdx.y = (unsigned)(b / gridDim.x % gridDim.y);
        blockIdx.z = (unsigned)(b / ((unsigned long long)gridDim.x * gridDim.y));
        memset(__start_nnx_shared, 0xFF, (size_t)(__stop_nnx_shared - __start_nnx_shared));
        if (!run_block()) return message;
    }
    return nullptr;
}

// -- signatures -----------------------------------------------------------------------------------

template <class T> struct Code { static constexpr char code = 's'; };  // a struct
#define NNX_CODE(T, c) template <> struct Code<T> { static constexpr char code = c; };
NNX_CODE(float, 'f')
NNX_CODE(double, 'd')
NNX_CODE(long long, 'q')
NNX_CODE(unsigned long long, 'Q')
NNX_CODE(int, 'i')
NNX_CODE(unsigned, 'I')
NNX_CODE(short, 'h')
NNX_CODE(unsigned short, 'H')
NNX_CODE(signed char, 'b')
NNX_CODE(unsigned char, 'B')
NNX_CODE(bool, '?')

// "Pf" is a pointer to float, "Cf" one to const float, "Vq" a value
template <class T> struct Argument { static constexpr char kind = 'V', code = Code<T>::code; };
template <class T> struct Argument<T*> { static constexpr char kind = 'P', code = Code<T>::code; };
template <class T> struct Argument<const T*> { static constexpr char kind = 'C', code = Code<T>::code; };

template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> {
    static constexpr char signature[] = {Argument<A>::kind..., Argument<A>::code..., 0};
    static constexpr int sizes[] = {(int)sizeof(A)..., 0};
    template <size_t... i> static void apply(void** args, std::index_sequence<i...>) {
        kernel(*static_cast<std::remove_const_t<A>*>(args[i])...);
    }
    static void call(void** args) { apply(args, std::index_sequence_for<A...>{}); }
};

}  // namespace nnx

#define NNX_ENTRY(name)                                                                                       \
    extern "C" __attribute__((visibility("default"))) const char* nnx_signature_##name() {                   \
        return nnx::Entry<name>::signature;                                                                   \
    }                                                                                                         \
    extern "C" __attribute__((visibility("default"))) const int* nnx_sizes_##name() {                        \
        return nnx::Entry<name>::sizes;                                                                       \
    }                                                                                                         \
    extern "C" __attribute__((visibility("default"))) const char* nnx_launch_##name(                         \
        const unsigned* size, int backwards, void** args) {                                                   \
        return nnx::launch(nnx::Entry<name>::call, size, backwards, args);                                    \
    }

#define __syncthreads() nnx::barrier(__LINE__)
#line 1 "kernels.cu"
