"""A genotype as a formula."""

from __future__ import annotations

from functools import lru_cache
from string import ascii_lowercase
from typing import TYPE_CHECKING

import torch

from softknee._card.recognise import exactly
from softknee._expression.fingerprint import SAME, difference, fingerprint
from softknee._expression.nodes import VARIABLE, Name, Number, names_of, size_of
from softknee._expression.parse import CONSTANTS
from softknee._expression.simplify import simplified
from softknee._search.candidate import Function
from softknee.nn.formula import FUNCTIONS, RESERVED, expression

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from softknee._expression.nodes import Node
    from softknee._search.space import Genotype, Space

    # By the kind of a place, `"unary"` or `"binary"`, and its index.
    Betas = Mapping[tuple[str, int], float]

# Formulas of so few nodes are as plain as a name.
PLAIN = 2
# Where functions must agree as well to go by one name: beyond any bound that is no whole number of thousands.
FAR = torch.tensor([-1e4, -997.3, -101.7, -31.3, 31.3, 101.7, 997.3, 1e4], dtype=torch.float64, device="cpu")
TAKEN = RESERVED | {VARIABLE, *CONSTANTS, *FUNCTIONS}


def function_of(space: Space, genotype: Genotype, betas: Betas | None = None, *, trained: bool = False) -> Function:
    """Return a genotype as a simplified formula with the bounds of its space.

    Args:
        space: Where it is from.
        genotype: It.
        betas: Values of learnable scalars by kind and index of their place; of the others the means are taken.
        trained: Whether they become parameters `a`, `b`, ... of the formula that start there, or numbers in it.

    Returns:
        The function; a name of the catalogue called where it is that of one.
    """
    numbers = scalars_of(space, genotype, betas)
    if trained:
        named = dict(zip(numbers, _names(), strict=False))
        left = names_of(formula_of(space, genotype, named))
        # Those without effect are numbers, so that the names that are left come without gaps.
        kept = dict(zip([place for place in numbers if named[place] in left], _names(), strict=False))
        root = formula_of(space, genotype, {**numbers, **kept})
        constants = tuple((name, numbers[place]) for place, name in kept.items() if name in names_of(root))
        if constants:
            return Function(str(root), constants, trained=True)
    return Function(_named(str(formula_of(space, genotype, numbers))))


def scalars_of(space: Space, genotype: Genotype, betas: Betas | None = None) -> dict[tuple[str, int], float]:
    """Return the learnable scalars of a genotype by kind and index of their place; the means of those not given."""
    betas = betas or {}
    found = {}
    for group, name in zip(space.groups, space.names(genotype), strict=True):
        place, beta = (group.kind, group.place), space.operation(group.kind, name).beta
        if beta is not None:
            found[place] = float(betas.get(place, beta[0]))
    return found


def formula_of(space: Space, genotype: Genotype, scalars: Mapping[tuple[str, int], float | str]) -> Node:
    """Return a genotype as a simplified tree.

    Args:
        space: Where it is from.
        genotype: It.
        scalars: Numbers or names for the learnable scalars, by kind and index of their place.

    Returns:
        The tree.
    """

    def applied(kind: str, place: int, *inputs: Node) -> Node:
        operation = space.operation(kind, getattr(genotype, kind)[place])
        scalar = () if operation.beta is None else (_leaf(scalars[kind, place]),)
        return operation.node(*inputs, *scalar, bound=space.bound)

    x: Node = Name(VARIABLE)
    result = x
    for core in range(space.cores):
        result = applied("binary", core, applied("unary", 2 * core, result), applied("unary", 2 * core + 1, x))
    return simplified(result)


def _leaf(scalar: float | str) -> Node:
    return Name(scalar) if isinstance(scalar, str) else Number(float(scalar))


def _names() -> Iterator[str]:
    """Yield names for parameters."""
    size = 0
    while True:
        yield from (f"{letter}{size or ''}" for letter in ascii_lowercase if letter not in TAKEN)
        size += 1


@lru_cache(maxsize=4096)
def _named(text: str) -> str:
    """Return a formula as the call of the catalogued function that it is, if it is one and longer."""
    tree = expression(text)
    if size_of(tree.root) <= PLAIN:
        return text
    values = fingerprint(tree)
    name = None if values is None else exactly(values)
    if name is None or isinstance(FUNCTIONS[name], str):
        return text
    known = expression(f"{name}(x)")
    return str(known) if difference(tree(FAR), known(FAR)) < SAME else text
