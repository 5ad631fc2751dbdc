"""The four reference networks, built from the public layers of nnx or of PyTorch: the same source for both.

`nn` is `nnx.nn` or `torch.nn`, `F` the functions that go with it.

* mlp: 784-512-512-10; batches of 128
* lenet: LeNet-5 with ReLU and max pooling on 1x28x28; 128
* vgg8: four 3x3 convolutions (32, 32, 64, 64) and two linear layers on 3x32x32; 64
* resnet20: the CIFAR ResNet, three stages of three residual blocks with 16, 32, 64 channels, projection shortcuts; 64
"""

from __future__ import annotations

from typing import Any

BATCH = {"mlp": 128, "lenet": 128, "vgg8": 64, "resnet20": 64}
SHAPE = {"mlp": (784,), "lenet": (1, 28, 28), "vgg8": (3, 32, 32), "resnet20": (3, 32, 32)}


def build(name: str, nn: Any, F: Any) -> Any:
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )  # fmt: skip
    if name == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
    if name == "vgg8":
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10),
        )  # fmt: skip
    if name == "resnet20":
        return resnet20(nn, F)
    raise ValueError(f"expected one of {', '.join(BATCH)}, got {name!r}")


def resnet20(nn: Any, F: Any) -> Any:
    class Block(nn.Module):
        def __init__(self, channels: int, filters: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.shortcut = nn.Identity()
            if stride != 1 or channels != filters:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
                )

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return F.relu(y + self.shortcut(x))

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            layers.append(Block(channels, filters, stride))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
