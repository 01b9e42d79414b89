"""A pointwise computation as data: operations on one element at a time, from which kernels are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# First letter of the names of inputs that are parameters.
PARAMETER = "p"
# What computations read element by element: of single ones `x`, its gradient `g` and a cotangent `v` of that; of pairs
# the gate `x`, the value `u` and the gradient `g`. What they write.
SINGLES, PAIRS = ("x", "g", "v"), ("x", "u", "g")
ARRAYS = ("x", "u", "g", "v")
RESULTS = ("y", "z")
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
LOGICAL = frozenset({"and", "or", "not"})
# A rough price of each operation in vector instructions; what is not listed costs one.
PRICES = {"input": 0, "constant": 0, "div": 3, "sqrt": 4, "pow": 40, "uniform": 12, "remainder": 5} | (
    dict.fromkeys(("exp", "expm1", "log", "log1p", "sigmoid", "tanh", "erf", "sin", "cos", "tan", "atan"), 15)
)
_FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "abs": abs,
}


@dataclass(frozen=True)
class Operation:
    """One step.

    Attributes:
        name: What is done, for example `"mul"`, `"exp"` or `"where"`; `"input"` and `"constant"` stand at the start.
        arguments: Positions of earlier operations.
        text: Name of an input; digits of a constant (text, because 0.0 equals -0.0 and NaN not even itself).
    """

    name: str
    arguments: tuple[int, ...] = ()
    text: str = ""

    @property
    def is_truth(self) -> bool:
        """Whether the result is true or false rather than a number."""
        return self.name in COMPARISONS or self.name in LOGICAL


@dataclass(frozen=True)
class Graph:
    """A computation without branches.

    Attributes:
        operations: In an order in which they can be done.
        outputs: Positions, in the caller's order.
    """

    operations: tuple[Operation, ...]
    outputs: tuple[int, ...]

    @property
    def price(self) -> int:
        """Vector instructions for one element, roughly; what depends on parameters alone is computed once."""
        return sum(PRICES.get(self.operations[position].name, 1) for position in self.varying)

    @cached_property
    def varying(self) -> tuple[int, ...]:
        """Positions of what differs from element to element, in order."""
        found: set[int] = set()
        for position, operation in enumerate(self.operations):
            own = operation.name == "uniform" or (operation.name == "input" and operation.text[0] != PARAMETER)
            if own or not found.isdisjoint(operation.arguments):
                found.add(position)
        return tuple(sorted(found))

    @property
    def settled(self) -> tuple[int, ...]:
        """Positions of what depends on parameters alone, in order."""
        return tuple(sorted({*range(len(self.operations))}.difference(self.varying)))

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return any(operation.name == "uniform" for operation in self.operations)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that are used."""
        return tuple(operation.text for operation in self.operations if operation.name == "input")

    def only(self, count: int) -> Graph:
        """Return the part that leads to the first `count` outputs."""
        return _pruned(self.operations, self.outputs[:count])


def _pruned(operations: tuple[Operation, ...], outputs: tuple[int, ...]) -> Graph:
    """Return a graph of only those operations that the outputs need."""
    needed = set(outputs)
    for position in range(len(operations) - 1, -1, -1):
        if position in needed:
            needed.update(operations[position].arguments)
    place = {old: new for new, old in enumerate(sorted(needed))}
    kept = (
        replace(operations[old], arguments=tuple(place[argument] for argument in operations[old].arguments))
        for old in place
    )
    return Graph(tuple(kept), tuple(place[output] for output in outputs))


class Builder:
    """Collects operations; the same operation on the same arguments is kept once, and constants are folded.

    Attributes:
        draws: How many random numbers an element have been asked for; the one there can be is the same every time.
    """

    def __init__(self) -> None:
        self._positions: dict[Operation, int] = {}
        self._operations: list[Operation] = []
        self._constants: dict[int, float] = {}
        self.draws = 0

    def input(self, name: str) -> int:
        """Return the position of the input called `name`."""
        return self._place(Operation("input", text=name))

    def constant(self, value: float) -> int:
        """Return the position of a constant."""
        position = self._place(Operation("constant", text=repr(float(value))))
        self._constants[position] = float(value)
        return position

    def value_of(self, position: int) -> float | None:
        """Return the constant at a position, None where there is another operation."""
        return self._constants.get(position)

    def is_truth(self, position: float) -> bool:
        """Whether the result at a position is true or false rather than a number."""
        return isinstance(position, int) and self._operations[position].is_truth

    def add(self, name: str, *arguments: float) -> int:
        """Return the position of an operation.

        Args:
            name: Of the operation.
            *arguments: Positions (ints) or constants (floats).

        Returns:
            The position of its result, which may be an earlier one that is the same.
        """
        places = tuple(self.constant(a) if isinstance(a, float) else a for a in arguments)
        values = [self.value_of(place) for place in places]
        if name in _FOLDED and None not in values:
            return self.constant(_FOLDED[name](*values))
        same = _unchanged(name, places, values)
        return self._place(Operation(name, places)) if same is None else same

    def finish(self, outputs: tuple[int, ...]) -> Graph:
        """Return the graph of what the outputs need."""
        return _pruned(tuple(self._operations), outputs)

    def _place(self, operation: Operation) -> int:
        position = self._positions.setdefault(operation, len(self._operations))
        if position == len(self._operations):
            self._operations.append(operation)
        return position


def _unchanged(name: str, places: tuple[int, ...], values: list[float | None]) -> int | None:
    """Return the argument that the operation gives back as it is, if it is such a one; every rule is exact."""
    if name in {"mul", "div"} and values[1] == 1:
        return places[0]
    if name == "mul" and values[0] == 1:
        return places[1]
    # Taking away -0.0 turns -0.0 into 0.0.
    if name == "sub" and values[1] == 0 and math.copysign(1.0, values[1]) > 0:
        return places[0]
    if name == "where" and places[1] == places[2]:
        return places[1]
    return None
