"""The networks against the same networks in plain PyTorch, with the same weights."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from nnx import models

torch = pytest.importorskip("torch")
tnn = torch.nn


# -- the networks, written in PyTorch ---------------------------------------------------------------


class LeNet(tnn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = tnn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = tnn.Conv2d(6, 16, 5)
        self.fc1 = tnn.Linear(400, 120)
        self.fc2 = tnn.Linear(120, 84)
        self.fc3 = tnn.Linear(84, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


class VGG16(tnn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for n, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
            for _ in range(n):
                layers += [tnn.Conv2d(channels, width, 3, padding=1), tnn.ReLU()]
                channels = width
            layers.append(tnn.MaxPool2d(2))
        self.features = tnn.Sequential(*layers)
        self.classifier = tnn.Sequential(
            tnn.Linear(25088, 4096),
            tnn.ReLU(),
            tnn.Dropout(),
            tnn.Linear(4096, 4096),
            tnn.ReLU(),
            tnn.Dropout(),
            tnn.Linear(4096, 1000),
        )

    def forward(self, x):
        x = tnn.functional.adaptive_avg_pool2d(self.features(x), 7)
        return self.classifier(x.flatten(1))


class AlexNet(tnn.Module):
    def __init__(self, grouped):
        super().__init__()
        g = 2 if grouped else 1
        self.features = tnn.Sequential(
            tnn.Conv2d(3, 96, 11, 4, 2),
            tnn.ReLU(),
            tnn.MaxPool2d(3, 2),
            tnn.Conv2d(96, 256, 5, padding=2, groups=g),
            tnn.ReLU(),
            tnn.MaxPool2d(3, 2),
            tnn.Conv2d(256, 384, 3, padding=1),
            tnn.ReLU(),
            tnn.Conv2d(384, 384, 3, padding=1, groups=g),
            tnn.ReLU(),
            tnn.Conv2d(384, 256, 3, padding=1, groups=g),
            tnn.ReLU(),
            tnn.MaxPool2d(3, 2),
        )
        self.classifier = tnn.Sequential(
            tnn.Dropout(),
            tnn.Linear(9216, 4096),
            tnn.ReLU(),
            tnn.Dropout(),
            tnn.Linear(4096, 4096),
            tnn.ReLU(),
            tnn.Linear(4096, 1000),
        )

    def forward(self, x):
        x = tnn.functional.adaptive_avg_pool2d(self.features(x), 6)
        return self.classifier(x.flatten(1))


class ConvBN(tnn.Module):
    def __init__(self, *args, **options):
        super().__init__()
        self.conv = tnn.Conv2d(*args, bias=False, **options)
        self.bn = tnn.BatchNorm2d(args[1], eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Inception(tnn.Module):
    def __init__(self, n, c1, c3_in, c3, c5_in, c5, pool):
        super().__init__()
        self.branch1 = ConvBN(n, c1, 1)
        self.branch2 = tnn.Sequential(ConvBN(n, c3_in, 1), ConvBN(c3_in, c3, 3, padding=1))
        self.branch3 = tnn.Sequential(ConvBN(n, c5_in, 1), ConvBN(c5_in, c5, 3, padding=1))
        self.branch4 = tnn.Sequential(tnn.MaxPool2d(3, 1, 1), ConvBN(n, pool, 1))

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], 1)


class GoogLeNet(tnn.Module):
    POOLED = {"3a": (3, 2), "4a": (3, 2), "5a": (2, 2)}  # a pool in front of these

    def __init__(self):
        super().__init__()
        self.conv1 = ConvBN(3, 64, 7, stride=2, padding=3)
        self.conv2 = ConvBN(64, 64, 1)
        self.conv3 = ConvBN(64, 192, 3, padding=1)
        channels = 192
        for name, *widths in (
            ("3a", 64, 96, 128, 16, 32, 32),
            ("3b", 128, 128, 192, 32, 96, 64),
            ("4a", 192, 96, 208, 16, 48, 64),
            ("4b", 160, 112, 224, 24, 64, 64),
            ("4c", 128, 128, 256, 24, 64, 64),
            ("4d", 112, 144, 288, 32, 64, 64),
            ("4e", 256, 160, 320, 32, 128, 128),
            ("5a", 256, 160, 320, 32, 128, 128),
            ("5b", 384, 192, 384, 48, 128, 128),
        ):
            setattr(self, f"inception{name}", Inception(channels, *widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.fc = tnn.Linear(1024, 1000)

    def forward(self, x):
        x = tnn.functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = self.conv3(self.conv2(x))
        for name, module in self.named_children():
            if name.startswith("inception"):
                pool = self.POOLED.get(name.removeprefix("inception"))
                if pool is not None:
                    x = tnn.functional.max_pool2d(x, *pool, ceil_mode=True)
                x = module(x)
        return self.fc(x.mean((2, 3)))


class Residual(tnn.Module):
    """A block; `sizes` are the kernel sizes of its convolutions, `stride` that of the first 3x3."""

    def __init__(self, channels, widths, sizes, stride):
        super().__init__()
        out = widths[-1]
        self.n = len(widths)
        downsample = None
        if stride != 1 or channels != out:
            shortcut = tnn.Conv2d(channels, out, 1, stride, bias=False)
            downsample = tnn.Sequential(shortcut, tnn.BatchNorm2d(out))
        strided = sizes.index(3)
        for i, (width, k) in enumerate(zip(widths, sizes, strict=True)):
            s = stride if i == strided else 1
            conv = tnn.Conv2d(channels, width, k, s, padding=k // 2, bias=False)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", tnn.BatchNorm2d(width))
            channels = width
        self.downsample = downsample

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.n + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            if i < self.n:
                x = torch.relu(x)
        return torch.relu(x + shortcut)


class ResNet(tnn.Module):
    def __init__(self, layers, width, classes, bottleneck=False, small=False):
        super().__init__()
        self.small = small
        stem = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = tnn.Conv2d(3, width, *stem, bias=False)
        self.bn1 = tnn.BatchNorm2d(width)
        channels = width
        self.stages = len(layers)
        for i, n in enumerate(layers):
            w, blocks = width * 2**i, []
            widths, sizes = ([w, w, 4 * w], [1, 3, 1]) if bottleneck else ([w, w], [3, 3])
            for j in range(n):
                blocks.append(Residual(channels, widths, sizes, 2 if i and not j else 1))
                channels = widths[-1]
            setattr(self, f"layer{i + 1}", tnn.Sequential(*blocks))
        self.fc = tnn.Linear(channels, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x if self.small else torch.max_pool2d(x, 3, 2, 1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class Dense(tnn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.norm1 = tnn.BatchNorm2d(channels)
        self.conv1 = tnn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = tnn.BatchNorm2d(4 * growth)
        self.conv2 = tnn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class DenseNet(tnn.Module):
    def __init__(self, growth, blocks, channels, classes):
        super().__init__()
        parts = OrderedDict(
            conv0=tnn.Conv2d(3, channels, 7, 2, 3, bias=False),
            norm0=tnn.BatchNorm2d(channels),
            relu0=tnn.ReLU(),
            pool0=tnn.MaxPool2d(3, 2, 1),
        )
        for i, n in enumerate(blocks, 1):
            layers = OrderedDict()
            for j in range(1, n + 1):
                layers[f"denselayer{j}"] = Dense(channels, growth)
                channels += growth
            parts[f"denseblock{i}"] = tnn.Sequential(layers)
            if i < len(blocks):
                parts[f"transition{i}"] = tnn.Sequential(
                    OrderedDict(
                        norm=tnn.BatchNorm2d(channels),
                        relu=tnn.ReLU(),
                        conv=tnn.Conv2d(channels, channels // 2, 1, bias=False),
                        pool=tnn.AvgPool2d(2),
                    )
                )
                channels //= 2
        parts["norm5"] = tnn.BatchNorm2d(channels)
        self.features = tnn.Sequential(parts)
        self.classifier = tnn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


# -- comparisons -----------------------------------------------------------------------------------


def randomise(network, rng):
    """Draw weights (He, so that the signal lives to the end) and statistics, quickly."""
    noise = rng.standard_normal(1_000_003).astype(np.float32)  # prime: no two rows line up
    for name, value in network.state_dict().items():
        if value.dtype == torch.int64:
            value.fill_(3)
            continue
        draw = torch.from_numpy(np.resize(noise, tuple(value.shape)))
        if value.ndim > 1:
            value.copy_(draw * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var") or name.endswith("weight"):
            value.copy_(1 + 0.2 * torch.tanh(draw))
        else:
            value.copy_(0.1 * draw)


def arrays(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def build(make):
    """The PyTorch network, without the time of its own initialisation."""
    with torch.device("meta"):
        network = make()
    return network.to_empty(device="cpu")


@pytest.mark.parametrize(
    ("make", "ours", "shape"),
    [
        (LeNet, models.lenet5, (2, 1, 28, 28)),
        (lambda: ResNet((2, 2, 2, 2), 64, 1000), models.resnet18, (1, 3, 64, 64)),
        (lambda: ResNet((3, 4, 6, 3), 64, 1000, True), models.resnet50, (1, 3, 64, 64)),
        (lambda: DenseNet(32, (6, 12, 24, 16), 64, 1000), models.densenet121, (1, 3, 64, 64)),
        (VGG16, models.vgg16, (1, 3, 64, 64)),
        (lambda: ResNet((3, 3, 3), 16, 10, small=True), models.resnet20, (2, 3, 32, 32)),
        (GoogLeNet, models.googlenet, (1, 3, 64, 64)),
        (lambda: AlexNet(False), models.alexnet, (1, 3, 95, 95)),
        (lambda: AlexNet(True), lambda: models.alexnet(grouped=True), (1, 3, 95, 95)),
    ],
    ids=(
        "lenet",
        "resnet18",
        "resnet50",
        "densenet121",
        "vgg16",
        "resnet20",
        "googlenet",
        "alexnet",
        "alexnet-grouped",
    ),
)
def test_weights_load_by_name_and_give_the_same_output(make, ours, shape, rng, monkeypatch):
    theirs = build(make).eval()
    randomise(theirs, rng)
    from nnx.nn import init

    for name in init.__all__:  # every value comes from the state dict
        if name.endswith("_"):
            monkeypatch.setattr(init, name, lambda tensor, *args, **kwargs: tensor)
    model = ours().eval()
    weights = arrays(theirs)
    assert list(model.state_dict()) == list(weights)
    assert not any(model.load_state_dict(weights))
    x = rng.standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    y = model.predict(x)
    assert y.dtype == np.float32
    # float32 sums of up to 25,088 products: 1e-5 of the largest output
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            lambda: ResNet((1, 2), 4, 3),
            lambda: models.ResNet(models.resnet.BasicBlock, (1, 2), 3, width=4),
        ),
        (
            lambda: ResNet((1, 1), 2, 3, True),
            lambda: models.ResNet(models.resnet.Bottleneck, (1, 1), 3, width=2),
        ),
        (
            lambda: DenseNet(3, (2, 2), 4, 3),
            lambda: models.densenet(3, (2, 2), 4, num_classes=3),
        ),
    ],
    ids=("basic", "bottleneck", "densenet"),
)
def test_training_step_gradients(theirs, ours, rng):
    """Batch statistics, every gradient, and the running statistics afterwards, in float64."""
    theirs = build(theirs).double().train()
    randomise(theirs, rng)
    model = ours().double()
    model.load_state_dict(arrays(theirs))
    x = rng.standard_normal((4, 3, 24, 20))
    weights = rng.standard_normal((4, 3))
    given = torch.from_numpy(x.copy()).requires_grad_()
    expected = theirs(given)
    (expected * torch.from_numpy(weights)).sum().backward()
    from nnx import tensor
    from nnx.testing import assert_close

    image = tensor(x, requires_grad=True)
    y = model(image)
    (y * weights).sum().backward()
    assert_close(y, expected.detach().numpy(), 1e-10)
    # batch normalisation amplifies rounding by 1 / std, block after block
    assert_close(image.grad, given.grad.numpy(), 1e-9)
    gradients = dict(theirs.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in gradients.values())
    for name, p in model.named_parameters():
        assert_close(p.grad, gradients[name].grad.numpy(), 1e-9, 1e-12 * largest, name)
    for name, value in arrays(theirs).items():
        assert_close(model.state_dict()[name], value, 1e-10, name=name)
