"""Affine against its formula in loops, the corrected formulas of the memo, and itself."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.check import adjoint_check
from faltung.elements.affine import Affine
from faltung.elements.element import example
from faltung.errors import NetworkError, SettingError, ShapeError
from faltung.receptive import Field

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def integers(random, shape, dtype=np.float64):
    return random.integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(shape=SHAPES, units=st.integers(1, 4), batch=st.integers(0, 3), bias=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=30)
def test_value_error_and_gradient_are_the_loops_of_the_formula(dtype, shape, units, batch, bias, seed):
    random = np.random.default_rng(seed)
    x, w, b = (integers(random, sizes, dtype) for sizes in ((batch, *shape), (shape[-1], units), units))
    affine, params = Affine(units, bias=bias), {"w": w, "b": b} if bias else {"w": w}
    y, kept = affine.forward(params, x)
    dy = integers(random, y.shape, dtype)
    dx, gradient = affine.error(params, kept, dy), affine.gradient(params, kept, dy)
    loop_y, loop_dx, loop_dw = np.zeros_like(y), np.zeros_like(x), np.zeros_like(w)
    for *at, o in np.ndindex(y.shape):
        loop_y[*at, o] = b[o] if bias else 0
        for i in range(shape[-1]):
            loop_y[*at, o] += x[*at, i] * w[i, o]
            loop_dx[*at, i] += dy[*at, o] * w[i, o]
            loop_dw[i, o] += dy[*at, o] * x[*at, i]
    assert y.shape == (batch, *affine.output(shape))
    assert np.array_equal(y, loop_y)
    assert np.array_equal(dx, loop_dx)
    assert np.array_equal(gradient["w"], loop_dw)
    assert set(gradient) == set(params)
    if bias:
        assert np.array_equal(gradient["b"], dy.reshape(-1, units).sum(0))
    assert {array.dtype for array in (y, dx, *gradient.values())} == {np.dtype(dtype)}


@given(shape=SHAPES, units=st.integers(1, 4), bias=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=30)
def test_the_adjoint_identity_is_exact(shape, units, bias, seed):
    check = adjoint_check(Affine(units, bias=bias), shape, seed=seed)
    assert check.y == check.x == check.w


def test_the_memo_with_one_convention():
    """With z = W x + b, as in the UFLDL tutorial, the error is W^T dz, and the gradient dz x^T; w is W^T."""
    random = np.random.default_rng(0)
    W, b, x, dz = (integers(random, shape) for shape in ((3, 5), 3, 5, 3))
    affine, params = Affine(3), {"w": W.T, "b": b}
    z, kept = affine.forward(params, x[None])
    assert np.array_equal(z[0], W @ x + b)
    assert np.array_equal(affine.error(params, kept, dz[None])[0], W.T @ dz)
    gradient = affine.gradient(params, kept, dz[None])
    assert np.array_equal(gradient["w"].T, np.outer(dz, x))
    assert np.array_equal(gradient["b"], dz)


def test_the_gradient_is_the_sum_over_the_examples():
    random = np.random.default_rng(0)
    x, dy, affine = integers(random, (3, 2, 4)), integers(random, (3, 2, 5)), Affine(5)
    params = {"w": integers(random, (4, 5)), "b": integers(random, 5)}
    _, kept = affine.forward(params, x)
    shares = [affine.gradient(params, example(kept, n), dy[n : n + 1]) for n in range(3)]
    for name, total in affine.gradient(params, kept, dy).items():
        assert np.array_equal(sum(share[name] for share in shares), total)


def test_what_is_known_before_any_array():
    affine = Affine(10, initial="he")
    assert affine.output((None, 4)) == (None, 10)
    w, b = (affine.parameters((None, 4))[name] for name in ("w", "b"))
    assert (w.shape, w.rule, w.fans, b.shape, b.rule) == ((4, 10), "he", (4, 10), (10,), "zeros")
    assert set(Affine(10, bias=False).parameters((4,))) == {"w"}
    assert affine.multiplications((None, 4)) is None
    assert affine.multiplications((3, 4)) == 120
    fields = (Field(),)
    assert affine.receptive([fields], [(3, 4)]) == fields
    assert affine.receptive(["varies"], [(3, 4)]) == "varies"
    assert affine.receptive(["varies"], [(4,)]) == "all"


@pytest.mark.parametrize("affine", [Affine(10), Affine(3, bias=False, initial="ufldl")])
def test_repr_is_the_call_and_nothing_can_be_assigned(affine):
    assert eval(repr(affine), {"Affine": Affine}) == affine
    with pytest.raises(FrozenInstanceError):
        affine.units = 3


def test_what_is_refused():
    with pytest.raises(SettingError, match=r"^Affine\(0\): got units=0, expected a whole number of at least 1; choose"):
        Affine(0)
    with pytest.raises(SettingError, match="got initial='warm', expected one of 'glorot', 'he'"):
        Affine(1, initial="warm")
    with pytest.raises(ShapeError, match=r"got an input of \(None,\), expected a known number of channels on its last"):
        Affine(1).output((None,))
    with pytest.raises(ShapeError, match=r"got an input of \(\), expected a known number of channels"):
        Affine(1).output(())
    with pytest.raises(ShapeError, match=r"got w of shape \(3, 1\), expected \(4, 1\) for an input of \(4,\)"):
        Affine(1).forward({"w": np.ones((3, 1)), "b": np.ones(1)}, np.ones((2, 4)))
    with pytest.raises(NetworkError, match=r"got the parameters \[\], expected \['b', 'w'\]"):
        Affine(1).forward({}, np.ones((2, 4)))
