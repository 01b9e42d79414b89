"""Signs of LaTeX and what they are in Unicode."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega varepsilon varphi ell"
)
_LARGE = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega top infty"
# Capitals stand upright.
UPRIGHT = frozenset("ΓΔΘΛΞΠΣΦΨΩ⊤∞")
LETTERS: Mapping[str, str] = MappingProxyType(
    dict(zip(_SMALL.split(), "αβγδϵζηθικλμνξπρστυϕχψωεφℓ", strict=True))
    | dict(zip(_LARGE.split(), "ΓΔΘΛΞΠΣΦΨΩ⊤∞", strict=True))
)
_OPERATORS = "ge geq le leq ne pm cdot times to approx in ldots dots cdots circ lt gt"
OPERATORS: Mapping[str, str] = MappingProxyType(dict(zip(_OPERATORS.split(), "≥≥≤≤≠±⋅×→≈∈……⋯∘<>", strict=True)))
FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "arcsin", "arccos", "exp", "ln", "log", "max", "min", "erf")
)
_BRACKETS = "lfloor rfloor lceil rceil lvert rvert vert { } langle rangle"
BRACKETS: Mapping[str, str] = MappingProxyType(dict(zip(_BRACKETS.split(), "⌊⌋⌈⌉|||{}⟨⟩", strict=True)))
# In em.
SPACES: Mapping[str, float] = MappingProxyType(
    {",": 0.1667, ":": 0.2222, ";": 0.2778, "quad": 1.0, "qquad": 2.0, " ": 0.3333, "!": -0.1667}
)
FONTS = frozenset(("mathrm", "operatorname", "text", "mathit", "textrm", "mathbf"))
OPENING, CLOSING = frozenset("([{⌊⌈⟨"), frozenset(")]}⌋⌉⟩")
