"""Known calls in machine code: no Python runs, no reference is lost or kept, and what is not known goes the old way."""

import gc
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung.elements.element import Run
from faltung.engine.host import arena, lending, patterns, python, quick, recording, workers
from faltung.engine.lower import lowerings
from faltung.engine.programs import ready
from faltung.errors import NetworkError, SettingError, ShapeError

pytestmark = pytest.mark.skipif(not quick.possible(), reason="no product is quick here")
TRAINING = Run(training=True)
ELEMENTS = {
    ft.ReLU(): 1, ft.Pointwise("x * exp(-x**2)"): 1, ft.Sum(): 3, ft.Product(): 2, ft.Concat(): 3, ft.Pad(1): 1,
    ft.Crop(1): 1, ft.Softmax(): 1, ft.LogSoftmax(): 1, ft.Gate(): 1, ft.BatchNorm(): 1, ft.LayerNorm(): 1,
    ft.LayerNorm(axes="all"): 1, ft.MaxPool(2): 1, ft.MeanPool(2): 1, ft.GlobalPool("mean"): 1,
    ft.AdaptivePool(3, "max"): 1, ft.Resize(2): 1, ft.Conv(5, kernel=3, padding=1): 1, ft.Affine(7): 1,
}  # fmt: skip
"""Each with its inputs."""


@pytest.fixture(autouse=True)
def nothing_known():
    ready.forget()


def calls(element: Any, inputs: int, shape: tuple[int, ...] = (3, 6, 6, 4)) -> Iterator[tuple[Callable[..., Any], Any]]:
    """Every ready product of an element, and its arguments."""
    rng, lowered = np.random.default_rng(0), lowerings()[type(element)]
    wanted = element.parameters(*[shape[1:]] * inputs) | element.state(*[shape[1:]] * inputs)
    params = {name: rng.random(each.shape, np.float32) + 1 for name, each in wanted.items()}
    x = tuple(rng.normal(size=shape).astype(np.float32) for _ in range(inputs))
    given = (element, params, x if inputs > 1 else x[0], TRAINING)
    y, kept = lowered.forward(*given)
    dy = rng.normal(size=y.shape).astype(np.float32)
    yield lowered.forward, given
    for product in (lowered.error, lowered.gradient, lowered.backward):
        if hasattr(product, "__self__"):
            yield product, (element, params, kept, dy)  # pyright: ignore[reportReturnType]
    if lowered.renew:
        yield lowered.renew, (element, params, kept)


def leaves(thing: Any) -> list[Any]:
    """All objects that a thing is made of."""
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, tuple | list) else ()
    return [thing, *(leaf for part in parts for leaf in leaves(part))]


def same(one: Any, other: Any) -> bool:
    """Are these equal to the bit?"""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
        if isinstance(a, np.ndarray)
        else isinstance(a, tuple | list | dict) or a == b
        for a, b in pairs
    )


def functions_of_python(run: Callable[[], Any]) -> int:
    """How many are called; collecting garbage, which may call some at any time, has to wait."""
    called = []
    gc.disable()
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return len(called) - 1


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_a_known_call_needs_no_python(element):
    for product, given in calls(element, ELEMENTS[element]):
        plain = [product(*given) for _ in range(3)]
        assert functions_of_python(lambda product=product, given=given: product(*given)) == 0
        assert same([*plain, product(*given)], 4 * [plain[0]])


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_ten_thousand_calls_count_references_rightly_and_keep_no_memory(element):
    for product, given in calls(element, ELEMENTS[element]):
        result = product(*given)
        for _ in range(100):
            result = product(*given)
        seen = [thing for thing in [*leaves(given), *leaves(result)] if type(thing) is not bool]
        seen += [thing.dtype for thing in seen if isinstance(thing, np.ndarray)]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            product(*given)
            before = [sys.getrefcount(thing) for thing in seen]
            memory, lent = tracemalloc.get_traced_memory()[0], arena.pool.lent_bytes
            for _ in range(10_000):
                product(*given)
            now = tracemalloc.get_traced_memory()[0]
            after = [sys.getrefcount(thing) for thing in seen]
        finally:
            tracemalloc.stop()
            gc.enable()
        assert max(abs(new - old) for new, old in zip(after, before, strict=True)) < 20
        assert now - memory < 10_000
        assert arena.pool.lent_bytes == lent


