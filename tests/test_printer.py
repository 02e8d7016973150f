"""The loop language as text."""

import pytest

from faltung.engine.loops.language import BOOL, F32, I32, INDEX, Function, pointer
from faltung.engine.loops.printer import line, text


@pytest.fixture
def f() -> Function:
    return Function("f", x=pointer(F32), y=pointer(F32), n=pointer(I32), count=INDEX, a=F32)


def lines(f: Function) -> list[str]:
    """The text below the head, without its first indentation."""
    return [line[4:] for line in text(f).splitlines()[1:]]


def test_a_tile_of_a_convolution_reads_like_a_formula():
    f = Function("tile", x=pointer(F32), w=pointer(F32), y=pointer(F32), taps=INDEX)
    x, w, y, taps = f.arguments
    acc = [[f.variable(f"acc{p}_{v}", 0.0, F32.times(16)) for v in range(2)] for p in range(2)]
    with f.loop("k", taps) as k:
        w_k = f.at(w, k * 32, name="w_k")
        weights = [f.load(w_k, v * 16, 16, name=f"w{v}") for v in range(2)]
        for p in range(2):
            pixel = f.broadcast(f.load(x, k + p, name=f"x{p}"), 16)
            for v in range(2):
                acc[p][v].set(f.fma(pixel, weights[v], acc[p][v].value))
    for p in range(2):
        for v in range(2):
            f.store(acc[p][v].value, y, p * 32 + v * 16)
    assert (
        text(f)
        == """\
tile(x: f32*, w: f32*, y: f32*, taps: index)
    acc0_0: f32x16 = 0.0
    acc0_1: f32x16 = 0.0
    acc1_0: f32x16 = 0.0
    acc1_1: f32x16 = 0.0
    for k in 0 .. taps
        w_k = w + k * 32
        w0 = w_k[0 : 16]
        w1 = w_k[16 : 32]
        x0 = x[k]
        acc0_0 = fma(x0, w0, acc0_0)
        acc0_1 = fma(x0, w1, acc0_1)
        x1 = x[k + 1]
        acc1_0 = fma(x1, w0, acc1_0)
        acc1_1 = fma(x1, w1, acc1_1)
    y[0 : 16] = acc0_0
    y[16 : 32] = acc0_1
    y[32 : 48] = acc1_0
    y[48 : 64] = acc1_1"""
    )


def test_a_load_is_not_moved_behind_what_may_change_it(f):
    x, y, _, count, a = f.arguments
    before = f.load(x)
    f.store(a, y)
    f.store(before, y, 1)
    loop = f.load(x)
    with f.loop("i", count) as i:
        f.store(a, y, i)
    f.store(loop, y)
    f.store(f.load(x, 3), y)
    assert lines(f) == [
        "xv = x[0]",
        "y[0] = a",
        "y[1] = xv",
        "xv.1 = x[0]",
        "for i in 0 .. count",
        "    y[i] = a",
        "y[0] = xv.1",
        "y[0] = x[3]",
    ]


def test_a_variable_is_read_before_it_is_set(f):
    _, y, _, _, a = f.arguments
    total = f.variable("total", a)
    before = total.value
    total.set(before + 1.0)
    f.store(total.value, y)
    total.set(total.value * 2.0)
    old = total.value
    total.set(0.0)
    f.store(old, y)
    assert lines(f) == [
        "total: f32 = a",
        "total = total + 1.0",
        "y[0] = total",
        "total = total * 2.0",
        "total.4 = total",
        "total = 0.0",
        "y[0] = total.4",
    ]


