"""GoogLeNet, with batch normalisation as in torchvision."""

from __future__ import annotations

from typing import Any, NamedTuple

from nnx import cat, nn
from nnx import functional as F
from nnx.autograd import Tensor


class GoogLeNetOutputs(NamedTuple):
    """What a GoogLeNet with auxiliary heads returns during training."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class _ConvBN(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Inception(nn.Module):
    """Four branches over the same input, joined along the channels.

    The third branch has 3x3 kernels where the paper has 5x5: torchvision's weights have that shape.
    """

    def __init__(self, channels: int, c1: int, c3_in: int, c3: int, c5_in: int, c5: int, pool: int) -> None:
        super().__init__()
        self.branch1 = _ConvBN(channels, c1, 1)
        self.branch2 = nn.Sequential(_ConvBN(channels, c3_in, 1), _ConvBN(c3_in, c3, 3, padding=1))
        self.branch3 = nn.Sequential(_ConvBN(channels, c5_in, 1), _ConvBN(c5_in, c5, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), _ConvBN(channels, pool, 1))

    def forward(self, x: Any) -> Tensor:
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class _Auxiliary(nn.Module):
    """A classifier on an inner layer, which feeds the lower half with gradient during training."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = _ConvBN(in_channels, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, (4, 4))).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x), inplace=True)))


class GoogLeNet(nn.Module):
    """Nine inception modules; see `googlenet`."""

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        self.aux_logits = aux_logits
        self.conv1 = _ConvBN(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = _ConvBN(64, 64, 1)
        self.conv3 = _ConvBN(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = _Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = _Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = _Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = _Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = _Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = _Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = _Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = _Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = _Inception(832, 384, 192, 384, 48, 128, 128)
        if aux_logits:
            self.aux1 = _Auxiliary(512, num_classes, dropout_aux)
            self.aux2 = _Auxiliary(528, num_classes, dropout_aux)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, mean=0.0, std=0.01, a=-2, b=2)

    def forward(self, x: Any) -> Any:
        heads = self.aux_logits and self.training
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        aux1 = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if heads else None
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return GoogLeNetOutputs(x, aux2, aux1) if aux1 is not None and aux2 is not None else x


def googlenet(
    num_classes: int = 1000,
    aux_logits: bool = False,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
) -> GoogLeNet:
    """GoogLeNet with batch normalisation: 6,624,904 parameters, 13,004,888 with auxiliary heads.

    aux_logits:   add the two auxiliary classifiers; in training mode the result is then the tuple
                  `GoogLeNetOutputs` of (logits, aux_logits2, aux_logits1)
    dropout:      probability of dropping a feature before the last layer
    dropout_aux:  the same inside the auxiliary classifiers

    Shapes: (N, 3, 224, 224) to (N, num_classes). Weights of torchvision's network load by name.

    Szegedy et al., "Going deeper with convolutions", 2014.
    """
    return GoogLeNet(num_classes, aux_logits, dropout, dropout_aux)
