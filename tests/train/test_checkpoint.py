"""Checkpoints: the same bits with and without an interruption, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx import nn, optim
from nnx.train import Callback, Checkpoint, EarlyStopping, StopOnNaN, Trainer, latest_checkpoint
from nnx.train.checkpoint import checkpoints, read_checkpoint, write_checkpoint

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: optim.Adadelta(p),
    "LBFGS": lambda p: optim.LBFGS(p, lr=0.2, max_iter=3, history_size=4),
}


def schedule(trainer_optimizer, kind):
    rates = optim.lr_scheduler
    return {
        None: lambda: None,
        "onecycle": lambda: rates.OneCycleLR(trainer_optimizer, 0.1, total_steps=15, cycle_momentum=False),
        "exponential": lambda: rates.ExponentialLR(trainer_optimizer, 0.7),
        "cosine": lambda: rates.CosineAnnealingLR(trainer_optimizer, 3),
    }[kind]()


def make(toy, optimizer, kind, seed=0):
    model = toy.model(seed)
    built = OPTIMIZERS[optimizer](model.parameters())
    return Trainer(model, nn.CrossEntropyLoss(), built, scheduler=schedule(built, kind))


def everything(toy, trainer):
    groups = trainer.optimizer.state_dict()["param_groups"]
    return toy.bits(trainer), toy.numbers(trainer.history), groups, nnx._random.get_state()


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("SGD", None),
        ("momentum", "onecycle"),
        ("Adam", "onecycle"),
        ("amsgrad", None),
        ("AdamW", "exponential"),
        ("RMSprop", "cosine"),
        ("Adagrad", None),
        ("Adadelta", None),
        ("LBFGS", None),
    ],
)
def test_resuming_anywhere_gives_the_same_bits(toy, tmp_path, optimizer, kind):
    """3 epochs of 5 steps, with dropout, batch norm, augmentation, shuffling, momentum and a schedule."""
    plain = make(toy, optimizer, kind)
    toy.fit(plain)
    expected = everything(toy, plain)

    kept = make(toy, optimizer, kind)
    toy.fit(kept, callbacks=[Checkpoint(tmp_path, every_steps=1, keep=None)])
    assert everything(toy, kept) == expected  # writing checkpoints changes nothing

    files = checkpoints(tmp_path)
    assert [int(p.stem[-9:]) for p in files] == list(range(1, 16))
    for path in (files[0], files[6], files[8], files[9], files[13], files[14]):
        resumed = make(toy, optimizer, kind, seed=99)
        nnx.manual_seed(12345)
        toy.fit(resumed, resume=path, seed=777)  # the seed in the checkpoint counts
        assert everything(toy, resumed) == expected, path.name


@pytest.mark.parametrize("prefetch", [0, 3])
def test_resuming_a_loader(toy, tmp_path, prefetch):
    def loader():
        return nnx.data.DataLoader((toy.x, toy.y), 9, shuffle=True, seed=3, prefetch=prefetch, transform=toy.jitter)

    plain = make(toy, "Adam", None)
    plain.fit(loader(), epochs=2, callbacks=[Checkpoint(tmp_path, every_steps=3)], verbose=False)
    for path in checkpoints(tmp_path):
        resumed = make(toy, "Adam", None, seed=4)
        resumed.fit(loader(), epochs=2, resume=path, verbose=False)
        assert everything(toy, resumed) == everything(toy, plain)


def test_resuming_a_plain_iterable(toy, tmp_path):
    class Batches:
        def __iter__(self):
            return iter([(toy.x[i::4], toy.y[i::4]) for i in range(4)])

    plain = make(toy, "Adam", None)
    plain.fit(Batches(), epochs=3, callbacks=[Checkpoint(tmp_path, every_steps=1, keep=None)])
    path = checkpoints(tmp_path)[5]
    resumed = make(toy, "Adam", None, seed=4)
    resumed.fit(Batches(), epochs=3, resume=path)
    assert everything(toy, resumed) == everything(toy, plain)


def test_the_memory_of_callbacks_survives(toy, tmp_path):
    def callbacks(folder):
        return [
            Checkpoint(folder, every_steps=1, keep=None, best="val_loss"),
            EarlyStopping("val_loss", patience=1, min_delta=0.05),
            EarlyStopping("loss", patience=9),
            StopOnNaN(),
        ]

    plain = make(toy, "Adam", "exponential")
    first = callbacks(tmp_path / "a")
    toy.fit(plain, epochs=12, callbacks=first)
    assert plain.stopped is not None and plain.history.epochs < 12
    best = (tmp_path / "a" / "best.safetensors").read_bytes()
    for path in checkpoints(tmp_path / "a")[3::9]:
        resumed = make(toy, "Adam", "exponential", seed=3)
        second = callbacks(tmp_path / "b" / path.stem)
        toy.fit(resumed, epochs=12, callbacks=second, resume=path)
        assert everything(toy, resumed) == everything(toy, plain)
        assert resumed.stopped == plain.stopped
        assert (second[1].best, second[1].best_epoch) == (first[1].best, first[1].best_epoch)
        if (tmp_path / "b" / path.stem / "best.safetensors").exists():
            assert (tmp_path / "b" / path.stem / "best.safetensors").read_bytes() == best


def test_a_finished_run_resumes_to_itself(toy, tmp_path):
    plain = make(toy, "Adam", "onecycle")
    toy.fit(plain, callbacks=[Checkpoint(tmp_path)])
    again = make(toy, "Adam", "onecycle", seed=3)
    toy.fit(again, callbacks=[Checkpoint(tmp_path)], resume=tmp_path)
    assert everything(toy, again) == everything(toy, plain)


def test_resume_true_starts_where_there_is_nothing(toy, tmp_path):
    results = []
    for epochs in (1, 3):
        trainer = make(toy, "Adam", None)
        toy.fit(trainer, epochs=epochs, callbacks=[Checkpoint(tmp_path / "new")], resume=True)
        results.append(trainer)
    plain = make(toy, "Adam", None)
    toy.fit(plain)
    assert results[1].resumed_from is not None and results[0].resumed_from is None
    assert everything(toy, results[1]) == everything(toy, plain)


def test_loading_outside_of_fit(toy, tmp_path):
    trainer = make(toy, "Adam", "exponential")
    toy.fit(trainer)
    trainer.save_checkpoint(tmp_path / "c")
    other = make(toy, "Adam", "exponential", seed=9)
    other.load_checkpoint(tmp_path / "c")
    assert everything(toy, other) == everything(toy, trainer)
    assert other.epoch == 3 and other.step == 15


# -- Ctrl-C ----------------------------------------------------------------------------------------


class Strike:
    """A transform, loss or metric that is struck by Ctrl-C, or another signal, in its `call`-th call."""

    def __init__(self, function, call, times=1, number=signal.SIGINT):
        self.function, self.call, self.times, self.calls = function, call, times, 0
        self.number = number

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == self.call:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        return self.function(*arguments)


@pytest.mark.parametrize("kind", ["onecycle", "exponential"])
@pytest.mark.parametrize("call", [1, 6, 7, 10, 12, 18])  # loss calls: 5 steps, then 1 of validation
def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint(toy, tmp_path, call, kind):
    plain = make(toy, "momentum", kind)
    toy.fit(plain)
    trainer = make(toy, "momentum", kind)
    trainer.loss = Strike(trainer.loss, call)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(trainer, callbacks=[Checkpoint(tmp_path, None)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert trainer.model.training
    epochs, rest = divmod(call, 6)
    assert trainer.step == epochs * 5 + rest
    assert trainer.history.epochs == epochs - (rest == 0)  # in validation: the epoch is not over
    trainer.model.predict(toy.xv)
    [path] = checkpoints(tmp_path)
    resumed = make(toy, "momentum", kind, seed=5)
    toy.fit(resumed, resume=tmp_path)
    assert everything(toy, resumed) == everything(toy, plain)
    assert latest_checkpoint(tmp_path) == path


def test_ctrl_c_in_a_callback(toy, tmp_path):
    class Impatient(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 4:
                raise KeyboardInterrupt

    trainer = make(toy, "Adam", None)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(trainer, callbacks=[Impatient(), Checkpoint(tmp_path)])
    resumed, plain = make(toy, "Adam", None, seed=2), make(toy, "Adam", None)
    toy.fit(plain)
    toy.fit(resumed, resume=tmp_path)
    assert resumed.step == 15
    assert toy.bits(resumed) == toy.bits(plain)


def test_ctrl_c_at_the_very_end_is_not_lost(toy):
    class Late(Callback):
        def on_fit_end(self, trainer):
            signal.raise_signal(signal.SIGINT)

    trainer = make(toy, "SGD", None)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(trainer, callbacks=[Late()])
    assert trainer.history.epochs == 3


def test_the_second_ctrl_c_does_not_wait(toy, tmp_path):
    trainer = make(toy, "SGD", None)
    trainer.loss = Strike(trainer.loss, 2, times=2)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(trainer, callbacks=[Checkpoint(tmp_path)])
    assert trainer.step == 1 and checkpoints(tmp_path) == []  # in the middle of a step: nothing is written
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert trainer.model.training


def test_sigterm_finishes_the_step_and_leaves_a_checkpoint(toy, tmp_path):
    plain = make(toy, "momentum", None)
    toy.fit(plain)
    trainer = make(toy, "momentum", None)
    trainer.loss = Strike(trainer.loss, 7, number=signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        toy.fit(trainer, callbacks=[Checkpoint(tmp_path, None)])
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert trainer.step == 6
    resumed = make(toy, "momentum", None, seed=5)
    toy.fit(resumed, resume=tmp_path)
    assert everything(toy, resumed) == everything(toy, plain)


def test_a_handler_of_ones_own_is_left_alone(toy):
    seen = []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        trainer = make(toy, "SGD", None)
        trainer.loss = Strike(trainer.loss, 2)
        toy.fit(trainer)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [1] and trainer.step == 15


# -- files -----------------------------------------------------------------------------------------


def test_the_newest_are_kept(toy, tmp_path):
    toy.fit(make(toy, "SGD", None), callbacks=[Checkpoint(tmp_path, every_steps=2, keep=3)])
    assert [p.name[-15:-12] for p in checkpoints(tmp_path)] == ["012", "014", "015"]
    toy.fit(make(toy, "SGD", None), epochs=5, callbacks=[Checkpoint(tmp_path / "e", 2, keep=None)])
    assert [p.name[-15:-12] for p in checkpoints(tmp_path / "e")] == ["010", "020", "025"]


def test_the_best_weights_are_a_file_for_load(toy, tmp_path):
    class Keep(Callback):
        weights: list = []

        def on_epoch_end(self, trainer):
            self.weights.append({k: a.copy() for k, a in trainer.model.state_dict().items()})

    keep = Keep()
    trainer = make(toy, "Adam", None)
    toy.fit(trainer, epochs=4, callbacks=[keep, Checkpoint(tmp_path, best="val_loss")])
    best = int(np.argmin(trainer.history.val_loss))
    loaded = nnx.load(tmp_path / "best.safetensors")
    for name, array in keep.weights[best].items():
        np.testing.assert_array_equal(loaded[name], array)


def test_checkpoints_of_another_run(toy, tmp_path):
    toy.fit(make(toy, "SGD", None), callbacks=[Checkpoint(tmp_path)])
    before = sorted(tmp_path.iterdir())
    text = r"Checkpoint: expected a folder without checkpoints, got .* Pass resume= to fit to go on, or overwrite"
    with pytest.raises(FileExistsError, match=text):
        toy.fit(make(toy, "SGD", None), callbacks=[Checkpoint(tmp_path)])
    assert sorted(tmp_path.iterdir()) == before
    toy.fit(make(toy, "SGD", None), epochs=1, callbacks=[Checkpoint(tmp_path, overwrite=True)])
    assert [p.name[-15:-12] for p in checkpoints(tmp_path)] == ["005"]


@pytest.mark.parametrize("name", ["every_epochs", "every_steps", "keep"])
def test_errors_of_checkpoint(tmp_path, name):
    with pytest.raises(ValueError, match=rf"Checkpoint: expected {name} to be an integer >= 1, got 0"):
        Checkpoint(tmp_path, **{name: 0})


def test_the_tree_keeps_types(tmp_path):
    tree = {
        "numbers": [1, 2.5, -0.0, True, None, 2**100, 1e-300],
        "tuple": (1, (2.0, "x")),
        "keys": {0: "a", "0": "b", (1, 2): np.arange(3)},
        "odd": {"$array": "no array", "$dict": [1]},
        "arrays": {"f": np.float32([[1, 2]]), "zero-d": np.array(7), "empty": np.zeros((0, 2))},
        "numpy": [np.float64(0.1), np.int64(5), np.bool_(True)],
        "same": {"a/b": np.ones(1), "a": {"b": np.zeros(1)}},
    }
    write_checkpoint(tmp_path / "c", tree)
    back = read_checkpoint(tmp_path / "c")
    assert back["numbers"] == tree["numbers"] and back["tuple"] == tree["tuple"]
    assert list(back["keys"]) == [0, "0", (1, 2)] and back["odd"] == tree["odd"]
    assert back["numpy"] == [0.1, 5, True] and str(back["numbers"][2]) == "-0.0"
    assert back["same"]["a/b"] == 1 and back["same"]["a"]["b"] == 0
    for name, array in tree["arrays"].items():
        assert back["arrays"][name].dtype == array.dtype
        np.testing.assert_array_equal(back["arrays"][name], array)
    with pytest.raises(TypeError, match=r"save_checkpoint: expected plain data .* got object at 'a/0'"):
        write_checkpoint(tmp_path / "d", {"a": [object()]})
    assert not (tmp_path / "d").exists()


def test_damage_is_noticed(toy, tmp_path):
    trainer = make(toy, "Adam", None)
    toy.fit(trainer, epochs=1)
    trainer.save_checkpoint(tmp_path / "c")
    sound = (tmp_path / "c").read_bytes()
    before = everything(toy, trainer)
    rng = np.random.default_rng(0)
    for place in [8, 100, len(sound) // 2, len(sound) - 1, *rng.integers(0, len(sound), 40)]:
        data = bytearray(sound)
        data[place] ^= 4
        (tmp_path / "c").write_bytes(bytes(data))
        with pytest.raises(ValueError, match=str(tmp_path / "c")):
            trainer.load_checkpoint(tmp_path / "c")
    (tmp_path / "c").write_bytes(sound[:-1])
    with pytest.raises(ValueError, match=str(tmp_path / "c")):
        trainer.load_checkpoint(tmp_path / "c")
    assert everything(toy, trainer) == before


def test_files_that_are_no_checkpoints(toy, tmp_path):
    trainer = make(toy, "Adam", None)
    nnx.save(trainer.model, tmp_path / "w")
    with pytest.raises(ValueError, match=r"load_checkpoint: expected '.*w' to be a checkpoint, got a file of arr"):
        toy.fit(trainer, resume=tmp_path / "w")


def test_other_versions(tmp_path, monkeypatch):
    monkeypatch.setattr("nnx.train.checkpoint._VERSION", 7)
    write_checkpoint(tmp_path / "c", {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"load_checkpoint: expected version 1 in '.*c', got 7"):
        read_checkpoint(tmp_path / "c")


def test_what_does_not_fit_changes_nothing(toy, tmp_path):
    trainer = make(toy, "Adam", "exponential")
    folder = tmp_path / "run"
    toy.fit(trainer, callbacks=[Checkpoint(folder), EarlyStopping()])

    def attempt(other, error, text, **arguments):
        before = everything(toy, other)
        settings = {"callbacks": [EarlyStopping()], "resume": folder} | arguments
        with pytest.raises(error, match=text):
            toy.fit(other, **settings)
        weights, _, groups, _ = everything(toy, other)
        assert (weights, groups) == (before[0], before[2])

    fresh = make(toy, "Adam", "exponential")
    attempt(fresh, ValueError, r"expected a run with 4 batches per epoch, got 5", batch_size=10)
    attempt(fresh, ValueError, r"expected callbacks for the saved state of EarlyStopping", callbacks=[])
    attempt(make(toy, "RMSprop", "exponential"), ValueError, r"RMSprop.load_state_dict")
    attempt(make(toy, "Adam", "onecycle"), ValueError, r"OneCycleLR.load_state_dict")
    attempt(fresh, ValueError, r"DataLoader: expected state with shuffle False, got True", shuffle=False)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    other = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), scheduler=None)
    attempt(other, (KeyError, ValueError), r"load_state_dict|LRSchedule")
    toy.fit(fresh, callbacks=[EarlyStopping()], resume=folder)
    assert toy.bits(fresh) == toy.bits(trainer)


# -- kill -9 ---------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
import numpy as np, nnx
sys.path.insert(0, {here!r})
from conftest import Toy
from test_checkpoint import make
from nnx.train import Callback, Checkpoint

mode, folder = sys.argv[1:]
toy = Toy()
trainer = make(toy, "momentum", "onecycle")

class Kill(Callback):
    order = -1000
    def on_step_end(self, trainer):
        if mode == "step" and trainer.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

real = os.replace
def replace(*args):
    if trainer.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
if mode == "write":
    os.replace = replace
toy.fit(trainer, callbacks=[Kill(), Checkpoint(folder, every_steps=1)], resume=True)
open(os.path.join(folder, "bits"), "wb").write(toy.bits(trainer))
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
@pytest.mark.parametrize("mode", ["step", "write"])
def test_kill_9_and_resume(toy, tmp_path, mode):
    program = PROGRAM.format(here=str(Path(__file__).parent))

    def run(mode):
        result = subprocess.run([sys.executable, "-c", program, mode, str(tmp_path)], capture_output=True, check=False)
        return result.returncode, result.stderr.decode()

    assert run(mode)[0] == -9
    assert checkpoints(tmp_path)[-1].name == "checkpoint-000000007.safetensors"
    assert len(list(tmp_path.glob(".*.tmp"))) == (mode == "write")
    code, text = run("finish")
    assert code == 0, text
    assert list(tmp_path.glob(".*.tmp")) == []
    plain = make(toy, "momentum", "onecycle")
    toy.fit(plain)
    assert (tmp_path / "bits").read_bytes() == toy.bits(plain)
