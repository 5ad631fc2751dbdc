"""The emulator finds mistakes that are planted here: it runs the kernels of all other tests."""

from __future__ import annotations

import ctypes
import multiprocessing

import numpy as np
import pytest

emulator = pytest.importorskip("emulator")  # in the folder that conftest.py puts on the path

if emulator.compiler() is None:
    pytest.skip("needs a C++ compiler on Linux: no kernel was run", allow_module_level=True)

# What stands in common.cuh, so that these tests need none of nnx.
HEAD = """
#define KERNEL extern "C" __global__ void
#define STANDARD __launch_bounds__(256)
#define EACH(i, n) for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \\
    i += (long long)gridDim.x * blockDim.x)
"""

BLOCK_SUM = """
static __device__ __forceinline__ void tree(REAL* s, int t) {
    for (int k = 128; k > 0; k /= 2) {
        if (t < k) s[t] += s[t + k];
        BARRIER
    }
}
KERNEL STANDARD block_sum(const REAL* __restrict__ x, REAL* __restrict__ sums, long long n) {
    __shared__ REAL s[256];
    const int t = threadIdx.x;
    REAL sum = 0;
    EACH(i, n) sum += x[i];
    s[t] = sum;
    __syncthreads();
    tree(s, t);
    if (t == 0) sums[blockIdx.x] = s[0];
}
"""


def kernel(cuda, text, name=None, real="float"):
    """A function of grid, block and arguments."""
    code = HEAD + text
    if name is None:
        name = code.split("KERNEL")[-1].split("(", 1)[0].split()[-1]
    return cuda.RawModule(code=code, options=("-std=c++17", f"-DREAL={real}")).get_function(name)


def floats(cuda, rng, *shape):
    return cuda.asarray(rng.standard_normal(shape).astype(np.float32))


def refused(text):
    return pytest.raises(emulator.KernelError, match=text)


# -- kernels that are right --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, real", [(np.float32, "float"), (np.float64, "double")])
def test_sums_of_blocks(cuda, rng, dtype, real):
    x = cuda.asarray(rng.standard_normal(1000).astype(dtype))
    sums = cuda.empty(3, dtype)
    kernel(cuda, BLOCK_SUM.replace("BARRIER", "__syncthreads();"), real=real)((3,), (256,), (x, sums, 1000))
    np.testing.assert_allclose(sums.sum().get(), x.get().sum(), rtol=1e-4 if dtype == np.float32 else 1e-12)


def test_three_dimensions(cuda):
    text = """KERNEL where(int* y) {
        const int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        y[b * blockDim.x * blockDim.y * blockDim.z + t] = 1000 * b + t;
    }"""
    y = cuda.empty((24, 30), np.int32)
    kernel(cuda, text)((2, 3, 4), (5, 3, 2), (y,))
    np.testing.assert_array_equal(y.get(), 1000 * np.arange(24)[:, None] + np.arange(30))


def test_arguments_of_all_kinds(cuda):
    text = """struct Pair { double first[2]; long long second; };
    KERNEL all(float* y, const int* __restrict__ i, const unsigned char* u, long long n, double a, Pair p, int* none) {
        y[0] = (float)(i[0] + u[0] + n + a + p.first[1] + p.second + (none ? 100 : 0));
    }"""
    y, i, u = cuda.empty(1, np.float32), cuda.full(1, 2, np.int32), cuda.ones(1, np.bool_)
    pair = np.array(([0, 0.5], 32), [("first", np.float64, (2,)), ("second", np.int64)])
    kernel(cuda, text)((1,), (1,), (y, i, u, 4, 0.25, pair, None))
    assert y.item() == 39.75
    with refused("argument 5: expected a NumPy array of 0 dimensions with the 24 bytes of a struct"):
        kernel(cuda, text)((1,), (1,), (y, i, u, 4, 0.25, pair["first"], None))


def test_threads_that_wait_many_times(cuda):
    text = """KERNEL turns(int* y) {
        __shared__ int s[2][96];
        s[0][threadIdx.x] = threadIdx.x;
        __syncthreads();
        for (int k = 0; k < 96; k++) {
            s[(k + 1) & 1][threadIdx.x] = s[k & 1][(threadIdx.x + 1) % 96];
            __syncthreads();
        }
        y[threadIdx.x] = s[0][threadIdx.x];
    }"""
    y = cuda.empty(96, np.int32)
    kernel(cuda, text)((1,), (96,), (y,))
    np.testing.assert_array_equal(y.get(), np.arange(96))


