from numpy import ndarray

def forward(
    x: ndarray,
    before: tuple[ndarray, ndarray, ndarray, bool] | None,
    w: ndarray,
    bias: ndarray | None,
    y: ndarray,
    padding: tuple[int, ...],
    relu: bool,
    num_threads: int,
    sums: ndarray | None = None,
) -> None: ...
def images_of_sums(y: ndarray) -> int: ...
def backward(
    gy: ndarray,
    behind: tuple[ndarray, ndarray, ndarray, bool] | None,
    x: ndarray,
    before: tuple[ndarray, ndarray, ndarray, bool] | None,
    w: ndarray,
    gx: ndarray,
    gw: ndarray,
    padding: tuple[int, ...],
    num_threads: int,
    added: ndarray | None = None,
    positive: ndarray | None = None,
    sums: ndarray | None = None,
) -> None: ...
def sum_tiles(x: ndarray, gy: ndarray) -> int: ...
