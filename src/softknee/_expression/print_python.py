"""A formula as Python source that needs torch alone."""

from __future__ import annotations

import keyword
import math
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from softknee._errors import UsageError
from softknee._expression.collect import Collection, NotSelfContained, import_lines
from softknee._expression.evaluate import evaluate_constant
from softknee._expression.nodes import (
    ATOM,
    COUNTERS,
    PRECEDENCE,
    VARIABLE,
    Call,
    Name,
    Number,
    Reduction,
    children,
    names_of,
    rebuilt,
    subtrees,
    vectors_of,
)
from softknee._expression.primitives import COMPARISONS, choose
from softknee._expression.simplify import simplified
from softknee._expression.walk import is_call, is_constant, vector_names

if TYPE_CHECKING:
    from collections.abc import Collection as Names
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from softknee._expression.nodes import Node
    from softknee._expression.primitives import Primitive

# Names that printed source uses itself; a parameter so called gets an underscore.
WORDS = "F Any Callable Iterator Tensor choose counted float len math nn range reduce self sum torch zip"
USED = frozenset(WORDS.split())
# Functions whose gradients stay finite, so that a branch of them needs no care where it is not taken.
HARMLESS = frozenset({"+", "-", "neg", "max", "min", "abs", "relu", "sign", "where", *COMPARISONS})


class Printed(NamedTuple):
    """Source of a sub-expression.

    Attributes:
        text: The source.
        binding: How strongly its parts hold together.
        is_number: Whether its value is a Python number, not a tensor.
    """

    text: str
    binding: int = ATOM
    is_number: bool = False


def python_source(root: Node, parameters: Sequence[str], name: str) -> str:
    """Return a formula as a module with one function.

    Args:
        root: The formula.
        parameters: Its names other than `x`, in the order of arguments.
        name: Of the function.

    Returns:
        The source.

    Raises:
        UsageError: Functions cannot have this name.
    """
    check_name(name, parameters)
    collection = Collection(taken=frozenset({name}))
    function = python_function(root, parameters, name, vector_names(root), collection)
    parts = ["from __future__ import annotations", import_lines(collection.imports), collection.text(), function]
    head, body = "\n\n".join(parts[:2]), [part for part in parts[2:] if part]
    return "\n\n\n".join([head, *body]) + "\n"


def python_function(
    root: Node, parameters: Sequence[str], name: str, vectors: Names[str], collection: Collection
) -> str:
    """Return a formula as one function.

    Args:
        root: The formula.
        parameters: Its names other than `x`, in the order of arguments.
        name: Of the function.
        vectors: Names of vector parameters.
        collection: Gets what the function uses.

    Returns:
        The source.
    """
    collection.imports |= {"import torch", "from torch import Tensor"}
    printer = _Printer({*parameters}, vectors, collection)
    decided = _decided(root)
    value = printer.value(decided)
    safe = [printer.safe(parameter) for parameter in parameters]
    kinds = ["Tensor" if parameter in vectors else "Tensor | float" for parameter in parameters]
    arguments = [f"{VARIABLE}: Tensor", *(f"{one}: {kind}" for one, kind in zip(safe, kinds, strict=True))]
    lines = [f"def {name}({', '.join(arguments)}) -> Tensor:", f'    """Return {root}."""']
    lines += [f"    {one} = torch.as_tensor({one}, dtype=x.dtype, device=x.device)" for one in safe]
    lines += [f"    return {_whole(decided, value)}"]
    return "\n".join(lines)


def _decided(node: Node) -> Node:
    """Return a tree without choices between constants."""
    if is_call(node, "where") and is_constant(node.arguments[0]):
        return _decided(node.arguments[1 if evaluate_constant(node.arguments[0]) else 2])
    return rebuilt(node, [_decided(child) for child in children(node)])


def check_name(name: str, parameters: Sequence[str] = ()) -> None:
    """Check the name of something to be printed.

    Args:
        name: The name.
        parameters: Names that it must differ from.

    Raises:
        UsageError: It is none, or taken.
    """
    plain = name.isidentifier() and name.isascii() and not name.startswith("_") and not keyword.iskeyword(name)
    if not plain or name in {VARIABLE, *parameters, *USED}:
        raise UsageError(f"name must be a Python name that the source does not use otherwise, got {name!r}")


def _whole(root: Node, value: Printed) -> str:
    """Return the value in the shape of `x`, also where it does not depend on it."""
    if value.is_number:
        return f"torch.full_like(x, {value.text})"
    return value.text if VARIABLE in names_of(root) else f"{_bracketed(value, ATOM)}.expand_as(x)"