# -- planted mistakes --------------------------------------------------------------------------------


def test_a_missing_barrier(cuda, rng):
    x, sums = floats(cuda, rng, 1000), cuda.empty(3, np.float32)
    with refused("block_sum: other bits when .* descending order"):
        kernel(cuda, BLOCK_SUM.replace("BARRIER", ""))((3,), (256,), (x, sums, 1000))


def test_a_barrier_that_some_threads_skip(cuda):
    y = cuda.zeros(64, np.float32)
    text = "KERNEL some(float* y) {\n if (threadIdx.x < 40) __syncthreads();\n y[threadIdx.x] = 1; }"
    with refused(r"some: 24 of 64 threads ended while others wait at __syncthreads\(\) in line \d+"):
        kernel(cuda, text)((1,), (64,), (y,))


def test_two_barriers_for_one(cuda):
    y = cuda.zeros(64, np.float32)
    text = "KERNEL two(float* y) {\nif (threadIdx.x < 40) __syncthreads();\nelse __syncthreads();\ny[0] = 1; }"
    with refused(r"two: threads wait at different __syncthreads\(\), in lines \d+ and \d+"):
        kernel(cuda, text)((1,), (64,), (y,))


def test_shared_memory_that_nobody_wrote(cuda):
    text = """KERNEL unset(float* y) {
        __shared__ float s[4];
        if (blockIdx.x == 0) s[threadIdx.x] = 1;
        __syncthreads();
        y[blockIdx.x * 4 + threadIdx.x] = s[threadIdx.x];
    }"""
    y = cuda.zeros(8, np.float32)
    kernel(cuda, text)((2,), (4,), (y,))
    np.testing.assert_array_equal(y.get(), [1, 1, 1, 1, *[np.nan] * 4])


@pytest.mark.parametrize(
    "body, text",
    [
        ("__shared__ float s[64]; s[(n + threadIdx.x) & 127] = 1; y[0] = s[0];", "an index outside of an array"),
        ("float a[4]; for (int i = 0; i < n; i++) a[i & 3] = 0; y[0] = a[n];", "an index outside of an array"),
        ("y[0] = (float)(1 << n);", "a shift by too many bits"),
        ("int i = (int)n; i *= 1 << 30; y[0] = (float)i;", "an integer that overflows"),
        ("y[0] = (float)(7 / (n - 32));", "an integer that overflows or is divided by 0"),
        ("y[0] = ((float4*)(y + n + 1))->x;", "an address that is null or not aligned"),
    ],
)
def test_undefined_behaviour(cuda, body, text):
    y = cuda.zeros(64, np.float32)
    with refused(f"wrong: {text}, in line"):
        kernel(cuda, f"KERNEL wrong(float* y, long long n) {{ {body} }}")((1,), (64,), (y, 32))


def test_a_block_that_needs_another_one(cuda):
    y = cuda.zeros(10, np.float32)
    with refused("chain: other bits"):
        kernel(cuda, "KERNEL chain(float* y) { y[blockIdx.x + 1] = y[blockIdx.x] + 1; }")((9,), (1,), (y,))


def test_threads_that_write_one_place(cuda):
    y = cuda.zeros(1, np.float32)
    with refused("race: other bits"):
        kernel(cuda, "KERNEL race(float* y) { y[0] = (float)threadIdx.x; }")((1,), (2,), (y,))


@pytest.mark.parametrize("start, n", [(0, 101), (-1, 1)])
def test_a_write_outside_of_an_array(cuda, start, n):
    y = cuda.zeros(100, np.float32)
    text = "KERNEL beyond(float* y, long long start, long long n) { EACH(i, n) y[start + i] = 1; }"
    kernel(cuda, text)((1,), (32,), (y, 0, 100))
    with refused("beyond: wrote outside of an array of 400 bytes"):
        kernel(cuda, text)((1,), (32,), (y, start, n))


def test_a_read_outside_of_an_array_gives_nan(cuda):
    x, y = cuda.zeros(3, np.float32), cuda.zeros(4, np.float32)
    kernel(cuda, "KERNEL copy(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }")((1,), (4,), (x, y))
    np.testing.assert_array_equal(y.get(), [0, 0, 0, np.nan])