def strange_arrays() -> dict[str, Any]:
    """Arrays that no entry knows, all of the shape of the known ones."""
    x = np.random.default_rng(1).normal(size=(4, 6, 8)).astype(np.float32)
    odd = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    return {
        "a subclass": x.view(type("Other", (np.ndarray,), {})),
        "a transposed one": x.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "with steps": np.repeat(x, 2, axis=1)[:, ::2],
        "another dtype": x.astype(np.float64),
        "not aligned": odd,
        "one axis less": x[0],
        "an empty batch": x[:0],
        "other sizes": x[:2],
    }


@pytest.mark.parametrize("kind", strange_arrays())
def test_other_arrays_are_computed_as_ever(kind):
    x, strange = np.ones((4, 6, 8), np.float32), strange_arrays()[kind]
    for element in (ft.ReLU(), ft.Softmax()):
        forward = lowerings()[type(element)].forward
        plain = forward(element, {}, np.array(strange, order="C"))[0]
        for _ in range(3):
            forward(element, {}, x)
        for _ in range(4):
            y = forward(element, {}, strange)[0]
            assert same(np.asarray(y), np.asarray(plain))
            assert same(forward(element, {}, x)[0], forward(element, {}, x.copy())[0])


def test_arrays_that_cannot_be_written_are_read():
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    plain = np.maximum(x, 0)
    x.flags.writeable = False
    for _ in range(4):
        y, _ = lowerings()[ft.ReLU].forward(ft.ReLU(), {}, x)
        assert same(y, plain)
        assert y.flags.writeable


def test_other_arguments_are_not_mistaken():
    norm, forward = ft.LayerNorm(), lowerings()[ft.LayerNorm].forward
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    params = {"scale": np.full(6, 2, np.float32), "shift": np.ones(6, np.float32)}
    plain, _ = forward(norm, params, x)
    for _ in range(3):
        forward(norm, params, x)
    names = {"".join(["sc", "ale"]): params["scale"], "".join(["sh", "ift"]): params["shift"]}
    mapping = type("Names", (dict,), {})(params)
    for other in (params, names, dict(reversed(params.items())), mapping, params | {"more": x}):
        for _ in range(2):
            assert same(forward(norm, other, x)[0], plain)
    for bad, problem in (({}, NetworkError), (None, AttributeError), (params | {"scale": x[0, :3]}, ShapeError)):
        with pytest.raises(problem):
            forward(norm, bad, x)
    with pytest.raises(TypeError):
        forward()
    with pytest.raises(TypeError):
        forward(norm, params, x, TRAINING, 1)


def test_more_elements_than_slots_are_known_in_turn():
    x, relus = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), [ft.ReLU() for _ in range(3 * quick.SLOTS)]
    forward = lowerings()[ft.ReLU].forward
    for _ in range(3):
        for relu in relus:
            assert same(forward(relu, {}, x)[0], np.maximum(x, 0))
    assert functions_of_python(lambda: forward(relus[0], {}, x)) > 0
    relu = relus[ready.ELEMENTS - 1 if len(relus) > ready.ELEMENTS else -1]
    ready.forget()
    for _ in range(3):
        forward(relu, {}, x)
    assert functions_of_python(lambda: forward(relu, {}, x)) == 0


def test_an_element_that_is_new_in_each_call_is_made_quick_only_so_often():
    x, forward = np.ones((2, 3), np.float32), lowerings()[ft.ReLU].forward
    for _ in range(2 * ready.ELEMENTS):
        forward(ft.ReLU(), {}, x)
    [run] = ready.known.values()
    assert isinstance(run, ready.Ready)
    assert run.left == 0


