"""A small batch-norm ConvNet that fits the image to hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx import _check, nn
from nnx.autograd import Tensor


class ConvNet(nn.Module):
    """Stages of two conv-BN-ReLU layers and a max pool, then one linear layer; see `convnet`."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | Sequence[int] = 32,
        widths: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = _check.ntuple("ConvNet", "image_size", image_size, 2, 1)
        reduction = 2 ** len(widths)
        if min(height, width) < reduction:
            raise ValueError(
                f"ConvNet: expected image_size of at least {reduction} for {len(widths)} stages, "
                f"got {height}x{width}. Pass fewer widths"
            )
        layers: list[nn.Module] = []
        channels = in_channels
        for n in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)]
                layers.append(nn.ReLU())
                channels = n
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels * (height // reduction) * (width // reduction), num_classes)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(self.dropout(self.features(x).flatten(1)))


def convnet(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | Sequence[int] = 32,
    widths: Sequence[int] = (32, 64, 128),
    dropout: float = 0.0,
) -> ConvNet:
    """A small ConvNet in the manner of VGG with batch normalisation.

    Each width makes a stage: conv 3x3, BN, ReLU, conv 3x3, BN, ReLU, max pool 2.

    image_size:  height and width of the images (one number if they are equal)
    widths:      channels of each stage; (32, 64) suits 8x8 images
    dropout:     probability of dropping a feature before the last layer

    Shapes: (N, in_channels, height, width) to (N, num_classes).

    >>> convnet(in_channels=1, image_size=8, widths=(32, 64)).classifier
    Linear(in_features=256, out_features=10, bias=True)
    """
    return ConvNet(num_classes, in_channels, image_size, widths, dropout)
