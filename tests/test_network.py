"""A network binds a composite to sizes: what it infers, what it refuses, and with what parameters it begins."""

import pickle

import numpy as np
import pytest

from faltung.elements import (
    Affine,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    CrossEntropy,
    Embedding,
    Flatten,
    GlobalPool,
    MaxPool,
    MeanPool,
    Parameter,
    Product,
    ReLU,
    Reshape,
    Run,
    Sigmoid,
    SquaredError,
    Sum,
    Tanh,
)
from faltung.errors import NetworkError, SettingError, ShapeError
from faltung.network import Chain, Graph, Node


def ufldl():
    return Chain(conv1=Conv(20, kernel=9), sigm=Sigmoid(), pool=MeanPool(2), flat=Flatten(), dense=Affine(10))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Shapes


def test_the_shape_of_every_value_is_inferred():
    assert ufldl().on((28, 28, 1)).shapes == {
        "x": (28, 28, 1),
        "conv1": (20, 20, 20),
        "sigm": (20, 20, 20),
        "pool": (10, 10, 20),
        "flat": (2000,),
        "dense": (10,),
    }


def test_a_shape_may_be_a_list():
    assert Chain(ReLU()).on([3, None, 2]).inputs == {"x": (3, None, 2)}


def test_an_open_axis_takes_any_size_with_the_same_parameters():
    net = Chain(conv=Conv(3, kernel=3), relu=ReLU(), pool=GlobalPool("mean"), out=Affine(2)).on((None, None, 1))
    assert net.shapes == {
        "x": (None, None, 1), "conv": (None, None, 3), "relu": (None, None, 3), "pool": (3,), "out": (2,)
    }  # fmt: skip
    params = net.initial(seed=0)
    for size in ((3, 3), (4, 9), (17, 5)):
        fixed = net.composite.on((*size, 1))
        x = random(2, *size, 1)
        assert np.array_equal(net.predict(params, x), fixed.predict(params, x))


def test_an_open_axis_of_one_branch_may_be_known_from_another():
    net = Graph(s=Node(Sum(), "a", "b")).on(a=(None, 2), b=(5, 2))
    assert net.shapes["s"] == (5, 2)
    with pytest.raises(ShapeError, match=r"^Sum\(\) 's': got inputs of \(4, 2\), \(5, 2\)"):
        net.predict({}, {"a": random(1, 4, 2), "b": random(1, 5, 2)})


def test_what_only_the_size_at_run_time_shows_names_the_node_then():
    net = Chain(Conv(2, kernel=3), Conv(2, kernel=3), MaxPool(2)).on((None, 1))
    params = net.initial(seed=0)
    assert net.predict(params, random(1, 6, 1)).shape == (1, 1, 2)
    with pytest.raises(ShapeError, match=r"^Conv\(2, kernel=3\) 'conv2': the kernel spans 3, the padded input only 2"):
        net.predict(params, random(1, 4, 1))


def test_several_inputs_have_shapes_by_name_in_any_order():
    graph = Graph(both=Node(Concat(), "image", "depth"), conv=Node(Conv(4, kernel=3), "both"))
    net = graph.on(depth=(8, 8, 1), image=(8, 8, 3))
    assert list(net.inputs) == ["image", "depth"]
    assert net.shapes["both"] == (8, 8, 4)
    params = net.initial(seed=0)
    image, depth = random(2, 8, 8, 3), random(2, 8, 8, 1, seed=1)
    y = net.predict(params, {"depth": depth, "image": image})
    alone = Chain(conv=Conv(4, kernel=3)).on((8, 8, 4))
    assert np.array_equal(y, alone.predict(params, np.concatenate((image, depth), -1)))


def test_one_input_may_be_named_too():
    assert Chain(ReLU()).on(x=(3,)).inputs == {"x": (3,)}
    assert Graph(a=Node(ReLU(), "self"), b=Node(ReLU(), "shape"), s=Node(Sum(), "a", "b")).on(self=(3,), shape=(3,))


