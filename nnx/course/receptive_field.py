"""Receptive fields: which pixels a neuron sees, by the formula and by its gradient.

Two 3x3 convolutions see 5x5 pixels, three see 7x7; strides and pooling multiply what follows. Which of these pixels
matter in one example, the gradient tells: max pooling and ReLU leave a part of them out, another part each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import diagnose, nn, optim, viz
from nnx.course import picture
from nnx.train import Trainer

ROWS = ("F156", "F157")

# (kernel, stride) of every convolution and pooling
ALEXNET = ((11, 4), (3, 2), 5, (3, 2), 3, 3, 3, (3, 2))
VGG16 = (3, 3, (2, 2), 3, 3, (2, 2), 3, 3, 3, (2, 2), 3, 3, 3, (2, 2), 3, 3, 3, (2, 2))


def small_convnet(seed: int = 0, epochs: int = 0) -> nn.Sequential:
    """Two convolutions with pooling for the digits, trained for some epochs."""
    nnx.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 4 * 4, 10),
    )  # fmt: skip
    data = nnx.data.digits()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=3e-3))
    trainer.fit(data.x_train, data.y_train, epochs, 50, verbose=False)
    return model


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Calculate the fields of well-known networks, and measure those of a trained one on examples."""
    stacks = {f"{n} x conv3": diagnose.stacked_field([3] * n) for n in (1, 2, 3)}
    stacks |= {"AlexNet, pool5": diagnose.stacked_field(ALEXNET), "VGG16, pool5": diagnose.stacked_field(VGG16)}
    for name, size in stacks.items():
        print(f"{name}: {size} x {size}")
    if not small:
        print(diagnose.receptive_field(nnx.models.alexnet(10, widths=(8,) * 5), (3, 224, 224)))
    model = small_convnet(seed, epochs=1 if small else 10)
    print(diagnose.receptive_field(model, (1, 8, 8)))
    examples = nnx.data.digits().x_test[:100]
    field = diagnose.measured_field(model, "4", examples, position=(2, 2))
    alone = [diagnose.measured_field(model, "4", x[None], position=(2, 2)) for x in examples[:8]]
    pixels = [int(np.count_nonzero(f.strength)) for f in alone]
    print(field)
    print(f"pixels that matter in each of eight examples: {pixels} of {field.size[0] * field.size[1]}")
    if path := picture(out, "receptive_field-examples"):
        shown = np.stack([*examples[:8, 0], *(f.strength / f.strength.max() for f in alone)])
        viz.images(shown, columns=8, path=path)
    if path := picture(out, "receptive_field-strength"):
        field.plot(path)
    return {"theory": stacks, "measured": field.size, "agrees": field.agrees, "pixels": pixels}
