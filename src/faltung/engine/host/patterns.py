"""Patterns of arguments: what is told of them, as words that machine code compares with other arguments.

A pattern is a word and what belongs to it: ``ARRAY`` (dtype, axes, sizes; its numbers lie side by side), ``TUPLE`` (how
many, and patterns), ``DICT`` (how many, and for each a pattern of its name and one of what it names), ``ATTRIBUTE``
(type, name, value), ``SAME`` (an object), ``EQUAL`` (an object that is compared without calling Python). Arrays are
noted in a list as they come: how many, and then each.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.engine.host.python import HEAD

SAME, ARRAY, TUPLE, DICT, ATTRIBUTE, EQUAL = range(6)
BEHIND = HEAD // 8
LAYOUT = {
    "type": HEAD - 8,
    "axes": BEHIND + 1,
    "sizes": BEHIND + 2,
    "dtype": BEHIND + 5,
    "flags": BEHIND + 6,
    "length": BEHIND,
    "items": tuple.__basicsize__ // 8,
}
"""Where an object has its type, in bytes; and in words, what an array and a tuple say of themselves."""


class StrangeError(Exception):
    """Something of which no pattern tells."""


def told(thing: Any, attributes: Mapping[type, str], kept: list[Any]) -> list[int]:
    """The pattern of an argument; what it knows by its place is added to what must be kept.

    Of objects of some types, all that counts is an attribute.
    """
    kind = type(thing)
    if kind is np.ndarray:
        if not (thing.flags.c_contiguous and thing.flags.aligned):
            raise StrangeError
        kept.append(thing.dtype)
        return [ARRAY, id(thing.dtype), thing.ndim, *thing.shape]
    if kind is tuple:
        return [TUPLE, len(thing), *(word for part in thing for word in told(part, attributes, kept))]
    if kind is dict:
        return [
            DICT,
            len(thing),
            *(word for pair in thing.items() for part in pair for word in told(part, attributes, kept)),
        ]
    kept.append(thing)
    if kind in attributes:
        found = getattr(thing, attributes[kind])
        kept += [kind, attributes[kind], found]
        return [ATTRIBUTE, *map(id, kept[-3:])]
    if isinstance(thing, np.ndarray | tuple | Mapping):
        raise StrangeError
    return [EQUAL if kind in (str, int) else SAME, id(thing)]


FITS = """
define internal ptr @type(ptr %thing) nounwind {
  %at = getelementptr i8, ptr %thing, i64 {type}
  %type = load ptr, ptr %at
  ret ptr %type
}

define internal i1 @is_a(ptr %tools, ptr %thing, i64 %kind) nounwind {  ; is it exactly of this type?
  %type = call ptr @type(ptr %thing)
  %wanted = call ptr @pointer(ptr %tools, i64 %kind)
  %is = icmp eq ptr %type, %wanted
  ret i1 %is
}

define internal void @note(ptr %array, ptr %arrays) nounwind {  ; arrays: how many, and then each
  %count = load i64, ptr %arrays
  %more = add i64 %count, 1
  call void @point(ptr %array, ptr %arrays, i64 %more)
  store i64 %more, ptr %arrays
  ret void
}

define internal ptr @noted(ptr %arrays, i64 %number) nounwind {
  %n = add i64 %number, 1
  %array = call ptr @pointer(ptr %arrays, i64 %n)
  ret ptr %array
}

define internal ptr @fits_array(ptr %tools, ptr %thing, ptr %pattern, ptr %arrays) nounwind {
  %is = call i1 @is_a(ptr %tools, ptr %thing, i64 {ndarray})
  br i1 %is, label %about, label %no
about:
  %dtype = call ptr @pointer(ptr %thing, i64 {dtype})
  %dtype.wanted = call ptr @pointer(ptr %pattern, i64 0)
  %dtype.is = icmp eq ptr %dtype, %dtype.wanted
  %flags = call i64 @word(ptr %thing, i64 {flags})
  %both = and i64 %flags, 257  ; in C's order, aligned
  %plain = icmp eq i64 %both, 257
  %axes.word = call i64 @word(ptr %thing, i64 {axes})
  %axes = and i64 %axes.word, 4294967295
  %axes.wanted = call i64 @word(ptr %pattern, i64 1)
  %axes.is = icmp eq i64 %axes, %axes.wanted
  %so = and i1 %dtype.is, %plain
  %all = and i1 %so, %axes.is
  %sizes = call ptr @pointer(ptr %thing, i64 {sizes})
  %end = add i64 %axes, 2
  br i1 %all, label %size, label %no
size:
  %n = phi i64 [ 2, %about ], [ %n.up, %next ]
  %left = icmp slt i64 %n, %end
  br i1 %left, label %next, label %yes
next:
  %axis = sub i64 %n, 2
  %size.n = call i64 @word(ptr %sizes, i64 %axis)
  %size.wanted = call i64 @word(ptr %pattern, i64 %n)
  %size.is = icmp eq i64 %size.n, %size.wanted
  %n.up = add i64 %n, 1
  br i1 %size.is, label %size, label %no
yes:
  call void @note(ptr %thing, ptr %arrays)
  %rest = call ptr @from(ptr %pattern, i64 %end)
  ret ptr %rest
no:
  ret ptr null
}

