"""Proposals from outside, of a person or a program: what they are told, and what they give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softknee._catalogue import parse_choice
from softknee._errors import OptionError, UsageError
from softknee._expression.primitives import PRIMITIVES
from softknee._search.candidate import Candidate, Function
from softknee._search.method import FIRST_RUN
from softknee._search.shapes import shape_of
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from softknee._search.judge import Judge
    from softknee._search.space import Space
    from softknee._search.task import Task

ASKED = "asked"
# Tried ones that the text lists.
LISTED = 20


@dataclass(frozen=True)
class Asked:
    """What somebody who proposes a function should know.

    Attributes:
        tried: Names and mean validation losses of full runs in run 0, best first; infinite where one failed.
        runs: Proposals that can still be tried.
        functions: What formulas may call.
        groups: Sites that get a function each.
        hint: All this as a text.
    """

    tried: tuple[tuple[str, float], ...]
    runs: int
    functions: tuple[str, ...] = field(repr=False)
    groups: tuple[str, ...]
    hint: str = field(repr=False)


def asked(judge: Judge, space: Space, runs: int) -> Asked:
    """Say what has been tried and what may be proposed.

    Args:
        judge: Knows what was tried.
        space: What methods would search.
        runs: Proposals that can still be tried.
    """
    full = [score for score in judge.scores if score.run == FIRST_RUN and score.part == 1.0]
    tried = tuple(sorted(((score.candidate.name, score.loss) for score in full), key=lambda pair: pair[1]))
    names = tuple(
        name for name, primitive in FUNCTIONS.items() if not isinstance(primitive, str) and name.isidentifier()
    )
    groups = tuple(group.name for group in judge.task.groups)
    return Asked(tried, runs, names, groups, _hint(tried, runs, groups, space))


def proposal(proposed: str | Mapping[str, str], constants: Mapping[str, float], task: Task) -> Candidate:
    """Read a proposal.

    Args:
        proposed: A formula or a name; or one for each group of sites by its name.
        constants: Values of names in the formula.
        task: Which groups there are.

    Returns:
        The candidate.

    Raises:
        UsageError: Or a subclass: it is nothing that can be tried.
    """
    groups = [group.name for group in task.groups]
    if isinstance(proposed, Mapping):
        if {*proposed} != {*groups}:
            raise UsageError(f"a proposal by group needs one function for each of {', '.join(groups)}")
        texts = [proposed[group] for group in groups]
    else:
        texts = [proposed] * len(groups)
    return Candidate(tuple(_function(text, constants) for text in texts), ASKED)


def _function(text: Any, constants: Mapping[str, float]) -> Function:
    """Return a function.

    Raises:
        OptionError: A constant is no number.
        UsageError: Or a subclass: it is none, or constant or not finite.
    """
    for name, value in constants.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OptionError(f"constant {name} must be a number, got {value!r}")
    values = ",".join(f"{name}={float(value)!r}" for name, value in constants.items())
    choice = parse_choice(f"{text}[{values},fixed]" if values and isinstance(text, str) else text)
    if choice.what.isidentifier() or not constants:
        function = Function(choice.label)
    else:
        function = Function(choice.what, tuple((name, float(value)) for name, value in constants.items()))
    if choice.spec.kind != "elementwise":
        raise UsageError(
            f"{choice.what} is of the kind {choice.spec.kind}; a search is for functions of single elements"
        )
    if shape_of(function) is None:
        raise UsageError(
            f"{choice.label} is constant, or not finite everywhere from -20 to 20, and cannot be trained with"
        )
    return function


def _hint(tried: tuple[tuple[str, float], ...], runs: int, groups: tuple[str, ...], space: Space) -> str:
    listed = "\n".join(f"  {loss:.5g}  {name}" for name, loss in tried[:LISTED])
    each = f"one for all, or one for each of: {', '.join(groups)}" if len(groups) > 1 else "one for all sites"
    functions = sorted(name for name in PRIMITIVES if name.isidentifier())
    operators = [name for name in PRIMITIVES if not name.isidentifier()]
    return (
        "Propose an activation function as a formula in x, such as `x * tanh(softplus(x))`; "
        f"{each}. Names beside x are constants, whose values you give.\n"
        f"Operators: {' '.join(operators)}. Functions: {', '.join(functions)}; and any of the catalogue by its name, "
        "such as gelu(x).\n"
        f"It must be finite everywhere and not constant. Large inputs occur: methods keep fast-growing parts below "
        f"{space.bound:g}.\n"
        f"Tried so far, by validation loss after a full training run (lower is better):\n{listed}\n"
        f"{runs} more can be tried. The best are trained anew with other seeds before anything is claimed."
    )
