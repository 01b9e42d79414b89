"""From text to tree. Python's grammar is borrowed for reading; nothing of the text is ever executed."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING

from softknee._errors import ExpressionError, did_you_mean
from softknee._expression.primitives import COMPARISONS, PRIMITIVES
from softknee._expression.tree import VARIABLE, Call, Expression, Name, Node, Number, Sum, evaluate_constant, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.primitives import Primitive

LONGEST_TEXT = 1000
DEEPEST_TREE = 60
CONSTANTS = {"pi": math.pi, "e": math.e}
OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def parse(text: str, functions: Mapping[str, Primitive] = PRIMITIVES) -> Expression:
    """Read a formula in `x`.

    Args:
        text: Numbers, `x`, `pi`, `e`, the operators `+ - * / **`, the given functions, `where(a < b, then, else)`,
            `sum(...)` over the entries of vector parameters, with the names `index` (from 0) and `terms` (their number)
            inside; every other name is a parameter.
        functions: What may be called, by name.

    Returns:
        The tree with the names of its parameters.

    Raises:
        ExpressionError: The text is no such formula; the message shows the place.
    """
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {LONGEST_TEXT} are allowed")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(_at(text, (error.offset or 1) - 1, "this is no formula")) from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"{text[:40]!r} cannot be read as a formula") from None
    root = _Reader(text.strip(), functions).read(body, 0)
    if isinstance(root, Call) and root.primitive.name in COMPARISONS:
        raise ExpressionError(_at(text, 0, "a comparison is no value; use where(condition, then, else)"))
    return Expression(root, tuple(name for name in names_of(root) if name != VARIABLE))


class _Reader:
    """Turns the permitted part of Python's syntax tree into ours and refuses the rest."""

    def __init__(self, text: str, functions: Mapping[str, Primitive]) -> None:
        self.text = text
        self.functions = functions

    def read(self, node: ast.expr, depth: int) -> Node:
        if depth > DEEPEST_TREE:
            raise ExpressionError(_at(self.text, node.col_offset, f"nested more than {DEEPEST_TREE} deep"))
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._number(node, value)
            case ast.Name(id=name):
                return Number(CONSTANTS[name]) if name in CONSTANTS else Name(self._known_name(node, name))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.read(operand, depth + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._call(node, PRIMITIVES["neg"], [operand], depth)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
                return self._call(node, PRIMITIVES[OPERATORS[type(operator)]], [left, right], depth)
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in OPERATORS:
                return self._call(node, PRIMITIVES[OPERATORS[type(operator)]], [left, right], depth)
            case ast.Call(func=ast.Name(id="sum"), args=[term], keywords=[]):
                return self._sum(node, term, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(node, self._known_function(node, name), arguments, depth)
        raise ExpressionError(
            _at(self.text, node.col_offset, "only numbers, names, + - * / **, functions and where are allowed")
        )

    def _number(self, node: ast.expr, value: float) -> Number:
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise ExpressionError(_at(self.text, node.col_offset, "this number is too large"))
        return Number(float(value))

    def _known_name(self, node: ast.expr, name: str) -> str:
        if name in self.functions:
            raise ExpressionError(_at(self.text, node.col_offset, f"{name} is a function; write {name}(...)"))
        return name

    def _known_function(self, node: ast.expr, name: str) -> Primitive:
        if name not in self.functions:
            hint = did_you_mean(name, self.functions)
            raise ExpressionError(_at(self.text, node.col_offset, f"no function named {name!r}{hint}"))
        return self.functions[name]

    def _sum(self, node: ast.expr, term: ast.expr, depth: int) -> Sum:
        inner = self.read(term, depth + 1)
        total = Sum(inner)
        if set(names_of(total)) <= {VARIABLE}:
            raise ExpressionError(
                _at(self.text, node.col_offset, "sum(...) runs over vector parameters, and there is none inside")
            )
        return total

    def _call(self, node: ast.expr, primitive: Primitive, arguments: list[ast.expr], depth: int) -> Call:
        if len(arguments) != primitive.arity:
            wanted = f"{primitive.name} takes {primitive.arity} argument{'s' * (primitive.arity != 1)}"
            raise ExpressionError(_at(self.text, node.col_offset, f"{wanted}, got {len(arguments)}"))
        call = Call(primitive, tuple(self.read(argument, depth + 1) for argument in arguments))
        for index, argument in enumerate(call.arguments):
            compares = isinstance(argument, Call) and argument.primitive.name in COMPARISONS
            if compares != (primitive.name == "where" and index == 0):
                raise ExpressionError(
                    _at(self.text, node.col_offset, "comparisons stand in the first place of where(...) only")
                )
        self._check_constant(node, call)
        return call

    def _check_constant(self, node: ast.expr, call: Call) -> None:
        """Refuse constants without a finite value, such as 1/0 or 9**9**9, before anybody tries to compute them.

        Raises:
            ExpressionError: This is one.
        """
        if names_of(call) or call.primitive.name in COMPARISONS:
            return
        if not math.isfinite(evaluate_constant(call)):
            raise ExpressionError(_at(self.text, node.col_offset, "this constant has no finite value"))


def _at(text: str, offset: int, reason: str) -> str:
    """Return the reason behind the text, with the place marked in it."""
    shown = text.strip()
    place = min(max(offset, 0), len(shown))
    return f"{shown[:place]}>>>{shown[place:]}: {reason}" if shown else "the expression is empty"
