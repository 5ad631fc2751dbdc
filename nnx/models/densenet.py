"""Densely connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx import _check, cat, nn
from nnx import functional as F
from nnx.autograd import Tensor


class _DenseLayer(nn.Module):
    """BN, ReLU, 1x1 convolution, BN, ReLU, 3x3 convolution over all features made so far."""

    def __init__(self, channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Any) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return F.dropout(y, self.drop_rate, self.training) if self.drop_rate else y


class _DenseBlock(nn.Module):
    """Layers that each read the output of all layers before them."""

    def __init__(self, layers: int, channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        for i in range(layers):
            layer = _DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Any) -> Tensor:
        features = [x]
        for layer in self.children():
            features.append(layer(cat(features, 1)))
        return cat(features, 1)


class _Transition(nn.Module):
    """Fewer channels by a 1x1 convolution, half the map by average pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2, stride=2)

    def forward(self, x: Any) -> Tensor:
        return self.pool(self.conv(F.relu(self.norm(x))))


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, one linear layer; see `densenet`."""

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        small_images: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        for name, n in (
            ("growth_rate", growth_rate),
            ("num_init_features", num_init_features),
            ("bn_size", bn_size),
        ):
            _check.integer("DenseNet", name, n, 1)
        _check.real("DenseNet", "drop_rate", drop_rate, 0, 1)
        self.features = nn.Sequential()
        add = self.features.add_module
        if small_images:
            add("conv0", nn.Conv2d(in_channels, num_init_features, 3, padding=1, bias=False))
        else:
            stem = nn.Conv2d(in_channels, num_init_features, 7, stride=2, padding=3, bias=False)
            add("conv0", stem)
            add("norm0", nn.BatchNorm2d(num_init_features))
            add("relu0", nn.ReLU(inplace=True))
            add("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = num_init_features
        for i, layers in enumerate(block_config):
            block = _DenseBlock(layers, channels, growth_rate, bn_size, drop_rate)
            add(f"denseblock{i + 1}", block)
            channels += layers * growth_rate
            if i + 1 < len(block_config):
                add(f"transition{i + 1}", _Transition(channels, channels // 2))
                channels //= 2
        add("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Any) -> Tensor:
        x = F.relu(self.features(x))
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


def densenet(
    growth_rate: int = 32,
    block_config: Sequence[int] = (6, 12, 24, 16),
    num_init_features: int = 64,
    bn_size: int = 4,
    drop_rate: float = 0.0,
    num_classes: int = 1000,
    small_images: bool = False,
    in_channels: int = 3,
) -> DenseNet:
    """A densely connected network with bottleneck layers and halving transitions.

    growth_rate:        channels that each layer adds
    block_config:       layers of each block
    num_init_features:  channels of the first convolution
    bn_size:            channels of a layer's bottleneck, as a multiple of `growth_rate`
    drop_rate:          probability of dropping a new feature during training
    small_images:       begin with a 3x3 convolution at full resolution (32x32 images) rather than
                        with a 7x7 convolution and pooling that reduce the map to a quarter

    Shapes: (N, in_channels, H, W) to (N, num_classes).

    Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", 2016.
    """
    return DenseNet(
        growth_rate,
        block_config,
        num_init_features,
        bn_size,
        drop_rate,
        num_classes,
        small_images,
        in_channels,
    )


def densenet121(num_classes: int = 1000, drop_rate: float = 0.0) -> DenseNet:
    """DenseNet with 121 layers that have weights: 7,978,856 parameters.

    Shapes: (N, 3, 224, 224) to (N, num_classes); any size from 32 up. Weights of torchvision's
    network load by name.
    """
    return DenseNet(drop_rate=drop_rate, num_classes=num_classes)
