"""The kernels of optimizers, run by the emulator, against the base backend; and steps inside a CUDA graph."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from cases import _optim
from nnx import nn, optim
from nnx.backends.base import Backend

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
# nothing, one, before, at and behind the end of a chunk of 2048
SHAPES = [(5, 3), (), (0, 4), (2048,), (2049,), (3, 4, 500), (2047,)]

# name, number of accumulators, and the scalars behind the lists
STEPS = [
    ("sgd_step", 0, ([], True, 0.1, 0.0, 0.0, 0.3, False, True)),
    ("sgd_step", 1, (True, 0.1, 0.9, 0.5, 0.3, False, True)),
    ("sgd_step", 1, (False, 0.1, 0.9, 0.5, 0.3, False, False)),
    ("sgd_step", 1, (False, 0.1, 0.9, 0.0, 0.0, True, False)),
    ("adagrad_step", 1, (3, 0.1, 0.2, 1e-3, 0.3, True)),
    ("adadelta_step", 2, (0.1, 0.7, 1e-3, 0.3, True)),
    ("rmsprop_step", 1, (None, None, 0.1, 0.9, 1e-8, 0.0, 0.0, False)),
    ("rmsprop_step", 2, (None, 0.1, 0.9, 1e-3, 0.3, 0.0, True)),
    ("rmsprop_step", 3, (0.1, 0.9, 1e-3, 0.3, 0.5, False)),
    ("adam_step", 2, (None, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False, True, False)),
    ("adam_step", 2, (None, 7, 0.1, 0.8, 0.9, 1e-3, 0.3, False, False, True)),
    ("adam_step", 3, (7, 0.1, 0.8, 0.9, 1e-3, 0.3, True, True, False)),
]
each_step = pytest.mark.parametrize(
    ("name", "accumulators", "scalars"), STEPS, ids=lambda v: v if type(v) is str else ""
)


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda import CUDABackend

    return CUDABackend()


def columns(rng, shapes, accumulators, dtype):
    """Parameters, gradients, and accumulators >= 0; rmsprop's first is well above the square of its second."""
    lists = [[np.asarray(rng.standard_normal(s), dtype) for s in shapes] for _ in range(2)]
    for k in range(accumulators):
        low = 0.5 + (k == 0)
        lists.append([np.asarray(rng.uniform(low, low + 0.4, s), dtype) for s in shapes])
    return lists


def recorded(cuda, step):
    """The step as a graph: a function that replays it."""
    from nnx.backends.cuda._capture import capturing

    pool, stream = cuda.cuda.MemoryPool(), cuda.cuda.Stream()
    with stream, cuda.cuda.using_allocator(pool.malloc), capturing() as numbers:
        stream.begin_capture()
        step()
        graph = stream.end_capture()

    def replay():
        assert pool is not None
        with stream:
            numbers.before_launch()
            graph.launch()

    return replay


