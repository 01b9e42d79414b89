"""From text to tree. Python's grammar is borrowed for reading; nothing of the text is ever executed."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, NoReturn

from softknee._errors import ExpressionError, did_you_mean
from softknee._expression.arguments import argument_fault, in_order, value_fault
from softknee._expression.evaluate import evaluate_constant
from softknee._expression.nodes import VARIABLE, Call, Name, Node, Number, Reduction, names_of, subtrees
from softknee._expression.primitives import COMPARISONS, FOLDS, PRIMITIVES
from softknee._expression.screen import DEEPEST_TREE, screened
from softknee._expression.tree import Expression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.primitives import Primitive

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
ALLOWED = "only numbers, names, + - * / **, functions and where are allowed"
COMPARED = "a comparison is no value; use where(condition, then, else)"


def parse(text: str, functions: Mapping[str, Primitive | str] = PRIMITIVES) -> Expression:
    """Read a formula in `x`.

    Args:
        text: Numbers, `x`, `pi`, `e`, the operators `+ - * / **`, the given functions, `where(a < b, then, else)`,
            `sum(...)` and `largest(...)` over the entries of vector parameters, with the names `index` (from 0) and
            `terms` (their number) inside; every other name is a parameter.
        functions: What may be called, by name; a text in place of a function says why that one may not.

    Returns:
        The tree with the names of its parameters.

    Raises:
        ExpressionError: The text is no such formula; the message shows the place.
    """
    line = screened(text)
    try:
        body = ast.parse(line, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError("this is no formula", line, max((error.offset or 1) - 1, 0)) from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError("this cannot be read as a formula", line) from None
    root = _Reader(line, functions).read(body, 0)
    if _compares(root):
        raise ExpressionError(COMPARED, line)
    return Expression.of(root)


class _Reader:
    """Turns the permitted part of Python's syntax tree into ours and refuses the rest."""

    def __init__(self, text: str, functions: Mapping[str, Primitive | str]) -> None:
        self.text = text
        self.functions = functions

    def read(self, node: ast.expr, depth: int) -> Node:
        if depth > DEEPEST_TREE:
            self._refuse(node, f"nested more than {DEEPEST_TREE} deep")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._number(node, value)
            case ast.Name(id=name):
                return Number(CONSTANTS[name]) if name in CONSTANTS else Name(self._known_name(node, name))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.read(operand, depth + 1)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value) as number) if (
                not isinstance(value, bool)
            ):
                return Number(-self._number(number, value).value or 0.0)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._call(node, PRIMITIVES["neg"], [operand], [], depth)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
                return self._call(node, PRIMITIVES[OPERATORS[type(operator)]], [left, right], [], depth)
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in OPERATORS:
                return self._call(node, PRIMITIVES[OPERATORS[type(operator)]], [left, right], [], depth)
            case ast.Call(func=ast.Name(id=kind), args=[term], keywords=[]) if kind in FOLDS:
                return self._reduction(node, kind, term, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name not in FOLDS:
                return self._call(node, self._known_function(node, name), arguments, keywords, depth)
        return self._refuse(node, _advice(node))

    def _refuse(self, node: ast.expr | ast.keyword, reason: str) -> NoReturn:
        raise ExpressionError(reason, self.text, node.col_offset)

    def _number(self, node: ast.expr, value: float) -> Number:
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            self._refuse(node, "this number is too large")
        return Number(float(value))

    def _known_name(self, node: ast.expr, name: str) -> str:
        if name in self.functions or name in FOLDS:
            self._refuse(node, f"{name} is a function; write {name}(...)")
        return name

    def _known_function(self, node: ast.expr, name: str) -> Primitive:
        found = self.functions.get(name)
        if found is None:
            hint = did_you_mean(name, [*self.functions, *FOLDS])
            self._refuse(node, f"no function named {name!r}{hint}")
        if isinstance(found, str):
            self._refuse(node, f"{name} cannot be called in a formula: {found}")
        return found

    def _reduction(self, node: ast.expr, kind: str, term: ast.expr, depth: int) -> Reduction:
        result = Reduction(kind, self.read(term, depth + 1))
        if any(isinstance(below, Reduction) for below in subtrees(result.term)):
            self._refuse(node, f"{kind}(...) cannot hold {' or '.join(FOLDS)}: both would run over the same vectors")
        if set(names_of(result)) <= {VARIABLE}:
            self._refuse(node, f"{kind}(...) runs over vector parameters, and there is none inside")
        if _compares(result.term):
            self._refuse(term, COMPARED)
        return result

    def _call(
        self,
        node: ast.expr,
        primitive: Primitive,
        positional: list[ast.expr],
        keywords: list[ast.keyword],
        depth: int,
    ) -> Call:
        fault = argument_fault(primitive, len(positional), [keyword.arg for keyword in keywords])
        if fault:
            self._refuse(node, fault)
        given = [self.read(argument, depth + 1) for argument in positional]
        named = {str(keyword.arg): self.read(keyword.value, depth + 1) for keyword in keywords}
        call = in_order(primitive, given, named)
        for index, argument in enumerate(call.arguments):
            if _compares(argument) != (primitive.name == "where" and index == 0):
                self._refuse(node, "comparisons stand in the first place of where(...) only")
        self._check_constants(node, call)
        return call

    def _check_constants(self, node: ast.expr, call: Call) -> None:
        """Refuse constants without a finite value, such as 1/0 or 9**9**9, and parameters outside their range."""
        first_parameter = len(call.arguments) - len(call.primitive.parameters)
        for param, argument in zip(call.primitive.parameters, call.arguments[first_parameter:], strict=True):
            fault = value_fault(param, None if names_of(argument) else evaluate_constant(argument))
            if fault:
                self._refuse(node, f"{param.name} of {call.primitive.name} {fault}, got {argument}")
        if names_of(call) or _compares(call):
            return
        if not math.isfinite(evaluate_constant(call)):
            self._refuse(node, "this constant has no finite value")


def _compares(node: Node) -> bool:
    return isinstance(node, Call) and node.primitive.name in COMPARISONS


def _advice(node: ast.expr) -> str:
    """Return why a piece of Python is refused, and what to write instead where something comes near."""
    match node:
        case ast.BinOp(op=ast.BitXor()):
            return "powers are written **, not ^"
        case ast.Compare(ops=[_, _, *_]):
            return "one comparison at a time; for several, put one where(...) into another"
        case ast.Compare():
            return "comparisons are < <= > >="
        case ast.IfExp() | ast.BoolOp():
            return "choices are written where(condition, then, else), one into another for several"
        case ast.Call(func=ast.Name(id=kind)) if kind in FOLDS:
            return f"{kind}(...) takes one term"
    return ALLOWED