def test_nothing_is_known_while_somebody_listens():
    relu, x, forward = ft.ReLU(), np.ones((2, 3), np.float32), lowerings()[ft.ReLU].forward
    for _ in range(3):
        forward(relu, {}, x)
    with recording.recording(sliced=False) as listener:
        forward(relu, {}, listener.array(x.shape, x.dtype, "input"))
        with ThreadPoolExecutor(1) as other:
            assert same(other.submit(forward, relu, {}, x).result(), (x, x))
    assert len(listener.launches) == 1
    assert recording.listeners[0] == 0
    assert functions_of_python(lambda: forward(relu, {}, x)) == 0


def test_the_number_of_threads_is_asked_for_in_each_call(monkeypatch):
    relu, x, forward = ft.ReLU(), np.ones((40, 40, 40), np.float32), lowerings()[ft.ReLU].forward
    for threads in ("1", "2", "12", None, "1", "2", None):
        monkeypatch.delenv("FALTUNG_THREADS", raising=False)
        if threads:
            monkeypatch.setenv("FALTUNG_THREADS", threads)
        assert functions_of_python(lambda: forward(relu, {}, x)) > 0
        if threads in ("1", "2"):
            forward(relu, {}, x)
            assert (functions_of_python(lambda: forward(relu, {}, x)) == 0) == (threads == "1")  # others are woken
    monkeypatch.setenv("FALTUNG_THREADS", "none")
    with pytest.raises(SettingError, match="FALTUNG_THREADS='none'"):
        forward(relu, {}, x)