def test_several_outputs_come_by_name():
    net = Graph(a=Node(ReLU(), "x"), b=Node(Tanh(), "x"), c=Node(Tanh(), "a")).on((2,))
    x = random(3, 2)
    y = net.predict({}, x)
    assert list(y) == ["b", "c"]
    assert np.allclose(y["c"], np.tanh(np.maximum(x, 0)), rtol=1e-14)


# What is refused


@pytest.mark.parametrize(
    ("elements", "shape", "message"),
    [
        (
            {"conv1": Conv(20, kernel=9)},
            (5, 5, 1),
            r"^Conv\(20, kernel=9\) 'conv1': the kernel spans 9, the padded input only 5 \(5 \+ 0 \+ 0\) on axis 0; "
            r"use padding >= 2 or a smaller kernel$",
        ),
        ({"a": ReLU(), "b": Conv(2, kernel=1)}, (5, None), r"^Conv\(2, kernel=1\) 'b': got an input of \(5, None\)"),
        ({"a": ReLU(), "flat": Flatten()}, (None, 1), r"^Flatten\(\) 'flat': got an input of \(None, 1\)"),
        (
            {"pool": GlobalPool("mean"), "conv": Conv(2, kernel=1)},
            (5, 1),
            r"^Conv\(.*\) 'conv': got an input of \(1,\)",
        ),
        ({"dense": Affine(2)}, (), r"^Affine\(2\) 'dense': got an input of \(\)"),
        ({"block": Chain(one=ReLU(), two=Conv(2, kernel=6))}, (5, 1), r"^Conv\(.*\) 'block.two': the kernel spans 6"),
    ],
)
def test_elements_that_do_not_compose_are_refused_by_the_name_of_their_node(elements, shape, message):
    with pytest.raises(ShapeError, match=message):
        Chain(**elements).on(shape)


def test_branches_of_different_shape_are_refused_where_they_meet():
    graph = Graph(a=Node(Conv(2, kernel=3), "x"), s=Node(Sum(), "x", "a"))
    with pytest.raises(
        ShapeError, match=r"^Sum\(\) 's': got inputs of \(7, 2\), \(5, 2\), expected two or more of one"
    ):
        graph.on((7, 2))


def test_one_shape_for_several_inputs_is_refused():
    graph = Graph(s=Node(Sum(), "a", "b"))
    with pytest.raises(NetworkError, match=r"inputs a, b; name them: .on\(a=\(...\), b=\(...\)\)"):
        graph.on((3,))
    with pytest.raises(NetworkError, match="got one shape, expected shapes by name for the inputs x"):
        Chain(ReLU()).on((3,), x=(3,))


def test_indices_come_from_an_input_alone():
    with pytest.raises(
        NetworkError, match=r"^Embedding\(5, 2\) 'letters': got 'flat' to read, expected indices, which"
    ):
        Chain(flat=Flatten(), letters=Embedding(5, 2)).on((3, 1))
    both = Graph(letters=Node(Embedding(5, 2), "x"), tanh=Node(Tanh(), "x"))
    with pytest.raises(
        NetworkError, match=r"^Tanh\(\) 'tanh': got 'x' to read, expected numbers, not indices; give it"
    ):
        both.on((3,))


def test_an_unknown_executor_is_refused():
    with pytest.raises(SettingError, match="got executor='abacus', expected one of reference"):
        ufldl().on((28, 28, 1)).on_executor("abacus")


def test_the_same_network_may_be_put_on_an_executor():
    net = ufldl().on((28, 28, 1))
    assert repr(net.on_executor("reference")) == repr(net)


# Parameters and states


def test_parameters_are_asked_for_by_node_and_name():
    net = Chain(conv=Conv(4, kernel=(3, 1), bias=False), norm=BatchNorm(), flat=Flatten(), out=Affine(3)).on((4, 4, 2))
    assert {name: parameter.shape for name, parameter in net.parameters.items()} == {
        "conv.w": (3, 1, 2, 4),
        "norm.scale": (4,),
        "norm.shift": (4,),
        "out.w": (32, 3),
        "out.b": (3,),
    }
    assert net.states == {"norm.mean": Parameter((4,)), "norm.variance": Parameter((4,), "ones")}


