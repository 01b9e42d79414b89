"""Checks of a submission before any training, each setting in a child process of its own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._bench.model import build_model
from softknee._bench.protocols import get_protocol, with_options
from softknee._bench.submission import read_submission
from softknee._bench.submission_guard import Limits, Stopped, guarded
from softknee._bench.submission_run import make_limits
from softknee._bench.suite import SUITES
from softknee._bench.suite_plan import divide_options
from softknee._catalogue import parse_choice
from softknee._errors import OptionError
from softknee._report.table import ABSENT, Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.protocol import Protocol
    from softknee._bench.submission import Submission

# Seconds between two stages of a check.
STAGE_SECONDS = 60.0
# What all baselines of a budget cost: parameters they have none of their own.
_FREE = "relu"


@dataclass(frozen=True)
class Checked:
    """What came of a check.

    Attributes:
        setting: Name of the protocol.
        problem: A sentence about the submission, empty if all is well.
        sites: Places of the model where it stands; None where it did not come so far, as in what follows.
        parameters: Of the model, the activations' among them.
        activation_parameters: Of the activations.
        built_late: Of these, those that a dry forward pass had to build.
        budget: How many the model may have; None for any number.
    """

    setting: str
    problem: str = ""
    sites: int | None = None
    parameters: int | None = None
    activation_parameters: int | None = None
    built_late: int | None = None
    budget: int | None = None


def check_file(
    protocol: str, file: Path, *, options: Mapping[str, Any], memory_limit: float | None = None
) -> tuple[Checked, ...]:
    """Check a file under a protocol or all protocols of a suite, the hidden ones too; data are not needed.

    Args:
        protocol: Name of a protocol or suite.
        file: That defines `CustomActivation`.
        options: Open points of the protocols, as `bench` takes them.
        memory_limit: Gigabytes that the process may take, half of the memory by default.

    Returns:
        What came of it in each setting.

    Raises:
        UsageError: There is no such protocol, option or file, or the limit is not positive.
    """
    submission = read_submission(file)
    gigabytes = make_limits(None, memory_limit).gigabytes
    if protocol not in SUITES:
        return (check_submission(with_options(get_protocol(protocol), options), submission, gigabytes=gigabytes),)
    suite = SUITES[protocol]
    protocols = [get_protocol(name) for name in suite.members(final=True)]
    theirs = divide_options(suite, protocols, options)
    return tuple(
        check_submission(with_options(one, theirs[one.name]), submission, gigabytes=gigabytes) for one in protocols
    )


def check_submission(protocol: Protocol, submission: Submission, *, gigabytes: float | None) -> Checked:
    """Use a submission as a run of a protocol does, in a child process.

    Args:
        protocol: The setting.
        submission: The file.
        gigabytes: Of memory that the process may take.

    Returns:
        What came of it.
    """
    budget = parameter_budget(protocol)
    if any(cell.initialization == "matched" for cell in protocol.cells):
        problem = "nobody knows its gain, which weights are matched to in a condition of this protocol"
        return Checked(protocol.name, problem, budget=budget)
    found = _found(protocol, submission, Limits(seconds=STAGE_SECONDS, gigabytes=gigabytes))
    problem = found.pop("problem", "")
    if not problem and budget is not None and found["parameters"] > budget:
        problem = over_budget(found["parameters"], found["activation_parameters"], budget)
    return Checked(protocol.name, problem, **found, budget=budget)


def parameter_budget(protocol: Protocol) -> int | None:
    """Return how many parameters a model may have, activations included; None for any number."""
    if protocol.budget is None:
        return None
    model = build_model(protocol.recipe, parse_choice(_FREE), seed=0)
    return int(protocol.budget * sum(parameter.numel() for parameter in model.parameters()))


def over_budget(parameters: int, own: int, budget: int) -> str:
    """Return the sentence about an activation with too many parameters."""
    return (
        f"the model has {parameters:,} parameters with it, {own:,} of them the activations', and the budget of this "
        f"protocol is {budget:,}"
    )


def refuse(checked: Checked, label: str) -> None:
    """Refuse a submission that failed its check.

    Raises:
        OptionError: It did; the message says how.
    """
    if checked.problem:
        raise OptionError(f"{label} failed the checks of {checked.setting}: {checked.problem}")


def checked_table(checks: Sequence[Checked]) -> Table:
    """Return checks as a table."""
    columns = [
        Column("Setting", numeric=False),
        Column("Sites"),
        Column("In all"),
        Column("in activations"),
        Column("built late"),
        Column("Budget"),
        Column("Verdict", numeric=False),
    ]
    rows = [
        [
            Cell(one.setting),
            *(
                Cell(ABSENT if value is None else f"{value:,}")
                for value in (one.sites, one.parameters, one.activation_parameters, one.built_late, one.budget)
            ),
            Cell("failed" if one.problem else "passed"),
        ]
        for one in checks
    ]
    return Table("Checks before training, and parameters", columns, rows)


def _found(protocol: Protocol, submission: Submission, limits: Limits) -> dict[str, Any]:
    """Return what the child process found, or what became of it."""
    stage = "before anything was done"
    # Just what was read, and nothing beside it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{submission.name}.py")
        path.write_bytes(submission.source)
        request = {
            "path": str(path),
            "recipe": protocol.recipe.model_dump(mode="json"),
            "seed": protocol.first_seeds(1)[0],
        }
        try:
            with guarded(request, limits) as answers:
                for answer in answers:
                    if "stage" not in answer:
                        break
                    stage = answer["stage"]
        except Stopped as stop:
            return {"problem": f"{stage}, {stop}"}
    return dict(answer["found"])
