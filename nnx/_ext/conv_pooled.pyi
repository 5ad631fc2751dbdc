import numpy as np

def weight_grad(
    gy: np.ndarray,
    index: np.ndarray,
    x: np.ndarray,
    gw: np.ndarray,
    gb: np.ndarray,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    kernel: tuple[int, ...],
    pool_stride: tuple[int, ...],
    pool_dilation: tuple[int, ...],
    num_threads: int,
) -> None: ...
