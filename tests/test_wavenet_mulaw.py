"""The mu-law: its formula, how far decoding is off, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.errors import DataError
from faltung.models.wavenet import decode, encode


@given(
    x=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    classes=st.sampled_from([2, 3, 16, 255, 256, 257, 1024]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=60)
def test_the_code_is_the_nearest_to_the_formula_and_its_error_bounded(x, classes, dtype):
    mu = classes - 1
    codes = encode(np.array(x, dtype), classes)
    decoded = decode(codes, classes)
    assert codes.dtype == np.min_scalar_type(mu)
    assert decoded.dtype == np.float32
    for exact, code, again in zip(np.array(x, dtype).tolist(), codes.tolist(), decoded.tolist(), strict=True):
        f = math.copysign(math.log1p(mu * abs(exact)) / math.log1p(mu), exact)
        assert abs((f + 1) / 2 * mu - code) <= 0.5 + 1e-4
        bound = (1 + mu * abs(exact)) / mu * (math.exp(math.log1p(mu) / mu) - 1)
        assert abs(again - exact) <= bound * (1 + 1e-3) + 1e-7


@pytest.mark.parametrize("classes", [2, 16, 255, 256, 512])
def test_every_code_is_that_of_its_amplitude(classes):
    codes = np.arange(classes)
    amplitudes = decode(codes, classes)
    assert np.array_equal(encode(amplitudes, classes), codes)
    assert np.all(np.diff(amplitudes) > 0)
    assert amplitudes[0] == -amplitudes[-1] == -1.0
    assert np.allclose(amplitudes, -amplitudes[::-1], rtol=0, atol=1e-7)


def test_silence_is_one_of_the_codes_nearest_to_it():
    assert abs(decode(encode(0.0))) == abs(decode(range(256))).min()
    assert encode(0.0) == encode(-0.0) == 128
    assert encode(np.zeros((2, 3), np.int16)).tolist() == [[128] * 3] * 2


def test_what_is_too_loud_is_cut():
    assert encode([-7.0, 1.5]).tolist() == [0, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_named(bad):
    x = np.zeros((2, 5), np.float32)
    x[1, 3] = bad
    with pytest.raises(DataError, match=rf"mu-law: got amplitude {bad} at \(1, 3\), expected finite numbers; repair"):
        encode(x)


def test_what_are_no_codes_is_refused():
    with pytest.raises(DataError, match=r"mu-law: got code 256 at \(1,\), expected 0 to 255; give as many classes"):
        decode([3, 256])
    with pytest.raises(DataError, match="mu-law: got code -1 at"):
        decode([-1])
    with pytest.raises(DataError, match="mu-law: got codes of float64, expected integers; convert them"):
        decode([0.5])
