"""The native executor computes what the definitions say: to tolerance, and always with the same bits."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faltung.elements import (
    Affine,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Cost,
    CrossEntropy,
    Dropout,
    Element,
    Embedding,
    Flatten,
    GlobalPool,
    LayerNorm,
    MaxPool,
    Pool,
    Product,
    ReLU,
    Resize,
    Run,
    Sigmoid,
    SquaredError,
    Sum,
    Tanh,
)
from faltung.engine.host import workers
from faltung.engine.host.compile import counters
from faltung.errors import SettingError, ShapeError
from faltung.models.recipes import allconv, lenet5, ufldl
from faltung.network import Backward, Chain, Composite, Graph, Network, Node
from sketches import assert_same, filled, random, sketches

# Networks


def residual_network() -> Graph:
    def conv(source: str) -> Node:
        return Node(Conv(16, kernel=3, padding="same", bias=False), source)

    return Graph(
        stem=Node(Conv(16, kernel=3, padding="same", bias=False), "x"),
        norm0=Node(BatchNorm(), "stem"),
        relu0=Node(ReLU(), "norm0"),
        conv1=conv("relu0"),
        norm1=Node(BatchNorm(), "conv1"),
        relu1=Node(ReLU(), "norm1"),
        drop=Node(Dropout(0.3), "relu1"),
        conv2=conv("drop"),
        norm2=Node(BatchNorm(), "conv2"),
        sum=Node(Sum(), "norm2", "relu0"),
        relu2=Node(ReLU(), "sum"),
        pool=Node(GlobalPool("mean"), "relu2"),
        dense=Node(Affine(5), "pool"),
    )


def dilated_gates() -> Graph:
    nodes: dict[str, Node] = {"embed": Node(Embedding(17, 12), "x")}
    skips, source = [], "embed"
    for n, dilation in enumerate((1, 2, 4)):
        conv = Conv(12, kernel=2, dilation=dilation, padding="causal")
        nodes |= {
            f"filter{n}": Node(conv, source),
            f"gate{n}": Node(conv, source),
            f"tanh{n}": Node(Tanh(), f"filter{n}"),
            f"sigm{n}": Node(Sigmoid(), f"gate{n}"),
            f"z{n}": Node(Product(), f"tanh{n}", f"sigm{n}"),
            f"out{n}": Node(Conv(12, kernel=1), f"z{n}"),
            f"sum{n}": Node(Sum(), f"out{n}", source),
        }
        skips, source = [*skips, f"out{n}"], f"sum{n}"
    nodes |= {"skip": Node(Sum(), *skips), "logits": Node(Conv(5, kernel=1), "skip")}
    return Graph(outputs=["logits"], **nodes)


def unet() -> Graph:
    def conv(filters: int, source: str) -> Node:
        return Node(Conv(filters, kernel=3, padding="same"), source)

    return Graph(
        a=conv(8, "x"),
        a_t=Node(Tanh(), "a"),
        down=Node(MaxPool(2), "a_t"),
        b=conv(16, "down"),
        b_t=Node(Tanh(), "b"),
        norm=Node(LayerNorm(), "b_t"),
        up=Node(ConvTranspose(8, kernel=2, stride=2), "norm"),
        wide=Node(Resize(scale=2), "norm"),
        joined=Node(Concat(), "a_t", "up", "wide"),
        c=conv(8, "joined"),
        c_t=Node(Tanh(), "c"),
        map=Node(Conv(5, kernel=1), "c_t"),
    )


@dataclass(frozen=True)
class Case:
    """A network, a batch for it, and the longest sum in which one number of it meets others."""

    composite: Composite
    shape: tuple[int | None, ...]
    batch: tuple[int, ...]
    longest: int
    indices: int = 0
    """How many different ones the input holds, where it holds indices."""
    by_position: bool = False

    def network(self, executor: str = "native") -> Network:
        return self.composite.on(self.shape).on_executor(executor)

    def x(self, dtype: Any) -> Any:
        rng = np.random.default_rng(3)
        return rng.integers(0, self.indices, self.batch) if self.indices else rng.normal(size=self.batch).astype(dtype)

    def target(self) -> Any:
        shape = self.batch[: 1 if not self.by_position else len(self.batch) - (not self.indices)]
        return np.random.default_rng(4).integers(0, 5, shape)


CASES = {
    "ufldl": Case(ufldl(5), (28, 28, 1), (9, 28, 28, 1), 9 * 400),
    "lenet5": Case(lenet5(5), (28, 28, 1), (9, 28, 28, 1), 9 * 784),
    "allconv": Case(allconv(5), (None, None, 3), (5, 20, 17, 3), 5 * 340),
    "residual": Case(residual_network(), (None, None, 3), (6, 9, 10, 3), 6 * 90),
    "gates": Case(dilated_gates(), (None,), (4, 50), 200, indices=17, by_position=True),
    "unet": Case(unet(), (None, None, 2), (3, 12, 10, 2), 360, by_position=True),
}
DTYPES = [np.float32, np.float64]


def initial(net: Network, dtype: Any) -> dict[str, Any]:
    """Parameters as they are drawn, but with biases that are not 0."""
    rng = np.random.default_rng(5)
    params = net.initial(seed=1, dtype=dtype)
    return {name: w + (0.1 * rng.random(w.shape)).astype(dtype) if w.ndim == 1 else w for name, w in params.items()}


def step(case: Case, net: Network, dtype: Any, **more: Any) -> Backward:
    run = Run(training=True, seed=7, step=2)
    return net.backpropagate(
        initial(net, dtype), case.x(dtype), case.target(), cost=CrossEntropy(), **{"run": run, **more}
    )


def tolerance(dtype: Any, length: int, depth: int) -> float:
    """Relative to the largest number: rounding errors of a sum grow as the root of its length, and add up in depth."""
    return float(np.finfo(dtype).eps) * 4 * depth * length**0.5


def assert_close(one: Any, other: Any, relative: float, name: str) -> None:
    assert (one.shape, one.dtype) == (other.shape, other.dtype), name
    worst = np.max(abs(one - other), initial=0)
    assert worst <= relative * max(np.max(abs(other), initial=0), 1e-30), (name, worst)  # so that NaN fails


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_networks_compute_what_the_definitions_say(name, dtype):
    case = CASES[name]
    net = case.network()
    back, law = step(case, net, dtype), step(case, case.network("reference"), dtype)
    relative = tolerance(dtype, case.longest, len(net.steps))
    assert abs(back.cost - law.cost) <= relative * law.cost
    for part in ("values", "errors", "gradients", "state"):
        found, expected = getattr(back, part), getattr(law, part)
        assert list(found) == list(expected)
        for key, array in expected.items():
            assert_close(found[key], array, relative, f"{part} {key}")


@settings(max_examples=25, deadline=None)
@given(sketches(), st.sampled_from(DTYPES))
def test_random_graphs_compute_what_the_definitions_say(sketch, dtype):
    law = sketch.network()
    net = law.on_executor("native")
    params = {name: w.astype(dtype) for name, w in filled(law).items()}
    x = random(2, *sketch.shape, seed=sketch.seed).astype(dtype)
    values = law.forward(params, x).values
    read = [s.sources[0] for s in law.steps if isinstance(s.element, ReLU)]
    assume(all(np.min(abs(values[name])) > 1e-3 for name in read))
    targets = {name: random(*values[name].shape, seed=n) for n, name in enumerate(law.outputs)}
    cost: dict[str, Cost] = dict.fromkeys(law.outputs, SquaredError())
    back, expected = (n.backpropagate(params, x, targets, cost=cost) for n in (net, law))
    relative = tolerance(dtype, 100, 4 * len(net.steps))
    assert abs(back.cost - expected.cost) <= relative * expected.cost
    for part in ("values", "errors", "gradients"):
        for key, array in getattr(expected, part).items():
            assert_close(getattr(back, part)[key], array, relative, f"{part} {key}")


# The same bits


@pytest.fixture
def many_threads(monkeypatch):
    """Even the smallest work is shared."""
    monkeypatch.setattr(workers, "SMALL", 0)
    monkeypatch.setattr(workers, "WAKING", 0)


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_the_bits_do_not_depend_on_the_number_of_threads(name, dtype, monkeypatch):
    case = CASES[name]
    net = case.network()
    results = []
    for threads in ("1", "2", "3", "8", "2"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        results.append(step(case, net, dtype))
    for other in results[1:]:
        assert_same(results[0], other)


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize("name", CASES)
def test_eight_python_threads_at_once_get_the_same_bits(name):
    case = CASES[name]
    net = case.network()
    alone = step(case, net, np.float32)
    with ThreadPoolExecutor(8) as threads:
        for other in threads.map(lambda _: step(case, net, np.float32), range(16)):
            assert_same(alone, other)


@pytest.mark.usefixtures("many_threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_gets_the_same_bits(monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", "3")
    case = CASES["unet"]
    net = case.network()
    before = step(case, net, np.float32)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        assert_same(before, step(case, net, np.float32))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("name", CASES)
def test_the_bits_do_not_depend_on_what_is_handed_back(name):
    case = CASES[name]
    net = case.network()
    full, lean = step(case, net, np.float32), step(case, net, np.float32, keep=())
    assert (lean.cost, lean.values, lean.errors) == (full.cost, {}, {})
    assert all(np.array_equal(lean.gradients[name], dw) for name, dw in full.gradients.items())
    params, x, run = initial(net, np.float32), case.x(np.float32), Run()
    forward = net.forward(params, x, run)
    assert np.array_equal(net.predict(params, x), forward.values[net.outputs[0]])


@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_an_example_do_not_depend_on_the_batch_around_it(name):
    case = CASES[name]
    net = case.network()
    params, x = initial(net, np.float32), case.x(np.float32)
    whole = net.predict(params, x)
    for first, last in ((0, 1), (1, 3), (len(x) - 1, len(x))):
        assert np.array_equal(net.predict(params, x[first:last]), whole[first:last])


def test_nothing_is_compiled_at_another_size():
    for name in ("allconv", "residual", "gates", "unet"):
        case = CASES[name]
        net = case.network()
        params = initial(net, np.float32)

        def train(batch: int, *axes: int, case: Case = case, net: Network = net, params: Any = params) -> None:
            x = np.zeros((batch, *axes, *case.batch[1 + len(axes) :]), int if case.indices else np.float32)
            target = np.zeros((batch, *axes) if case.by_position else batch, int)
            net.backpropagate(params, x, target, cost=CrossEntropy())

        rank = len(case.batch) - 1 - (not case.indices)
        sizes = [(2 + number, *(8 + 2 * number, 20 + 4 * number)[:rank]) for number in range(12)]
        for size in (sizes[0], sizes[-1]) * 2:  # small and large sizes may have kernels of their own,
            train(*size)  # and so may what is done again, by programs
        before = counters.compiled + counters.loaded
        for size in sizes * 2:
            train(*size)
        assert counters.compiled + counters.loaded == before, name


# What is given and handed back


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_written_into_what_is_given(name):
    case = CASES[name]
    net = case.network()
    params, x, target = initial(net, np.float32), case.x(np.float32), case.target()
    for array in (*params.values(), x, target):
        array.setflags(write=False)
    first = net.backpropagate(params, x, target, cost=CrossEntropy())
    arrays = [array for part in (first.values, first.errors, first.gradients) for array in part.values()]
    copies = [array.copy() for array in arrays]
    net.backpropagate({name: w + 1 for name, w in params.items()}, x, target, cost=CrossEntropy())
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, copies, strict=True))


def test_inputs_and_parameters_may_lie_anyhow():
    case = CASES["lenet5"]
    net = case.network()
    params, x = initial(net, np.float32), case.x(np.float32)
    expected = net.backpropagate(params, x, case.target(), cost=CrossEntropy())
    strided = np.repeat(x, 2, axis=0)[::2]
    turned = {name: np.asfortranarray(w) for name, w in params.items()}
    for other in (strided, np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(np.float64), x.tolist()):
        assert_same(expected, net.backpropagate(turned, other, case.target(), cost=CrossEntropy()))


def test_gradients_come_per_example_too():
    for name in ("lenet5", "unet"):
        case = CASES[name]
        net = case.network()
        more = {"run": Run(), "per_example": True}
        each, law = step(case, net, np.float64, **more), step(case, case.network("reference"), np.float64, **more)
        whole = step(case, net, np.float64, run=Run())
        relative = tolerance(np.float64, case.longest, len(net.steps))
        for full, dw in law.gradients.items():
            assert_close(each.gradients[full], dw, relative, full)
            assert_close(each.gradients[full].sum(0), whole.gradients[full], relative, full)


def test_a_batch_may_be_empty():
    net = CASES["lenet5"].network()
    params = initial(net, np.float32)
    assert net.predict(params, np.zeros((0, 28, 28, 1))).shape == (0, 5)
    back = net.backpropagate(params, np.zeros((0, 28, 28, 1)), np.zeros(0, int), cost=CrossEntropy())
    assert back.cost == 0
    assert not any(dw.any() for dw in back.gradients.values())


def test_what_a_node_refuses_names_the_node():
    net = (
        Graph(a=Node(Conv(2, kernel=3), "x"), s=Node(Sum(), "a", "y"))
        .on(x=(None, 1), y=(None, 2))
        .on_executor("native")
    )
    params = net.initial()
    with pytest.raises(ShapeError, match=r"Sum.* 's'"):
        net.predict(params, {"x": np.zeros((1, 9, 1)), "y": np.zeros((1, 9, 2))})


def test_subnormal_numbers_are_zeros_within_a_step_only():
    tiny = np.full((1, 3), 1e-30, np.float32)
    net = Chain(dense=Affine(2)).on((3,))
    params = {"dense.w": np.full((3, 2), 1e-10, np.float32), "dense.b": np.zeros(2, np.float32)}
    assert net.on_executor("reference").predict(params, tiny).all()
    assert not net.on_executor("native").predict(params, tiny).any()
    assert np.all(tiny * np.float32(1e-10) > 0)

    def fail(x: Any) -> Any:
        assert not np.any(tiny * np.float32(1e-10))
        raise ZeroDivisionError

    broken = Chain(pool=Pool(2, fail, fail)).on((4, 1)).on_executor("native")
    with pytest.raises(ZeroDivisionError):
        broken.predict({}, np.zeros((1, 4, 1), np.float32))
    assert np.all(tiny * np.float32(1e-10) > 0)


# Without kernels


class Twice(Element):
    """y = 2 x, which no lowering knows."""

    def output(self, *shapes: Any) -> Any:
        return shapes[0]

    def forward(self, params: Any, x: Any, run: Any = None) -> Any:
        return 2 * x, None

    def error(self, params: Any, kept: Any, dy: Any) -> Any:
        return 2 * dy


def test_elements_without_kernels_run_by_their_definitions():
    class OwnSigmoid(Sigmoid):
        pass

    def largest(x: Any) -> Any:
        return x.max(-1)

    def slope(x: Any) -> Any:
        return (x == x.max(-1, keepdims=True)).astype(x.dtype)

    nodes = [Conv(3, kernel=3), Twice(), OwnSigmoid(), Pool(2, largest, slope), Flatten(), Affine(2)]
    law = Chain(*nodes).on((6, 6, 1))
    net = law.on_executor("native")
    params, x, target = law.initial(dtype=np.float64), random(4, 6, 6, 1), random(4, 2, seed=1)
    back, expected = (n.backpropagate(params, x, target, cost=SquaredError()) for n in (net, law))
    for key, dw in expected.gradients.items():
        assert_close(back.gradients[key], dw, 1e-13, key)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_numbers_that_kernels_do_not_know_are_left_to_the_definitions(dtype):
    case = CASES["lenet5"]
    params = {name: w.astype(dtype) for name, w in initial(case.network(), np.float32).items()}
    back, law = (
        net.backpropagate(params, case.x(dtype), case.target(), cost=CrossEntropy())
        for net in (case.network(), case.network("reference"))
    )
    assert_same(back, law)


def test_bytes_may_come_in_another_order_as_inputs_but_not_as_parameters():
    swapped = np.dtype(np.float32).newbyteorder()
    net = Chain(tanh=Tanh(), dense=Affine(2)).on((3,)).on_executor("native")
    params, x = net.initial(), np.ones((2, 3), np.float32)
    assert np.array_equal(net.predict(params, x.astype(swapped)), net.predict(params, x))
    free = Chain(tanh=Tanh()).on((3,)).on_executor("native")
    assert np.array_equal(free.predict({}, x.astype(swapped)), free.predict({}, x))
    with pytest.raises(
        SettingError, match=r"got dense.w of >f4 among parameters of .*>f4, expected one floating dtype"
    ):
        net.predict({name: w.astype(swapped) for name, w in params.items()}, x)


# Which executor runs


OTHER = {"reference": "native", "native": "reference"}


@pytest.mark.parametrize("name", OTHER)
def test_the_environment_names_the_executor(name, monkeypatch):
    monkeypatch.setenv("FALTUNG_EXECUTOR", name)
    net = Chain(Tanh()).on((3,))
    assert [net.compute == net.on_executor(other).compute for other in (name, OTHER[name])] == [True, False]


def test_an_unknown_executor_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("FALTUNG_EXECUTOR", "abacus")
    with pytest.raises(SettingError, match="got executor='abacus', expected one of reference, native; choose another"):
        Chain(Tanh()).on((3,))


ONE_WARNING = """
import sys, warnings
import numpy as np
{before}
import faltung as ft
net = ft.Chain(conv=ft.Conv(2, kernel=3), mean=ft.MeanPool(2)).on((8, 1))
nets = [net.on_executor(name) for name in ("reference", "native", "native")]
assert "llvmlite.binding" not in sys.modules
params, x = net.initial(), np.ones((2, 8, 1), np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    y, *others = [net.predict(params, x) for net in nets]
assert all(np.array_equal(y, other) for other in others)
print(*(warning.message for warning in caught), sep="|")
"""
REFUSED = """
from faltung.errors import EngineError
import faltung.engine.host.image as image
def refuse(*_):
    raise EngineError("the system refuses memory for machine code")
image.protect = refuse
for name in [name for name in sys.modules if name.startswith("llvmlite")]:
    del sys.modules[name]
"""


@pytest.mark.parametrize(
    ("before", "warning"),
    [
        ("sys.modules['llvmlite'] = None", "llvmlite cannot be imported (import of llvmlite halted"),
        (REFUSED, "the system refuses memory for machine code"),
    ],
)
def test_where_machine_code_cannot_run_the_definitions_do_after_one_warning(before, warning):
    code = ONE_WARNING.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(warning)
    assert done.stdout.endswith("; networks run on the reference executor\n")
    assert "|" not in done.stdout
