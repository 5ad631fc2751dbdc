"""The written pattern and the networks of the lectures."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import models, nn
from nnx.course import architectures
from nnx.course.architectures import NETWORKS, PATTERN, parameters
from nnx.models import count_layers, parse_pattern, pattern_net
from nnx.models.resnet import BasicBlock, Bottleneck, initialize

SIZES = {(name, *arguments.items()): (name, arguments, size) for name, arguments, size in NETWORKS}


@pytest.fixture
def no_init(monkeypatch):
    """Leave fresh parameters as the allocator gives them: pages that nobody writes cost nothing."""
    for name in nn.init.__all__:
        if name.endswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def check_size(name: str, **arguments) -> None:
    _, arguments, expected = SIZES[(name, *arguments.items())]
    assert parameters(models.build(name, **arguments)) == expected


@pytest.mark.parametrize(("n", "m", "k"), [(1, 2, 0), (2, 3, 1), (5, 4, 2)])
def test_F159_the_pattern_of_the_lecture(n, m, k):
    layers = parse_pattern(PATTERN, N=n, M=m, K=k)
    assert layers == (["CONV", "RELU"] * n + ["POOL"]) * m + ["FC", "RELU"] * k + ["SOFTMAX"]
    counts = count_layers(layers)
    assert (counts["CONV"], counts["POOL"], counts["FC"], counts["SOFTMAX"]) == (n * m, m, k, 1)
    net = pattern_net(PATTERN, counts={"N": n, "M": m, "K": k}, width=4, features=8)
    kinds = [type(layer).__name__ for layer in net.layers]
    assert (kinds.count("Conv2d"), kinds.count("MaxPool2d"), kinds.count("Linear")) == (n * m, m, k + 1)
    assert net(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 10)


def test_F159_optional_pools_and_errors():
    assert "POOL" not in parse_pattern(PATTERN, pool=False, N=1, M=2, K=0)
    with pytest.raises(ValueError, match=r"expected '-' or ',' in .* got 'SOFTMAX' at position 5"):
        parse_pattern("CONV SOFTMAX")


def test_F160_lenet_has_61706_parameters(no_init):
    check_size("lenet5")


def test_F160_lenet_reads_98_percent_of_the_digits():
    assert architectures.train_lenet(15)[1] >= 0.98  # 0.986 to 0.994 for six seeds


def test_F161_alexnet_with_and_without_groups(no_init):
    check_size("alexnet")
    check_size("alexnet", grouped=True)
    dense = [m for m in models.alexnet(widths=(1, 2, 2, 2, 2)).modules() if isinstance(m, nn.Linear)]
    assert len(dense) == 3  # X20: not 2


def test_F162_vgg16_and_vgg19(no_init):
    check_size("vgg16")
    check_size("vgg19")  # X20: 143.7M, not 138M


def test_F162_vgg16_equals_the_sum_of_its_layers():
    channels = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions = sum((9 * a + 1) * b for a, b in zip(channels[:-1], channels[1:], strict=True))
    dense = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    assert convolutions + dense == 138_357_544


def test_F163_googlenet_ends_with_a_global_average(no_init):
    check_size("googlenet")
    net = models.googlenet()
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 1  # only the class scores
    assert any(isinstance(m, nn.AdaptiveAvgPool2d) for m in net.modules())
    assert parameters(net) < 7e6 < 62e6 / 8


def test_F164_resnet50(no_init):
    check_size("resnet50")


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_F164_a_block_with_a_zero_residual_is_the_identity(kind):
    channels = 4
    block = kind(channels * kind.expansion, channels)
    initialize(block, zero_init_residual=True)
    x = np.abs(np.random.default_rng(0).standard_normal((2, channels * kind.expansion, 5, 5))).astype(np.float32)
    np.testing.assert_array_equal(block(x).data, x)


def test_F165_1202_layers(no_init):
    check_size("resnet1202", shortcut="A")
    net = models.resnet1202(shortcut="A")
    # the convolutions and the scores; shortcuts of kind A have no weights
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) == 1202


def kept_bytes(t: nnx.Tensor) -> int:
    """The memory that the tape behind `t` holds, each block once."""
    blocks, seen, queue = {}, set(), [t._node]
    while queue:
        node = queue.pop()
        if id(node) in seen or not hasattr(node, "saved"):
            continue
        seen.add(id(node))
        for array in node.saved or ():
            if isinstance(array, np.ndarray):
                while isinstance(array.base, np.ndarray):
                    array = array.base
                blocks[id(array)] = array.nbytes
        queue += [parent for parent in node.parents if parent is not None]
    return sum(blocks.values())


def test_F165_1202_layers_make_a_step_in_bounded_memory():
    nnx.manual_seed(0)
    net = models.resnet1202(shortcut="A")
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    loss = F.cross_entropy(net(x), np.array([3]))
    weights = sum(p.data.nbytes for p in net.parameters())
    assert weights < 78e6 and kept_bytes(loss) - weights < 150e6
    loss.backward()
    assert np.isfinite(loss.item())
    assert all(np.isfinite(p.grad).all() for p in net.parameters())
    assert all(p.grad.any() for p in net.conv1.parameters()), "the gradient reaches the first layer"


def test_F166_densenet121(no_init):
    check_size("densenet121")


def test_F166_layers_see_all_before_them():
    """Depth concatenation: behind a dense layer there are 32 channels more than before."""
    net = models.densenet121()
    block = net.features.denseblock1
    x = np.random.default_rng(0).standard_normal((1, 64, 8, 8)).astype(np.float32)
    y = block(x).data
    assert y.shape == (1, 64 + 6 * 32, 8, 8)
    np.testing.assert_array_equal(y[:, :64], x)
