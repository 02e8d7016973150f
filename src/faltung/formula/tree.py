"""What a formula is once it has been read: a tree of four kinds of nodes, and nothing else.

    Number(1.702)              a number, never negative
    Name("x")                  the variable, a constant, or the count of the window
    Apply("+", (a, b))         a function of each entry by itself; the operators are among them
    Reduce("sum", a)           a function of the whole window

``write`` gives the canonical text of a tree; ``parse`` makes the same tree from it.
"""

from dataclasses import dataclass, field
from typing import ClassVar

LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}
"""How strongly each operator binds. As in Python: -x**2 is -(x**2), 2**3**2 is 2**(3**2), the others group left."""

_ATOM = 5


@dataclass(frozen=True)
class Number:
    """A number, finite and not negative."""

    value: float
    height: ClassVar[int] = 1


@dataclass(frozen=True)
class Name:
    """The variable, a constant, or the count of the window."""

    name: str
    height: ClassVar[int] = 1


@dataclass(frozen=True)
class Apply:
    """An operator of ``LEVELS`` or a function of ``FUNCTIONS``, and what it is applied to."""

    function: str
    arguments: tuple["Node", ...]
    height: int = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "height", 1 + max(a.height for a in self.arguments))


@dataclass(frozen=True)
class Reduce:
    """A function of ``REDUCTIONS``, and what is reduced."""

    function: str
    body: "Node"
    height: int = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "height", 1 + self.body.height)


Node = Number | Name | Apply | Reduce
"""Each node knows its height, the number of nodes on its longest way down."""


def write(node: Node, level: int = 0) -> str:
    """The canonical text of a tree, in parentheses where it binds less than ``level`` asks.

    >>> x = Name("x")
    >>> write(Apply("*", (Apply("+", (x, Number(1.0))), Apply("**", (x, Number(0.5))))))
    '(x + 1) * x**0.5'
    """
    match node:
        case Number(value):
            return str(int(value)) if value.is_integer() and value < 1e16 else repr(value)
        case Name(name):
            return name
        case Reduce(function, body):
            return f"{function}({write(body)})"
        case Apply(operator, arguments) if operator in LEVELS:
            own = LEVELS[operator]
            text = _operation(operator, own, arguments)
            return f"({text})" if own < level else text
        case Apply(function, arguments):
            return f"{function}({', '.join(map(write, arguments))})"


def _operation(operator: str, own: int, arguments: tuple[Node, ...]) -> str:
    if operator == "neg":
        return f"-{write(arguments[0], own)}"
    left, right = arguments
    if operator == "**":
        return f"{write(left, _ATOM)}**{write(right, LEVELS['neg'])}"
    return f"{write(left, own)} {operator} {write(right, own + 1)}"
