"""Networks as plain data, and back; whatever else is given is refused by one kind of error."""

import copy
import json
import pickle
import sys
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import (
    AdaptivePool,
    Affine,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dropout,
    Element,
    Embedding,
    Flatten,
    GlobalPool,
    Identity,
    LayerNorm,
    LpPool,
    MaxPool,
    MeanPool,
    Pad,
    Pointwise,
    Pool,
    ReLU,
    Reshape,
    Resize,
    Sigmoid,
    Softmax,
    Sum,
)
from faltung.errors import ModelFileError
from faltung.exchange.description import describe, describe_network, element_types, read_network
from faltung.network import Chain, Graph, Network, Node
from faltung.training import SGD, StepDecay

IMAGES = Chain(
    pad=Pad(((1, 0), (2, 2)), mode="reflect"),
    conv=Conv(4, kernel=(3, 2), stride=(2, 1), padding=("same", (1, 0)), initial="he"),
    norm=BatchNorm(momentum=0.5),
    up=ConvTranspose(4, kernel=3, stride=2, output_padding=1),
    pool=LpPool(2, p=1.5),
    drop=Dropout(0.25),
    mean=GlobalPool("mean"),
    dense=Affine(3, bias=False),
)
BLOCK = Graph(
    a=Node(Conv(2, kernel=3, padding="same"), "x"),
    b=Node(Conv(2, kernel=3, padding="same"), "a", weights="a"),
    s=Node(Sum(), "x", "b"),
)
GRAPH = Graph(
    late=Node(Concat(), "two", "one"),  # read before they are listed
    one=Node(BLOCK, "image"),
    two=Node(BLOCK, "other", weights="one"),
    rest=Node(Identity(), "one"),
    outputs=["rest", "late"],
)
NETWORKS = {
    "images": IMAGES.on((12, 12, 2)),
    "graph": GRAPH.on(other=(None, 2), image=(None, 2)),
    "words": Chain(words=Embedding(9, 4), norm=LayerNorm(axes="all"), act=Softmax()).on((5,)),
    "shapes": Chain(
        a=AdaptivePool((4, 3), "max"), b=Resize(2, method="linear"), c=Crop(1), d=Flatten(), e=Reshape((3, -1))
    ).on((None, None, 1)),
    "formulas": Chain(
        found=Pointwise("x**2"),
        given=Pointwise("abs(x)", derivative="sign(x)"),
        pool=Pool(2, "log(mean(exp(x)))"),
        mean=Pool(2, "mean(x)", "1 / m"),
    ).on((8, 1)),
}


SIGMOID = {"type": "Sigmoid"}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_network_comes_back_as_it_was(network):
    again = read_network(json.loads(json.dumps(describe_network(network))))
    assert repr(again) == repr(network)
    assert again.composite == network.composite
    assert (again.parameters, again.states) == (network.parameters, network.states)
    assert (list(again.inputs.items()), again.outputs) == (list(network.inputs.items()), network.outputs)
    assert [step.name for step in again.steps] == [step.name for step in network.steps]


def formulas():
    """The description of the network of formulas, and those of its elements."""
    data = json.loads(json.dumps(describe_network(NETWORKS["formulas"])))
    return data, [node["element"] for node in data["composite"]["nodes"]]


@pytest.fixture
def without_sympy(monkeypatch):
    for name in [name for name in sys.modules if name == "faltung.formula.derivative" or name.split(".")[0] == "sympy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sympy", None)


def test_a_formula_comes_back_with_its_derivative_and_whether_that_was_found(without_sympy):
    data, elements = formulas()
    assert [element["derivative"] for element in elements[:2]] == ["2 * x", "sign(x)"]
    assert [element.get("found", False) for element in elements] == [True, False, True, False]
    again = read_network(data)
    assert repr(again) == repr(NETWORKS["formulas"])
    assert repr(read_network(describe_network(again))) == repr(again)


def test_another_formula_in_place_of_one_that_was_loaded_gets_another_derivative():
    loaded = read_network(formulas()[0]).composite.nodes["found"].element
    assert isinstance(loaded, Pointwise)
    assert replace(loaded, formula="x**3").derivative == "3 * x**2"
    assert copy.deepcopy(loaded) == pickle.loads(pickle.dumps(loaded)) == loaded
    assert repr(pickle.loads(pickle.dumps(loaded))) == "Pointwise('x**2')"


@pytest.mark.parametrize("place", range(4))
def test_a_stored_formula_without_its_derivative_is_refused_before_it_is_differentiated(without_sympy, place):
    for derivative in (None, 3, ["2 * x"]):
        data, elements = formulas()
        elements[place]["derivative"] = derivative
        with pytest.raises(ModelFileError, match="where a text should be"):
            read_network(data)
    data, elements = formulas()
    del elements[place]["derivative"]
    with pytest.raises(ModelFileError, match="KeyError: 'derivative'"):
        read_network(data)


def test_a_fault_of_ours_is_not_called_damage(monkeypatch):
    def fault(self, *shapes):
        raise AttributeError("a fault")

    monkeypatch.setattr(Sigmoid, "output", fault)
    data = {"inputs": {"x": [4]}, "composite": {"type": "Chain", "nodes": [{"name": "a", "element": SIGMOID}]}}
    with pytest.raises(AttributeError, match="a fault"):
        read_network(data)


def test_every_field_is_told_so_that_a_default_may_change():
    assert describe(MaxPool(2)) == {"type": "MaxPool", "kernel": 2, "stride": None, "dilation": 1, "padding": "valid"}
    assert describe(SGD(StepDecay(0.1, 0.5, 100), momentum=0.9))["rate"] == {
        "type": "StepDecay",
        "initial": 0.1,
        "factor": 0.5,
        "every": 100,
    }