def test_initial_gives_parameters_and_states_by_each_elements_rule():
    net = Chain(Conv(4, kernel=3, initial="he"), BatchNorm()).on((8, 2))
    params = net.initial(seed=0)
    assert list(params) == [*net.parameters, *net.states]
    for name, parameter in (net.parameters | net.states).items():
        assert params[name].shape == parameter.shape
        assert params[name].dtype == np.float32
    assert params["conv1.w"].std() > 0.3
    assert not params["conv1.b"].any()
    assert (params["batchnorm1.scale"] == 1).all()
    assert (params["batchnorm1.variance"] == 1).all()


def test_initial_depends_on_the_seed_alone():
    net = ufldl().on((28, 28, 1))
    one, again, other = net.initial(seed=7), net.initial(seed=7), net.initial(seed=8)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["conv1.w"], other["conv1.w"])
    assert not np.shares_memory(one["conv1.w"], again["conv1.w"])


def test_nodes_alike_begin_with_different_parameters():
    params = Chain(a=Affine(4), b=Affine(4)).on((4,)).initial(seed=0)
    assert not np.array_equal(params["a.w"], params["b.w"])


def test_weights_may_be_tied_between_a_convolution_and_its_transpose():
    net = Graph(
        down=Node(Conv(8, kernel=3, stride=2, bias=False), "x"),
        up=Node(ConvTranspose(1, kernel=3, stride=2, bias=False, size="like"), "down", "x", weights="down"),
    ).on((None, None, 1))
    assert list(net.parameters) == ["down.w"]
    params = net.initial(seed=0, dtype=np.float64)
    x = random(2, 6, 7, 1)
    forward = net.forward(params, x)
    dx = net.backward(params, forward, {"down": forward.values["down"]}, keep="x").errors["x"]
    assert np.allclose(forward.values["up"], dx, rtol=1e-12)


# How many and which values


@pytest.mark.parametrize("keep", ["zzz", ["x", "zzz"]])
def test_keeping_what_is_no_value_is_refused(keep):
    net = ufldl().on((12, 12, 1))
    x, labels = np.zeros((1, 12, 12, 1)), np.zeros(1, int)
    expected = r"got the names \['zzz'\], expected some of \['x', 'conv1', 'sigm', 'pool', 'flat', 'dense'\]; see print"
    with pytest.raises(NetworkError, match=expected):
        net.backpropagate(net.initial(), x, labels, cost=CrossEntropy(), keep=keep)


def test_an_error_signal_of_another_shape_is_refused():
    net = Chain(a=Affine(2), b=Tanh()).on((3,))
    params = net.initial()
    forward = net.forward(params, np.ones((4, 3)))
    for dy, name in ((np.ones((4, 3)), "b"), ({"a": np.ones(2)}, "a")):
        expected = rf"^error signal '{name}': got an error signal of shape .*, expected \(4, 2\); give it the shape"
        with pytest.raises(ShapeError, match=expected):
            net.backward(params, forward, dy)
    with pytest.raises(NetworkError, match=r"got the names \['c'\]"):
        net.backward(params, forward, {"c": np.ones((4, 2))})
    with pytest.raises(NetworkError, match=r"got parameters without a.w, a.b"):
        net.backward({}, forward, np.ones((4, 2)))


def test_one_cost_or_error_signal_for_several_outputs_is_refused():
    net = Graph(a=Node(ReLU(), "x"), b=Node(Tanh(), "x")).on((3,))
    x = np.ones((1, 3))
    expected = r"got one {}, expected a dictionary for some of the outputs a, b; write {}={{'a': ...}}"
    with pytest.raises(NetworkError, match=expected.format("cost", "cost")):
        net.backpropagate({}, x, x, cost=SquaredError())
    with pytest.raises(NetworkError, match=expected.format("dy", "dy")):
        net.backward({}, net.forward({}, x), x)


def test_a_cost_of_what_is_no_value_is_refused():
    net = Chain(a=ReLU()).on((3,))
    with pytest.raises(NetworkError, match=r"got the names \['b'\], expected some of \['x', 'a'\]"):
        net.backpropagate({}, np.ones((1, 3)), {"b": 1}, cost={"b": SquaredError()})


