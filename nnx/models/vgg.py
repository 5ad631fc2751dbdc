"""VGG networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx import nn
from nnx.autograd import Tensor

# channels of the convolutions of each stage; every stage ends with a max pool
_STAGES = {
    8: ((32, 32), (64, 64)),
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def _features(stages: Sequence[Sequence[int]], in_channels: int = 3, batch_norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for stage in stages:
        for channels in stage:
            layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Stages of 3x3 convolutions and max pooling, three fully connected layers; see `vgg16`."""

    def __init__(self, features: nn.Module, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _vgg(depth: int, num_classes: int, batch_norm: bool, dropout: float) -> VGG:
    return VGG(_features(_STAGES[depth], batch_norm=batch_norm), num_classes, dropout)


def vgg11(num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5) -> VGG:
    """VGG with 11 layers that have weights: 132,863,336 parameters; arguments as for `vgg16`."""
    return _vgg(11, num_classes, batch_norm, dropout)


def vgg13(num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5) -> VGG:
    """VGG with 13 layers that have weights: 133,047,848 parameters; arguments as for `vgg16`."""
    return _vgg(13, num_classes, batch_norm, dropout)


def vgg16(num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5) -> VGG:
    """VGG with 16 layers that have weights: 138,357,544 parameters.

    batch_norm:  normalise after every convolution (torchvision calls that network vgg16_bn)
    dropout:     probability of dropping a feature after the first two fully connected layers

    Shapes: (N, 3, 224, 224) to (N, num_classes); other sizes from 32 up are pooled to 7x7 before
    the fully connected layers. Weights of torchvision's network load by name.

    Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.
    """
    return _vgg(16, num_classes, batch_norm, dropout)


def vgg19(num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5) -> VGG:
    """VGG with 19 layers that have weights: 143,667,240 parameters; arguments as for `vgg16`."""
    return _vgg(19, num_classes, batch_norm, dropout)


class _VGG8(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = _features(_STAGES[8], in_channels)
        self.classifier = nn.Sequential(nn.Linear(64 * 8 * 8, 256), nn.ReLU(inplace=True), nn.Linear(256, num_classes))

    def forward(self, x: Any) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def vgg8(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """A small VGG for 32x32 images: 32, 32, pool, 64, 64, pool, 256, classes; 1,116,970 parameters.

    Shapes: (N, in_channels, 32, 32) to (N, num_classes).
    """
    return _VGG8(num_classes, in_channels)
