"""Poolings in the convolutions that make what they read, and steps before their errors: the bits of one by one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import faltung as ft
from emission import made_for
from faltung.engine import networks
from faltung.engine.host.recording import Launch, Place, recording
from faltung.engine.kernels import narrow, winograd
from faltung.engine.lower import conv, pointwise, pooling
from faltung.engine.programs import explain, plan
from faltung.engine.programs.fusion import fused
from faltung.engine.programs.pooling import pooled, sooner
from guard import copied, guarded
from lowered import machines

COMPILED = [(np.float32, 3, 5), (np.float32, 16, 32), (np.float32, 17, 70), (np.float64, 9, 8), (np.float64, 2, 1)]
"""Around vectors and blocks of outputs; all other sizes are known at run time only."""
MAX, MEAN, RELU, LEAKY = ft.MaxPool(2), ft.MeanPool(2), ft.ReLU(), ft.LeakyReLU(0.5)


@pytest.fixture(autouse=True, scope="module")
def everywhere() -> Iterator[None]:
    """``winograd`` serves small images, too, and few channels."""
    plans = conv._checked, conv._convolution_of
    with pytest.MonkeyPatch.context() as patch:
        for module, pays in ((winograd, True), (narrow, False)):
            patch.setattr(module.Call, "pays", lambda call, machine, pays=pays: pays)
        for known in plans:
            known.cache_clear()
        yield
    for known in plans:
        known.cache_clear()


@dataclass
class Recorded:
    """Launches of a convolution, a pooling and both errors, the places of what they make, and what they are given."""

    launches: list[Launch]
    places: dict[str, Place]
    given: dict[str, Any]

    def results(self, *names: str) -> list[Place]:
        return [self.places[name] for name in names]

    def done(self, launches: Iterable[Launch], names: Iterable[str], end: bool) -> dict[str, bytes]:
        """What lies in these places after some launches; all arrays lie beside memory that nobody may touch."""
        memory: dict[int, Any] = {}

        def number(argument: Any) -> Any:
            if not isinstance(argument, Place):
                return argument
            buffer = argument.buffer
            if buffer.array is not None:
                return buffer.array.ctypes.data + argument.offset
            if buffer.address not in memory:
                new = guarded(buffer.size // buffer.dtype.itemsize, buffer.dtype, end)
                memory[buffer.address] = copied(self.given[buffer.name], end) if buffer.name else new
            return memory[buffer.address].ctypes.data + argument.offset

        for launch in launches:
            scratch = guarded(launch.scratch, np.uint8, end)
            launch.function(*map(number, launch.arguments), scratch.ctypes.data, 0, launch.tasks)
        return {name: memory[self.places[name].buffer.address].tobytes() for name in names}


def recorded(
    shape: tuple[int, int, int, int],
    filters: int,
    dtype: Any = np.float32,
    pool: Any = MAX,
    f: Any = RELU,
    biased: bool = True,
    seed: int = 0,
) -> Recorded:
    """Small whole numbers, many of them alike; some are NaN or infinite."""
    element, rng = ft.Conv(filters, kernel=3, padding=1, bias=biased), np.random.default_rng(seed)
    x, bias = rng.integers(-2, 3, shape).astype(dtype), rng.integers(-2, 3, filters).astype(dtype)
    x.flat[rng.integers(x.size, size=2)] = rng.choice([np.nan, np.inf, 0, 1], 2)
    bias[rng.integers(filters)] = rng.choice([np.inf, -np.inf, np.nan, 0])
    w = rng.integers(-2, 3, (3, 3, shape[-1], filters)).astype(dtype)
    given = {"x": x, "w": w, "bias": bias}
    with recording(sliced=False, exact=False) as recorder:
        kinds = {"x": "input", "dy": "input", "w": "parameter", "bias": "parameter"}
        at = {name: recorder.array(array.shape, dtype, kinds[name], name) for name, array in given.items()}
        convolution = conv.convolution_of(element, shape[1:], np.dtype(dtype))
        y = convolution.forward(at["x"], at["w"], at["bias"] if biased else None).reshape(*shape[:-1], filters)
        z, kept = pointwise.forward(f, {}, y) if f else (y, None)
        p, kept_p = pooling.forward(pool, {}, z)
        given["dy"] = rng.integers(-2, 3, p.shape).astype(dtype)
        given["dy"].flat[rng.integers(p.size, size=3)] = [np.inf, -np.inf, np.nan]
        dy = recorder.array(p.shape, dtype, "input", "dy")
        dz = pooling.error(pool, {}, kept_p, dy)
        dx = pointwise.error(f, {}, kept, dz) if f else dz
        arrays = {"y": y, "z": z, "p": p, "dz": dz, "dx": dx}
        places = {name: recorder.place(array) for name, array in arrays.items()}
        if kept_p[2] is not None:
            places["taps"] = recorder.place(kept_p[2])
    return Recorded(recorder.launches, places, given)


def names(launches: Iterable[Launch]) -> list[str]:
    return [launch.function.name for launch in launches]


def check(found: Recorded, *wanted: str, end: bool = True) -> list[str]:
    """The wanted results have the same bits with and without fusion; these are the kernels with it."""
    results = found.results(*wanted)
    together = pooled(fused(sooner(found.launches, results), results), results)
    with np.errstate(all="ignore"):
        assert found.done(together, wanted, end) == found.done(found.launches, wanted, end)
    return names(together)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(COMPILED), st.integers(1, 3), st.integers(2, 9), st.integers(2, 40), st.booleans(), st.booleans(),
    st.sampled_from([None, RELU, RELU, LEAKY]), st.sampled_from([MAX, MEAN]),
    st.sets(st.sampled_from(["y", "z", "taps", "dz", "dx"])), st.integers(0, 99),
)  # fmt: skip
def test_the_same_bits_over_random_sizes(compiled, batch, height, width, biased, end, f, pool, wanted, seed):
    dtype, channels, filters = compiled
    found = recorded((batch, height, width, channels), filters, dtype, pool, f, biased, seed)
    kernels = check(found, "p", *(wanted & found.places.keys()), end=end)
    between = f == LEAKY or (f == RELU and "y" in wanted)  # y is stored, since the way back or the caller wants it
    assert ("pool_forward" in kernels) == between


@pytest.mark.parametrize("height", range(2, 6))
def test_few_rows_and_odd_borders(height):
    for width in (2, 3, 7, 27, 49):
        kernels = check(recorded((2, height, width, 5), 7), "p", "taps", "dx", end=False)
        assert kernels == ["pack", "convolve_elementwise_pooled", "elementwise", "pool_gather"]


@pytest.mark.parametrize("name", machines())
def test_every_machine(name):
    with made_for(name):
        for dtype in (np.float32, np.float64):
            for filters in (1, 9, 33):
                assert "pool_forward" not in check(recorded((2, 5, 6, 3), filters, dtype), "p", "dx")


@pytest.mark.parametrize("pool", [ft.MaxPool(3), ft.MaxPool((2, 3)), ft.MaxPool(2, padding=1), ft.MaxPool((1, 2))])
def test_steps_go_before_the_errors_of_all_disjoint_regions(pool):
    for seed in range(5):
        kernels = check(recorded((2, 8, 7, 4), 6, pool=pool, seed=seed), "p", "dx")
        assert kernels == ["pack", "convolve_elementwise", "pool_forward", "elementwise", "pool_gather"]


@pytest.mark.parametrize(
    ("pool", "f"),
    [(ft.MaxPool(2, stride=1), RELU), (MEAN, RELU), (MAX, ft.Tanh())],
)
def test_other_products_stay_where_they_are(pool, f):
    kernels = check(recorded((2, 8, 7, 4), 6, pool=pool, f=f), "p", "dx")
    assert kernels[-1] == "pool_gather_elementwise"


@pytest.mark.parametrize("pool", [ft.MaxPool(2, stride=3), ft.MaxPool(2, padding=1), ft.MeanPool((2, 1)), ft.LpPool(2)])
def test_only_tiles_are_pooled_there(pool):
    assert "pool_forward" in check(recorded((1, 6, 6, 4), 6, pool=pool), "p")


def test_what_nobody_reads_is_not_stored():
    found = recorded((2, 6, 6, 4), 6)
    for wanted, count in ((["p"], 1), (["p", "taps"], 2), (["p", "z"], 2), (["p", "z", "taps"], 3)):
        results = found.results(*wanted)
        forward = found.launches[:4]
        _, both = pooled(fused(forward, results), results)
        assert len(both.writes) == count


# Networks


def network(*, wide: bool = False) -> ft.Network:
    """With two poolings; ``wide``, the values before the first one are read once more."""
    nodes = {
        "conv1": ft.Node(ft.Conv(16, kernel=3, padding=1), "x"), "relu1": ft.Node(RELU, "conv1"),
        "pool1": ft.Node(MAX, "relu1"),
        "conv2": ft.Node(ft.Conv(20, kernel=3, padding=1), "pool1"), "relu2": ft.Node(RELU, "conv2"),
        "pool2": ft.Node(MAX, "relu2"), "flat": ft.Node(ft.Flatten(), "pool2"), "dense": ft.Node(ft.Affine(5), "flat"),
    }  # fmt: skip
    if wide:
        nodes |= {"mean": ft.Node(ft.GlobalPool("mean"), "relu1"), "wide": ft.Node(ft.Concat(), "mean", "dense")}
    return ft.Graph(outputs=None, **nodes).on((13, 10, 16)).on_executor("native")


@contextmanager
def apart() -> Iterator[None]:
    """Within, poolings are launches of their own, and steps come behind their errors."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sooner", "pooled"):
            patch.setattr(plan, name, lambda launches, results: tuple(launches))
        yield


