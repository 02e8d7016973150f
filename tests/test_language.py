"""Writing in the loop language: names, types, and what is known at once."""

import operator
import subprocess
import sys

import pytest

from faltung.engine.loops.language import BOOL, F32, F64, I32, INDEX, Constant, Function, Type, pointer
from faltung.engine.loops.printer import text
from faltung.engine.loops.statements import Let, Loop


@pytest.fixture
def f() -> Function:
    return Function("f", x=pointer(F32), y=pointer(F64), n=pointer(I32), count=INDEX, a=F32)


def test_a_type_tells_its_size_and_prints_itself():
    assert [str(kind) for kind in (F32.times(16), pointer(F64), INDEX)] == ["f32x16", "f64*", "index"]
    assert [kind.size for kind in (F32, F64, I32, INDEX)] == [4, 8, 4, 8]
    assert F32.times(4).floating
    assert not pointer(F32).floating


def test_values_have_names_of_their_own(f):
    x, *_ = f.arguments
    names = [f.load(x, i).name for i in range(3)]
    assert names == ["xv", "xv.1", "xv.2"]
    assert (f.load(x) * 2.0).named("twice").name == "twice"
    assert (f.load(x) * 2.0).named("twice").name == "twice.1"


def test_numbers_become_constants_and_vectors_where_they_are_needed(f):
    x, *_, a = f.arguments
    product = f.load(x, 0, 8) * 2.0
    assert product.type == F32.times(8)
    assert (a * product).type == F32.times(8)
    assert (1.0 / product).type == F32.times(8)
    assert (product < a).type == BOOL.times(8)
    assert f.select(product < a, 1.0, product).type == F32.times(8)
    assert f.select(f.arguments[3] < 3, product, a).type == F32.times(8)


@pytest.mark.parametrize(
    ("infix", "a", "b"),
    [(op, a, b) for a in (0, 1, 7, -7) for b in (1, 2, -3) for op in
     (operator.add, operator.sub, operator.mul, operator.and_, operator.lt, operator.le, operator.gt, operator.ge)],
)  # fmt: skip
def test_arithmetic_of_index_constants_is_done_at_once(f, infix, a, b):
    answer = infix(f.constant(a), b)
    assert isinstance(answer, Constant)
    assert answer.number == infix(a, b)
    assert answer.type == (BOOL if isinstance(infix(a, b), bool) else INDEX)
    assert not f.body


@pytest.mark.parametrize(("a", "b", "quotient", "remainder"), [(7, 2, 3, 1), (-7, 2, -3, -1), (7, -2, -3, 1)])
def test_quotients_of_constants_round_towards_zero(f, a, b, quotient, remainder):
    assert (f.constant(a) // b).number == quotient
    assert (f.constant(a) % b).number == remainder
    assert (a // f.constant(b)).number == quotient


def test_zero_and_one_fall_away(f):
    count = f.arguments[3]
    for same in (count + 0, 0 + count, count - 0, count * 1, 1 * count, count // 1):
        assert same is count
    for zero in (count * 0, 0 * count, count % 1):
        assert isinstance(zero, Constant)
        assert zero.number == 0
    assert f.at(f.arguments[0], 0) is f.arguments[0]
    assert f.min(3, 5).number == 3
    assert f.max(3, 5).number == 5
    assert not f.body


def test_a_loop_that_runs_once_is_no_loop(f):
    x, *_ = f.arguments
    with f.loop("i", 4, step=4) as i:
        f.store(1.0, x, i)
    assert text(f).splitlines()[1:] == ["    x[0] = 1.0"]
    with f.loop("i", 5, step=4):
        pass
    assert isinstance(f.body[-1], Loop)


def test_a_condition_that_is_known_is_not_asked(f):
    x, *_ = f.arguments
    with f.where(f.constant(3) < 4):
        f.store(1.0, x)
    with f.where(f.constant(4) < 3):
        f.store(2.0, x)
    assert text(f).splitlines()[1:] == ["    x[0] = 1.0"]


def test_lanes_are_added_by_halves(f):
    f.store(f.sum_lanes(f.load(f.arguments[0], 0, 4)), f.arguments[0])
    assert [let.lanes for let in f.body if isinstance(let, Let) and let.op == "shuffle"] == [(0, 1), (2, 3), (0,), (1,)]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f, x, y, n, count, a: a * count, "f: mul of f32, index"),
        (lambda f, x, y, n, count, a: x + 1, r"f: add of f32\*"),
        (lambda f, x, y, n, count, a: a // 2.0, "f: quotient of f32"),
        (lambda f, x, y, n, count, a: count / 2, "f: div of index"),
        (lambda f, x, y, n, count, a: f.op("sqrt", count), "f: sqrt of index"),
        (lambda f, x, y, n, count, a: count * 0.5, "0.5 as index"),
        (lambda f, x, y, n, count, a: f.fma(a, f.load(y), a), "f: fma of f32, f64, f32"),
        (lambda f, x, y, n, count, a: f.load(x, 0, 4) + f.load(x, 0, 8), "f: broadcast of f32x4"),
        (lambda f, x, y, n, count, a: f.sum_lanes(f.load(x, 0, 6)), "f: add of the halves of f32x6"),
        (lambda f, x, y, n, count, a: f.shuffle(f.load(x, 0, 4), f.load(x, 0, 4), [8]), r"f: lanes \[8\] of f32x4"),
        (lambda f, x, y, n, count, a: f.shuffle(a, a, [1]), r"f: lanes \[1\] of f32 and f32"),
        (lambda f, x, y, n, count, a: f.load(count, 0), "f: 1 lanes at index"),
        (lambda f, x, y, n, count, a: f.load(x, a), "f: got a of type f32, expected index"),
        (lambda f, x, y, n, count, a: f.load(x, 0, 4, f.first_lanes(count, 8)), "f: 4 lanes at f32.*, mask boolx8"),
        (lambda f, x, y, n, count, a: f.load(x, 0, 1, f.first_lanes(count, 1)), "f: 1 lanes at f32.*, mask bool"),
        (lambda f, x, y, n, count, a: f.store(f.load(y), x), "f: got yv of type f64, expected f32"),
        (lambda f, x, y, n, count, a: f.variable("v", 0.0, F32).set(count), "f: got count of type index, expected f32"),
        (lambda f, x, y, n, count, a: f.call(f, y, y, n, count, a), r"f: got y of type f64\*, expected f32\*"),
        (lambda f, x, y, n, count, a: f.convert("widen", x, F64), r"f: widen of f32\*"),
        (lambda f, x, y, n, count, a: f.convert("to_int", count, INDEX), "f: to_int of index"),
        (
            lambda f, x, y, n, count, a: 1 if count < 3 else 2,
            "f: a value has no truth yet when it is written; use where",
        ),
        (lambda f, x, y, n, count, a: f.where(count).__enter__(), "f: got count of type index, expected bool"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_written(f, write, message):
    with pytest.raises(TypeError, match=message):
        write(f, *f.arguments)


def test_a_call_needs_all_arguments(f):
    with pytest.raises(ValueError, match="zip"):
        f.call(f, f.arguments[0])


def test_types_are_plain_values():
    assert pointer(F32) == Type("f32", pointer=True)
    assert len({F32, F32.times(1), F64}) == 2


def test_importing_the_package_does_not_load_the_compiler():
    program = "import sys, faltung, faltung.engine.loops.language; print('llvmlite' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
