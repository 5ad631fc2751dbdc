"""Hands on: for every listing, exercise and demonstration of the lectures, the topic that runs it here.

The lectures send their listeners to notebooks for Caffe, Theano, TensorFlow and PyTorch, to web pages, and to listings
in Python 2. Each has a counterpart that is tested; this topic is the list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnx import course, viz

ROWS = ("F180",)


class Page(NamedTuple):
    """Something in a document to be typed in, tried out or watched, and the rows of the course that it belongs to."""

    document: str
    what: str
    rows: tuple[str, ...]


PAGES = (
    Page("S0", "forward pass of a three-layer network", ("F089",)),
    Page("S0", "numerical gradient, listing", ("F061",)),
    Page("S0", "one step with ten step sizes, listing", ("F063",)),
    Page("S0", "gradient descent, whole and in batches, listings", ("F063", "F064")),
    Page("S0", "an image as 77 tiles through one small network", ("F154",)),
    Page("S0", "seven filters on a picture", ("F142",)),
    Page("S0", "convolution demo 7 x 7 x 3", ("F140",)),
    Page("S1", "perceptron, listing", ("F003",)),
    Page("S1", "perceptron learning, cyclic", ("F006",)),
    Page("S1", "NAND by hand, and the open exercises on gates", ("F005", "F007")),
    Page("S1", "sigmoid and ReLU, listings", ("F100", "F102")),
    Page("S1", "networks in Theano and PyTorch", ("F011",)),
    Page("S1", "dropout by halves", ("F132",)),
    Page("S1", "animation of a convolution; deduce its gradient", ("F150",)),
    Page("S1", "animations of padding and stride", ("F143", "F144")),
    Page("S1", "augmentation; learning from very few digits", ("F137", "F138")),
    Page("S1", "read a picture's caption in the browser", ("F172",)),
    Page("S1", "face challenge, to be done in TensorFlow", ("F177",)),
    Page("S2", "train and predict, listings", ("F020",)),
    Page("S2", "NearestNeighbor, listing", ("F023", "F025")),
    Page("S2", "L_i_vectorized, and the quiz on the SVM loss", ("F043",)),
    Page("S2", "linear classification demo on the web", ("F055",)),
    Page("S2", "random search, listing and experiment", ("F060",)),
    Page("S2", "numerical gradient, table and listing; gradient check", ("F061", "F062")),
    Page("S2", "circuits worked through by hand", ("F080", "F081")),
    Page("S2", "ComputationalGraph and MultiplyGate, listings", ("F083",)),
    Page("S2", "SVM loss forward and backward, skeleton", ("F085",)),
    Page("S2", "two-layer network in eleven lines, and its skeleton", ("F088",)),
    Page("S2", "neuron_tick, listing", ("F010",)),
    Page("S2", "zero mean and unit deviation, listing", ("F110",)),
    Page("S2", "ten layers of 500, listing and five tables", ("F115",)),
    Page("S2", "loss at the start, twice", ("F120",)),
    Page("S2", "ClassifierTrainer: overfit twenty examples", ("F121", "F128")),
    Page("S2", "ClassifierTrainer: three learning rates", ("F122", "F128")),
    Page("S2", "search from coarse to fine, listings", ("F123",)),
    Page("S2", "curves of loss and accuracy", ("F126",)),
    Page("S2", "ratio of update and weights, listing", ("F127",)),
    Page("S2", "momentum, Nesterov, AdaGrad, RMSProp, Adam, listings", ("F066", "F067", "F068", "F070", "F071")),
    Page("S2", "decay of the learning rate", ("F072",)),
    Page("S2", "dropout, plain and common, listings", ("F130", "F131")),
    Page("S2", "Gaussian filter by hand", ("F142",)),
    Page("S2", "sizes and parameters of convolutions, quizzes", ("F143", "F145")),
    Page("S2", "film reviews and Chinese characters", ("F178",)),
    Page("S3", "hands on: classify digits (notebook for Caffe)", ("F160",)),
    Page("S3", "reference: image classification and filter visualisation", ("F176",)),
    Page("S3", "reference: why GEMM is at the heart of deep learning", ("F155",)),
    Page("S3", "reference: book chapters on backpropagation", ("F086",)),
    Page("S4", "polynomials of three degrees", ("F053",)),
    Page("S4", "complexity of two polynomials", ("F048",)),
    Page("S4", "early stopping", ("F134",)),
    Page("S4", "200 normal inputs; Xavier's variance; truncated normal", ("F114", "F116")),
    Page("S4", "training, validation, test", ("F028", "F030")),
    Page("S4", "style, captions, colours, pixels: applications", ("F168", "F170", "F171", "F172")),
)


def teachers() -> dict[str, list[str]]:
    """For every row of the course, the topics that teach it."""
    found: dict[str, list[str]] = {}
    for topic in course.names():
        for row in course.load(topic).ROWS:
            found.setdefault(row, []).append(topic)
    return found


def topics(page: Page, by_row: Mapping[str, list[str]]) -> list[str]:
    """The topics that run a page, in the order of its rows."""
    return list(dict.fromkeys(topic for row in page.rows for topic in by_row.get(row, ())))


def table() -> list[str]:
    """The list as the lines of a Markdown table, as docs/course/hands_on.md has it."""
    by_row = teachers()
    lines = ["| where | what | rows | topic |", "| --- | --- | --- | --- |"]
    for page in PAGES:
        links = ", ".join(f"[{topic}]({topic}.md)" for topic in topics(page, by_row))
        lines.append(f"| {page.document} | {page.what} | {', '.join(page.rows)} | {links} |")
    return lines


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the list; nothing in it depends on `small` or `seed`."""
    by_row = teachers()
    counts: dict[str, int] = {}
    for page in PAGES:
        counts[page.document] = counts.get(page.document, 0) + 1
        print(f"{page.document}  {page.what}: python -m nnx course {' | '.join(topics(page, by_row))}")
    print(f"{len(PAGES)} pages, {len({topic for page in PAGES for topic in topics(page, by_row)})} topics")
    if path := course.picture(out, "hands_on-pages"):
        viz.bars(counts, ylabel="pages to be tried out", path=path)
    return {
        "pages": [[page.document, page.what, topics(page, by_row)] for page in PAGES],
        "counts": counts,
        "without_topic": [page.what for page in PAGES if not topics(page, by_row)],
    }
