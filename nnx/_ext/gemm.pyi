from typing import Any

import numpy as np

def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    bias: np.ndarray | None,
    num_threads: int,
    method: str = "auto",
    relu: bool = False,
) -> None: ...
def try_multiply(a: Any, b: Any) -> np.ndarray | None: ...
def multiply(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None, relu: bool = False) -> np.ndarray: ...
def column_sums(a: np.ndarray, out: np.ndarray, num_threads: int) -> None: ...
def transpose(a: np.ndarray, out: np.ndarray, num_threads: int) -> None: ...
