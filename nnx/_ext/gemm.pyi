from types import ModuleType
from typing import Any

import numpy as np

def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    bias: np.ndarray | None,
    num_threads: int,
    method: str = "auto",
) -> None: ...
def multiply(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None) -> np.ndarray: ...
def column_sums(a: np.ndarray, out: np.ndarray, num_threads: int) -> None: ...
def bind_blas() -> ModuleType: ...
def blas_info() -> dict[str, Any]: ...
