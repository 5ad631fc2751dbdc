import numpy as np

def weight_grad(
    gy: np.ndarray,
    x: np.ndarray,
    gw: np.ndarray,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    num_threads: int,
) -> None: ...
