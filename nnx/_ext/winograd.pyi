import numpy as np

def forward(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    padding: tuple[int, ...],
    relu: bool,
    num_threads: int,
) -> None: ...
def data_grad(
    gy: np.ndarray,
    w: np.ndarray,
    gx: np.ndarray,
    padding: tuple[int, ...],
    num_threads: int,
    added: np.ndarray | None = None,
    positive: np.ndarray | None = None,
) -> None: ...
def weight_grad(gy: np.ndarray, x: np.ndarray, gw: np.ndarray, padding: tuple[int, ...], num_threads: int) -> None: ...
