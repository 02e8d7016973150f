import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.element import Run, example
from faltung.elements.normalisation import BatchNorm, LayerNorm
from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field

TRAINING = Run(training=True)
NORMS = [
    (LayerNorm(), Run()),
    (LayerNorm(axes="all"), TRAINING),
    (BatchNorm(), TRAINING),
    (BatchNorm(momentum=0.5, epsilon=0.1), Run()),
]
shapes = st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 2), st.integers(1, 4)).flatmap(
    lambda shape: st.sampled_from([shape, shape[:2] + shape[3:], (shape[0], shape[3])])
)


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def params_for(seed, channels):
    random = np.random.default_rng(seed)
    names = ("scale", "shift", "mean", "variance")
    return {name: random.uniform(0.5, 2, channels) for name in names}


@pytest.mark.parametrize(("norm", "run"), NORMS)
@given(shape=shapes, seed=st.integers(0, 1000))
@settings(max_examples=12, deadline=None)
def test_derivatives_are_those_of_central_differences(norm, run, shape, seed):
    x, dy, params = normal(seed, shape), normal(seed + 1, shape), params_for(seed, shape[-1])
    _, kept = norm.forward(params, x, run)
    assert_close(norm.error(params, kept, dy), slope(lambda x: norm.forward(params, x, run)[0], x, dy), 3e-6)
    gradient = norm.gradient(params, kept, dy)
    assert set(gradient) == {"scale", "shift"}
    for name, got in gradient.items():
        assert_close(got, slope(lambda w, n=name: norm.forward(params | {n: w}, x, run)[0], params[name], dy))


@pytest.mark.parametrize(("norm", "run"), NORMS)
def test_shares_of_the_examples_add_up_to_the_gradient(norm, run):
    x, dy, params = normal(0, (5, 3, 4)), normal(1, (5, 3, 4)), params_for(2, 4)
    _, kept = norm.forward(params, x, run)
    whole = norm.gradient(params, kept, dy)
    shares = [norm.gradient(params, example(kept, n), dy[n : n + 1]) for n in range(5)]
    for name, gradient in whole.items():
        assert_close(np.sum([share[name] for share in shares], axis=0), gradient, 1e-14)
        assert_close(shares[2][name], {"scale": dy * kept[0], "shift": dy}[name][2].sum(0), 1e-14)


@pytest.mark.parametrize(("norm", "run"), NORMS)
def test_float32_stays_float32_and_agrees_with_float64(norm, run):
    x, dy, params = normal(0, (4, 6, 5)) + 3, normal(1, (4, 6, 5)), params_for(2, 5)
    narrow = {name: w.astype(np.float32) for name, w in params.items()}
    y, kept = norm.forward(params, x, run)
    y32, kept32 = norm.forward(narrow, x.astype(np.float32), run)
    dx, dx32 = norm.error(params, kept, dy), norm.error(narrow, kept32, dy.astype(np.float32))
    gradient32 = norm.gradient(narrow, kept32, dy.astype(np.float32)) | norm.renew(narrow, kept32)
    for got in (y32, dx32, *gradient32.values()):
        assert got.dtype == np.float32
    assert_close(y32, y, 2e-6)
    assert_close(dx32, dx, 2e-6)


def test_layer_norm_has_mean_0_and_variance_1_over_its_axes():
    x, params = 5 + 3 * normal(0, (3, 4, 2, 6)), {"scale": np.ones(6), "shift": np.zeros(6)}
    for axes, over in (("channels", (3,)), ("all", (1, 2, 3))):
        y, _ = LayerNorm(axes=axes, epsilon=1e-12).forward(params, x)
        assert_close(y.mean(over), np.zeros(y.mean(over).shape), 1e-12)
        assert_close(y.var(over), np.ones(y.var(over).shape), 1e-9)
    whole, _ = LayerNorm(axes="all").forward(params, x)
    assert np.array_equal(LayerNorm(axes="all").forward(params, x[1:2])[0], whole[1:2])


def test_batch_norm_normalises_by_the_batch_in_training_only():
    x, params = normal(0, (3, 4, 5, 2)), params_for(1, 2)
    y, _ = BatchNorm().forward(params, x, TRAINING)
    xhat = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    assert_close(y, xhat * params["scale"] + params["shift"], 1e-13)
    y, kept = BatchNorm().forward(params, x)
    xhat = (x - params["mean"]) / np.sqrt(params["variance"] + 1e-5)
    assert_close(y, xhat * params["scale"] + params["shift"], 1e-13)
    assert BatchNorm().renew(params, kept) == {}


