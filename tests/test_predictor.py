"""Predictors: what ``predict`` gives, for parameters that are taken once."""

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from faltung.elements import (
    Affine,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    Identity,
    MaxPool,
    ReLU,
    Sum,
    Tanh,
)
from faltung.engine.host.arena import pool
from faltung.engine.programs import plan, stages
from faltung.errors import DataError, NetworkError, SettingError, ShapeError
from faltung.model import Model
from faltung.models import find_recipe
from faltung.network import Chain, Graph, Network, Node
from faltung.network.folding import folded
from faltung.network.predictor import MOST
from sketches import Sketch, filled, random, sketches

SMALL = Chain(conv=Conv(3, kernel=3), relu=ReLU(), flat=Flatten(), dense=Affine(2)).on((6, 5, 2))


def in_float32(params: dict[str, Any]) -> dict[str, Any]:
    return {name: array.astype(np.float32) for name, array in params.items()}


def normalised(*elements: Any, shape: Any = (8, 7, 3)) -> Network:
    return Chain(*elements).on(shape)


def kinds(network: Network, params: Any) -> list[str]:
    """Of the elements of a folded network."""
    return [type(node.element).__name__ for node in folded(network, params)[0].nodes.values()]


# The same as predict


@pytest.mark.parametrize("recipe", ["ufldl", "lenet5"])
@pytest.mark.parametrize("batch", [1, 3, 8, 17])
def test_where_nothing_is_computed_in_another_way_the_bits_are_those_of_predict(recipe, batch):
    network = find_recipe(recipe).compose(10).on((28, 28, 1))
    params = network.initial(seed=0)
    predictor = network.predictor(params)
    x = random(batch, 28, 28, 1).astype(np.float32)
    expected = network.predict(params, x)
    for _ in range(3):
        assert np.array_equal(predictor(x), expected)


@pytest.mark.parametrize("batch", [1, 8])
def test_fewer_multiplications_differ_by_rounding(batch):
    network = find_recipe("allconv").compose(10).on((28, 28, 1))
    params, x = network.initial(seed=0), random(batch, 28, 28, 1).astype(np.float32)
    predictor, expected = network.predictor(params), network.predict(params, x)
    np.testing.assert_allclose(predictor(x), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
    assert np.array_equal(predictor(x), predictor(x))


@settings(max_examples=30, deadline=None)
@given(sketches())
def test_graphs(sketch: Sketch):
    network = sketch.network()
    params = filled(network)
    predictor = network.predictor(params)
    for batch in (2, 5):
        x = random(batch, *sketch.shape, seed=sketch.seed)
        expected, found = network.predict(params, x), predictor(x)
        if len(network.outputs) == 1:
            expected, found = {"y": expected}, {"y": found}
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "elements",
    [
        (Conv(5, kernel=3, bias=False), BatchNorm(), ReLU()),
        (Conv(6, kernel=3, groups=3, stride=2, padding="same"), BatchNorm(epsilon=0.1)),
        (ConvTranspose(4, kernel=2, stride=2), BatchNorm(), Tanh()),
        (ConvTranspose(6, kernel=2, groups=3, stride=2), BatchNorm()),
        (Flatten(), Affine(7), BatchNorm(), Affine(3, bias=False), BatchNorm()),
        (BatchNorm(), Conv(4, kernel=3), Dropout(0.5), BatchNorm(), GlobalPool("mean")),
        (Conv(3, kernel=3), MaxPool(2)),
    ],
)
def test_folded_normalisations(elements, dtype, executor):
    network = normalised(*elements).on_executor(executor)
    params = {name: array.astype(dtype) for name, array in filled(network).items()}
    predictor = network.predictor(params)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for batch in (1, 6):
        x = random(batch, 8, 7, 3, seed=batch).astype(dtype)
        expected, y = network.predict(params, x), predictor(x)
        assert y.dtype == dtype
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * abs(expected).max())


def test_which_normalisations_are_folded():
    def found(*elements: Any) -> list[str]:
        network = normalised(*elements)
        return kinds(network, network.initial())

    assert found(Conv(2, kernel=3), BatchNorm(), BatchNorm()) == ["Conv", "Identity", "BatchNorm"]
    assert found(Flatten(), Affine(2), BatchNorm()) == ["Flatten", "Affine", "Identity"]
    assert found(ConvTranspose(2, kernel=3), BatchNorm()) == ["ConvTranspose", "Identity"]
    assert found(ConvTranspose(6, kernel=3, groups=3), BatchNorm()) == ["ConvTranspose", "BatchNorm"]
    assert found(BatchNorm(), Conv(2, kernel=3)) == ["BatchNorm", "Conv"]
    assert found(Conv(2, kernel=3), ReLU(), BatchNorm()) == ["Conv", "ReLU", "BatchNorm"]


