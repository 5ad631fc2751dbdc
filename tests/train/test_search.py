"""Random and grid search, in this process and in several; runs that are stopped early."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import warnings

import numpy as np
import pytest
from train import objectives

import nnx
from nnx import nn, optim
from nnx.train import StopOnExplosion, Trainer, search
from nnx.train.search import Choice, EdgeWarning, LogUniform, SearchResult, Trial, Uniform

X = {"x": Uniform(0, 1)}


# -- what is drawn ---------------------------------------------------------------------------------


def test_samplers_stay_inside(rng):
    assert all(1e-4 <= LogUniform(1e-4, 1e-1).sample(rng) <= 1e-1 for _ in range(500))
    assert all(-2 <= Uniform(-2, 3).sample(rng) <= 3 for _ in range(500))
    assert {Choice("a b c".split()).sample(rng) for _ in range(100)} == {"a", "b", "c"}


def test_log_uniform_is_uniform_in_the_logarithm(rng):
    stats = pytest.importorskip("scipy.stats")
    logs = [math.log10(LogUniform(1e-6, 1e-3).sample(rng)) for _ in range(2000)]
    plain = [math.log10(Uniform(1e-6, 1e-3).sample(rng)) for _ in range(2000)]
    assert stats.kstest(logs, "uniform", (-6, 3)).pvalue > 0.01
    assert stats.kstest(plain, "uniform", (-6, 3)).pvalue < 1e-9  # the test would see another law


def test_grids():
    np.testing.assert_allclose(LogUniform(1e-4, 1.0).grid(5), [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert Uniform(0, 4).grid(3) == [0, 2, 4] and Uniform(0, 4).grid(1) == [2]
    assert Choice([1, 2]).grid(5) == [1, 2]


def test_places_and_smaller_ranges():
    lr = LogUniform(1e-4, 1e-2)
    assert lr.place(1e-3) == pytest.approx(0.5)
    small = lr.around(1e-3, 0.5)
    assert (small.low, small.high) == (pytest.approx(10**-3.5), pytest.approx(10**-2.5))
    edge = lr.around(1e-2, 0.5, lr)
    assert edge.high == 1e-2 and lr.around(1e-2, 0.5).high == pytest.approx(10**-1.5)
    assert Choice([1]).place(1) is None and Choice([1]).around(1, 0.1) == Choice([1])


def test_sampler_errors():
    with pytest.raises(ValueError, match="LogUniform: expected low to be a number in \\(0, inf\\), got 0"):
        LogUniform(0, 1)
    with pytest.raises(ValueError, match="Uniform: expected low below high, got 1 and 1"):
        Uniform(1, 1)
    with pytest.raises(ValueError, match="Uniform: expected high to be finite, got inf"):
        Uniform(0, math.inf)
    with pytest.raises(ValueError, match="Choice: expected options to be a list of at least one, got 'abc'"):
        Choice("abc")


# -- searching -------------------------------------------------------------------------------------


def test_random_search_finds_the_peak_and_is_seeded():
    first = search.random_search(objectives.peak, X, 40, seed=1)
    assert abs(first.best.parameters["x"] - 0.3) < 0.05
    again = search.random_search(objectives.peak, X, 40, seed=1)
    assert [(t.parameters, t.score, t.seed) for t in first.trials] == [
        (t.parameters, t.score, t.seed) for t in again.trials
    ]
    fewer = search.random_search(objectives.peak, X, 10, seed=1)
    assert [t.score for t in fewer.trials] == [t.score for t in first.trials[:10]]
    assert search.random_search(objectives.peak, X, 3, seed=2).trials[0].parameters != first.trials[0].parameters


def test_the_callers_random_stream_goes_on_undisturbed():
    nnx.manual_seed(5)
    expected = nnx._random.generator().random()
    nnx.manual_seed(5)
    search.random_search(objectives.peak, X, 3)
    assert nnx._random.generator().random() == expected


def test_mode_min():
    result = search.grid_search(lambda p: (p["x"] - 0.5) ** 2, X, points=5, mode="min")
    assert result.best.parameters["x"] == 0.5 and result.ranked[-1].score == 0.25


def test_grid_search_takes_every_point():
    seen = []
    space = {"x": Uniform(0, 1), "kind": Choice(["a", "b"]), "lr": LogUniform(0.01, 1)}
    result = search.grid_search(
        lambda p: seen.append(p) or -abs(p["x"] - 0.5) - abs(p["lr"] - 0.1), space, {"x": 3, "lr": 3}
    )
    assert len(seen) == 18 and result.distinct == {"x": 3, "kind": 2, "lr": 3}
    assert result.best.parameters == {"x": 0.5, "kind": "a", "lr": pytest.approx(0.1)}


def test_a_diverging_run_has_no_score_and_comes_last():
    result = search.grid_search(objectives.diverges, X, 5)
    assert [t.score for t in result.trials][:3] == [0, 0.25, 0.5] and math.isnan(result.trials[4].score)
    assert result.trials[4].note == "the loss is nan in step 3" and result.best.parameters["x"] == 0.5
    assert [t.number for t in result.ranked] == [2, 1, 0, 3, 4]
    nothing = search.random_search(lambda p: -math.inf, X, 2)
    assert nothing.best is None and nothing.warnings == [] and nothing.trials[0].note == "the score is -inf"


def test_a_mistake_ends_the_search_and_names_the_trial():
    with pytest.raises(KeyError, match="no such layer") as caught:
        search.grid_search(objectives.fails, X, 3)
    assert caught.value.__notes__ == ["in trial 2 with {'x': 1.0}"]


def test_edge_warning():
    with pytest.warns(EdgeWarning, match=r"random_search: the best lr, 0.000\d+, lies at the upper edge of LogUniform"):
        result = search.random_search(lambda p: p["lr"], {"lr": LogUniform(1e-4, 1e-3)}, 60)
    assert result.at_edge == {"lr": "upper"} and "search further out" in result.warnings[0]
    assert "warning: the best lr" in str(result)
    with pytest.warns(EdgeWarning, match="lower edge"):
        search.grid_search(lambda p: -p["x"], X, 3)


@pytest.mark.parametrize(
    ("lr", "edge"), [(9.471549e-04, {"lr": "upper"}), (5.4e-4, {}), (1.13e-4, {}), (1.11e-4, {"lr": "lower"})]
)
def test_five_percent_of_the_logarithm(lr, edge):
    space = {"lr": LogUniform(1e-4, 1e-3), "reg": LogUniform(1e-4, 1)}
    result = SearchResult(space, [Trial(0, {"lr": lr, "reg": 1.433895e-03}, 0, 0.531)])
    assert result.at_edge == edge


def test_table_text_and_plot(tmp_path):
    space = {"x": Uniform(0, 1), "kind": Choice(["a", "b"])}
    result = search.random_search(lambda p: {"score": -abs(p["x"] - 0.5), "epochs": 3}, space, 30)
    rows = result.table()
    assert rows[0].keys() == {"number", "x", "kind", "score", "seconds", "note", "epochs"} and len(rows) == 30
    lines = str(result).splitlines()
    assert lines[0].split() == ["trial", "x", "kind", "score", "note"] and lines[-1] == "... and 10 more"
    assert len(result.text(top=None).splitlines()) == 31
    pytest.importorskip("matplotlib")
    result.plot(tmp_path / "s.png")
    assert (tmp_path / "s.png").exists()


def test_coarse_to_fine_narrows():
    space = {"lr": LogUniform(1e-6, 1.0), "kind": Choice([1, 2])}

    def objective(p):
        return -abs(math.log10(p["lr"]) + 2.2)

    stages = search.coarse_to_fine(objective, space, (20, 20, 20), 0.2)
    widths = [math.log10(r.space["lr"].high / r.space["lr"].low) for r in stages]
    np.testing.assert_allclose(widths, [6, 1.2, 0.24], rtol=1e-6)
    # 20 draws over a fifth of a decade: the nearest of them is closer than that
    assert abs(math.log10(stages[-1].best.parameters["lr"]) + 2.2) < 0.12
    assert stages[1].space["kind"] == space["kind"]


def test_coarse_to_fine_stays_inside_or_extends():
    with pytest.warns(EdgeWarning):
        inside = search.coarse_to_fine(lambda p: p["x"], X, (60, 3), 0.5)
    assert inside[1].space["x"].high == 1
    with pytest.warns(EdgeWarning):
        beyond = search.coarse_to_fine(lambda p: p["x"], X, (60, 30), 0.5, extend=True)
    assert beyond[1].space["x"].high > 1.1


def test_an_objective_for_each_stage():
    calls = []
    stages = [lambda p: calls.append("short") or p["x"] * (1 - p["x"]), lambda p: calls.append("long") or 0.0]
    search.coarse_to_fine(stages, X, (4, 2))
    assert calls == ["short"] * 4 + ["long"] * 2
    with pytest.raises(ValueError, match="coarse_to_fine: expected an objective for each of 3 stages, got 2"):
        search.coarse_to_fine(stages, X, (1, 1, 1))


def test_k_fold_scores():
    x, y = np.arange(20.0), np.repeat([0, 1], 10)
    seen = []

    def score(x_train, y_train, x_held, y_held):
        seen.append((sorted(x_held), y_held.mean()))
        assert not set(x_train) & set(x_held) and len(x_train) + len(x_held) == 20
        return float(x_held.mean())

    result = search.k_fold_scores(score, x, y, k=5)
    assert sorted(v for part, _ in seen for v in part) == list(x) and all(share == 0.5 for _, share in seen)
    assert result["score"] == pytest.approx(9.5) and len(result["scores"]) == 5
    assert result["std"] == pytest.approx(np.std(result["scores"], ddof=1))
    best = search.random_search(lambda p: search.k_fold_scores(score, x, y, k=2), X, 2).best
    assert len(best.values["scores"]) == 2


def test_errors():
    with pytest.raises(TypeError, match="random_search: expected objective to be a function, got float"):
        search.random_search(1.0, X)
    with pytest.raises(ValueError, match="random_search: expected space to be a dict of names and ranges, got {}"):
        search.random_search(objectives.peak, {})
    with pytest.raises(TypeError, match=r"expected space\['x'\] to be LogUniform, Uniform or Choice, got tuple"):
        search.random_search(objectives.peak, {"x": (0, 1)})
    with pytest.raises(ValueError, match="grid_search: expected points for x, got 'y'"):
        search.grid_search(objectives.peak, X, {"y": 3})
    with pytest.raises(ValueError, match="expected mode to be one of 'max', 'min', got 'best'"):
        search.random_search(objectives.peak, X, mode="best")
    with pytest.raises(ValueError, match="objective: expected a number or a dict with 'score', got a dict with loss"):
        search.random_search(lambda p: {"loss": 1.0}, X)
    with pytest.raises(TypeError, match="objective: expected score to be a number"):
        search.random_search(lambda p: None, X)


# -- going on --------------------------------------------------------------------------------------


def test_a_search_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "search.json"
    calls = []

    def objective(p):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(p["x"])
        return {"score": math.nan if p["x"] > 0.7 else p["x"] * (1 - p["x"]), "x": np.float32(p["x"])}

    with pytest.raises(KeyboardInterrupt):
        search.random_search(objective, X, 9, path=path)
    assert [row["number"] for row in json.loads(path.read_text())["trials"]] == [0, 1, 2, 3]
    whole = search.random_search(lambda p: calls.append(p["x"]) or objectives_score(p), X, 9, path=path)
    assert len(calls) == 9 and len(set(calls)) == 9
    straight = search.random_search(objectives_score, X, 9)
    np.testing.assert_array_equal([t.score for t in whole.trials], [t.score for t in straight.trials])
    more = search.random_search(lambda p: calls.append(p["x"]) or objectives_score(p), X, 12, path=path)
    assert len(calls) == 12 and len(more.trials) == 12


def objectives_score(p):
    return math.nan if p["x"] > 0.7 else p["x"] * (1 - p["x"])


def test_a_file_of_another_search_is_refused(tmp_path):
    path = tmp_path / "s.json"
    search.random_search(objectives_score, X, 2, path=path)
    with pytest.raises(ValueError, match="random_search: expected .*s.json' to be of the same search"):
        search.random_search(objectives_score, X, 2, seed=1, path=path)
    with pytest.raises(ValueError, match="to be of the same search"):
        search.random_search(objectives_score, {"x": Uniform(0, 2)}, 2, path=path)


def test_stages_have_files_of_their_own(tmp_path):
    search.coarse_to_fine(objectives_score, X, (3, 2), path=tmp_path / "s.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s-2.json", "s.json"]


# -- several processes -----------------------------------------------------------------------------


def test_processes_share_the_threads_and_change_no_score(tmp_path):
    nnx.set_num_threads(4)
    before = dict(os.environ)
    alone = search.random_search(objectives.peak, X, 6)
    shared = search.random_search(objectives.peak, X, 6, workers=2, path=tmp_path / "s.json")
    assert [t.score for t in shared.trials] == [t.score for t in alone.trials]
    assert [t.values["noise"] for t in shared.trials] == [t.values["noise"] for t in alone.trials]
    processes = {t.values["process"] for t in shared.trials}
    assert os.getpid() not in processes and 1 <= len(processes) <= 2
    assert {t.values["threads"] for t in shared.trials} == {2} and {t.values["threads"] for t in alone.trials} == {4}
    assert all(t.values["settings"] == ["2", "2"] for t in shared.trials)
    assert dict(os.environ) == before and len(json.loads((tmp_path / "s.json").read_text())["trials"]) == 6


def test_workers_never_outnumber_trials_or_threads():
    from nnx.train._workers import share_of_threads

    nnx.set_num_threads(8)
    assert share_of_threads("s", None, 100) == (8, 1) and share_of_threads("s", None, 3) == (3, 2)
    assert share_of_threads("s", 2, 100) == (2, 4) and share_of_threads("s", 16, 100) == (16, 1)
    assert share_of_threads("s", 1, 0) == (1, 8)
    with pytest.raises(ValueError, match="expected workers to be an integer >= 1, got 0"):
        share_of_threads("s", 0, 1)


def test_a_mistake_in_a_process_is_reported():
    with pytest.raises(KeyError, match="no such layer") as caught:
        search.grid_search(objectives.fails, X, 3, workers=2)
    assert caught.value.__notes__[-1] == "in trial 2 with {'x': 1.0}"
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_reported():
    with pytest.raises(RuntimeError, match="random_search: expected worker processes to live until the end, got one"):
        search.random_search(objectives.dies, X, 2, workers=2)


def test_processes_need_an_objective_that_can_be_imported():
    with pytest.raises(
        TypeError, match="expected objective to be a function at the top of a module, .* got .*<lambda>"
    ):
        search.random_search(lambda p: 0.0, X, 2, workers=2)


# -- runs that explode -----------------------------------------------------------------------------


class Scripted(nn.Module):
    """Its loss is the next number of a list."""

    def __init__(self, losses):
        super().__init__()
        self.w = nnx.Parameter(np.zeros(1))
        self.losses = iter(losses)

    def forward(self, x):
        return self.w * 0 + next(self.losses)


def run(losses, factor=3.0):
    net = Scripted(losses)
    callback = StopOnExplosion(factor)
    trainer = Trainer(net, lambda o, t: o.sum(), optim.SGD(net.parameters(), lr=0.1), metrics=())
    x = np.zeros((len(losses), 1))
    trainer.fit(x, x, batch_size=1, callbacks=[callback], verbose=False)
    return callback


@pytest.mark.parametrize(
    ("losses", "step"),
    [([2, 5.9, 6, 6.01, 1], 4), ([2, 7], 2), ([2, 1, math.nan, 1], 3), ([2, math.inf], 2), ([math.nan], 1)],
)
def test_stops_at_the_first_step_past_the_limit(losses, step):
    with pytest.raises(
        FloatingPointError, match=rf"StopOnExplosion: expected a loss of at most 3 times .* step {step} "
    ):
        run(losses)


def test_goes_on_below_the_limit():
    callback = run([2, 5.99, 1, 6.0])
    assert (callback.initial, callback.step) == (2, None)
    assert run([0.0, 5.0]).step is None and run([-1.0, 5.0]).step is None  # a multiple of these bounds nothing
    assert run([2, 7], factor=4).step is None
    resumed = StopOnExplosion()
    resumed.load_state_dict(callback.state_dict())  # a checkpoint keeps what the first loss was
    assert resumed.initial == 2
    with pytest.raises(ValueError, match=r"StopOnExplosion: expected factor to be a number in \(1, inf\), got 1"):
        StopOnExplosion(1)


def test_a_search_goes_on_after_an_explosion(rng):
    x = rng.standard_normal((60, 4)).astype(np.float32)
    y = rng.integers(0, 3, 60)

    def objective(p):
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        trainer = Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=p["lr"]))
        history = trainer.fit(x, y, epochs=3, callbacks=[StopOnExplosion()], verbose=False)
        return -history.loss[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeWarning)
        result = search.grid_search(objective, {"lr": LogUniform(1e-2, 1e4)}, 3)
    assert math.isnan(result.trials[2].score) and "StopOnExplosion" in result.trials[2].note
    assert result.best.number in (0, 1) and math.isfinite(result.trials[0].score)
