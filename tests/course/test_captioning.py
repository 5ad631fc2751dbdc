"""Row F172: captions that are right word for word; here with one shape, in the full run of the topic with two."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.course import captioning as topic


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_F172_describes_new_scenes(kind):
    """One shape, 24 captions: at least nine in ten right (seen: 0.96 and more with three seeds)."""
    rng = np.random.default_rng(0)
    images, captions = topic.scenes(800, rng, most=1)
    new_images, new_captions = topic.scenes(200, rng, most=1)
    nnx.manual_seed(0)
    model = topic.CaptionNet(kind, hidden=64)
    assert topic.exact_matches(model, new_images, new_captions) == 0  # nothing is known yet
    losses = topic.fit(model, images, captions, 12)
    assert losses[-1] < 0.1 * losses[0]
    assert topic.exact_matches(model, new_images, new_captions) >= 0.9


def test_F172_words_in_and_out():
    given, wanted = topic.encode(["a small red disc", "a large blue square left of a small red disc"])
    words = np.array(topic.WORDS)
    assert words[given[:5, 0]].tolist() == ["<start>", "a", "small", "red", "disc"]
    assert words[wanted[:5, 0]].tolist() == ["a", "small", "red", "disc", "<end>"]
    assert (wanted[5:, 0] == topic.IGNORED).all()
    assert words[wanted[:, 1]].tolist() == [*"a large blue square left of a small red disc".split(), "<end>"]
    assert given.shape == wanted.shape == (topic.LONGEST, 2)


def test_F172_a_caption_is_the_best_word_at_each_place():
    """What `describe` writes step by step is what the network answers when it is given those words."""
    nnx.manual_seed(0)
    images, captions = topic.scenes(64, np.random.default_rng(0))
    model = topic.CaptionNet("LSTM", hidden=32, width=8)
    topic.fit(model, images, captions, 4)
    written = model.describe(images[:8])
    given, wanted = topic.encode([" ".join(caption.split()[: topic.LONGEST - 1]) for caption in written])
    model.eval()
    best = model(images[:8], given).data.argmax(axis=-1)
    inside = (wanted != topic.IGNORED) & (np.arange(topic.LONGEST) < topic.LONGEST - 1)[:, None]
    np.testing.assert_array_equal(best[inside], wanted[inside])


def test_F172_scenes_show_what_they_say():
    """The mean colour of what differs from the grey ground is that of a word; large shapes are the larger ones."""
    images, captions = topic.scenes(300, np.random.default_rng(1), most=1)
    sizes = {"small": [], "large": []}
    for image, caption in zip(images, captions, strict=True):
        _, size, colour, _ = caption.split()
        inside = np.ptp(image, axis=0) > 0.35
        shown = image[:, inside].mean(axis=1)
        nearest = min(topic.COLOURS, key=lambda name: np.abs(shown - topic.COLOURS[name]).max())
        assert nearest == colour
        sizes[size].append(inside.sum())
    assert np.mean(sizes["large"]) > 2 * np.mean(sizes["small"])
    _, pairs = topic.scenes(300, np.random.default_rng(2))
    assert {" above " in c or " left of " in c for c in pairs} == {True, False}
    assert max(len(c.split()) for c in pairs) == topic.LONGEST - 1
