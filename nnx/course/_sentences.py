"""Synthetic sentences for the lecture topics, each drawn from a seeded generator.

`plain_sentences` are drawn word by word from a small grammar, and come with their probability: so it is known how well
the best model of all could predict them. `reviews` say whether something was liked, now and then through a negation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

ADJECTIVES = ("small", "old", "quiet", "red", "hungry", "young", "grey", "happy")
NOUNS = ("dog", "cat", "bird", "horse", "farmer", "teacher", "painter", "child")
PLURALS = ("dogs", "cats", "birds", "horses", "farmers", "teachers", "painters", "children")
PLACES = ("house", "river", "bridge", "garden")
VERBS = ("sleep", "wait", "sing", "dream", "laugh", "walk")
ADVERBS = ("today", "slowly", "again", "together")


def plain_sentences(n: int, rng: np.random.Generator) -> tuple[list[str], float]:
    """Draw `n` sentences such as "many old dogs near the bridge wait again.", and the source's entropy.

    The verb goes with the first noun, however far away that is: "the dog near the houses waits." The second result is
    the mean of -log2 p over all characters drawn, with a space behind each sentence: no model of the source can
    predict new sentences with fewer bits per character.
    """
    sentences, bits = [], 0.0

    def choose(options: Sequence[str]) -> str:
        nonlocal bits
        bits += math.log2(len(options))
        return options[int(rng.integers(len(options)))]

    def maybe() -> bool:
        return choose(("", "yes")) != ""

    for _ in range(n):
        plural = maybe()
        words = [choose(("two", "many", "these") if plural else ("a", "one", "this"))]
        if maybe():
            words.append(choose(ADJECTIVES))
        words.append(choose(PLURALS if plural else NOUNS))
        if maybe():
            words += [choose(("near", "behind")), "the", choose(PLACES) + choose(("", "s"))]
        words.append(choose(VERBS) + ("" if plural else "s"))
        if maybe():
            words.append(choose(ADVERBS))
        sentences.append(" ".join(words) + ".")
    return sentences, bits / sum(len(s) + 1 for s in sentences)


SUBJECTS = ("the film", "the book", "the game", "the concert", "the play", "the story")
GOOD = ("wonderful", "funny", "moving", "clever", "brilliant", "charming")
BAD = ("boring", "dull", "awful", "clumsy", "weak", "tedious")
BETWEEN = ("", "really", "quite", "to my surprise", "for two hours")
ENDS = ("", "and i had a good seat", "but it was a bad day", "and we did not wait", "but it was not cold")


def reviews(n: int, rng: np.random.Generator) -> tuple[list[list[str]], np.ndarray]:
    """Draw `n` opinions as lists of words, and whether each is a good one (n,), int64.

    "not" turns an opinion around, and what stands at the end says "good", "bad" or "not" about something else: knowing
    which words there are is not enough, the order matters.
    """
    sentences, labels = [], np.empty(n, np.int64)
    for i in range(n):
        good, turned = rng.random(2) < 0.5
        opinion = rng.choice(GOOD if good else BAD)
        parts = [rng.choice(SUBJECTS), "was", "not" if turned else "", rng.choice(BETWEEN), opinion, rng.choice(ENDS)]
        sentences.append(" ".join(parts).split())
        labels[i] = good != turned
    return sentences, labels
