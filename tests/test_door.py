"""What comes in is checked once and converted once, and every refusal says the way out."""

import numpy as np
import pytest

from faltung.elements import Affine, BatchNorm, CrossEntropy, Embedding, GlobalPool, ReLU, SquaredError, Sum, Tanh
from faltung.errors import DataError, NetworkError, SettingError, ShapeError
from faltung.network import Chain, Graph, Node

X = np.ones((2, 3), np.float32)


def affine():
    return Chain(dense=Affine(2)).on((3,))


def two_inputs():
    return Graph(s=Node(Sum(), "a", "b")).on(a=(3,), b=(3,))


def two_outputs():
    return Graph(a=Node(Tanh(), "x"), b=Node(ReLU(), "x")).on((3,))


# Shapes


@pytest.mark.parametrize("shape", [(0, 1), (-1, 1), (2.0, 1), (True, 1), ("a",), 3, np.int64(3), (np.int64(3),)])
def test_a_shape_is_a_tuple_of_sizes(shape):
    with pytest.raises(
        ShapeError, match=r"got the shape .* for input 'x', expected a tuple of sizes .*; give \(\*axes"
    ):
        Chain(ReLU()).on(shape)


@pytest.mark.parametrize("shapes", [{}, {"x": (3,), "y": (3,)}, {"y": (3,)}])
def test_each_input_has_a_shape(shapes):
    with pytest.raises(NetworkError, match=r"got shapes for \[.*\], expected one for each of the inputs \['x'\]; give"):
        Chain(ReLU()).on(**shapes)


# Parameters


def test_missing_parameters_are_refused():
    params = affine().initial()
    del params["dense.b"]
    with pytest.raises(NetworkError, match=r"got parameters without dense.b, expected all of dense.w, dense.b; make"):
        affine().predict(params, X)


def test_missing_states_are_refused():
    net = Chain(norm=BatchNorm()).on((3,))
    params = {name: w for name, w in net.initial().items() if name in net.parameters}
    with pytest.raises(NetworkError, match=r"got parameters without norm.mean, norm.variance, expected all"):
        net.predict(params, X)


def test_parameters_of_different_dtypes_are_refused():
    params = affine().initial()
    params["dense.b"] = params["dense.b"].astype(np.float64)
    expected = (
        "got dense.b of float64 among parameters of float32, float64, expected one floating dtype for all; "
        r"convert them with w.astype\(np.float32\)"
    )
    with pytest.raises(SettingError, match=expected):
        affine().predict(params, X)


def test_parameters_that_are_no_floats_are_refused():
    params = affine().initial(dtype=np.int64)
    with pytest.raises(SettingError, match=r"got dense.w of int64 among parameters of int64"):
        affine().predict(params, X)


def test_parameters_that_are_no_arrays_are_refused():
    params = dict(affine().initial()) | {"dense.b": [0.0, 0.0]}
    with pytest.raises(
        SettingError, match=r"got dense.b of type list, expected a NumPy array; convert it by np.asarray"
    ):
        affine().predict(params, X)  # pyright: ignore[reportArgumentType] -- that is the point


def test_parameters_of_another_size_are_refused_by_their_element():
    params = Chain(dense=Affine(2)).on((4,)).initial()
    with pytest.raises(ShapeError, match=r"^Affine\(2\) 'dense': got w of shape \(4, 2\), expected \(3, 2\) for an"):
        affine().predict(params, X)


def test_parameters_of_other_networks_do_no_harm():
    net = affine()
    params = net.initial() | {"other.w": np.ones(3)}
    assert net.predict(params, X).dtype == np.float32


# Inputs


def test_one_array_for_several_inputs_is_refused():
    with pytest.raises(NetworkError, match="got one input, expected a dictionary of a, b; give one array an input by"):
        two_inputs().predict({}, X)


@pytest.mark.parametrize("given", [{"a": X}, {"a": X, "b": X, "c": X}, {}])
def test_inputs_have_their_names(given):
    with pytest.raises(NetworkError, match=r"got the inputs .*, expected a, b; give one array an input by its name"):
        two_inputs().predict({}, given)


def test_an_only_input_may_be_named():
    assert np.array_equal(Chain(ReLU()).on((3,)).predict({}, {"x": X}), X)


@pytest.mark.parametrize("x", [np.ones(3), np.ones((2, 4)), np.ones((2, 3, 1)), 1.0, []])
def test_an_input_has_its_shape_behind_the_batch(x):
    with pytest.raises(ShapeError, match=r"got input 'x' of shape \(.*\), expected \(batch, 3\); give the batch first"):
        affine().predict(affine().initial(), x)


def test_open_axes_are_called_any():
    net = Chain(GlobalPool("mean")).on((None, None, 1))
    with pytest.raises(
        ShapeError, match=r"of shape \(28, 28\), expected \(batch, any, any, 1\); .*x\[None, ..., None\]"
    ):
        net.predict({}, np.ones((28, 28)))


