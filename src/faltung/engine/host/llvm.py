"""From the loop language to LLVM's: text, one line a statement, with the names that the kernel gave.

Variables become stack slots, which LLVM's first pass turns into registers. Loops are tested at the bottom, and before
them where it is not known that they run at least once.
"""

import struct
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from faltung.engine.host.machine import Machine
from faltung.engine.loops.language import BOOL, I32, INDEX, Constant, Function, Type, Value
from faltung.engine.loops.operations import CONVERSIONS, OPERATIONS, UNFUSED
from faltung.engine.loops.statements import (
    Await,
    Call,
    Get,
    If,
    Let,
    Load,
    Loop,
    Prefetch,
    Set,
    Statement,
    Store,
    Take,
    Tell,
)

NAMES = {"f32": "float", "f64": "double", "i8": "i8", "i32": "i32", "i64": "i64", "index": "i64", "bool": "i1"}


def module(functions: Sequence[Function], public: AbstractSet[str], machine: Machine) -> str:
    """The text of a module for this machine; functions that are not public are seen by the others only."""
    writers = [_Writer(function, function.name in public, machine.fused) for function in functions]
    declarations = sorted(set().union(*(writer.declarations for writer in writers)))
    past = ["!0 = !{i32 1}"] if any(writer.streams for writer in writers) else []
    bits = 8 * machine.vector
    # Wide vectors are used although they may slow the clock down; loops are not replaced by calls of memset.
    attributes = f'nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" "no-builtins"'
    return "\n".join(
        [*declarations, *(writer.text for writer in writers), f"attributes #0 = {{ {attributes} }}", *past, ""]
    )


def typed(kind: Type) -> str:
    """The type as LLVM writes it."""
    if kind.pointer:
        return "ptr"
    return NAMES[kind.kind] if kind.lanes == 1 else f"<{kind.lanes} x {NAMES[kind.kind]}>"


