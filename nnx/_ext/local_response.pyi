from numpy import ndarray

REACH: int

def response(
    x: ndarray,
    y: ndarray,
    scale: ndarray,
    below: int,
    above: int,
    alpha: float,
    beta: float,
    k: float,
    num_threads: int,
) -> None: ...
def response_backward(
    gy: ndarray,
    x: ndarray,
    scale: ndarray,
    gx: ndarray,
    below: int,
    above: int,
    factor: float,
    beta: float,
    num_threads: int,
) -> None: ...
