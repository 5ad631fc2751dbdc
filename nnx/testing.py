"""Checks for code that computes gradients: `gradcheck`, `eval_numerical_gradient`, `assert_close`, `base_backend`.

Public, for research code that adds operations or layers of its own to nnx.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnx import _check, _random
from nnx._device import to_host
from nnx.autograd import Tensor, enable_grad, no_grad

__all__ = [
    "GradientError",
    "GradientReport",
    "assert_close",
    "base_backend",
    "eval_numerical_gradient",
    "gradcheck",
    "relative_error",
]

_ULP = float(np.finfo(np.float64).eps)


class GradientError(AssertionError):
    """A gradient that disagrees with the function it belongs to."""


@dataclass(frozen=True)
class GradientReport:
    """What `gradcheck` found.

    checked:  number of comparisons between an analytic and a numeric value
    kinks:    places left out because the function has no derivative there, as (name, index)
    worst:    name of the input or parameter with the largest error
    error:    that error, as a fraction of what would have been accepted (at most 1)
    """

    checked: int
    kinks: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    worst: str = ""
    error: float = 0.0


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    *,
    module: Any = None,
    wrt: Sequence[int] | None = None,
    mode: str = "full",
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    generator: np.random.Generator | None = None,
) -> GradientReport:
    """Compare the gradients that backward computes with central differences of the function.

    ``(f(x + h d) - f(x - h d)) / 2h`` must equal ``J d``, where J comes from backward.

    function:   takes `inputs`, returns a Tensor or several
    module:     a Module that `function` uses, whose parameters are checked too; None means `function`
                itself, if it is one
    inputs:     an array or Tensor of float64, or a tuple of these and of anything else (integer
                arrays, None, ...), which is passed on as it is
    wrt:        indexes of the inputs to check; None means every floating-point one
    mode:       "full" compares the whole Jacobian, element by element; "direction" compares one
                random direction for each input and parameter, which a large network can afford
    eps:        the step h; where the function bends inside the step, smaller steps are tried
    rtol, atol: accepted error; `rtol` is relative to the largest derivative of the same array

    Places where the function has a kink (the slopes to both sides differ at any step) are left out,
    or in mode "direction" stepped away from, and reported. Also checked: equal results for equal
    inputs, gradients bit-equal when backward runs again, nothing written to inputs or parameters.
    Random numbers of the library's own stream (dropout) are the same at every call; buffers
    (running statistics) are put back.

    Raises GradientError naming the worst input or parameter, its index and both values; TypeError
    for anything but float64, whose rounding would hide the gradient.

    >>> gradcheck(lambda x: (x * x).sum(), np.array([1.0, -2.0, 3.0])).checked
    3
    """
    _check.choice("gradcheck", "mode", mode, ("full", "direction"))
    eps = _check.real("gradcheck", "eps", eps, 0, open_low=True)
    rtol = _check.real("gradcheck", "rtol", rtol, 0)
    atol = _check.real("gradcheck", "atol", atol, 0)
    rng = np.random.default_rng(0) if generator is None else _random.generator(generator)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with _Probe(function, args, wrt, function if module is None else module) as probe:
        y = probe.outputs(probe.point)
        probe.require_repeatable(y)
        check = _Check(probe, y, eps, rtol, atol)
        for k in range(len(probe.names)):
            if mode == "full":
                check.full(k)
            else:
                check.direction(k, rng)
        probe.require_unchanged()
    return check.report()


class _Probe:
    """The function as a map from a list of float64 arrays (`point`) to a list of float64 arrays."""

    def __init__(self, function: Callable[..., Any], args: tuple, wrt: Sequence[int] | None, module: Any) -> None:
        self.function, self.module = function, module
        self.args = [a.data if isinstance(a, Tensor) else a for a in args]
        self.slots = self._float_inputs(wrt)
        named = getattr(module, "named_parameters", None)
        found = [(n, p) for n, p in named() if p.requires_grad] if named is not None else []
        for name, p in found:
            if p.dtype != np.float64:
                raise TypeError(
                    f"gradcheck: expected parameters of dtype float64, got {p.dtype} in {name!r}. "
                    "Call .double() on the module"
                )
        self.parameters = [p for _, p in found]
        self.names = [f"input {i}" for i in self.slots] + [n for n, _ in found]
        if not self.names:
            raise ValueError("gradcheck: expected an input or parameter to check, got none")
        self.stored = [p.data for p in self.parameters]
        self.point = [np.array(self.args[i]) for i in self.slots] + [d.copy() for d in self.stored]
        self.fixed = [
            a.copy() if isinstance(a, np.ndarray) and i not in self.slots else None for i, a in enumerate(self.args)
        ]

    def _float_inputs(self, wrt: Sequence[int] | None) -> list[int]:
        slots = []
        for i, a in enumerate(self.args):
            if not isinstance(a, (np.ndarray, np.generic)) or a.dtype.kind != "f":
                continue
            if a.dtype != np.float64:
                raise TypeError(
                    f"gradcheck: expected inputs of dtype float64, got {a.dtype} for input {i}. "
                    "Numeric derivatives in a shorter type are mostly rounding error"
                )
            slots.append(i)
        if wrt is None:
            return slots
        chosen = [_check.integer("gradcheck", "wrt", i, 0) for i in wrt]
        for i in chosen:
            if i not in slots:
                raise ValueError(f"gradcheck: expected wrt to name float64 inputs {slots}, got {i}")
        return chosen

    def __enter__(self) -> _Probe:
        self.random = _random.get_state()
        buffers = getattr(self.module, "named_buffers", None)
        found = [b for _, b in buffers()] if buffers is not None else []
        self.buffers = [(b, b.copy()) for b in found if b is not None]
        self.grads = [p.grad for p in self.parameters]
        return self

    def __exit__(self, *exc: Any) -> None:
        for p, data, grad in zip(self.parameters, self.stored, self.grads, strict=True):
            p.data, p.grad = data, grad
        for buffer, before in self.buffers:
            np.copyto(buffer, before)
        _random.set_state(self.random)

    def _call(self, leaves: list[Any]) -> list[Tensor]:
        for buffer, before in self.buffers:
            np.copyto(buffer, before)
        _random.set_state(self.random)
        args = list(self.args)
        for i, leaf in zip(self.slots, leaves, strict=True):
            args[i] = leaf
        result = self.function(*args)
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        for i, y in enumerate(outputs):
            if not isinstance(y, Tensor):
                raise TypeError(f"gradcheck: expected function to return Tensors, got {type(y).__name__}")
            if y.dtype.kind == "f" and y.dtype != np.float64:
                raise TypeError(f"gradcheck: expected results of dtype float64, got {y.dtype} in output {i}")
        return [y for y in outputs if y.dtype == np.float64]

    def outputs(self, point: list[np.ndarray]) -> np.ndarray:
        """All results at `point`, as one flat array."""
        n = len(self.slots)
        with no_grad():
            for p, value in zip(self.parameters, point[n:], strict=True):
                p.data = value
            # fresh copies: a result may be a view of its input
            results = self._call([Tensor(v.copy()) for v in point[:n]])
        return np.concatenate([np.zeros(0), *(y.data.ravel() for y in results)])

    def gradients(self, cotangents: Iterable[np.ndarray]) -> list[list[np.ndarray]]:
        """For each cotangent (flat, like `outputs`), the gradient of every entry of the point."""
        n = len(self.slots)
        given = [v.copy() for v in self.point[:n]]
        leaves = [Tensor(v, requires_grad=True) for v in given]
        params = [v.copy() for v in self.point[n:]]
        for p, value in zip(self.parameters, params, strict=True):
            p.data = value
        with enable_grad():
            outputs = self._call(leaves)
        rows = []
        for cotangent in cotangents:
            first = self._backward(outputs, leaves, cotangent)
            again = self._backward(outputs, leaves, cotangent)
            for name, a, b in zip(self.names, first, again, strict=True):
                if a.tobytes() != b.tobytes():
                    raise GradientError(
                        f"gradcheck: expected the same bits when backward runs again, got another "
                        f"gradient of {name}. A gradient function writes to what it was given"
                    )
            rows.append(first)
        for name, before, after in zip(self.names, self.point, [*given, *params], strict=True):
            if before.tobytes() != after.tobytes():
                raise GradientError(f"gradcheck: expected {name} to stay as it is, but it was changed")
        return rows

    def _backward(self, outputs: list[Tensor], leaves: list[Tensor], cotangent: np.ndarray) -> list[np.ndarray]:
        tensors = [*leaves, *self.parameters]
        for t in tensors:
            t.grad = None
        start = 0
        for y in outputs:
            g = cotangent[start : start + y.size].reshape(y.shape)
            start += y.size
            if not y.requires_grad or not g.any():
                continue
            before = g.copy()
            y.backward(g, retain_graph=True)
            if g.tobytes() != before.tobytes():
                raise GradientError("gradcheck: expected the output's gradient to stay as it is, but it was changed")
        for name, t in zip(self.names, tensors, strict=True):
            if t.grad is not None and (t.grad.shape != t.shape or t.grad.dtype != t.dtype):
                raise GradientError(
                    f"gradcheck: expected the gradient of {name} to be {t.dtype} of shape "
                    f"{t.shape}, got {t.grad.dtype} of shape {t.grad.shape}"
                )
        return [np.zeros(t.shape) if t.grad is None else np.array(t.grad) for t in tensors]

    def require_repeatable(self, y: np.ndarray) -> None:
        if self.outputs(self.point).tobytes() != y.tobytes():
            raise GradientError(
                "gradcheck: expected equal results for equal inputs, got different ones. Does the "
                "function draw random numbers from a generator of its own?"
            )
        if not np.isfinite(y).all():
            raise ValueError("gradcheck: expected finite results, got NaN or infinity")

    def require_unchanged(self) -> None:
        for i, (original, copy) in enumerate(zip(self.args, self.fixed, strict=True)):
            if copy is not None and original.tobytes() != copy.tobytes():
                raise GradientError(f"gradcheck: expected input {i} to stay as it is, but it was changed")


class _Check:
    """Comparison of analytic and numeric slopes around one point."""

    def __init__(self, probe: _Probe, y: np.ndarray, eps: float, rtol: float, atol: float) -> None:
        self.probe, self.y = probe, y
        self.eps, self.rtol, self.atol = eps, rtol, atol
        self.ulp = 16 * _ULP * float(np.abs(y).max(initial=0))
        self.jacobian: list[list[np.ndarray]] | None = None
        self.checked = 0
        self.kinks: list[tuple[str, tuple[int, ...]]] = []
        self.worst, self.error = "", 0.0

    def report(self) -> GradientReport:
        return GradientReport(self.checked, self.kinks, self.worst, self.error)

    def slopes(self, k: int, d: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Of every output, the slopes on both sides along direction `d` of entry `k`."""
        point = list(self.probe.point)
        x = point[k]
        point[k] = x - h * d
        left = (self.y - self.probe.outputs(point)) / h
        point[k] = x + h * d
        right = (self.probe.outputs(point) - self.y) / h
        return left, right

    def compare(
        self, k: int, d: np.ndarray, v: np.ndarray | None, analytic: np.ndarray, scale: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which slopes along `d` are wrong, which are kinks, and the numeric ones.

        One entry per output, or a single one for the projection of all outputs on `v`. What
        disagrees is tried again with smaller steps, which leave a kink nearby outside. What still
        disagrees, while the analytic slope lies between two different one-sided slopes, is a kink.
        """
        numeric = np.full(analytic.shape, np.nan)
        error = np.full(analytic.shape, np.inf)
        kink = np.zeros(analytic.shape, bool)
        for h in (self.eps, self.eps / 10, self.eps / 100):
            left, right = self.slopes(k, d, h)
            noise = self.ulp / h
            if v is not None:
                left, right = np.array([v @ left]), np.array([v @ right])
                noise *= float(np.sqrt(v @ v))
            accepted = self.atol + self.rtol * scale + noise + 1e-300
            todo = ~(error <= 1)  # so that NaN counts as an error
            middle = (left + right) / 2
            numeric[todo] = middle[todo]
            with np.errstate(invalid="ignore"):  # an infinite gradient is wrong, not a warning
                error[todo] = np.abs(middle - analytic)[todo] / accepted
                low = np.minimum(left, right) - accepted
                high = np.maximum(left, right) + accepted
            wrong = ~(error <= 1)
            if not wrong.any():
                break
            kink = wrong & (high - low > 4 * accepted) & (low <= analytic) & (analytic <= high)
        kink &= wrong
        wrong &= ~kink
        self.checked += 1
        largest = float(error.max(initial=0, where=error <= 1))
        if largest >= self.error:
            self.worst, self.error = self.probe.names[k], largest
        return wrong, kink, numeric

    def full(self, k: int) -> None:
        """Compare column after column of the Jacobian with respect to entry `k`."""
        name, x = self.probe.names[k], self.probe.point[k]
        if self.jacobian is None:
            rows = (np.eye(1, self.y.size, i)[0] for i in range(self.y.size))
            self.jacobian = self.probe.gradients(rows)
        analytic = np.array([row[k].ravel() for row in self.jacobian]).reshape(self.y.size, x.size)
        scale = float(np.abs(analytic).max(initial=0))
        failures: list[tuple[tuple[int, ...], float, float]] = []
        kinks = []
        for j in range(x.size):
            wrong, kink, numeric = self.compare(k, _unit(x.shape, j), None, analytic[:, j], scale)
            index = _index(x.shape, j)
            if kink.any():
                kinks.append((name, index))
            failures += [(index, analytic[i, j], numeric[i]) for i in np.flatnonzero(wrong)]
        if failures:
            raise GradientError(_describe(name, failures, analytic.size))
        if 2 * len(kinks) > x.size:
            raise GradientError(
                f"gradcheck: expected slopes at most places, got kinks at {len(kinks)} of {x.size} "
                f"elements of {name}. Draw inputs without ties, away from thresholds"
            )
        self.kinks += kinks

    def direction(self, k: int, rng: np.random.Generator) -> None:
        """Compare the slope of a random mix of outputs along a random direction of entry `k`."""
        name, shape = self.probe.names[k], self.probe.point[k].shape
        if 0 in shape or not self.y.size:
            return
        for _ in range(5):
            d, v = _away_from_zero(rng, shape), _away_from_zero(rng, self.y.shape)
            g = self.probe.gradients([v])[0][k]
            wrong, kink, _ = self._project(k, d, v, g)
            if wrong:
                raise GradientError(_describe(name, [self._locate(k, d, v, g)], 0))
            if not kink:
                return
            self.kinks.append((name, ()))
            self._step_aside(rng)
        raise GradientError(
            f"gradcheck: expected a slope along some direction of {name}, got kinks at five "
            "points. Draw inputs without ties, away from thresholds"
        )

    def _step_aside(self, rng: np.random.Generator) -> None:
        """Go on at a point nearby, where the function is hopefully smooth."""
        for x in self.probe.point:
            x += 1e-4 * float(np.abs(x).max(initial=1e-3)) * _away_from_zero(rng, x.shape)
        self.y = self.probe.outputs(self.probe.point)

    def _project(self, k: int, d: np.ndarray, v: np.ndarray, g: np.ndarray) -> tuple[bool, bool, float]:
        analytic = np.array([_dot(g, d)])
        wrong, kink, numeric = self.compare(k, d, v, analytic, _dot(g, g) ** 0.5)
        return bool(wrong[0]), bool(kink[0]), float(numeric[0])

    def _locate(self, k: int, d: np.ndarray, v: np.ndarray, g: np.ndarray) -> tuple[tuple[int, ...], float, float]:
        """Halve the direction, keeping the half with the larger error, down to one element."""
        alive = np.arange(g.size)
        while alive.size > 1:
            halves = np.array_split(alive, 2)
            errors = []
            for half in halves:
                part = np.zeros(g.shape)
                part.flat[half] = d.flat[half]
                errors.append(abs(_dot(g, part) - self._project(k, part, v, g)[2]))
            alive = halves[int(np.argmax(errors))]
        j = int(alive[0])
        return _index(g.shape, j), float(g.flat[j]), self._project(k, _unit(g.shape, j), v, g)[2]


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float((a * b).sum())


def _unit(shape: tuple[int, ...], j: int) -> np.ndarray:
    d = np.zeros(shape)
    d.flat[j] = 1
    return d


def _index(shape: tuple[int, ...], j: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(j, shape))


def _away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers in [0.5, 1.5] of either sign: a small component would hide a wrong slope."""
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def _describe(name: str, failures: list[tuple[tuple[int, ...], float, float]], total: int) -> str:
    """The worst of `failures`, each (index, analytic, numeric), and what they have in common."""
    index, analytic, numeric = max(failures, key=lambda f: _size_of(f[1] - f[2]))
    text = (
        f"gradcheck: expected the gradient of {name} at {index} to be {numeric:.9g} (numeric), got "
        f"{analytic:.9g} (analytic)"
    )
    if total:
        text += f"; {len(failures)} of {total} entries of its Jacobian are wrong"
    ratios = np.array([a / n for _, a, n in failures if abs(n) > 1e-6 and abs(a) < np.inf])
    if len(ratios) == len(failures) > 1 and np.ptp(ratios) < 1e-3:
        text += f", all by the factor {ratios.mean():.6g}"
    return text


def _size_of(error: float) -> float:
    return abs(error) if error == error else float("inf")


def eval_numerical_gradient(
    f: Callable[[np.ndarray], Any], x: Any, h: float = 1e-5, centered: bool = False
) -> np.ndarray:
    """The gradient of `f` at `x` by differences, one element after the other: slow, inexact, hard to get wrong.

    ``(f(x + h e) - f(x)) / h``, whose error falls like h; with `centered`, ``(f(x + h e) - f(x - h e)) / 2h``, whose
    error falls like h^2.

    f:  takes an array like `x`, which it must not keep, and returns one number or a Tensor with one element
    x:  the point; integers and shorter floats are worked on as float64, where a step of `h` is not lost
    h:  the step

    The elements are visited in memory order. `x` is not changed. To check the gradients of a layer use `gradcheck`.

    >>> eval_numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, -1.0])).round(3).tolist()
    [6.0, -2.0]
    """
    owner = "eval_numerical_gradient"
    h = _check.real(owner, "h", h, 0, open_low=True)
    point = np.array(x.data if isinstance(x, Tensor) else x, dtype=np.float64, order="K")
    grad = np.zeros_like(point)

    def value() -> float:
        y = f(point)
        y = y.data if isinstance(y, Tensor) else np.asarray(y)
        if y.size != 1:
            raise ValueError(f"{owner}: expected f to return one number, got shape {y.shape}")
        return float(y.reshape(()))

    middle = np.nan if centered else value()
    walk = np.nditer(point, flags=["multi_index", "zerosize_ok"])
    while not walk.finished:
        index = walk.multi_index
        old = point[index]
        point[index] = old + h
        above = value()
        if centered:
            point[index] = old - h
            grad[index] = (above - value()) / (2 * h)
        else:
            grad[index] = (above - middle) / h
        point[index] = old
        walk.iternext()
    return grad


def relative_error(a: Any, b: Any) -> float:
    """``max |a - b| / max(max |a|, max |b|)``: how far two gradients are apart, 0 for equal ones, at most 2.

    Rule of thumb for an analytic gradient against a centred numeric one in float64: below 1e-7 is right, above 1e-2 is
    wrong, between them lies a kink or a step size that does not suit.

    >>> relative_error([1.0, 2.0], [1.0, 2.5])
    0.2
    """
    x, y = (np.asarray(v.numpy() if isinstance(v, Tensor) else to_host(v), np.float64) for v in (a, b))
    if x.shape != y.shape:
        raise ValueError(f"relative_error: expected two arrays of one shape, got {x.shape} and {y.shape}")
    scale = max(np.abs(x).max(initial=0), np.abs(y).max(initial=0))
    return float(np.abs(x - y).max(initial=0) / scale) if scale != 0 else 0.0


def assert_close(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    name: str = "result",
) -> None:
    """Assert that two arrays (or Tensors) have the same shape, dtype and, nearly, the same values.

    ``|actual - expected| <= atol + rtol * max|expected|``: relative to the largest finite value,
    since rounding errors of sums are. NaN equals NaN only, an infinity only the same infinity.

    rtol, atol: by dtype if None: 1e-5 and 1e-7 for float32, 1e-10 and 1e-12 for float64, else 0

    Raises AssertionError naming the worst index with both values.
    """
    a = actual.numpy() if isinstance(actual, Tensor) else to_host(actual)
    e = expected.numpy() if isinstance(expected, Tensor) else to_host(expected)
    if a.shape != e.shape:
        raise AssertionError(f"assert_close: expected {name} of shape {e.shape}, got {a.shape}")
    if a.dtype != e.dtype:
        raise AssertionError(f"assert_close: expected {name} of dtype {e.dtype}, got {a.dtype}")
    if a.dtype.kind != "f":
        rtol, atol = rtol or 0, atol or 0
    short = a.dtype.itemsize < 8
    rtol = (1e-5 if short else 1e-10) if rtol is None else rtol
    atol = (1e-7 if short else 1e-12) if atol is None else atol
    a64, e64 = a.astype(np.float64), e.astype(np.float64)
    finite = np.isfinite(e64)
    largest = float(np.abs(e64).max(initial=0, where=finite))
    with np.errstate(invalid="ignore"):
        error = np.abs(a64 - e64)
    same = (a64 == e64) | (np.isnan(a64) & np.isnan(e64))
    bad = ~same & ~(finite & (error <= atol + rtol * largest))
    if bad.any():
        error = np.where(np.isnan(error), np.inf, error)
        worst = _index(a.shape, int(np.argmax(np.where(bad, error, -1))))
        raise AssertionError(
            f"assert_close: expected {name} at {worst} to be {e[worst]!r}, got {a[worst]!r} (error "
            f"{error[worst]:.3g}, accepted {atol + rtol * largest:.3g}); {int(bad.sum())} of "
            f"{a.size} elements differ"
        )


@contextlib.contextmanager
def base_backend() -> Iterator[None]:
    """Compute with the plain NumPy backend inside the block: the specification of every operation.

    For comparisons in tests; it acts on the whole process.

    >>> with base_backend():
    ...     y = Tensor(np.ones(3)).relu()
    """
    from nnx import backends

    with _computing_with(backends.Backend()):
        yield


@contextlib.contextmanager
def _computing_with(backend: Any) -> Iterator[None]:
    """Let `backend` serve every NumPy array inside the block."""
    from nnx import backends

    class Only(dict):
        def get(self, kind: type, default: Any = None) -> Any:
            on_cpu = issubclass(kind, (np.ndarray, np.generic))
            return backend if on_cpu else super().get(kind, default)

    before = backends._BY_TYPE
    backends._BY_TYPE = Only(before)
    try:
        yield
    finally:
        backends._BY_TYPE = before
