"""Chains and graphs say what is connected with what, and refuse what cannot be."""

import copy
import itertools
import pickle
import re

import numpy as np
import pytest

from faltung.elements import Affine, Concat, Conv, Flatten, Product, ReLU, Sigmoid, Sum, Tanh
from faltung.errors import NetworkError, ShapeError
from faltung.network import Chain, Graph, Node


def same(filters=2, kernel=3):
    return Conv(filters, kernel=kernel, padding="same")


def residual():
    return Graph(conv=Node(same(), "x"), relu=Node(ReLU(), "conv"), sum=Node(Sum(), "x", "relu"))


def gate():
    """Two inputs, whose names are not x."""
    return Graph(sigm=Node(Sigmoid(), "door"), product=Node(Product(), "value", "sigm"))


def names(composite):
    return [name for name, _ in composite.flat()[0]]


COMPOSITES = [
    Chain(Tanh()),
    Chain(Conv(20, kernel=9, initial="ufldl"), Sigmoid(), dense=Affine(10, bias=False)),
    residual(),
    gate(),
    Graph(b=Node(Tanh(), "a"), a=Node(ReLU(), "x")),
    Graph(a=Node(Affine(3), "x"), b=Node(Affine(3), "a", weights="a"), outputs=("b", "a")),
    Chain(one=residual(), two=Chain(residual(), Tanh()), flat=Flatten()),
    Graph(one=Node(residual(), "x"), two=Node(residual(), "one", weights="one")),
    Chain(**{"self": Tanh(), "größe": Tanh()}),
]


# Names


def test_a_chain_names_its_elements_by_class_and_a_running_number():
    chain = Chain(Conv(4, kernel=3), ReLU(), Conv(8, kernel=3), Flatten(), Affine(10))
    assert list(chain.nodes) == ["conv1", "relu1", "conv2", "flatten1", "affine1"]
    assert (chain.inputs, chain.outputs) == (("x",), ("affine1",))


def test_a_chain_keeps_given_names_and_begins_with_elements_that_have_none():
    assert list(Chain(ReLU(), Tanh(), out=Affine(2)).nodes) == ["relu1", "tanh1", "out"]


def test_each_element_of_a_chain_reads_the_one_before():
    chain = Chain(a=ReLU(), b=Tanh(), c=ReLU())
    assert [node.sources for node in chain.nodes.values()] == [("x",), ("a",), ("b",)]


def test_automatic_names_count_composites_too():
    assert list(Chain(Chain(ReLU()), residual(), Chain(Tanh())).nodes) == ["chain1", "graph1", "chain2"]


def test_a_given_name_does_not_displace_an_automatic_one():
    with pytest.raises(NetworkError, match=r"got the name 'relu1' twice.*; name all elements, or none"):
        Chain(ReLU(), relu1=Tanh())


# Inputs and outputs


def test_the_inputs_of_a_graph_are_what_is_read_but_no_node_in_the_order_of_first_use():
    graph = Graph(p=Node(Product(), "b", "a"), s=Node(Sum(), "p", "c", "a"))
    assert graph.inputs == ("b", "a", "c")


def test_the_outputs_of_a_graph_are_the_nodes_that_nobody_reads():
    assert residual().outputs == ("sum",)
    assert Graph(a=Node(ReLU(), "x"), b=Node(Tanh(), "x")).outputs == ("a", "b")


def test_listed_outputs_may_be_read_by_other_nodes_and_leave_unread_ones_out():
    nodes = {"a": Node(ReLU(), "x"), "b": Node(Tanh(), "a"), "c": Node(Tanh(), "a")}
    assert Graph(**nodes, outputs=["c", "a"]).outputs == ("c", "a")


@pytest.mark.parametrize("outputs", [["x"], ["zzz"], [], "ab", ["a", "a"], Node(ReLU(), "x"), [1]])
def test_outputs_that_are_no_different_nodes_are_refused(outputs):
    expected = r"got outputs=.*, expected one or more different names among a, ab; write outputs=\['a'\]"
    with pytest.raises(NetworkError, match=expected):
        Graph(a=Node(ReLU(), "x"), ab=Node(ReLU(), "a"), outputs=outputs)


# Order


def test_nodes_may_be_written_before_what_they_read():
    graph = Graph(c=Node(Sum(), "a", "b"), b=Node(Tanh(), "a"), a=Node(ReLU(), "x"))
    assert names(graph) == ["a", "b", "c"]


