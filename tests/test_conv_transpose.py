"""ConvTranspose against its formula in plain loops, the convolution whose error it is, and the guide's other ways."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convolutions import Case, cases
from faltung.check import adjoint_check
from faltung.elements.conv import Conv
from faltung.elements.conv_transpose import ConvTranspose
from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window
from faltung.initial import draw
from faltung.receptive import Field


def loops(x, w, windows, groups, sizes):
    """The formula: each x[n, t, i] adds x w[k, o, i] to y[n, t*stride + k*dilation - before, o], if that is inside."""
    filters, before = w.shape[-2] * groups, [window.pads(size)[0] for window, size in zip(windows, sizes, strict=True)]
    y = np.zeros((len(x), *sizes, filters), x.dtype)
    for n, *t, i in np.ndindex(x.shape):
        first = i // (x.shape[-1] // groups) * w.shape[-2]
        for *k, o in np.ndindex(w.shape[:-1]):
            at = [p * v.stride + tap * v.dilation - b for p, tap, v, b in zip(t, k, windows, before, strict=True)]
            if all(0 <= place < size for place, size in zip(at, sizes, strict=True)):
                y[n, *at, first + o] += x[n, *t, i] * w[*k, o, i]
    return y


def pair(case: Case):
    """A convolution, the transposed one that leads back to its input's sizes, and the shape between them."""
    conv = Conv(case.filters, **case.settings, bias=False)
    up = ConvTranspose(case.shape[-1], **case.settings, bias=False, size=case.shape[:-1])
    return conv, up, conv.output(case.shape)


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_value_is_the_loops_of_the_formula(case):
    _, up, shape = pair(case)
    x = case.integers((2, *shape))
    params = {name: case.integers(asked.shape, 1) for name, asked in up.parameters(shape).items()}
    y, _ = up.forward(params, x)
    assert np.array_equal(y, loops(x, params["w"], case.windows, case.groups, case.shape[:-1]))
    assert up.output(shape) == y.shape[1:] == case.shape


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_forward_is_the_error_of_the_convolution_and_error_its_forward(case):
    conv, up, shape = pair(case)
    w = case.integers(conv.parameters(case.shape)["w"].shape)
    assert up.parameters(shape)["w"].shape == w.shape
    x, dy = case.integers((2, *case.shape), 1), case.integers((2, *shape), 2)
    y, kept = conv.forward({"w": w}, x)
    up_y, up_kept = up.forward({"w": w}, dy)
    assert np.array_equal(up_y, conv.error({"w": w}, kept, dy))
    assert np.array_equal(up.error({"w": w}, up_kept, x), y)
    assert np.array_equal(up.gradient({"w": w}, up_kept, x)["w"], conv.gradient({"w": w}, kept, dy)["w"])


@given(case=cases(), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_adjoint_identity_is_exact(case, bias):
    shape = Conv(case.filters, **case.settings).output(case.shape)
    up = ConvTranspose(case.shape[-1], **case.settings, bias=bias, size=case.shape[:-1])
    check = adjoint_check(up, shape, seed=case.seed)
    assert check.y == check.x == check.w


@given(size=st.integers(1, 5), kernel=st.integers(1, 4), stride=st.integers(1, 3), data=st.data())
@settings(max_examples=60)
def test_relationship_14_stretch_the_input_pad_and_convolve_with_the_kernel_turned(size, kernel, stride, data):
    padding, extra = data.draw(st.integers(0, kernel - 1)), data.draw(st.integers(0, stride - 1))
    assume(stride * (size - 1) + kernel - 2 * padding + extra >= 1)
    up = ConvTranspose(1, kernel=kernel, stride=stride, padding=padding, output_padding=extra, bias=False)
    random = np.random.default_rng(size)
    x, w = random.integers(-4, 5, size).astype(float), random.integers(-4, 5, kernel).astype(float)
    stretched = np.zeros(stride * (size - 1) + 1)
    stretched[::stride] = x
    padded = np.pad(stretched, (kernel - 1 - padding, kernel - 1 - padding + extra))
    y, _ = up.forward({"w": w.reshape(-1, 1, 1)}, x.reshape(1, -1, 1))
    assert np.array_equal(y.ravel(), np.correlate(padded, w[::-1], "valid"))


def test_output_padding_computes_positions_and_does_not_put_zeros():
    params = {"w": np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)}
    x = np.array([1.0, 10.0]).reshape(1, 2, 1)
    values = [
        ConvTranspose(1, kernel=3, stride=2, padding=1, output_padding=a, bias=False).forward(params, x)[0].ravel()
        for a in (0, 1)
    ]
    assert [y.tolist() for y in values] == [[2, 14, 20], [2, 14, 20, 40]]


