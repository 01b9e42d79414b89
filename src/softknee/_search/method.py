"""The methods that a search can be made by, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from softknee._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.space import Space
    from softknee._search.task import Task

# The run that all are tried in; those from 1 on are kept for verification, those of a search's own begin here.
FIRST_RUN, MORE_RUNS = 0, 1000
# Of a full run, after which candidates may be compared: nothing shorter tells the best apart.
PARTS = (0.25, 0.5, 1.0)


class Find(Protocol):
    """Looks for good functions."""

    def __call__(
        self, judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
    ) -> list[Candidate]:
        """Return candidates, best first.

        Args:
            judge: Trains them.
            space: What they are made of.
            known: The best of the catalogue, each with its score of a full run.
            runs: What may be spent, in training runs.
            rng: Of all choices.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        home: The module that has its `find`.
        least: Full runs that it needs at least.
        about: What it does, in a line.
    """

    home: str
    least: float
    about: str

    @property
    def find(self) -> Find:
        """The function that searches."""
        return cast("Find", import_module(self.home).find)

    def check(self, task: Task, space: Space) -> None:
        """See that it can search for a task in a space, by the `check` of its module if that has one.

        Args:
            task: What to search for.
            space: What functions are made of.

        Raises:
            UsageError: It cannot.
        """
        check = getattr(import_module(self.home), "check", None)
        if check is not None:
            check(task, space)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "auto": Method("softknee._search.portfolio", 1.0, "several of the others, as the budget allows"),
        "grafs": Method("softknee._search.gradient", 3.0, "gradients of all operations mixed, fewer and fewer"),
        "enumerate": Method("softknee._search.enumerate", 1.0, "every function of a one-core space, many at a time"),
        "halving": Method("softknee._search.halving", 1.0, "a race: the better ones are trained longer, on more seeds"),
        "evolve": Method("softknee._search.evolve", 1.0, "mutations of what did well, with constants that are trained"),
        "random": Method("softknee._search.draw", 1.0, "draws, each trained once"),
    }
)


def method_of(name: str) -> Method:
    """Return a method by name.

    Raises:
        UsageError: There is none of that name.
    """
    if not isinstance(name, str) or name not in METHODS:
        hint = did_you_mean(str(name), METHODS) or ";"
        raise UsageError(f"no search method named {name!r}{hint} there are {', '.join(METHODS)}")
    return METHODS[name]