class _Printer:
    """Prints sub-expressions, and notes what they use."""

    def __init__(self, names: Names[str], vectors: Names[str], collection: Collection) -> None:
        self.names = names
        self.vectors = vectors
        self.collection = collection

    def safe(self, name: str) -> str:
        """Return a name that hides nothing the source uses."""
        free = name
        while free in USED or free.startswith("_") or (free != name and free in self.names):
            free = f"{free.lstrip('_')}_"
        return free

    def value(self, node: Node) -> Printed:
        if isinstance(node, Number) or is_constant(node):
            return _number(node.value if isinstance(node, Number) else evaluate_constant(node))
        if isinstance(node, Name):
            return Printed(self.safe(node.name))
        if isinstance(node, Reduction):
            return self._reduction(node)
        name = node.primitive.name
        if name == "where":
            return self._where(node)
        if name == "neg":
            operand = self.value(node.arguments[0])
            return Printed(f"-{_bracketed(operand, PRECEDENCE[name])}", PRECEDENCE[name])
        if name in PRECEDENCE:
            return self._operator(node)
        return self._function(node)

    def tensor(self, node: Node) -> str:
        printed = self.value(node)
        return f"x.new_full((), {printed.text})" if printed.is_number else printed.text

    def _operator(self, node: Call) -> Printed:
        name = node.primitive.name
        own = PRECEDENCE[name]
        left, right = (self.value(argument) for argument in node.arguments)
        bindings = (own + 1, own) if name == "**" else (own, own + 1)
        gap = " " if own < PRECEDENCE["**"] else ""
        return Printed(f"{_bracketed(left, bindings[0])}{gap}{name}{gap}{_bracketed(right, bindings[1])}", own)

    def _function(self, node: Call) -> Printed:
        primitive = node.primitive
        if primitive.definition is None:
            function = self._reference(primitive.function)
            return Printed(f"{function}({', '.join(map(self.tensor, node.arguments))})")
        try:
            function, (first, *rest) = self.collection.add(primitive.function), node.shown
        except NotSelfContained:
            function, (first, *rest) = self._definition(primitive), node.arguments
        return Printed(f"{function}({', '.join([self.tensor(first), *(self.value(one).text for one in rest)])})")

    def _definition(self, primitive: Primitive) -> str:
        """Return the name of a function printed from a catalogued one's formula."""
        name = f"{primitive.name}_formula"
        if name not in self.collection.definitions and primitive.definition is not None:
            own = [param.name for param in primitive.parameters]
            body = simplified(primitive.definition())
            self.collection.definitions[name] = python_function(body, own, name, (), self.collection)
        return name

    def _reference(self, function: object) -> str:
        if isinstance(function, FunctionType):
            return self.collection.add(function)
        return f"torch.{getattr(function, '__name__', '')}"

    def _where(self, node: Call) -> Printed:
        condition, *branches = node.arguments
        mask = self.value(condition).text
        if all(_is_harmless(branch) for branch in branches):
            first, second = (self.value(branch) for branch in branches)
            chosen = self.tensor(branches[0]) if second.is_number else first.text
            return Printed(f"torch.where({mask}, {chosen}, {second.text})")
        used = [name for name in names_of(node) if name not in vectors_of(node)]
        names = ", ".join(map(self.safe, used))
        first_text, second_text = (f"lambda {names}: {self.tensor(branch)}" for branch in branches)
        return Printed(f"{self.collection.add(choose)}({mask}, {first_text}, {second_text}, {names})")

    def _reduction(self, node: Reduction) -> Printed:
        term = self.value(node.term).text
        vectors = [self.safe(name) for name in names_of(node) if name in self.vectors]
        names, values = ", ".join(vectors), vectors[0] if len(vectors) == 1 else f"zip({', '.join(vectors)})"
        if any(isinstance(below, Name) and below.name in COUNTERS for below in subtrees(node)):
            names, values = f"index, terms, {names}", f"{self.collection.add(counted)}(x, {names})"
        terms = f"{term} for {names} in {values}"
        if node.kind == "sum":
            return Printed(f"sum({terms})")
        self.collection.imports.add("from functools import reduce")
        return Printed(f"reduce(torch.maximum, ({terms}))")


def counted(x: Tensor, *vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the entries of vectors, before each which it is, from 0, and how many there are."""
    count = len(vectors[0])
    for i in range(count):
        yield (x.new_full((), i), x.new_full((), count), *(vector[i] for vector in vectors))


def _is_harmless(node: Node) -> bool:
    """Whether no intermediate result of a branch, nor its derivative, is infinite where `x` is not."""
    return all(
        isinstance(below, Number | Name)
        or is_call(below, *HARMLESS)
        or (is_call(below, "*") and any(map(is_constant, children(below))))
        for below in subtrees(node)
    )


def _number(value: float) -> Printed:
    if not math.isfinite(value):
        return Printed(f'float("{value}")', is_number=True)
    text = str(Number(value))
    return Printed(text, PRECEDENCE["neg"] if value < 0 else ATOM, is_number=True)


def _bracketed(printed: Printed, binding: int) -> str:
    return f"({printed.text})" if printed.binding < binding else printed.text