def test_a_problem_with_workers_is_raised_and_no_reference_is_lost(monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", "2")
    relu, x, forward = ft.ReLU(), np.ones((60, 60, 60), np.float32), lowerings()[ft.ReLU].forward
    for _ in range(3):
        forward(relu, {}, x)

    def refuse(_: Any) -> None:
        raise RuntimeError("no worker")

    before, lent = sys.getrefcount(x), arena.pool.lent_bytes
    with monkeypatch.context() as patch:
        patch.setattr(workers._Worker, "wake", refuse)
        for _ in range(100):
            with pytest.raises(RuntimeError, match="no worker"):
                forward(relu, {}, x)
    assert abs(sys.getrefcount(x) - before) < 3
    assert arena.pool.lent_bytes == lent
    assert same(forward(relu, {}, x)[0], x)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_several_threads_of_python_call_at_once(threads, monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", threads)
    norm, rng = ft.BatchNorm(), np.random.default_rng(0)
    forward, backward = lowerings()[ft.BatchNorm].forward, lowerings()[ft.BatchNorm].backward
    assert backward
    params = {name: np.ones(16, np.float32) for name in ("scale", "shift", "mean", "variance")}
    given = [rng.normal(size=(3 + n, 30, 30, 16)).astype(np.float32) for n in range(4)]

    def both(x: Any) -> Any:
        y, kept = forward(norm, params, x, TRAINING)
        return y, backward(norm, params, kept, x)

    plain = [both(x) for x in given]

    def ask(number: int) -> bool:
        return same(both(given[number % 4]), plain[number % 4])

    with ThreadPoolExecutor(6) as several:
        assert all(several.map(ask, range(400)))
    assert not quick.busy()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_knows_calls_although_another_thread_was_in_one(monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", "1")
    stop, relu, forward = threading.Event(), ft.ReLU(), lowerings()[ft.ReLU].forward
    x, small = np.ones((100, 100, 100), np.float32), np.ones((2, 3), np.float32)

    def work() -> None:
        while not stop.is_set():
            forward(relu, {}, x)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                results = [forward(relu, {}, small)[0].sum() for _ in range(4)]
                quickly = functions_of_python(lambda: forward(relu, {}, small)) == 0
                os._exit(7 if quickly and results == [6] * 4 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stop.set()
        thread.join()


def test_results_that_stay_get_memory_of_their_own():
    relu, forward = ft.ReLU(), lowerings()[ft.ReLU].forward
    arrays = [np.full((30, 1000), n, np.float32) for n in range(40)]
    results = [forward(relu, {}, x)[0] for x in arrays]
    assert all(same(y, x) for x, y in zip(arrays, results, strict=True))
    assert all(y.ctypes.data % arena.LINE == 0 for y in results)
    run = next(iter(ready.known.values()))
    assert isinstance(run, ready.Ready)
    assert run.left >= ready.ELEMENTS - 2


# Patterns by themselves


def knows(argument: Any, other: Any) -> bool:
    """Does a product that knows one argument take another one for it?"""
    element, kept = object(), []
    product = quick.Product(lambda *_: "slowly")
    words = patterns.told(argument, {Run: "training"}, kept)
    entry = [2, *words, 0, 0, 0, 0, 0, 0, patterns.SAME, id(None)]
    assert product.add(element, None, entry, kept)
    answer = product.function(element, other)
    assert answer in (None, "slowly")
    assert product.function(object(), other) == product.function(element, other, other) == "slowly"
    assert product.function(element) == "slowly"
    product.clear()
    assert product.function(element, argument) == "slowly"
    return answer is None


X = np.arange(6.0).reshape(2, 3)
THING = object()


@pytest.mark.parametrize(
    ("argument", "other"),
    [
        (X, X.copy()), ((X, X), (X, X[:])), ({"a": X}, {"a": X + 1}), (Run(), Run(seed=3, step=7)), (None, None),
        (1000, int("1000")), ("".join(["a", "b"]), "ab"), ((), ()), ({}, {}), (THING, THING), (True, True),
        ((1, (X, {"a": (2, X)}), None), (1, (X, {"a": (2, X)}), None)), (np.array(3.0), np.array(4.0)),
        (X[:, :0], np.empty((2, 0))),
    ],
)  # fmt: skip
def test_what_is_alike_fits(argument, other):
    assert knows(argument, other)


@pytest.mark.parametrize(
    ("argument", "other"),
    [
        (X, X.T), (X, X.ravel()), (X, X[:1]), (X, X.astype("f4")), (X, X.astype(">f8")), (X, np.asfortranarray(X)),
        (X, X.view(np.matrix)), (X, None), (X, [X]), ((X, X), (X, X, X)), ((X, X), [X, X]), ((X, X), (X,)), ((X,), X),
        ({"a": X}, {"b": X}), ({"a": X}, {"a": X, "b": X}), ({"a": X}, {}), ({"a": X, "b": X}, {"b": X, "a": X}),
        (Run(), TRAINING), (Run(), None), (None, 0), (1000, 1001), (1, True), (1, 1.0), ("a", "b"), (THING, object()),
        ((1, (X, {"a": (2, X)}), None), (1, (X, {"a": (3, X)}), None)), (np.array(3.0), 3.0), (True, False),
    ],
)  # fmt: skip
def test_what_is_not_alike_does_not_fit(argument, other):
    assert not knows(argument, other)


@pytest.mark.parametrize("thing", [X.T, X.view(np.matrix), (X, X[:, ::2]), {"a": X.T}, type("T", (tuple,), {})()])
def test_of_strange_things_no_pattern_tells(thing):
    with pytest.raises(patterns.StrangeError):
        patterns.told(thing, {}, [])


def test_where_python_has_no_such_functions_all_goes_the_old_way(monkeypatch):
    monkeypatch.setattr(python, "tools", lambda: None)
    assert lending.words([]) is None

    @ready.ready
    def product(element: Any, params: Any, x: Any) -> Any:
        return lowerings()[ft.ReLU].forward(element, params, x)

    assert not hasattr(product, "__self__")
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    for _ in range(4):
        assert same(product(ft.ReLU(), {}, x)[0], np.maximum(x, 0))
