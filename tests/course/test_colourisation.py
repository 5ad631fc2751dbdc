"""Colourisation of drawn landscapes."""

from __future__ import annotations

import numpy as np

import nnx
from nnx.course import _scenes, colourisation


def test_F171_beats_the_grey_baseline():
    result = colourisation.run()
    assert result["mse"] < 0.3 * result["grey_mse"]  # 0.15 to 0.2 with the seeds 0 to 4
    # Red and blue walls look alike in grey: the answer of least squared error lies between.
    assert 0 < result["redness"]["painted"] < 0.6 * result["redness"]["true"]


def test_F171_colours_go_there_and_back():
    images = np.random.default_rng(0).random((2, 3, 4, 5))
    ybr = colourisation.recode(images, colourisation.TO_YBR)
    np.testing.assert_allclose(ybr[:, 0], np.tensordot(_scenes.LUMINANCE, images, (0, 1)), atol=1e-6)
    np.testing.assert_allclose(ybr[:, 1], images[:, 2] - ybr[:, 0], atol=1e-6)
    np.testing.assert_allclose(ybr[:, 2], images[:, 0] - ybr[:, 0], atol=1e-6)
    np.testing.assert_allclose(colourisation.recode(ybr, colourisation.FROM_YBR), images, atol=1e-6)
    grey = np.full((1, 3, 1, 1), 0.5)
    np.testing.assert_allclose(colourisation.recode(grey, colourisation.TO_YBR)[:, 1:], 0, atol=1e-7)


def test_F171_each_output_sees_33_pixels():
    nnx.manual_seed(0)
    model = colourisation.build(4).eval()
    x = nnx.tensor(np.zeros((1, 2, 51, 51), np.float32), requires_grad=True)
    for p in model.parameters():
        p.data[...] = np.abs(p.data) + 0.1  # nothing cancels and no ReLU is off
    model(x)[0, 0, 25, 25].sum().backward()
    rows, columns = np.nonzero(np.abs(x.grad[0]).sum(axis=0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 41, 9, 41)
