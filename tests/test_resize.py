"""Resize against interpolation written from its formulas, one entry at a time."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.conv_transpose import ConvTranspose
from faltung.elements.resize import ALIGNMENTS, Resize
from faltung.errors import SettingError, ShapeError
from faltung.receptive import Field

Array = np.ndarray[Any, Any]

KINDS = [(method, alignment) for method, alignments in ALIGNMENTS.items() for alignment in alignments]
few = settings(max_examples=50, deadline=None)


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(-3, 4, shape).astype(float)


def interpolated(v: Any, o: int, r: float, method: str, alignment: str) -> Array:
    """A vector resized to o entries, from the formulas of the docstring."""
    i = len(v)

    def entry(k: int) -> float:
        return v[max(0, min(k, i - 1))]

    y = []
    for j in range(o):
        if alignment == "corners":
            s = 0.0 if o == 1 else j * (i - 1) / (o - 1)
        else:
            s = (j + 0.5) * r - 0.5 if alignment == "half_pixel" else j * r
        if method == "nearest":
            y.append(entry(math.floor(s + (0.5 if alignment == "half_pixel" else 0))))
        else:
            low = math.floor(s)
            y.append(entry(low) * (low + 1 - s) + entry(low + 1) * (s - low))
    return np.array(y)


def vector(*entries: float) -> Array:
    return np.array(entries, float).reshape(1, -1, 1)


@pytest.mark.parametrize(("method", "alignment"), KINDS)
@few
@given(
    axes=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_resize_to_a_size_is_its_formula_axis_by_axis(method, alignment, axes, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, (2, *(i for i, _ in axes), 2))  # outputs are powers of two, so the formula's floor is exact
    y, _ = Resize(size=tuple(o for _, o in axes), method=method, alignment=alignment).forward({}, x)
    expected = x
    for axis, (i, o) in enumerate(axes, start=1):
        expected = np.apply_along_axis(interpolated, axis, expected, o, i / o, method, alignment)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("method", "alignment"), KINDS)
@pytest.mark.parametrize("scale", [0.25, 0.5, 1, 2, 4, 0.375])
def test_resize_by_a_scale_is_its_formula(scale, method, alignment):
    v = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0]
    o = math.floor(len(v) * scale)
    y, _ = Resize(scale, method=method, alignment=alignment).forward({}, vector(*v))
    np.testing.assert_allclose(y.ravel(), interpolated(v, o, 1 / scale, method, alignment), rtol=1e-13, atol=1e-13)


@few
@given(
    axes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=3),
    alignment=st.sampled_from(ALIGNMENTS["nearest"]),
    seed=st.integers(0, 99),
)
def test_nearest_passes_the_adjoint_identity_exactly(axes, alignment, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, (2, *(i for i, _ in axes), 2))
    resize = Resize(size=tuple(o for _, o in axes), alignment=alignment)
    y, kept = resize.forward({}, x)
    dy = integers(rng, y.shape)
    assert (dy * y).sum() == (resize.error({}, kept, dy) * x).sum()
    assert np.isin(y, x).all()


@pytest.mark.parametrize("alignment", ALIGNMENTS["linear"])
@pytest.mark.parametrize("sizes", [((3,), (6,)), ((5, 3), (9, 8)), ((2, 3, 5), (4, 1, 3))])
def test_linear_passes_the_adjoint_identity(alignment, sizes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *sizes[0], 3))
    resize = Resize(size=sizes[1], method="linear", alignment=alignment)
    y, kept = resize.forward({}, x)
    dy = rng.standard_normal(y.shape)
    dx = resize.error({}, kept, dy)
    assert abs((dy * y).sum() - (dx * x).sum()) < 1e-14 * abs(dy * y).sum()
    assert_close(dx, slope(lambda x: resize.forward({}, x)[0], x, dy))


def test_linear_by_a_power_of_two_passes_the_adjoint_identity_exactly():
    rng = np.random.default_rng(0)
    x, dy = integers(rng, (2, 3, 5, 2)), integers(rng, (2, 6, 10, 2))
    y, kept = Resize(2, method="linear").forward({}, x)
    assert (dy * y).sum() == (Resize(2, method="linear").error({}, kept, dy) * x).sum()


def test_nearest_by_a_whole_scale_repeats_and_its_error_sums():
    x = integers(np.random.default_rng(0), (2, 3, 4, 2))
    for alignment in ALIGNMENTS["nearest"]:
        resize = Resize((2, 3), alignment=alignment)
        y, kept = resize.forward({}, x)
        assert np.array_equal(y, x.repeat(2, axis=1).repeat(3, axis=2))
        dy = integers(np.random.default_rng(1), y.shape)
        assert np.array_equal(resize.error({}, kept, dy), dy.reshape(2, 3, 2, 4, 3, 2).sum(axis=(2, 4)))


def test_shrinking_nearest_takes_the_middle_or_the_first_of_each_area():
    x = vector(*range(9))
    assert Resize(size=3).forward({}, x)[0].ravel().tolist() == [1.0, 4.0, 7.0]
    assert Resize(size=3, alignment="asymmetric").forward({}, x)[0].ravel().tolist() == [0.0, 3.0, 6.0]


def test_corners_meet_and_a_single_output_is_the_first_entry():
    resize = Resize(size=4, method="linear", alignment="corners")
    assert resize.forward({}, vector(0, 6, 3))[0].ravel().tolist() == [0.0, 4.0, 5.0, 3.0]
    assert Resize(size=1, method="linear", alignment="corners").forward({}, vector(7, 8))[0].ravel().tolist() == [7.0]


def test_bilinear_by_two_is_the_transposed_convolution_of_fcn_away_from_the_border():
    x = integers(np.random.default_rng(0), (1, 6, 5, 1))
    tent = np.array([0.25, 0.75, 0.75, 0.25])
    params = {"w": np.multiply.outer(tent, tent)[:, :, None, None]}
    up, _ = ConvTranspose(1, kernel=4, stride=2, padding=1, bias=False).forward(params, x)
    y, _ = Resize(2, method="linear").forward({}, x)
    assert np.array_equal(y[:, 1:-1, 1:-1], up[:, 1:-1, 1:-1])


@pytest.mark.parametrize("count", [3, 7, 10, 49, 98, 1000])
def test_a_scale_stands_for_the_simplest_fraction_near_it(count):
    for scale, fraction in ((1 / count, Fraction(1, count)), (0.7, Fraction(7, 10)), (2 / 3, Fraction(2, 3))):
        expected = math.floor(count * fraction)
        assert Resize(scale).output((count, 1)) == (expected, 1)
        assert (
            math.prod(Resize(scale, alignment="asymmetric").forward({}, np.zeros((1, count, 1)))[0].shape) == expected
        )
    v = np.arange(float(count))
    y, _ = Resize(0.1, alignment="asymmetric").forward({}, vector(*np.arange(10.0 * count)))
    assert np.array_equal(y.ravel(), 10 * v)


def test_the_scale_keeps_its_ratio_where_the_size_is_rounded():
    resize = Resize(0.6, method="linear", alignment="asymmetric")  # 3 of 5.67: places 0, 5/3, 10/3 and not 0, 2, 4
    np.testing.assert_allclose(resize.forward({}, vector(*range(6)))[0].ravel(), [0, 5 / 3, 10 / 3], rtol=1e-15)


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_a_second_input_can_name_the_size(method):
    rng = np.random.default_rng(0)
    x, like, dy = rng.standard_normal((2, 3, 4, 2)), np.zeros((2, 5, 7, 9)), rng.standard_normal((2, 5, 7, 2))
    resize, fixed = Resize(size="like", method=method), Resize(size=(5, 7), method=method)
    assert (resize.arity, fixed.arity) == (2, 1)
    y, kept = resize.forward({}, (x, like))
    assert np.array_equal(y, fixed.forward({}, x)[0])
    dx, nothing = resize.error({}, kept, dy)
    assert np.array_equal(dx, fixed.error({}, x, dy))
    assert nothing is None
    assert resize.output((None, 4, 2), (None, 7, 1)) == (None, 7, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("resize", [Resize(2), Resize(1.5, method="linear"), Resize(size=(1, 4))], ids=repr)
def test_the_dtype_stays_and_batches_may_be_empty(resize, dtype):
    for batch in (0, 1, 3):
        x = np.random.default_rng(0).standard_normal((batch, 3, 4, 2)).astype(dtype)
        y, kept = resize.forward({}, x)
        dx = resize.error({}, kept, np.ones_like(y))
        assert y.dtype == dx.dtype == dtype
        assert (y.shape, dx.shape) == ((batch, *resize.output((3, 4, 2))), x.shape)


def test_shapes_are_known_as_far_as_the_axes_are():
    assert Resize(1.5).output((None, 3, 2)) == (None, 4, 2)
    assert Resize(size=8).output((None, None, 2)) == (8, 8, 2)


@pytest.mark.parametrize(("method", "alignment"), [kind for kind in KINDS if kind[1] != "corners"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_the_field_of_a_whole_scale_is_what_each_unit_reads(scale, method, alignment):
    size = 6
    resize = Resize(scale, method=method, alignment=alignment)
    fields = resize.receptive([(Field(),)], [(size, 1)])
    assert not isinstance(fields, str)
    assert Resize(size=size * scale, method=method, alignment=alignment).receptive([(Field(),)], [(size, 1)]) == fields
    influence = [resize.forward({}, vector(*row))[0].ravel() != 0 for row in np.eye(size)]
    for unit in range(scale, (size - 1) * scale):  # away from the border, where entries are repeated
        assert [u for u, reads in enumerate(influence) if reads[unit]] == list(fields[0].of(unit))


def test_other_scales_have_no_simple_field():
    for resize in (Resize(0.5), Resize(1.5), Resize(size=4), Resize(2, method="linear", alignment="corners")):
        assert resize.receptive([(Field(),)], [(6, 1)]) == "varies"
        assert resize.receptive(["all"], [(6, 1)]) == "all"
    assert Resize(size=8).receptive([(Field(),)], [(None, 1)]) == "varies"
    assert Resize(2).receptive(["varies"], [(6, 1)]) == "varies"


def test_repr_gives_back_the_call():
    for resize in (Resize(2), Resize((2, 0.5), method="linear", alignment="corners"), Resize(size=(4, 5))):
        assert eval(repr(resize)) == resize


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(), "got scale=None and size=None, expected exactly one of them; write Resize"),
        (lambda: Resize(2, size=4), "got scale=2 and size=4, expected exactly one of them"),
        (lambda: Resize(0), r"Resize\(0\): got scale=0, expected a number of at least 1e-06"),
        (lambda: Resize((2, -1.0)), "got scale=-1.0, expected a number of at least 1e-06"),
        (lambda: Resize(float("inf")), "got scale=inf, expected"),
        (lambda: Resize(size=0), "got size=0, expected a whole number"),
        (lambda: Resize(size="alike"), "got size='alike', expected a whole number"),
        (lambda: Resize(2, method="cubic"), "got method='cubic', expected one of 'nearest', 'linear'"),
        (lambda: Resize(2, alignment="corners"), "got alignment='corners', expected one of 'half_pixel', 'asymmetric'"),
    ],
)
def test_settings_that_fit_no_input_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("resize", "shapes", "message"),
    [
        (
            Resize(0.25),
            [(3, 1)],
            "got an output of size 0 from an input of 3 on axis 0, expected at least 1; use a larger",
        ),
        (Resize(2), [(4, 0, 1)], "got an axis of size 0 on axis 1"),
        (Resize(2), [(4,)], r"got an input of \(4,\), expected \(\*axes, channels\)"),
        (Resize((2, 2)), [(4, 1)], r"got scale=\(2, 2\) for 2 axes, expected one entry for each of 1"),
        (Resize(size=(2, 2)), [(4, 1)], r"got size=\(2, 2\) for 2 axes"),
        (Resize(size="like"), [(4, 1), (5, 5, 1)], r"got size=\(5, 5\) for 2 axes"),
        (Resize(size="like"), [(4, 1), (0, 1)], "got an output of size 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(resize, shapes, message):
    with pytest.raises(ShapeError, match=message):
        resize.output(*shapes)
    inputs = [np.zeros((1, *shape)) for shape in shapes]
    with pytest.raises(ShapeError, match=message):
        resize.forward({}, tuple(inputs) if resize.arity == 2 else inputs[0])