def test_a_field_that_the_file_does_not_know_yet_has_its_default():
    data = describe_network(Chain(conv=Conv(2, kernel=3)).on((8, 1)))
    del data["composite"]["nodes"][0]["element"]["dilation"]
    assert read_network(data).composite == Chain(conv=Conv(2, kernel=3))


def test_all_types_of_elements_are_known():
    known = element_types()
    assert {"Conv", "Affine", "Sigmoid", "MeanPool", "BatchNorm", "Sum", "Pool"} <= known.keys()
    assert not {"Element", "Activation", "CrossEntropy", "Window", "Run"} & known.keys()


def test_functions_in_python_are_refused():
    def spread(x):
        return x[..., 1] - x[..., 0]

    network = Chain(pool=Pool(2, spread, lambda x: x)).on((4, 1))
    message = r"Pool\(2, spread, <lambda>\) 'pool': got g=<function .*spread.*>, expected numbers, text.* as a formula"
    with pytest.raises(ModelFileError, match=message):
        describe_network(network)


@dataclass(frozen=True, repr=False)
class Mine(Element):
    def output(self, *shapes):
        return shapes[0]

    def forward(self, params, x, run=None):
        return x, None

    def error(self, params, kept, dy):
        return dy


def test_elements_of_others_are_refused():
    with pytest.raises(ModelFileError, match=r"Mine\(\) 'b': .* the type Mine, expected one of faltung.elements; save"):
        describe_network(Chain(a=Sigmoid(), b=Mine()).on((4, 1)))


@dataclass(frozen=True, repr=False)
class Sigmoid2(Element):
    output, forward, error = Mine.output, Mine.forward, Mine.error


Sigmoid2.__name__ = "Sigmoid"


def test_a_namesake_is_refused():
    with pytest.raises(ModelFileError, match=r"of the type Sigmoid, expected one of faltung\.elements"):
        describe_network(Chain(b=Sigmoid2()).on((4, 1)))


def damaged(change):
    data = describe_network(NETWORKS["graph"])
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "the description of the network is damaged"),
        ([], "is damaged"),
        ({"inputs": {"x": [4]}}, "KeyError: 'composite'"),
        (damaged(lambda data: data["composite"].update(type="Network")), "a composite of the type 'Network'"),
        (damaged(lambda data: data["composite"].update(outputs=["nobody"])), "NetworkError.*nobody"),
        (damaged(lambda data: data["composite"].update(outputs="late")), "str where a list should be"),
        (damaged(lambda data: data["composite"]["nodes"].append(data["composite"]["nodes"][0])), "two nodes of one"),
        (damaged(lambda data: data["composite"]["nodes"][0].update(sources=["late", "one"])), "NetworkError.*cycle"),
        (damaged(lambda data: data["composite"]["nodes"][0].update(name=3)), "int where a text should be"),
        (damaged(lambda data: data["composite"]["nodes"][0].update(element=3)), "int where an object should be"),
        (
            damaged(lambda data: data["composite"]["nodes"][0].update(element={"type": "os.system", "command": "ls"})),
            "unknown type 'os.system'; upgrade faltung",
        ),
        (
            damaged(lambda data: data["composite"]["nodes"][0].update(element={"type": "Concat", "axis": {}})),
            "a setting of dict",
        ),
        (
            damaged(lambda data: data["composite"]["nodes"][0].update(element={"type": "Conv", "filters": 0})),
            "TypeError",
        ),
        (damaged(lambda data: data["inputs"].update(image=[None, -2])), "ShapeError"),
        (damaged(lambda data: data["inputs"].update(image=[None, 3])), "ShapeError"),
    ],
)
def test_a_damaged_description_is_refused(data, message):
    with pytest.raises(ModelFileError, match=message):
        read_network(data)


def test_a_description_without_end_is_refused():
    data = describe_network(Chain(a=Sigmoid()).on((4, 1)))
    for _ in range(5000):
        inside = {"name": "a", "element": data["composite"]}
        data["composite"] = {"type": "Chain", "nodes": [inside]}
    with pytest.raises(ModelFileError, match="RecursionError"):
        read_network(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["x", "conv", "Conv", "Chain", "Graph", "same"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=5,
)


def places(data, place=()):
    """The paths to every value."""
    yield place
    if isinstance(data, dict | list):
        for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
            yield from places(value, (*place, key))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(NETWORKS)), choice=st.integers(0, 10**6), new=JSON, drop=st.booleans())
def test_no_damage_raises_another_error(name, choice, new, drop):
    data = copy.deepcopy(describe_network(NETWORKS[name]))
    every = list(places(data))[1:]
    *way, key = every[choice % len(every)]
    inside = data
    for step in way:
        inside = inside[step]
    if drop:
        del inside[key]
    else:
        inside[key] = new
    with suppress(ModelFileError):
        assert isinstance(read_network(data), Network)


@settings(max_examples=30, deadline=None)
@given(data=JSON)
def test_no_nonsense_raises_another_error(data):
    with pytest.raises(ModelFileError):
        read_network(data)


def test_activations_without_settings_are_described_too():
    assert [describe(element) for element in (ReLU(), MeanPool(2))] == [
        {"type": "ReLU"},
        {
            "type": "MeanPool",
            "kernel": 2,
            "stride": None,
            "dilation": 1,
            "padding": "valid",
            "count_padding": False,
        },
    ]
