"""Fixtures for tests of pictures."""

from __future__ import annotations

import pytest

import nnx
from nnx import nn


@pytest.fixture
def model():
    """A small untrained network for images of 8 x 8."""
    nnx.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6 * 6 * 6, 10)
    )
