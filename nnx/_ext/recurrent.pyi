from numpy import ndarray

def forward(
    mode: str,
    gates: ndarray | None,
    states: ndarray,
    w_hh: ndarray,
    bias: ndarray | None,
    w_hr: ndarray | None,
    lengths: ndarray | None,
    reverse: bool,
    num_threads: int,
) -> None: ...
def backward(
    mode: str,
    gs: ndarray,
    gates: ndarray | None,
    states: ndarray,
    w_hh: ndarray,
    w_hr: ndarray | None,
    lengths: ndarray | None,
    ga: ndarray,
    gstate: ndarray,
    gh: ndarray | None,
    m: ndarray | None,
    reverse: bool,
    num_threads: int,
) -> None: ...
