"""Python's and NumPy's functions for machine code, which calls no library: it finds their places in a table.

A text that needs some of them (``text``) says ``PyTuple_New(tools, 3)``, where tools is the place of the table. Its
first words are no functions but what ``WORDS`` says. None of this is ever freed: arrays die after the modules whose
memory they use.

Python's own structures are known as far as all versions share them: an object begins with ``HEAD`` bytes, the last word
of which is its type; an array and a capsule go on with the place that they stand for.
"""

import ctypes
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import words
from faltung.engine.host.dispatch import address
from faltung.engine.host.recording import listeners

HEAD = object.__basicsize__
"""Bytes at the beginning of every object of Python's; in an array the address of its first number comes next."""
WORDS = ("ndarray", "tuple", "dict", "none", "listeners", "busy")
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

PLACE, TYPE = HEAD // 8, HEAD // 8 - 1
"""Words of an object: what an array or a capsule stands for, and the object's type."""


def text(public: Iterable[str], *parts: str, **numbers: int) -> str:
    """A text in the language of ``words``, which knows Python's functions, its objects, and these numbers."""
    known = {"PLACE": PLACE, "TYPE": TYPE, **{name: NUMBERS[name] for name in WORDS}, **numbers}
    outside = {name: (signature, NUMBERS[name]) for name, signature in SIGNATURES.items()}
    return words.module(public, *parts, numbers=known, outside=outside)


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
    table = [id(np.ndarray), id(tuple), id(dict), id(None), forever(listeners).ctypes.data, 0]
    table += [address(getattr(ctypes.pythonapi, name)) for name in PYTHON]
    table += [address(getattr(ctypes.CDLL(None), name)) if TELLS else 0 for name in SYSTEM]
    table += [numpy(known + 8 * number).value for number, _ in NUMPY.values()]
    return forever(np.array(table, np.int64))


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
