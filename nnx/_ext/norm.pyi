from numpy import ndarray

def moments(
    x: ndarray, mean: ndarray, var: ndarray, num_threads: int, rstd: ndarray | None = None, eps: float = 0
) -> None: ...
def moments_of_sums(
    sums: ndarray, height: int, rows: int, mean: ndarray, var: ndarray, rstd: ndarray, eps: float
) -> None: ...
def track(
    running_mean: ndarray | None,
    running_var: ndarray | None,
    mean: ndarray,
    var: ndarray,
    momentum: float,
    correction: float,
) -> None: ...
def normalize(
    x: ndarray,
    y: ndarray,
    mean: ndarray,
    var: ndarray,
    weight: ndarray | None,
    bias: ndarray | None,
    rstd: ndarray,
    eps: float,
    relu: bool,
    num_threads: int,
    added: ndarray | None = None,
) -> None: ...
def normalize_backward(
    gy: ndarray,
    x: ndarray,
    gx: ndarray | None,
    mean: ndarray,
    rstd: ndarray,
    weight: ndarray | None,
    gw: ndarray | None,
    gb: ndarray | None,
    from_batch: bool,
    num_threads: int,
    relu: bool = False,
    bias: ndarray | None = None,
    factors: ndarray | None = None,
    sums: ndarray | None = None,
) -> None: ...
def apply_gradient(
    gy: ndarray, x: ndarray, gx: ndarray, mean: ndarray, factors: ndarray, relu: bool, num_threads: int
) -> None: ...
def row_norm(
    x: ndarray,
    y: ndarray,
    weight: ndarray | None,
    bias: ndarray | None,
    mean: ndarray,
    var: ndarray,
    rstd: ndarray,
    eps: float,
    num_threads: int,
) -> None: ...
def row_norm_backward(
    gy: ndarray,
    x: ndarray,
    gx: ndarray | None,
    weight: ndarray | None,
    mean: ndarray,
    rstd: ndarray,
    gw: ndarray | None,
    gb: ndarray | None,
    period: int,
    num_threads: int,
) -> None: ...
