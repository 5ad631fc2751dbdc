"""The history topic: dates in order and right, and what changes of a picture cost in pixels."""

from __future__ import annotations

import numpy as np

from nnx.course import history


def year_of(who, what=""):
    return [event.year for event in history.TIMELINE if who in event.who and what in event.what]


def test_F012_timeline_is_in_order():
    years = [event.year for event in history.TIMELINE]
    assert years == sorted(years)
    assert year_of("McCulloch") == [1943] and year_of("Fukushima") == [1980] and year_of("Ciresan") == [2012]
    assert year_of("Krizhevsky") == [2012] and year_of("Werbos") == [1974] and year_of("Minsky") == [1969]


def test_F012_X19_names_and_the_date_of_the_perceptron():
    assert year_of("Rosenblatt", "perceptron learns") == [1958]
    assert year_of("Donald Hebb") == [1949]
    names = " ".join(event.who for event in history.TIMELINE)
    assert "McCulloch" in names and "McCullock" not in names and "Howard" not in names


def test_F012_X23_both_dates_of_lenet():
    assert year_of("LeCun") == [1989, 1998]


def test_F012_a_shift_is_farther_than_another_class():
    result = history.run(small=True)["farther_than_another_class"]
    assert result["as it is"] == 0.0
    assert result["shifted"] > 0.9  # every digit of the 60 lies nearer to a digit of another class
    assert result["noisy"] < 0.05


def test_F012_the_nearest_of_another_class(rng):
    x, y = rng.random((5, 1, 2, 2)), np.array([0, 1, 0, 1, 0])
    known, labels = rng.random((7, 1, 2, 2)), np.array([0, 1, 0, 1, 0, 1, 0])
    expected = [
        min(np.linalg.norm(a - b) for b, label in zip(known, labels, strict=True) if label != c)
        for a, c in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(history.distance_to_another_class(x, y, known, labels), expected, rtol=1e-12)
