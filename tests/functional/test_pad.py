"""F.pad: known results and error messages; values and gradients are in the table of cases."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import functional as F

ROW = np.arange(1.0, 5.0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("constant", [0, 0, 1, 2, 3, 4, 0]),
        ("reflect", [3, 2, 1, 2, 3, 4, 3]),
        ("replicate", [1, 1, 1, 2, 3, 4, 4]),
        ("circular", [3, 4, 1, 2, 3, 4, 1]),
    ],
)
def test_a_row(mode, expected):
    assert F.pad(ROW, (2, 1), mode).tolist() == expected


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_largest_padding(mode):
    most = 3 if mode == "reflect" else 4
    expected = np.pad(ROW, most, {"replicate": "edge", "circular": "wrap"}.get(mode, mode))
    assert F.pad(ROW, (most, most), mode).tolist() == expected.tolist()


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_result_is_a_copy_that_keeps_the_memory_order(mode):
    x = np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    y = F.pad(x, (0, 0), mode).data
    assert not np.may_share_memory(x, y)
    assert F.pad(x, (1, 1, 1, 1), mode).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_integers_stay_exact():
    assert F.pad([[1, 2]], (1, 0, 0, 1), value=7).tolist() == [[7, 1, 2], [7, 7, 7]]


ERRORS = [
    (
        lambda: F.pad(ROW, (1,)),
        r"pad: expected pad to be at most 1 pairs \(low, high\) for input of shape \(4,\), got \(1,\)",
    ),
    (lambda: F.pad(ROW, (1, 1, 1, 1)), "pad: expected pad to be at most 1 pairs"),
    (lambda: F.pad(ROW, (1, 1), "mirror"), "pad: expected mode to be one of 'constant', 'reflect'"),
    (
        lambda: F.pad(ROW, (1, 1), "circular", 3.0),
        "pad: expected value only with mode='constant', got mode='circular'",
    ),
    (
        lambda: F.pad(ROW, (-3, -2)),
        r"pad: expected at most 4 elements to be removed in dimension 0 of shape \(4,\), got \(-3, -2\)",
    ),
    (
        lambda: F.pad(ROW, (4, 0), "reflect"),
        r"pad: expected padding of at most 3 with mode='reflect' in dimension 0 of shape \(4,\), got "
        r"\(4, 0\)",
    ),
    (lambda: F.pad(ROW, (0, 5), "circular"), "pad: expected padding of at most 4 with mode='circular'"),
    (lambda: F.pad(ROW, (-2, 2), "reflect"), "pad: expected padding of at most 1 with mode='reflect'"),
    (lambda: F.pad(ROW[:0], (1, 0), "replicate"), "pad: expected padding of at most 0 with mode='repl"),
    (lambda: F.pad(ROW, (2**62, 2**62)), r"pad: expected a result of less than 2\^63 bytes, got shape"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m[:60] for _, m in ERRORS])
def test_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pad_of_wrong_type():
    with pytest.raises(TypeError, match=r"pad: expected pad to be an integer, got 1\.5"):
        F.pad(ROW, (1.5, 1))
