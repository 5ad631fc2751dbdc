"""The choice of an instruction-set level."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import activation, simd

SHOW = "from nnx._ext import simd; print(simd.level())"


def test_levels_are_ordered_and_start_with_base():
    known = ("base", "v2", "v3", "v4")
    assert simd.levels()[0] == "base"
    assert list(simd.levels()) == [name for name in known if name in simd.levels()]
    assert set(simd.supported_levels()) <= set(simd.levels())
    assert simd.level() in simd.supported_levels()


def test_highest_supported_level_is_the_default(run_python):
    assert run_python(SHOW).stdout.strip() == simd.supported_levels()[-1]
    assert run_python(SHOW, NNX_LEVEL="").stdout.strip() == simd.supported_levels()[-1]


@pytest.mark.parametrize("name", simd.supported_levels())
def test_environment_variable_forces_a_level(run_python, name):
    assert run_python(SHOW, NNX_LEVEL=name).stdout.strip() == name


def test_unknown_level_names_the_allowed_ones(run_python):
    result = run_python(SHOW, NNX_LEVEL="v9")
    assert result.returncode != 0
    allowed = ", ".join(simd.supported_levels())
    expected = f"NNX_LEVEL: expected a level out of {allowed}, got 'v9': no such level exists"
    assert expected in result.stderr


@pytest.mark.parametrize("name", ["", "V3", "v3 ", "none"])
def test_force_level_refuses_other_names_and_changes_nothing(name):
    before = simd.level()
    with pytest.raises(ValueError, match=r"force_level: expected a level out of base.*, got"):
        simd.force_level(name)
    assert simd.level() == before


def test_force_level_refuses_what_is_no_text():
    with pytest.raises(TypeError):
        simd.force_level(None)


def test_force_level_returns_the_previous_one_and_switches_kernels():
    first = simd.level()
    x = np.linspace(-1, 1, 1001, dtype=np.float32)
    try:
        for name in simd.supported_levels():
            previous = simd.level()
            assert simd.force_level(name) == previous
            assert simd.level() == name
            y = np.empty_like(x)
            activation.relu(x, y, 1)
            np.testing.assert_array_equal(y, np.maximum(x, 0))
    finally:
        simd.force_level(first)
