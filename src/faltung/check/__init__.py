"""The derivatives check themselves: against difference quotients, and by the adjoint identity.

gradient_check   a whole network: every gradient, and the error signal at every input
element_check    one element by itself: dx and dw of <dy, y>, for a random dy
adjoint_check    a linear element: <dy, y> = <dx, x> = <dw, w>, exactly, on small integers
"""

from faltung.check.adjoint import AdjointCheck, adjoint_check
from faltung.check.derivatives import Entry
from faltung.check.gradient import GradientCheck, element_check, gradient_check

__all__ = ["AdjointCheck", "Entry", "GradientCheck", "adjoint_check", "element_check", "gradient_check"]
