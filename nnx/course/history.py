"""History: who found what and when, and why seeing is hard for a program.

Prints the timeline of the lectures with its dates put right, and measures on the shipped digits how far apart two
pictures of the same thing lie in numbers: the gap between pixels and meaning that all the later topics work on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nnx
from nnx import course, viz

ROWS = ("F012",)


class Event(NamedTuple):
    """A line of the timeline; `printed` is what a document says where it is wrong."""

    year: int
    who: str
    what: str
    printed: str = ""


TIMELINE = (
    Event(1943, "Warren McCulloch, Walter Pitts", "binary threshold units compute logic", "S4: McCullock"),
    Event(1945, "John von Neumann", "one processor that works through a stored program"),
    Event(1949, "Donald Hebb", "connections grow where both ends are active together", "S4: Howard Hebb"),
    Event(1958, "Frank Rosenblatt", "the perceptron learns its weights (report 1957, paper 1958)", "S4: 1948"),
    Event(1960, "Frank Rosenblatt", "Mark I: a perceptron in hardware with 400 photocells"),
    Event(1969, "Marvin Minsky, Seymour Papert", "what one layer cannot compute, XOR first; funding dries up"),
    Event(1974, "Paul Werbos", "backpropagation, in a thesis that few read"),
    Event(1980, "Kunihiko Fukushima", "Neocognitron: layers of local features that share weights"),
    Event(1986, "David Rumelhart, Geoffrey Hinton, Ronald Williams", "backpropagation in Nature (report 1985)"),
    Event(1989, "George Cybenko", "one hidden layer of sigmoids approximates any continuous function"),
    Event(1989, "Yann LeCun and others", "convolutions trained by backpropagation on zip codes", "S1: only 1998"),
    Event(1998, "Yann LeCun and others", "LeNet-5 reads cheques", "S3: only 1989"),
    Event(2012, "Dan Ciresan and others", "deep convolutional networks on graphics cards win contests"),
    Event(2012, "Alex Krizhevsky, Ilya Sutskever, Geoffrey Hinton", "AlexNet wins ImageNet by ten points"),
    Event(2014, "Karen Simonyan, Andrew Zisserman; Christian Szegedy and others", "VGG and GoogLeNet"),
    Event(2015, "Kaiming He and others", "ResNet: 152 layers, a thousand in an experiment"),
    Event(2016, "Gao Huang and others", "DenseNet: every layer sees all before it"),
)

LIFETIMES = {"Isaac Newton": (1643, 1727), "Gottfried Wilhelm Leibniz": (1646, 1716)}


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the timeline, then how often a shifted picture is farther from itself than another digit is."""
    for event in TIMELINE:
        note = f"   (printed in {event.printed})" if event.printed else ""
        print(f"{event.year}  {event.who}: {event.what}{note}")
    for name, (born, died) in LIFETIMES.items():
        print(f"{name}, {born}-{died}, found the calculus that all of it uses   (printed in S2: years backwards)")
    digits = nnx.data.digits("float64")
    count = 60 if small else len(digits.x_test)
    changed = disguises(digits.x_test[:count, 0], np.random.default_rng(seed))
    other = distance_to_another_class(digits.x_test[:count], digits.y_test[:count], digits.x_train, digits.y_train)
    farther = {
        name: float(np.mean(np.linalg.norm((images - changed["as it is"]).reshape(count, -1), axis=1) > other))
        for name, images in changed.items()
    }
    print("\nhow often a change moves a digit farther than to the nearest image of another class:")
    for name, share in farther.items():
        print(f"  {name:<9} {share:6.1%}")
    if path := course.picture(out, "history-disguises"):
        shown = np.stack([images[0] for images in changed.values()])
        viz.images(np.clip(shown, 0, 1), titles=list(changed), columns=len(shown), path=path)
    if path := course.picture(out, "history-timeline"):
        _draw(path)
    return {
        "timeline": [list(event) for event in TIMELINE],
        "lifetimes": {name: list(years) for name, years in LIFETIMES.items()},
        "farther_than_another_class": farther,
    }


def disguises(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The same digits (N, H, W) as they are, shifted, darker, partly hidden, before another background, and noisy."""
    hidden = images.copy()
    hidden[:, 3:6, 2:5] = 0
    return {
        "as it is": images,
        "shifted": np.roll(images, 1, axis=2),
        "darker": images * 0.5,
        "hidden": hidden,
        "clutter": np.maximum(images, 0.5 * (np.indices(images.shape[1:]).sum(0) % 2)),
        "noisy": images + rng.normal(0, 0.1, images.shape),
    }


def distance_to_another_class(x: np.ndarray, y: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The L2 distance of every image to the nearest known image of another class."""
    flat, base = x.reshape(len(x), -1), known.reshape(len(known), -1)
    squares = (flat**2).sum(1)[:, None] - 2 * flat @ base.T + (base**2).sum(1)
    squares[y[:, None] == labels] = np.inf
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def _draw(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    places = -np.arange(len(TIMELINE))
    years = [event.year for event in TIMELINE]
    axes.plot(years, places, "o-", color="tab:blue", linewidth=0.8)
    for year, place, event in zip(years, places, TIMELINE, strict=True):
        left = year < 1985  # the text goes where there is room
        axes.annotate(
            f"{event.year}  {event.who.split(',')[0]}",
            (year, place),
            xytext=(8 if left else -8, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            fontsize=8,
        )
    axes.set_yticks([])
    axes.set_xlim(1938, 2022)
    axes.set_title("who found what, and when")
    figure.savefig(path, dpi=110)
