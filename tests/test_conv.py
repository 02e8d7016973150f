"""Conv against its formula in plain loops, the memo's formulas, the guide's example, and itself."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d, correlate2d

from convolutions import cases, products
from faltung.check import adjoint_check
from faltung.elements.conv import Conv
from faltung.elements.element import example
from faltung.errors import NetworkError, SettingError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field


def parameters(case, conv, dtype=np.float64):
    asked = conv.parameters(case.shape)
    return {name: case.integers(asks.shape, salt, dtype) for salt, (name, asks) in enumerate(asked.items(), start=2)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(case=cases(), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_value_error_and_gradient_are_the_loops_of_the_formula(dtype, case, bias):
    conv = Conv(case.filters, **case.settings, bias=bias)
    params, x = parameters(case, conv, dtype), case.integers((2, *case.shape), dtype=dtype)
    y, kept = conv.forward(params, x)
    expected = products(x, params["w"], case.windows, case.groups)
    assert np.array_equal(y, expected + params["b"] if bias else expected)
    assert y.shape[1:] == conv.output(case.shape)

    dy = case.integers(y.shape, salt=1, dtype=dtype)
    dx, dw = products(x, params["w"], case.windows, case.groups, dy)
    gradient = conv.gradient(params, kept, dy)
    assert np.array_equal(conv.error(params, kept, dy), dx)
    assert np.array_equal(gradient["w"], dw)
    assert set(gradient) == set(params)
    if bias:
        assert np.array_equal(gradient["b"], [dy[..., o].sum() for o in range(case.filters)])
    arrays = (y, conv.error(params, kept, dy), *gradient.values())
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@given(case=cases(), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_adjoint_identity_is_exact(case, bias):
    check = adjoint_check(Conv(case.filters, **case.settings, bias=bias), case.shape, seed=case.seed)
    assert check.y == check.x == check.w


@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_each_example_is_alone(case):
    conv = Conv(case.filters, **case.settings)
    params, x = parameters(case, conv), case.integers((3, *case.shape))
    y, kept = conv.forward(params, x)
    dy = case.integers(y.shape, salt=1)
    dx, dw = conv.error(params, kept, dy), conv.gradient(params, kept, dy)
    shares = []
    for n in range(3):
        own, cut = dy[n : n + 1], example(kept, n)
        assert np.array_equal(conv.forward(params, x[n : n + 1])[0], y[n : n + 1])
        assert np.array_equal(conv.error(params, cut, own), dx[n : n + 1])
        shares.append(conv.gradient(params, cut, own))
    for name, total in dw.items():
        assert np.array_equal(sum(share[name] for share in shares), total)


@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_groups_are_convolutions_side_by_side(case):
    conv = Conv(case.filters, **case.settings)
    params, x = parameters(case, conv), case.integers((2, *case.shape))
    one = Conv(case.filters // case.groups, **(case.settings | {"groups": 1}))
    parts = [
        one.forward({"w": w, "b": b}, part)[0]
        for w, b, part in zip(
            np.split(params["w"], case.groups, axis=-1),
            np.split(params["b"], case.groups),
            np.split(x, case.groups, axis=-1),
            strict=True,
        )
    ]
    assert np.array_equal(conv.forward(params, x)[0], np.concatenate(parts, axis=-1))


def test_the_memo_in_one_dimension():
    """Memo p. 9-10: the kernel is flipped in dx only, which is a full correlation; dw is a valid one."""
    random = np.random.default_rng(0)
    x, w, dy = (random.integers(-4, 5, n).astype(float) for n in (9, 4, 6))
    conv = Conv(1, kernel=4, bias=False)
    params = {"w": w.reshape(4, 1, 1)}
    y, kept = conv.forward(params, x.reshape(1, 9, 1))
    assert np.array_equal(y.ravel(), np.correlate(x, w, "valid"))
    dx = conv.error(params, kept, dy.reshape(1, 6, 1)).ravel()
    padded = np.concatenate([np.zeros(3), dy, np.zeros(3)])
    assert np.array_equal(dx, np.correlate(padded, np.flip(w), "valid"))
    dw = conv.gradient(params, kept, dy.reshape(1, 6, 1))["w"].ravel()
    assert np.array_equal(dw, np.correlate(x, dy, "valid"))
    swapped = np.correlate(dy, x, "valid")  # as the memo also has it, but a correlation does not commute
    assert np.array_equal(dw, swapped[::-1])
    assert not np.array_equal(dw, swapped)


def test_the_memo_in_two_dimensions():
    random = np.random.default_rng(1)
    x, w, dy = (random.integers(-4, 5, shape).astype(float) for shape in ((6, 7), (3, 2), (4, 6)))
    conv = Conv(1, kernel=(3, 2), bias=False)
    params = {"w": w[..., None, None]}
    y, kept = conv.forward(params, x[None, ..., None])
    assert np.array_equal(y[0, ..., 0], correlate2d(x, w, "valid"))
    error = conv.error(params, kept, dy[None, ..., None])[0, ..., 0]
    assert np.array_equal(error, correlate2d(dy, np.flip(w), "full"))
    assert np.array_equal(error, convolve2d(dy, w, "full"))
    gradient = conv.gradient(params, kept, dy[None, ..., None])["w"][..., 0, 0]
    assert np.array_equal(gradient, correlate2d(x, dy, "valid"))


def test_the_numeric_example_of_the_guide():
    x = [[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]]
    w = [[0, 1, 2], [2, 2, 0], [0, 1, 2]]
    conv = Conv(1, kernel=3, stride=2, padding=1, bias=False)
    y, _ = conv.forward({"w": np.array(w, float)[..., None, None]}, np.array(x, float)[None, ..., None])
    assert y[0, ..., 0].tolist() == [[6, 17, 3], [8, 17, 13], [6, 4, 4]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "output"),
    [(4, 3, 1, 0, 1, 2), (5, 3, 2, 1, 1, 3), (6, 3, 2, 1, 1, 3), (5, 3, 2, 0, 1, 2), (5, 4, 1, 2, 1, 6),
     (7, 3, 1, 0, 2, 3)],
)  # fmt: skip
def test_the_sizes_of_the_slides(size, kernel, stride, padding, dilation, output):
    conv = Conv(1, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    assert conv.output((size, size, 1)) == (output, output, 1)
    x, params = np.ones((1, size, size, 1)), {"w": np.ones((kernel, kernel, 1, 1)), "b": np.zeros(1)}
    assert conv.forward(params, x)[0].shape == (1, output, output, 1)


def test_one_setting_for_all_axes_is_the_setting_of_each():
    random = np.random.default_rng(2)
    x, w = random.normal(size=(2, 7, 8, 3)), random.normal(size=(3, 3, 3, 2))
    one = Conv(2, kernel=3, stride=2, dilation=2, padding=2, bias=False)
    each = Conv(2, kernel=(3, 3), stride=(2, 2), dilation=(2, 2), padding=((2, 2), (2, 2)), bias=False)
    assert np.array_equal(one.forward({"w": w}, x)[0], each.forward({"w": w}, x)[0])


def test_causal_convolution_sees_no_future():
    conv = Conv(1, kernel=3, dilation=2, padding="causal", bias=False)
    x, params = np.zeros((1, 9, 1)), {"w": np.ones((3, 1, 1))}
    x[0, 4] = 1
    assert np.flatnonzero(conv.forward(params, x)[0]).tolist() == [4, 6, 8]


def test_inputs_may_be_views_and_nothing_is_written_into_them():
    random = np.random.default_rng(3)
    wide = random.normal(size=(2, 9, 6))
    x, conv = wide[:, ::-1, ::2], Conv(2, kernel=3, padding=1)
    params = {"w": random.normal(size=(3, 3, 2)), "b": random.normal(size=2)}
    before = [a.copy() for a in (wide, *params.values())]
    y, kept = conv.forward(params, x)
    dy = np.broadcast_to(random.normal(size=2), y.shape)  # read-only
    results = y, conv.error(params, kept, dy), conv.gradient(params, kept, dy)["w"]
    x, dy = x.copy(), dy.copy()
    again = conv.forward(params, x)[0], conv.error(params, x, dy), conv.gradient(params, x, dy)["w"]
    for got, expected in zip(results, again, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert all(np.array_equal(a, b) for a, b in zip((wide, *params.values()), before, strict=True))


def test_the_empty_batch():
    conv = Conv(2, kernel=3, padding="same")
    params = {"w": np.ones((3, 3, 1, 2), np.float32), "b": np.ones(2, np.float32)}
    y, kept = conv.forward(params, np.zeros((0, 5, 5, 1), np.float32))
    assert (y.shape, y.dtype) == ((0, 5, 5, 2), np.float32)
    assert conv.error(params, kept, y).shape == (0, 5, 5, 1)
    assert {name: float(abs(dw).sum()) for name, dw in conv.gradient(params, kept, y).items()} == {"w": 0, "b": 0}


def test_what_is_known_before_any_array():
    conv = Conv(8, kernel=(3, 5), stride=2, padding="same", groups=2, initial="he")
    assert conv.output((None, 9, 4)) == (None, 5, 8)
    w, b = (conv.parameters((None, 9, 4))[name] for name in ("w", "b"))
    assert (w.shape, w.rule, w.fans, b.shape, b.rule) == ((3, 5, 2, 8), "he", (30, 60), (8,), "zeros")
    assert conv.multiplications((None, 9, 4)) is None
    assert conv.multiplications((7, 9, 4)) == 4 * 5 * 3 * 5 * 2 * 8
    assert set(Conv(8, kernel=3, bias=False).parameters((7, 9, 4))) == {"w"}
    seen = conv.receptive([(Field(), Field())], [(7, 9, 4)])
    assert seen == (Field().through(Window(3, 2, 1, "same"), 7), Field().through(Window(5, 2, 1, "same"), 9))
    assert conv.receptive(["varies"], [(7, 9, 4)]) == "varies"


@pytest.mark.parametrize(
    "conv",
    [
        Conv(20, kernel=9),
        Conv(8, kernel=(3, 5), stride=(1, 2), dilation=2, padding=("same", (2, 0)), groups=4, bias=False, initial="he"),
    ],
)
def test_repr_is_the_call_and_nothing_can_be_assigned(conv):
    assert eval(repr(conv), {"Conv": Conv}) == conv
    assert repr(Conv(20, kernel=9)) == "Conv(20, kernel=9)"
    with pytest.raises(FrozenInstanceError):
        conv.filters = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, r"Conv\(0, kernel=3\): got filters=0, expected a whole number of at least 1; choose another"),
        ({"filters": 2.0}, "got filters=2.0, expected a whole number of at least 1"),
        ({"filters": True}, "got filters=True, expected a whole number"),
        ({"groups": 0}, "got groups=0, expected a whole number of at least 1"),
        ({"kernel": 0}, "got kernel=0, expected a plain int >= 1"),
        ({"stride": -1}, "got stride=-1, expected a plain int >= 1"),
        ({"dilation": 1.5}, "got dilation=1.5, expected a plain int >= 1"),
        ({"padding": "some"}, "got padding='some', expected valid, same, full, causal, a plain int >= 0 or"),
        ({"padding": (1, -1)}, r"got padding=\(1, -1\), expected"),
        ({"padding": (1, 2, 3)}, r"got padding=\(1, 2, 3\), expected a pair \(before, after\) for all axes"),
        ({"kernel": (3, 3), "stride": (1, 1, 1)}, r"got kernel=\(3, 3\), stride=\(1, 1, 1\), expected one entry"),
        ({"filters": np.int64(2)}, r"got filters=.*2.*, expected a whole number of at least 1; make it a plain number"),
        ({"bias": "no"}, "got bias='no', expected one of True, False"),
        ({"initial": "warm"}, "got initial='warm', expected one of 'glorot', 'he', 'ufldl'"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(arguments, message):
    with pytest.raises(SettingError, match=message):
        Conv(**({"filters": 1, "kernel": 3} | arguments))


@pytest.mark.parametrize(
    ("conv", "shape", "message"),
    [
        (Conv(20, kernel=9), (5, 28, 1), r"^Conv\(20, kernel=9\): the kernel spans 9, the padded input only 5 "
         r"\(5 \+ 0 \+ 0\) on axis 0; use padding >= 2 or a smaller kernel$"),
        (Conv(2, kernel=3), (5,), r"got an input of \(5,\), expected \(\*axes, channels\) with a known number"),
        (Conv(2, kernel=3), (5, None), r"got an input of \(5, None\), expected"),
        (Conv(2, kernel=3, groups=2), (5, 3), "got 3 channels and 2 filters in 2 groups, expected groups to divide"),
        (Conv(3, kernel=3, groups=2), (5, 2), "got 2 channels and 3 filters in 2 groups"),
        (Conv(2, kernel=(3, 3)), (5, 2), r"got kernel=\(3, 3\) for 2 axes, expected one entry for each of 1"),
        (Conv(2, kernel=1), (0, 2), "got an axis of size 0 on axis 0, expected at least 1"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(conv, shape, message):
    with pytest.raises(ShapeError, match=message):
        conv.output(shape)


def test_parameters_that_do_not_fit():
    conv = Conv(2, kernel=3)
    with pytest.raises(
        NetworkError, match=r"^Conv\(2, kernel=3\): got the parameters \['w'\], expected \['b', 'w'\]; make"
    ):
        conv.forward({"w": np.ones((3, 1, 2))}, np.ones((1, 5, 1)))
    with pytest.raises(
        ShapeError, match=r"got w of shape \(3, 1, 2\), expected \(3, 3, 2\) for an input of \(5, 3\); give"
    ):
        conv.forward({"w": np.ones((3, 1, 2)), "b": np.ones(2)}, np.ones((1, 5, 3)))
