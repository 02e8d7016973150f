"""Compiled convolutions against their NumPy definitions: bit for bit on small integers, over all geometries."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Affine, Conv, ConvTranspose
from faltung.engine.lower.conv import LOWERINGS

FLOATS = (np.float32, np.float64)


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return rng.integers(-3, 4, shape).astype(dtype)


def check(element: Any, *shapes: Any, batch: int = 2, dtype: Any = np.float32, seed: int = 0) -> None:
    """Forward, error and gradient agree exactly, in dtype and shape too."""
    forward, error, gradient = LOWERINGS[type(element)]
    rng = np.random.default_rng(seed)
    params = {name: integers(rng, asks.shape, dtype) for name, asks in element.parameters(*shapes).items()}
    inputs = tuple(integers(rng, (batch, *shape), dtype) for shape in shapes)
    x = inputs if element.arity == 2 else inputs[0]
    y, kept = element.forward(params, x)
    fast, fast_kept = forward(element, params, x)
    assert fast.dtype == y.dtype
    np.testing.assert_array_equal(fast, y)
    dy = integers(rng, y.shape, dtype)
    dx, fast_dx = element.error(params, kept, dy), error(element, params, fast_kept, dy)
    if element.arity == 2:
        assert fast_dx[1] is None
        dx, fast_dx = dx[0], fast_dx[0]
    np.testing.assert_array_equal(fast_dx, dx)
    slopes, fast_slopes = element.gradient(params, kept, dy), gradient(element, params, fast_kept, dy)
    assert fast_slopes.keys() == slopes.keys()
    for name, dw in slopes.items():
        assert fast_slopes[name].dtype == dw.dtype
        np.testing.assert_array_equal(fast_slopes[name], dw)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Settings of a convolution, and the shape of an input that it takes."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    padding = draw(st.sampled_from(["valid", "same", "full", "causal", 1, (2, 0), (0, 3)]))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = tuple(span + draw(st.integers(0, 6)) for span in spans)
    filters = groups * draw(st.sampled_from([1, 2, 5, 8, 17]))
    channels = groups * draw(st.integers(1, 6))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    conv = {"filters": filters, "kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    return conv | {"groups": groups, "bias": draw(st.booleans())}, (*sizes, channels)


@given(convolutions(), st.integers(0, 3), st.sampled_from(FLOATS), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_convolution_agrees_exactly_over_random_geometries(conv, batch, dtype, seed):
    arguments, shape = conv
    check(Conv(arguments.pop("filters"), **arguments), shape, batch=batch, dtype=dtype, seed=seed)


@given(convolutions(), st.integers(1, 2), st.sampled_from(FLOATS))
@settings(max_examples=15, deadline=None)
def test_transposed_convolution_agrees_exactly_over_random_geometries(conv, batch, dtype):
    arguments, large = conv
    filters = arguments.pop("filters")
    small = Conv(filters, **arguments).output(large)
    up = ConvTranspose(large[-1], **arguments, size=large[:-1])
    check(up, small, batch=batch, dtype=dtype)


@pytest.mark.parametrize("filters", [1, 15, 16, 17, 31, 33, 64, 65, 130])
def test_filters_around_every_block(filters):
    check(Conv(filters, kernel=3, padding="same"), (5, 7, 3))


@pytest.mark.parametrize("width", [*range(1, 16), 27, 28, 29])
def test_widths_around_every_tile(width):
    check(Conv(20, kernel=3, padding="same"), (3, width, 4))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 64, 511])
def test_channels_around_every_unrolling(channels):
    check(Conv(18, kernel=(2, 3), padding="same"), (3, 5, channels))


@pytest.mark.parametrize("pixels", [1, 95, 96, 97, 200])
def test_pointwise_convolutions_around_the_long_row(pixels):
    check(Conv(21, kernel=1), (pixels, 5))
    check(Conv(21, kernel=1, groups=3), (pixels, 6), dtype=np.float64)


def test_many_input_channels_are_swept_in_parts_that_fit_the_cache():
    check(Conv(70, kernel=3, padding="same"), (5, 6, 1024), batch=1)


def test_large_images_are_cut_into_bands():
    check(Conv(8, kernel=3, padding="same"), (190, 200, 3), batch=1)
    check(Conv(8, kernel=(5, 3), stride=(2, 1), dilation=(3, 1), padding="same"), (190, 200, 3), batch=1)


@pytest.mark.parametrize("element", [Affine(10), Affine(33, bias=False)])
@pytest.mark.parametrize("shape", [(1,), (2000,), (3, 4, 7)])
@pytest.mark.parametrize("batch", [0, 1, 5, 131])
def test_affine_agrees_exactly(element, shape, batch):
    check(element, shape, batch=batch)


def test_transposed_convolution_takes_its_size_from_a_second_input():
    check(ConvTranspose(4, kernel=3, stride=2, padding=1, size="like"), (5, 3), (10, 2))


def test_inputs_that_do_not_lie_side_by_side_are_copied():
    forward, error, gradient = LOWERINGS[Conv]
    conv, rng = Conv(5, kernel=2), np.random.default_rng(1)
    x = integers(rng, (3, 8, 2), np.float32).transpose(0, 2, 1)
    params = {"w": integers(rng, (5, 8, 2), np.float32).transpose(2, 1, 0), "b": integers(rng, (10,), np.float32)[::2]}
    y, kept = forward(conv, params, x)
    dy = integers(rng, (y.shape[2], y.shape[1], y.shape[0]), np.float32).T
    np.testing.assert_array_equal(y, conv.forward(params, x)[0])
    np.testing.assert_array_equal(error(conv, params, kept, dy), conv.error(params, x, dy))
    np.testing.assert_array_equal(gradient(conv, params, kept, dy)["w"], conv.gradient(params, x, dy)["w"])


def test_nan_in_one_example_stays_there():
    forward, *_ = LOWERINGS[Conv]
    conv, rng = Conv(3, kernel=3, padding="same"), np.random.default_rng(2)
    params = {name: rng.normal(size=asks.shape) for name, asks in conv.parameters((6, 2)).items()}
    x = rng.normal(size=(2, 6, 2))
    x[0, 2, 1] = np.nan
    y, _ = forward(conv, params, x)
    assert np.isnan(y[0]).any()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("channels", [2, 15, 16, 17, 40])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 3, "padding": "same"},
        {"kernel": (3, 5), "stride": (2, 1), "padding": "same"},
        {"kernel": (2, 3), "stride": 2, "padding": (2, 1)},
        {"kernel": 3, "dilation": (1, 2), "padding": "causal"},
        {"kernel": (1, 4), "stride": (1, 3), "dilation": (1, 2), "padding": "full"},
        {"kernel": 1},
    ],
)
def test_depthwise_convolution_agrees_exactly(channels, settings):
    for width in (9, 10, 23):
        check(Conv(channels, groups=channels, **settings), (7, width, channels))


def test_depthwise_transposed_and_in_other_dimensions():
    check(ConvTranspose(5, kernel=3, stride=2, padding=1, groups=5), (6, 7, 5))
    check(Conv(18, kernel=3, padding="same", groups=18), (30, 18), dtype=np.float64)
    check(Conv(18, kernel=(2, 3, 3), padding="same", groups=18), (3, 4, 11, 18))


@pytest.mark.parametrize("batch", [8, 13, 27])
@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (Conv(20, kernel=3, padding="same"), (5, 7, 16)),
        (Conv(33, kernel=(3, 2), stride=(2, 1), dilation=(1, 2), padding="full"), (6, 5, 17)),
        (Conv(32, kernel=3, stride=2, padding="same", groups=2), (7, 8, 32)),
        (Conv(17, kernel=5, padding="causal"), (9, 16)),
    ],
)
def test_rows_across_the_batch_agree_exactly(conv, shape, batch):
    check(conv, shape, batch=batch)


def test_an_example_has_the_same_bits_in_any_batch():
    forward, *_ = LOWERINGS[Conv]
    conv, rng = Conv(24, kernel=3, padding="same"), np.random.default_rng(3)
    params = {n: rng.normal(size=a.shape).astype(np.float32) for n, a in conv.parameters((9, 9, 16)).items()}
    x = rng.normal(size=(20, 9, 9, 16)).astype(np.float32)
    whole = forward(conv, params, x)[0]
    for batch in (1, 3, 8, 11):
        np.testing.assert_array_equal(forward(conv, params, x[:batch])[0], whole[:batch])
