"""Detection: where is the object? A network that answers with the four numbers of a box.

One shape lies among lines that mean nothing. The network is an ordinary ConvNet; only its last layer (four numbers
and no scores) and its loss (a regression loss) differ from a classifier's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import _scenes, picture

ROWS = ("F169",)
SIZE = 32


def build(width: int = 16) -> nn.Module:
    """Images ``(N, 1, 32, 32)`` to boxes ``(N, 4)``: (left, top, right, bottom) as parts of the image's side."""

    def stage(channels_in: int, channels_out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *stage(1, width),
        *stage(width, 2 * width),
        *stage(2 * width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * (SIZE // 8) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 4),
    )


def box_iou(a: Any, b: Any) -> np.ndarray:
    """Area of the intersection over area of the union, for boxes (left, top, right, bottom) in rows.

    >>> box_iou([[0, 0, 2, 2], [0, 0, 1, 1]], [[1, 0, 3, 2], [2, 2, 3, 3]])
    array([0.33333333, 0.        ])
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = [np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (a, b)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on drawn shapes and measure the intersection over union of the boxes on new ones."""
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x_train, boxes_train = _scenes.boxed_shapes(128 if small else 2000, rng, SIZE)
    x_test, boxes_test = _scenes.boxed_shapes(64 if small else 400, rng, SIZE)

    model = build(8 if small else 16)
    epochs = 2 if small else 14
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.SmoothL1Loss(beta=0.05), optimizer, scheduler=schedule, metrics=())
    trainer.fit(x_train, boxes_train / SIZE, epochs=epochs, batch_size=32, seed=seed)

    boxes = SIZE * model.predict(x_test)
    iou = box_iou(boxes, boxes_test)
    same = np.tile(boxes_train.mean(axis=0), (len(x_test), 1))
    baseline = float(box_iou(same, boxes_test).mean())
    found = float(np.mean(iou >= 0.5))
    print(f"mean IoU with the mean box of the training images: {baseline:.3f}")
    print(f"mean IoU of the network on {len(x_test)} new images: {iou.mean():.3f}")
    print(f"objects found (IoU of at least 0.5): {found:.3f}")
    if path := picture(out, "detection-boxes"):
        drawn = np.stack([_outline(x, b, t) for x, b, t in zip(x_test[:12], boxes[:12], boxes_test[:12], strict=True)])
        viz.images(drawn, columns=6, path=path)
    return {"mean_iou": float(iou.mean()), "found": found, "baseline_iou": baseline}


def _outline(image: np.ndarray, box: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A grey image ``(1, H, W)`` as ``(3, H, W)``, with the true box in green and the predicted one in red."""
    picture = np.repeat(np.clip(image, 0, 1), 3, axis=0)
    for corners, colour in ((truth, (0, 1, 0)), (box, (1, 0, 0))):
        left, top, right, bottom = np.clip(np.floor(corners), 0, SIZE - 1).astype(int)
        for rows, columns in (
            (slice(top, top + 1), slice(left, right + 1)),
            (slice(bottom, bottom + 1), slice(left, right + 1)),
            (slice(top, bottom + 1), slice(left, left + 1)),
            (slice(top, bottom + 1), slice(right, right + 1)),
        ):
            picture[:, rows, columns] = np.reshape(colour, (3, 1, 1))
    return picture
