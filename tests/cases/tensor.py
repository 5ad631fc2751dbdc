"""Cases of the operations behind a Tensor's operators and methods."""

from __future__ import annotations

import numpy as np

from cases._case import Case, constant, distinct, mixed, normal, positive, torch_f
from nnx.autograd import arithmetic as A
from nnx.autograd import as_tensor
from nnx.autograd import reduction as R
from nnx.autograd import shape as S


def _unary(name, draw=None, torch=None, **options):
    """An elementwise function of one array; torch's function has the same name."""
    return Case(
        name,
        getattr(A, name),
        draw or normal((5, 3, 7)),
        torch or torch_f(name),
        large=normal((64, 1031)) if draw is None else None,
        **options,
    )


def _binary(name, draw=normal, torch=None):
    """A function of two arrays: of equal shape, broadcast both ways, and with a 0-d array."""
    function, other = getattr(A, name), torch or torch_f(name)
    return [
        Case(name, function, draw((5, 7), (5, 7)), other, grad=(0, 1), batch=(0, 1), nonfinite=(0, 1)),
        Case(
            f"{name}-broadcast",
            function,
            draw((5, 1, 3), (4, 1)),
            other,
            grad=(0, 1),
            nonfinite=(0, 1),
        ),
        Case(f"{name}-0d", function, draw((), (3, 2)), other, grad=(0, 1), batch=(1,)),
    ]


def _pick(position, function):
    """The element at `position` of what `function` returns."""
    return lambda *args, **kwargs: function(*args, **kwargs)[position]


_MASK = np.arange(35).reshape(5, 7) % 3 == 0
_ROWS = np.array([3, 0, 3, 4])
_GATHER = np.array([[0, 2], [1, 1], [4, 0]])

