"""Style transfer: the content of one picture in the texture of another, by matching Gram matrices.

The pixels are what is trained, the network stays as it is: its feature maps say what is where (content), and which of
them occur together, wherever that is, says what the texture is like (style). A small network trained on the digits
that ship with nnx is enough for that; so are random filters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture

ROWS = ("F170",)


def gram(features: Any) -> nnx.Tensor:
    """How often two feature maps are active together: G = F F^T / (H W), with F the maps ``(N, C, H, W)`` as rows.

    Returns ``(N, C, C)``. Whatever moves all maps alike leaves it as it is: it knows no places.

    L. A. Gatys, A. S. Ecker, M. Bethge, A neural algorithm of artistic style, arXiv:1508.06576 (2015).

    >>> gram(np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]])).tolist()
    [[[2.5, 5.5], [5.5, 12.5]]]
    """
    features = features if isinstance(features, nnx.Tensor) else nnx.tensor(features)
    n, channels, height, width = features.shape
    rows = features.reshape(n, channels, height * width)
    return rows @ rows.transpose(1, 2) / (height * width)


def style_loss(features: Any, target: Any) -> nnx.Tensor:
    """``sum (G(features) - target)^2 / C^2``; its gradient is ``4 (G - target) F / (C^2 H W)``."""
    difference = gram(features) - target
    return (difference * difference).sum() / difference.shape[-1] ** 2


class Features(nn.Module):
    """The feature maps of two stages of convolutions: a tuple, fine ones first."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, width, 3, padding=1, padding_mode="reflect")
        self.coarse = nn.Conv2d(width, 2 * width, 5, padding=2, padding_mode="reflect")

    def forward(self, x: Any) -> tuple[nnx.Tensor, ...]:
        fine = F.relu(self.fine(x))
        coarse = F.relu(self.coarse(F.avg_pool2d(fine, 2)))
        return fine, coarse


class Classifier(nn.Module):
    """What gives `Features` a reason to look at something: scores for the digits."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features
        self.classify = nn.Linear(features.coarse.out_channels, 10)

    def forward(self, x: Any) -> nnx.Tensor:
        return self.classify(F.adaptive_avg_pool2d(self.features(x)[-1], 1).flatten(1))


def digit_features(epochs: int, seed: int) -> Features:
    """Features of a network that has learned to name the digits."""
    nnx.manual_seed(seed)
    digits = nnx.data.digits()
    model = Classifier(Features())
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=5e-3))
    trainer.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=32, seed=seed)
    return model.features


def pictures(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One for the content, a disc and a square, and one for the style, slanted waves: each ``(1, 1, size, size)``."""
    y, x = np.mgrid[:size, :size] / size
    content = 0.3 + 0.5 * (np.hypot(y - 0.35, x - 0.35) < 0.22) - 0.2 * (np.maximum(abs(y - 0.7), abs(x - 0.68)) < 0.17)
    style = 0.5 + 0.4 * np.sin(40 * (x + 0.6 * y) + 2 * np.sin(9 * y)) + 0.05 * rng.standard_normal((size, size))
    return tuple(np.clip(p, 0, 1).astype(np.float32)[None, None] for p in (content, style))


def transfer(
    features: Features, content: np.ndarray, style: np.ndarray, weight: float, steps: int
) -> tuple[np.ndarray, list[float]]:
    """Change `content` by L-BFGS until its Gram matrices are near those of `style`; return it and the losses."""
    features.requires_grad_(False)
    wanted = features.predict(content)[-1]
    grams = [gram(maps).data for maps in features.predict(style)]
    pixels = nnx.Parameter(content.copy())
    losses: list[float] = []

    def closure() -> nnx.Tensor:
        maps = features(pixels)
        optimizer.zero_grad()
        loss = F.mse_loss(maps[-1], wanted)
        for found, target in zip(maps, grams, strict=True):
            loss = loss + weight * style_loss(found, target)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer = nnx.optim.LBFGS([pixels], max_iter=steps, history_size=20, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    return pixels.data, losses


def style_distance(features: Features, a: np.ndarray, b: np.ndarray) -> float:
    """The style losses of all stages between two pictures, added."""
    pairs = zip(features.predict(a), features.predict(b), strict=True)
    return sum(style_loss(found, gram(target).data).item() for found, target in pairs)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Transfer a texture with features that were learned on the digits, and with random ones."""
    content, style = pictures(32 if small else 64, np.random.default_rng(seed))
    nnx.manual_seed(seed)
    networks: dict[str, Features] = {"random": Features()}
    networks["digits"] = digit_features(1 if small else 15, seed)
    results: dict[str, Any] = {}
    shown = [content, style]
    for name, features in networks.items():
        before = style_distance(features, content, style)
        moved = float(np.mean((features.predict(content)[-1] - features.predict(style)[-1]) ** 2))
        # Weighed so that the style counts twice as much as the content, whatever the size of the features.
        mixed, losses = transfer(features, content, style, 2 * moved / before, 20 if small else 200)
        after = style_distance(features, mixed, style)
        kept = float(np.mean((features.predict(content)[-1] - features.predict(mixed)[-1]) ** 2)) / moved
        print(f"{name} features: loss {losses[0]:.4g} -> {min(losses):.4g} after {len(losses)} evaluations;")
        print(f"  distance to the style {after / before:.1%} of what it was, to the content {kept:.1%} of the style's")
        results[name] = {"losses": losses, "style_ratio": after / before, "content_ratio": kept}
        shown.append(mixed)
    if path := picture(out, "style_transfer-pictures"):
        titles = ["content", "style", *(f"{name} features" for name in networks)]
        viz.images(np.clip(np.concatenate(shown), 0, 1), titles=titles, columns=4, path=path)
    return results