def test_batch_norm_renews_its_state():
    x, params = normal(0, (3, 4, 2)), params_for(1, 2)
    before = {name: w.copy() for name, w in params.items()}
    _, kept = BatchNorm(momentum=0.75).forward(params, x, TRAINING)
    new = BatchNorm(momentum=0.75).renew(params, kept)
    assert set(new) == {"mean", "variance"}
    assert_close(new["mean"], 0.75 * params["mean"] + 0.25 * x.mean((0, 1)), 1e-14)
    assert_close(new["variance"], 0.75 * params["variance"] + 0.25 * x.var((0, 1), ddof=1), 1e-14)
    assert all(np.array_equal(params[name], before[name]) for name in params)


def test_large_means_do_not_spoil_float32():
    x = (1000 + normal(0, (64, 28, 28, 2))).astype(np.float32)
    params = {"scale": np.ones(2, np.float32), "shift": np.zeros(2, np.float32)}
    state = {"mean": np.zeros(2, np.float32), "variance": np.ones(2, np.float32)}
    y, kept = BatchNorm(momentum=0).forward(params | state, x, TRAINING)
    exact = x.astype(np.float64)
    assert_close(y, (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5), 1e-6)
    new = BatchNorm(momentum=0).renew(params | state, kept)
    assert_close(new["variance"], exact.var((0, 1, 2), ddof=1), 1e-6)


def test_shapes_parameters_and_state():
    assert LayerNorm().output((None, 3)) == BatchNorm().output((None, 3)) == (None, 3)
    parameters = LayerNorm().parameters((None, 3))
    assert {name: (p.shape, p.rule) for name, p in parameters.items()} == {
        "scale": ((3,), "ones"),
        "shift": ((3,), "zeros"),
    }
    assert {name: (p.shape, p.rule) for name, p in BatchNorm().state((None, 3)).items()} == {
        "mean": ((3,), "zeros"),
        "variance": ((3,), "ones"),
    }
    assert LayerNorm().multiplications((5, 3)) == 15
    assert BatchNorm().multiplications((None, 3)) is None


def test_layer_norm_over_all_sees_the_whole_input():
    seen = [(Field().through(Window(kernel=3)),)]
    assert LayerNorm().receptive(seen, [(5, 3)]) == seen[0]
    assert BatchNorm().receptive(seen, [(5, 3)]) == seen[0]
    assert LayerNorm(axes="all").receptive(seen, [(5, 3)]) == "all"


def test_an_empty_batch_passes_out_of_training():
    for norm in (LayerNorm(), LayerNorm(axes="all"), BatchNorm()):
        y, kept = norm.forward(params_for(0, 2), np.ones((0, 3, 2)))
        assert norm.error(params_for(0, 2), kept, y).shape == (0, 3, 2)


@pytest.mark.parametrize("norm", [LayerNorm(), BatchNorm()])
@pytest.mark.parametrize("shape", [(), (3, None), (0, 3), (4, 0)])
def test_an_input_without_known_channels_is_refused(norm, shape):
    with pytest.raises(ShapeError, match=r"Norm\(\): got an input of .*, expected a known number of channels on its"):
        norm.output(shape)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (0, 5, 3)])
def test_one_value_a_channel_cannot_be_normalised_in_training(shape):
    message = rf"got {shape[0]} values of each channel in training, expected at least 2 .*; use a larger batch"
    with pytest.raises(ShapeError, match=message):
        BatchNorm().forward(params_for(0, 3), np.ones(shape), TRAINING)


def test_bad_settings_are_refused():
    with pytest.raises(SettingError, match=r"got axes='time', expected one of 'channels', 'all'; choose another value"):
        LayerNorm(axes="time")
    with pytest.raises(SettingError, match=r"got epsilon=0, expected a number of at least 1e-30"):
        LayerNorm(epsilon=0)
    with pytest.raises(SettingError, match=r"got epsilon=-1, expected a number of at least 1e-30"):
        BatchNorm(epsilon=-1)
    with pytest.raises(SettingError, match=r"got momentum=1, expected a number of at least 0 and below 1"):
        BatchNorm(momentum=1)


def test_repr_is_the_call():
    assert repr(LayerNorm()) == "LayerNorm()"
    assert repr(LayerNorm(axes="all")) == "LayerNorm(axes='all')"
    assert repr(BatchNorm(momentum=0.99, epsilon=0.001)) == "BatchNorm(momentum=0.99, epsilon=0.001)"
