"""Python's and NumPy's functions for machine code, which calls no library: it finds their places in a table.

A text that needs some of them writes ``call ptr @PyTuple_New(ptr %tools, i64 3)``, and ``with_python`` adds what finds
the function in the table, whose address is the first argument. The first words of the table are no functions but what
``WORDS`` says. None of this is ever freed: arrays die after the modules whose memory they use.

Python's own structures are known as far as all versions share them: an object begins with ``HEAD`` bytes, the last word
of which is its type; an array and a capsule go on with the place that they stand for.
"""

import ctypes
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host.dispatch import address
from faltung.engine.host.recording import listeners

HEAD = object.__basicsize__
"""Bytes at the beginning of every object of Python's; in an array the address of its first number comes next."""
WORDS = ("ndarray", "tuple", "dict", "None", "listeners", "busy")
"""Types and objects; where it says how many listen (``recording``); and whether somebody performs an order of
``quick``.
"""
PYTHON = {
    "Py_IncRef": "void (ptr)",
    "Py_DecRef": "void (ptr)",
    "PyErr_Occurred": "ptr ()",
    "PyErr_Clear": "void ()",
    "PyCapsule_New": "ptr (ptr, ptr, ptr)",
    "PyLong_AsSsize_t": "i64 (ptr)",
    "PyTuple_New": "ptr (i64)",
    "PyTuple_SetItem": "i32 (ptr, i64, ptr)",
    "PyDict_New": "ptr ()",
    "PyDict_SetItem": "i32 (ptr, ptr, ptr)",
    "PyDict_Size": "i64 (ptr)",
    "PyDict_Next": "i32 (ptr, ptr, ptr, ptr)",
    "PyObject_GetAttr": "ptr (ptr, ptr)",
    "PyObject_RichCompareBool": "i32 (ptr, ptr, i32)",
    "PyObject_CallNoArgs": "ptr (ptr)",
    "PyObject_Vectorcall": "ptr (ptr, ptr, i64, ptr)",
    "PyEval_SaveThread": "ptr ()",
    "PyEval_RestoreThread": "void (ptr)",
}
NUMPY = {
    "PyArray_NewFromDescr": (94, "ptr (ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)"),
    "PyArray_SetBaseObject": (282, "i32 (ptr, ptr)"),
}
"""With their numbers in NumPy's own table, which stay as they are."""
SYSTEM = {"getenv": "ptr (ptr)"}
TELLS = sys.platform != "win32"
"""Does the system tell an environment variable as Python has set it?"""
SIGNATURES = PYTHON | SYSTEM | {name: signature for name, (_, signature) in NUMPY.items()}
NUMBERS = {name: number for number, name in enumerate((*WORDS, *SIGNATURES))}

COMMON = """
define internal i64 @word(ptr %words, i64 %n) nounwind {
  %at = getelementptr i64, ptr %words, i64 %n
  %word = load i64, ptr %at
  ret i64 %word
}

define internal ptr @pointer(ptr %words, i64 %n) nounwind {
  %at = getelementptr ptr, ptr %words, i64 %n
  %pointer = load ptr, ptr %at
  ret ptr %pointer
}

define internal void @put(i64 %word, ptr %words, i64 %n) nounwind {
  %at = getelementptr i64, ptr %words, i64 %n
  store i64 %word, ptr %at
  ret void
}

define internal void @point(ptr %pointer, ptr %words, i64 %n) nounwind {
  %at = getelementptr ptr, ptr %words, i64 %n
  store ptr %pointer, ptr %at
  ret void
}

define internal ptr @from(ptr %words, i64 %n) nounwind {
  %at = getelementptr i64, ptr %words, i64 %n
  ret ptr %at
}

define internal ptr @place(ptr %object) nounwind {  ; which an array or a capsule stands for
  %at = getelementptr i8, ptr %object, i64 {head}
  %place = load ptr, ptr %at
  ret ptr %place
}
"""

CALLED = """
define internal {result} @{name}(ptr %tools{kinds}) nounwind {
  %function = call ptr @pointer(ptr %tools, i64 {number})
  {take}call {result} %function({arguments})
  ret {give}
}
"""


def with_python(text: str) -> str:
    """The text, the functions of Python's that it calls, and those that read and write words."""
    called = set(re.findall(r"@(Py\w+|getenv)\(", text))
    return filled("".join([COMMON, *map(_called, sorted(called)), text]), {"head": HEAD, **NUMBERS})


def filled(text: str, numbers: Mapping[str, int]) -> str:
    """The text with numbers in the place of their names in braces."""
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    return text


def _called(name: str) -> str:
    result, kinds = SIGNATURES[name].removesuffix(")").split(" (")
    arguments = ", ".join(f"{kind} %a{n}" for n, kind in enumerate(filter(None, kinds.split(", "))))
    text = CALLED.replace("{name}", name).replace("{result}", result).replace("{number}", str(NUMBERS[name]))
    text = text.replace("{kinds}", arguments and f", {arguments}").replace("{arguments}", arguments)
    void = result == "void"
    return text.replace("{take}", "" if void else "%result = ").replace("{give}", void * "void" or f"{result} %result")


_tables: list[NDArray[np.int64] | None] = []


def tools() -> NDArray[np.int64] | None:
    """The table, the same one for good, for machine code knows its place and notes there what is going on.

    None where threads need no lock of Python's, or the system is not as this file says.
    """
    if not _tables:
        _tables.append(_table())
    return _tables[0]


def _table() -> NDArray[np.int64] | None:
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None
    room = "numpy._core" if np.__version__.split(".")[0] != "1" else "numpy.core"
    capsule = import_module(f"{room}._multiarray_umath")._ARRAY_API
    read = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    known = read(capsule, None) or 0
    if ctypes.c_size_t.from_address(id(capsule) + HEAD).value != known:
        return None
    numpy = ctypes.c_size_t.from_address
    words = [id(np.ndarray), id(tuple), id(dict), id(None), forever(listeners).ctypes.data, 0]
    words += [address(getattr(ctypes.pythonapi, name)) for name in PYTHON]
    words += [address(getattr(ctypes.CDLL(None), name)) if TELLS else 0 for name in SYSTEM]
    words += [numpy(known + 8 * number).value for number, _ in NUMPY.values()]
    return forever(np.array(words, np.int64))


def forever(thing: Any) -> Any:
    """The thing, which will never be freed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def signatures(names: Iterable[str]) -> tuple[tuple[Any, ...], ...]:
    """Of machine code for ``method``, as ``compile.load`` wants them."""
    return tuple((name, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64) for name in names)


class Method(ctypes.Structure):
    """``PyMethodDef``: how Python knows a function in C."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("about", ctypes.c_char_p),
    )


TAKES_ARGUMENTS_IN_A_ROW = 0x80
"""``METH_FASTCALL``."""


def method(name: str, code: Any, about: str | None = None) -> Method:
    """How Python knows this machine code, a function of words, arguments in a row, and their number.

    Neither is ever freed.
    """
    text = None if about is None else about.encode()
    return forever(Method(name.encode(), address(forever(code)), TAKES_ARGUMENTS_IN_A_ROW, text))


def function(method: Method, words: Any) -> Any:
    """The function of Python's that calls the method with these words."""
    return _create()(ctypes.addressof(method), words, None)


@cache
def _create() -> Any:
    place, thing = ctypes.c_void_p, ctypes.py_object
    return ctypes.PYFUNCTYPE(thing, place, thing, place)(("PyCFunction_NewEx", ctypes.pythonapi))
