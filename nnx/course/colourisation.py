"""Colourisation: the colours of a grey image, as far as they can be known from it.

The brightness is given, so the network only predicts the two numbers per pixel that brightness leaves open. Where
several colours fit the same grey, the squared error is least for their mean: the network paints a wall that may be red
or blue in the muddy colour between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import _scenes, picture

ROWS = ("F171",)

# Rows: brightness Y, blue minus brightness, red minus brightness.
TO_YBR = np.array([_scenes.LUMINANCE, [0, 0, 1] - _scenes.LUMINANCE, [1, 0, 0] - _scenes.LUMINANCE])
FROM_YBR = np.linalg.inv(TO_YBR)


def recode(images: Any, matrix: np.ndarray) -> np.ndarray:
    """Multiply the three channels of each pixel of ``(N, 3, H, W)`` by a 3 x 3 matrix.

    >>> pixel = np.array([0.2, 0.4, 0.6]).reshape(1, 3, 1, 1)
    >>> recode(recode(pixel, TO_YBR), FROM_YBR).round(6).ravel().tolist()
    [0.2, 0.4, 0.6]
    """
    return np.moveaxis(np.moveaxis(np.asarray(images), 1, -1) @ matrix.T.astype(np.float32), -1, 1)


def build(width: int = 16) -> nn.Module:
    """Brightness and height in the image ``(N, 2, H, W)`` to the two colour differences ``(N, 2, H, W)``."""
    layers: list[nn.Module] = []
    channels = 2
    for dilation in (1, 2, 4, 8, 1):  # each output pixel sees 33 x 33 pixels, at full resolution all the way
        layers += [
            nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(width, 2, 1))


def with_height(grey: np.ndarray) -> np.ndarray:
    """Add a channel that says how far down a pixel is (-1 to 1): a convolution cannot tell by itself."""
    height = np.broadcast_to(np.linspace(-1, 1, grey.shape[2], dtype=grey.dtype)[:, None], grey.shape)
    return np.concatenate([grey, height], axis=1)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on drawn landscapes and compare the error on new ones with that of leaving them grey."""
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train = recode(_scenes.landscapes(32 if small else 300, rng), TO_YBR)
    test = recode(_scenes.landscapes(16 if small else 100, rng), TO_YBR)

    model = build(8 if small else 16)
    epochs = 2 if small else 18
    optimizer = nnx.optim.Adam(model.parameters(), lr=5e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, metrics=())
    trainer.fit(with_height(train[:, :1]), train[:, 1:], epochs=epochs, batch_size=16, seed=seed)

    coloured = np.concatenate([test[:, :1], model.predict(with_height(test[:, :1]))], axis=1)
    truth, painted = recode(test, FROM_YBR), recode(coloured, FROM_YBR)
    grey = np.repeat(test[:, :1], 3, axis=1)
    grey_mse = float(np.mean((grey - truth) ** 2))
    mse = float(np.mean((painted - truth) ** 2))
    red_wall = test[:, 2] > 0.25  # nothing else is as much redder than it is bright
    redness = {"true": float(test[:, 2][red_wall].mean()), "painted": float(coloured[:, 2][red_wall].mean())}
    print(f"mean squared error of the grey images: {grey_mse:.5f}")
    print(f"mean squared error after colourisation: {mse:.5f} ({mse / grey_mse:.1%})")
    print(f"red minus brightness on red walls: {redness['true']:.2f}; as painted: {redness['painted']:.2f}")
    if path := picture(out, "colourisation-landscapes"):
        rows = np.clip(np.concatenate([grey[:6], painted[:6], truth[:6]]), 0, 1)
        viz.images(rows, columns=6, path=path)
    return {"grey_mse": grey_mse, "mse": mse, "ratio": mse / grey_mse, "redness": redness}