def close(ours, theirs, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for column, expected in zip(ours, theirs, strict=True):
        for a, e in zip(column, expected, strict=True):
            np.testing.assert_allclose(a.get(), e, tolerance, tolerance)


@each_step
@each_dtype
def test_steps(cuda, be, name, accumulators, scalars, dtype, rng):
    lists = columns(rng, SHAPES, accumulators, dtype)
    lists[0][0][0, 0] = lists[1][4][7] = np.nan
    lists[1][3][5] = np.inf
    for k, column in enumerate(lists[2:]):
        column[3][10 + k] = np.nan
    ours = [[cuda.asarray(a) for a in column] for column in lists]
    grads = [a.get().tobytes() for a in ours[1]]
    getattr(be, name)(*ours, *scalars)
    getattr(BASE, name)(*lists, *scalars)
    close(ours, lists, dtype)
    assert [a.get().tobytes() for a in ours[1]] == grads


@each_step
def test_other_layouts(cuda, be, name, accumulators, scalars, rng):
    """Turned axes; a gradient that lies in another way; holes, and another type, which the kernels do not take."""
    lists = columns(rng, [(4, 6), (4, 6), (4, 6), (3, 2)], accumulators, np.float32)
    for column in lists:
        column[3] = column[3].astype(np.float64)
    ours = []
    for k, column in enumerate(lists):
        turned = cuda.asarray(np.ascontiguousarray(column[0].T)).T
        wide = cuda.zeros((4, 12), np.float32)
        wide[:, ::2] = cuda.asarray(column[2])
        other = cuda.asarray(np.ascontiguousarray(column[1].T)).T if k == 1 else cuda.asarray(column[1])
        ours.append([turned, other, wide[:, ::2], cuda.asarray(column[3])])
    getattr(be, name)(*ours, *scalars)
    getattr(BASE, name)(*lists, *scalars)
    close(ours, lists, np.float32)


def test_one_launch_for_all(cuda, be, monkeypatch, rng):
    from nnx.backends.cuda._kernels import Kernels

    launches = []
    launch = Kernels.launch
    monkeypatch.setattr(Kernels, "launch", lambda self, name, *rest: (launches.append(name), launch(self, name, *rest)))
    for count, wanted in ((75, 1), (85, 2)):  # 60 and 68 of them are not empty; 64 fit into a launch
        launches.clear()
        lists = columns(rng, [(k % 5,) for k in range(count)], 2, np.float32)
        ours = [[cuda.asarray(a) for a in column] for column in lists]
        be.adam_step(*ours, *STEPS[9][2])
        BASE.adam_step(*lists, *STEPS[9][2])
        close(ours, lists, np.float32)
        assert launches == ["adam_step"] * wanted
    be.sgd_step([], [], [], True, 0.1, 0.0, 0.0, 0.0, False, False)
    be.scale([cuda.zeros((0,), np.float32)], 2.0)
    assert len(launches) == 2


def test_parameters_that_share_memory_are_updated_in_turn(cuda, be):
    a = np.ones(6, np.float32)
    there = cuda.asarray(a)
    be.scale([there[:4], there[2:]], 3.0)
    assert there.get().tolist() == [3, 3, 9, 9, 3, 3]
    p, g = cuda.ones(4, np.float32), cuda.ones(4, np.float32)
    be.sgd_step([p, g], [g, g], [], True, 0.5, 0.0, 0.0, 0.0, False, False)  # the second is its own gradient
    assert p.get().tolist() == [0.5] * 4 and g.get().tolist() == [0.5] * 4
    a, b = cuda.ones(4, np.float32), cuda.zeros(4, np.float32)
    be.sgd_step([a, b], [g, g], [], True, 2.0, 0.0, 0.0, 0.0, False, False)  # one gradient for two is not
    assert a.get().tolist() == [0] * 4 and b.get().tolist() == [-1] * 4


@each_dtype
def test_scale_and_clamp(cuda, be, dtype, rng):
    (arrays,) = ([np.asarray(rng.standard_normal(s) * 3, dtype) for s in SHAPES],)
    arrays[3][:3] = np.nan, np.inf, -np.inf
    ours = [cuda.asarray(a) for a in arrays]
    for method, numbers in (("scale", (0.3,)), ("clamp", (-0.5, 0.7))):
        getattr(be, method)(ours, *numbers)
        getattr(BASE, method)(arrays, *numbers)
        close([ours], [arrays], dtype)


@pytest.mark.parametrize("order", [1, 2, 3.5, math.inf])
@each_dtype
def test_norms(cuda, be, order, dtype, rng):
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in [*SHAPES, (70, 300)]]
    ours = [cuda.asarray(a) for a in arrays]
    expected = BASE.total_norm(arrays, order)
    norm = be.total_norm(ours, order)
    assert type(norm) is float and norm == pytest.approx(expected, rel=1e-12)
    assert be.total_norm([ours[-1].T, ours[0][::2]], order) == pytest.approx(
        BASE.total_norm([arrays[-1].T, arrays[0][::2]], order), rel=1e-12
    )
    ours[3][5] = cuda.asarray(np.nan)
    assert math.isnan(be.total_norm(ours, order))
    assert be.total_norm([], order) == 0 == be.total_norm([cuda.zeros((0, 3), dtype)], order)


