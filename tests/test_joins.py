from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.element import Element, example
from faltung.elements.joins import Concat, Product, Sum
from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field

inputs = st.fixed_dictionaries(
    {
        "shape": st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple),
        "count": st.integers(2, 4),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "seed": st.integers(0, 1000),
    }
)


def integers(random, shape, dtype):
    return random.integers(-4, 5, shape).astype(dtype)


@given(inputs)
@settings(max_examples=40)
def test_sum_and_product_are_their_formulas_and_the_errors_exact(case):
    random = np.random.default_rng(case["seed"])
    shape, dtype = case["shape"], case["dtype"]
    x = tuple(integers(random, shape, dtype) for _ in range(case["count"]))
    dy = integers(random, shape, dtype)
    cases: list[tuple[Element, Any]] = [(Sum(), np.sum(x, axis=0)), (Product(), np.prod(x, axis=0))]
    for element, value in cases:
        y, kept = element.forward({}, x)
        dx = element.error({}, kept, dy)
        assert np.array_equal(y, value)
        assert {a.dtype for a in (y, *dx)} == {np.dtype(dtype)}
        for i in range(len(x)):
            others = np.prod([x[j] for j in range(len(x)) if j != i], axis=0)
            assert np.array_equal(dx[i], dy if isinstance(element, Sum) else dy * others)


@given(inputs, st.data())
@settings(max_examples=40)
def test_concat_puts_inputs_one_after_the_other_and_its_error_is_the_adjoint(case, data):
    random = np.random.default_rng(case["seed"])
    shape, dtype = case["shape"], case["dtype"]
    axis = data.draw(st.integers(-1, len(shape) - 2))
    element = Concat(axis=axis)
    place = axis % (len(shape) - 1) + 1
    parts = data.draw(st.lists(st.integers(0, 3), min_size=case["count"], max_size=case["count"]))
    x = tuple(integers(random, (*shape[:place], part, *shape[place + 1 :]), dtype) for part in parts)
    y, kept = element.forward({}, x)
    dy = integers(random, y.shape, dtype)
    dx = element.error({}, kept, dy)
    assert y.shape[1:] == element.output(*(a.shape[1:] for a in x))
    assert {a.dtype for a in (y, *dx)} == {np.dtype(dtype)}
    start = 0
    for a, da in zip(x, dx, strict=True):
        read = (slice(None),) * place + (slice(start, start + a.shape[place]),)
        assert np.array_equal(y[read], a)
        assert np.array_equal(dy[read], da)
        start += a.shape[place]
    assert np.sum(dy * y) == sum(np.sum(a * da) for a, da in zip(x, dx, strict=True))


def test_product_is_differentiated_right_where_factors_are_0():
    random = np.random.default_rng(0)
    x = [random.normal(size=(2, 3)) for _ in range(3)]
    x[0][0, 0] = x[1][0, 0] = x[1][1, 2] = 0.0
    dy = random.normal(size=(2, 3))
    _, kept = Product().forward({}, tuple(x))
    for i, dx in enumerate(Product().error({}, kept, dy)):
        numeric = slope(lambda a, i=i: Product().forward({}, (*x[:i], a, *x[i + 1 :]))[0], x[i], dy)
        assert_close(dx, numeric)


def test_what_is_kept_can_be_cut_to_one_example():
    x = (np.arange(6.0).reshape(3, 2), np.arange(6.0, 12.0).reshape(3, 2))
    dy = np.arange(12.0).reshape(3, 4)
    cases: list[tuple[Element, Any]] = [(Sum(), dy[:, :2]), (Product(), dy[:, :2]), (Concat(), dy)]
    for element, signal in cases:
        _, kept = element.forward({}, x)
        whole = element.error({}, kept, signal)
        one = element.error({}, example(kept, 1), signal[1:2])
        assert all(np.array_equal(part, dx[1:2]) for part, dx in zip(one, whole, strict=True))


@pytest.mark.parametrize("element", [Sum(), Product()])
def test_an_open_axis_matches_any(element):
    assert element.arity is None
    assert element.output((None, 8), (5, 8)) == (5, 8)
    assert element.output((None, 8), (None, None), (None, 8)) == (None, 8)


def test_concat_with_open_axes():
    assert Concat().arity is None
    assert Concat().output((None, 8), (5, 4), (None, 1)) == (5, 13)
    assert Concat().output((None, 8), (None, 4)) == (None, 12)
    assert Concat(axis=0).output((None, 8), (5, 8)) == (None, 8)
    assert Concat(axis=0).output((3, None), (5, 8)) == (8, 8)
    assert Concat(axis=1).output((3, 2), (3, 8)) == (3, 10)


def test_fields_of_joins_hold_those_of_all_inputs():
    seen = [(Field(),), (Field().through(Window(kernel=3, padding=1)),)]
    for element in (Sum(), Product(), Concat(), Concat(axis=1)):
        joined = element.receptive(seen, [(5, 2), (5, 2)])
        assert not isinstance(joined, str)
        assert [field.of(0) for field in joined] == [range(-1, 2)]
    assert Concat(axis=0).receptive(seen, [(5, 2), (5, 2)]) == "varies"


@pytest.mark.parametrize("element", [Sum(), Product()])
@pytest.mark.parametrize("shapes", [((4, 4, 8), (4, 4, 16)), ((4, 8), (8,)), ((4, 8), (None,)), ((1, 8), (4, 8))])
def test_shapes_that_differ_are_refused_and_all_named(element, shapes):
    with pytest.raises(ShapeError) as caught:
        element.output(*shapes)
    listed = ", ".join(map(str, shapes))
    assert f"(): got inputs of {listed}, expected two or more of one shape; make them equal by" in str(caught.value)


@pytest.mark.parametrize("element", [Sum(), Product(), Concat()])
def test_one_input_is_not_enough(element):
    with pytest.raises(ShapeError, match=r"got inputs of \(4, 8\), expected two or more"):
        element.output((4, 8))


@pytest.mark.parametrize("element", [Sum(), Product(), Concat()])
def test_a_batch_is_not_repeated_to_fit(element):
    with pytest.raises(ShapeError, match=r"got inputs of \(3, 2\), \(1, 2\), expected equal batches; give as many"):
        element.forward({}, (np.ones((3, 2)), np.ones((1, 2))))


def test_what_concat_refuses():
    with pytest.raises(ShapeError, match=r"got inputs of \(4, 8\), \(8,\), expected two or more with as many axes; br"):
        Concat().output((4, 8), (8,))
    with pytest.raises(ShapeError, match=r"got inputs of \(4, 8\), \(5, 8\), expected equal sizes on axis 0; make"):
        Concat().output((4, 8), (5, 8))
    with pytest.raises(
        ShapeError, match=r"Concat\(axis=2\): got inputs of .*, expected an axis 2; choose axis -1 to 1"
    ):
        Concat(axis=2).output((4, 8), (4, 8))
    bad: tuple[Any, ...] = (-2, 1.0, "channels", None, True)
    for axis in bad:
        with pytest.raises(SettingError, match=r"got axis=.*, expected -1 \(the channels\), or a whole number from 0"):
            Concat(axis=axis)


def test_repr_is_the_call():
    assert [repr(e) for e in (Sum(), Product(), Concat(), Concat(axis=0))] == [
        "Sum()",
        "Product()",
        "Concat()",
        "Concat(axis=0)",
    ]