def trained(own: ft.Network, batch: int, dtype: Any) -> dict[str, bytes]:
    """The parameters after a step of training, and its cost."""
    rng, sgd = np.random.default_rng(0), ft.SGD(0.1)
    params = {name: w.astype(dtype) for name, w in own.initial(0).items()}
    x, labels = rng.normal(size=(batch, 13, 10, 16)).astype(dtype), np.arange(batch) % 5
    done = own.train_step(params, sgd.slots(params), x, labels, cost=ft.CrossEntropy(), optimiser=sgd)
    return {name: w.tobytes() for name, w in done.params.items()} | {"cost": np.float64(done.cost).tobytes()}


def kernels(own: ft.Network) -> list[tuple[str, str]]:
    """Node and kernel of all launches of the newest plan."""
    found = networks.plans.newest(own)
    assert found is not None
    return [(c.launch.node, c.launch.function.name) for _, _, some, _ in explain._jobs(found.planned) for c in some]


@pytest.mark.parametrize(
    ("wide", "batch", "dtype"),
    [(False, 1, np.float32), (True, 1, np.float64), (False, 9, np.float64), (True, 9, np.float32)],
)
def test_steps_of_training_have_the_same_bits_for_any_number_of_workers(wide, batch, dtype, monkeypatch):
    with apart():
        expected = trained(network(wide=wide), batch, dtype)
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        assert trained(network(wide=wide), batch, dtype) == expected


