"""The functions that a search can find: cells of operations, and the ones there are."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._errors import OptionError, UsageError, did_you_mean
from softknee._search.distinct import distinct, fingerprints
from softknee._search.formula import function_of
from softknee._search.operations import BINARY, UNARY, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from softknee._search.candidate import Function
    from softknee._search.distinct import Fingerprint
    from softknee._search.formula import Betas

BOUND = 10.0


@dataclass(frozen=True)
class Genotype:
    """One function of a space, by the names of its operations.

    Attributes:
        unary: Of the edges, two for each core: left, right.
        binary: Of the vertices, one for each core.
    """

    unary: tuple[str, ...]
    binary: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """A place of the cell where one operation is chosen.

    Attributes:
        name: `"U0"`, `"U1"`, ... of edges and `"B0"`, `"B1"`, ... of vertices.
        kind: `"unary"` or `"binary"`.
        place: Index among those of its kind.
        operations: What can be chosen.
    """

    name: str
    kind: str
    place: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True, init=False)
class Space:
    """Cells of core units: `b(u(x), v(x))` with unary operations u, v and a binary b; the next one's u acts on that.

    Core c has the left edge 2c, the right edge 2c + 1 and the vertex c. All edges act on x but the left edge of a core
    that is not the first, which acts on the output of the core before. The last vertex is the value.

    Args:
        unary: Operations on edges, names of the 23 of `UNARY` or operations of your own.
        binary: Operations on vertices, names of the 9 of `BINARY` or operations of your own.
        cores: Core units in a chain.
        bound: Largest output of operations that grow fast, above 0: their inputs are clamped to where it is reached.

    Attributes:
        unary: The operations themselves.
        binary: The operations themselves.
        cores: Core units.
        bound: The bound.

    Raises:
        UsageError: There are no unary or no binary operations.
        OptionError: An operation is unknown, given twice or has the wrong arity; or cores or bound are out of range.
    """

    unary: tuple[Operation, ...]
    binary: tuple[Operation, ...]
    cores: int
    bound: float

    def __init__(
        self,
        *,
        unary: Sequence[str | Operation] = tuple(UNARY),
        binary: Sequence[str | Operation] = tuple(BINARY),
        cores: int = 2,
        bound: float = BOUND,
    ) -> None:
        if not unary or not binary:
            raise UsageError("a space needs at least one unary and one binary operation")
        if isinstance(cores, bool) or not isinstance(cores, int) or cores < 1:
            raise OptionError(f"cores must be a whole number from 1 on, got {cores!r}")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < math.inf:
            raise OptionError(f"bound must be a finite number above 0, got {bound!r}")
        object.__setattr__(self, "unary", _operations("unary", unary, UNARY, 1))
        object.__setattr__(self, "binary", _operations("binary", binary, BINARY, 2))
        object.__setattr__(self, "cores", cores)
        object.__setattr__(self, "bound", float(bound))

    @property
    def edges(self) -> int:
        """Number of unary operations in a cell."""
        return 2 * self.cores

    @property
    def vertices(self) -> int:
        """Number of binary operations in a cell."""
        return self.cores

    @property
    def slots(self) -> int:
        """Number of candidates over all places."""
        return self.edges * len(self.unary) + self.vertices * len(self.binary)

    @property
    def size(self) -> int:
        """Number of genotypes."""
        return math.prod(len(group.operations) for group in self.groups)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The places in order: U0, U1, B0, U2, U3, B1, ..."""
        return tuple(
            group
            for core in range(self.cores)
            for group in (
                Group(f"U{2 * core}", "unary", 2 * core, self.unary),
                Group(f"U{2 * core + 1}", "unary", 2 * core + 1, self.unary),
                Group(f"B{core}", "binary", core, self.binary),
            )
        )

    def draw(self, rng: np.random.Generator) -> Genotype:
        """Return a genotype, each place chosen independently with equal chances."""
        return self._genotype([group.operations[rng.integers(len(group.operations))].name for group in self.groups])

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """Return a genotype that differs in one place.

        Args:
            genotype: Of this space.
            rng: Chooses the place and the operation, with equal chances.

        Returns:
            Another; the same where no place has a choice.
        """
        groups, names = self.groups, self.names(genotype)
        places = [place for place, group in enumerate(groups) if len(group.operations) > 1]
        if not places:
            return genotype
        place = places[rng.integers(len(places))]
        others = [operation.name for operation in groups[place].operations if operation.name != names[place]]
        names[place] = others[rng.integers(len(others))]
        return self._genotype(names)

    def genotypes(self) -> Iterator[Genotype]:
        """Yield all, the last place fastest."""
        for names in itertools.product(*[[one.name for one in group.operations] for group in self.groups]):
            yield self._genotype(names)

    def operation(self, kind: str, name: str) -> Operation:
        """Return an operation of this space.

        Args:
            kind: `"unary"` or `"binary"`.
            name: Its name.
        """
        operations: tuple[Operation, ...] = getattr(self, kind)
        return next(operation for operation in operations if operation.name == name)

    def function(self, genotype: Genotype, betas: Betas | None = None, *, trained: bool = False) -> Function:
        """Return a genotype as a simplified formula, with the bounds of this space.

        Args:
            genotype: Of this space.
            betas: Values of learnable scalars by kind and index of their place, as `("unary", 0)`; of the others the
                means are taken.
            trained: Whether they become parameters `a`, `b`, ... of the formula that start there, or numbers in it.

        Returns:
            The function; a name of the catalogue called where it is that of one, as in `gelu(x)`.
        """
        return function_of(self, genotype, betas, trained=trained)

    def distinct(self) -> tuple[Genotype, ...]:
        """Return one genotype for each function up to scale and shift of the output, the simplest formulas first.

        Returns:
            Functions that differ somewhere within 8 of 0, their scalars at the means; none is constant.

        Raises:
            UsageError: There are too many genotypes to look at all.
        """
        return distinct(self)

    def fingerprint(self, genotype: Genotype) -> Fingerprint | None:
        """Return what a function is up to scale and shift of the output, to be compared or kept in a set.

        Args:
            genotype: Of this space; its scalars are taken at the means.

        Returns:
            A fingerprint; None where the function is constant or somewhere not finite.
        """
        return fingerprints(self, [genotype])[0]

    def names(self, genotype: Genotype) -> list[str]:
        """Return the operations of a genotype in the order of `groups`."""
        return [getattr(genotype, group.kind)[group.place] for group in self.groups]

    def _genotype(self, names: Sequence[str]) -> Genotype:
        """Return the genotype with these operations, in the order of `groups`."""
        kinds: Mapping[str, list[str]] = {"unary": [], "binary": []}
        for group, name in zip(self.groups, names, strict=True):
            kinds[group.kind].append(name)
        return Genotype(tuple(kinds["unary"]), tuple(kinds["binary"]))