@pytest.mark.parametrize(
    "nodes",
    [
        {"conv": Node(Conv(3, kernel=1), "x"), "norm": Node(BatchNorm(), "conv"), "sum": Node(Sum(), "conv", "norm")},
        {
            "conv": Node(Conv(3, kernel=1), "x"), "norm": Node(BatchNorm(), "conv"),
            "again": Node(Conv(3, kernel=1), "norm", weights="conv"),
        },
        {
            "conv": Node(Conv(3, kernel=1), "x"), "norm": Node(BatchNorm(), "conv"),
            "other": Node(BatchNorm(), "norm", weights="norm"),
        },
    ],
)  # fmt: skip
def test_what_others_need_is_not_folded(nodes):
    network = Graph(outputs=None, **nodes).on((4, 3))
    params = filled(network)
    assert "Identity" not in kinds(network, params)
    x = random(2, 4, 3)
    np.testing.assert_allclose(network.predictor(params)(x), network.predict(params, x), rtol=1e-12, atol=1e-12)


def test_an_output_before_its_normalisation_stays():
    graph = Graph(conv=Node(Conv(3, kernel=1), "x"), norm=Node(BatchNorm(), "conv"), outputs=["conv", "norm"])
    network = graph.on((4, 3))
    params, x = filled(network), random(2, 4, 3)
    found, expected = network.predictor(params)(x), network.predict(params, x)
    assert list(found) == ["conv", "norm"]
    assert all(np.allclose(found[name], expected[name], rtol=1e-12, atol=1e-12) for name in found)


# Any input


def test_open_axes_and_batches_of_any_size():
    network = Chain(conv=Conv(4, kernel=3), norm=BatchNorm(), relu=ReLU(), pool=GlobalPool("mean")).on((None, None, 2))
    params = filled(network)
    predictor = network.predictor(params)
    for batch, height, width in ((1, 5, 5), (0, 5, 5), (4, 3, 9), (9, 12, 4), (1, 5, 5)):
        x = random(batch, height, width, 2)
        np.testing.assert_allclose(predictor(x), network.predict(params, x), rtol=1e-12, atol=1e-12)


def test_several_inputs_outputs_and_indices():
    graph = Graph(
        words=Node(Embedding(9, 3), "text"), both=Node(Concat(), "words", "image"), dense=Node(Affine(2), "both"),
        same=Node(Identity(), "image"), outputs=["dense", "same"],
    )  # fmt: skip
    network = graph.on(text=(5,), image=(5, 4))
    params = filled(network)
    predictor = network.predictor(params)
    for text in (np.arange(10).reshape(2, 5) % 9, (np.arange(10).reshape(2, 5) % 9).astype(np.int8)):
        x = {"text": text, "image": random(2, 5, 4)}
        found, expected = predictor(x), network.predict(params, x)
        assert list(found) == ["dense", "same"]
        assert all(np.allclose(found[name], expected[name], rtol=1e-12) for name in found)
    with pytest.raises(DataError, match=r"^Embedding\(9, 3\) 'words': got index 9 at \(0, 0\), expected 0 to 8"):
        predictor({"text": np.full((2, 5), 9), "image": random(2, 5, 4)})


def test_indices_alone():
    network = Chain(words=Embedding(9, 3), flat=Flatten(), dense=Affine(2)).on((5,))
    params = filled(network)
    predictor = network.predictor(params)
    x = np.arange(10).reshape(2, 5) % 9
    for _ in range(2):
        np.testing.assert_allclose(predictor(x), network.predict(params, x), rtol=1e-12)
    with pytest.raises(DataError, match="got index 9"):
        predictor(x + 1)


def test_a_network_without_parameters():
    network = Chain(pool=MaxPool(2)).on((4, 1))
    predictor = network.predictor({})
    for x in (random(2, 4, 1), random(2, 4, 1).astype(np.float32), np.arange(8).reshape(2, 4, 1)):
        expected = network.predict({}, x)
        assert np.array_equal(predictor(x), expected)
        assert predictor(x).dtype == expected.dtype


def test_arrays_of_any_layout_and_dtype_and_lists():
    params = in_float32(filled(SMALL))
    predictor = SMALL.predictor(params)
    x = random(3, 6, 5, 2)
    expected = SMALL.predict(params, x.astype(np.float32))
    turned = np.asfortranarray(x.astype(np.float32))
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    for given_ in (x, x.astype(np.float32), turned, read_only, x.tolist(), x.astype(">f8"), x.astype(np.float32)):
        assert np.array_equal(predictor(given_), expected)


def test_outputs_belong_to_the_caller():
    params = in_float32(filled(SMALL))
    predictor, x = SMALL.predictor(params), random(1, 6, 5, 2).astype(np.float32)
    first = predictor(x)
    kept = first.copy()
    predictor(x + 1)
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(predictor(x), kept)


# Parameters are taken once


def test_later_changes_of_parameters_change_nothing():
    network = Chain(conv=Conv(4, kernel=3), norm=BatchNorm(), flat=Flatten(), dense=Affine(2)).on((5, 5, 1))
    params = filled(network)
    predictor, x = network.predictor(params), random(2, 5, 5, 1)
    before = predictor(x)
    for array in params.values():
        array *= 2
    assert np.array_equal(predictor(x), before)
    np.testing.assert_allclose(predictor(np.concatenate([x, x]))[2:], before, rtol=1e-12)  # a size that is new


