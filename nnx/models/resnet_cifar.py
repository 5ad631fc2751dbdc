"""The thin residual networks for 32x32 images, from 20 to 1202 layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check, cat, nn
from nnx import functional as F
from nnx.autograd import Tensor
from nnx.models.resnet import BasicBlock, conv1x1, conv3x3, initialize


class _PadShortcut(nn.Module):
    """Every second pixel, and channels of zeros on both sides: a shortcut without parameters."""

    def __init__(self, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.extra_channels, self.stride = extra_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.extra_channels // 2
        n, _, h, w = x.shape
        zeros = np.zeros((n, self.extra_channels, h, w), x.dtype)
        return cat([zeros[:, :before], x, zeros[:, before:]], 1)


class CIFARResNet(nn.Module):
    """Stages of basic blocks: 16, 32, 64 channels on 32x32, 16x16, 8x8 maps; see `resnet20`."""

    def __init__(self, depth: int, num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> None:
        super().__init__()
        depth = _check.integer("CIFARResNet", "depth", depth, 8)
        if depth % 6 != 2:
            raise ValueError(f"CIFARResNet: expected depth to be 6n + 2, got {depth}")
        _check.choice("CIFARResNet", "shortcut", shortcut, ("A", "B"))
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        count = depth // 6
        self.layer1 = _stage(16, 16, 1, count, shortcut)
        self.layer2 = _stage(16, 32, 2, count, shortcut)
        self.layer3 = _stage(32, 64, 2, count, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, num_classes)
        initialize(self)

    def forward(self, x: Any) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(in_channels: int, channels: int, stride: int, count: int, shortcut: str) -> nn.Sequential:
    downsample: nn.Module | None = None
    if stride != 1 and shortcut == "A":
        downsample = _PadShortcut(channels - in_channels, stride)
    elif stride != 1:
        downsample = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
    first = BasicBlock(in_channels, channels, stride, downsample)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(count - 1)))


def resnet20(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 20 layers for 32x32 images: 272,474 parameters.

    shortcut:  how a block that halves the map passes its input on: "B" by a 1x1 convolution with
               batch normalisation, "A" by dropping pixels and adding channels of zeros (269,722
               parameters)

    Shapes: (N, in_channels, 32, 32) to (N, num_classes); other sizes work too.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, section 4.2.
    """
    return CIFARResNet(20, num_classes, shortcut, in_channels)


def resnet32(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 32 layers for 32x32 images; arguments as for `resnet20`."""
    return CIFARResNet(32, num_classes, shortcut, in_channels)


def resnet44(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 44 layers for 32x32 images; arguments as for `resnet20`."""
    return CIFARResNet(44, num_classes, shortcut, in_channels)


def resnet56(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 56 layers for 32x32 images; arguments as for `resnet20`."""
    return CIFARResNet(56, num_classes, shortcut, in_channels)


def resnet110(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 110 layers for 32x32 images; arguments as for `resnet20`."""
    return CIFARResNet(110, num_classes, shortcut, in_channels)


def resnet1202(num_classes: int = 10, shortcut: str = "B", in_channels: int = 3) -> CIFARResNet:
    """The residual network of 1202 layers for 32x32 images; arguments as for `resnet20`."""
    return CIFARResNet(1202, num_classes, shortcut, in_channels)
