"""Random search in log space, its warning at the edge, runs that are stopped, and the grid beside it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import nnx
from nnx import nn, optim
from nnx.course import hyperparameters
from nnx.train import StopOnExplosion, Trainer, search
from nnx.train.search import EdgeWarning, LogUniform, Uniform


def test_F123_the_sampling_law_is_log_uniform():
    stats = pytest.importorskip("scipy.stats")
    result = search.random_search(lambda p: 0.0, {"lr": LogUniform(1e-6, 1e-3), "reg": LogUniform(1e-5, 1e5)}, 500)
    for name, low, width in (("lr", -6, 3), ("reg", -5, 10)):
        logs = [math.log10(t.parameters[name]) for t in result.trials]
        assert stats.kstest(logs, "uniform", (low, width)).pvalue > 0.01
        # the test would see plain uniform numbers
        plain = [math.log10(Uniform(10**low, 10 ** (low + width)).sample(np.random.default_rng(i))) for i in range(500)]
        assert stats.kstest(plain, "uniform", (low, width)).pvalue < 1e-9


def test_F123_the_lectures_best_lies_at_the_edge():
    result = hyperparameters.printed_search()
    assert result.best.score == 0.531 and result.at_edge == {"lr": "upper"}
    assert result.space["lr"].place(9.471549e-04) == pytest.approx(0.976, abs=5e-4)
    others = [t for t in result.trials if t is not result.best]
    assert search.SearchResult(result.space, others).at_edge == {}


def test_F123_a_search_warns_at_the_edge():
    with pytest.warns(EdgeWarning, match="lies at the upper edge"):
        search.random_search(lambda p: p["lr"], {"lr": LogUniform(1e-4, 1e-3)}, 50)


def test_F123_coarse_to_fine_on_the_digits():
    coarse, fine = search.coarse_to_fine(
        [hyperparameters.accuracy, hyperparameters.longer], hyperparameters.SPACE, (10, 4), 0.25, seed=0
    )
    assert fine.best.score > coarse.best.score and fine.best.score > 0.9
    assert math.log(fine.space["lr"].high / fine.space["lr"].low) <= 0.26 * math.log(1e6)


def first_bad_step(lr, factor=3.0):
    """Train on the digits until StopOnExplosion speaks; the step it names, and all losses."""
    losses = []

    class Keep(nnx.train.Callback):
        order = -50

        def before_update(self, trainer):
            losses.append(trainer.loss_value)

    data = nnx.data.digits()
    nnx.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr))
    try:
        watch = [Keep(), StopOnExplosion(factor)]
        trainer.fit(data.x_train[:500], data.y_train[:500], 2, callbacks=watch, seed=0, verbose=False)
    except FloatingPointError as error:
        return int(re.search(r"in step (\d+)", str(error))[1]), losses
    return None, losses


def test_F124_a_run_stops_at_the_first_step_past_three_times_the_first_cost():
    step, losses = first_bad_step(lr=20.0)
    assert step == len(losses) and losses[-1] > 3 * losses[0] and max(losses[:-1]) <= 3 * losses[0]
    later, _ = first_bad_step(lr=20.0, factor=30.0)
    assert later is None or later > step
    assert first_bad_step(lr=0.1)[0] is None


def test_F124_nan_stops_too():
    data = nnx.data.digits()
    x = data.x_train[:100].copy()
    x[40] = np.nan
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(FloatingPointError, match="StopOnExplosion: .* got nan in step 3"):
        trainer.fit(x, data.y_train[:100], 1, 20, callbacks=[StopOnExplosion()], shuffle=False, verbose=False)
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_F124_a_search_stops_such_runs_and_goes_on():
    space = {"lr": LogUniform(1e-3, 1e1), "decay": Uniform(0, 1e-6)}
    result = search.grid_search(hyperparameters.accuracy, space, {"lr": 3, "decay": 1})
    assert result.trials[2].note.startswith("StopOnExplosion") and math.isnan(result.trials[2].score)
    assert result.best is result.trials[1] and result.best.parameters["lr"] == pytest.approx(0.1)


def test_F125_random_draws_try_100_values_where_a_grid_tries_10():
    space = {"x": Uniform(0, 1), "y": Uniform(0, 1)}
    drawn = search.random_search(hyperparameters._peak, space, 100)
    grid = search.grid_search(hyperparameters._peak, space, 10)
    assert len(drawn.trials) == len(grid.trials) == 100
    assert drawn.distinct == {"x": 100, "y": 100} and grid.distinct == {"x": 10, "y": 10}
    assert drawn.best.score > grid.best.score