@pytest.mark.parametrize("batch", [1, 9])
def test_predictors_have_the_same_bits_and_give_every_output(batch):
    nodes, x = network(wide=True).composite.nodes, np.random.default_rng(0).normal(size=(batch, 13, 10, 16))
    for outputs in (["dense"], ["wide"], ["pool1", "dense"], ["relu2", "dense"], ["conv1", "pool2"]):
        own = ft.Graph(outputs=outputs, **nodes).on((13, 10, 16)).on_executor("native")
        params = own.initial(0)
        with apart():
            expected = own.predictor(params)(x.astype(np.float32))
        again = ft.Graph(outputs=outputs, **nodes).on((13, 10, 16)).on_executor("native")
        y = again.predictor(params)(x.astype(np.float32))
        for one, other in zip(*(v.values() if isinstance(v, dict) else [v] for v in (y, expected)), strict=True):
            assert one.tobytes() == other.tobytes()


def test_what_is_fused():
    own = network()
    trained(own, 9, np.float32)
    found = kernels(own)
    assert ("conv1 + relu1 + pool1", "convolve_elementwise_pooled") in found
    assert ("conv2 + relu1", "convolve_elementwise") in found  # its error, and the step before that of pool1
    assert ("pool1", "pool_gather") in found
    assert not any(name.startswith("pool_forward") for _, name in found)


@pytest.mark.parametrize("keep", [(), ("relu1",), ("pool1",), "all"])
def test_backpropagation_keeps_what_is_asked_for(keep):
    own, x = network(), np.random.default_rng(0).normal(size=(9, 13, 10, 16)).astype(np.float32)
    params, labels = own.initial(0), np.arange(9) % 5
    with apart():
        expected = network().backpropagate(params, x, labels, cost=ft.CrossEntropy(), keep=keep)
    back = own.backpropagate(params, x, labels, cost=ft.CrossEntropy(), keep=keep)
    assert back.cost == expected.cost
    for part in ("values", "errors", "gradients"):
        a, b = getattr(back, part), getattr(expected, part)
        assert {name: v.tobytes() for name, v in a.items()} == {name: v.tobytes() for name, v in b.items()}
