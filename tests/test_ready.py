"""Products made ready: the third call gives the same bits as the first one, by a program, and keeps nothing back."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung.elements.element import Run
from faltung.engine.host import arena, compile, direct, perform, workers
from faltung.engine.lower import lowerings
from faltung.engine.programs import ready
from faltung.errors import ShapeError
from guard import copied

ELEMENTS = {
    ft.ReLU(): 1, ft.GELU(): 1, ft.Pointwise("x * exp(-x**2)"): 1, ft.Sum(): 3, ft.Product(): 2, ft.Concat(): 3,
    ft.Pad(1): 1, ft.Pad(1, mode="reflect"): 1, ft.Crop(1): 1, ft.Softmax(): 1, ft.LogSoftmax(): 1, ft.Gate(): 1,
    ft.BatchNorm(): 1, ft.LayerNorm(): 1, ft.LayerNorm(axes="all"): 1, ft.MaxPool(2): 1, ft.MeanPool(2): 1,
    ft.LpPool(2): 1, ft.GlobalPool("mean"): 1, ft.GlobalPool("max"): 1, ft.AdaptivePool(3, "max"): 1, ft.Resize(2): 1,
    ft.Resize(2, method="linear"): 1, ft.Conv(5, kernel=3, padding=1): 1, ft.Conv(6, kernel=3, stride=2, groups=2): 1,
    ft.Conv(3, kernel=(2, 3), dilation=2, bias=False): 1, ft.ConvTranspose(4, kernel=3, stride=2): 1, ft.Affine(7): 1,
}  # fmt: skip
"""Each with its inputs."""


@pytest.fixture(autouse=True)
def nothing_known():
    ready.forget()


def arguments(element: Any, inputs: int, shape: tuple[int, ...], dtype: Any = np.float32) -> tuple[Any, Any]:
    """Parameters and inputs by lot."""
    rng = np.random.default_rng(0)
    wanted = element.parameters(*[shape[1:]] * inputs) | element.state(*[shape[1:]] * inputs)
    params = {name: rng.random(each.shape).astype(dtype) + 1 for name, each in wanted.items()}
    x = tuple(rng.normal(size=shape).astype(dtype) for _ in range(inputs))
    return params, x if inputs > 1 else x[0]


def products(element: Any, params: Any, x: Any) -> list[Any]:
    """All that forward, error, gradient, both together and renew give."""
    lowered = lowerings()[type(element)]
    y, kept = lowered.forward(element, params, x, Run(training=True))
    dy = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
    assert lowered.gradient
    found = [y, kept, lowered.error(element, params, kept, dy), lowered.gradient(element, params, kept, dy)]
    found += [lowered.backward(element, params, kept, dy)] if lowered.backward else []
    return found + ([lowered.renew(element, params, kept)] if lowered.renew else [])


def same(one: Any, other: Any) -> bool:
    """Are these of the same kinds, shapes and bits?"""
    if isinstance(one, np.ndarray):
        return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return (
        one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
        if isinstance(one, dict)
        else one == other
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_a_product_that_is_ready_gives_the_same_bits_without_a_launch(element, dtype, monkeypatch):
    params, x = arguments(element, ELEMENTS[element], (3, 5, 6, 4), dtype)
    plain = products(element, params, x)
    assert same(products(element, params, x), plain)
    programs = [run for run in ready.known.values() if callable(run)]
    assert programs

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(workers, "launch", refused)
    assert same(products(element, params, x), plain)
    params, x = arguments(element, ELEMENTS[element], (3, 5, 6, 4), dtype)
    assert same(products(element, params, x), plain)
    assert [run for run in ready.known.values() if callable(run)] == programs


@pytest.mark.parametrize("element", [ft.ReLU(), ft.BatchNorm(), ft.LayerNorm(axes="all"), ft.Softmax()], ids=repr)
def test_the_number_of_workers_changes_no_bit(element, monkeypatch):
    params, x = arguments(element, 1, (9, 40, 40, 20))
    plain = products(element, params, x)
    for threads in ("1", "2", "3", "8", "1"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        assert same([products(element, params, x) for _ in range(3)], 3 * [plain])


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_a_program_stays_within_its_arrays(element, end, monkeypatch):
    monkeypatch.setattr(arena, "MALLOC", 0)
    params, x = arguments(element, ELEMENTS[element], (2, 4, 5, 6))
    params = {name: copied(array, end) for name, array in params.items()}
    x = tuple(copied(array, end) for array in x) if isinstance(x, tuple) else copied(x, end)
    plain = products(element, params, x)
    assert same([products(element, params, x) for _ in range(2)], 2 * [plain])


def test_what_is_kept_is_what_was_given_or_made_and_each_call_makes_it_anew():
    norm, relu = ft.BatchNorm(), ft.ReLU()
    params, x = arguments(norm, 1, (2, 5, 5, 3))
    forward = lowerings()[ft.BatchNorm].forward
    (one, kept), (other, others) = [forward(norm, params, x, Run(training=True)) for _ in range(4)][2:]
    assert kept[0] is x
    assert not any(np.shares_memory(a, b) for a, b in ((one, other), (kept[1], others[1]), (kept[3][0], others[3][0])))
    assert np.shares_memory(kept[3][0], kept[2])
    y, held = [lowerings()[ft.ReLU].forward(relu, {}, x) for _ in range(3)][2]
    assert held is y
    assert y.flags.writeable


def test_where_nothing_is_computed_nothing_is_called():
    element, x = ft.Crop(((1, 0),)), np.arange(12.0).reshape(1, 4, 3)
    forward = lowerings()[ft.Crop].forward
    for _ in range(3):
        y, _ = forward(element, {}, x)
        assert np.array_equal(y, x[:, 1:])
    [run] = ready.known.values()
    assert callable(run)


@pytest.mark.parametrize("element", [element for element in ELEMENTS if element != ft.BatchNorm()], ids=repr)
def test_an_empty_batch_has_programs_too(element):
    params, x = arguments(element, ELEMENTS[element], (0, 5, 6, 4))
    first, *later = (products(element, params, x) for _ in range(3))
    assert all(same(first, other) for other in later)


def test_arrays_with_gaps_are_told_from_others():
    x = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    forward = lowerings()[ft.Softmax].forward
    for view in (x, x[:, ::2], x.transpose(0, 2, 1), x[::2], x[:2]):
        plain = forward(ft.Softmax(), {}, view.copy())[0]
        for _ in range(3):
            assert np.array_equal(forward(ft.Softmax(), {}, view)[0], plain)


def test_where_numpy_computes_there_is_no_program():
    params, x = arguments(ft.Product(), 9, (2, 3))
    plain = products(ft.Product(), params, x)
    for _ in range(3):
        assert same(products(ft.Product(), params, x), plain)
    assert False in ready.known.values()


def test_what_does_not_fit_is_refused_every_time():
    norm = ft.LayerNorm()
    params, x = arguments(norm, 1, (2, 5, 3))
    forward = lowerings()[ft.LayerNorm].forward
    for _ in range(4):
        forward(norm, params, x)
        with pytest.raises(ShapeError, match="got scale of shape"):
            forward(norm, params | {"scale": np.ones(4, np.float32)}, x)


def test_indices_are_looked_at_every_time():
    element, x = ft.Embedding(5, 3), np.array([[0, 4, 2]])
    w = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    forward = lowerings()[ft.Embedding].forward
    for _ in range(4):
        assert np.array_equal(forward(element, {"w": w}, x)[0], w[x])
        with pytest.raises(ValueError, match="5"):
            forward(element, {"w": w}, x + 1)


def test_parameters_in_another_order_are_not_mistaken():
    norm = ft.LayerNorm()
    params, x = arguments(norm, 1, (2, 5, 3))
    forward = lowerings()[ft.LayerNorm].forward
    plain = forward(norm, params, x)[0]
    for _ in range(3):
        assert np.array_equal(forward(norm, dict(reversed(params.items())), x)[0], plain)


def test_training_is_told_from_prediction():
    norm = ft.BatchNorm()
    params, x = arguments(norm, 1, (4, 5, 3))
    forward = lowerings()[ft.BatchNorm].forward
    plain = [forward(norm, params, x, Run(training=training))[0] for training in (True, False)]
    assert not np.array_equal(*plain)
    for step in range(3):
        again = [forward(norm, params, x, Run(training=training, step=step))[0] for training in (True, False)]
        assert same(again, plain)


def test_several_threads_of_python_may_ask_at_once(monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", "2")
    norm = ft.BatchNorm()
    given = [arguments(norm, 1, (3, 30, 30, 16 + count)) for count in range(4)]
    plain = [products(norm, *each) for each in given]

    def ask(number: int) -> bool:
        return same(products(norm, *given[number % 4]), plain[number % 4])

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(ask, range(120)))


def test_calls_count_references_rightly():
    x = np.ones((2, 3), np.float32)
    forward = lowerings()[ft.ReLU].forward
    for _ in range(3):
        forward(ft.ReLU(), {}, x)
    before = sys.getrefcount(None), sys.getrefcount(x)
    for _ in range(1000):
        forward(ft.ReLU(), {}, x)
    after = sys.getrefcount(None), sys.getrefcount(x)
    assert abs(after[0] - before[0]) < 100
    assert after[1] == before[1]


def test_only_so_many_products_are_known(monkeypatch):
    monkeypatch.setattr(ready, "MOST", 5)
    for size in range(1, 20):
        lowerings()[ft.ReLU].forward(ft.ReLU(), {}, np.ones((1, size), np.float32))
        assert len(ready.known) <= 5


def test_a_program_keeps_all_that_it_calls():
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    forward = lowerings()[ft.ReLU].forward
    for _ in range(2):
        forward(ft.ReLU(), {}, x)
    [run] = ready.known.values()
    assert callable(run)
    for cached in (direct._made, perform.shims, perform.functions, compile._load, workers._sharing):
        cached.cache_clear()
    gc.collect()
    forward(ft.Tanh(), {}, x)  # whose code may come to lie where the other's was
    y, _ = run([x])
    gc.collect()
    assert np.array_equal(y, np.maximum(x, 0))


def test_what_needs_much_memory_inside_has_no_program(monkeypatch):
    monkeypatch.setattr(ready, "INSIDE", 100)
    params, x = arguments(ft.Affine(7), 1, (40, 5))
    plain = products(ft.Affine(7), params, x)
    for _ in range(3):
        assert same(products(ft.Affine(7), params, x), plain)
    assert False in ready.known.values()
