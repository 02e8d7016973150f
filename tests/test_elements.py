"""What every element keeps to: its derivatives, its dtype, any batch, its repr, and that nothing can be assigned."""

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung import elements
from faltung.check import adjoint_check, element_check
from faltung.elements.element import example
from faltung.errors import FaltungError, SettingError, at

SHAPE = (6, 6, 4)
INDICES = np.array([[0, 3, 3], [1, 2, 0]])
TRAINING = ft.Run(training=True, seed=1, step=2, node="here")

CASES: list[tuple[ft.Element, tuple[Any, ...]]] = [
    (ft.AdaptivePool((2, 4), "max"), (SHAPE,)),
    (ft.AdaptivePool(4, "mean"), (SHAPE,)),
    (ft.Affine(3), (SHAPE,)),
    (ft.BatchNorm(epsilon=1e-3), (SHAPE,)),
    (ft.Concat(), (SHAPE, (6, 6, 1), SHAPE)),
    (ft.Concat(axis=0), (SHAPE, (2, 6, 4))),
    (ft.Conv(4, kernel=3, stride=2, padding="same", groups=2), (SHAPE,)),
    (ft.ConvTranspose(2, kernel=3, stride=2, output_padding=1), (SHAPE,)),
    (ft.ConvTranspose(2, kernel=3, stride=2, size="like"), (SHAPE, (13, 14, 1))),
    (ft.Crop(((1, 2), (0, 1))), (SHAPE,)),
    (ft.Crop(size="like", align="start"), (SHAPE, (3, 2, 1))),
    (ft.Dropout(0.25), (SHAPE,)),
    (ft.ELU(0.5), (SHAPE,)),
    (ft.Embedding(4, 3), (INDICES,)),
    (ft.Flatten(), (SHAPE,)),
    (ft.Gate(), ((*SHAPE[:-1], 4),)),
    (ft.GELU(), (SHAPE,)),
    (ft.GlobalPool("mean"), (SHAPE,)),
    (ft.GlobalPool("max"), (SHAPE,)),
    (ft.Identity(), (SHAPE,)),
    (ft.LayerNorm(), (SHAPE,)),
    (ft.LayerNorm(axes="all"), (SHAPE,)),
    (ft.LeakyReLU(0.2), (SHAPE,)),
    (ft.LogSoftmax(), (SHAPE,)),
    (ft.LpPool(2, p=3.5), (SHAPE,)),
    (ft.MaxPool(3, stride=2, padding="same"), (SHAPE,)),
    (ft.MeanPool(3, stride=2, padding=1, count_padding=True), (SHAPE,)),
    (ft.Offset(), (SHAPE, SHAPE[-1:])),
    (ft.Pad((1, 2)), (SHAPE,)),
    (ft.Pad(2, mode="reflect"), (SHAPE,)),
    (ft.Pointwise("x * sigmoid(1.5 * x)"), (SHAPE,)),
    (ft.Pool(2, "log(mean(exp(x)))"), (SHAPE,)),
    (ft.Product(), (SHAPE, SHAPE, SHAPE)),
    (ft.ReLU(), (SHAPE,)),
    (ft.Reshape((12, -1)), (SHAPE,)),
    (ft.Resize(2), (SHAPE,)),
    (ft.Resize(size=(4, 9), method="linear"), (SHAPE,)),
    (ft.Sigmoid(), (SHAPE,)),
    (ft.SiLU(), (SHAPE,)),
    (ft.Softmax(), (SHAPE,)),
    (ft.Softplus(), (SHAPE,)),
    (ft.Sum(), (SHAPE, SHAPE)),
    (ft.Tanh(), (SHAPE,)),
]
every_element = pytest.mark.parametrize(("element", "inputs"), CASES, ids=[repr(element) for element, _ in CASES])


def arguments(element, inputs, dtype, batch):
    """Parameters and inputs of this dtype."""
    random = np.random.default_rng(0)
    xs = [x[:batch] if isinstance(x, np.ndarray) else random.normal(size=(batch, *x)).astype(dtype) for x in inputs]
    asked = [wanted(*(x.shape[1:] for x in xs)) for wanted in (element.parameters, element.state)]
    params = {name: np.full(each.shape, 0.5, dtype) for by_name in asked for name, each in by_name.items()}
    return params, tuple(xs) if element.arity != 1 else xs[0]


def arrays(found):
    """Every array in what an element hands back."""
    if isinstance(found, np.ndarray):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else ()
    return [array for part in parts for array in arrays(part)]


def test_every_public_element_is_here():
    public = {getattr(elements, name) for name in elements.__all__}
    concrete = {each for each in public if issubclass(each, ft.Element) and not inspect.isabstract(each)}
    assert {type(element) for element, _ in CASES} == concrete