def test_nodes_in_a_right_order_stay_in_it():
    graph = Graph(a=Node(ReLU(), "x"), z=Node(ReLU(), "a"), b=Node(ReLU(), "x"), s=Node(Sum(), "b", "z"))
    assert names(graph) == ["a", "z", "b", "s"]


def test_a_cycle_is_refused_and_shown_along_the_values_way():
    with pytest.raises(NetworkError, match=r"got the cycle .*, expected an acyclic graph; cut one of its edges") as got:
        Graph(a=Node(Sum(), "x", "c"), b=Node(ReLU(), "a"), c=Node(ReLU(), "b"))
    cycle = re.search("cycle (.*), expected", str(got.value))
    assert cycle
    path = cycle[1].split(" -> ")
    assert path[0] == path[-1]
    assert set(itertools.pairwise(path)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_node_that_reads_itself_is_a_cycle():
    with pytest.raises(NetworkError, match="got the cycle a -> a"):
        Graph(a=Node(ReLU(), "a"))


# Composites inside composites


def test_nodes_of_a_nested_composite_carry_its_name_before_theirs():
    chain = Chain(first=Tanh(), block=Chain(one=residual(), two=Tanh()))
    assert names(chain) == ["first", "block.one.conv", "block.one.relu", "block.one.sum", "block.two"]
    nodes = dict(chain.flat()[0])
    assert nodes["block.one.conv"].sources == ("first",)
    assert nodes["block.one.sum"].sources == ("first", "block.one.relu")
    assert nodes["block.two"].sources == ("block.one.sum",)
    assert chain.flat()[1] == ("block.two",)


def test_inputs_of_a_nested_composite_are_given_in_the_order_of_its_inputs():
    assert gate().inputs == ("door", "value")
    outer = Graph(g=Node(gate(), "p", "q"))
    nodes = dict(outer.flat()[0])
    assert nodes["g.sigm"].sources == ("p",)
    assert nodes["g.product"].sources == ("q", "g.sigm")


def test_one_composite_may_stand_at_several_nodes():
    block = residual()
    net = Chain(a=block, b=block).on((5, 2))
    assert set(net.parameters) == {"a.conv.w", "a.conv.b", "b.conv.w", "b.conv.b"}


def test_a_nested_composite_computes_as_its_nodes_do():
    nested = Chain(block=residual(), tanh=Tanh()).on((5, 2))
    plain = Graph(
        conv=Node(same(), "x"), relu=Node(ReLU(), "conv"), sum=Node(Sum(), "x", "relu"), tanh=Node(Tanh(), "sum")
    ).on((5, 2))
    params = plain.initial(seed=3)
    x = np.random.default_rng(0).normal(size=(2, 5, 2))
    inner = {f"block.{name}": value for name, value in params.items()}
    assert np.array_equal(nested.predict(inner, x), plain.predict(params, x))


def test_a_nested_composite_has_one_output():
    two = Graph(a=Node(ReLU(), "x"), b=Node(Tanh(), "x"))
    with pytest.raises(NetworkError, match=r"outputs \('a', 'b'\) as node 'two'.*; choose it with outputs="):
        Chain(two=two)


# Shared weights


def test_shared_weights_are_asked_for_once():
    net = Graph(a=Node(same(), "x"), b=Node(same(), "a", weights="a"), c=Node(same(), "b")).on((5, 2))
    assert list(net.parameters) == ["a.w", "a.b", "c.w", "c.b"]


def test_shared_weights_are_the_same_numbers():
    net = Graph(a=Node(same(), "x"), b=Node(same(), "a", weights="a")).on((6, 2))
    own = Chain(a=same(), b=same()).on((6, 2))
    params = net.initial(seed=0)
    x = np.random.default_rng(1).normal(size=(2, 6, 2))
    repeated = params | {f"b.{short}": params[f"a.{short}"] for short in "wb"}
    assert np.array_equal(net.predict(params, x), own.predict(repeated, x))


def test_weights_may_be_shared_with_a_later_node_and_over_a_chain_of_names():
    net = Graph(a=Node(same(), "x", weights="b"), b=Node(same(), "a", weights="c"), c=Node(same(), "b")).on((5, 2))
    assert list(net.parameters) == ["c.w", "c.b"]
    assert [step.parameters["w"] for step in net.steps] == ["c.w"] * 3


def test_a_whole_composite_may_share_the_weights_of_another():
    deep = Chain(block=residual(), last=same())
    net = Graph(one=Node(deep, "x"), two=Node(deep, "one", weights="one"), three=Node(deep, "two", weights="two")).on(
        (5, 2)
    )
    assert list(net.parameters) == ["one.block.conv.w", "one.block.conv.b", "one.last.w", "one.last.b"]
    owners = {step.name: step.parameters.get("w") for step in net.steps if step.parameters}
    assert owners["three.block.conv"] == owners["one.block.conv"] == "one.block.conv.w"
    assert owners["three.last"] == "one.last.w"


def test_sharing_inside_a_composite_holds_where_it_is_nested_and_where_it_is_shared():
    twice = Graph(a=Node(same(), "x"), b=Node(same(), "a", weights="a"))
    net = Graph(one=Node(twice, "x"), two=Node(twice, "one", weights="one")).on((5, 2))
    assert list(net.parameters) == ["one.a.w", "one.a.b"]
    assert [step.parameters["w"] for step in net.steps] == ["one.a.w"] * 4


def test_weights_may_be_those_of_a_node_inside_a_composite():
    net = Graph(block=Node(residual(), "x"), c=Node(same(), "block", weights="block.conv")).on((5, 2))
    assert list(net.parameters) == ["block.conv.w", "block.conv.b"]


@pytest.mark.parametrize("weights", ["zzz", "b", "block", "x"])
def test_weights_that_no_node_owns_are_refused(weights):
    graph = Graph(block=Node(residual(), "x"), b=Node(same(), "block", weights=weights))
    expected = f"^Conv\\(2.*\\) 'b': got weights='{weights}', expected the name of a node with weights of its own"
    with pytest.raises(NetworkError, match=expected):
        graph.on((5, 2))


def test_weights_that_are_shared_in_a_circle_are_refused():
    graph = Graph(a=Node(same(), "x", weights="b"), b=Node(same(), "a", weights="a"))
    with pytest.raises(NetworkError, match="expected the name of a node with weights of its own; name the node"):
        graph.on((5, 2))


def test_composites_that_share_weights_have_the_same_nodes():
    graph = Graph(one=Node(Chain(a=same()), "x"), two=Node(Chain(b=same()), "one", weights="one"))
    with pytest.raises(NetworkError, match=r"'two.b': got weights='one.b', expected the name of a node"):
        graph.on((5, 2))


def test_shared_weights_of_another_shape_are_refused():
    graph = Graph(a=Node(same(2), "x"), b=Node(same(4), "a", weights="a"))
    expected = r"^Conv\(4.* 'b': got shared weights 'a.w' of shape \(3, 2, 2\), expected w of shape \(3, 2, 4\); share"
    with pytest.raises(ShapeError, match=expected):
        graph.on((5, 2))


def test_shared_weights_that_the_owner_does_not_have_are_refused():
    graph = Graph(a=Node(Affine(2, bias=False), "x"), b=Node(Affine(2), "a", weights="a"))
    with pytest.raises(ShapeError, match=r"^Affine\(2\) 'b': got shared weights 'a.b' that do not exist, expected b"):
        graph.on((2,))


# What is refused


def test_empty_composites_are_refused():
    with pytest.raises(NetworkError, match=r"chain of no elements, expected at least one; use Chain\(Identity\(\)\)"):
        Chain()
    with pytest.raises(NetworkError, match="graph of no nodes, expected at least one; add name=Node"):
        Graph()


@pytest.mark.parametrize("thing", [3, "conv", ReLU, None, Node(ReLU(), "x")])
def test_what_is_no_element_is_refused(thing):
    expected = re.escape(f"got a node of {thing!r}, expected an element or a composite; make it as Node(Conv(")
    with pytest.raises(NetworkError, match=expected):
        Chain(a=thing)
    with pytest.raises(NetworkError, match=expected):
        Node(thing, "x")


def test_an_element_in_place_of_a_node_is_refused():
    with pytest.raises(NetworkError, match=r"got a=ReLU\(\), expected a Node; write a=Node\(element, 'x'\)"):
        Graph(a=ReLU())  # pyright: ignore[reportArgumentType] -- that is the point


@pytest.mark.parametrize("arguments", [((["a", "b"],), {}), ((0,), {}), (("a",), {"weights": 1})])
def test_names_that_are_no_text_are_refused(arguments):
    sources, weights = arguments
    with pytest.raises(NetworkError, match=r"^Sum\(\): got .*, expected names of values.*; write Node\(element, 'a'"):
        Node(Sum(), *sources, **weights)


@pytest.mark.parametrize(
    ("element", "sources", "message"),
    [
        (Sum(), ("x",), r"^Sum\(\) 'n': got 1 inputs \(x\), expected two or more; name the values"),
        (Concat(), (), r"^Concat\(\) 'n': got 0 inputs \(\), expected two or more"),
        (ReLU(), ("x", "z"), r"^ReLU\(\) 'n': got 2 inputs \(x, z\), expected 1"),
        (ReLU(), (), r"^ReLU\(\) 'n': got 0 inputs \(\), expected 1"),
        (gate(), ("x",), r"^Graph\(.*\) 'n': got 1 inputs \(x\), expected 2"),
        (Chain(ReLU()), ("x", "x"), r"^Chain\(.*\) 'n': got 2 inputs \(x, x\), expected 1"),
    ],
)
def test_a_wrong_number_of_inputs_is_refused(element, sources, message):
    with pytest.raises(NetworkError, match=message):
        Graph(n=Node(element, *sources))


@pytest.mark.parametrize("name", ["a.b", "a b", "", "1a", "class"])
def test_names_that_cannot_be_written_as_keywords_are_refused(name):
    expected = re.escape(f"got the name {name!r}, expected letters, digits and underscores, and no keyword")
    with pytest.raises(NetworkError, match=expected):
        Chain(**{name: ReLU()})
    with pytest.raises(NetworkError, match=expected):
        Graph(a=Node(ReLU(), name))


def test_a_node_of_a_chain_cannot_have_the_name_of_its_input():
    with pytest.raises(NetworkError, match="got 'x' both as node and as input; rename the node"):
        Chain(a=ReLU(), x=Tanh())


# Equality and the call that makes it


@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda composite: repr(composite)[:40])
def test_repr_gives_back_the_call(composite):
    again = eval(repr(composite))
    assert again == composite
    assert hash(again) == hash(composite)
    assert repr(again) == repr(composite)
    assert again.inputs == composite.inputs
    assert again.outputs == composite.outputs


