"""Compiled normalisations against their NumPy definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import BatchNorm, LayerNorm
from faltung.elements.element import Run, example
from faltung.engine.host.recording import recording
from faltung.engine.kernels.channels import PERIODS, SLICES, period, period_of, slice_of
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.normalisation import LOWERINGS
from faltung.errors import ShapeError
from lowered import FLOATS, compare

TRAINING = Run(training=True)
CASES = {
    "batch, training": (BatchNorm(), TRAINING), "batch": (BatchNorm(epsilon=1e-3), Run()),
    "layer": (LayerNorm(), Run()), "layer, all": (LayerNorm(axes="all"), TRAINING),
}  # fmt: skip
cases = pytest.mark.parametrize(("norm", "run"), CASES.values(), ids=CASES)


def arrays(norm: Any, *shape: int, dtype: Any = np.float64, seed: int = 0) -> Any:
    """Parameters, state, and an input whose channels differ in mean and size."""
    rng = np.random.default_rng(seed)
    names = [*norm.parameters(shape[1:]), *norm.state(shape[1:])]
    params = {name: rng.uniform(0.5, 2, shape[-1]).astype(dtype) for name in names}
    x = rng.normal(rng.uniform(-3, 3, shape[-1]), rng.uniform(0.5, 2, shape[-1]), shape)
    return params, x.astype(dtype)


@cases
@pytest.mark.parametrize("dtype", FLOATS)
def test_agrees_on_every_machine_between_guards(norm, run, dtype, machine, end):
    for shape in ((4, 5, 1), (3, 7, 3), (2, 4, 16), (2, 3, 3, 17), (2, 40)):
        params, x = arrays(norm, *shape, dtype=dtype)
        compare(norm, params, x, run, end=end, tolerance=100 if shape == (2, 40) else 30)


@cases
@given(
    st.integers(2, 5), st.lists(st.integers(1, 6), max_size=3), st.integers(1, 40), st.sampled_from(FLOATS),
    st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_any_shape(norm, run, batch, axes, channels, dtype, seed):
    params, x = arrays(norm, batch, *axes, channels, dtype=dtype, seed=seed)
    x[0] += 1  # no variance is so small that it is all rounding
    x[1] -= 1
    x[..., 0] += 1
    compare(norm, params, x, run, tolerance=300, seed=seed)


@cases
@pytest.mark.parametrize("channels", [3, 64, 100, 333])
def test_several_blocks(norm, run, channels):
    rows = 3 * max(BLOCK, PERIODS * period(channels, 16)) // channels + 1
    params, x = arrays(norm, 2, rows, channels, dtype=np.float32)
    compare(norm, params, x, run, tolerance=200)


def test_a_period_holds_all_channels_in_whole_vectors_or_many_of_them():
    for channels in (1, 2, 3, 16, 20, 63, 64, 127, 128, 1001):
        for lanes in (4, 8, 16):
            size = period(channels, lanes)
            assert size % channels == 0
            assert size % lanes == 0 or size == channels
            assert 8 * lanes <= size <= max(channels, 8 * lanes * lanes)


def test_slices_are_whole_examples_where_there_are_enough():
    assert [slice_of(np.empty(shape, np.float32)) for shape in ((32, 9, 9, 64), (33, 9, 9, 64), (3, 10000, 64))] == [
        4 * 81 * 64,
        5 * 81 * 64,
        3750 * 64,
    ]


def test_a_large_mean_costs_no_digits_of_the_variance():
    """The mean is ten thousand times sigma: its square has no digit left for the variance in float32, and few in 64."""
    norm, rng = BatchNorm(), np.random.default_rng(0)
    x = (1e4 + rng.normal(size=(1000, 7))).astype(np.float32)
    params, _ = arrays(norm, 2, 7, dtype=np.float32)
    y, kept = LOWERINGS[BatchNorm][0](norm, params, x, TRAINING)
    double = {name: array.astype(np.float64) for name, array in params.items()}
    exact, _ = norm.forward(double, x.astype(np.float64), TRAINING)
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6)
    _, variance = kept[-1]
    np.testing.assert_allclose(variance[0], x.astype(np.float64).var(0, ddof=1), rtol=1e-11)


def test_the_first_rows_may_be_unlike_the_others():
    norm, x = BatchNorm(), np.zeros((5000, 2))
    x[100:] = np.random.default_rng(0).normal(1e6, 1, (4900, 2))
    params, _ = arrays(norm, 2, 2)
    y, _ = LOWERINGS[BatchNorm][0](norm, params, x, TRAINING)
    np.testing.assert_allclose(y, norm.forward(params, x, TRAINING)[0], rtol=1e-9)


@cases
def test_the_number_of_threads_does_not_change_a_bit(norm, run, monkeypatch):
    forward, error, gradient, *_ = LOWERINGS[type(norm)]
    params, x = arrays(norm, 16, 8000, 24, dtype=np.float32)
    dy, results = x[::-1].copy(), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        y, kept = forward(norm, params, x, run)
        results.append([y, error(norm, params, kept, dy), *gradient(norm, params, kept, dy).values()])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("shape", [(40, 2 * BLOCK, 2), (100, 1001), (100, 127), (2, 5000, 65), (9, 80, 80, 3)], ids=str)
def test_partial_sums_are_few(shape):
    """However large the batch, and the memory for them is little beside x."""
    x = np.empty(shape, np.float32)
    slices = -(-x.size // slice_of(x))
    assert slices <= SLICES
    assert 2 * 8 * period_of(x) * slices <= x.nbytes


@cases
def test_what_is_kept_can_be_cut_to_one_example(norm, run):
    forward, _, gradient, *_ = LOWERINGS[type(norm)]
    params, x = arrays(norm, 3, 4, 5)
    dy = np.random.default_rng(1).normal(size=x.shape)
    _, kept = forward(norm, params, x, run)
    shares = [gradient(norm, params, example(kept, n), dy[n : n + 1]) for n in range(3)]
    for name, whole in gradient(norm, params, kept, dy).items():
        np.testing.assert_allclose(sum(share[name] for share in shares), whole, rtol=1e-12)


@pytest.mark.parametrize("norm", [BatchNorm(), LayerNorm(), LayerNorm(axes="all")], ids=repr)
def test_no_examples(norm):
    forward, error, gradient, *_ = LOWERINGS[type(norm)]
    params, x = arrays(norm, 0, 4, 3)
    y, kept = forward(norm, params, x)
    assert y.shape == error(norm, params, kept, x).shape == (0, 4, 3)
    assert gradient(norm, params, kept, x)["scale"].tolist() == [0, 0, 0]


def test_one_value_has_no_variance():
    params, x = arrays(BatchNorm(), 1, 3)
    with pytest.raises(ShapeError, match="got 1 values of each channel in training"):
        LOWERINGS[BatchNorm][0](BatchNorm(), params, x, TRAINING)


def test_nan_stays_in_its_channel_or_row():
    x = np.random.default_rng(0).normal(size=(4, 6, 3))
    x[1, 2, 1] = np.nan
    norm = BatchNorm()
    y, _ = LOWERINGS[BatchNorm][0](norm, arrays(norm, 4, 6, 3)[0], x, TRAINING)
    assert np.isnan(y[..., 1]).all()
    assert np.isfinite(y[..., [0, 2]]).all()
    norm = LayerNorm()
    y, _ = LOWERINGS[LayerNorm][0](norm, arrays(norm, 4, 6, 3)[0], x)
    assert np.isnan(y[1, 2]).all()
    assert np.isnan(y).sum() == 3


@cases
def test_error_and_gradients_together_are_those_apart(norm, run):
    forward, error, gradient, backward, *_ = LOWERINGS[type(norm)]
    params, x = arrays(norm, 9, 40, 24, dtype=np.float32)
    _, kept = forward(norm, params, x, run)
    dx, gradients = backward(norm, params, kept, x[::-1])
    assert np.array_equal(dx, error(norm, params, kept, x[::-1]))
    for name, whole in gradient(norm, params, kept, x[::-1]).items():
        assert np.array_equal(gradients[name], whole)


@pytest.mark.parametrize("norm", [BatchNorm(), LayerNorm(), LayerNorm(axes="all")], ids=repr)
def test_all_that_is_done_can_be_recorded(norm):
    """No launch reads what NumPy has made, and what is summed over examples lies in sums."""
    _, _, _, backward, *_ = LOWERINGS[type(norm)]
    with recording(sliced=True) as recorder:
        names = [*norm.parameters((6, 20)), *norm.state((6, 20))]
        params = {name: recorder.array((20,), np.float32, "parameter", name) for name in names}
        x = recorder.array((3, 6, 20), np.float32, "input", "x")
        _, kept = LOWERINGS[type(norm)][0](norm, params, x, TRAINING)
        backward(norm, params, kept, recorder.array((3, 6, 20), np.float32, "input", "dy"))
    added = [launch for launch in recorder.launches if any(buffer.kind == "sums" for buffer in launch.writes)]
    assert len(added) == (2 if isinstance(norm, BatchNorm) else 1)
    assert all(launch.tasks == 1 for launch in added)
