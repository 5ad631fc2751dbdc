from numpy import ndarray

def squared_error(x: ndarray, t: ndarray, y: ndarray, num_threads: int) -> None: ...
def squared_error_backward(
    x: ndarray, t: ndarray, gx: ndarray, g: float, num_threads: int
) -> None: ...
def absolute_error(x: ndarray, t: ndarray, y: ndarray, num_threads: int) -> None: ...
def absolute_error_backward(
    x: ndarray, t: ndarray, gx: ndarray, g: float, num_threads: int
) -> None: ...
def huber(x: ndarray, t: ndarray, y: ndarray, delta: float, num_threads: int) -> None: ...
def huber_backward(
    x: ndarray, t: ndarray, gx: ndarray, g: float, delta: float, num_threads: int
) -> None: ...
def bce_with_logits(x: ndarray, t: ndarray, y: ndarray, num_threads: int) -> None: ...
def bce_with_logits_backward(
    x: ndarray, t: ndarray, gx: ndarray, g: float, num_threads: int
) -> None: ...
def cross_entropy(
    x: ndarray,
    labels: ndarray,
    loss: ndarray,
    top: ndarray,
    total: ndarray,
    smoothing: float,
    num_threads: int,
) -> None: ...
def cross_entropy_backward(
    gy: ndarray,
    x: ndarray,
    labels: ndarray,
    top: ndarray,
    total: ndarray,
    gx: ndarray,
    smoothing: float,
    num_threads: int,
) -> None: ...
