"""The methods that a search can be made by, and what they have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from inspect import signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from softknee._errors import OptionError, UsageError, did_you_mean

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
        least: Full runs that it needs at least, whatever the task.
        about: What it does, in a line.
        options: That its `find` takes by name.
    """

    home: str
    least: float
    about: str
    options: tuple[tuple[str, float | str], ...] = ()

    @property
    def find(self) -> Find:
        """The function that searches."""
        return cast("Find", partial(import_module(self.home).find, **dict(self.options)))

    def given(self, items: str) -> Method:
        """Return the method with options.

        Args:
            items: As in `"bilevel=joint,rate=0.1"`.

        Raises:
            OptionError: It has none of that name, or one is given twice or is no number where it must be one.
        """
        parameters = signature(import_module(self.home).find).parameters.values()
        known = {one.name: one.default for one in parameters if one.default != one.empty}
        options: list[tuple[str, float | str]] = []
        for item in items.split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            if name not in known or not value:
                there = f"it has {', '.join(known)}" if known else "it has none"
                raise OptionError(f"{item.strip()!r} is no option of this search method; {there}, as in name=value")
            if name in dict(options):
                raise OptionError(f"option {name!r} of this search method is given twice")
            if isinstance(known[name], float) and isinstance(_plain(value), str):
                raise OptionError(f"option {name!r} of this search method must be a number, got {value!r}")
            options.append((name, _plain(value)))
        return replace(self, options=tuple(options))

    def check(self, task: Task, space: Space) -> None:
        """See that it can search for a task in a space with its options, by the `check` of its module if that has one.

        Args:
            task: What to search for.
            space: What functions are made of.

        Raises:
            UsageError: It cannot.
            OptionError: It takes no such value of an option.
        """
        check = getattr(import_module(self.home), "check", None)
        if check is not None:
            check(task, space, **dict(self.options))

    def least_for(self, task: Task) -> float:
        """Return the full runs that it needs at least for a task, by the `least` of its module if that has one."""
        least = getattr(import_module(self.home), "least", None)
        return self.least if least is None else max(self.least, least(task))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "auto": Method("softknee._search.portfolio", 1.0, "one of the others, or two, by the space and the budget"),
        "grafs": Method("softknee._search.gradient", 1.2, "gradients of all operations mixed, fewer and fewer"),
        "enumerate": Method("softknee._search.enumerate", 1.0, "every function of a one-core space, many at a time"),
        "halving": Method("softknee._search.halving", 1.0, "a race: the better ones are trained longer, on more seeds"),
        "evolve": Method("softknee._search.evolve", 1.0, "mutations of what did well, with constants that are trained"),
        "random": Method("softknee._search.draw", 1.0, "draws, each trained once"),
    }
)


def method_of(text: str) -> Method:
    """Return a method by name, with options in brackets: `"grafs[bilevel=joint]"`.

    Raises:
        UsageError: There is none of that name.
        OptionError: It has no such option.
    """
    parts = (
        re.fullmatch(r"\s*(?P<name>[^\[\]]*?)\s*(?:\[(?P<options>[^\[\]]*)\]\s*)?", text)
        if isinstance(text, str)
        else None
    )
    if parts is None or parts["name"] not in METHODS:
        hint = did_you_mean(str(text), METHODS) or ";"
        raise UsageError(f"no search method named {text!r}{hint} there are {', '.join(METHODS)}")
    method = METHODS[parts["name"]]
    return method if parts["options"] is None else method.given(parts["options"])


def _plain(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