def _operations(
    kind: str, given: Sequence[str | Operation], known: Mapping[str, Operation], arity: int
) -> tuple[Operation, ...]:
    """Return operations by name or as given.

    Raises:
        OptionError: One is unknown, given twice, or of the wrong arity.
    """
    if isinstance(given, str):
        raise OptionError(f"{kind} operations must be a list, got {given!r}")
    found: list[Operation] = []
    for one in given:
        if not isinstance(one, Operation) and not (isinstance(one, str) and one in known):
            hint = did_you_mean(str(one), known) or ";"
            raise OptionError(f"no {kind} operation named {one!r}{hint} there are {', '.join(known)}")
        operation = one if isinstance(one, Operation) else known[one]
        if operation.arity != arity:
            raise OptionError(f"{kind} operations have the arity {arity}, {operation.name!r} has {operation.arity}")
        if operation.name in {other.name for other in found}:
            raise OptionError(f"{kind} operation {operation.name!r} is given twice")
        found.append(operation)
    return tuple(found)


SPACES = {"grafs": Space(cores=2), "one-core": Space(cores=1)}


def space_of(space: str | Space) -> Space:
    """Return a space by name.

    Args:
        space: `"grafs"`, `"one-core"`, or a space, which is returned as it is.

    Returns:
        The space.

    Raises:
        UsageError: There is none of that name.
    """
    if isinstance(space, Space):
        return space
    if not isinstance(space, str) or space not in SPACES:
        hint = did_you_mean(str(space), SPACES) or ";"
        raise UsageError(f"no space named {space!r}{hint} there are {', '.join(SPACES)}, and softknee.Space(...)")
    return SPACES[space]