def test_what_the_cost_refuses_names_the_output():
    net = Chain(Affine(3), out=Affine(2)).on((3,))
    with pytest.raises(ShapeError, match=r"^SquaredError\(\) 'out': got a target of shape \(4, 3\), expected \(4, 2\)"):
        net.backpropagate(net.initial(), np.ones((4, 3)), np.ones((4, 3)), cost=SquaredError())


# Edges


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("per_example", [False, True])
def test_any_number_of_examples(dtype, batch, per_example):
    net = Chain(Conv(2, kernel=3), ReLU(), MeanPool(2), Flatten(), Affine(3)).on((6, 6, 1))
    params = net.initial(dtype=dtype)
    x, labels = random(batch, 6, 6, 1), np.arange(batch) % 3
    back = net.backpropagate(params, x, labels, cost=CrossEntropy(), per_example=per_example)
    assert np.isfinite(back.cost)
    assert {array.dtype for part in (back.values, back.errors, back.gradients) for array in part.values()} == {
        np.dtype(dtype)
    }
    examples = (batch,) if per_example else ()
    for name, parameter in net.parameters.items():
        assert back.gradients[name].shape == (*examples, *parameter.shape)


def test_an_index_for_each_example_alone():
    net = Chain(Embedding(4, 3), Affine(2)).on(())
    params = net.initial(seed=0, dtype=np.float64)
    labels = np.array([3, 0, 3])
    back = net.backpropagate(params, labels, random(3, 2), cost=SquaredError())
    assert net.predict(params, labels).shape == (3, 2)
    assert "x" not in back.errors
    assert not back.gradients["embedding1.w"][[1, 2]].any()
    assert back.gradients["embedding1.w"][[0, 3]].all()


def test_a_like_input_has_no_error_signal():
    net = Graph(crop=Node(Crop(size="like"), "x", "like")).on(x=(None, 1), like=(None, 1))
    x = {"x": random(2, 5, 1), "like": random(2, 3, 1)}
    back = net.backpropagate({}, x, np.zeros((2, 3, 1)), cost=SquaredError())
    assert set(back.errors) == {"x", "crop"}


def test_reshaped_noise_makes_an_image():
    net = Chain(Affine(32), Reshape((4, 4, 2)), ConvTranspose(1, kernel=4, stride=2, padding=1)).on((5,))
    assert net.predict(net.initial(), random(2, 5)).shape == (2, 8, 8, 1)


# The call that makes it


@pytest.mark.parametrize(
    "net",
    [
        ufldl().on((28, 28, 1)),
        Chain(conv=Conv(2, kernel=3), pool=GlobalPool("max")).on((None, None, 3)),
        Graph(g=Node(Product(), "a", "b")).on(b=(None, 2), a=(5, 2)),
        Graph(block=Node(Chain(ReLU()), "x"), s=Node(Sum(), "x", "block"), outputs=["block"]).on((1,)),
        Chain(Embedding(4, 3)).on(()),
    ],
    ids=["ufldl", "open", "inputs", "outputs", "indices"],
)
def test_repr_gives_back_the_call(net):
    again = eval(repr(net))
    assert repr(again) == repr(net)
    assert again.composite == net.composite
    assert again.inputs == net.inputs
    assert repr(pickle.loads(pickle.dumps(net))) == repr(net)


def test_a_bound_network_reads_well():
    assert repr(Chain(a=ReLU()).on((3, None))) == "Chain(a=ReLU()).on((3, None))"
    assert (
        repr(Graph(a=Node(Sum(), "p", "q")).on(p=(3,), q=(3,))) == "Graph(a=Node(Sum(), 'p', 'q')).on(p=(3,), q=(3,))"
    )


def test_training_is_said_by_the_run():
    net = Chain(BatchNorm()).on((2,))
    params = net.initial()
    x = random(5, 2).astype(np.float32)
    assert not net.forward(params, x).state
    assert set(net.forward(params, x, Run(training=True)).state) == {"batchnorm1.mean", "batchnorm1.variance"}
