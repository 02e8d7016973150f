"""The compiled gate and the compiled offset of each example against their NumPy definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Gate, Offset
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.gate import LOWERINGS
from faltung.errors import ShapeError
from lowered import FLOATS, compare


def series(*shape: int, dtype: Any = np.float64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(scale=3, size=shape).astype(dtype)


def whole(*shape: int, dtype: Any = np.float64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_gate_agrees_on_every_machine_between_guards(dtype, machine, end):
    for half in (1, 3, 16, 17, 40):
        compare(Gate(), {}, series(2, 5, 2 * half, dtype=dtype), end=end, tolerance=8)


@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 40), st.sampled_from(FLOATS), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_gate_of_any_shape(axes, half, dtype, seed):
    compare(Gate(), {}, series(2, *axes, 2 * half, dtype=dtype, seed=seed), tolerance=8, seed=seed)


def test_a_gate_of_many_positions_makes_several_tasks():
    compare(Gate(), {}, series(1, BLOCK // 3, 10, dtype=np.float32), tolerance=8)


def test_a_gate_of_extreme_numbers():
    x = np.array([[np.inf, -np.inf, 1e30, np.nan, np.inf, -np.inf, -1e30, 0.0]])
    y, kept = LOWERINGS[Gate][0](Gate(), {}, x)
    np.testing.assert_array_equal(y, [[1.0, -0.0, 0.0, np.nan]])
    np.testing.assert_array_equal(LOWERINGS[Gate][1](Gate(), {}, kept, np.ones((1, 4)))[0, :3], [0.0, 0.0, 0.0])


def test_a_gate_refuses_an_odd_number_of_channels():
    with pytest.raises(ShapeError, match="expected an even number of channels"):
        LOWERINGS[Gate][0](Gate(), {}, np.zeros((1, 3)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_offset_agrees_on_every_machine_between_guards(dtype, machine, end):
    for channels in (1, 5, 16, 70, 200):
        compare(Offset(), {}, (whole(3, 4, channels, dtype=dtype), whole(3, channels, dtype=dtype)), end=end)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 40), st.sampled_from(FLOATS), st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_an_offset_of_any_shape(axes, channels, dtype, seed):
    x = whole(2, *axes, channels, dtype=dtype, seed=seed), whole(2, channels, dtype=dtype, seed=seed + 1)
    compare(Offset(), {}, x, seed=seed)


def test_an_offset_refuses_batches_that_differ():
    with pytest.raises(ShapeError, match="expected one vector an example"):
        LOWERINGS[Offset][0](Offset(), {}, (np.zeros((2, 3, 4)), np.zeros((1, 4))))