# -- launches that CUDA or the signature refuses -----------------------------------------------------

SCALE = "KERNEL STANDARD scale(const REAL* x, REAL* y, long long n, double a) { EACH(i, n) y[i] = (REAL)a * x[i]; }"


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda x, y: (x, y, 8), "expected 4 arguments, got 3"),
        (lambda x, y: (x, y, 8, 2.0, 1), "expected 4 arguments, got 5"),
        (lambda x, y: (x, y, 8.0, 2.0), "argument 2: expected int64, got float64"),
        (lambda x, y: (x, y, np.int32(8), 2.0), "argument 2: expected int64, got int32"),
        (lambda x, y: (x, y, 8, 2), "argument 3: expected float64, got int64"),
        (lambda x, y: (x, y, 8, np.float32(2)), "argument 3: expected float64, got float32"),
        (lambda x, y: (x, y, True, 2.0), "argument 2: expected a number, got bool"),
        (lambda x, y: (x, y.sum(), y.sum(), 2.0), "argument 2: expected a number, got ndarray"),
        (lambda x, y: (x, y.astype(np.float64), 8, 2.0), "argument 1: expected a pointer to float32, got .* float64"),
        (lambda x, y: (x.get(), y, 8, 2.0), "argument 0: expected a device array, got ndarray"),
        (lambda x, y: (x, y, 2**63, 2.0), "argument 2: 9223372036854775808 does not fit"),
    ],
)
def test_wrong_arguments(cuda, change, text):
    x, y = cuda.zeros(8, np.float32), cuda.zeros(8, np.float32)
    scale = kernel(cuda, SCALE)
    scale((1,), (256,), (x, y, np.int64(8), np.float64(2)))
    with refused(f"scale: {text}"):
        scale((1,), (256,), change(x, y))


@pytest.mark.parametrize(
    "grid, block, text",
    [
        ((0,), (256,), "expected a grid of one to three numbers in .*, got"),
        ((1, 65536), (256,), "expected a grid"),
        ((1,), (1, 1, 65), "expected a block"),
        ((1,), (1.0,), "expected a block"),
        ((1,), (257,), "expected at most 256 threads in a block"),
    ],
)
def test_wrong_sizes(cuda, grid, block, text):
    x = cuda.zeros(8, np.float32)
    with refused(f"scale: {text}"):
        kernel(cuda, SCALE)(grid, block, (x, x, 8, 1.0))


def test_too_much_shared_memory(cuda):
    text = """KERNEL big(double* y) { __shared__ double s[6145]; s[threadIdx.x] = 1; __syncthreads(); y[0] = s[0]; }"""
    with refused("big: 49160 bytes of shared memory, at most 49152 fit"):
        kernel(cuda, text)((1,), (1,), (cuda.zeros(1),))


# -- texts that are refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    ["atomicAdd(y, 1.0f);", "y[0] = INFINITY;", "y[0] = __shfl_down_sync(~0u, 1.0f, 1);", "int unused; y[0] = 1;"],
)
def test_what_kernels_do_not_use(cuda, body):
    with refused("do not compile as C"):
        kernel(cuda, f"KERNEL k(float* y) {{ {body} }}")


def test_options_and_names(cuda):
    with refused("options that the emulator does not know"):
        cuda.RawModule(code=HEAD + SCALE, options=("-DREAL=float", "-arch=sm_90")).get_function("scale")
    with pytest.raises(cuda.cuda.runtime.CUDARuntimeError, match="NOT_FOUND"):
        kernel(cuda, SCALE, "other")


def _build(text):
    return list(emulator.build(text, ("-DREAL=float",)).kernels)


def test_processes_build_at_once(tmp_path, monkeypatch):
    """The folder is shared: each process finds nothing, or a whole library."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(emulator, "_folder", lambda: tmp_path)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_build, [HEAD + SCALE] * 3) == [["scale"]] * 3
    assert len(list(tmp_path.glob("*.so"))) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_library_is_kept(cuda):
    first = emulator.compile_library('extern "C" int answer() { return 42; }', ["-fvisibility=default"])
    assert emulator.compile_library('extern "C" int answer() { return 42; }', ["-fvisibility=default"]) == first
    assert ctypes.CDLL(str(first)).answer() == 42