define internal ptr @fits_tuple(ptr %tools, ptr %thing, ptr %pattern, ptr %arrays) nounwind {
  %is = call i1 @is_a(ptr %tools, ptr %thing, i64 {tuple})
  br i1 %is, label %long, label %no
long:
  %length = call i64 @word(ptr %thing, i64 {length})
  %wanted = load i64, ptr %pattern
  %equal = icmp eq i64 %length, %wanted
  %begin = call ptr @from(ptr %pattern, i64 1)
  br i1 %equal, label %part, label %no
part:
  %n = phi i64 [ 0, %long ], [ %n.up, %next ]
  %here = phi ptr [ %begin, %long ], [ %there, %next ]
  %left = icmp slt i64 %n, %length
  br i1 %left, label %next, label %end
next:
  %at = add i64 %n, {items}
  %item = call ptr @pointer(ptr %thing, i64 %at)
  %there = call ptr @fits(ptr %tools, ptr %item, ptr %here, ptr %arrays)
  %n.up = add i64 %n, 1
  %fits = icmp ne ptr %there, null
  br i1 %fits, label %part, label %no
end:
  ret ptr %here
no:
  ret ptr null
}

define internal ptr @fits_dict(ptr %tools, ptr %thing, ptr %pattern, ptr %arrays) nounwind {
  %position = alloca i64
  %name = alloca ptr
  %value = alloca ptr
  %is = call i1 @is_a(ptr %tools, ptr %thing, i64 {dict})
  br i1 %is, label %long, label %no
long:
  store i64 0, ptr %position
  %length = call i64 @PyDict_Size(ptr %tools, ptr %thing)
  %wanted = load i64, ptr %pattern
  %equal = icmp eq i64 %length, %wanted
  %begin = call ptr @from(ptr %pattern, i64 1)
  br i1 %equal, label %part, label %no
part:
  %n = phi i64 [ 0, %long ], [ %n.up, %within ]
  %here = phi ptr [ %begin, %long ], [ %there, %within ]
  %left = icmp slt i64 %n, %length
  br i1 %left, label %next, label %end
next:
  %code = call i32 @PyDict_Next(ptr %tools, ptr %thing, ptr %position, ptr %name, ptr %value)
  %own.name = load ptr, ptr %name
  %named = call ptr @fits(ptr %tools, ptr %own.name, ptr %here, ptr %arrays)
  %right = icmp ne ptr %named, null
  br i1 %right, label %within, label %no
within:
  %item = load ptr, ptr %value
  %there = call ptr @fits(ptr %tools, ptr %item, ptr %named, ptr %arrays)
  %n.up = add i64 %n, 1
  %fits = icmp ne ptr %there, null
  br i1 %fits, label %part, label %no
end:
  ret ptr %here
no:
  ret ptr null
}

define internal i1 @has_attribute(ptr %tools, ptr %thing, ptr %pattern) nounwind {
  %type = call ptr @type(ptr %thing)
  %wanted = call ptr @pointer(ptr %pattern, i64 0)
  %is = icmp eq ptr %type, %wanted
  br i1 %is, label %ask, label %no
ask:
  %name = call ptr @pointer(ptr %pattern, i64 1)
  %value = call ptr @PyObject_GetAttr(ptr %tools, ptr %thing, ptr %name)
  %missing = icmp eq ptr %value, null
  br i1 %missing, label %clear, label %compare
clear:
  call void @PyErr_Clear(ptr %tools)
  ret i1 false
compare:  ; only the place of the value counts
  call void @Py_DecRef(ptr %tools, ptr %value)
  %expected = call ptr @pointer(ptr %pattern, i64 2)
  %same = icmp eq ptr %value, %expected
  ret i1 %same
no:
  ret i1 false
}

define internal i1 @equals(ptr %tools, ptr %thing, ptr %other) nounwind {
  %same = icmp eq ptr %thing, %other
  br i1 %same, label %yes, label %alike
alike:
  %type = call ptr @type(ptr %thing)
  %type.other = call ptr @type(ptr %other)
  %is = icmp eq ptr %type, %type.other
  br i1 %is, label %compare, label %no
compare:
  %answer = call i32 @PyObject_RichCompareBool(ptr %tools, ptr %thing, ptr %other, i32 2)
  %equal = icmp eq i32 %answer, 1
  ret i1 %equal
yes:
  ret i1 true
no:
  ret i1 false
}

define internal ptr @fits(ptr %tools, ptr %thing, ptr %pattern, ptr %arrays) nounwind {  ; what follows, or null
  %kind = load i64, ptr %pattern
  %about = call ptr @from(ptr %pattern, i64 1)
  %object = load ptr, ptr %about
  %rest = call ptr @from(ptr %pattern, i64 2)
  %behind = call ptr @from(ptr %pattern, i64 4)
  switch i64 %kind, label %same [
    i64 1, label %array
    i64 2, label %tuple
    i64 3, label %dict
    i64 4, label %attribute
    i64 5, label %equal
  ]
array:
  %array.rest = call ptr @fits_array(ptr %tools, ptr %thing, ptr %about, ptr %arrays)
  ret ptr %array.rest
tuple:
  %tuple.rest = call ptr @fits_tuple(ptr %tools, ptr %thing, ptr %about, ptr %arrays)
  ret ptr %tuple.rest
dict:
  %dict.rest = call ptr @fits_dict(ptr %tools, ptr %thing, ptr %about, ptr %arrays)
  ret ptr %dict.rest
attribute:
  %has = call i1 @has_attribute(ptr %tools, ptr %thing, ptr %about)
  %attribute.rest = select i1 %has, ptr %behind, ptr null
  ret ptr %attribute.rest
equal:
  %equals = call i1 @equals(ptr %tools, ptr %thing, ptr %object)
  %equal.rest = select i1 %equals, ptr %rest, ptr null
  ret ptr %equal.rest
same:
  %is = icmp eq ptr %thing, %object
  %same.rest = select i1 %is, ptr %rest, ptr null
  ret ptr %same.rest
}
"""
