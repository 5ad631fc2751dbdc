"""Patterns: what they mean, what is built from them, and what is said about wrong ones."""

import json

import numpy as np
import pytest

from nnx import models, nn
from nnx.models import count_layers, parse_pattern, pattern_net

LECTURE = "[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX"


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("m", [0, 1, 4])
@pytest.mark.parametrize("k", [0, 2])
def test_the_lecture_s_pattern(n, m, k):
    layers = parse_pattern(LECTURE, N=n, M=m, K=k)
    assert layers == (["CONV", "RELU"] * n + ["POOL"]) * m + ["FC", "RELU"] * k + ["SOFTMAX"]
    counts = count_layers(layers)
    assert (counts["CONV"], counts["POOL"], counts["FC"]) == (n * m, m, k)
    assert counts["weights"] == n * m + k + 1


def test_optional_layers():
    assert parse_pattern("[CONV-POOL?]*3", pool=False) == ["CONV"] * 3
    assert parse_pattern("[CONV-POOL?]*3", pool=[False, True, False]) == ["CONV", "CONV", "POOL", "CONV"]
    assert parse_pattern("(CONV-RELU)?-FC", pool=False) == ["FC"]
    with pytest.raises(ValueError, match=r"one value of pool for each '\?' that is met, got too few"):
        parse_pattern("[CONV-POOL?]*3", pool=[True])
    with pytest.raises(ValueError, match=r"one value of pool for each '\?' that is met, got too many"):
        parse_pattern("CONV-POOL?", pool=[True, False])


def test_spelling():
    assert parse_pattern(" conv - relu *2, [ pool ] ") == ["CONV", "RELU", "RELU", "POOL"]
    assert parse_pattern("((CONV)*2-RELU)*2") == ["CONV", "CONV", "RELU"] * 2


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "expected one of CONV, .* or a group in '', got its end"),
        ("CONV-", "or a group in 'CONV-', got its end"),
        ("CONVV", "or a group in 'CONVV', got 'CONVV' at position 0"),
        ("(CONV", r"expected '\)', '-' or ',' in '\(CONV', got its end"),
        ("(CONV]", r"expected '\)', '-' or ',' .* got ']' at position 5"),
        ("CONV)", r"expected '-' or ',' in .* got '\)' at position 4"),
        ("CONV RELU", "expected '-' or ',' in .* got 'RELU' at position 5"),
        ("CONV*", r"a number or a letter after '\*' in .* got its end"),
        ("CONV*-RELU", r"a number or a letter after '\*' in .* got '-' at position 5"),
        ("CONV*N", r"a value for the letter N, as in parse_pattern\(\.\.\., N=2\), in .* got 'N' at position 5"),
        ("CONV+RELU", r"brackets and \* \? - , in 'CONV\+RELU', got '\+' at position 4"),
        ("(" * 60, "at most 50 brackets inside each other"),
        ("(CONV*99999)*99999", "at most 10000 layers, got more"),
    ],
)
def test_what_cannot_be_read(pattern, text):
    with pytest.raises(ValueError, match=f"parse_pattern: .*{text}"):
        parse_pattern(pattern)


def test_counts_errors():
    with pytest.raises(ValueError, match="parse_pattern: expected counts for N, got M"):
        parse_pattern("CONV*N", N=1, M=2)
    with pytest.raises(ValueError, match="parse_pattern: expected counts for no letter, got N"):
        parse_pattern("CONV*2", N=1)
    with pytest.raises(ValueError, match="parse_pattern: expected N to be an integer >= 0, got -1"):
        parse_pattern("CONV*N", N=-1)
    with pytest.raises(TypeError, match="parse_pattern: expected pattern to be a string, got int"):
        parse_pattern(3)


def test_the_net_has_the_layers_of_its_pattern():
    net = pattern_net(counts={"N": 2, "M": 2, "K": 1}, image_size=(8, 12), in_channels=1, width=4, features=20)
    kinds = [type(layer).__name__ for layer in net.layers]
    stage = ["Conv2d", "ReLU"] * 2 + ["MaxPool2d"]
    assert kinds == [*stage, *stage, "Flatten", "Linear", "ReLU", "Linear"]
    assert [layer.out_channels for layer in net.layers if isinstance(layer, nn.Conv2d)] == [4, 4, 8, 8]
    assert net(np.zeros((3, 1, 8, 12), np.float32)).shape == (3, 10)


def test_the_net_of_a_pattern_without_convolutions():
    net = pattern_net("(FC-RELU)*2,SOFTMAX", 3, 1, 4, features=5, scores=False)
    y = net(np.ones((2, 1, 4, 4), np.float32)).data
    assert [type(layer).__name__ for layer in net.layers][-1] == "Softmax"
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)


def test_width_doubles_up_to_eight_times():
    net = pattern_net("[CONV-POOL]*5,SOFTMAX", width=2)
    assert [layer.out_channels for layer in net.layers if isinstance(layer, nn.Conv2d)] == [2, 4, 8, 16, 16]


def test_vgg16_as_a_pattern():
    layers = parse_pattern("[(CONV-RELU)*2-POOL]*2-[(CONV-RELU)*3-POOL]*3-(FC-RELU)*2,SOFTMAX")
    assert count_layers(layers)["weights"] == 16


def test_builder_arguments_fit_into_json():
    arguments = {"pattern": "[CONV-RELU-POOL?]*M,SOFTMAX", "counts": {"M": 2}, "pool": [True, False], "image_size": 8}
    net = models.build("pattern_net", **json.loads(json.dumps(arguments)))
    assert net.pattern_layers == ("CONV", "RELU", "POOL", "CONV", "RELU", "SOFTMAX")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pattern": "CONV-RELU"}, "with one SOFTMAX, at its end, got CONV-RELU"),
        ({"pattern": "SOFTMAX-FC"}, "with one SOFTMAX, at its end, got SOFTMAX-FC"),
        ({"pattern": "FC-CONV,SOFTMAX"}, "expected CONV before every FC, got it as layer 2 of FC-CONV-SOFTMAX"),
        ({"pattern": "FC-POOL,SOFTMAX"}, "expected POOL before every FC, got it as layer 2"),
        ({"image_size": 12}, "images that every POOL can halve, got 3x3 at layer 15"),
        ({"image_size": 0}, "image_size to be an integer >= 1, got 0"),
    ],
)
def test_what_cannot_be_built(options, text):
    with pytest.raises(ValueError, match=f"pattern_net: .*{text}"):
        pattern_net(**options)
