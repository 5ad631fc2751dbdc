"""The training loop."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.train import Callback, History, Trainer


def test_it_learns_and_records_plain_lists(toy):
    trainer = toy.trainer()
    history = toy.fit(trainer, epochs=20)
    assert history is trainer.history and isinstance(history, History)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    for values in history.values():
        assert type(values) is list and len(values) == 20
        assert all(type(v) is float for v in values)
    assert history.loss[-1] < 0.3 * history.loss[0]
    assert history["val_accuracy"][-1] >= 0.9
    assert history.lr == [0.05] * 20
    assert json.loads(json.dumps(history)) == history


def test_without_validation(toy):
    assert set(toy.fit(toy.trainer(), validation=None)) == {"loss", "accuracy", "lr", "seconds"}


def test_no_epochs(toy):
    trainer = toy.trainer()
    before = toy.bits(trainer)
    assert toy.fit(trainer, epochs=0) == {}
    assert toy.bits(trainer) == before


def test_the_same_seed_gives_the_same_bits(toy):
    runs = []
    for seed in (1, 1, 2):
        trainer = toy.trainer()
        runs.append((toy.numbers(toy.fit(trainer, seed=seed)), toy.bits(trainer)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_without_a_seed_manual_seed_decides(toy):
    runs = []
    for _ in range(2):
        trainer = toy.trainer(seed=5)
        toy.fit(trainer, seed=None)
        runs.append(toy.bits(trainer))
    assert runs[0] == runs[1]


def test_the_last_batch_counts_by_its_size(toy):
    """With a learning rate of 0 the mean over batches is the mean over samples."""
    trainer = toy.trainer(optimizer=lambda p: nnx.optim.SGD(p, lr=0.0))
    trainer.model.eval()
    for module in trainer.model.modules():
        module.training = module is trainer.model  # no dropout, no batch statistics
    history = toy.fit(trainer, transform=None, epochs=1)
    result = trainer.evaluate(toy.x, toy.y)
    assert history.loss[0] == pytest.approx(result["loss"], rel=1e-6)
    assert history.accuracy[0] == result["accuracy"]


def test_evaluate_measures_and_changes_nothing(toy):
    trainer = toy.trainer()
    toy.fit(trainer, epochs=2)
    state, random = toy.bits(trainer), nnx._random.get_state()
    result = trainer.evaluate(toy.xv, toy.yv, batch_size=3)
    assert (toy.bits(trainer), nnx._random.get_state()) == (state, random)
    assert trainer.model.training
    scores = trainer.model.predict(toy.xv).astype(np.float64)
    assert result["accuracy"] == (scores.argmax(1) == toy.yv).mean()
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert result["loss"] == pytest.approx(-logs[np.arange(10), toy.yv].mean(), rel=1e-5)
    loader = nnx.data.DataLoader((toy.xv, toy.yv), 4)
    assert trainer.evaluate(loader)["accuracy"] == result["accuracy"]
    dataset = nnx.data.ArrayDataset(toy.xv, toy.yv)
    assert trainer.evaluate(dataset)["accuracy"] == result["accuracy"]
    assert trainer.evaluate(nnx.tensor(toy.xv), toy.yv)["accuracy"] == result["accuracy"]


def test_history_has_what_evaluate_says(toy):
    trainer = toy.trainer()
    history = toy.fit(trainer)
    assert trainer.evaluate(toy.xv, toy.yv)["loss"] == history.val_loss[-1]


def test_regression_has_no_accuracy():
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    model = nn.Linear(1, 1)
    trainer = Trainer(model, nn.MSELoss(), nnx.optim.SGD(model.parameters(), lr=0.5))
    history = trainer.fit(x, 3 * x + 1, epochs=50, batch_size=20, seed=0)
    assert set(history) == {"loss", "lr", "seconds"}
    assert history.loss[-1] < 1e-3
    assert model.weight.item() == pytest.approx(3, abs=0.05)


def test_metrics_of_ones_own(toy):
    def confidence(output, target):
        assert isinstance(output, np.ndarray) and isinstance(target, np.ndarray)
        return float(output.max())

    def hits(output, target):
        return output.argmax(1) == target

    trainer = toy.trainer(metrics=("accuracy", hits, confidence))
    history = toy.fit(trainer, epochs=1)
    assert history.hits == history.accuracy
    assert {"confidence", "val_confidence"} <= set(history)
    assert set(toy.trainer(metrics=()).evaluate(toy.x, toy.y)) == {"loss"}


@pytest.mark.parametrize("kind", ["loader", "dataset", "iterable"])
def test_other_sources_of_batches(toy, kind):
    class Batches:
        def __iter__(self):
            return iter([(toy.x[:20], toy.y[:20]), (toy.x[20:], toy.y[20:])])

    source = {
        "loader": nnx.data.DataLoader((toy.x, toy.y), 20, shuffle=True, seed=1),
        "dataset": nnx.data.ArrayDataset(toy.x, toy.y),
        "iterable": Batches(),
    }[kind]
    trainer = toy.trainer()
    history = trainer.fit(source, epochs=2, batch_size=20, verbose=False)
    assert history.epochs == 2 and trainer.step == 4


def test_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(4, 3)

        def forward(self, x, z):
            return self.a(x) + self.b(z)

    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((12, 2)), rng.standard_normal((12, 4))
    model = Sum()
    trainer = Trainer(model, nn.CrossEntropyLoss(), nnx.optim.SGD(model.parameters(), lr=0.1))
    loader = nnx.data.DataLoader((x, z, rng.integers(0, 3, 12)), 5)
    assert trainer.fit(loader, epochs=2).epochs == 2
    assert set(trainer.evaluate(loader)) == {"loss", "accuracy"}


def test_clip_grad_norm(toy):
    class Norms(Callback):
        norms: list = []

        def on_step_end(self, trainer):
            squares = [float((p.grad**2).sum()) for p in trainer.model.parameters()]
            self.norms.append(sum(squares) ** 0.5)

    norms = Norms()
    toy.fit(toy.trainer(clip_grad_norm=0.1), callbacks=[norms])
    assert len(norms.norms) == 15 and max(norms.norms) <= 0.1 * (1 + 1e-5)
    assert max(norms.norms) > 0.09


def test_an_optimizer_that_needs_a_closure(toy):
    trainer = toy.trainer(optimizer=lambda p: nnx.optim.LBFGS(p, lr=0.5, max_iter=4))
    trainer.model[5].p = 0.0
    history = toy.fit(trainer, epochs=4, batch_size=40, transform=None)
    assert history.loss[-1] < 0.5 * history.loss[0]


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_schedulers(toy, every):
    model = toy.model()
    optimizer = nnx.optim.SGD(model.parameters(), lr=0.1)
    if every == "epoch":
        schedule = nnx.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        expected = [0.1, 0.05, 0.025]
    else:
        schedule = nnx.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=15, cycle_momentum=False)
        twin = nnx.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        rates = []
        other = nnx.optim.lr_scheduler.OneCycleLR(twin, 0.1, total_steps=15, cycle_momentum=False)
        for _ in range(15):
            rates.append(twin.param_groups[0]["lr"])
            twin.step()
            other.step()
        expected = rates[4::5]
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    assert toy.fit(trainer).lr == pytest.approx(expected)


# -- modes -----------------------------------------------------------------------------------------


def test_training_mode_during_fit_and_the_old_one_after(toy):
    class Modes(Callback):
        seen: set = set()

        def on_step_end(self, trainer):
            self.seen.update(m.training for m in trainer.model.modules())

    for mode in (True, False):
        trainer = toy.trainer()
        trainer.model.train(mode)
        modes = Modes()
        toy.fit(trainer, callbacks=[modes])
        assert modes.seen == {True}
        assert {m.training for m in trainer.model.modules()} == {mode}


def test_a_frozen_part_stays_in_evaluation_mode(toy):
    trainer = toy.trainer()
    norm = trainer.model[1]
    norm.eval()
    toy.fit(trainer)
    assert not norm.training and trainer.model.training
    assert norm.running_mean.tolist() == [0, 0, 0, 0]


def test_frozen_parameters(toy):
    trainer = toy.trainer()
    trainer.model[0].requires_grad_(False)
    before = trainer.model[0].weight.data.copy()
    toy.fit(trainer)
    np.testing.assert_array_equal(trainer.model[0].weight.data, before)


def test_modes_come_back_after_an_error(toy):
    trainer = toy.trainer()
    trainer.model.eval()
    bad = toy.y.copy()
    bad[5] = 99
    with pytest.raises((ValueError, IndexError)):
        trainer.fit(toy.x, bad, epochs=1, verbose=False)
    assert not trainer.model.training
    before = threading.active_count()
    toy.fit(trainer)
    assert threading.active_count() == before


def test_fit_in_another_thread(toy):
    trainer, other = toy.trainer(), toy.trainer()
    toy.fit(trainer)
    nnx.manual_seed(0)
    toy.model()  # the random stream goes on where it did for the first one
    thread = threading.Thread(target=toy.fit, args=(other,))
    thread.start()
    thread.join()
    assert other.history.epochs == 3


# -- errors ----------------------------------------------------------------------------------------


def test_errors_of_the_constructor(toy):
    model, loss = toy.model(), nn.CrossEntropyLoss()
    cases = [
        (lambda: Trainer(3, loss), r"Trainer: expected model to be a Module, got int"),
        (lambda: Trainer(model, 3), r"Trainer: expected loss to be a function, got int"),
        (lambda: Trainer(model, loss, 3), r"Trainer: expected optimizer to be one of nnx.optim, got int"),
        (
            lambda: Trainer(model, loss, scheduler=3),
            r"LRSchedule: expected scheduler to be one of nnx.optim.lr_scheduler, got int",
        ),
        (lambda: Trainer(model, loss, metrics=3), r"Trainer: expected metrics to be a sequence .* got 3"),
        (lambda: Trainer(model, loss, metrics=(3,)), r"expected each of metrics to be a name or a function"),
    ]
    for make, text in cases:
        with pytest.raises(TypeError, match=text):
            make()
    with pytest.raises(ValueError, match=r"Trainer: expected metrics among 'accuracy' or functions, got 'f1'"):
        Trainer(model, loss, metrics=("f1",))
    with pytest.raises(ValueError, match=r"Trainer: expected clip_grad_norm to be a number in \(0"):
        Trainer(model, loss, clip_grad_norm=0)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"epochs": -1}, ValueError, r"Trainer.fit: expected epochs to be an integer >= 0, got -1"),
        ({"epochs": 1.5}, TypeError, r"Trainer.fit: expected epochs to be an integer >= 0, got 1.5"),
        ({"batch_size": 0}, ValueError, r"batch_size to be an integer >= 1, got 0"),
        ({"callbacks": [3]}, TypeError, r"Trainer.fit: expected callbacks to be nnx.train.Callback .* got 3"),
        ({"resume": True}, ValueError, r"Trainer.fit: expected a Checkpoint callback for resume=True"),
        ({"resume": "nowhere"}, FileNotFoundError, r"expected resume to be a checkpoint, got 'nowhere'"),
        ({"resume": "."}, FileNotFoundError, r"expected resume to be a folder with checkpoints, got '.'"),
        ({"validation": (1, 2, 3)}, ValueError, r"expected validation to be \(x, y\) or a loader, got 3 items"),
        ({"batch_size": 50, "drop_last": True}, ValueError, r"expected at least one batch, got none. Is drop_last"),
    ],
)  # fmt: skip
def test_errors_of_fit(toy, arguments, error, text):
    trainer = toy.trainer()
    with pytest.raises(error, match=text):
        toy.fit(trainer, **arguments)


def test_errors_of_sources(toy):
    trainer = toy.trainer()
    with pytest.raises(TypeError, match=r"Trainer.fit: expected targets y beside an array x, got None"):
        trainer.fit(toy.x)
    with pytest.raises(TypeError, match=r"Trainer.evaluate: expected targets y beside an array x"):
        trainer.evaluate(toy.x)
    with pytest.raises(ValueError, match=r"expected arrays of equal length"):
        trainer.fit(toy.x, toy.y[:-1])
    loader = nnx.data.DataLoader((toy.x, toy.y), 4)
    with pytest.raises(ValueError, match=r"Trainer.fit: expected seed to be an argument of the loader"):
        trainer.fit(loader, seed=1)
    with pytest.raises(ValueError, match=r"expected batches of inputs and targets, got tuple of 1"):
        trainer.fit(nnx.data.DataLoader(toy.x, 4))
    with pytest.raises(ValueError, match=r"Trainer.fit: expected at least one batch, got none"):
        trainer.fit(iter([]))
    with pytest.raises(ValueError, match=r"Trainer.evaluate: expected at least one sample, got none"):
        trainer.evaluate(toy.x[:0], toy.y[:0])
    with pytest.raises(ValueError, match=r"Trainer.fit: expected Trainer to be given an optimizer, got None"):
        Trainer(trainer.model, nn.CrossEntropyLoss()).fit(toy.x, toy.y)


def test_a_loss_that_is_no_number(toy):
    model = toy.model()
    trainer = Trainer(model, nn.CrossEntropyLoss(reduction="none"), nnx.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"Trainer: expected loss to return a Tensor of one number, got shape \(9,\)"):
        toy.fit(trainer)
    trainer = Trainer(model, lambda o, t: 3.0)
    with pytest.raises(ValueError, match=r"expected loss to return a Tensor of one number, got float"):
        trainer.evaluate(toy.x, toy.y)


def test_accuracy_of_what_has_no_classes():
    trainer = Trainer(nn.Linear(2, 2), nn.MSELoss(), metrics=("accuracy",))
    with pytest.raises(ValueError, match=r"accuracy: expected scores of shape \(N, C, ...\) and integer"):
        trainer.evaluate(np.ones((3, 2)), np.ones((3, 2), np.float32))