def test_the_size_of_the_layer_that_is_undone():
    """The four ways to say it agree: output_padding, size, a size an axis, and a second input."""
    random = np.random.default_rng(0)
    x, like = random.normal(size=(2, 3, 3, 2)), random.normal(size=(2, 6, 6, 5))
    settings: dict[str, Any] = {"kernel": 3, "stride": 2, "padding": 1}
    params = {"w": random.normal(size=(3, 3, 4, 2)), "b": random.normal(size=4)}
    ways = [ConvTranspose(4, output_padding=1, **settings), ConvTranspose(4, size=6, **settings)]
    ways += [ConvTranspose(4, size=(6, 6), **settings)]
    values = [up.forward(params, x)[0] for up in ways]
    by_example = ConvTranspose(4, size="like", **settings)
    y, kept = by_example.forward(params, (x, like))
    assert by_example.arity == 2
    assert by_example.output((3, 3, 2), (6, 6, 5)) == (6, 6, 4)
    assert all(np.array_equal(value, y) for value in values)

    dy = random.normal(size=y.shape)
    dx, none = by_example.error(params, kept, dy)
    assert none is None
    assert np.array_equal(dx, ways[0].error(params, x, dy))


def test_same_multiplies_the_size_by_the_stride_unless_told():
    up = ConvTranspose(1, kernel=4, stride=3, padding="same")
    assert [up.output((size, 2)) for size in (1, 2, 5)] == [(3, 1), (6, 1), (15, 1)]
    assert ConvTranspose(1, kernel=4, stride=3, padding="same", size=13).output((5, 2)) == (13, 1)


def test_open_axes():
    up = ConvTranspose(3, kernel=3, stride=2, padding=1)
    assert up.output((None, 4, 2)) == (None, 7, 3)
    assert up.multiplications((None, 4, 2)) is None
    assert up.multiplications((5, 4, 2)) == 5 * 4 * 3 * 3 * 3 * 2
    assert ConvTranspose(3, kernel=3, stride=2, size=(8, 9)).output((None, 4, 2)) == (8, 9, 3)
    like = ConvTranspose(3, kernel=3, stride=2, size="like")
    assert like.output((None, 2), (None, 7)) == (None, 3)
    assert like.output((None, 2), (9, 7)) == (9, 3)


