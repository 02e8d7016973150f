"""The loop language as text that is pleasant to read.

Numbers lie in memory as in NumPy, x[i : i + 16] is a vector of 16. A value that is used once stands where it is used;
a number beside a vector counts for each lane; ``where`` names the lanes that are read or written. An example is in
``language``.
"""

import re
from collections import Counter
from collections.abc import Iterator
from textwrap import wrap

from faltung.engine.loops.language import Constant, Function, Value, Variable
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

WIDTH = 72
"""Longer expressions get a line of their own."""

INFIX = {
    "mul": ("*", 8), "div": ("/", 8), "quotient": ("//", 8), "remainder": ("%", 8), "add": ("+", 7), "sub": ("-", 7),
    "shift": ("<<", 6), "shift_right": (">>", 6), "and": ("&", 5), "xor": ("^", 4), "or": ("|", 3),
    "less": ("<", 2), "less_equal": ("<=", 2), "equal": ("==", 2), "not_equal": ("!=", 2),
}  # fmt: skip
"""The sign of an operation, and how strongly it binds."""
ATOM, UNARY, SUM, LOWEST = 10, 9, 7, 1


def text(function: Function) -> str:
    """The whole function."""
    arguments = ", ".join(f"{value.name}:~{value.type}" for value in function.arguments)
    head = "\n".join(wrap(f"{function.name}({arguments})", 110, subsequent_indent=" " * 8)).replace("~", " ")
    return "\n".join([head, *_Printer(function.body).block(function.body, "    ")])


def line(statement: Statement) -> str:
    """One statement without what is inside it, every value by its name."""
    return next(_Printer([statement]).block([statement], ""))


def used(statement: Statement) -> tuple[Value, ...]:
    """The values that a statement uses itself, once for each time."""
    match statement:
        case Let(_, _, arguments) | Call(_, arguments):
            return arguments
        case Load(_, base, offset, mask):
            return (base, offset, *([] if mask is None else [mask]))
        case Store(value, base, offset, mask):
            return (value, base, offset, *([] if mask is None else [mask]))
        case Take(_, base, offset, count):
            return (base, offset, count)
        case Tell(value, base, offset) | Await(value, base, offset):
            return (value, base, offset)
        case Prefetch(base, offset):
            return (base, offset)
        case Get():
            return ()
        case Set(_, value):
            return (value,)
        case Loop(_, start, stop):
            return (start, stop)
        case If(condition):
            return (condition,)