def test_norms_of_more_than_a_table(cuda, be, rng):
    arrays = [rng.standard_normal(k) for k in range(150)]
    assert be.total_norm([cuda.asarray(a) for a in arrays], 2) == pytest.approx(BASE.total_norm(arrays, 2), rel=1e-12)


@pytest.mark.parametrize("most", [1e-3, 5.0, 1e6, math.inf])
@pytest.mark.parametrize("order", [2.0, math.inf])
def test_clipping_does_not_wait(cuda, most, order, rng):
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((40, 30), (7,))]
    here, there = ([nnx.Parameter(np.zeros_like(a)) for a in arrays] for _ in range(2))
    for p, q, a in zip(here, there, arrays, strict=True):
        q.data = cuda.asarray(q.data)
        p.grad, q.grad = a.copy(), cuda.asarray(a)
    expected = nn.utils.clip_grad_norm_(here, most, order)
    results = []
    replay = recorded(cuda, lambda: results.append(nn.utils.clip_grad_norm_(there, most, order)))  # waiting is an error
    replay()
    (norm,) = results
    assert norm.device == "cuda:0" and norm.dtype == np.float32
    np.testing.assert_allclose(norm.numpy(), expected.numpy(), 1e-6)
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(q.grad.get(), p.grad, 1e-6)


def test_clipping_nan_and_its_error(cuda):
    p = nnx.Parameter(cuda.ones(3, np.float32))
    p.grad = cuda.asarray(np.array([1, np.nan, 1], np.float32))
    with pytest.raises(RuntimeError, match="clip_grad_norm_: expected gradients with a finite norm"):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert p.grad.get()[0] == 1
    assert math.isnan(nn.utils.clip_grad_norm_([p], 1.0).item()) and np.isnan(p.grad.get()).all()


# -- optimizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), _optim.ROWS + _optim.OWN, ids=_optim.EVERY_ID)
def test_optimizers_go_the_same_way(cuda, name, options, rng):
    arrays = _optim.draw(rng, np.float32)
    here, ours = _optim.make(name, arrays, options)
    there, theirs = _optim.make(name, [cuda.asarray(a) for a in arrays], options)
    for step in range(3):
        grads = _optim.draw(rng, np.float32)
        _optim.set_gradients(here, step, grads)
        _optim.set_gradients(there, step, [cuda.asarray(g) for g in grads])
        ours.step()
        theirs.step()
    close([[p.data for p in there]], [[p.data for p in here]], np.float32)


def problem(cuda, name, options, rng):
    """Two parameters, a loss, and a learning rate that changes in each step."""
    params = [nnx.Parameter(cuda.asarray(rng.standard_normal(s).astype(np.float32))) for s in ((5, 3), (3,))]
    x = cuda.asarray(rng.standard_normal((4, 5)).astype(np.float32))
    optimizer = getattr(optim, name)(params, **options)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.7)

    def step():
        optimizer.zero_grad()
        w, b = params
        ((nnx.Tensor(x) @ w + b) ** 2).sum().backward()
        optimizer.step()

    return params, optimizer, scheduler, step


GRAPHS = [
    ("SGD", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.5}),
    ("Adadelta", {}),
]


@pytest.mark.parametrize(("name", "options"), GRAPHS, ids=lambda v: v if type(v) is str else "-".join(v))
def test_a_replayed_step_is_the_step(cuda, name, options):
    """The same bits with and without a graph, whatever the schedule does; and the counts of the state are right."""
    runs = []
    for graph in (False, True):
        params, optimizer, scheduler, step = problem(cuda, name, options, np.random.default_rng(0))
        step()  # the state is there
        scheduler.step()
        replay = recorded(cuda, step) if graph else step
        for _ in range(4):
            replay()
            scheduler.step()
        state = optimizer.state_dict()
        arrays = [p.data for p in params]
        arrays += [v for entry in state["state"].values() for v in entry.values() if hasattr(v, "get")]
        counts = [entry.get("step") for entry in state["state"].values()]
        runs.append(([a.get().tobytes() for a in arrays], counts, optimizer._step_count))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_whole_training_step(cuda, name, rng):
    """Dropout, labels, clipping and two groups in `nnx.cuda.graph`: the same bits as without."""
    x = rng.standard_normal((6, 4)).astype(np.float32)
    labels = rng.integers(0, 3, (8, 6))
    labels[2, 3] = -100
    runs = []
    for graph in (False, True):
        nnx.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)).to("cuda")
        groups = [{"params": [model[0].weight], "lr": 0.3}, {"params": [model[0].bias, *model[4].parameters()]}]
        optimizer = getattr(optim, name)(groups, lr=0.1)
        loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)

        def step(x, y, model=model, optimizer=optimizer, loss_function=loss_function):
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            nn.utils.clip_grad_value_(model.parameters(), 0.4)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            return loss

        run = nnx.cuda.graph(step, warmup=1) if graph else step
        losses = [run(cuda.asarray(x), cuda.asarray(y)).numpy().tobytes() for y in labels]
        runs.append((losses, [p.data.get().tobytes() for p in model.parameters()]))
    assert runs[0] == runs[1]
    assert len(set(runs[0][0])) == len(labels)


