"""Synthetic pictures for the lecture topics: shapes, landscapes and faces, each drawn from a seeded generator.

Everything is drawn from signed distances: `d` is negative inside of a shape, positive outside, in pixels, and
``_cover(d)`` is the share of each pixel that lies inside, so edges are smooth. Parameters are columns ``(n, 1, 1)``
that broadcast against the pixel grid: a whole batch is drawn at a time.
"""

from __future__ import annotations

import numpy as np

SHAPES = ("disc", "square", "triangle")
PEOPLE = ("anna", "berta", "clara")
FACE_COUNTS = (534, 444, 610)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixel centres, as ``(1, size, size)``."""
    y, x = np.mgrid[:size, :size] + 0.5
    return y[None], x[None]


def _cover(distance: np.ndarray) -> np.ndarray:
    return np.clip(0.5 - distance, 0, 1)


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1, 1, 1)


def _ellipse(y: np.ndarray, x: np.ndarray, high: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Distance to an ellipse about (0, 0), exact on its edge to first order."""
    level = np.hypot(y / high, x / wide)
    return (level - 1) * np.minimum(high, wide)


def _box(y: np.ndarray, x: np.ndarray, high: np.ndarray, wide: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(y) - high, np.abs(x) - wide)


def shape_distance(kind: np.ndarray, y: np.ndarray, x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Signed distance to `SHAPES[kind]` about (0, 0): a disc of `radius`, or the square or triangle with its corners
    on that circle."""
    disc = np.hypot(y, x) - radius
    square = np.maximum(np.abs(y), np.abs(x)) - radius / np.sqrt(2)
    triangle = np.maximum(y, np.sqrt(0.75) * np.abs(x) - y / 2) - radius / 2
    return np.choose(kind, [disc, square, triangle])


def shape_box(kind: np.ndarray, cy: np.ndarray, cx: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The box around a shape at (cy, cx), as rows (left, top, right, bottom)."""
    side = radius / np.sqrt(2)
    wide = np.choose(kind, [radius, side, radius * np.sqrt(0.75)])
    up = np.choose(kind, [radius, side, radius])
    down = np.choose(kind, [radius, side, radius / 2])
    return np.stack([cx - wide, cy - up, cx + wide, cy + down], axis=-1)


def _background(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Grey of random level and slope, with noise on it."""
    y, x = _grid(size)
    level, down, across = (_column(rng.uniform(low, high, n)) for low, high in ((0.3, 0.7), (-0.1, 0.1), (-0.1, 0.1)))
    image = level + down * (2 * y / size - 1) + across * (2 * x / size - 1)
    return image + 0.04 * rng.standard_normal((n, size, size))


def shapes(n: int, rng: np.random.Generator, size: int = 32, most: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` grey images with 1 to `most` shapes, which may hide each other.

    Returns images ``(n, 1, size, size)`` float32 and the class of each pixel ``(n, size, size)`` int64: 0 for the
    background, 1 + k for `SHAPES[k]`.
    """
    y, x = _grid(size)
    image = _background(n, size, rng)
    classes = np.zeros(image.shape, np.int64)
    count = rng.integers(1, most + 1, n)
    for i in range(most):
        kind = rng.integers(0, len(SHAPES), n).reshape(-1, 1, 1)
        radius, cy, cx = (
            _column(rng.uniform(low, high, n) * size) for low, high in ((0.15, 0.28), (0.2, 0.8), (0.2, 0.8))
        )
        grey = _column(0.5 + rng.uniform(0.3, 0.5, n) * rng.choice([-1, 1], n))
        distance = shape_distance(kind, y - cy, x - cx, radius)
        inside = _cover(distance) * (count > i).reshape(-1, 1, 1)
        image += inside * (grey - image)
        classes = np.where(inside >= 0.5, kind + 1, classes)
    return image.astype(np.float32)[:, None], classes


def boxed_shapes(n: int, rng: np.random.Generator, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` grey images with one shape among three thin lines that are there to confuse.

    Returns images ``(n, 1, size, size)`` float32 and boxes ``(n, 4)`` float32, (left, top, right, bottom) in pixels.
    """
    y, x = _grid(size)
    image = _background(n, size, rng)
    for _ in range(3):
        angle, offset = _column(rng.uniform(0, np.pi, n)), _column(rng.uniform(-0.4, 0.4, n) * size)
        line = np.abs(np.cos(angle) * (y - size / 2) + np.sin(angle) * (x - size / 2) - offset)
        image += _cover(line) * _column(rng.uniform(-0.3, 0.3, n))
    kind = rng.integers(0, len(SHAPES), n)
    radius = rng.uniform(0.15, 0.3, n) * size
    cy, cx = (rng.uniform(radius, size - radius) for _ in range(2))
    change = _column(rng.uniform(0.25, 0.45, n) * rng.choice([-1, 1], n))
    distance = shape_distance(kind.reshape(-1, 1, 1), y - _column(cy), x - _column(cx), _column(radius))
    image += _cover(distance) * change
    return image.astype(np.float32)[:, None], shape_box(kind, cy, cx, radius).astype(np.float32)


def landscapes(n: int, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """Draw `n` colour images ``(n, 3, size, size)`` float32 in 0..1: sky, sun, meadow, a tree, and a house.

    The colour of everything follows from where it is and what it looks like, except for the wall of the house, which
    is red or blue with the same brightness: no method can tell which from a grey image.
    """
    y, x = _grid(size)
    light = _column(rng.uniform(0.8, 1.0, n))
    picture = np.empty((n, 3, size, size))

    def paint(inside: np.ndarray, colour: np.ndarray) -> None:
        picture[...] += inside[:, None] * (colour.reshape(-1, 3, 1, 1) - picture)

    horizon = _column(rng.uniform(0.5, 0.7, n) * size)
    high = np.clip(y / horizon, 0, 1)
    for channel, (top, low) in enumerate(((0.35, 0.75), (0.55, 0.85), (0.95, 1.0))):
        picture[:, channel] = top + (low - top) * high
    sun_y, sun_x, sun_r = (
        _column(rng.uniform(low, high, n) * size) for low, high in ((0.1, 0.25), (0.1, 0.9), (0.06, 0.1))
    )
    paint(_cover(np.hypot(y - sun_y, x - sun_x) - sun_r), np.array([1.0, 0.95, 0.3]))
    hills = horizon + _column(rng.uniform(0, 2, n)) * np.sin(x / size * 6 + _column(rng.uniform(0, 6, n)))
    paint(_cover(hills - y), np.array([0.3, 0.6, 0.2]))

    tree_x = _column(rng.uniform(0.1, 0.35, n) * size)
    trunk = _box(y - horizon - 1, x - tree_x, np.full_like(tree_x, 0.12 * size), np.full_like(tree_x, 0.03 * size))
    paint(_cover(trunk), np.array([0.4, 0.25, 0.1]))
    crown_r = _column(rng.uniform(0.09, 0.13, n) * size)
    paint(_cover(np.hypot(y - horizon + 0.15 * size, x - tree_x) - crown_r), np.array([0.1, 0.4, 0.1]))

    house_x, wide = _column(rng.uniform(0.6, 0.75, n) * size), _column(rng.uniform(0.12, 0.18, n) * size)
    tall = 0.12 * size
    wall = np.where(rng.random((n, 1)) < 0.5, [0.85, 0.3, 0.3], [0.3, 0.5, 0.95])
    wall *= 0.45 / (wall @ LUMINANCE)[:, None]
    paint(_cover(_box(y - horizon - 1, x - house_x, np.full_like(wide, tall), wide)), wall)
    up = horizon + 1 - tall - y  # above the wall
    roof = np.maximum(-up, np.abs(x - house_x) + up - wide - 2)
    paint(_cover(roof), np.array([0.35, 0.15, 0.1]))
    picture *= light[:, None]
    picture += 0.01 * rng.standard_normal((n, 1, size, size))
    return np.clip(picture, 0, 1).astype(np.float32)


LUMINANCE = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue are to the eye (ITU-R BT.601)."""


def _face(person: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a face for each entry of `person`: who it is sets the features, chance sets pose, light and expression."""
    n = len(person)

    def feature(*each: float, spread: float = 0.0) -> np.ndarray:
        return _column(np.array(each)[person] + spread * rng.standard_normal(n))

    def chance(low: float, high: float) -> np.ndarray:
        return _column(rng.uniform(low, high, n))

    rows, columns = _grid(size)
    angle, scale = np.deg2rad(chance(-15, 15)), chance(0.85, 1.15) * size / 60
    across, down = columns - size / 2 - chance(-4, 4), rows - size / 2 - chance(-4, 4)
    x = (np.cos(angle) * across + np.sin(angle) * down) / scale  # in face coordinates, 60 units wide
    y = (np.cos(angle) * down - np.sin(angle) * across) / scale
    turn = chance(-3, 3)  # the head looks aside: what is in the middle of the face moves

    image = chance(0.2, 0.8) + chance(-0.2, 0.2) * (columns / size - 0.5) + np.zeros_like(x)

    def paint(distance: np.ndarray, grey: np.ndarray | float) -> None:
        inside = _cover(distance * scale)
        image[...] += inside * (grey - image)

    hair, skin = feature(0.15, 0.25, 0.4, spread=0.05), feature(0.72, 0.66, 0.76, spread=0.05)
    wide, high = feature(17, 19, 16.5, spread=0.6), feature(23, 21.5, 24, spread=0.6)
    paint(_ellipse(y + 3, x, high + feature(2, 3.5, 1.5, spread=0.5), wide + feature(2, 3, 4, spread=0.5)), hair)
    paint(_ellipse(y - 2, x - turn / 3, high - 3, wide - 1), skin)
    eye = feature(6.5, 8.2, 7.2, spread=0.35)
    open_ = chance(0.8, 1.8)
    for side in (-1, 1):
        eye_x = x - turn - side * eye
        paint(_ellipse(y + 3, eye_x, open_ + 0.6, feature(2.6, 3.2, 2.2, spread=0.2)), 0.92)
        paint(np.hypot(y + 3, eye_x - chance(-1, 1)) - 1.3, 0.1)
        slant = side * eye_x * feature(0.15, -0.2, 0.0, spread=0.05)
        paint(
            _box(y + 7.5 + slant, eye_x, feature(0.7, 1.2, 0.5, spread=0.1), feature(3.5, 4.0, 3.0, spread=0.2)), hair
        )
    length, breadth = feature(4.2, 3.0, 5.4, spread=0.3), feature(1.4, 2.2, 1.0, spread=0.15)
    paint(_ellipse(y - 2.5, x - turn * 1.3, length, breadth), skin - 0.12)
    smile = chance(-0.05, 0.08) * (x - turn) ** 2
    mouth = _ellipse(y - 12 + smile, x - turn, feature(1.3, 1.8, 1.0, spread=0.15), feature(6.0, 4.6, 5.2, spread=0.3))
    paint(mouth, feature(0.35, 0.45, 0.4, spread=0.05))
    image = image * chance(0.75, 1.15) + chance(-0.15, 0.15) * (columns / size - 0.5)
    return np.clip(image + 0.04 * rng.standard_normal(image.shape), 0, 1)


def faces(
    rng: np.random.Generator,
    counts: tuple[int, ...] = FACE_COUNTS,
    size: int = 60,
    wrong: float = 0.06,
    no_face: float = 0.02,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the pictures that a search for three people finds: grey, ``(N, 1, size, size)`` float32 in 0..1.

    Returns images, labels ``(N,)`` with exactly `counts` of each person, and who is really to be seen ``(N,)``: a
    part `wrong` of the images shows somebody else than its label says, a part `no_face` shows no face at all (-1).
    """
    label = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(label)
    shown = label.copy()
    chosen = rng.permutation(n)
    other, empty = np.split(chosen[: round(wrong * n) + round(no_face * n)], [round(wrong * n)])
    shown[other] = (shown[other] + rng.integers(1, len(counts), len(other))) % len(counts)
    images = _face(shown, rng, size)
    images[empty] = np.clip(shapes(len(empty), rng, size)[0][:, 0], 0, 1) if len(empty) else images[empty]
    shown[empty] = -1
    return images.astype(np.float32)[:, None], label, shown
