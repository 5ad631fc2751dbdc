"""Segmentation: a class for every pixel, with a network that shrinks the image and enlarges it again.

Convolutions and pooling collect context, transposed convolutions bring the size back, and the first feature maps are
handed over to the last layers so that edges stay sharp. The pictures are drawn: discs, squares and triangles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import _scenes, picture

ROWS = ("F168",)


class SegmentationNet(nn.Module):
    """Scores ``(N, classes, H, W)`` for the pixels of grey images ``(N, 1, H, W)``; H and W are multiples of 4.

    A small U-Net: O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image
    segmentation, arXiv:1505.04597 (2015).
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.fine = _convolutions(1, width)
        self.middle = _convolutions(width, 2 * width)
        self.coarse = nn.Sequential(_convolutions(2 * width, 2 * width), _convolutions(2 * width, 2 * width))
        self.pool = nn.MaxPool2d(2)
        self.up_middle = nn.ConvTranspose2d(2 * width, 2 * width, 2, stride=2)
        self.join_middle = _convolutions(4 * width, width)
        self.up_fine = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.join_fine = _convolutions(2 * width, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Any) -> nnx.Tensor:
        fine = self.fine(x)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        middle = self.join_middle(nnx.cat([self.up_middle(coarse), middle], 1))
        fine = self.join_fine(nnx.cat([self.up_fine(middle), fine], 1))
        return self.classify(fine)


def _convolutions(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def intersection_over_union(predicted: Any, target: Any, classes: int) -> np.ndarray:
    """For each class the pixels that both call so, divided by those that either calls so; NaN where neither does.

    >>> intersection_over_union([[0, 1], [1, 1]], [[0, 0], [1, 1]], 3)
    array([0.5       , 0.66666667,        nan])
    """
    predicted, target = np.asarray(predicted), np.asarray(target)
    both = np.array([np.sum((predicted == k) & (target == k)) for k in range(classes)], np.float64)
    either = np.array([np.sum((predicted == k) | (target == k)) for k in range(classes)], np.float64)
    return np.divide(both, either, out=np.full(classes, np.nan), where=either > 0)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on drawn shapes and measure the mean intersection over union on new ones."""
    names = ("background", *_scenes.SHAPES)
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x_train, y_train = _scenes.shapes(64 if small else 800, rng)
    x_test, y_test = _scenes.shapes(32 if small else 200, rng)

    model = SegmentationNet(len(names), width=8 if small else 16)
    epochs = 2 if small else 14
    optimizer = nnx.optim.Adam(model.parameters(), lr=5e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    history = trainer.fit(x_train, y_train, epochs=epochs, batch_size=16, seed=seed)

    predicted = model.predict(x_test).argmax(axis=1)
    iou = intersection_over_union(predicted, y_test, len(names))
    for name, value in zip(names, iou, strict=True):
        print(f"IoU of {name}: {value:.3f}")
    print(f"mean IoU on {len(x_test)} new images: {np.nanmean(iou):.3f}")
    if path := picture(out, "segmentation-masks"):
        grey = [np.clip(x_test[:6, 0], 0, 1), y_test[:6] / len(_scenes.SHAPES), predicted[:6] / len(_scenes.SHAPES)]
        viz.images(np.concatenate(grey), columns=6, path=path)
    return {"iou": iou.tolist(), "mean_iou": float(np.nanmean(iou)), "loss": list(history.loss)}