def test_a_graph_needs_all_numbers_again(cuda, be):
    p, g = cuda.ones(4, np.float32), cuda.ones(4, np.float32)
    replay = recorded(cuda, lambda: be.sgd_step([p], [g], [], True, 0.1, 0.0, 0.0, 0.0, False, False))
    replay()
    with pytest.raises(RuntimeError, match=r"cuda\.graph: expected all numbers of the captured step to be made again"):
        replay()


def test_a_graph_cannot_look_ahead(cuda):
    p = nnx.Parameter(cuda.ones(4, np.float32))
    optimizer = optim.Nesterov([p], lr=0.1)
    with pytest.raises(RuntimeError, match="Nesterov.step: expected no CUDA graph to be captured, got one"):
        recorded(cuda, lambda: optimizer.step(lambda: None))


def test_a_graph_needs_the_state_before(cuda):
    _, _, _, step = problem(cuda, "Adam", {}, np.random.default_rng(0))
    with pytest.raises(
        RuntimeError, match="Adam.step: expected exp_avg of parameter 0 to be there before a CUDA graph"
    ):
        recorded(cuda, step)


def test_a_graph_notices_other_state(cuda):
    for change in ("state", "settings", "parameter"):
        params, optimizer, _, step = problem(cuda, "Adam", {}, np.random.default_rng(0))
        step()
        replay = recorded(cuda, step)
        replay()
        if change == "state":
            optimizer.load_state_dict(optimizer.state_dict())
        elif change == "settings":
            optimizer.param_groups[0]["amsgrad"] = True
        else:
            params[0].data = params[0].data.copy()
        with pytest.raises(
            RuntimeError, match="Adam.step: expected the parameters and the state that the CUDA graph was"
        ):
            replay()


def test_a_graph_takes_dense_parameters_only(cuda):
    p = nnx.Parameter(cuda.ones(4, np.float32))
    p.data = cuda.ones(8, np.float32)[::2]
    p.grad = cuda.ones(4, np.float32)
    optimizer = optim.SGD([p], lr=0.1)
    with pytest.raises(RuntimeError, match="cuda.graph: expected parameters of sgd_step that are dense"):
        recorded(cuda, optimizer.step)


def test_many_numbers_of_a_graph(cuda):
    """More than fit into one launch: their places stay the same from replay to replay."""
    from nnx.backends.cuda._capture import capturing

    counts = [30, 30, 10, 64, 1]
    with capturing() as numbers:
        places = [numbers.numbers([float(k)] * k) for k in counts]
        numbers.when_replayed(lambda: [numbers.numbers([k + 0.5] * k) for k in counts])
    numbers.before_launch()
    assert [set(p.get()) for p in places] == [{float(k)} for k in counts]
    numbers.before_launch()
    assert [set(p.get()) for p in places] == [{k + 0.5} for k in counts]


def test_no_capture_inside_of_another(cuda):
    from nnx.backends.cuda._capture import capturing, current

    with (
        capturing(),
        pytest.raises(RuntimeError, match=r"cuda\.graph: expected no capture inside of another one"),
        capturing(),
    ):
        pass
    assert current() is None