@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda composite: repr(composite)[:40])
def test_copies_are_equal(composite):
    assert copy.deepcopy(composite) == composite
    assert pickle.loads(pickle.dumps(composite)) == composite


def test_composites_differ_in_kind_names_elements_sources_weights_and_outputs():
    a, b = Node(Affine(2), "x"), Node(Affine(2), "a")
    different = [
        Graph(a=a, b=b),
        Graph(a=a, b=Node(Affine(2), "x")),
        Graph(a=a, b=Node(Affine(2), "a", weights="a")),
        Graph(a=a, b=b, outputs=["a", "b"]),
        Graph(a=a, c=b),
        Graph(a=a, b=Node(Affine(3), "a")),
        Chain(a=Affine(2), b=Affine(2)),
    ]
    assert len(set(different)) == len(different)
    assert all((one == other) == (one is other) for one in different for other in different)
    assert different[0] != "a graph"


def test_the_order_of_nodes_tells_composites_apart_as_it_does_their_inputs():
    p, q = Node(ReLU(), "a"), Node(Tanh(), "b")
    s = Node(Sum(), "p", "q")
    one, other = Graph(p=p, q=q, s=s), Graph(q=q, p=p, s=s)
    assert (one.inputs, other.inputs) == (("a", "b"), ("b", "a"))
    assert one != other