@every_element
def test_derivatives_by_central_differences(element, inputs):
    for run in (ft.Run(), TRAINING):
        check = element_check(element, *inputs, entries=40, epsilon=1e-5, run=run)
        assert check.passed(1e-7), check


@every_element
def test_linear_elements_pass_the_adjoint_check_but_for_rounding(element, inputs):
    if element.linear:
        check = adjoint_check(element, *inputs, run=TRAINING)
        assert check.passed(1e-14), check


@every_element
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_has_the_dtype_of_the_parameters(element, inputs, dtype):
    for run in (ft.Run(), TRAINING):
        params, x = arguments(element, inputs, dtype, batch=2)
        y, kept = element.forward(params, x, run)
        dy = np.ones_like(y)
        found = (y, element.error(params, kept, dy), element.gradient(params, kept, dy), element.renew(params, kept))
        assert {array.dtype for array in arrays(found)} == {np.dtype(dtype)}


@every_element
def test_an_example_does_not_see_the_batch_around_it(element, inputs):
    """Without training; then also what is kept can be cut down to one example."""
    params, x = arguments(element, inputs, np.float64, batch=2)
    y, kept = element.forward(params, x)
    dy = np.random.default_rng(1).normal(size=y.shape)
    one = [each[1:] for each in x] if isinstance(x, tuple) else x[1:]
    assert np.allclose(element.forward(params, tuple(one) if isinstance(x, tuple) else one)[0], y[1:], 1e-13, 1e-13)
    shares = [element.gradient(params, example(kept, n), dy[n : n + 1]) for n in range(2)]
    for name, total in element.gradient(params, kept, dy).items():
        np.testing.assert_allclose(shares[0][name] + shares[1][name], total, rtol=1e-12, atol=1e-12)
    for whole, cut in zip(
        arrays(element.error(params, kept, dy)), arrays(element.error(params, example(kept, 1), dy[1:])), strict=True
    ):
        np.testing.assert_allclose(cut, whole[1:], rtol=1e-12, atol=1e-12)


@every_element
def test_the_empty_batch(element, inputs):
    params, x = arguments(element, inputs, np.float32, batch=0)
    y, kept = element.forward(params, x)
    shapes = [each.shape[1:] for each in (x if isinstance(x, tuple) else (x,))]
    assert y.shape == (0, *element.output(*shapes))
    dx = element.error(params, kept, y)
    for each, of in zip(dx if isinstance(dx, tuple) else (dx,), x if isinstance(x, tuple) else (x,), strict=True):
        assert each is None or each.shape == of.shape
    for name, dw in element.gradient(params, kept, y).items():
        assert np.array_equal(dw, np.zeros_like(params[name]))


@every_element
def test_nothing_is_written_into_the_arguments(element, inputs):
    params, x = arguments(element, inputs, np.float64, batch=2)
    for array in arrays((params, x)):
        array.flags.writeable = False
    y, kept = element.forward(params, x, TRAINING)
    dy = np.ones_like(y)
    for array in arrays((y, kept, dy)):
        array.flags.writeable = False
    element.error(params, kept, dy)
    element.gradient(params, kept, dy)
    element.renew(params, kept)


@every_element
def test_repr_is_the_call_and_nothing_can_be_assigned(element, inputs):
    again = eval(repr(element), dict(vars(elements)))
    assert again == element
    assert hash(again) == hash(element)
    for each in fields(element):
        with pytest.raises(FrozenInstanceError):
            setattr(element, each.name, None)
    with pytest.raises(FrozenInstanceError):
        element.anything = 1


@every_element
def test_numbers_of_numpy_are_refused_as_settings(element, inputs):
    """They would change the dtype of what they are multiplied with, and cannot be written into a model file."""
    for each in fields(element):
        value = getattr(element, each.name)
        if type(value) in (int, float):
            with pytest.raises(SettingError, match=f"{each.name}="):
                replace(element, **{each.name: np.array(value)[()]})


def refusal(element, shapes):
    """What is raised for inputs of these shapes, if anything."""
    try:
        with at("here"):
            element.output(*shapes)
    except FaltungError as error:
        return error
    return None


@every_element
def test_messages_begin_with_the_call_and_the_node(element, inputs):
    """Whatever input does not fit, down to one without an axis."""
    shapes = ((), (None,), (0,), (None, None), (5, None), (0, 0, 0), (2, 3, 5, 7))
    for error in filter(None, (refusal(element, [shape] * len(inputs)) for shape in shapes)):
        assert str(error).startswith(f"{element!r} 'here': ")
        assert error.element is element
        assert error.way_out
