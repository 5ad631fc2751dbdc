from numpy import ndarray

Three = tuple[int, int, int]
Arrays = tuple[ndarray, ndarray, ndarray]

def max_pool(
    x: ndarray,
    y: ndarray,
    index: ndarray,
    kernel: Three,
    stride: Three,
    padding: Three,
    dilation: Three,
    num_threads: int,
) -> None: ...
def max_pool_backward(
    gy: ndarray,
    index: ndarray,
    gx: ndarray,
    kernel: Three,
    stride: Three,
    padding: Three,
    dilation: Three,
    num_threads: int,
) -> None: ...
def mean_pool(
    x: ndarray, y: ndarray, starts: Arrays, ends: Arrays, counts: Arrays, num_threads: int
) -> None: ...
def mean_pool_backward(
    gy: ndarray, gx: ndarray, starts: Arrays, ends: Arrays, counts: Arrays, num_threads: int
) -> None: ...
