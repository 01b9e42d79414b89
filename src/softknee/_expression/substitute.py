"""Formulas in place of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._expression.tree import Expression
from softknee._expression.walk import replace_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.nodes import Node


def substitute(expression: Expression, replacements: Mapping[str, Expression | Node]) -> Expression:
    """Replace names by formulas or trees, all at once.

    Args:
        expression: The formula.
        replacements: By name, `x` or a parameter; names that the formula lacks are passed over.

    Returns:
        The formula with them; its parameters are the names that are there now.

    Raises:
        ExpressionError: A tree would mean something else inside `sum` or `largest`, or leave them nothing to run over.
    """
    trees = {name: tree.root if isinstance(tree, Expression) else tree for name, tree in replacements.items()}
    return Expression.of(replace_names(expression.root, trees))
