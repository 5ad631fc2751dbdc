"""Networks from a written pattern such as ``[(CONV-RELU)*2-POOL?]*3-(FC-RELU)*1,SOFTMAX``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from nnx import _check, nn
from nnx.autograd import Tensor
from nnx.functional.conv_arithmetic import conv_output_size

LAYERS = ("CONV", "RELU", "POOL", "FC", "SOFTMAX")

_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[\[\]()*?,-]|(?P<other>\S)")
_CLOSING = {"(": ")", "[": "]"}
_MOST_LAYERS = 10_000
_DEEPEST = 50


def parse_pattern(pattern: str, pool: bool | Sequence[bool] = True, **counts: int) -> list[str]:
    r"""Write a pattern out as the list of its layers.

    A pattern is a sequence of layers and groups, joined by ``-`` or ``,``. Layers are CONV, RELU,
    POOL, FC and SOFTMAX, in either case; ``( )`` and ``[ ]`` make a group; ``*3`` repeats what
    stands before it three times, ``*N`` as often as the argument `N` says; ``?`` marks what may be
    left out.

    pool:    whether what is marked by ``?`` is there; or one answer for each time it is met, in
             order, such as (False, True, True)
    counts:  values of the letters, at least 0: ``N=2, M=3, K=1``

    ValueError names the place of what cannot be read, a letter without a value, and values without a
    letter.

    >>> parse_pattern("[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX", N=2, M=1, K=1)
    ['CONV', 'RELU', 'CONV', 'RELU', 'POOL', 'FC', 'RELU', 'SOFTMAX']
    """
    tokens = list(_tokens(pattern))
    letters = _letters(tokens)
    for name in counts:
        if name not in letters:
            raise ValueError(
                f"parse_pattern: expected counts for {', '.join(sorted(letters)) or 'no letter'}, got {name}"
            )
    values = {name: _check.integer("parse_pattern", name, value, 0) for name, value in counts.items()}
    answers = None if isinstance(pool, bool) else iter([bool(p) for p in pool])
    reader = _Reader(pattern, tokens, values)
    tree = reader.sequence("")
    layers = list(islice(_expand(tree, pool if answers is None else answers), _MOST_LAYERS + 1))
    if len(layers) > _MOST_LAYERS:
        raise ValueError(f"parse_pattern: expected a pattern of at most {_MOST_LAYERS} layers, got more")
    if answers is not None and next(answers, None) is not None:
        raise ValueError("parse_pattern: expected one value of pool for each '?' that is met, got too many")
    return layers


class _Reader:
    """Recursive descent over the tokens: sequence = item (joint item)*, item = (layer | group) [?] [* count]."""

    def __init__(self, pattern: str, tokens: list[tuple[str, int]], counts: Mapping[str, int]) -> None:
        self.pattern, self.tokens, self.counts = pattern, tokens, counts
        self.at = 0
        self.depth = 0

    def sequence(self, closing: str) -> list:
        """A list of (item, optional, times) up to the closing bracket, or to the end."""
        items = [self.item()]
        while (token := self.peek()) in ("-", ","):
            self.at += 1
            items.append(self.item())
        if token != closing:
            self.fail(f"{closing!r}, '-' or ','" if closing else "'-' or ','")
        self.at += 1
        return items

    def item(self) -> tuple[Any, bool, int]:
        token = self.peek()
        if token in _CLOSING:
            if self.depth == _DEEPEST:
                self.fail(f"at most {_DEEPEST} brackets inside each other")
            self.at += 1
            self.depth += 1
            content: Any = self.sequence(_CLOSING[token])
            self.depth -= 1
        elif token.upper() in LAYERS:
            self.at += 1
            content = token.upper()
        else:
            self.fail(f"one of {', '.join(LAYERS)} or a group")
        optional = self.peek() == "?"
        self.at += optional
        times = 1
        if self.peek() == "*":
            self.at += 1
            times = self.count()
        return content, optional, times

    def count(self) -> int:
        token = self.peek()
        if token.isdigit():
            times = int(token)
        elif token in self.counts:
            times = self.counts[token]
        elif token.isalpha():
            self.fail(f"a value for the letter {token}, as in parse_pattern(..., {token}=2),")
        else:
            self.fail("a number or a letter after '*'")
        self.at += 1
        return times

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def fail(self, expected: str) -> Any:
        if self.at < len(self.tokens):
            token, place = self.tokens[self.at]
            got = f"{token!r} at position {place}"
        else:
            got = "its end"
        raise ValueError(f"parse_pattern: expected {expected} in {self.pattern!r}, got {got}")


def _tokens(pattern: str) -> Iterator[tuple[str, int]]:
    """The tokens of a pattern, each with its position."""
    if not isinstance(pattern, str):
        raise TypeError(f"parse_pattern: expected pattern to be a string, got {type(pattern).__name__}")
    for match in _TOKEN.finditer(pattern):
        token = match.group()
        if match.lastgroup == "other":
            raise ValueError(
                f"parse_pattern: expected layers, brackets and * ? - , in {pattern!r}, got {token!r} "
                f"at position {match.start()}"
            )
        yield token, match.start()


def _letters(tokens: list[tuple[str, int]]) -> set[str]:
    """What stands behind a ``*`` and is no number."""
    return {token for (before, _), (token, _) in pairwise(tokens) if before == "*" and token.isalpha()}


def _expand(items: list, pool: Any) -> Iterator[str]:
    for content, optional, times in items:
        for _ in range(times):
            if optional and not _answer(pool):
                continue
            if isinstance(content, str):
                yield content
            else:
                yield from _expand(content, pool)


def _answer(pool: Any) -> bool:
    if isinstance(pool, bool):
        return pool
    answer = next(pool, None)
    if answer is None:
        raise ValueError("parse_pattern: expected one value of pool for each '?' that is met, got too few")
    return answer


def count_layers(layers: Sequence[str]) -> dict[str, int]:
    """How many layers of each kind there are, and how many of them have weights.

    "weights" counts CONV, FC and SOFTMAX, which stands for the fully connected layer of class scores
    together with its softmax: so VGG16 comes out as 16.

    >>> count_layers(parse_pattern("[CONV-RELU-POOL]*2-FC,SOFTMAX"))
    {'CONV': 2, 'RELU': 2, 'POOL': 2, 'FC': 1, 'SOFTMAX': 1, 'weights': 4}
    """
    counts = {kind: sum(layer == kind for layer in layers) for kind in LAYERS}
    return {**counts, "weights": counts["CONV"] + counts["FC"] + counts["SOFTMAX"]}


class PatternNet(nn.Module):
    """The network of a written pattern; see `pattern_net`."""

    def __init__(self, layers: Sequence[str], modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.pattern_layers = tuple(layers)
        self.layers = nn.Sequential(*modules)

    def forward(self, x: Any) -> Tensor:
        return self.layers(x)


def pattern_net(
    pattern: str = "[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX",
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | Sequence[int] = 32,
    width: int = 16,
    features: int = 128,
    pool: bool | Sequence[bool] = True,
    counts: Mapping[str, int] | None = None,
    scores: bool = True,
) -> PatternNet:
    """Build the network that a pattern describes.

    CONV is a 3x3 convolution with padding 1 and stride 1; its number of filters is `width` until the
    first POOL and doubles behind each (at most 8 times `width`). POOL is a 2x2 max pool. FC has
    `features` units. SOFTMAX is the linear layer to `num_classes` scores.

    pattern, pool, counts:  as for `parse_pattern`; `counts` defaults to N=2, M=3, K=1 for the
                            letters that are there
    scores:                 leave the softmax function itself away, as cross-entropy losses want it;
                            False adds it

    Shapes: (N, in_channels, height, width) to (N, num_classes). ValueError for a pattern that cannot
    be read, for a CONV or POOL behind a FC, for a SOFTMAX that is not the one at the end, and for
    images that a POOL cannot halve.

    >>> net = pattern_net(counts={"N": 1, "M": 2, "K": 0}, image_size=8, in_channels=1)
    >>> count_layers(net.pattern_layers)["weights"], sum(p.size for p in net.parameters())
    (3, 6090)
    """
    owner = "pattern_net"
    defaults = {"N": 2, "M": 3, "K": 1}
    given = dict(counts or {})
    letters = _letters(list(_tokens(pattern)))
    values = {**{name: defaults[name] for name in letters & set(defaults)}, **given}
    layers = parse_pattern(pattern, pool, **values)
    num_classes = _check.integer(owner, "num_classes", num_classes, 1)
    channels = _check.integer(owner, "in_channels", in_channels, 1)
    size = list(_check.ntuple(owner, "image_size", image_size, 2, 1))
    width = filters = _check.integer(owner, "width", width, 1)
    features = _check.integer(owner, "features", features, 1)
    if layers.count("SOFTMAX") != 1 or layers[-1] != "SOFTMAX":
        raise ValueError(f"{owner}: expected pattern with one SOFTMAX, at its end, got {'-'.join(layers)}")
    modules: list[nn.Module] = []
    flat = 0  # features behind the first fully connected layer
    for i, layer in enumerate(layers):
        if layer in ("CONV", "POOL") and flat:
            raise ValueError(
                f"{owner}: expected {layer} before every FC, got it as layer {i + 1} of {'-'.join(layers)}"
            )
        if layer == "CONV":
            modules.append(nn.Conv2d(channels, filters, 3, padding=1))
            channels = filters
        elif layer == "RELU":
            modules.append(nn.ReLU())
        elif layer == "POOL":
            try:
                size = [conv_output_size(n, 2, 2) for n in size]
            except ValueError:
                raise ValueError(
                    f"{owner}: expected images that every POOL can halve, got {size[0]}x{size[1]} at layer {i + 1} "
                    f"(image_size {image_size}). Take another size or fewer POOL"
                ) from None
            modules.append(nn.MaxPool2d(2))
            filters = min(2 * filters, 8 * width)
        else:
            if not flat:
                modules.append(nn.Flatten())
                flat = channels * size[0] * size[1]
            modules.append(nn.Linear(flat, num_classes if layer == "SOFTMAX" else features))
            flat = features
    if not scores:
        modules.append(nn.Softmax(dim=1))
    return PatternNet(layers, modules)
