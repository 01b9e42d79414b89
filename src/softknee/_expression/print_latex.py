"""A formula as LaTeX."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from softknee._expression.nodes import COUNTERS, INDEX, TERMS, Name, Number, Reduction, subtrees
from softknee._expression.walk import is_call, vector_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.nodes import Call, Node

# How strongly the parts of a piece hold together.
SUM, SIGN, PRODUCT, POWER, ATOM = range(5)
LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi"
)
MORE_LETTERS = "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
GREEK = frozenset({*LETTERS.split(), *MORE_LETTERS.split()})
CONSTANTS: Mapping[float, str] = MappingProxyType(
    {
        math.pi: r"\pi",
        math.e: "e",
        math.sqrt(2): r"\sqrt{2}",
        1 / math.sqrt(2): r"\frac{1}{\sqrt{2}}",
        math.sqrt(2 / math.pi): r"\sqrt{\frac{2}{\pi}}",
        2 / math.sqrt(math.pi): r"\frac{2}{\sqrt{\pi}}",
        1 / math.sqrt(2 * math.pi): r"\frac{1}{\sqrt{2 \pi}}",
    }
)
# Functions that are printed as their name with the arguments behind it.
NAMED: Mapping[str, str] = MappingProxyType(
    {name: rf"\{name}" for name in ("sin", "cos", "tan", "tanh", "sinh", "max", "min")}
    | {
        "atan": r"\arctan",
        "asinh": r"\operatorname{arsinh}",
        "log": r"\ln",
        "erf": r"\operatorname{erf}",
        "sign": r"\operatorname{sgn}",
        "sigmoid": r"\sigma",
    }
)
# Of which powers are printed between name and arguments.
RAISED = ("sin", "cos", "tan", "tanh", "sinh")
COMPARISONS: Mapping[str, str] = MappingProxyType({"<": "<", "<=": r"\le", ">": ">", ">=": r"\ge"})
TALL = (r"\frac", r"\sum", r"\begin", r"\left", r"\max_")


class Printed(NamedTuple):
    """A piece of LaTeX.

    Attributes:
        tex: The piece.
        binding: How strongly its parts hold together.
    """

    tex: str
    binding: int = ATOM


def latex(root: Node) -> str:
    """Return a formula as LaTeX for maths mode.

    Args:
        root: The formula.

    Returns:
        The source, without dollar signs.
    """
    return _Printer(vector_names(root)).printed(root).tex


class _Printer:
    """Prints trees; inside a reduction, vectors have an index."""

    def __init__(self, vectors: frozenset[str], *, indexed: bool = False) -> None:
        self.vectors = vectors
        self.indexed = indexed

    def printed(self, node: Node) -> Printed:
        if isinstance(node, Number):
            return _number(node.value)
        if isinstance(node, Name):
            return Printed(self._name(node.name))
        if isinstance(node, Reduction):
            return self._reduction(node)
        form = getattr(self, f"_{FORMS.get(node.primitive.name, 'function')}")
        result: Printed = form(node)
        return result

    def tex(self, node: Node, binding: int = SUM) -> str:
        """Return a piece, in brackets where what is around it binds tighter."""
        printed = self.printed(node)
        return _brackets(printed.tex) if printed.binding < binding else printed.tex

    def _name(self, name: str) -> str:
        if self.indexed and name in COUNTERS:
            return {INDEX: "i", TERMS: "n"}[name]
        return _name(name, "i" if self.indexed and name in self.vectors else "")

    def _reduction(self, node: Reduction) -> Printed:
        counted = any(isinstance(below, Name) and below.name in COUNTERS for below in subtrees(node))
        if node.kind == "sum":
            sign = r"\sum_{i=0}^{n-1}" if counted else r"\sum_{i}"
        else:
            sign = r"\max_{0 \le i < n}" if counted else r"\max_{i}"
        return Printed(f"{sign} {_Printer(self.vectors, indexed=True).tex(node.term, PRODUCT)}", SIGN)

    def _function(self, node: Call) -> Printed:
        name = node.primitive.name
        arguments = _brackets(", ".join(map(self.tex, node.shown)))
        return Printed(f"{NAMED.get(name) or _operator_name(name)}{arguments}")

    def _sum(self, node: Call) -> Printed:
        left, right = node.arguments
        name = node.primitive.name
        if name == "+" and isinstance(right, Number) and right.value < 0:
            name, right = "-", Number(-right.value)
        # A sign right behind an operator needs brackets, a large operator none.
        second = self.tex(right, SIGN if isinstance(right, Reduction) else PRODUCT)
        return Printed(f"{self.tex(left)} {name} {second}", SUM)

    def _comparison(self, node: Call) -> Printed:
        left, right = map(self.tex, node.arguments)
        return Printed(f"{left} {COMPARISONS[node.primitive.name]} {right}", SUM)

    def _sign(self, node: Call) -> Printed:
        return Printed(f"-{self.tex(node.arguments[0], PRODUCT)}", SIGN)

    def _product(self, node: Call) -> Printed:
        left, right = node.arguments
        first, second = self.tex(left, SIGN), self.tex(right, POWER)
        if isinstance(left, Reduction):
            first = _brackets(first)
        return Printed(f"{first}{_gap(first, second)}{second}", SIGN if first.startswith("-") else PRODUCT)

    def _fraction(self, node: Call) -> Printed:
        above, below = map(self.printed, node.arguments)
        if above.tex.startswith("-") and above.binding >= SIGN:
            return Printed(rf"-\frac{{{above.tex[1:]}}}{{{below.tex}}}", SIGN)
        return Printed(rf"\frac{{{above.tex}}}{{{below.tex}}}", POWER)

    def _power(self, node: Call) -> Printed:
        base = node.arguments[0]
        exponent = self.tex(node.arguments[1]) if len(node.arguments) > 1 else "2"
        if is_call(base, *RAISED):
            argument = _brackets(self.tex(base.arguments[0]))
            return Printed(f"{NAMED[base.primitive.name]}^{{{exponent}}}{argument}")
        return Printed(f"{self.tex(base, ATOM)}^{{{exponent}}}", POWER)

    def _root(self, node: Call) -> Printed:
        return Printed(rf"\sqrt{{{self.tex(node.arguments[0])}}}")

    def _size(self, node: Call) -> Printed:
        return Printed(rf"\left|{self.tex(node.arguments[0])}\right|")

    def _exp(self, node: Call) -> Printed:
        return Printed(f"e^{{{self.tex(node.arguments[0])}}}", POWER)

    def _expm1(self, node: Call) -> Printed:
        return Printed(f"e^{{{self.tex(node.arguments[0])}}} - 1", SUM)

    def _log1p(self, node: Call) -> Printed:
        return Printed(rf"\ln{_brackets(f'1 + {self.tex(node.arguments[0], SIGN + 1)}')}")

    def _softplus(self, node: Call) -> Printed:
        return Printed(rf"\ln{_brackets(f'1 + e^{{{self.tex(node.arguments[0])}}}')}")

    def _relu(self, node: Call) -> Printed:
        return Printed(rf"\max{_brackets(f'0, {self.tex(node.arguments[0])}')}")

    def _cases(self, node: Call) -> Printed:
        lines = []
        rest: Node = node
        while is_call(rest, "where"):
            condition, chosen, rest = rest.arguments
            lines.append(rf"{self.tex(chosen)} & \text{{if }} {self.tex(condition)}")
        lines.append(rf"{self.tex(rest)} & \text{{otherwise}}")
        return Printed(r"\begin{cases} " + r" \\ ".join(lines) + r" \end{cases}")


# Methods that print primitives in a way of their own.
FORMS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys("+-", "sum"),
        **dict.fromkeys(COMPARISONS, "comparison"),
        **dict.fromkeys(("**", "square"), "power"),
        **{name: name for name in ("exp", "expm1", "log1p", "softplus", "relu")},
        "neg": "sign",
        "*": "product",
        "/": "fraction",
        "sqrt": "root",
        "abs": "size",
        "where": "cases",
    }
)


def _brackets(tex: str) -> str:
    return rf"\left({tex}\right)" if any(sign in tex for sign in TALL) else f"({tex})"


def _gap(left: str, right: str) -> str:
    """Return what stands between two factors."""
    if right[0].isdigit() or (left[-1].isdigit() and right.startswith(r"\frac")):
        return r" \cdot "
    # LaTeX itself puts a space before operators such as a sine, and brackets need none.
    return r" \, " if right.startswith((r"\sigma(", r"\sigma\left", r"\text", "e^")) or r"\text" in left else " "


def _number(value: float) -> Printed:
    if abs(value) in CONSTANTS:
        tex = CONSTANTS[abs(value)]
        return Printed(f"-{tex}", SIGN) if value < 0 else Printed(tex)
    digits, _, exponent = str(Number(value)).partition("e")
    if exponent:
        power = f"10^{{{int(exponent)}}}"
        return Printed(power, POWER) if digits == "1" else Printed(rf"{digits} \cdot {power}", PRODUCT)
    return Printed(digits, SIGN if value < 0 else ATOM)


def _name(name: str, index: str) -> str:
    """Return a name: Greek letters as such, digits at the end as subscripts, words upright."""
    word = name.rstrip("0123456789").rstrip("_") or name
    head, _, letter = word.rpartition("_")
    if len(letter) == 1 and (len(head) == 1 or head in GREEK):
        word = head
    digits = name[len(word) :].lstrip("_")
    tex = word if len(word) == 1 else rf"\{word}" if word in GREEK else rf"\text{{{word.replace('_', ' ')}}}"
    below = ",".join(filter(None, [digits, index]))
    return f"{tex}_{{{below}}}" if below else tex


def _operator_name(name: str) -> str:
    return rf"\operatorname{{{name.replace('_', ' ')}}}"
