"""AlexNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx import _check, nn
from nnx.autograd import Tensor

_WIDTHS = (96, 256, 384, 384, 256)


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers; see `alexnet`."""

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.5,
        grouped: bool = False,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        super().__init__()
        a, b, c, d, e = _check.ntuple("AlexNet", "widths", widths, 5, 1)
        groups = 2 if grouped else 1
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2, groups=groups),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, d, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(d, e, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(e * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Any) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(
    num_classes: int = 1000,
    dropout: float = 0.5,
    grouped: bool = False,
    widths: Sequence[int] = _WIDTHS,
) -> AlexNet:
    """AlexNet without its response normalisation: 62,378,344 parameters.

    grouped:  two groups in the second, fourth and fifth convolution, as the original was split over
              two graphics cards: 60,965,224 parameters
    widths:   channels of the five convolutions; (64, 192, 384, 256, 256) is torchvision's network,
              whose weights load by name

    Shapes: (N, 3, 224, 224) or (N, 3, 227, 227) to (N, num_classes); other sizes are pooled to 6x6
    before the fully connected layers.

    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012; Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
    2014.
    """
    return AlexNet(num_classes, dropout, grouped, widths)
