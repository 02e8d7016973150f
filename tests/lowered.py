"""Lowered elements beside their NumPy definitions, between guards, on every machine that this one can be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from elf import library_calls
from faltung.elements.element import Run
from faltung.engine.host import compile as compiler
from faltung.engine.host.machine import NEEDS, Machine, host
from faltung.engine.kernels import elementwise
from faltung.engine.lower import lowerings
from faltung.engine.programs import ready
from faltung.errors import SettingError
from guard import copied

FLOATS = (np.float32, np.float64)


def machines() -> list[str]:
    """The names of all machines that this one can be."""
    return [name for name in NEEDS if _runs(name)]


def _runs(name: str) -> bool:
    try:
        return bool(host(name))
    except SettingError:
        return False


@contextmanager
def host_as(name: str, *cached: Any) -> Iterator[Machine]:
    """Within, this machine is described so, and what these functions have remembered is forgotten before and after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALTUNG_MACHINE", name)
        for function in (host, *cached):
            function.cache_clear()
        try:
            yield host()
        except SettingError:
            pytest.skip(f"this machine is no {name}")
        finally:
            for function in (host, *cached):
                function.cache_clear()


@contextmanager
def compiled_for(name: str) -> Iterator[None]:
    """New kernels within, for the machine that FALTUNG_MACHINE names; at the end, look at what they call."""
    if not _runs(name):
        pytest.skip(f"this machine is no {name}")
    compiled, compile = [], compiler.compile

    def recorded(*module: Any, **known: Any) -> Any:
        compiled.append(module)
        return compile(*module, **known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile", recorded)
        _forget()
        yield
        _forget()
    for module in compiled:
        assert library_calls(*module) == set()


def _forget() -> None:
    host.cache_clear()
    elementwise._compiled.cache_clear()
    ready.forget()


def compare(
    element: Any,
    params: dict[str, Any],
    x: Any,
    run: Run = Run(),
    *,
    end: bool = True,
    tolerance: float = 0,
    seed: int = 0,
) -> None:
    """Forward, error, gradient and new state agree with the definition in float64, to so many units of precision.

    The tolerance is relative to 1 and the largest number of each array; 0 is for whole numbers in linear elements.
    """
    forward, error, gradient, *_ = lowerings()[type(element)]
    assert gradient
    several = isinstance(x, tuple)
    inputs = x if several else (x,)
    dtype = (params["w"] if element.takes_indices else inputs[0]).dtype
    wide = [array if element.takes_indices else array.astype(np.float64) for array in inputs]
    wide_params = {name: array.astype(np.float64) for name, array in params.items()}
    inputs = tuple(copied(array, end) for array in inputs)
    params = {name: copied(array, end) for name, array in params.items()}

    y, kept = element.forward(wide_params, tuple(wide) if several else wide[0], run)
    fast, fast_kept = forward(element, params, inputs if several else inputs[0], run)
    assert_close([fast], [y], dtype, tolerance)

    dy = np.random.default_rng(seed).integers(-3, 4, y.shape).astype(np.float64)
    narrow_dy = copied(dy.astype(dtype), end)
    dx, fast_dx = element.error(wide_params, kept, dy), error(element, params, fast_kept, narrow_dy)
    if dx is None:
        assert fast_dx is None
    else:
        assert_close(fast_dx if several else [fast_dx], dx if several else [dx], dtype, tolerance)

    slopes, fast_slopes = element.gradient(wide_params, kept, dy), gradient(element, params, fast_kept, narrow_dy)
    assert fast_slopes.keys() == slopes.keys()
    assert_close(fast_slopes.values(), slopes.values(), dtype, tolerance)
    state, fast_state = element.renew(wide_params, kept), element.renew(params, fast_kept)
    assert fast_state.keys() == state.keys()
    assert_close(fast_state.values(), state.values(), dtype, tolerance)


def assert_close(got: Any, expected: Any, dtype: Any, tolerance: float) -> None:
    """Compare arrays: their shapes, dtype and numbers; NaN is never close."""
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == dtype
        allowed = tolerance * np.finfo(dtype).eps * np.max(np.abs(other), initial=1)
        worst = np.max(np.abs(one - other), initial=0)
        assert worst <= allowed, (worst, allowed)
