"""Compiled dropout: the same bits as its NumPy definition, for any blocking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Dropout
from faltung.elements.element import Run
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.dropout import LOWERINGS
from guard import copied
from lowered import FLOATS

forward, error, _ = LOWERINGS[Dropout]
RUN = Run(training=True, seed=2**40 + 17, step=2**33 + 5, node="höhe", first=12345)


def check(rate, x, run, end=True):
    element, dy = Dropout(rate), x[::-1]
    y, kept = element.forward({}, x, run)
    fast, fast_kept = forward(element, {}, copied(x, end), run)
    assert fast_kept is not None
    assert fast.dtype == fast_kept.dtype == x.dtype
    np.testing.assert_array_equal(fast, y)
    np.testing.assert_array_equal(fast_kept, kept)
    np.testing.assert_array_equal(error(element, {}, fast_kept, copied(dy, end)), element.error({}, kept, dy))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_bits_on_every_machine_between_guards(dtype, machine, end):
    for shape in ((1, 1), (3, 5), (2, 31), (2, 32), (2, 33), (2, 4, 7, 3)):
        check(0.3, np.random.default_rng(0).normal(size=shape).astype(dtype), RUN, end)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3), st.floats(0, 1, exclude_max=True), st.integers(0, 2**64 - 1),
    st.integers(0, 2**40), st.text(max_size=5), st.integers(0, 2**31), st.sampled_from(FLOATS),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_address(shape, rate, seed, step, node, first, dtype):
    run = Run(training=True, seed=seed, step=step, node=node, first=first)
    check(rate, np.random.default_rng(0).normal(size=shape).astype(dtype), run)


@pytest.mark.parametrize("entries", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_sizes_around_the_blocks(entries):
    check(0.5, np.random.default_rng(0).normal(size=(3, entries)).astype(np.float32), RUN)


@pytest.mark.parametrize("rate", [0, 1e-9, 2.0**-24, 1 / 3, 1 - 2.0**-24, 0.999999999])
def test_rates_around_the_steps_of_the_random_numbers(rate):
    check(rate, np.random.default_rng(0).normal(size=(4, 999)).astype(np.float32), RUN)


def test_a_part_of_a_batch_has_the_bits_it_has_in_the_whole():
    x = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    whole, _ = forward(Dropout(0.5), {}, x, Run(training=True))
    part, _ = forward(Dropout(0.5), {}, x[3:5], Run(training=True, first=3))
    np.testing.assert_array_equal(part, whole[3:5])


def test_out_of_training_nothing_happens():
    x = np.ones((2, 3), np.float32)
    y, kept = forward(Dropout(0.5), {}, x)
    assert y is x
    assert kept is None
    assert error(Dropout(0.5), {}, kept, x) is x
