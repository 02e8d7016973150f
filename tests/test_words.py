"""The language of what runs around kernels means what Python means by the same text."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.engine.host import words
from faltung.engine.host.compile import load
from faltung.engine.host.dispatch import address
from faltung.engine.host.machine import host

ALL = 1 << 64


def signed(number):
    """The number as a word."""
    return (number + ALL // 2) % ALL - ALL // 2


def ran(text, *arguments, **more):
    """What ``f(out, *arguments)`` leaves in the eight words at out."""
    out = np.zeros(8, np.int64)
    signature = ("f", ctypes.c_void_p, *[ctypes.c_int64] * len(arguments))
    code = load(words.module(["f"], text, **more), (signature,), host())
    code.functions["f"](out.ctypes.data, *arguments)
    return out.tolist()


def in_python(text, *arguments):
    """The same by Python itself."""
    names, out = {}, [0] * 8
    exec(text, names)
    names["f"](out, *arguments)
    return [signed(int(word)) for word in out]


def expressions():
    leaf = st.sampled_from("abc") | st.integers(-9, 9).map(lambda n: f"({n})")

    def larger(inner):
        pairs = st.tuples(inner, inner)
        return (
            st.tuples(pairs, st.sampled_from(["+", "-", "*", "&", "|"])).map(lambda p: f"({p[0][0]} {p[1]} {p[0][1]})")
            | st.tuples(pairs, st.sampled_from(["==", "!=", "<", "<=", ">", ">="])).map(
                lambda p: f"({p[0][0]} {p[1]} {p[0][1]})"
            )
            | st.tuples(pairs, st.sampled_from(["and", "or"])).map(lambda p: f"(({p[0][0]} {p[1]} {p[0][1]}) != 0)")
            | st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})")
            | inner.map(lambda e: f"(not {e})")
            | inner.map(lambda e: f"(-{e})")
        )

    return st.recursive(leaf, larger, max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(expressions(), st.lists(st.integers(-1000, 1000), min_size=3, max_size=3))
def test_expressions(expression, numbers):
    text = f"def f(out, a, b, c):\n    out[0] = {expression}\n"
    assert ran(text, *numbers) == in_python(text, *numbers)


CONTROL = {
    "a sum": "s = n = 0\nwhile n < a:\n    s += n * n\n    n += 1\nout[0] = s",
    "greatest common divisor": "while b:\n    t = a - a // b * b\n    a = b\n    b = t\nout[0] = a",
    "either": "if a < b:\n    out[0] = 1\nelif a == b:\n    out[0] = 2\nelse:\n    out[0] = 3\nout[1] = 4",
    "one side returns": "if a < b:\n    out[0] = 1\n    return\nout[1] = 2",
    "both sides return": "if a < b:\n    out[0] = 1\n    return\nelse:\n    return",
    "leave, or go on": """n = 0
while 1:
    n += 1
    if n == 3:
        continue
    if n > a:
        break
    out[n & 7] += n""",
    "a loop within a loop": """n = 0
while n < 4:
    m = 0
    while m < n:
        out[n] += m + a
        m += 1
    n += 1""",
    "what need not be known is not asked": """seen = 0
if a < b and note(out):
    seen = 1
if a < b or note(out):
    seen += 2
out[1] = seen""",
    "shifts": "out[0] = 1 << (a & 31)\nout[1] = (a & 1023) >> 3",
    "several targets": "out[0] = out[1] = c = a + b\nout[2] = c",
}


@pytest.mark.parametrize("body", CONTROL.values(), ids=CONTROL.keys())
@pytest.mark.parametrize("numbers", [(12, 18), (18, 12), (5, 5)])
def test_control(body, numbers):
    note = "def note(out):\n    out[0] += 10\n    return 1\n"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"{note}\ndef f(out, a, b):\n{lines}\n"
    assert ran(text, *numbers) == in_python(text, *numbers)


def test_places():
    text = """
def f(out, a):
    rest = out[2:]
    rest[0] = a
    room = local(3)
    room[2] = rest[0] + 1
    out[3] = room[2:][0]
    out[4] = rest == out + 16
    out[5] = byte(text("abc"), 1) + byte(text("abc"), 3)
    out[6] = half(4294967295)
    out[7] = leading_zeros(1)
"""
    assert ran(text, 7) == [0, 0, 7, 8, 1, ord("b"), -1, 63]


def test_atomic_words():
    text = """
def f(out):
    out[1] = add_relaxed(out, 3)
    out[2] = add_release(out, 4)
    store_release(out[3:], 5)
    store_relaxed(out[4:], 6)
    out[5] = load_acquire(out[3:]) + load_relaxed(out[4:])
    out[6] = exchanged(out, 7, 9)
    out[7] = exchanged(out, 7, 11)
"""
    assert ran(text) == [9, 0, 3, 5, 6, 11, 1, 0]


def test_functions():
    text = """
def doubled(n):
    return 2 * n

def silent(n):
    n += 1

def f(out, a):
    twice = doubled
    out[0] = doubled(a)
    out[1] = twice(a + 1)
    out[2] = silent(a) + N
    out[3] = twisted(a)
"""
    before = "define internal i32 @twisted(i32 %n) { %m = sub i32 5, %n\nret i32 %m }"
    outside = {"twisted": ("i32 (i32)", None)}
    assert ran(text, 11, numbers={"N": 40}, outside=outside, before=before)[:4] == [22, 24, 40, -6]


def test_functions_in_a_table():
    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32)
    def called(place, number):
        return -number if place else number

    table = np.array([0, address(called)], np.int64)
    text = "def f(out, table):\n    out[0] = asked(table, out, 8)\n    out[1] = asked(table, 0, 8)"
    assert ran(text, table.ctypes.data, outside={"asked": ("i32 (ptr, i32)", 1)})[:2] == [-8, 8]


@pytest.mark.parametrize(
    "line",
    [
        "a = missing", "a = missing(1)", "a = 1.5", "a = 'text'", "a = out[1:2]", "out[1:] = 3", "a = 1 < 2 < 3",
        "a = 2 ** 3", "a = 1 is 2", "a.b = 3", "for n in out: a = 1", "a = [1]", "a = g(1)", "a = table(out, 1, 2)",
        "a = exchanged(out)", "try:\n        a = 1\n    finally:\n        a = 2",
    ],
)  # fmt: skip
def test_what_it_does_not_know(line):
    text = f"def g():\n    return 1\n\ndef f(out):\n    {line}\n"
    with pytest.raises(SyntaxError, match="words do not know what this means: "):
        words.llvm(words.module(["f"], text, outside={"table": ("i32 (i32)", 1)}))


def test_lines_that_nobody_reaches():
    with pytest.raises(SyntaxError, match="nobody comes here: a = 1"):
        words.llvm(words.module(["f"], "def f(out):\n    return 1\n    a = 1"))


def test_another_text_is_as_it_was():
    assert words.llvm("define void @f() { ret void }") == "define void @f() { ret void }"
