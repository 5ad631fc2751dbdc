"""The arithmetic of convolution: sizes, padding, parameters, and what stride is good for.

How large is the output, how much padding keeps the size, how many weights does a layer have, and what happens where the
last step does not reach the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnx import nn, viz
from nnx.course import picture
from nnx.functional import conv_output_size, same_padding

ROWS = ("F143", "F144", "F145", "F147", "F149")


def parameters(layer: nn.Module) -> int:
    """How many numbers a layer learns."""
    return sum(p.size for p in layer.parameters())


def shrink(n: int, filters: Sequence[int], padded: bool = False) -> list[int]:
    """The sizes of an image behind one convolution after the other, with or without padding.

    >>> shrink(32, [5, 5, 5]), shrink(32, [5, 5, 5], padded=True)
    ([32, 28, 24, 20], [32, 32, 32, 32])
    """
    sizes = [n]
    for f in filters:
        sizes.append(conv_output_size(sizes[-1], f, padding=same_padding(f) if padded else 0))
    return sizes


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the documents' examples, the refused one included."""
    result: dict[str, Any] = {}
    for stride in (1, 2, 3):
        try:
            answer = str(conv_output_size(7, 3, stride))
        except ValueError as error:
            answer = f"refused: {error}"
        result[f"7x7, 3x3, stride {stride}"] = answer
        print(f"7x7 image, 3x3 filter, stride {stride}: {answer}")
    for f in (3, 5, 7):
        print(f"filter {f}x{f}: padding {same_padding(f)} keeps the size")
    result["same"] = [same_padding(f) for f in (3, 5, 7)]

    layer = nn.Conv2d(3, 10, 5, padding=2)
    result["parameters"] = [parameters(nn.Conv2d(3, 1, 5)), parameters(layer)]
    print(f"ten 5x5 filters on 32x32x3: {result['parameters'][0]} numbers each, {result['parameters'][1]} in all")
    dense, filters = parameters(nn.Linear(100, 100)), parameters(nn.Conv2d(1, 1, 3, bias=False))
    result["dense"], result["filter"] = dense, filters
    print(f"100 units to 100 units: {dense} numbers; a 3x3 filter: {filters}")
    result["shrink"], result["padded"] = shrink(32, [5] * 7), shrink(32, [5] * 7, padded=True)
    print(f"5x5 filters, one behind the other: {' -> '.join(map(str, result['shrink']))}")
    result["pool"], result["stride"] = conv_output_size(32, 2, 2), conv_output_size(32, 3, 2, 1, strict=False)
    print(f"32x32 halved by a 2x2 pool: {result['pool']}; by a convolution of stride 2: {result['stride']}")

    if path := picture(out, "convolution_arithmetic-shrink"):
        lines = {"no padding": result["shrink"], "padding 2": result["padded"]}
        viz.lines(lines, "5x5 convolutions", "size of the image", path=path)
    return result