# Depth


def test_two_thousand_elements_in_a_chain():
    chain = Chain(*[Tanh() if n % 2 else Affine(2) for n in range(2000)])
    net = chain.on((2,))
    params = net.initial(seed=0, dtype=np.float64)
    assert len(params) == 2000
    forward = net.forward(params, np.ones((1, 2)))
    back = net.backward(params, forward, np.ones((1, 2)), keep="affine1")
    assert np.isfinite(back.gradients["affine1.w"]).all()
    assert len(str(net).splitlines()) == 2004
    assert len(repr(chain)) > 20_000
    assert eval(repr(chain)) == chain


def test_two_thousand_nodes_written_last_first():
    nodes = {f"n{n}": Node(Tanh(), f"n{n - 1}" if n else "x", weights=f"n{n - 1}" if n else None) for n in range(2000)}
    graph = Graph(outputs=["n1999"], **dict(reversed(nodes.items())))
    assert names(graph) == list(nodes)
    y = graph.on((1,)).predict({}, np.ones((1, 1)))
    assert 0 < y < 1


def test_composites_within_composites_within_composites():
    composite = Chain(Tanh())
    for _ in range(50):
        composite = Chain(inside=composite)
    assert names(composite) == ["inside." * 50 + "tanh1"]
    assert eval(repr(composite)) == composite
