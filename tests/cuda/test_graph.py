"""Steps captured as CUDA graphs, on the stand-in: while it captures nothing is computed, and a launch does it all."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn, optim


def model_of(seed=0, dropout=0.0):
    nnx.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(36, 3)).to("cuda")


def batches(count, n=5):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((n, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, n)) for _ in range(count)]


def step_of(model, optimizer, clip=None):
    loss_function = nn.CrossEntropyLoss()

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def run(cuda, step, data):
    return [float(step(cuda.asarray(x), cuda.asarray(y)).item()) for x, y in data]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        lambda p: optim.Adam(p, lr=0.01),
        lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
        lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
        lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1),
        lambda p: optim.Adadelta(p),
    ],
    ids=("sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adadelta"),
)
def test_a_replayed_step_is_a_step(cuda, make):
    data = batches(7)
    results = []
    for captured in (False, True):
        model = model_of()
        optimizer = make(model.parameters())
        step = step_of(model, optimizer)
        losses = run(cuda, nnx.cuda.graph(step) if captured else step, data)
        results.append((losses, model.cpu().state_dict(), optimizer.state_dict()))
    (losses, weights, state), (losses_there, weights_there, state_there) = results
    assert losses_there == losses
    for name in weights:
        np.testing.assert_array_equal(weights_there[name], weights[name])
    for number, entry in state["state"].items():
        for name, value in entry.items():
            other = state_there["state"][number][name]
            nnx.testing.assert_close(other, value, 0) if hasattr(value, "shape") else None
            assert hasattr(value, "shape") or other == value, f"{name}: the count went on while graphs were replayed"


def test_a_schedule_is_followed(cuda):
    data = batches(8)
    results = []
    for captured in (False, True):
        model = model_of()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        step = step_of(model, optimizer)
        step = nnx.cuda.graph(step) if captured else step
        losses = []
        for x, y in data:
            losses.append(float(step(cuda.asarray(x), cuda.asarray(y)).item()))
            schedule.step()
        results.append(losses)
    assert results[0] == results[1]


def test_dropout_draws_new_masks(cuda):
    data = batches(1) * 6
    results = []
    for captured in (False, True):
        model = model_of(dropout=0.5)
        step = step_of(model, optim.SGD(model.parameters(), lr=0.0))
        results.append(run(cuda, nnx.cuda.graph(step) if captured else step, data))
    assert results[0] == results[1]
    assert len(set(results[1])) == len(data), "each step has a mask of its own"


def test_inputs_from_the_cpu_and_tensors(cuda):
    graph = nnx.cuda.graph(lambda x: (x * 2).sum())
    for i in range(5):
        x = np.full(3, i, np.float32)
        for form in (x, cuda.asarray(x), nnx.tensor(x), nnx.tensor(cuda.asarray(x))):
            assert graph(form).item() == 6 * i


def test_several_results_and_shapes(cuda):
    graph = nnx.cuda.graph(lambda x: (nnx.tensor(x) + 1, (x * x).sum()), warmup=1)
    for n in (3, 2, 3, 2, 3, 2):
        y, total = graph(np.arange(n, dtype=np.float32))
        assert y.tolist() == [i + 1 for i in range(n)]
        assert float(total) == sum(i * i for i in range(n))


def test_the_odd_last_batch(cuda):
    model = model_of()
    graph = nnx.cuda.graph(step_of(model, optim.SGD(model.parameters(), lr=0.01)), warmup=1)
    losses = run(cuda, graph, batches(3) + batches(1, 2) + batches(2) + batches(2, 2))
    assert np.isfinite(losses).all()


def test_memory_of_a_graph_stays_its_own(cuda):
    """What is made between two launches may not lie where the graph works."""
    graph = nnx.cuda.graph(lambda x: (nnx.exp(x) * 3).sum(), warmup=1)
    x = np.ones((8, 8), np.float32)
    expected = graph(x).item()
    kept = []
    for _ in range(6):
        assert graph(x).item() == expected
        kept.append(cuda.full((8, 8), 7.0))
    assert all(float(k.sum()) == 448 for k in kept)


def test_what_cannot_be_recorded(cuda):
    model = model_of()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    inner = step_of(model, optimizer)
    graph = nnx.cuda.graph(lambda x, y: nnx.tensor(inner(x, y).item()), warmup=1)
    (x, y), *_ = batches(1)
    graph(x, y)
    before = {name: a.get() for name, a in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="nnx.cuda.graph: expected a step that can be recorded, CuPy reports"):
        graph(x, y)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a.get(), before[name])
    assert nnx.tensor(x).to("cuda").sum().item() == pytest.approx(float(x.sum()), rel=1e-5), "the stream works again"


def test_errors_of_the_step_are_passed_on(cuda):
    def step(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nnx.cuda.graph(step)(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="nnx.cuda.graph: expected step to be a function, got int"):
        nnx.cuda.graph(3)
    with pytest.raises(ValueError, match="nnx.cuda.graph: expected warmup to be an integer >= 1, got 0"):
        nnx.cuda.graph(step, warmup=0)
