"""A formula as a tree of known operations.

What prints, simplifies and differentiates a tree is imported at its first use: most programs never do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee._expression.evaluate import evaluate, symbolic
from softknee._expression.nodes import (
    COUNTERS,
    INDEX,
    TERMS,
    VARIABLE,
    Call,
    Name,
    Node,
    Number,
    Reduction,
    names_of,
    vectors_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Value = Tensor | float | Sequence[Tensor | float]

HALVES = (torch.float16, torch.bfloat16)

__all__ = [
    "COUNTERS",
    "INDEX",
    "TERMS",
    "VARIABLE",
    "Call",
    "Expression",
    "Name",
    "Node",
    "Number",
    "Reduction",
    "names_of",
    "vectors_of",
]


@dataclass(frozen=True)
class Expression:
    """A formula that can be evaluated, printed and hashed; its text brings it back.

    Attributes:
        root: The tree.
        parameters: Names other than `x`, in order of appearance.
    """

    root: Node
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, root: Node) -> Expression:
        """Return a tree as a formula; its parameters are the names in it."""
        return cls(root, tuple(name for name in names_of(root) if name != VARIABLE))

    def __str__(self) -> str:
        return str(self.root)

    def __call__(self, x: Tensor, *values: Value) -> Tensor:
        """Evaluate elementwise; half precision is computed in float32.

        Args:
            x: Any shape, any floating dtype.
            *values: One for each of `parameters`, broadcastable to `x`; a vector parameter's along its first axis, or
                as a sequence of entries.

        Returns:
            Same shape and dtype as `x`.
        """
        names = dict(zip(self.parameters, values, strict=True))
        wide = x.float() if x.dtype in HALVES else x
        return evaluate(self.root, wide, names).to(x.dtype).expand_as(x)

    def to_sympy(self, values: Mapping[str, Any]) -> Any:
        """Return the formula as a sympy expression.

        Args:
            values: Sympy objects for `x` and each parameter, a sequence of them for a vector parameter.

        Returns:
            A sympy expression, piecewise where the formula is.
        """
        import sympy

        return symbolic(self.root, sympy, values)

    def simplify(self) -> Expression:
        """Return a shorter formula for the same function; it has the parameters that still matter."""
        from softknee._expression.simplify import simplified

        return Expression.of(simplified(self.root))

    def derivative(self, name: str = VARIABLE) -> Expression:
        """Return the derivative as a formula, simplified.

        Args:
            name: `x`, or the scalar parameter to differentiate by.

        Returns:
            A formula; derivatives of catalogued functions come from their definitions. At kinks it is the derivative
            on one side, of `abs` the mean of both.

        Raises:
            ExpressionError: The name is that of a vector, or is inside `largest`.
        """
        from softknee._expression.derivative import derivative

        return Expression.of(derivative(self.root, name))

    def to_latex(self) -> str:
        """Return the formula as LaTeX for maths mode."""
        from softknee._expression.print_latex import latex

        return latex(self.root)

    def to_python(self, name: str = "f") -> str:
        """Return the source of a function of `x` and the parameters that needs torch alone.

        Args:
            name: Of the function.

        Returns:
            The text of a Python module. The function evaluates what this formula evaluates; of parameters inside sums
            it takes vectors.

        Raises:
            UsageError: Functions cannot have this name.
        """
        from softknee._expression.print_python import python_source

        return python_source(self.root, self.parameters, name)

    def to_module_source(self, name: str = "Activation", **values: float | Sequence[float]) -> str:
        """Return the source of an `nn.Module` that needs torch alone; its parameters are trained by default.

        Args:
            name: Of the class.
            **values: Starting values; a parameter without one needs it when the module is made.

        Returns:
            The text of a Python module.

        Raises:
            UsageError: The name is none, or a value belongs to no parameter.
        """
        from softknee._expression.print_module import expression_module

        return expression_module(self.root, self.parameters, name, values)

    def to_javascript(self, name: str = "f") -> str:
        """Return a JavaScript function of `x` and the parameters, numbers or arrays, that needs nothing else.

        Args:
            name: Of the function.

        Returns:
            The source.

        Raises:
            UsageError: Functions cannot have this name.
        """
        from softknee._expression.print_javascript import javascript_source

        return javascript_source(self.root, self.parameters, name)
