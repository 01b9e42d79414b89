"""What a search is given beside its task, checked; and what it was given, as plain data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._catalogue import parse_choice
from softknee._errors import UsageError
from softknee._search.candidate import Candidate, Function
from softknee._search.method import FIRST_RUN, MORE_RUNS
from softknee._search.space import SPACES
from softknee.nn.names import BY_NAME
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._search.space import Space
    from softknee._search.task import Task

BASELINE = "baseline"
# Two runs are the fewest whose difference can be told from noise.
FEWEST_SEEDS = 2


def budget_of(budget: Any) -> float:
    """Return a budget.

    Raises:
        UsageError: It is none.
    """
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
        raise UsageError(f"budget must be a number of training runs above 0, got {excerpt(budget)}")
    return float(budget)


def seeds_of(seeds: Any) -> int:
    """Return a number of paired runs.

    Raises:
        UsageError: It is none, or too small to tell anything.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not FEWEST_SEEDS <= seeds < MORE_RUNS:
        raise UsageError(
            f"seeds must be a whole number from {FEWEST_SEEDS} to {MORE_RUNS - 1}, got {excerpt(seeds)}; "
            "one run cannot tell a difference from noise"
        )
    return seeds


def baselines_of(names: Sequence[str], task: Task) -> tuple[Candidate, ...]:
    """Return what is to be beaten, and what the model has beside it if the catalogue knows that.

    Args:
        names: As the command line takes them.
        task: That they must fit.

    Returns:
        Candidates, each once.

    Raises:
        UsageError: Or a subclass: there are none, or one is unknown, or does not fit.
    """
    if isinstance(names, str) or not names:
        raise UsageError(f"baselines must be a list of at least one activation, got {excerpt(names)}")
    groups = len(task.groups)
    given = [Candidate((Function(parse_choice(name).label),) * groups, BASELINE) for name in names]
    made = {one.key: one for one in [*given, *_own(task)]}
    for candidate in made.values():
        _check_fits(candidate, task)
    return tuple(made.values())


def _check_fits(candidate: Candidate, task: Task) -> None:
    """See that a baseline can be put into the model, and be made to be taken away.

    Raises:
        UsageError: It cannot.
    """
    try:
        task.model(FIRST_RUN, lambda site, group: candidate.functions[group].make(site))
        candidate.functions[0].make()
    except UsageError as error:
        raise UsageError(f"baseline {candidate.name}: {error}") from error


def settings_of(
    task: Task,
    space: Space,
    scope: str | Mapping[str, Any],
    baselines: Sequence[Candidate],
    *,
    where: Any,
    budget: float,
    seeds: int,
) -> dict[str, Any]:
    """Return what is searched for as plain data, which must be the same where a search goes on.

    Args:
        task: The task.
        space: The space.
        scope: Of the functions.
        baselines: To be beaten.
        where: Which activations, None for the usual ones.
        budget: In training runs.
        seeds: Paired runs of verification.
    """
    return {
        **task.facts(),
        "space": {
            "name": next((name for name, known in SPACES.items() if known == space), "own"),
            "unary": [one.name for one in space.unary],
            "binary": [one.name for one in space.binary],
            "cores": space.cores,
            "bound": space.bound,
        },
        "scope": scope if isinstance(scope, str) else "groups",
        **({} if where is None else {"where": "given"}),
        "baselines": [one.name for one in baselines],
        "seeds": seeds,
        "budget": budget,
    }


def _own(task: Task) -> list[Candidate]:
    """Return what the model has, if it is of the catalogue and one kind in each group."""
    kinds = [{site.kind for site in group.sites} for group in task.groups]
    if not all(len(kind) == 1 for kind in kinds):
        return []
    names = [next(iter(kind)) for kind in kinds]
    known = all(name in BY_NAME and BY_NAME[name].kind == "elementwise" for name in names)
    return [Candidate(tuple(Function(BY_NAME[name].name) for name in names), BASELINE)] if known else []
