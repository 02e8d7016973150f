"""The gradient of a bias: the sum of each channel over all positions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.engine.kernels.totals import total
from guard import copied

CHANNELS = (1, 3, 5, 15, 16, 17, 20, 64, 84, 127, 128, 129, 200)
"""Around a vector, a period, and what is a period by itself."""


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_are_added_exactly(channels, dtype, end):
    rng = np.random.default_rng(channels)
    for shape in ((1, 1), (1, 7), (2, 31, 3), (9, 5, 5), (40,), (3, 1000)):
        x = copied(rng.integers(-9, 9, (*shape, channels)).astype(dtype), end)
        y = total(x)
        assert y.dtype == dtype
        assert np.array_equal(y, x.sum(axis=tuple(range(len(shape)))))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 300), st.integers(1, 40), st.sampled_from([np.float32, np.float64]))
def test_sums_are_nearly_exact(examples, pixels, channels, dtype):
    x = np.random.default_rng(pixels).normal(size=(examples, pixels, channels)).astype(dtype)
    wanted = x.astype(np.longdouble).sum(axis=(0, 1))
    bound = 8 * np.finfo(dtype).eps * np.abs(x).sum(axis=(0, 1))
    assert (np.abs(total(x) - wanted) <= bound).all()


def test_the_number_of_workers_changes_no_bit(monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 30, 30, 20)).astype(np.float32)
    found = []
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        found.append(total(x).tobytes())
    assert len(set(found)) == 1


def test_nan_and_infinity_stay_in_their_channel():
    x = np.ones((3, 50, 5), np.float32)
    x[1, 17, 2], x[2, 3, 4] = np.nan, -np.inf
    y = total(x)
    assert np.isnan(y[2])
    assert y[4] == -np.inf
    assert y[[0, 1, 3]].tolist() == [150, 150, 150]
