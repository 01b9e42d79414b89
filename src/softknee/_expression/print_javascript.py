"""A formula as a JavaScript function."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._expression.nodes import (
    ATOM,
    COUNTERS,
    INDEX,
    PRECEDENCE,
    TERMS,
    Name,
    Number,
    Reduction,
    names_of,
)
from softknee._expression.print_python import check_name
from softknee._expression.simplify import simplified
from softknee._expression.walk import vector_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from softknee._expression.nodes import Node
    from softknee._expression.primitives import Primitive

# Functions that JavaScript has, by their names there.
SHARED = ("log", "log1p", "sqrt", "abs", "sign", "max", "min", "sin", "cos", "tan", "atan", "tanh", "asinh")
BUILT_IN = MappingProxyType({**{name: f"Math.{name}" for name in SHARED}, "**": "Math.pow"})
# Functions it lacks. Exponentials stop at the largest number, as ours do; the series of the error function has no
# cancellation and is exact to the last digits.
HELPERS = MappingProxyType(
    {
        "exp": "const exp = (u) => Math.exp(Math.min(u, 709.782712893384));",
        "expm1": "const expm1 = (u) => Math.expm1(Math.min(u, 709.782712893384));",
        "sinh": "const sinh = (u) => Math.sinh(Math.max(-709.782712893384, Math.min(u, 709.782712893384)));",
        "square": "const square = (u) => u * u;",
        "relu": "const relu = (u) => Math.max(u, 0);",
        "sigmoid": "const sigmoid = (u) => 1 / (1 + Math.exp(-u));",
        "softplus": "const softplus = (u) => Math.max(u, 0) + Math.log1p(Math.exp(-Math.abs(u)));",
        "erf": """const erf = (u) => {
    if (Math.abs(u) > 6) return Math.sign(u);
    let term = u, total = u;
    for (let n = 1; n < 200; n++) {
      term *= (2 * u * u) / (2 * n + 1);
      total += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-u * u) * total;
  };""",
        "sum": """const sum = (terms, term) => {
    let total = 0;
    for (let index = 0; index < terms; index++) total += term(index, terms);
    return total;
  };""",
        "largest": """const largest = (terms, term) => {
    let best = -Infinity;
    for (let index = 0; index < terms; index++) best = Math.max(best, term(index, terms));
    return best;
  };""",
    }
)
# Words that name no variable, and what the source uses itself.
WORDS = """
arguments await break case catch class const continue debugger default delete do else enum eval export extends false
finally for function if implements import in instanceof interface let new null package private protected public return
static super switch this throw true try typeof undefined var void while with yield Math Infinity NaN
"""
TAKEN = frozenset(WORDS.split())


def javascript_source(root: Node, parameters: Sequence[str], name: str) -> str:
    """Return a formula as a JavaScript function.

    Args:
        root: The formula.
        parameters: Its names other than `x`, in the order of arguments.
        name: Of the function.

    Returns:
        The source.

    Raises:
        UsageError: Functions cannot have this name.
    """
    check_name(name, [*parameters, *TAKEN, *HELPERS])
    safe = {one: _safe(one, parameters) for one in parameters}
    printer = _Printer(safe, vector_names(root))
    body = printer.text(root)
    helpers = [HELPERS[helper] for helper in HELPERS if helper in printer.used]
    lines = [f"  {helper}\n" for helper in (*helpers, *printer.definitions.values())]
    return f"function {name}({', '.join(['x', *safe.values()])}) {{\n{''.join(lines)}  return {body};\n}}\n"


def _safe(name: str, names: Collection[str]) -> str:
    free = name
    while free in TAKEN or free in HELPERS or (free != name and free in names):
        free += "_"
    return free


class _Printer:
    """Prints trees, and notes which helpers they use."""

    def __init__(self, safe: Mapping[str, str], vectors: Collection[str]) -> None:
        self.safe = safe
        self.vectors = vectors
        self.used: set[str] = set()
        self.definitions: dict[str, str] = {}
        self.in_reduction = False

    def text(self, node: Node, binding: int = 0) -> str:
        text, own = self._printed(node)
        return f"({text})" if own < binding else text

    def _printed(self, node: Node) -> tuple[str, int]:
        if isinstance(node, Number):
            return str(node), PRECEDENCE["neg"] if node.value < 0 else ATOM
        if isinstance(node, Name):
            return self._name(node.name), ATOM
        if isinstance(node, Reduction):
            return self._reduction(node), ATOM
        name, arguments = node.primitive.name, node.arguments
        if name == "where":
            condition, chosen, other = map(self.text, arguments)
            return f"{condition} ? {chosen} : {other}", -1
        if name == "neg":
            return f"-{self.text(arguments[0], PRECEDENCE['**'])}", PRECEDENCE["neg"]
        if name in PRECEDENCE and name != "**":
            own = PRECEDENCE[name]
            return f"{self.text(arguments[0], own)} {name} {self.text(arguments[1], own + 1)}", own
        function = self._function(name) if node.primitive.definition is None else self._catalogued(node.primitive)
        return f"{function}({', '.join(map(self.text, arguments))})", ATOM

    def _name(self, name: str) -> str:
        if self.in_reduction and name in COUNTERS:
            return name
        entry = f"[{INDEX}]" if self.in_reduction and name in self.vectors else ""
        return f"{self.safe.get(name, name)}{entry}"

    def _function(self, name: str) -> str:
        if name not in BUILT_IN:
            self.used.add(name)
        return BUILT_IN.get(name, name)

    def _catalogued(self, primitive: Primitive) -> str:
        """Return the name of a catalogued function, and keep its definition."""
        name = _safe(primitive.name, ())
        if name not in self.definitions and primitive.definition is not None:
            own = [param.name for param in primitive.parameters]
            safe = {one: _safe(one, own) for one in own}
            inner = _Printer(safe, ())
            # Definitions are written for people; simpler ones lose fewer digits.
            body = inner.text(simplified(primitive.definition()))
            self.definitions[name] = f"const {name} = ({', '.join(['x', *safe.values()])}) => {body};"
            self.used |= inner.used
        return name

    def _reduction(self, node: Reduction) -> str:
        self.used.add(node.kind)
        vector = next(name for name in names_of(node) if name in self.vectors)
        self.in_reduction = True
        term = self.text(node.term)
        self.in_reduction = False
        return f"{node.kind}({self.safe[vector]}.length, ({INDEX}, {TERMS}) => {term})"