def test_a_ready_program_packs_nothing(monkeypatch):
    made: list[stages.Recorded] = []
    monkeypatch.setattr(plan, "flat", lambda recorded: made.append(recorded) or stages.flat(recorded))
    network = Chain(conv=Conv(20, kernel=5), norm=BatchNorm(), relu=ReLU(), flat=Flatten(), dense=Affine(10))
    bound = network.on((12, 12, 3))
    bound.predictor(in_float32(filled(bound)))(random(1, 12, 12, 3).astype(np.float32))
    names = [launch.function.name for launch in made[-1].launches]
    assert names == ["correlate_elementwise", "correlate"]
    kinds_read = {buffer.kind for launch in made[-1].launches for buffer in launch.reads}
    assert kinds_read == {"input", "constant", "memory"}


def test_predictors_and_their_sizes_give_their_memory_back():
    network = Chain(conv=Conv(8, kernel=3), pool=GlobalPool("mean")).on((None, None, 2))
    params = filled(network)

    def use() -> None:
        predictor = network.predictor(params)
        for size in range(5, 5 + 3):
            predictor(random(2, size, size, 2))

    use()
    gc.collect()
    before = pool.lent_bytes
    for _ in range(3):
        use()
    gc.collect()
    assert pool.lent_bytes == before


def test_only_so_many_sizes_are_kept():
    network = Chain(tanh=Tanh(), dense=Affine(1)).on((None, 1))
    params = filled(network)
    predictor = network.predictor(params)
    for size in range(1, MOST + 10):
        x = random(1, size, 1)
        assert np.array_equal(predictor(x), network.predict(params, x))
        assert len(predictor._ready) <= MOST


@pytest.mark.parametrize("batch", [1, 9])
def test_the_number_of_workers_changes_no_bit(batch, monkeypatch):
    network = Chain(
        a=Conv(32, kernel=3, padding=1), norm=BatchNorm(), relu=ReLU(), b=Conv(40, kernel=3, padding=1),
        pool=MaxPool(2), c=Conv(128, kernel=3, padding=1), flat=Flatten(), dense=Affine(20),
    ).on((18, 14, 16))  # fmt: skip
    params, x = in_float32(filled(network)), random(batch, 18, 14, 16).astype(np.float32)
    found = []
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        predictor = network.predictor(params)
        found += [predictor(x) for _ in range(20)]
    assert all(np.array_equal(y, found[0]) for y in found)


def test_threads_may_call_at_the_same_time():
    network = find_recipe("ufldl").compose(10).on((28, 28, 1))
    params = network.initial()
    predictor = network.predictor(params)
    xs = [random(1 + n % 5, 28, 28, 1, seed=n).astype(np.float32) for n in range(60)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(predictor, xs))
    assert all(np.array_equal(y, network.predict(params, x)) for x, y in zip(xs, found, strict=True))


# Errors


def test_parameters_that_do_not_fit_are_refused():
    params = filled(SMALL)
    with pytest.raises(NetworkError, match=r"got parameters without dense.b, expected all of"):
        SMALL.predictor({name: params[name] for name in params if name != "dense.b"})
    with pytest.raises(SettingError, match=r"got conv.w of int64 among parameters"):
        SMALL.predictor(params | {"conv.w": np.zeros((3, 3, 2, 3), int)})
    network = normalised(Conv(2, kernel=3), BatchNorm())
    for name, shape in (("conv1.w", (3, 3, 3, 5)), ("batchnorm1.scale", (1,)), ("batchnorm1.mean", (5,))):
        wrong = network.predictor(network.initial() | {name: np.ones(shape, np.float32)})
        with pytest.raises(ShapeError, match=f"got {name.partition('.')[2]} of shape .*, expected"):
            wrong(random(1, 8, 7, 3))


def test_inputs_that_do_not_fit_are_refused_as_by_predict():
    predictor = SMALL.predictor(filled(SMALL))
    predictor(random(2, 6, 5, 2))
    with pytest.raises(ShapeError, match=r"got input 'x' of shape \(6, 5, 2\), expected \(batch, 6, 5, 2\); give the"):
        predictor(random(6, 5, 2))
    with pytest.raises(SettingError, match=r"got input 'x' of <U1, expected numbers"):
        predictor(np.full((2, 6, 5, 2), "a"))
    with pytest.raises(NetworkError, match=r"got the inputs image, expected x; give one array an input by its name"):
        predictor({"image": random(2, 6, 5, 2)})
    assert predictor({"x": random(2, 6, 5, 2)}).shape == (2, 2)


# Models


def test_a_model_has_a_predictor():
    params = filled(SMALL)
    predictor, x = Model(SMALL, params).predictor(), random(3, 6, 5, 2)
    assert np.array_equal(predictor(x), SMALL.predict(params, x))
    assert repr(predictor).startswith("Predictor(")
