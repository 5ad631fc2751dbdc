"""Kernels are tested at every instruction-set level that this machine can run."""

from __future__ import annotations

import pytest

from nnx._ext import simd


@pytest.fixture(params=simd.supported_levels())
def level(request):
    """Force each level in turn."""
    previous = simd.force_level(request.param)
    yield request.param
    simd.force_level(previous)
