"""Votes, mean probabilities and Monte-Carlo dropout."""

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.train import VotingEnsemble, mc_dropout


def says(*classes):
    """A model that gives the samples these classes, three in all."""
    return lambda x: np.eye(3)[list(classes)] * 2.0


def test_eight_of_ten_decide():
    ensemble = VotingEnsemble([says(2)] * 8 + [says(0), says(1)])
    assert ensemble.votes(np.zeros((1, 4))).tolist() == [[1, 1, 8]]
    assert ensemble.predict(np.zeros((1, 4))).tolist() == [2]
    assert ensemble.score(np.zeros((1, 4)), [2]) == 1.0


def test_hard_and_soft_votes_may_differ():
    sure, unsure = (lambda x: np.array([[9.0, 0.0]])), (lambda x: np.array([[0.0, 0.1]]))
    models = [sure, unsure, unsure]
    assert VotingEnsemble(models).predict(None).tolist() == [1]
    soft = VotingEnsemble(models, voting="soft")
    assert soft.predict(None).tolist() == [0]
    np.testing.assert_allclose(soft.predict_proba(None).sum(axis=1), 1, rtol=1e-15)
    assert repr(soft) == "VotingEnsemble(3 models, voting='soft')"


def test_a_tie_goes_to_the_lowest_class():
    assert VotingEnsemble([says(2), says(1)]).predict(np.zeros((1, 1))).tolist() == [1]


def test_modules_are_evaluated_and_left_as_they_were():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3))
    model[1].eval()
    x = np.ones((5, 4), np.float32)
    ensemble = VotingEnsemble([model])
    np.testing.assert_array_equal(ensemble.predict_proba(x), ensemble.predict_proba(x))
    assert model.training and model[0].training and not model[1].training
    assert model[1].weight.grad is None


def test_ensemble_errors():
    with pytest.raises(ValueError, match="VotingEnsemble: expected at least one model, got none"):
        VotingEnsemble([])
    with pytest.raises(TypeError, match="VotingEnsemble: expected models to be callable, got int"):
        VotingEnsemble([3])
    with pytest.raises(ValueError, match="VotingEnsemble: expected voting to be one of 'hard', 'soft', got 'mean'"):
        VotingEnsemble([says(0)], voting="mean")
    with pytest.raises(ValueError, match=r"scores of one shape \(N, C\), got shapes \(1, 3\), \(2, 3\)"):
        VotingEnsemble([says(0), says(0, 1)]).predict(None)
    with pytest.raises(ValueError, match=r"scores of one shape \(N, C\), got shapes \(2,\)"):
        VotingEnsemble([lambda x: np.ones(2)]).predict(None)


def test_mc_dropout_mean_is_near_the_scaled_network():
    nnx.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 2)).double()
    x = np.random.default_rng(0).standard_normal((3, 20))
    mean, std = mc_dropout(model, x, samples=4000)
    # A linear layer: the mean over masks is exact; it is off by std / sqrt(4000) here, times 4 to be safe.
    assert (np.abs(mean - model.predict(x)) < 4 * std / np.sqrt(4000)).all() and (std > 0).all()
    nnx.manual_seed(1)
    first = mc_dropout(model, x, samples=3)
    nnx.manual_seed(1)
    np.testing.assert_array_equal(mc_dropout(model, x, samples=3), first)


def test_mc_dropout_leaves_batch_norm_and_modes_alone():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.PlainDropout(0.5), nn.Linear(6, 2))
    model[3].eval()
    before = {name: b.copy() for name, b in model.named_buffers()}
    mean, _ = mc_dropout(model, np.ones((5, 4), np.float32), samples=5)
    assert mean.shape == (5, 2)
    for name, b in model.named_buffers():
        np.testing.assert_array_equal(b, before[name])
    assert model.training and model[1].training and not model[3].training


def test_mc_dropout_drops_between_the_layers_of_a_recurrent_network():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, num_layers=2, dropout=0.5)

        def forward(self, x):
            return self.lstm(x)[0][-1]

    model = Last().eval()
    _, std = mc_dropout(model, np.ones((5, 2, 3), np.float32), samples=10)
    assert std.shape == (2, 4) and (std > 0).any()
    assert not any(m.training for m in model.modules())


def test_mc_dropout_errors():
    with pytest.raises(ValueError, match="mc_dropout: expected model with a dropout layer, got Linear without one"):
        mc_dropout(nn.Linear(2, 2), np.ones((1, 2)))
    halves = nn.AlternatingDropout().eval()
    with pytest.raises(ValueError, match="mc_dropout: expected model with a dropout layer, got AlternatingDropout"):
        mc_dropout(halves, np.ones((1, 2)))
    assert not halves.training
    with pytest.raises(ValueError, match="mc_dropout: expected samples to be an integer >= 2, got 1"):
        mc_dropout(nn.Dropout(), np.ones((1, 2)), samples=1)
