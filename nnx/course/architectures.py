"""Architectures: the written pattern, and the well-known networks from LeNet to a thousand layers.

A pattern such as [(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX is read, counted and built. Then the networks of the
lectures: what each of them brought, and how many numbers it has. LeNet is trained on the digits, and a network of 1202
layers makes one step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import models, nn, viz
from nnx.course import picture
from nnx.data import Compose, RandomCrop, RandomRotation, digits
from nnx.models import count_layers, parse_pattern, pattern_net
from nnx.train import Trainer

ROWS = ("F159", "F160", "F161", "F162", "F163", "F164", "F165", "F166")

PATTERN = "[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX"

#: name of the builder, its arguments, its number of parameters
NETWORKS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("lenet5", {}, 61_706),
    ("alexnet", {}, 62_378_344),
    ("alexnet", {"grouped": True}, 60_965_224),
    ("vgg16", {}, 138_357_544),
    ("vgg19", {}, 143_667_240),
    ("googlenet", {}, 6_624_904),
    ("resnet50", {}, 25_557_032),
    ("resnet1202", {"shortcut": "A"}, 19_421_274),
    ("densenet121", {}, 7_978_856),
)


def parameters(model: nn.Module) -> int:
    return sum(p.size for p in model.parameters())


def enlarged(x: np.ndarray) -> np.ndarray:
    """Digits of 8x8 pixels as 28x28: every pixel three times in each direction, and a border of two."""
    return np.pad(np.kron(x, np.ones((1, 1, 3, 3), x.dtype)), ((0, 0), (0, 0), (2, 2), (2, 2)))


def train_lenet(epochs: int, seed: int = 0) -> tuple[nn.Module, float]:
    """LeNet-5 on the enlarged digits, turned and shifted a little in every batch; returns it and its test accuracy."""
    x, y, x_test, y_test = digits()
    nnx.manual_seed(seed)
    model = models.lenet5()
    optimizer = nnx.optim.Adam(model.parameters(), lr=2e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    augment = Compose([RandomRotation(10), RandomCrop(28, padding=2)])
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    trainer.fit(enlarged(x), y, epochs, 32, seed=seed, transform=augment, verbose=False)
    return model, float((model.predict(enlarged(x_test)).argmax(axis=1) == y_test).mean())


def one_step(model: nn.Module, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Make one step of gradient descent; returns the loss before it and the norm of the whole gradient."""
    optimizer = nnx.optim.SGD(model.parameters(), lr=1e-4)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    squares = sum(float((np.asarray(p.grad, np.float64) ** 2).sum()) for p in model.parameters())
    optimizer.step()
    return float(loss.item()), squares**0.5


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Read and build a pattern, count the networks, train LeNet, make a step with 1202 layers."""
    layers = parse_pattern(PATTERN, N=2, M=3, K=1)
    counts = count_layers(layers)
    nnx.manual_seed(seed)
    net = pattern_net(PATTERN, counts={"N": 2, "M": 3, "K": 1})
    print(f"{PATTERN} with N=2, M=3, K=1:")
    print(f"  {'-'.join(layers)}")
    print(f"  {counts['weights']} layers with weights, {parameters(net)} parameters")
    result: dict[str, Any] = {"pattern": layers, "counts": counts, "pattern_parameters": parameters(net)}

    sizes = {}
    for name, arguments, _ in NETWORKS:
        label = " ".join([name, *(f"{k}={v}" for k, v in arguments.items())])
        if small and name not in ("lenet5", "densenet121"):
            continue  # hundreds of megabytes to fill with random numbers
        sizes[label] = parameters(models.build(name, **arguments))
        print(f"{label:24s} {sizes[label]:12,d} parameters")
    result["parameters"] = sizes

    lenet, result["lenet_accuracy"] = train_lenet(2 if small else 15, seed)
    print(f"LeNet-5 on digits of 28x28 pixels: test accuracy {result['lenet_accuracy']:.3f}")

    rng = np.random.default_rng(seed)
    nnx.manual_seed(seed)
    size = 8 if small else 32
    deep = models.resnet1202(shortcut="A")
    image = rng.standard_normal((2, 3, size, size), dtype=np.float32)
    loss, norm = one_step(deep, image, np.array([0, 1]))
    result["resnet1202"] = {"loss": loss, "gradient": norm}
    print(f"1202 layers, two images of {size}x{size}: loss {loss:.3f}, the gradient's norm is {norm:.3g}")

    if path := picture(out, "architectures-parameters"):
        viz.bars({name: float(n) for name, n in sizes.items()}, "parameters", log=True, path=path)
    if path := picture(out, "architectures-lenet"):
        viz.filters(lenet.conv1.weight, path=path, columns=6, title="first layer of LeNet")
    return result
