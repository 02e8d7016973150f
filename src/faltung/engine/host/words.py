"""The language of what runs around kernels, where no Python may run: Python's syntax, and words of 8 bytes.

Every value is a word: a number, a place in memory, or that of a function. ``a[n]`` is the n-th word at the place a, and
``a[n:]`` where it lies. There are arithmetic, comparisons (with signs), ``and``, ``or``, ``not``, ``if``, ``while``,
and functions, which give 0 if nothing else is said; a local name that is called is the place of a function. Division
and ``>>`` know no signs.

    local(4)            room for so many words while the function runs
    text("...")         the place of a text that ends with a zero
    byte(a, n)          the n-th byte at a place
    half(a)             a number of 32 bits with a sign, which are all that counts of a
    leading_zeros(a)    of 64 bits
    exchanged(a, b, c)  was the word at place a equal to b, and is it now c?

``ATOMIC`` is what else several threads may do with the word at a place, with the names of C's memory orders.

>>> total = '''
... def total(numbers, count):
...     n = sum = 0
...     while n < count:
...         sum += numbers[n]
...         n += 1
...     return sum
... '''
>>> lines = llvm(module(["total"], total)).splitlines()
>>> print(next(line.strip() for line in lines if "getelementptr" in line))
%v9 = getelementptr i64, ptr %v7, i64 %v8

LLVM finds registers for names, and turns this into what one would have written in C.
"""

import ast
import ctypes
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from faltung.engine.host import blocks

MARK = "# words\n"
"""How a module begins."""
C = {
    ctypes.c_void_p: "ptr", ctypes.c_int64: "i64", ctypes.c_int32: "i32", ctypes.c_float: "float",
    ctypes.c_double: "double",
}  # fmt: skip
"""What LLVM calls a C type; a word has the bits of a number in its lower half, or all of it."""
EMPTY: Mapping[str, Any] = {}
OPERATIONS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "udiv", ast.BitAnd: "and", ast.BitOr: "or",
    ast.LShift: "shl", ast.RShift: "lshr",
}  # fmt: skip
COMPARISONS = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}
ATOMIC = {
    "add_relaxed": "atomicrmw add ptr {0}, i64 {1} monotonic",
    "add_release": "atomicrmw add ptr {0}, i64 {1} release",
    "load_relaxed": "load atomic i64, ptr {0} monotonic, align 8",
    "load_acquire": "load atomic i64, ptr {0} acquire, align 8",
    "store_relaxed": "store atomic i64 {1}, ptr {0} monotonic, align 8",
    "store_release": "store atomic i64 {1}, ptr {0} release, align 8",
}
"""``add`` and ``load`` give the word that was there."""


def version() -> int:
    """Of this translation, for the keys of what is compiled: another one for every change of these files."""
    with suppress(OSError):  # a program that was shipped without its texts
        return crc32(b"".join(Path(file).read_bytes() for file in (__file__, blocks.__file__)))
    return 0


def module(
    public: Iterable[str],
    *functions: str,
    numbers: Mapping[str, int] = EMPTY,
    outside: Mapping[str, tuple[str, int | None]] = EMPTY,
    before: str = "",
) -> str:
    """A module: functions, some of which others may call, and numbers that have names.

    Functions from outside have the signatures of C, in LLVM's words. Their places are in a table, under their numbers;
    the table's place is the first argument of a call. Without a number it is a function of the LLVM text ``before``.
    """
    lines = [f"PUBLIC = {tuple(public)}", f"BEFORE = {before!r}"]
    lines += [f"{name} = {number}" for name, number in numbers.items()]
    lines += [f"{name}: {signature!r} = {number}" for name, (signature, number) in outside.items()]
    return MARK + "\n".join([*lines, *functions])


def llvm(text: str) -> str:
    """The module in LLVM's language; a text that is no module of words is in that language already.

    Raises: SyntaxError where Python knows what a line means, and this language does not.
    """
    return _Module(text).llvm() if text.startswith(MARK) else text


class _Module:
    """What names mean."""

    def __init__(self, text: str):
        self.numbers: dict[str, int] = {}
        self.outside: dict[str, tuple[str, int | None]] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.texts: list[str] = []
        public, before, *lines = ast.parse(text).body
        self.public, self._before = _literal(public), _literal(before)
        for line in lines:
            match line:
                case ast.Assign([ast.Name(name)]):
                    self.numbers[name] = _literal(line)
                case ast.AnnAssign(ast.Name(name), ast.Constant(str(signature))):
                    self.outside[name] = signature, _literal(line)
                case ast.FunctionDef(name):
                    self.functions[name] = line
                case _:
                    raise _unknown(line)

    def llvm(self) -> str:
        functions = [_Function(self, node).llvm() for node in self.functions.values()]
        return "\n".join([self._before, *self.texts, "declare i64 @llvm.ctlz.i64(i64, i1)\n", *functions])

    def text(self, text: str) -> str:
        """The place of a text that ends with a zero."""
        place = f"@text.{len(self.texts)}"
        self.texts.append(f'{place} = private constant [{len(text) + 1} x i8] c"{text}\\00"')
        return place


