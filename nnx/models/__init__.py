"""Well-known networks, and `build`, which makes one from a name and plain arguments.

Parameter names follow torchvision where it has the network, so that weights trained there load
here. Every builder takes keyword arguments that JSON can hold: a run folder's ``model.json`` is a
name and a dictionary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nnx.models.alexnet import AlexNet, alexnet
from nnx.models.convnet import ConvNet, convnet
from nnx.models.densenet import DenseNet, densenet, densenet121
from nnx.models.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from nnx.models.lenet import LeNet5, lenet5
from nnx.models.mlp import MLP, mlp
from nnx.models.pattern import PatternNet, count_layers, parse_pattern, pattern_net
from nnx.models.resnet import ResNet, resnet18, resnet34, resnet50
from nnx.models.resnet_cifar import (
    CIFARResNet,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet1202,
)
from nnx.models.vgg import VGG, vgg8, vgg11, vgg13, vgg16, vgg19
from nnx.nn import Module

_BUILDERS: dict[str, Callable[..., Module]] = {
    builder.__name__: builder
    for builder in (
        mlp,
        lenet5,
        convnet,
        alexnet,
        vgg8,
        vgg11,
        vgg13,
        vgg16,
        vgg19,
        googlenet,
        resnet18,
        resnet34,
        resnet50,
        resnet20,
        resnet32,
        resnet44,
        resnet56,
        resnet110,
        resnet1202,
        densenet,
        densenet121,
        pattern_net,
    )
}


def names() -> list[str]:
    """The names that `build` knows.

    >>> "resnet20" in names()
    True
    """
    return list(_BUILDERS)


def build(name: str, **arguments: Any) -> Module:
    """Make the network called `name`.

    ``build("vgg16", num_classes=10)`` is ``vgg16(num_classes=10)``. Raises ValueError for an
    unknown name and TypeError for an argument that the builder does not take.

    >>> build("mlp", sizes=[64, 10]).layers[0]
    Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in _BUILDERS:
        raise ValueError(f"build: expected name to be one of {', '.join(names())}, got {name!r}")
    builder = _BUILDERS[name]
    known = inspect.signature(builder).parameters
    for argument in arguments:
        if argument not in known:
            raise TypeError(f"build: expected arguments of {name} among {', '.join(known)}, got {argument!r}")
    return builder(**arguments)


__all__ = [
    "MLP",
    "VGG",
    "AlexNet",
    "CIFARResNet",
    "ConvNet",
    "DenseNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "LeNet5",
    "PatternNet",
    "ResNet",
    "alexnet",
    "build",
    "convnet",
    "count_layers",
    "densenet",
    "densenet121",
    "googlenet",
    "lenet5",
    "mlp",
    "names",
    "parse_pattern",
    "pattern_net",
    "resnet110",
    "resnet1202",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg8",
]