class _Printer:
    def __init__(self, body: list[Statement]):
        self._inlined = _inlined(body)
        self._text: dict[Value, tuple[str, int]] = {}  # what stands for a value instead of its name
        self._declared: set[Variable] = set()

    def block(self, body: list[Statement], indent: str) -> Iterator[str]:
        """The lines of some statements."""
        for statement in body:
            match statement:
                case Let(value, "broadcast", (number,)):
                    self._text[value] = self._of(number)
                case Let(value) | Load(value) | Get(value):
                    expression, strength = self._expression(statement)
                    if value in self._inlined and len(expression) <= WIDTH:
                        self._text[value] = expression, strength
                    else:
                        yield f"{indent}{value.name} = {expression}"
                case Take(value, _, _, count):
                    yield f"{indent}{value.name} = take({self._range(statement, 1)}, {self._of(count)[0]})"
                case Tell(value):
                    yield f"{indent}tell({self._range(statement, 1)} = {self._of(value)[0]})"
                case Await(value):
                    yield f"{indent}wait({self._range(statement, 1)} >= {self._of(value)[0]})"
                case Prefetch():
                    yield f"{indent}prefetch({self._range(statement, 1)})"
                case Store(value, _, _, mask, streamed):
                    target, where = self._range(statement, value.type.lanes), self._where(mask)
                    how = "stream " if streamed else ""
                    yield f"{indent}{how}{target} = {self._tight(value, LOWEST + (mask is not None))}{where}"
                case Set(variable, value):
                    kind = "" if variable in self._declared else f": {variable.type}"
                    self._declared.add(variable)
                    yield f"{indent}{variable.name}{kind} = {self._of(value)[0]}"
                case Loop(index, start, stop, step, inside):
                    limits = f"{self._tight(start, SUM)} .. {self._tight(stop, SUM)}"
                    yield f"{indent}for {index.name} in {limits}" + (f" step {step}" if step > 1 else "")
                    yield from self.block(inside, indent + "    ")
                case If(condition, inside):
                    yield f"{indent}if {self._of(condition)[0]}"
                    yield from self.block(inside, indent + "    ")
                case Call(function, arguments):
                    yield f"{indent}{function.name}({', '.join(self._of(value)[0] for value in arguments)})"

    def _expression(self, statement: Let | Load | Get) -> tuple[str, int]:
        """The text of what a statement gives, and how strongly its weakest sign binds."""
        match statement:
            case Get(_, variable):
                return variable.name, ATOM
            case Load(value, _, _, None):
                return self._range(statement, value.type.lanes), ATOM
            case Load(value, _, _, mask):
                return self._range(statement, value.type.lanes) + self._where(mask), LOWEST
            case Let(_, "at", (base, offset)):
                return f"{self._tight(base, SUM)} + {self._tight(offset, SUM)}", SUM
            case Let(_, "negate", (operand,)):
                return f"-{self._tight(operand, UNARY)}", UNARY
            case Let(_, op, (a, b)) if op in INFIX:
                sign, strength = INFIX[op]
                return f"{self._tight(a, strength)} {sign} {self._tight(b, strength + 1)}", strength
            case Let(_, "shuffle", (a, b), lanes):
                first, last = lanes[0], lanes[-1]
                if last < a.type.lanes and lanes == tuple(range(first, last + 1)):
                    span = f"{first} : {last + 1}" if len(lanes) > 1 else str(first)
                    return f"{self._tight(a, ATOM)}[{span}]", ATOM
                return f"shuffle({', '.join([self._of(a)[0], self._of(b)[0], *map(str, lanes)])})", ATOM
            case Let(value, "first_lanes", (count,)):
                return f"first_lanes({self._of(count)[0]}, {value.type.lanes})", ATOM
            case Let(_, op, arguments):
                return f"{op}({', '.join(self._of(value)[0] for value in arguments)})", ATOM

    def _of(self, value: Value) -> tuple[str, int]:
        if isinstance(value, Constant):
            number = value.type.dtype.type(value.number)
            return str(number), ATOM if number >= 0 else UNARY
        return self._text.get(value, (value.name, ATOM))

    def _tight(self, value: Value, strength: int) -> str:
        """The text of a value, in parentheses where it binds less strongly than its surroundings."""
        expression, own = self._of(value)
        return expression if own >= strength else f"({expression})"

    def _range(self, statement: Load | Store | Take | Tell | Await | Prefetch, lanes: int) -> str:
        base, offset = self._of(statement.pointer)[0], self._tight(statement.offset, SUM)
        return f"{base}[{offset}]" if lanes == 1 else f"{base}[{offset} : {_plus(offset, lanes)}]"

    def _where(self, mask: Value | None) -> str:
        return "" if mask is None else f" where {self._tight(mask, LOWEST + 1)}"


def _plus(offset: str, lanes: int) -> str:
    """The text of offset + lanes: i + 16 for i, i + 32 for i + 16, 32 for 16."""
    known = re.fullmatch(r"(.* \+ )?(\d+)", offset)
    return f"{known[1] or ''}{int(known[2]) + lanes}" if known else f"{offset} + {lanes}"


def _inlined(body: list[Statement]) -> set[Value]:
    """The values that may stand where they are used: once, in their own block, and what they read is still the same."""
    scalars: dict[Value, Value] = {}
    uses: Counter[Value] = Counter()
    user: dict[Value, tuple[list[Statement], int]] = {}
    bodies = [body]
    for inside in bodies:  # grows while it is walked
        for index, statement in enumerate(inside):
            if isinstance(statement, Let) and statement.op == "broadcast":
                scalars[statement.value] = statement.arguments[0]
                continue
            for value in used(statement):
                while value in scalars:
                    value = scalars[value]
                uses[value] += 1
                user[value] = inside, index
            bodies += [statement.body] if isinstance(statement, Loop | If) else []
    return {value for inside in bodies for value in _inlined_in(inside, uses, user)}


def _inlined_in(
    body: list[Statement], uses: Counter[Value], user: dict[Value, tuple[list[Statement], int]]
) -> Iterator[Value]:
    read_at = list(range(len(body)))  # where in the block each statement is read in the end
    for index, statement in reversed(list(enumerate(body))):
        if isinstance(statement, Let | Load | Get) and uses[statement.value] == 1:
            where, place = user[statement.value]
            is_place = isinstance(statement, Let) and statement.op == "at"
            if where is not body or (is_place and not isinstance(body[place], Call)):
                continue
            if not any(_changes(later, statement) for later in body[index + 1 : read_at[place]]):
                read_at[index] = read_at[place]
                yield statement.value


def _changes(later: Statement, earlier: Statement) -> bool:
    """May the later statement change what the earlier one reads?"""
    match earlier:
        case Load():
            return isinstance(later, Store | Take | Await | Call | Loop | If)
        case Get(_, variable):
            return isinstance(later, Loop | If) or (isinstance(later, Set) and later.variable is variable)
    return False