def _literal(line: Any) -> Any:
    return ast.literal_eval(line.value)


def _unknown(node: ast.AST) -> SyntaxError:
    return SyntaxError(f"words do not know what this means: {ast.unparse(node)}")


class _Function(blocks.Blocks):
    """One function. Names have slots on the stack, which LLVM turns into registers."""

    def __init__(self, module: _Module, node: ast.FunctionDef):
        super().__init__()
        self._module, self._node = module, node
        self._names = [argument.arg for argument in node.args.args]
        self._loops: list[tuple[str, str]] = []
        """Where each loop that we are in goes on, and ends."""

    def llvm(self) -> str:
        arguments = list(self._names)
        for name in arguments:
            self.slots.append(f"  %{name}.slot = alloca i64")
            self.line(f"store i64 %{name}, ptr %{name}.slot")
        self._body(self._node.body)
        if self.open:
            self.end("ret i64 0")
        linkage = "" if self._node.name in self._module.public else "internal "
        head = f"define {linkage}i64 @{self._node.name}({', '.join(f'i64 %{name}' for name in arguments)}) nounwind {{"
        return "\n".join([head, *self.slots, *self.lines, "}\n"])

    # Statements

    def _body(self, body: list[ast.stmt]) -> None:
        for node in body:
            if not self.open:
                raise SyntaxError(f"nobody comes here: {ast.unparse(node)}")
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets, value):
                word = self._word(value)
                for target in targets:
                    self._set(target, word)
            case ast.AugAssign(target, operation, value):
                self._set(target, self._word(ast.BinOp(target, operation, value)))
            case ast.If(test, body, other):
                self._if(test, body, other)
            case ast.While(test, body, []):
                self._while(test, body)
            case ast.Break():
                self.jump(self._loops[-1][1])
            case ast.Continue():
                self.jump(self._loops[-1][0])
            case ast.Return(value):
                self.end(f"ret i64 {self._word(value) if value else 0}")
            case ast.Expr(ast.Call() as call):
                self._call(call)
            case _:
                raise _unknown(node)

    def _set(self, target: ast.expr, word: str) -> None:
        match target:
            case ast.Name(name):
                if name not in self._names:
                    self._names.append(name)
                    self.slots += [f"  %{name}.slot = alloca i64", f"  store i64 0, ptr %{name}.slot"]
                self.line(f"store i64 {word}, ptr %{name}.slot")
            case ast.Subscript(place, number) if not isinstance(number, ast.Slice):
                self.line(f"store i64 {word}, ptr {self._at(place, number)}")
            case _:
                raise _unknown(target)

    def _if(self, test: ast.expr, body: list[ast.stmt], other: list[ast.stmt]) -> None:
        yes, no, end = self.labels("yes", "no", "end")
        self._branch(test, yes, no if other else end)
        self.begin(yes)
        self._body(body)
        goes_on = self.open or not other
        self.jump(end)
        if other:
            self.begin(no)
            self._body(other)
            goes_on = goes_on or self.open
            self.jump(end)
        if goes_on:
            self.begin(end)

    def _while(self, test: ast.expr, body: list[ast.stmt]) -> None:
        again, inside, end = self.labels("again", "inside", "end")
        self.jump(again)
        self.begin(again)
        self._branch(test, inside, end)
        self.begin(inside)
        self._loops.append((again, end))
        self._body(body)
        self._loops.pop()
        self.jump(again)
        self.begin(end)

    def _branch(self, test: ast.expr, yes: str, no: str) -> None:
        """To one of two blocks; of ``and`` and ``or``, what need not be known is not asked."""
        match test:
            case ast.UnaryOp(ast.Not(), inner):
                self._branch(inner, no, yes)
            case ast.BoolOp(operation, [*firsts, last]):
                for first in firsts:
                    [label] = self.labels("also")
                    self._branch(first, *((label, no) if isinstance(operation, ast.And) else (yes, label)))
                    self.begin(label)
                self._branch(last, yes, no)
            case ast.Compare(left, [operation], [right]) if type(operation) in COMPARISONS:
                words = f"{self._word(left)}, {self._word(right)}"
                self.fork(self.made(f"icmp {COMPARISONS[type(operation)]} i64 {words}"), yes, no)
            case ast.Compare():
                raise _unknown(test)
            case _:
                self.fork(self.made(f"icmp ne i64 {self._word(test)}, 0"), yes, no)

    # Words

    def _word(self, node: ast.expr) -> str:
        """The value of an expression: a number, or LLVM's name of it."""
        match node:
            case ast.Constant(int(number)):
                return str(int(number))
            case ast.UnaryOp(ast.USub(), inner):
                return self.made(f"sub i64 0, {self._word(inner)}")
            case ast.Name(name) if name in self._names:
                return self.made(f"load i64, ptr %{name}.slot")
            case ast.Name(name) if name in self._module.numbers:
                return str(self._module.numbers[name])
            case ast.Name(name) if name in self._module.functions:
                return f"ptrtoint (ptr @{name} to i64)"
            case ast.BinOp(left, operation, right) if type(operation) in OPERATIONS:
                return self.made(f"{OPERATIONS[type(operation)]} i64 {self._word(left)}, {self._word(right)}")
            case ast.Subscript(place, ast.Slice(ast.expr() as first, None, None)):
                return self.made(f"ptrtoint ptr {self._at(place, first)} to i64")
            case ast.Subscript(place, number) if not isinstance(number, ast.Slice):
                return self.made(f"load i64, ptr {self._at(place, number)}")
            case ast.IfExp(test, one, other):
                return self._either(test, lambda: self._word(one), lambda: self._word(other))
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(ast.Not()):
                return self._either(node, lambda: "1", lambda: "0")
            case ast.Call():
                return self._call(node)
            case _:
                raise _unknown(node)

    def _either(self, test: ast.expr, one: Callable[[], str], other: Callable[[], str]) -> str:
        yes, no, end = self.labels("yes", "no", "end")
        slot = self.slot("i64")
        self._branch(test, yes, no)
        for label, value in ((yes, one), (no, other)):
            self.begin(label)
            self.line(f"store i64 {value()}, ptr {slot}")
            self.jump(end)
        self.begin(end)
        return self.made(f"load i64, ptr {slot}")

    def _at(self, place: ast.expr, number: ast.expr) -> str:
        return self.made(f"getelementptr i64, ptr {self._pointer(self._word(place))}, i64 {self._word(number)}")

    def _pointer(self, word: str) -> str:
        return self.made(f"inttoptr i64 {word} to ptr")

    def _call(self, node: ast.Call) -> str:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        match name, node.args:
            case "local", [ast.Constant(int(count))]:
                return self.made(f"ptrtoint ptr {self.slot(f'[{count} x i64]')} to i64")
            case "text", [ast.Constant(str(text))]:
                return self.made(f"ptrtoint ptr {self._module.text(text)} to i64")
        words = [self._word(argument) for argument in node.args]
        if name in self._names or not name:
            return self._called(self._pointer(self._word(node.func)), words)
        match name, words:
            case _ if name in self._module.outside:
                return self._outside(node, words)
            case _ if name in self._module.functions:
                if len(words) != len(self._module.functions[name].args.args):
                    raise _unknown(node)
                return self._called(f"@{name}", words)
            case _, [place, *more] if name in ATOMIC:
                line = ATOMIC[name].format(self._pointer(place), *more)
                return self.done(line) if line.startswith("store") else self.made(line)
            case "exchanged", [place, old, new]:  # was the old word there, and is it now the new one?
                pair = self.made(f"cmpxchg ptr {self._pointer(place)}, i64 {old}, i64 {new} acq_rel acquire, align 8")
                return self.made(f"zext i1 {self.made(f'extractvalue {{ i64, i1 }} {pair}, 1')} to i64")
            case "byte", [place, number]:
                at = self.made(f"getelementptr i8, ptr {self._pointer(place)}, i64 {number}")
                return self.made(f"zext i8 {self.made(f'load i8, ptr {at}')} to i64")
            case "half", [word]:
                return self.made(f"sext i32 {self.made(f'trunc i64 {word} to i32')} to i64")
            case "leading_zeros", [word]:
                return self._called("@llvm.ctlz.i64", [word], ", i1 false")
            case _:
                raise _unknown(node)

    def _called(self, function: str, words: list[str], more: str = "") -> str:
        return self.made(f"call i64 {function}({', '.join(f'i64 {word}' for word in words)}{more})")

    def _outside(self, node: ast.Call, words: list[str]) -> str:
        """A call of a function that takes and gives what its signature says."""
        name = ast.unparse(node.func)
        signature, number = self._module.outside[name]
        given, takes = signature.removesuffix(")").split(" (")
        function, kinds = f"@{name}", takes.split(", ") if takes else []
        if number is not None:
            table, *words = words
            at = self.made(f"getelementptr ptr, ptr {self._pointer(table)}, i64 {number}")
            function = self.made(f"load ptr, ptr {at}")
        if len(words) != len(kinds):
            raise _unknown(node)
        arguments = [f"{kind} {self._as(kind, word)}" for kind, word in zip(kinds, words, strict=True)]
        call = f"call {given} {function}({', '.join(arguments)})"
        match given:
            case "void":
                return self.done(call)
            case "ptr":
                return self.made(f"ptrtoint ptr {self.made(call)} to i64")
            case "i32":
                return self.made(f"sext i32 {self.made(call)} to i64")
        return self.made(call)

    def _as(self, kind: str, word: str) -> str:
        match kind:
            case "ptr":
                return self._pointer(word)
            case "i32":
                return self.made(f"trunc i64 {word} to i32")
            case "float":
                return self.made(f"bitcast i32 {self._as('i32', word)} to float")
            case "double":
                return self.made(f"bitcast i64 {word} to double")
        return word
