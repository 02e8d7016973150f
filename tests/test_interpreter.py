"""What the loop language means."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faltung.engine.loops.interpreter import run
from faltung.engine.loops.language import F32, F64, I32, I64, INDEX, Function, pointer
from faltung.engine.loops.operations import OPERATIONS, fused
from faltung.errors import EngineError


def rounded_once(exact: Fraction, dtype: type) -> float:
    """The nearest number of this type, of two equally near ones the even one; exact is not 0 and not too large."""
    near = dtype(float(exact))
    near = [np.nextafter(near, dtype(-np.inf)), near, np.nextafter(near, dtype(np.inf))]
    bits = {np.float32: np.int32, np.float64: np.int64}[dtype]
    return min(near, key=lambda number: (abs(Fraction(float(number)) - exact), number.view(bits) & 1))


floats32 = st.floats(-(2.0**60), 2.0**60, width=32)
close = st.builds(lambda mantissa, power: mantissa * 2.0**power, st.integers(-(2**24), 2**24), st.integers(-30, 30))


@settings(max_examples=60)
@given(*[floats32 | close] * 3)
@example(1 + 2.0**-12, 1 + 2.0**-12, 2.0**-70)  # above half of a last place by less than float64 can hold
@example(1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-70))
@example(2.0**-75, 2.0**-75, 2.0**-149)
def test_fma_rounds_once_in_float32(a, b, c):
    a, b, c = (np.array([number], np.float32) for number in (a, b, c))
    exact = Fraction(float(a[0])) * Fraction(float(b[0])) + Fraction(float(c[0]))
    answer = fused(a, b, c)
    assert answer.dtype == np.float32
    assert answer[0] == (rounded_once(exact, np.float32) if exact else 0)


def test_fma_rounds_once_where_rounding_twice_would_differ():
    a = np.array([1 + 2.0**-12], np.float32)
    c = np.array([2.0**-70], np.float32)
    assert fused(a, a, c)[0] == 1 + 2.0**-11 + 2.0**-23
    assert np.float32(np.float64(a[0]) * a[0] + c[0]) == 1 + 2.0**-11  # what float64 in between gives


@settings(max_examples=60)
@given(*[st.floats(-1e100, 1e100)] * 3)
def test_fma_rounds_once_in_float64(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    answer = fused(*(np.array([number]) for number in (a, b, c)))[0]
    assert answer == (rounded_once(exact, np.float64) if exact else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("a", "b", "c", "answer"),
    [
        (0.0, -1.0, -0.0, -0.0), (0.0, 1.0, -0.0, 0.0), (1.0, 1.0, -1.0, 0.0), (-0.0, 0.0, -0.0, -0.0),
        (np.inf, 1.0, 5.0, np.inf), (np.inf, 0.0, 5.0, np.nan), (2.0, 3.0, -np.inf, -np.inf),
        (np.inf, 1.0, -np.inf, np.nan), (np.nan, 1.0, 1.0, np.nan), (1.0, 1.0, np.nan, np.nan),
    ],
)  # fmt: skip
def test_fma_of_special_numbers(a, b, c, answer, dtype):
    with np.errstate(invalid="ignore"):
        got = fused(*(np.array([number], dtype) for number in (a, b, c)))[0]
    assert np.array_equal(got, answer, equal_nan=True)
    assert math.isnan(answer) or np.signbit(got) == np.signbit(answer)


def test_fma_of_large_float64_numbers():
    huge = np.array([1e300])
    assert fused(huge, huge, huge)[0] == np.inf
    assert fused(huge, -huge, huge)[0] == -np.inf
    assert fused(huge, huge, np.array([-np.inf]))[0] == -np.inf


def copier(lanes: int, masked: bool = False) -> Function:
    """y[i] = x[i + shift] for i below count."""
    f = Function("copier", x=pointer(F32), y=pointer(F32), count=INDEX, shift=INDEX)
    x, y, count, shift = f.arguments
    with f.loop("i", count, step=lanes) as i:
        mask = f.first_lanes(count - i, lanes) if masked else None
        f.store(f.load(x, i + shift, lanes, mask), y, i, mask)
    return f


def test_masked_lanes_are_neither_read_nor_written():
    x, y = np.arange(7, dtype=np.float32), np.full(9, np.nan, np.float32)
    run(copier(4, masked=True), x, y, 7, 0)
    assert np.array_equal(y[:7], x)
    assert np.isnan(y[7:]).all()


def test_a_masked_load_gives_zeros_elsewhere():
    f = Function("f", x=pointer(F32), y=pointer(F32))
    x, y = f.arguments
    f.store(f.load(x, 0, 4, f.first_lanes(2, 4)), y)
    y = np.full(4, np.nan, np.float32)
    run(f, np.ones(2, np.float32), y)
    assert y.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("x_size", "y_size", "shift", "message"),
    [
        (7, 8, 0, r"copier: xv = x\[add : add \+ 4\]: got the numbers 4 .. 8, expected some of 0 .. 7"),
        (8, 7, 0, r"copier: y\[i : i \+ 4\] = xv: got the numbers 4 .. 8, expected some of 0 .. 7"),
        (8, 8, -1, r"got the numbers -1 .. 3, expected some of 0 .. 8"),
    ],
)
def test_reaching_outside_an_array_is_refused(x_size, y_size, shift, message):
    with pytest.raises(EngineError, match=message):
        run(copier(4), np.zeros(x_size, np.float32), np.zeros(y_size, np.float32), 8, shift)


def test_a_pointer_may_point_into_an_array():
    y = np.full(4, np.nan, np.float32)
    run(copier(2), (np.arange(9, dtype=np.float32), 4), (y, 0), 4, -1)
    assert y.tolist() == [3, 4, 5, 6]


def test_arrays_have_the_type_of_their_pointer():
    with pytest.raises(TypeError, match="got an array of float64 with 1 axes, expected float32 with 1"):
        run(copier(2), np.zeros(4), np.zeros(4, np.float32), 4, 0)
    with pytest.raises(TypeError, match="with 2 axes"):
        run(copier(2), np.zeros((2, 2), np.float32), np.zeros(4, np.float32), 4, 0)


@pytest.mark.parametrize(("op", "sign"), [("quotient", "//"), ("remainder", "%")])
def test_whole_division_by_zero_is_refused(op, sign):
    f = Function("f", n=pointer(I32))
    (n,) = f.arguments
    f.store(f.op(op, f.load(n, 0), f.load(n, 1)), n)
    run(f, np.array([7, 2], np.int32))
    with pytest.raises(EngineError, match=f"f: {op} = nv {sign} nv.1: quotient by 0"):
        run(f, np.array([7, 0], np.int32))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1).filter(bool))
@example(-(2**31), 3)
def test_quotients_round_towards_zero(a, b):
    quotient = int(Fraction(a, b))
    if quotient < 2**31:
        a_lanes, b_lanes = np.array([a], np.int32), np.array([b], np.int32)
        assert OPERATIONS["quotient"].meaning(a_lanes, b_lanes)[0] == quotient
        assert OPERATIONS["remainder"].meaning(a_lanes, b_lanes)[0] == a - b * quotient


def test_lanes_are_summed_by_halves():
    f = Function("f", x=pointer(F32))
    (x,) = f.arguments
    f.store(f.sum_lanes(f.load(x, 0, 4)), x, 0)
    f.store(f.max_lanes(f.load(x, 0, 4)), x, 1)
    numbers = np.array([1e8, 1, -1e8, 2], np.float32)
    run(f, numbers)
    assert numbers.tolist()[:2] == [3, 3]  # (1e8 - 1e8) + (1 + 2); from left to right it would be 2


def test_conditions_variables_and_calls():
    inner = Function("inner", y=pointer(I64), i=INDEX)
    y, i = inner.arguments
    with inner.where((i % 2).equal(0)):
        inner.store(inner.convert("bits", i * i, I64), y, i)
    outer = Function("outer", y=pointer(I64), count=INDEX)
    y, count = outer.arguments
    last = outer.variable("last", 0)
    with outer.loop("i", count, start=1, step=1) as i:
        outer.call(inner, y, i)
        last.set(i)
    outer.store(outer.convert("bits", last.value, I64), y)
    y = np.full(6, -1)
    run(outer, y, 5)
    assert y.tolist() == [4, -1, 4, -1, 16, -1]


def test_take_gives_a_number_and_moves_on():
    f = Function("f", counter=pointer(INDEX), y=pointer(INDEX))
    counter, y = f.arguments
    f.store(f.take(counter, 3, offset=1), y, 0)
    f.store(f.take(counter, 3, offset=1), y, 1)
    counter, y = np.array([0, 10]), np.zeros(2, int)
    run(f, counter, y)
    assert counter.tolist() == [0, 16]
    assert y.tolist() == [10, 13]


def test_an_argument_block_holds_numbers_and_places():
    f = Function("f", block=pointer(INDEX))
    (block,) = f.arguments
    x, y = (f.convert("place", f.load(block, n), pointer(F64)) for n in (0, 1))
    with f.loop("i", f.load(block, 2)) as i:
        f.store(f.load(x, i) * 2.0, y, i)
    y = np.full(4, np.nan)
    run(f, [np.arange(5.0), y, 3])
    assert np.array_equal(y, [0, 2, 4, np.nan], equal_nan=True)


def test_shifts_to_the_right_copy_the_sign_or_do_not():
    f = Function("f", n=pointer(I32))
    (n,) = f.arguments
    numbers = f.load(n, 0, 2)
    f.store(numbers >> 1, n, 2)
    f.store(f.op("shift_right_logical", numbers, 1), n, 4)
    numbers = np.array([-4, 4, 0, 0, 0, 0], np.int32)
    run(f, numbers)
    assert numbers.tolist()[2:] == [-2, 2, 2**31 - 2, 2]


def test_without_the_instruction_fma_rounds_twice():
    f = Function("f", x=pointer(F64), y=pointer(F64))
    x, y = f.arguments
    f.store(f.fma(f.load(x, 0), f.load(x, 1), -1.0), y)
    x, y = np.array([1 + 2.0**-52, 1 - 2.0**-52]), np.zeros(1)
    run(f, x, y)
    assert y[0] == -(2.0**-104)
    run(f, x, y, fused=False)
    assert y[0] == 0
