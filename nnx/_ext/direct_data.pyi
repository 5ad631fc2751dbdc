import numpy as np

def data_grad(
    gy: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    gx: np.ndarray,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    num_threads: int,
    added: np.ndarray | None = None,
    positive: np.ndarray | None = None,
) -> None: ...
