"""The derivative of a formula, by SymPy.

SymPy knows none of our functions: each is a class whose derivative is the text in ``FUNCTIONS``, so the conventions at
kinks are ours. SymPy contributes the rules for sums, products, quotients, powers and nested functions, and collects
like terms. An aggregate is a symbol to it, and the name of every symbol is a formula (``x``, ``pi``,
``mean(exp(x))``): so the way back is to read it.

An aggregate of e_1, ..., e_m, where e_k depends on x_k, and on all of x through inner aggregates A, has

    d sum(e) / dx_k  =  de_k/dx_k  +  sum over A of  (sum over j of de_j/dA)  dA/dx_k

``mean`` likewise with the weight 1/m, ``max`` and ``min`` with the weights ``first_max(e)`` and ``first_min(e)``.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import reduce
from typing import Any

import sympy
from sympy.core.parameters import distribute

from faltung.errors import FormulaError
from faltung.formula.functions import CONSTANTS, FUNCTIONS, PER_ENTRY
from faltung.formula.parse import parse
from faltung.formula.tree import Apply, Name, Node, Number, Reduce, write

Expr = Any
"""An expression of SymPy, whose annotations do not help a type checker."""
Function: Any = sympy.Function

X = sympy.Symbol("x")
CONSTANT = {sympy.Symbol(name) for name in ("m", *CONSTANTS)}
WEIGHTS = {"sum": "1", "mean": "1 / m", "max": "first_max({})", "min": "first_min({})"}
"""The derivative of each aggregate by e_k."""


def derive(tree: Node) -> Node:
    """The tree of df/dx, or of dg/dx_k where there are aggregates.

    >>> write(derive(parse("x / (1 + exp(-x))")))
    'sigmoid(x) + x * sigmoid(x) * sigmoid(-x)'
    """
    try:
        with distribute(False):  # 2 * (x - y) must not become 2 * x - 2 * y, which is less accurate
            return from_sympy(_along_all_paths(to_sympy(tree), sympy.Integer(1), lambda slope: slope))
    except RecursionError:
        raise FormulaError("a formula nested too deeply to be differentiated", way_out="write it flatter") from None


def _along_all_paths(e: Expr, weight: Expr, gather: Callable[[Expr], Expr]) -> Expr:
    """The sum of weight * de/dx_k and, for every aggregate A in e, gather(de/dA) * dA/dx_k."""
    paths = [weight * e.diff(X)]
    for symbol in sorted(e.free_symbols, key=str):
        aggregate = parse(symbol.name, "entries")
        if isinstance(aggregate, Reduce) and aggregate.function not in PER_ENTRY:
            slope = gather(e.diff(symbol))
            paths += [slope * term for term in sympy.Add.make_args(_aggregate(aggregate))]
    return sympy.Add(*paths)


def _aggregate(aggregate: Reduce) -> Expr:
    """dA/dx_k."""
    weight = to_sympy(parse(WEIGHTS[aggregate.function].format(write(aggregate.body)), "entries"))
    if aggregate.function == "mean":
        return _along_all_paths(to_sympy(aggregate.body), weight, lambda slope: _window("mean", slope))
    return _along_all_paths(to_sympy(aggregate.body), weight, lambda slope: _window("sum", weight * slope))


def _window(function: str, e: Expr) -> Expr:
    """The sum or mean of e over the window, without what is the same for all entries, and 0 where terms cancel.

    So mean(x - mean(x)) is 0. And first_max(e) sums to 1.
    """
    varying = [s for s in e.free_symbols if s == X or s.name.split("(")[0] in PER_ENTRY]
    same, rest = e.as_independent(*varying, as_Add=False) if varying else (e, sympy.Integer(1))
    many = sympy.Symbol("m") if function == "sum" else sympy.Integer(1)
    if rest == 1:
        return same * many
    if rest in varying and rest != X:
        return same * many / sympy.Symbol("m")
    if rest.is_Add and sympy.Add(*[_window("mean", term) for term in rest.args]) == 0:
        return sympy.Integer(0)
    return same * sympy.Symbol(f"{function}({write(from_sympy(rest))})")


class Root(Function):
    """base**exponent, the exponent being no whole number, or negative; then it is 0 at base = 0."""

    nargs = 2

    @classmethod
    def eval(cls, base: Expr, exponent: Expr) -> Expr | None:
        """What needs no root."""
        if exponent.is_Integer and exponent >= 0:
            return base**exponent
        return base if base == 0 and exponent.is_negative else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """By the base, or by the exponent."""
        base, exponent = self.args
        return exponent * Root(base, exponent - 1) if argindex == 1 else self * CLASSES["log"](base)


def _class(name: str, derivatives: tuple[str, ...]) -> Any:
    def fdiff(self: Expr, argindex: int = 1) -> Expr:
        derivative = parse(derivatives[argindex - 1], variables=("x", "y"))
        return to_sympy(derivative, dict(zip("xy", self.args, strict=False)))

    return type(name, (Function,), {"nargs": len(derivatives), "fdiff": fdiff})


CLASSES = {name: _class(name, f.derivatives) for name, f in FUNCTIONS.items() if name not in ("sqrt", "ratio")}


def to_sympy(node: Node, variables: dict[str, Expr] | None = None) -> Expr:
    """An expression of SymPy from a tree; ``variables`` are put in for names."""
    match node:
        case Number(value):
            return sympy.Rational(repr(value))
        case Name(name):
            return (variables or {}).get(name, sympy.Symbol(name))
        case Reduce(function, body):
            return sympy.Symbol(f"{function}({write(from_sympy(to_sympy(body)))})")
        case Apply(function, arguments):
            return _apply(function, *[to_sympy(a, variables) for a in arguments])


def _apply(function: str, a: Expr, b: Expr = None) -> Expr:
    match function:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a * _reciprocal(b)
        case "**":
            return _power(a, b)
        case "neg":
            return -a
        case "sqrt":
            return Root(a, sympy.Rational(1, 2))
        case "ratio":
            return a * Root(b, -1)
        case "log" if (u := _one_plus_exp(a)) is not None:
            return CLASSES["softplus"](u)
        case "log1p" if isinstance(a, CLASSES["exp"]):
            return CLASSES["softplus"](a.args[0])
        case _:
            return CLASSES[function](a) if b is None else CLASSES[function](a, b)


def _power(base: Expr, exponent: Expr) -> Expr:
    if base == sympy.Symbol("e"):
        return CLASSES["exp"](exponent)
    if not exponent.is_Integer:
        return Root(base, exponent)
    if abs(exponent) > 1000:
        raise _too_large()
    power = base**exponent if exponent >= 0 else _reciprocal(base**-exponent)
    if any(max(abs(r.p), r.q) >= 2**4096 for r in power.atoms(sympy.Rational)):
        raise _too_large()
    return power


def _reciprocal(e: Expr) -> Expr:
    """1 / e. Where e has a factor 1 + exp(u), which may overflow: 1 / (1 + exp(u)) is sigmoid(-u)."""
    if e == 0:
        raise FormulaError("a formula that divides by zero", way_out="mend the denominator")

    def stable(power: Expr) -> Expr:
        u = _one_plus_exp(power.base)
        return power if u is None else CLASSES["sigmoid"](-u) ** -power.exp

    return (1 / e).replace(lambda part: part.is_Pow and part.exp.is_negative, stable)


def _one_plus_exp(e: Expr) -> Expr | None:
    """Where e is 1 + exp(u): u."""
    rest = e - 1
    return rest.args[0] if isinstance(rest, CLASSES["exp"]) else None


def from_sympy(e: Expr) -> Node:
    """The tree of an expression of SymPy. The order of terms and factors is ours, the same for any SymPy."""
    if e.is_Symbol:
        return parse(e.name, "entries")
    if e.is_Rational:
        return _number(e)
    if e.is_Add:
        return _sum(e)
    if e.is_Mul or e.is_Pow or isinstance(e, CLASSES["exp"]) or (isinstance(e, Root) and e.args[1].is_Rational):
        return _product(e)
    function = "**" if isinstance(e, Root) else type(e).__name__
    return Apply(function, tuple(from_sympy(a) for a in e.args))


def _number(r: Expr) -> Node:
    """As a decimal where that is short and exact, otherwise as a quotient."""
    if r < 0:
        return _negative(_number(-r))
    exact = Fraction(int(r.p), int(r.q))
    try:
        value = float(exact)
    except OverflowError:
        raise _too_large() from None
    if Fraction(repr(value)) == exact or max(exact.as_integer_ratio()) >= 2**53:
        return Number(value)
    return Apply("/", (Number(float(exact.numerator)), Number(float(exact.denominator))))


def _sum(e: Expr) -> Node:
    """Terms with plus first, then short before long."""
    plus = _sorted(from_sympy(term) for term in e.args if not _is_negative(term))
    minus = _sorted(from_sympy(-term) for term in e.args if _is_negative(term))
    if not plus:
        plus, minus = [_negative(minus[0])], minus[1:]
    return reduce(lambda a, b: Apply("-", (a, b)), minus, _chain("+", plus))


def _product(e: Expr) -> Node:
    """Factors over factors. Exponentials become one, exp(u) * exp(v) = exp(u + v): each alone might overflow."""
    coefficient, rest = e.as_coeff_Mul()
    exponential: Expr = sympy.Integer(0)
    powers: defaultdict[Expr, Expr] = defaultdict(lambda: sympy.Integer(0))
    roots: set[Expr] = set()
    for factor in sympy.Mul.make_args(rest):
        base, exponent = factor.as_base_exp()
        if isinstance(base, CLASSES["exp"]):
            exponential += exponent * base.args[0]
        elif isinstance(base, Root) and base.args[1].is_Rational:
            roots.add(base.args[0])
            powers[base.args[0]] += exponent * base.args[1]
        else:
            powers[base] += exponent
    over = [Apply("exp", (from_sympy(exponential),))] if exponential != 0 else []
    over += [_raised(base, exponent) for base, exponent in powers.items() if exponent > 0]
    under = [_raised(base, -exponent) for base, exponent in powers.items() if exponent < 0]
    over, under = _sorted(over), _sorted(under)

    number = _number(abs(coefficient))
    above, *below = number.arguments if isinstance(number, Apply) else (number,)
    over = over if over and above == Number(1.0) else [above, *over]
    under = [*below, *under]
    if coefficient < 0:
        over[0] = _negative(over[0])
    if not under:
        return _chain("*", over)
    guarded = any(powers[base] < 0 and not base.free_symbols <= CONSTANT for base in roots)
    return Apply("ratio" if guarded else "/", (_chain("*", over), _chain("*", under)))


def _raised(base: Expr, exponent: Expr) -> Node:
    tree = from_sympy(base)
    if exponent == 1:
        return tree
    if exponent == sympy.Rational(1, 2):
        return Apply("sqrt", (tree,))
    return Apply("**", (tree, _number(exponent)))


def _is_negative(term: Expr) -> bool:
    return term.as_coeff_Mul()[0] < 0


def _negative(node: Node) -> Node:
    return Apply("neg", (node,))


def _chain(operator: str, nodes: list[Node]) -> Node:
    return reduce(lambda a, b: Apply(operator, (a, b)), nodes)


def _sorted(nodes: Iterable[Node]) -> list[Node]:
    """Numbers first, then short before long."""
    return sorted(nodes, key=lambda node: (not isinstance(node, Number), len(write(node)), write(node)))


def _too_large() -> FormulaError:
    return FormulaError(
        "numbers too large for the exact arithmetic of a derivative",
        way_out="use whole powers up to 1000, and numbers of ordinary size",
    )
