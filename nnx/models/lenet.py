"""LeNet-5 for digits."""

from __future__ import annotations

from typing import Any

from nnx import _check, nn
from nnx import functional as F
from nnx.autograd import Tensor


class LeNet5(nn.Module):
    """Two convolutions with max pooling, three fully connected layers, ReLU; see `lenet5`."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        _check.choice("LeNet5", "image_size", image_size, (28, 32))
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2 if image_size == 28 else 0)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Any) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def lenet5(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet5:
    """LeNet-5 in its usual modern form, with ReLU and max pooling: 61,706 parameters.

    image_size:  28 (padded by 2 in the first convolution) or 32

    Shapes: (N, in_channels, image_size, image_size) to (N, num_classes).

    LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    return LeNet5(num_classes, in_channels, image_size)