def test_what_a_block_inside_uses_stays_outside(f):
    x, y, _, count, a = f.arguments
    product = f.load(x) * a
    with f.loop("i", count, step=2) as i, f.where(i < 7):
        f.store(product, y, i)
    assert lines(f) == [
        "mul = x[0] * a",
        "for i in 0 .. count step 2",
        "    if i < 7",
        "        y[i] = mul",
    ]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda f, a, b, i: a * (b + a), "a * (b + a)"),
        (lambda f, a, b, i: a * b + a, "a * b + a"),
        (lambda f, a, b, i: a - (b - a), "a - (b - a)"),
        (lambda f, a, b, i: a - b - a, "a - b - a"),
        (lambda f, a, b, i: -(a + b) / -a, "-(a + b) / -a"),
        (lambda f, a, b, i: a * -2.5, "a * -2.5"),
        (lambda f, a, b, i: f.min(a, f.op("sqrt", b)), "min(a, sqrt(b))"),
        (lambda f, a, b, i: f.select((a < b) | (b <= 0.1), a, b), "select((a < b) | (b <= 0.1), a, b)"),
        (lambda f, a, b, i: f.convert("to_float", (i << 3) + 1 & 7, F32), "to_float((i << 3) + 1 & 7)"),
        (lambda f, a, b, i: f.convert("to_float", i // 3 % 2, F32), "to_float(i // 3 % 2)"),
    ],
)
def test_parentheses_stand_where_they_are_needed(write, expected):
    f = Function("f", y=pointer(F32), a=F32, b=F32, i=I32)
    y, *numbers = f.arguments
    f.store(write(f, *numbers), y)
    assert lines(f) == [f"y[0] = {expected}"]


def test_vectors_lanes_and_masks(f):
    x, y, _, count, a = f.arguments
    with f.loop("i", count, step=8) as i:
        mask = f.first_lanes(count - i, 8)
        f.store(f.load(x, i, 8, mask), y, i + 8, mask)
    numbers = f.load(x, 4, 8)
    f.store(f.shuffle(numbers, numbers, range(4, 8)), y)
    f.store(f.shuffle(numbers, numbers, [5]), y)
    f.store(f.shuffle(numbers, f.load(y, 0, 8), [0, 8, 1, 9]), y)
    f.store(f.broadcast(a, 8), f.at(y, count * 8))
    assert lines(f) == [
        "for i in 0 .. count step 8",
        "    mask = first_lanes(count - i, 8)",
        "    y[i + 8 : i + 16] = (x[i : i + 8] where mask) where mask",
        "xv.1 = x[4 : 12]",
        "y[0 : 4] = xv.1[4 : 8]",
        "y[0] = xv.1[5]",
        "y[0 : 4] = shuffle(xv.1, y[0 : 8], 0, 8, 1, 9)",
        "y.1 = y + count * 8",
        "y.1[0 : 8] = a",
    ]


def test_long_expressions_are_cut(f):
    x, y, _, _, a = f.arguments
    power = f.load(x)
    for term in range(12):
        power = f.fma(power, a, 0.125 * term)
    f.store(power, y)
    assert lines(f) == [
        "fma.4 = fma(fma(fma(fma(fma(x[0], a, 0.0), a, 0.125), a, 0.25), a, 0.375), a, 0.5)",
        "fma.9 = fma(fma(fma(fma(fma(fma.4, a, 0.625), a, 0.75), a, 0.875), a, 1.0), a, 1.125)",
        "y[0] = fma(fma(fma.9, a, 1.25), a, 1.375)",
    ]


def test_constants_print_as_their_type_holds_them(f):
    _, y, _, _, a = f.arguments
    f.store(a * 0.1 + 1e-30, y)
    f.store(f.select(f.constant(True, BOOL), a, -3.0), y)
    assert lines(f) == ["y[0] = a * 0.1 + 1e-30", "y[0] = select(True, a, -3.0)"]


def test_calls_and_takes(f):
    x, y, n, count, a = f.arguments
    number = f.take(n, 2, offset=count, name="task")
    f.call(f, f.at(x, count * 4), y, n, f.convert("bits", f.convert("widen", number, INDEX), INDEX), a + 1.0)
    assert lines(f) == ["task = take(n[count], 2)", "f(x + count * 4, y, n, bits(widen(task)), a + 1.0)"]


def test_one_statement_by_itself(f):
    x, y, _, count, _ = f.arguments
    with f.loop("i", count) as i:
        f.store(f.load(x, i) + 1.0, y, i)
    (loop,) = f.body
    assert line(loop) == "for i in 0 .. count"
    assert [line(statement) for statement in loop.body] == ["xv = x[i]", "add = xv + 1.0", "y[i] = add"]


def test_a_long_head_is_wrapped():
    f = Function("f", **{f"argument_{n}": INDEX for n in range(9)})
    assert all(len(line) <= 110 for line in text(f).splitlines())
    assert text(f).splitlines()[1].startswith("        argument_")
