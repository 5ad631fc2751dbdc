"""A generative adversarial network: two networks that play against each other, on points in the plane.

The data are eight small clouds on a circle. The generator turns noise into points, the discriminator tells real
points from generated ones, and each learns from the other's success. A generator that has found one cloud can please
the discriminator with it for long ("mode collapse"); noise on the discriminator's inputs, less and less of it, works
against that: blurred clouds overlap, so there is a slope that leads from each to the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture

ROWS = ("F174",)
MODES = 8
SPREAD = 0.05
NOISE = 8
CENTRES = np.stack([np.cos(2 * np.pi * np.arange(MODES) / MODES), np.sin(2 * np.pi * np.arange(MODES) / MODES)], axis=1)


def ring(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` points ``(n, 2)`` float32: one of eight places on the unit circle, and a normal error of 0.05."""
    points = CENTRES[rng.integers(0, MODES, n)] + SPREAD * rng.standard_normal((n, 2))
    return points.astype(np.float32)


def coverage(points: Any) -> tuple[np.ndarray, float]:
    """Return how large a part of the points lies in each cloud (within three standard deviations), and their sum.

    >>> parts, good = coverage(np.concatenate([CENTRES, [[0, 0], [3, 3]]]))
    >>> parts.tolist(), good
    ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 0.8)
    """
    distance = np.linalg.norm(np.asarray(points)[:, None] - CENTRES, axis=2)
    near = distance.argmin(axis=1)[distance.min(axis=1) <= 3 * SPREAD]
    parts = np.bincount(near, minlength=MODES) / len(points)
    return parts, float(len(near) / len(points))


def noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """What the generator makes points of: ``(n, 8)`` normal numbers."""
    return rng.standard_normal((n, NOISE), dtype=np.float32)


def network(features_in: int, features_out: int, width: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features_in, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, features_out),
    )


def play(seed: int, steps: int, blur: float) -> tuple[nn.Module, list[np.ndarray]]:
    """Train both for `steps` steps; return the generator and 1,000 of its points at each quarter of the time.

    blur:  standard deviation at first of the noise on what the discriminator sees; it falls to 0 after 4/5 of the time
    """
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    batch = 256
    generator, discriminator = network(NOISE, 2), network(2, 1)
    optim_g = nnx.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    optim_d = nnx.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    real, generated = np.ones((batch, 1), np.float32), np.zeros((batch, 1), np.float32)
    snapshots = []

    for step in range(steps):
        width = blur * max(0.0, 1 - 1.25 * step / steps)

        def judge(points: Any, width: float = width) -> nnx.Tensor:
            return discriminator(points + width * rng.standard_normal((batch, 2), dtype=np.float32))

        optim_d.zero_grad()
        fake = generator.predict(noise(batch, rng))  # without a tape: this step leaves the generator alone
        loss_d = F.binary_cross_entropy_with_logits(judge(ring(batch, rng)), real)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(judge(fake), generated)
        loss_d.backward()
        optim_d.step()

        optim_g.zero_grad()
        # "Call them real" has a slope where "do not call them generated" is flat: when the discriminator is sure.
        loss_g = F.binary_cross_entropy_with_logits(judge(generator(noise(batch, rng))), real)
        loss_g.backward()
        optim_g.step()
        if step % (steps // 4) == steps // 4 - 1:
            snapshots.append(generator.predict(noise(1000, rng)))
    return generator, snapshots


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Let the two play, with and without noise on what the discriminator sees, and count the clouds that are found."""
    rng = np.random.default_rng(seed)
    results: dict[str, Any] = {}
    for name, blur in (("with noise", 0.5), ("without noise", 0.0)):
        generator, snapshots = play(seed, 100 if small else 3000, blur)
        parts, good = coverage(generator.predict(noise(4000, rng)))
        covered = int(np.sum(parts >= 0.02))
        results[name] = {"covered": covered, "parts": parts.tolist(), "good": good}
        print(f"{name}: {covered} of {MODES} clouds found, with {parts.min():.3f} to {parts.max():.3f} of the points")
        print(f"  points within three standard deviations of a cloud: {good:.3f}")
        if path := picture(out, f"gan-{name.replace(' ', '-')}"):
            _draw(snapshots, ring(1000, rng), path)
    return results


def _draw(snapshots: list[np.ndarray], real: np.ndarray, path: Path) -> None:
    """The generated points after each quarter of the time, and the real ones, as images that count the points."""
    edges = np.linspace(-1.6, 1.6, 65)
    counts = [np.histogram2d(p[:, 1], p[:, 0], bins=[edges, edges])[0][::-1] for p in (*snapshots, real)]
    titles = ["1/4", "1/2", "3/4", "end", "real"]
    viz.images(np.minimum(counts, 8), titles, columns=5, path=path)
