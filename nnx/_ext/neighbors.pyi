from numpy import ndarray

def nearest(
    x: ndarray,
    y: ndarray,
    distances: ndarray,
    index: ndarray,
    p: int,
    center: ndarray | None,
    num_threads: int,
) -> None: ...