def test_batches_of_different_size_are_refused():
    with pytest.raises(ShapeError, match=r"got batches of 2 \(a\), 1 \(b\), expected one size; give every input the"):
        two_inputs().predict({}, {"a": X, "b": X[:1]})


@pytest.mark.parametrize("x", [[["a", "b", "c"]], np.ones((1, 3), complex), [[None, 1, 2]], np.zeros((1, 3), "M8[s]")])
def test_what_is_no_number_is_refused(x):
    with pytest.raises(SettingError, match=r"got input 'x' of .*, expected numbers; convert it with x.astype\(...\)"):
        affine().predict(affine().initial(), x)


def test_examples_of_different_shape_are_refused():
    net = Chain(GlobalPool("mean")).on((None, 1))
    with pytest.raises(
        ShapeError, match=r"got input 'x' that is no array \(.*\), expected examples of one shape; pass"
    ):
        net.predict({}, [np.ones((3, 1)), np.ones((4, 1))])


@pytest.mark.parametrize("x", [np.ones((2, 3)), np.ones((2, 3), bool)])
def test_indices_are_whole_numbers(x):
    net = Chain(Embedding(4, 2)).on((3,))
    with pytest.raises(SettingError, match=r"got input 'x' of (float64|bool), expected whole numbers"):
        net.predict(net.initial(), x)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_indices_stay_integers_of_their_kind(kind):
    net = Chain(Embedding(4, 2)).on((None,))
    params = net.initial()
    x = np.array([[3, 0, 3]], kind)
    forward = net.forward(params, x)
    assert forward.values["x"].dtype == kind
    assert np.array_equal(forward.values["embedding1"], params["embedding1.w"][[[3, 0, 3]]])
    with pytest.raises(DataError, match=r"^Embedding\(4, 2\) 'embedding1': got index 4 at \(0, 1\), expected 0 to 3"):
        net.predict(params, x + np.array([0, 4, 0], kind))


# Conversion


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, np.uint8, np.int64, bool])
def test_inputs_are_converted_to_the_parameters_dtype(dtype, given):
    net = affine()
    params = net.initial(dtype=dtype)
    values = net.forward(params, np.array([[0, 1, 1]], given)).values
    assert values["x"].dtype == values["dense"].dtype == dtype
    assert np.array_equal(values["x"], [[0, 1, 1]])


def test_lists_are_inputs_and_targets_too():
    net = affine()
    params = net.initial(dtype=np.float64)
    back = net.backpropagate(params, [[1, 2, 3]], [[1.0, 2.0]], cost=SquaredError())
    same = net.backpropagate(params, np.array([[1.0, 2, 3]]), np.array([[1.0, 2.0]]), cost=SquaredError())
    assert back.cost == same.cost
    assert net.backpropagate(params, [[1, 2, 3]], [1], cost=CrossEntropy()).cost > 0


def test_an_input_of_the_right_dtype_is_not_copied():
    assert affine().forward(affine().initial(), X).values["x"] is X


@pytest.mark.parametrize(("given", "expected"), [(np.float64, np.float64), (np.uint8, np.float32), (bool, np.float32)])
def test_without_parameters_floats_stay_and_integers_become_float32(given, expected):
    assert Chain(Tanh()).on((3,)).predict({}, np.ones((1, 3), given)).dtype == expected


# Costs


def test_costs_by_output_want_targets_and_weights_by_output():
    cost = {"a": SquaredError()}
    with pytest.raises(NetworkError, match=r"got one target for costs by output, expected .*; write target={'name"):
        two_outputs().backpropagate({}, X, X, cost=cost)
    with pytest.raises(NetworkError, match=r"got one weight for costs by output, expected .*; write weight={'name"):
        two_outputs().backpropagate({}, X, {"a": X}, cost=cost, weight=np.ones(2))


def test_every_cost_has_a_target():
    cost = {"a": SquaredError(), "b": SquaredError()}
    with pytest.raises(NetworkError, match="got no target for b, expected one for each cost; add it"):
        two_outputs().backpropagate({}, X, {"a": X}, cost=cost)


def test_every_weight_has_a_cost():
    weight = {"a": np.ones(2), "c": np.ones(2)}
    with pytest.raises(NetworkError, match="got a weight for c, expected outputs that have a cost; leave it out"):
        two_outputs().backpropagate({}, X, {"a": X}, cost={"a": SquaredError()}, weight=weight)


@pytest.mark.parametrize("cost", [SquaredError, "squared", None])
def test_a_cost_is_one_of_ours(cost):
    with pytest.raises(
        SettingError, match=r"got cost=.* for 'dense', expected one of faltung's costs; write cost=Cross"
    ):
        affine().backpropagate(affine().initial(), X, X, cost=cost)
