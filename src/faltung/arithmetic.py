"""The 15 numbered relationships of convolution arithmetic: how the sizes of one axis hang together.

They say the same as ``faltung.geometry``, which every element uses, but one special case after the other, under
their numbers in the literature. Here they are to be read, printed and tested. Letters: i (input size), k (kernel),
s (stride), p (padding at both ends), d (dilation), o (output size). A transposed convolution leads back, from i'
to o'; its k, s and p are those of the convolution that it undoes, of size i, and a zeros make up for the rounding.

Source: Dumoulin & Visin, A guide to convolution arithmetic, relationships 1 to 15. The guide states 1 to 14
without dilation; with it they hold for k + (k - 1)(d - 1) in place of k.

>>> print(*RELATIONSHIPS.values(), sep="\\n")
 1  unit stride, no padding  s = 1, p = 0              o = (i - k) + 1
 2  unit stride              s = 1                     o = (i - k) + 2p + 1
 3  half (same) padding      s = 1, k = 2n + 1, p = n  o = i
 4  full padding             s = 1, p = k - 1          o = i + (k - 1)
 5  no padding               p = 0                     o = floor((i - k) / s) + 1
 6  any stride and padding   any s and p               o = floor((i + 2p - k) / s) + 1
 7  pooling                  p = 0                     o = floor((i - k) / s) + 1
 8  transposed 1             s = 1, p = 0              o' = i' + (k - 1)
 9  transposed 2             s = 1                     o' = i' + (k - 1) - 2p
10  transposed 3             s = 1, k = 2n + 1, p = n  o' = i'
11  transposed 4             s = 1, p = k - 1          o' = i' - (k - 1)
12  transposed 5             p = 0, s divides i - k    o' = s (i' - 1) + k
13  transposed 6             s divides i + 2p - k      o' = s (i' - 1) + k - 2p
14  transposed 6             a = (i + 2p - k) mod s    o' = s (i' - 1) + a + k - 2p
15  dilated                  any s, p and d            o = floor((i + 2p - k - (k - 1)(d - 1)) / s) + 1
>>> case = Case(i=6, k=3, s=2, p=1)
>>> RELATIONSHIPS[6].size(case), case.window.output(case.i)
(3, 3)
>>> RELATIONSHIPS[14].size(Case(i=3, k=3, s=2, p=1, a=(6 + 2 * 1 - 3) % 2))  # and back
6
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature

from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window


@dataclass(frozen=True)
class Case:
    """The letters of one axis, as numbers; for a transposed relationship i is i'.

    Raises: SettingError where a number is too small.
    """

    i: int
    k: int
    s: int = 1
    p: int = 0
    d: int = 1
    a: int = 0

    def __post_init__(self) -> None:
        if self.i < 1 or self.a < 0:
            raise SettingError(f"got {self}, expected i >= 1 and a >= 0", way_out="use an axis that is not empty")
        _ = self.window  # refuses the other letters

    @property
    def window(self) -> Window:
        """The same in the words of ``faltung.geometry``."""
        return Window(kernel=self.k, stride=self.s, dilation=self.d, padding=self.p)


@dataclass(frozen=True)
class Relationship:
    """One numbered relationship: what it is called, when it holds, and the size that it gives."""

    number: int
    title: str
    condition: str
    formula: str
    rule: Callable[..., int]
    """The formula; its parameters are the letters that may vary, and the others stand at their defaults."""
    also: Callable[..., bool] = lambda **numbers: True
    """What the condition asks of these letters beyond that."""
    undoes: int | None = None
    """Where it is transposed, the number of the relationship that it leads back."""

    def __str__(self) -> str:
        return f"{self.number:2}  {self.title:23}  {self.condition:24}  {self.formula}"

    def applies(self, case: Case) -> bool:
        """Tell whether the condition holds."""
        numbers = self._numbers(case)
        others = [letter for letter in fields(case) if letter.name not in numbers]
        return all(getattr(case, letter.name) == letter.default for letter in others) and self.also(**numbers)

    def size(self, case: Case) -> int:
        """Return o, or o' where it is transposed.

        Raises: SettingError where the condition does not hold; ShapeError where nothing fits.

        >>> RELATIONSHIPS[4].size(Case(i=5, k=3, p=2))
        7
        """
        if not self.applies(case):
            raise SettingError(
                f"relationship {self.number} holds for {self.condition}; got {case}",
                way_out="use 14 for any transposed, 15 for any other convolution",
            )
        size = self.rule(**self._numbers(case))
        if size < 1:
            raise ShapeError(f"{self.formula} = {size} for {case}, expected at least 1", way_out="use a larger i")
        return size

    def _numbers(self, case: Case) -> dict[str, int]:
        return {letter: getattr(case, letter) for letter in signature(self.rule).parameters}


def _half(i: int, k: int, p: int) -> bool:
    return k == 2 * p + 1


def _full(i: int, k: int, p: int) -> bool:
    return p == k - 1


# fmt: off -- a table: on the first line what is read, on the second what is computed
_TABLE = (
    Relationship(1, "unit stride, no padding", "s = 1, p = 0", "o = (i - k) + 1", lambda i, k: (i - k) + 1),
    Relationship(2, "unit stride", "s = 1", "o = (i - k) + 2p + 1", lambda i, k, p: (i - k) + 2 * p + 1),
    Relationship(3, "half (same) padding", "s = 1, k = 2n + 1, p = n", "o = i", lambda i, k, p: i, _half),
    Relationship(4, "full padding", "s = 1, p = k - 1", "o = i + (k - 1)", lambda i, k, p: i + (k - 1), _full),
    Relationship(5, "no padding", "p = 0", "o = floor((i - k) / s) + 1", lambda i, k, s: (i - k) // s + 1),
    Relationship(
        6,
        "any stride and padding",
        "any s and p",
        "o = floor((i + 2p - k) / s) + 1",
        lambda i, k, s, p: (i + 2 * p - k) // s + 1,
    ),
    Relationship(7, "pooling", "p = 0", "o = floor((i - k) / s) + 1", lambda i, k, s: (i - k) // s + 1),
    Relationship(8, "transposed 1", "s = 1, p = 0", "o' = i' + (k - 1)", lambda i, k: i + (k - 1), undoes=1),
    Relationship(9, "transposed 2", "s = 1", "o' = i' + (k - 1) - 2p", lambda i, k, p: i + (k - 1) - 2 * p, undoes=2),
    Relationship(10, "transposed 3", "s = 1, k = 2n + 1, p = n", "o' = i'", lambda i, k, p: i, _half, undoes=3),
    Relationship(
        11, "transposed 4", "s = 1, p = k - 1", "o' = i' - (k - 1)", lambda i, k, p: i - (k - 1), _full, undoes=4
    ),
    Relationship(
        12, "transposed 5", "p = 0, s divides i - k", "o' = s (i' - 1) + k", lambda i, k, s: s * (i - 1) + k, undoes=5
    ),
    Relationship(
        13,
        "transposed 6",
        "s divides i + 2p - k",
        "o' = s (i' - 1) + k - 2p",
        lambda i, k, s, p: s * (i - 1) + k - 2 * p,
        undoes=6,
    ),
    Relationship(
        14,
        "transposed 6",
        "a = (i + 2p - k) mod s",
        "o' = s (i' - 1) + a + k - 2p",
        lambda i, k, s, p, a: s * (i - 1) + a + k - 2 * p,
        lambda s, a, **_: a < s,
        undoes=6,
    ),
    Relationship(
        15,
        "dilated",
        "any s, p and d",
        "o = floor((i + 2p - k - (k - 1)(d - 1)) / s) + 1",
        lambda i, k, s, p, d: (i + 2 * p - k - (k - 1) * (d - 1)) // s + 1,
    ),
)
# fmt: on

RELATIONSHIPS = {relationship.number: relationship for relationship in _TABLE}
