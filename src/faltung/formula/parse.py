"""From text to tree. Nothing is evaluated on the way: what the grammar does not name cannot be said.

sum      product, then any number of:  + product   - product
product  sign, then any number of:  * sign   / sign
sign     - sign   + sign   power
power    atom   atom ** sign
atom     number   name   function(sum, ...)   (sum)
"""

import re
from collections.abc import Iterator, Sequence
from math import inf
from typing import Literal, NamedTuple, NoReturn

from faltung.errors import FormulaError
from faltung.formula.functions import CONSTANTS, FUNCTIONS, PER_ENTRY, REDUCTIONS
from faltung.formula.tree import LEVELS, Apply, Name, Node, Number, Reduce

Kind = Literal["pointwise", "aggregate", "entries"]
"""Whether a formula sees one entry, a window and gives one value, or a window and gives a value for each entry."""

LENGTH = 10_000
"""Characters that a formula may have."""
NESTING = 100
"""Operations inside each other, parentheses or not. Each costs up to three calls; Python allows a thousand."""
HEIGHT = 200
"""Nodes on the longest way down the tree. Each costs two calls when the formula is evaluated."""

_TOKEN = re.compile(
    r"""\s* (?: (?P<number> (?: [0-9]+ \.? [0-9]* | \. [0-9]+ ) (?: [eE] [-+]? [0-9]+ )? )
              | (?P<name> [A-Za-z_] [A-Za-z_0-9]* )
              | (?P<sign> \*\* | [-+*/(),] )
              | (?P<end> \Z )
              | (?P<unknown> . ) )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)


class Token(NamedTuple):
    """One word of a formula."""

    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def parse(text: str, kind: Kind = "pointwise", variables: Sequence[str] = ("x",)) -> Node:
    """The tree of a formula; raises ``FormulaError`` that says where the text is none.

    >>> parse("2 * x").arguments
    (Number(value=2.0), Name(name='x'))
    """
    if not isinstance(text, str):
        raise FormulaError(f"got {text!r}, expected the text of a formula", way_out="write it as in 'x * sigmoid(x)'")
    if len(text) > LENGTH:
        raise FormulaError(
            f"got a formula, or a derivative, of {len(text)} characters, expected at most {LENGTH}",
            way_out="write it shorter",
        )
    return _Parser(text, kind, variables).whole()


class _Parser:
    """Reads one text once, from left to right, always one token ahead."""

    def __init__(self, text: str, kind: Kind, variables: Sequence[str]):
        self.text = text
        self.kind = kind
        self.variables = variables
        self.names = [*variables, *([] if kind == "pointwise" else ["m"]), *CONSTANTS]
        self.varying: list[Token] = []
        """What differs from entry to entry, and is not under an aggregate (yet)."""
        self.nesting = 0
        self.tokens = self.scan()
        self.next = next(self.tokens)

    def scan(self) -> Iterator[Token]:
        for match in _TOKEN.finditer(self.text):
            kind = str(match.lastgroup)
            token = Token(kind, match[kind], match.start(kind))
            if kind == "unknown":
                self.fail(f"unexpected {token}", token, "only numbers, names, + - * / ** ( ) and , are known")
            yield token

    def whole(self) -> Node:
        node = self.operation(LEVELS["+"])
        if self.next.kind != "end":
            self.fail(f"expected an operator, got {self.next}", self.next)
        if self.kind == "aggregate" and self.varying:
            token = self.varying[0]
            self.fail(f"{token} is outside every aggregate", token, "put it under sum, mean, max or min")
        return node

    def operation(self, level: int) -> Node:
        """An operand, and behind it the operators that bind at least as strongly as ``level``."""
        self.nesting += 1
        if self.nesting > NESTING:
            self.fail(f"more than {NESTING} levels of nesting", self.next, "write it flatter")
        left = self.operand()
        while self.next.kind == "sign" and LEVELS.get(self.next.text, 0) >= level:
            operator = self.take()
            right = self.operation(LEVELS["neg"] if operator.text == "**" else LEVELS[operator.text] + 1)
            left = self.node(Apply(operator.text, (left, right)), operator)
        self.nesting -= 1
        return left

    def operand(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "name":
            return self.call(token) if self.next.text == "(" else self.name(token)
        if token.text == "(":
            node = self.operation(LEVELS["+"])
            self.expect(")")
            return node
        if token.text == "-":
            return self.node(Apply("neg", (self.operation(LEVELS["neg"]),)), token)
        if token.text != "+":
            self.fail(f"expected a number, a name or '(', got {token}", token)
        return self.operation(LEVELS["neg"])

    def number(self, token: Token) -> Node:
        value = float(token.text)
        if value == inf:
            self.fail(f"the number {token} is too large", token)
        return Number(value)

    def name(self, token: Token) -> Node:
        if token.text in FUNCTIONS or token.text in REDUCTIONS:
            self.fail(f"the function {token} without an argument", token, f"write {token.text}(...)")
        if token.text not in self.names:
            self.fail(f"unknown name {token}", token, f"the names are {', '.join(self.names)}")
        if token.text in self.variables:
            self.varying.append(token)
        return Name(token.text)

    def call(self, token: Token) -> Node:
        function, outside = token.text, len(self.varying)
        if function not in FUNCTIONS and function not in REDUCTIONS:
            known = ", ".join(sorted({*FUNCTIONS, *REDUCTIONS}))
            self.fail(f"unknown function {token}", token, f"the functions are {known}")
        self.expect("(")
        arguments = [self.operation(LEVELS["+"])]
        while self.next.text == ",":
            self.take()
            arguments.append(self.operation(LEVELS["+"]))
        self.expect(")")
        if function in FUNCTIONS and len(arguments) == len(FUNCTIONS[function].derivatives):
            return self.node(Apply(function, tuple(arguments)), token)
        if function not in REDUCTIONS or len(arguments) > 1:
            expected = len(FUNCTIONS[function].derivatives) if function in FUNCTIONS else 1
            self.fail(f"{token} takes {expected} argument(s), got {len(arguments)}", token)
        if self.kind == "pointwise":
            self.fail(f"the aggregate {token} in a pointwise formula", token, "it needs a window: use it for pooling")
        self.varying[outside:] = [token] if function in PER_ENTRY else []
        return self.node(Reduce(function, arguments[0]), token)

    def node(self, node: Apply | Reduce, token: Token) -> Node:
        if node.height > HEIGHT:
            self.fail(f"more than {HEIGHT} operations inside each other", token, "put parentheses around parts of it")
        return node

    def take(self) -> Token:
        token = self.next
        self.next = next(self.tokens, token)
        return token

    def expect(self, sign: str) -> None:
        if self.next.text != sign:
            self.fail(f"expected {sign!r}, got {self.next}", self.next)
        self.take()

    def fail(self, problem: str, token: Token, way_out: str | None = None) -> NoReturn:
        at = token.position
        shown = self.text if len(self.text) <= 60 else f"...{self.text[max(0, at - 20) : at + 30]}..."
        raise FormulaError(f"{problem} at position {at} of {shown!r}", way_out=way_out)