class _Writer:
    """The text of one function; its own names end in a word (``i.end``), those of the kernel in a number (``i.2``)."""

    def __init__(self, function: Function, public: bool, fused: bool):
        self.declarations: set[str] = set()
        self._fused = fused
        self.streams = False
        self._lines: list[str] = []
        self._count = 0
        self._label("entry")
        for variable in function.variables:
            self._say(f"%{variable.name}.slot = alloca {typed(variable.type)}")
        self._block(function.body)
        arguments = ", ".join(f"{typed(value.type)} %{value.name}" for value in function.arguments)
        linkage = "" if public else "internal "
        head = f"\ndefine {linkage}void @{function.name}({arguments}) #0 {{"
        if self.streams:  # what went past the caches is there before whatever says so to other threads
            self._say("fence seq_cst")
        self.text = "\n".join([head, *self._lines, "  ret void", "}"])

    def _say(self, line: str) -> None:
        self._lines.append(f"  {line}")

    def _label(self, name: str) -> None:
        """Begin a block of statements."""
        self._here = name
        self._lines.append(f"{name}:")

    def _temporary(self, name: str) -> str:
        self._count += 1
        return f"{name}{self._count}"

    def _block(self, body: list[Statement]) -> None:
        for statement in body:
            match statement:
                case Let():
                    self._let(statement)
                case Load():
                    self._load(statement)
                case Store():
                    self._store(statement)
                case Take(value, _, _, count):
                    place = self._place(statement)
                    self._say(f"%{value.name} = atomicrmw add ptr {place}, {self._typed(count)} monotonic")
                case Tell(value):
                    place, size = self._place(statement), value.type.size
                    self._say(f"store atomic {self._typed(value)}, ptr {place} release, align {size}")
                case Await():
                    self._await(statement)
                case Prefetch():
                    self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
                    self._say(f"call void @llvm.prefetch.p0(ptr {self._place(statement)}, i32 0, i32 3, i32 1)")
                case Get(value, variable):
                    self._say(f"%{value.name} = load {typed(value.type)}, ptr %{variable.name}.slot")
                case Set(variable, value):
                    self._say(f"store {self._typed(value)}, ptr %{variable.name}.slot")
                case Loop():
                    self._loop(statement)
                case If():
                    self._if(statement)
                case Call(function, arguments):
                    self._say(f"call void @{function.name}({', '.join(map(self._typed, arguments))})")

    # ---------------------------------------------------------------------------------------------------- control

    def _loop(self, loop: Loop) -> None:
        name, start, stop = loop.index.name, self._operand(loop.start), self._operand(loop.stop)
        body, end, before = f"{name}.body", f"{name}.end", self._here
        if (
            isinstance(loop.start, Constant)
            and isinstance(loop.stop, Constant)
            and loop.start.number < loop.stop.number
        ):
            self._say(f"br label %{body}")
        else:
            self._say(f"%{name}.any = icmp slt i64 {start}, {stop}")
            self._say(f"br i1 %{name}.any, label %{body}, label %{end}")
        self._label(body)
        index = len(self._lines)
        self._block(loop.body)
        self._lines.insert(index, f"  %{name} = phi i64 [ {start}, %{before} ], [ %{name}.up, %{self._here} ]")
        self._say(f"%{name}.up = add nsw i64 %{name}, {loop.step}")
        self._say(f"%{name}.more = icmp slt i64 %{name}.up, {stop}")
        self._say(f"br i1 %{name}.more, label %{body}, label %{end}")
        self._label(end)

    def _if(self, statement: If) -> None:
        name = self._temporary("if.when")
        self._say(f"br {self._typed(statement.condition)}, label %{name}.body, label %{name}.end")
        self._label(f"{name}.body")
        self._block(statement.body)
        self._say(f"br label %{name}.end")
        self._label(f"{name}.end")

    def _await(self, statement: Await) -> None:
        name, kind, before, place = self._temporary("wait"), statement.value.type, self._here, self._place(statement)
        self._say(f"br label %{name}.look")
        self._label(f"{name}.look")
        self._say(f"%{name}.looks = phi i64 [ 0, %{before} ], [ %{name}.more, %{name}.again ]")
        self._say(f"%{name}.seen = load atomic {typed(kind)}, ptr {place} acquire, align {kind.size}")
        self._say(f"%{name}.told = icmp sge {typed(kind)} %{name}.seen, {self._operand(statement.value)}")
        self._say(f"br i1 %{name}.told, label %{name}.end, label %{name}.again")
        self._label(f"{name}.again")
        self._say(f"%{name}.more = add i64 %{name}.looks, 1")
        self._say(f"call void {self._operand(statement.pause)}(i64 %{name}.more, {self._typed(statement.system)})")
        self._say(f"br label %{name}.look")
        self._label(f"{name}.end")

    # ------------------------------------------------------------------------------------------------- operations

    def _let(self, let: Let) -> None:
        result, to, operands = f"%{let.value.name}", let.value.type, [self._operand(value) for value in let.arguments]
        match let.op:
            case "at":
                kind = NAMES[to.kind]
                self._say(f"{result} = getelementptr {kind}, ptr {operands[0]}, i64 {operands[1]}")
            case "broadcast":
                self._broadcast(result, to, operands[0])
            case "shuffle" if to.lanes == 1:
                source, lane = let.arguments[let.lanes[0] // let.arguments[0].type.lanes], let.lanes[0]
                self._say(f"{result} = extractelement {self._typed(source)}, i64 {lane % source.type.lanes}")
            case "shuffle":
                lanes = ", ".join(f"i32 {lane}" for lane in let.lanes)
                a, b = map(self._typed, let.arguments)
                self._say(f"{result} = shufflevector {a}, {b}, <{to.lanes} x i32> <{lanes}>")
            case "first_lanes":
                self._first_lanes(result, to.lanes, operands[0])
            case op:
                operation, kind = (OPERATIONS | CONVERSIONS)[op], let.arguments[-1].type
                text = operation.text(kind.floating) if self._fused or op not in UNFUSED else UNFUSED[op]
                assert text is not None, "the language refuses operations that a type does not have"
                self._operation(result, text, kind, operands, to)

    def _operation(self, result: str, text: str, kind: Type, operands: Sequence[str], to: Type) -> None:
        """One of the texts of ``operations``."""
        if text.startswith("llvm."):
            self._intrinsic(text, [(typed(kind), operand) for operand in operands], kind, result)
            return
        *before, last = text.split("; ")
        first = f"{result}.first"
        names = dict(zip("abc", operands, strict=False)) | {"first": first}
        names |= {"t": typed(kind), "to": typed(to), "m": typed(BOOL.times(kind.lanes))}
        for line in before:
            self._say(f"{first} = {line.format(**names)}")
        self._say(f"{result} = {last.format(**names)}")

    def _first_lanes(self, result: str, lanes: int, count: str) -> None:
        """Lane by lane, is its number below the count? In 32 bits, which is the quicker comparison."""
        self._intrinsic("llvm.smin", [("i64", count), ("i64", str(lanes))], INDEX, f"{result}.some")
        self._say(f"{result}.short = trunc i64 {result}.some to i32")
        self._broadcast(f"{result}.counts", I32.times(lanes), f"{result}.short")
        numbers = ", ".join(f"i32 {lane}" for lane in range(lanes))
        self._say(f"{result} = icmp slt <{lanes} x i32> <{numbers}>, {result}.counts")

    def _broadcast(self, result: str, kind: Type, number: str) -> None:
        vector = typed(kind)
        self._say(f"{result}.one = insertelement {vector} poison, {typed(kind.times(1))} {number}, i64 0")
        lanes = f"<{kind.lanes} x i32> zeroinitializer"
        self._say(f"{result} = shufflevector {vector} {result}.one, {vector} poison, {lanes}")

    def _intrinsic(self, name: str, arguments: list[tuple[str, str]], kind: Type, result: str = "") -> None:
        """Call an intrinsic for numbers of this kind and, before the functions, declare it."""
        letter = "f" if kind.floating else "i"
        full = f"@{name}.{f'v{kind.lanes}' if kind.lanes > 1 else ''}{letter}{8 * kind.size}"
        full += ".p0" if name.startswith("llvm.masked") else ""
        gives = typed(kind) if result else "void"
        self.declarations.add(f"declare {gives} {full}({', '.join(kind for kind, _ in arguments)})")
        called = f"call {gives} {full}({', '.join(f'{kind} {operand}' for kind, operand in arguments)})"
        self._say(f"{result} = {called}" if result else called)

    # ----------------------------------------------------------------------------------------------------- memory

    def _place(self, statement: Load | Store | Take | Tell | Await | Prefetch) -> str:
        base, offset = statement.pointer, statement.offset
        if isinstance(offset, Constant) and offset.number == 0:
            return self._operand(base)
        place = self._temporary(f"%{base.name}.at")
        self._say(f"{place} = getelementptr {NAMES[base.type.kind]}, ptr %{base.name}, i64 {self._operand(offset)}")
        return place

    def _load(self, load: Load) -> None:
        place, kind, result = self._place(load), load.value.type, f"%{load.value.name}"
        if load.mask is None:
            self._say(f"{result} = load {typed(kind)}, ptr {place}, align {kind.size}")
            return
        mask = (typed(load.mask.type), self._operand(load.mask))
        arguments = [("ptr", place), ("i32", str(kind.size)), mask, (typed(kind), "zeroinitializer")]
        self._intrinsic("llvm.masked.load", arguments, kind, result)

    def _store(self, store: Store) -> None:
        place, kind = self._place(store), store.value.type
        if store.streamed:
            self.streams = True
            self._say(f"store {self._typed(store.value)}, ptr {place}, align {kind.size * kind.lanes}, !nontemporal !0")
            return
        if store.mask is None:
            self._say(f"store {self._typed(store.value)}, ptr {place}, align {kind.size}")
            return
        value, mask = ((typed(value.type), self._operand(value)) for value in (store.value, store.mask))
        self._intrinsic("llvm.masked.store", [value, ("ptr", place), ("i32", str(kind.size)), mask], kind)

    def _typed(self, value: Value) -> str:
        return f"{typed(value.type)} {self._operand(value)}"

    def _operand(self, value: Value) -> str:
        if not isinstance(value, Constant):
            return f"%{value.name}"
        one = value.type.times(1)
        number = _number(value.number, one)
        return number if one == value.type else "<" + ", ".join([f"{typed(one)} {number}"] * value.type.lanes) + ">"


def _number(number: float, kind: Type) -> str:
    """A constant as LLVM reads it: floating ones by their bits in double precision, so that none is rounded twice."""
    if kind == BOOL:
        return "true" if number else "false"
    if not kind.floating:
        return str(int(number))
    return f"0x{struct.unpack('<Q', struct.pack('<d', kind.dtype.type(number)))[0]:016X}"