CASES = [
    # -- arithmetic ----------------------------------------------------------------------------
    *_binary("add"),
    *_binary("sub"),
    *_binary("mul"),
    *_binary("div", positive),
    *_binary("pow", positive),
    *_binary("maximum"),
    *_binary("minimum"),
    Case(
        "add-large",
        A.add,
        normal((3, 2), (3, 2)),
        torch_f("add"),
        grad=(0, 1),
        batch=(0, 1),
        large=normal((130, 127), (130, 127)),
    ),
    Case("add-alpha", A.add, normal((5, 7), (5, 7)), torch_f("add"), {"alpha": 2.5}, (0, 1), (0, 1)),
    Case("sub-alpha", A.sub, normal((5, 7), (7,)), torch_f("sub"), {"alpha": -3}, (0, 1)),
    Case("add-number", A.add, mixed(normal((5, 7)), constant(3)), torch_f("add")),
    Case(
        "rsub-number",
        A.sub,
        mixed(constant(3.5), normal((5, 7))),
        torch_f("sub"),
        grad=(1,),
        batch=(1,),
        nonfinite=(1,),
    ),
    Case(
        "rdiv-number",
        A.div,
        mixed(constant(2), positive((5, 7))),
        torch_f("div"),
        grad=(1,),
        batch=(1,),
        nonfinite=(1,),
    ),
    Case("pow-square", A.pow, mixed(normal((5, 7)), constant(2)), torch_f("pow")),
    Case("pow-zero", A.pow, mixed(normal((5, 7)), constant(0)), torch_f("pow")),
    Case("pow-half", A.pow, mixed(positive((5, 7)), constant(0.5)), torch_f("pow")),
    Case(
        "rpow-number",
        A.pow,
        mixed(constant(2.0), normal((5, 7))),
        torch_f("pow"),
        grad=(1,),
        batch=(1,),
        nonfinite=(1,),
    ),
    _unary("neg"),
    _unary("abs", distinct((5, 3, 7))),
    _unary("sign", distinct((5, 3, 7))),
    _unary("exp"),
    _unary("log", positive((5, 3, 7))),
    _unary("sqrt", positive((5, 3, 7))),
    _unary("square"),
    _unary("sin"),
    _unary("cos"),
    _unary("relu"),
    _unary("sigmoid"),
    _unary("tanh"),
    Case("clamp", A.clamp, distinct((5, 7)), torch_f("clamp"), {"min": -0.52, "max": 0.71}),
    Case("clamp-min", A.clamp, distinct((5, 7)), torch_f("clamp"), {"min": -0.52}),
    Case("clamp-max", A.clamp, distinct((5, 7)), torch_f("clamp"), {"max": 0.71}),
    Case(
        "where",
        A.where,
        mixed(constant(_MASK), normal((5, 7), (7,))),
        torch_f("where"),
        grad=(1, 2),
        batch=(),
        nonfinite=(1, 2),
    ),
    # -- matrix products -----------------------------------------------------------------------
    Case(
        "matmul",
        A.matmul,
        normal((5, 3), (3, 7)),
        torch_f("matmul"),
        grad=(0, 1),
        nonfinite=(0, 1),
        large=normal((257, 130), (130, 301)),
        rtol32=1e-4,
        reason="float32 sums of up to 301 products (the large draw), errors grow with the length",
    ),
    Case("matmul-dot", A.matmul, normal((5,), (5,)), torch_f("matmul"), grad=(0, 1), batch=(0, 1)),
    Case(
        "matmul-vector-matrix",
        A.matmul,
        normal((5,), (5, 3)),
        torch_f("matmul"),
        grad=(0, 1),
        batch=(0, 1),
    ),
    Case("matmul-matrix-vector", A.matmul, normal((5, 3), (3,)), torch_f("matmul"), grad=(0, 1)),
    Case(
        "matmul-stack",
        A.matmul,
        normal((2, 5, 3), (2, 3, 4)),
        torch_f("matmul"),
        grad=(0, 1),
        batch=(0, 1),
    ),
    Case(
        "matmul-stack-broadcast",
        A.matmul,
        normal((2, 1, 5, 3), (3, 3, 4)),
        torch_f("matmul"),
        grad=(0, 1),
    ),
    Case("matmul-stack-vector", A.matmul, normal((2, 5, 3), (3,)), torch_f("matmul"), grad=(0, 1)),
    # -- reductions ----------------------------------------------------------------------------
    Case("sum", R.sum, normal((5, 3, 7)), torch_f("sum")),
    Case("sum-dim", R.sum, normal((5, 3, 7)), torch_f("sum"), {"dim": 1}),
    Case(
        "sum-dims-keepdim",
        R.sum,
        normal((5, 3, 7)),
        torch_f("sum"),
        {"dim": (0, -1), "keepdim": True},
    ),
    Case("mean", R.mean, normal((5, 3, 7)), torch_f("mean"), batch=()),
    Case("mean-dims", R.mean, normal((5, 3, 7)), torch_f("mean"), {"dim": (1, 2)}),
    Case("mean-keepdim", R.mean, normal((5, 3, 7)), torch_f("mean"), {"dim": -1, "keepdim": True}),
    Case("var", R.var, normal((5, 7)), torch_f("var"), batch=()),
    Case(
        "var-dim",
        R.var,
        normal((5, 7)),
        torch_f("var"),
        {"dim": 1, "correction": 0, "keepdim": True},
    ),
    Case("std", R.std, normal((5, 7)), torch_f("std"), {"dim": 1}),
    Case("amax", R.amax, distinct((5, 3, 7)), torch_f("amax"), {"dim": (1, 2)}),
    Case("amax-keepdim", R.amax, distinct((5, 3, 7)), torch_f("amax"), {"dim": 1, "keepdim": True}),
    Case("amin", R.amin, distinct((5, 3, 7)), torch_f("amin"), {"dim": (0, 1)}, batch=()),
    Case("max-all", R.max, distinct((5, 3)), torch_f("max"), batch=()),
    Case("max-dim", _pick(0, R.max), distinct((5, 3)), _pick(0, torch_f("max")), {"dim": 1}),
    Case("min-dim", _pick(0, R.min), distinct((5, 3)), _pick(0, torch_f("min")), {"dim": 0}, batch=()),
    Case("argmax", R.argmax, distinct((5, 3)), torch_f("argmax"), {"dim": 1}, grad=()),
    Case("argmin", R.argmin, distinct((5, 3)), torch_f("argmin"), grad=(), batch=()),
    Case("logsumexp", R.logsumexp, normal((5, 3, 7)), torch_f("logsumexp"), {"dim": (1, 2)}),
    Case(
        "logsumexp-keepdim",
        R.logsumexp,
        normal((5, 7)),
        torch_f("logsumexp"),
        {"dim": 1, "keepdim": True},
    ),
    Case("norm", R.norm, normal((5, 7)), torch_f("norm")),
    Case("norm-dim", R.norm, normal((5, 7)), torch_f("norm"), {"dim": 1, "keepdim": True}),
    Case("norm-1", R.norm, distinct((5, 7)), torch_f("norm"), {"p": 1, "dim": 1}),
    Case("norm-3", R.norm, distinct((5, 7)), torch_f("norm"), {"p": 3.0, "dim": 1}),
    Case("norm-inf", R.norm, positive((5, 7)), torch_f("norm"), {"p": float("inf"), "dim": 1}),
    # -- shape ---------------------------------------------------------------------------------
    Case("reshape", lambda x: S.reshape(x, -1, 21), normal((5, 3, 7)), lambda x: x.reshape(-1, 21)),
    Case("flatten", S.flatten, normal((5, 3, 7)), torch_f("flatten"), {"start_dim": 1}),
    Case("permute", lambda x: S.permute(x, 2, 0, 1), normal((5, 3, 7)), lambda x: x.permute(2, 0, 1)),
    Case(
        "transpose",
        lambda x: S.transpose(x, 0, -1),
        normal((5, 3, 7)),
        lambda x: x.transpose(0, -1),
    ),
    Case("squeeze", S.squeeze, normal((5, 1, 7, 1)), torch_f("squeeze"), batch=()),
    Case("squeeze-dim", S.squeeze, normal((5, 1, 7, 1)), torch_f("squeeze"), {"dim": 1}),
    Case("unsqueeze", S.unsqueeze, normal((5, 7)), torch_f("unsqueeze"), {"dim": -1}),
    Case("expand", lambda x: S.expand(x, 4, -1, 7), normal((5, 1)), lambda x: x.expand(4, -1, 7)),
    Case("clone", S.clone, normal((5, 7)), torch_f("clone")),
    Case("contiguous", S.contiguous, normal((5, 7)), lambda x: x.contiguous()),
    Case(
        "getitem-slice",
        lambda x: S.getitem(as_tensor(x), (slice(1, None, 2), slice(None, 2))),
        normal((5, 3)),
        lambda x: x[1::2, :2],
    ),
    Case(
        "getitem-int",
        lambda x: S.getitem(as_tensor(x), (slice(None), 1)),
        normal((5, 3)),
        lambda x: x[:, 1],
    ),
    Case(
        "getitem-rows",
        lambda x: S.getitem(as_tensor(x), _ROWS),
        normal((5, 3)),
        lambda x: x[_ROWS],
        batch=(),
    ),
    Case(
        "getitem-mask",
        lambda x: S.getitem(as_tensor(x), _MASK),
        normal((5, 7)),
        lambda x: x[_MASK],
        batch=(),
    ),
    Case(
        "gather",
        S.gather,
        mixed(normal((5, 3)), constant(0, _GATHER)),
        torch_f("gather"),
        batch=(),
    ),
    Case(
        "cat",
        lambda a, b, c: S.cat([a, b, c], 1),
        normal((5, 3), (5, 1), (5, 4)),
        lambda a, b, c: torch_f("cat")([a, b, c], 1),
        grad=(0, 1, 2),
        batch=(0, 1, 2),
    ),
    Case(
        "cat-channels",
        lambda a, b: S.cat([a, b], 1),
        normal((2, 3, 5, 4), (2, 2, 5, 4)),
        lambda a, b: torch_f("cat")([a, b], 1),
        grad=(0, 1),
        batch=(0, 1),
    ),
    Case(
        "stack",
        lambda a, b: S.stack([a, b], -1),
        normal((5, 3), (5, 3)),
        lambda a, b: torch_f("stack")([a, b], -1),
        grad=(0, 1),
        batch=(0, 1),
    ),
    Case("split", lambda x: S.split(x, 3, 1), normal((5, 7)), lambda x: x.split(3, 1)),
    Case(
        "split-sections",
        lambda x: S.split(x, [1, 4, 2], 1),
        normal((5, 7)),
        lambda x: x.split([1, 4, 2], 1),
    ),
    Case("chunk", lambda x: S.chunk(x, 3, 1), normal((5, 7)), lambda x: x.chunk(3, 1)),
    Case("unbind", lambda x: S.unbind(x, 1), normal((5, 3)), lambda x: x.unbind(1)),
]
