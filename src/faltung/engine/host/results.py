"""Patterns of results: how machine code composes a result of arrays and of what was known before.

A pattern is a word and what belongs to it, as in ``patterns``, but an ``ARRAY`` has its number in the list of arrays,
and a ``DICT`` its names themselves.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.engine.host.patterns import ARRAY, DICT, SAME, TUPLE


def composed(thing: Any, numbers: Mapping[int, int], kept: list[Any]) -> list[int]:
    """The pattern of a result; ``numbers`` are those of its arrays, by their identity."""
    if isinstance(thing, np.ndarray):
        return [ARRAY, numbers[id(thing)]]
    if isinstance(thing, tuple):
        return [TUPLE, len(thing), *(word for part in thing for word in composed(part, numbers, kept))]
    if isinstance(thing, dict):
        kept += thing
        pairs = ([id(name), *composed(part, numbers, kept)] for name, part in thing.items())
        return [DICT, len(thing), *(word for pair in pairs for word in pair)]
    kept.append(thing)
    return [SAME, id(thing)]


MADE = """
define internal i64 @next(ptr %cursor) nounwind {  ; the word that it points to; from now on it points to the next one
  %here = load ptr, ptr %cursor
  %word = load i64, ptr %here
  %there = call ptr @from(ptr %here, i64 1)
  store ptr %there, ptr %cursor
  ret i64 %word
}

define internal ptr @made_tuple(ptr %tools, ptr %cursor, ptr %arrays) nounwind {
  %length = call i64 @next(ptr %cursor)
  %tuple = call ptr @PyTuple_New(ptr %tools, i64 %length)
  %none = icmp eq ptr %tuple, null
  br i1 %none, label %end, label %part
part:
  %n = phi i64 [ 0, %0 ], [ %n.up, %put ]
  %left = icmp slt i64 %n, %length
  br i1 %left, label %next, label %end
next:
  %item = call ptr @made(ptr %tools, ptr %cursor, ptr %arrays)
  %failed = icmp eq ptr %item, null
  br i1 %failed, label %drop, label %put
put:
  %code = call i32 @PyTuple_SetItem(ptr %tools, ptr %tuple, i64 %n, ptr %item)
  %n.up = add i64 %n, 1
  br label %part
drop:
  call void @Py_DecRef(ptr %tools, ptr %tuple)
  ret ptr null
end:
  ret ptr %tuple
}

define internal ptr @made_dict(ptr %tools, ptr %cursor, ptr %arrays) nounwind {
  %length = call i64 @next(ptr %cursor)
  %dict = call ptr @PyDict_New(ptr %tools)
  %none = icmp eq ptr %dict, null
  br i1 %none, label %end, label %part
part:
  %n = phi i64 [ 0, %0 ], [ %n.up, %put ]
  %left = icmp slt i64 %n, %length
  br i1 %left, label %next, label %end
next:
  %name.word = call i64 @next(ptr %cursor)
  %name = inttoptr i64 %name.word to ptr
  %item = call ptr @made(ptr %tools, ptr %cursor, ptr %arrays)
  %failed = icmp eq ptr %item, null
  br i1 %failed, label %drop, label %put
put:
  %code = call i32 @PyDict_SetItem(ptr %tools, ptr %dict, ptr %name, ptr %item)
  call void @Py_DecRef(ptr %tools, ptr %item)
  %n.up = add i64 %n, 1
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %drop, label %part
drop:
  call void @Py_DecRef(ptr %tools, ptr %dict)
  ret ptr null
end:
  ret ptr %dict
}

define internal ptr @made(ptr %tools, ptr %cursor, ptr %arrays) nounwind {  ; what the pattern says, or null
  %kind = call i64 @next(ptr %cursor)
  switch i64 %kind, label %same [
    i64 1, label %array
    i64 2, label %tuple
    i64 3, label %dict
  ]
array:
  %number = call i64 @next(ptr %cursor)
  %array.noted = call ptr @noted(ptr %arrays, i64 %number)
  br label %refer
same:
  %object.word = call i64 @next(ptr %cursor)
  %object = inttoptr i64 %object.word to ptr
  br label %refer
refer:
  %thing = phi ptr [ %array.noted, %array ], [ %object, %same ]
  call void @Py_IncRef(ptr %tools, ptr %thing)
  ret ptr %thing
tuple:
  %tuple.made = call ptr @made_tuple(ptr %tools, ptr %cursor, ptr %arrays)
  ret ptr %tuple.made
dict:
  %dict.made = call ptr @made_dict(ptr %tools, ptr %cursor, ptr %arrays)
  ret ptr %dict.made
}
"""
