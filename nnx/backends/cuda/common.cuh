// What every kernel file begins with. REAL is float or double; a file is compiled once for each.
//
// Integer arguments of kernels are long long and real ones double, which is what CuPy makes of Python's numbers.
// Index arithmetic in int is right only where the host has checked that the numbers are small enough.

#define KERNEL extern "C" __global__ void
#define STANDARD __launch_bounds__(256)  // blocks of 256 threads
#define DEVICE static __device__ __forceinline__

// The loop over n elements of a one-dimensional grid.
#define EACH(i, n)                                                                  \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \
         i += (long long)gridDim.x * blockDim.x)

DEVICE float r_exp(float x) { return expf(x); }
DEVICE double r_exp(double x) { return exp(x); }
DEVICE float r_expm1(float x) { return expm1f(x); }
DEVICE double r_expm1(double x) { return expm1(x); }
DEVICE float r_log(float x) { return logf(x); }
DEVICE double r_log(double x) { return log(x); }
DEVICE float r_log1p(float x) { return log1pf(x); }
DEVICE double r_log1p(double x) { return log1p(x); }
DEVICE float r_sqrt(float x) { return sqrtf(x); }
DEVICE double r_sqrt(double x) { return sqrt(x); }
DEVICE float r_tanh(float x) { return tanhf(x); }
DEVICE double r_tanh(double x) { return tanh(x); }
DEVICE float r_erf(float x) { return erff(x); }
DEVICE double r_erf(double x) { return erf(x); }
DEVICE float r_erfc(float x) { return erfcf(x); }
DEVICE double r_erfc(double x) { return erfc(x); }
DEVICE float r_pow(float x, float y) { return powf(x, y); }
DEVICE double r_pow(double x, double y) { return pow(x, y); }
DEVICE float r_abs(float x) { return fabsf(x); }
DEVICE double r_abs(double x) { return fabs(x); }

// As in NumPy's maximum and minimum, NaN wins.
DEVICE REAL r_max(REAL a, REAL b) { return a >= b || a != a ? a : b; }
DEVICE REAL r_min(REAL a, REAL b) { return a <= b || a != a ? a : b; }

// A number as REAL, so that no arithmetic of float kernels is done in double: R(0.5) * x.
#define R(number) ((REAL)(number))

// V numbers that move in one instruction. WIDTH of them are 16 bytes, which is as much as a thread moves at once.
#define WIDTH (16 / (int)sizeof(REAL))

template <int V, typename T = REAL>
struct alignas(V * sizeof(T)) Pack {
    T v[V];
};

template <int V, typename T>
DEVICE Pack<V, T> load(const T* p) {
    return *(const Pack<V, T>*)p;
}

template <int V, typename T>
DEVICE void store(T* p, const Pack<V, T>& value) {
    *(Pack<V, T>*)p = value;
}

// Whether packs may be read and written here.
DEVICE bool aligned(const void* p) { return (unsigned long long)p % 16 == 0; }
