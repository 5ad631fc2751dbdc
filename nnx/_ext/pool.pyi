from numpy import ndarray

Sizes = tuple[int, ...]
Arrays = tuple[ndarray, ...]

def max_pool(
    x: ndarray,
    y: ndarray,
    index: ndarray,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    num_threads: int,
    positive: bool = False,
) -> None: ...
def max_pool_backward(
    gy: ndarray,
    index: ndarray,
    gx: ndarray,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    num_threads: int,
) -> None: ...
def mean_pool(x: ndarray, y: ndarray, starts: Arrays, ends: Arrays, counts: Arrays, num_threads: int) -> None: ...
def mean_pool_backward(
    gy: ndarray, gx: ndarray, starts: Arrays, ends: Arrays, counts: Arrays, num_threads: int
) -> None: ...
