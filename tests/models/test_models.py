"""Parameter counts, names, shapes and trainability of the networks, and the builder."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx import models, nn
from nnx.testing import gradcheck


@pytest.fixture
def no_init(monkeypatch):
    """Leave fresh parameters as the allocator gives them: pages that nobody writes cost nothing."""
    for name in nn.init.__all__:
        if name.endswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def count(model: nn.Module) -> int:
    return sum(p.size for p in model.parameters())


COUNTS = [
    ("mlp", {}, 669_706),
    ("lenet5", {}, 61_706),
    ("lenet5", {"image_size": 32}, 61_706),
    ("convnet", {}, 307_946),
    ("alexnet", {}, 62_378_344),
    ("alexnet", {"grouped": True}, 60_965_224),
    ("alexnet", {"widths": (64, 192, 384, 256, 256)}, 61_100_840),
    ("vgg8", {}, 1_116_970),
    ("vgg11", {}, 132_863_336),
    ("vgg13", {}, 133_047_848),
    ("vgg16", {}, 138_357_544),
    ("vgg16", {"batch_norm": True}, 138_365_992),
    ("vgg19", {}, 143_667_240),
    ("googlenet", {}, 6_624_904),
    ("googlenet", {"aux_logits": True}, 13_004_888),
    ("resnet18", {}, 11_689_512),
    ("resnet34", {}, 21_797_672),
    ("resnet50", {}, 25_557_032),
    ("resnet20", {}, 272_474),
    ("resnet20", {"shortcut": "A"}, 269_722),
    ("resnet32", {"shortcut": "A"}, 464_154),
    ("resnet44", {"shortcut": "A"}, 658_586),
    ("resnet56", {"shortcut": "A"}, 853_018),
    ("resnet110", {"shortcut": "A"}, 1_727_962),
    ("resnet1202", {"shortcut": "A"}, 19_421_274),
    ("densenet121", {}, 7_978_856),
    ("densenet", {}, 7_978_856),
    ("pattern_net", {}, 204_570),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), COUNTS)
def test_parameter_count(name, arguments, expected, no_init):
    assert count(models.build(name, **arguments)) == expected


def test_every_builder_is_counted():
    assert {name for name, _, _ in COUNTS} == set(models.names())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.mlp(12, 5, 3), (2, 3, 2, 2)),
        (models.lenet5(3), (2, 1, 28, 28)),
        (models.lenet5(3, in_channels=2, image_size=32), (2, 2, 32, 32)),
        (models.convnet(3, widths=(4, 5)), (2, 3, 32, 32)),
        (models.convnet(3, 1, 8, (4, 5)), (2, 1, 8, 8)),
        (models.convnet(3, 1, (9, 14), (4, 5, 6)), (2, 1, 9, 14)),
        (models.vgg8(3), (2, 3, 32, 32)),
        (models.resnet20(3), (2, 3, 32, 32)),
        (models.resnet20(3, shortcut="A", in_channels=1), (2, 1, 17, 12)),
        (models.resnet18(3), (2, 3, 32, 32)),
        (models.resnet50(3), (2, 3, 32, 32)),
        (models.densenet(4, (2, 3), 6, num_classes=3), (2, 3, 32, 32)),
        (models.densenet(4, (2, 3), 6, num_classes=3, small_images=True), (2, 3, 8, 8)),
        (models.googlenet(3), (1, 3, 64, 64)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_forward_shape(model, shape, rng):
    x = rng.standard_normal(shape)
    assert model(x).shape == (shape[0], 3)
    y = model.predict(x)
    assert y.shape == (shape[0], 3) and np.isfinite(y).all()


@pytest.mark.parametrize("size", (224, 227))
def test_alexnet_takes_both_sizes(size, rng):
    model = models.alexnet(2, widths=(2, 4, 4, 4, 2), grouped=True)
    assert model.features(rng.standard_normal((1, 3, size, size))).shape == (1, 2, 6, 6)


def test_vgg_features_halve_five_times(rng, no_init):
    assert models.vgg11(2).features.eval()(np.zeros((1, 3, 64, 32))).shape == (1, 512, 2, 1)


def test_googlenet_heads(rng):
    model = models.googlenet(3, aux_logits=True, dropout_aux=0.0, dropout=0.0)
    x = rng.standard_normal((2, 3, 64, 64))
    outputs = model(x)
    assert isinstance(outputs, models.GoogLeNetOutputs)
    assert [y.shape for y in outputs] == [(2, 3)] * 3
    sum(y.sum() for y in outputs).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(x).shape == (2, 3)


def test_zero_init_residual_makes_blocks_the_identity(rng):
    model = models.ResNet(models.resnet.BasicBlock, (1,), 3, zero_init_residual=True, width=4).eval()
    x = nnx.tensor(rng.random((1, 4, 5, 5)))  # not negative, as after a ReLU
    np.testing.assert_array_equal(model.double().layer1(x).numpy(), x.numpy())


def test_pad_shortcut_drops_pixels_and_adds_zeros(rng):
    model = models.resnet20(shortcut="A")
    x = nnx.tensor(rng.standard_normal((2, 16, 6, 5)))
    y = model.layer2[0].downsample(x).numpy()
    assert y.shape == (2, 32, 3, 3)
    np.testing.assert_array_equal(y[:, 8:24], x.numpy()[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "some", "entries"),
    [
        ("vgg16", ["features.0.weight", "features.28.bias", "classifier.0.weight"], 32),
        ("vgg19", ["features.34.weight", "classifier.6.bias"], 38),
        ("alexnet", ["features.0.weight", "features.10.bias", "classifier.1.weight"], 16),
        (
            "resnet18",
            [
                "conv1.weight",
                "bn1.running_mean",
                "bn1.num_batches_tracked",
                "layer1.0.conv1.weight",
                "layer2.0.downsample.0.weight",
                "layer4.1.bn2.running_var",
                "fc.bias",
            ],
            122,
        ),
        ("resnet50", ["layer1.0.downsample.1.weight", "layer3.5.conv3.weight"], 320),
        (
            "densenet121",
            [
                "features.conv0.weight",
                "features.norm0.weight",
                "features.denseblock1.denselayer1.norm1.weight",
                "features.denseblock4.denselayer16.conv2.weight",
                "features.transition3.conv.weight",
                "features.norm5.running_var",
                "classifier.weight",
            ],
            727,
        ),
        (
            "googlenet",
            [
                "conv1.conv.weight",
                "conv3.bn.running_mean",
                "inception3a.branch1.conv.weight",
                "inception4e.branch2.1.bn.bias",
                "inception5b.branch4.1.conv.weight",
                "fc.weight",
            ],
            344,
        ),
    ],
)
def test_names_are_those_of_torchvision(name, some, entries, no_init):
    keys = list(models.build(name).state_dict())
    assert [key for key in some if key not in keys] == []
    assert len(keys) == entries


def test_googlenet_auxiliary_names(no_init):
    keys = models.googlenet(aux_logits=True).state_dict()
    for key in ("aux1.conv.conv.weight", "aux1.fc1.weight", "aux2.fc2.bias"):
        assert key in keys


# -- the builder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mlp", {"sizes": [4, 3], "dropout": 0.5}),
        ("convnet", {"in_channels": 1, "image_size": [8, 8], "widths": [4, 5]}),
        ("densenet", {"growth_rate": 2, "block_config": [1, 2], "num_init_features": 4}),
        ("resnet20", {"shortcut": "A"}),
    ],
)
def test_build_from_json(name, arguments):
    first = models.build(name, **arguments)
    second = models.build(name, **json.loads(json.dumps(arguments)))
    assert repr(first) == repr(second)
    second.load_state_dict(first.state_dict())


def test_same_seed_same_weights():
    nnx.manual_seed(5)
    first = models.resnet20().state_dict()
    nnx.manual_seed(5)
    second = models.resnet20().state_dict()
    assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: models.build("resnet19"), ValueError, "build: expected name to be one of mlp, .*19"),
        (
            lambda: models.build("lenet5", classes=3),
            TypeError,
            "arguments of lenet5 among num_classes, in_channels, image_size, got 'classes'",
        ),
        (lambda: models.mlp(5), ValueError, "MLP: expected sizes of at least an input and an out"),
        (lambda: models.mlp(5, 0), ValueError, "MLP: expected sizes to be an integer >= 1, got 0"),
        (lambda: models.lenet5(image_size=30), ValueError, "image_size to be one of 28, 32, got 30"),
        (
            lambda: models.convnet(image_size=7),
            ValueError,
            "ConvNet: expected image_size of at least 8 for 3 stages, got 7x7. Pass fewer widths",
        ),
        (lambda: models.alexnet(widths=(1, 2)), ValueError, "AlexNet: expected widths to be one"),
        (lambda: models.resnet20(shortcut="C"), ValueError, "shortcut to be one of 'A', 'B', got"),
        (lambda: models.CIFARResNet(21), ValueError, r"depth to be 6n \+ 2, got 21"),
        (lambda: models.densenet(0), ValueError, "growth_rate to be an integer >= 1, got 0"),
        (lambda: models.densenet(drop_rate=2), ValueError, r"drop_rate to be a number in \[0, 1\]"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- learning --------------------------------------------------------------------------------------


def tiny_resnet():
    return models.ResNet(models.resnet.BasicBlock, (1, 1), 3, width=2)


def tiny_densenet():
    return models.densenet(2, (2, 1), 4, bn_size=2, num_classes=3, small_images=True)


@pytest.mark.parametrize("make", (tiny_resnet, tiny_densenet), ids=("resnet", "densenet"))
def test_gradient_of_whole_network(make, rng):
    model = make().double()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    report = gradcheck(model, rng.standard_normal((3, 3, 12, 12)), mode="direction")
    assert report.checked >= 1 + sum(1 for _ in model.parameters())
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "lr"),
    [
        (lambda: models.resnet20(4), 0.05),
        (lambda: models.densenet(6, (2, 2, 2), 8, num_classes=4, small_images=True), 0.2),
    ],
    ids=("resnet20", "densenet"),
)
def test_loss_falls(make, lr, rng):
    nnx.manual_seed(1)
    model = make()
    x = rng.standard_normal((16, 3, 12, 12)).astype(np.float32)
    target = np.arange(16) % 4
    optimizer = nnx.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
