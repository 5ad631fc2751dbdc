import numpy as np

def most_filters(itemsize: int) -> int: ...
def forward(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    padding: tuple[int, ...],
    relu: bool,
    num_threads: int,
) -> None: ...
def forward_pooled(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    index: np.ndarray,
    size: tuple[int, ...],
    padding: tuple[int, ...],
    num_threads: int,
) -> None: ...
def weight_grad(
    gy: np.ndarray,
    x: np.ndarray,
    gw: np.ndarray,
    padding: tuple[int, ...],
    num_threads: int,
) -> None: ...
