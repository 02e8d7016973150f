"""The adjoint identity of linear elements: three products, one number."""

from dataclasses import dataclass, replace

import numpy as np

from faltung.check.derivatives import Derivatives, Entry, input_names, of_element
from faltung.elements.element import Array, Element, Run, Shape
from faltung.errors import SettingError


@dataclass(frozen=True)
class AdjointCheck:
    """The sums that must be equal: ``y`` is <dy, y>, ``x`` is <dx, x> + <db, b>, ``w`` is <dw, w> + <db, b>.

    ``x`` or ``w`` is None where the element has no such derivative. Where the sums differ, ``worst`` is the entry whose
    derivative is furthest from what moving the entry by 1 does; None where every entry is right, and y itself is wrong
    (not linear).
    Example: see ``adjoint_check``.
    """

    y: float
    x: float | None
    w: float | None
    size: float
    """The sum of |dy y|, which differences are measured against."""
    worst: Entry | None

    @property
    def difference(self) -> float:
        """The largest difference from ``y``, as a fraction of ``size``."""
        gaps = [abs(self.y - other) for other in (self.x, self.w) if other is not None]
        return float(np.max(gaps)) / (self.size or 1.0)

    def passed(self, bound: float = 0.0) -> bool:
        """Whether the sums are equal; a bound above 0 is for elements that round, such as a mean of nine entries."""
        return self.difference <= bound

    def __str__(self) -> str:
        sums = {"<dy, y>": self.y, "<dx, x> + <db, b>": self.x, "<dw, w> + <db, b>": self.w}
        lines = [f"{name:17} = {value:.17g}" for name, value in sums.items() if value is not None]
        return "\n".join(lines if self.passed() else [*lines, f"worst: {self.worst}"])


def adjoint_check(element: Element, *inputs: Shape | Array, seed: int = 0, run: Run = Run()) -> AdjointCheck:
    """Compare <dy, y>, <dx, x> + <db, b> and <dw, w> + <db, b> of a linear element, by equality.

    Inputs are as for ``element_check``. What is drawn (inputs, parameters, dy) are integers from 1 to 99, of either
    sign, in float64: so small that sums of products do not round, so large that wrong sums are not equal by chance.
    Raises: SettingError where the element is not linear.
    Source: y = C x and dx = C^T dy, slides, "Convolution as a matrix operation"; likewise y is linear in w.

    >>> from faltung.elements import Conv
    >>> print(adjoint_check(Conv(2, kernel=3, padding=1), (5, 5, 1)))
    <dy, y>           = -4811207
    <dx, x> + <db, b> = -4811207
    <dw, w> + <db, b> = -4811207
    """
    if not element.linear:
        raise SettingError("got an element that is not linear", element=element, way_out="use element_check")
    derivatives, y, dy = of_element(element, inputs, seed, run, _integers)
    products = {name: float(np.vdot(derivatives.by(name), array)) for name, array in derivatives.arrays.items()}
    from_b = products.pop("b", 0.0)
    from_x = [products.pop(name) for name in input_names(len(inputs)) if name in products]
    from_w = list(products.values())
    check = AdjointCheck(
        y=float(np.vdot(dy, y)),
        x=sum(from_x) + from_b if from_x else None,
        w=sum(from_w) + from_b if from_w else None,
        size=float(np.vdot(abs(dy), abs(y))),
        worst=None,
    )
    return check if check.passed() else replace(check, worst=_worst(derivatives))


def _integers(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return (random.integers(1, 100, shape) * random.choice([-1, 1], shape)).astype(np.float64)


def _worst(derivatives: Derivatives) -> Entry | None:
    """Probe each entry by itself: J is linear in it, so moving it by 1 gives the derivative exactly."""
    found = [
        derivatives.entry(name, place, analytic, derivatives.rise(name, [place], 1.0))
        for name in derivatives.arrays
        for place, analytic in enumerate(derivatives.by(name))
    ]
    gaps = [entry.gap for entry in found]
    return found[int(np.argmax(gaps))] if any(gap != 0 for gap in gaps) else None