def test_what_is_known_before_any_array():
    up = ConvTranspose(6, kernel=(3, 5), stride=2, groups=2, initial="bilinear")
    w, b = (up.parameters((4, 4, 8))[name] for name in ("w", "b"))
    assert (w.shape, w.rule, w.fans, b.shape) == ((3, 5, 3, 8), "bilinear", (3 * 5 * 8 // 2, 3 * 5 * 6 // 2), (6,))
    seen = up.receptive([(Field(), Field())], [(4, 4, 8)])
    assert seen == (Field().through_transposed(Window(3, 2), 9), Field().through_transposed(Window(5, 2), 11))


def test_bilinear_parameters_interpolate():
    """Source: Long et al. 2015. A kernel of 2 s, stride s: a constant stays constant, a ramp becomes a finer ramp."""
    up = ConvTranspose(1, kernel=4, stride=2, padding=1, bias=False, initial="bilinear")
    w = up.parameters((6, 1))["w"]
    params = {"w": draw(w.rule, w.shape, w.fans, seed=0, name="up.w")}
    ramp, _ = up.forward(params, np.arange(6.0).reshape(1, 6, 1))
    assert ramp.ravel()[1:-1].tolist() == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_dtype_and_any_batch(dtype, batch):
    up = ConvTranspose(2, kernel=3, stride=2)
    params = {"w": np.ones((3, 2, 4), dtype), "b": np.ones(2, dtype)}
    y, kept = up.forward(params, np.ones((batch, 5, 4), dtype))
    gradient = up.gradient(params, kept, y)
    arrays = (y, up.error(params, kept, y), gradient["w"], gradient["b"])
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
    assert [array.shape for array in arrays] == [(batch, 11, 2), (batch, 5, 4), (3, 2, 4), (2,)]


@pytest.mark.parametrize(
    "up",
    [
        ConvTranspose(3, kernel=4, stride=2, padding=1),
        ConvTranspose(3, kernel=(4, 3), stride=2, output_padding=(0, 1), groups=3, bias=False, initial="bilinear"),
        ConvTranspose(3, kernel=3, stride=2, size="like"),
        ConvTranspose(3, kernel=3, stride=2, size=(8, 9)),
    ],
)
def test_repr_is_the_call_and_nothing_can_be_assigned(up):
    assert eval(repr(up), {"ConvTranspose": ConvTranspose}) == up
    with pytest.raises(FrozenInstanceError):
        up.stride = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": -1}, r"^ConvTranspose\(-1, kernel=3\): got filters=-1, expected a whole number of at least 1"),
        ({"kernel": "3"}, "got kernel='3', expected a plain int >= 1"),
        ({"size": "alike"}, "got size='alike', expected \"like\" .a second input., a number from 1, or one an"),
        ({"size": 0}, "got size=0, expected"),
        ({"size": 2.5}, "got size=2.5, expected"),
        ({"size": ()}, "got size=.., expected"),
        ({"size": (4, "like")}, "got size=.4, 'like'., expected"),
        ({"output_padding": -1}, "got output_padding=-1, expected a whole number from 0, or one an axis"),
        ({"output_padding": ()}, r"got output_padding=\(\), expected a whole number from 0"),
        ({"size": 7, "stride": 2, "output_padding": 1}, "got output_padding=1, expected 0 where the size is given"),
        ({"initial": "warm"}, "got initial='warm', expected one of 'glorot'"),
    ],
)
def test_settings_that_are_refused(arguments, message):
    with pytest.raises(SettingError, match=message):
        ConvTranspose(**({"filters": 1, "kernel": 3} | arguments))


@pytest.mark.parametrize(
    ("arguments", "shapes", "error", "message"),
    [
        ({"stride": 2, "output_padding": 2}, [(4, 1)], SettingError, "got output_padding=2 on axis 0, expected 0 to 1, "
         "less than the stride; name the output's size instead, by size="),
        ({"stride": 2, "size": 12}, [(4, 1)], ShapeError, "got size 12 on axis 0, expected sizes 9 to 10, whose "
         "convolution has size 4; name one of these, or none"),
        ({"stride": 2, "size": "like"}, [(4, 1), (12, 1)], ShapeError, "got size 12 on axis 0, expected sizes"),
        ({"stride": 2, "size": "like"}, [(4, 1), (9, 9, 1)], ShapeError, "got inputs of 1 and 2 axes, expected"),
        ({"padding": 3}, [(2, 1)], ShapeError, "the transposed output .* = -2 on axis 0, expected at least 1"),
        ({"size": (4, 4)}, [(2, 1)], ShapeError, r"got size=\(4, 4\) for 2 axes, expected one entry for each of 1"),
        ({"groups": 2}, [(4, 3)], ShapeError, "got 3 channels and 2 filters in 2 groups, expected groups to divide"),
        ({}, [(4,)], ShapeError, r"got an input of \(4,\), expected \(\*axes, channels\)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(arguments, shapes, error, message):
    with pytest.raises(error, match=message):
        ConvTranspose(2, kernel=3, **arguments).output(*shapes)
