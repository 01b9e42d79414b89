"""From finals and scores to the result, and to its files."""

from __future__ import annotations

import json
import math
import platform
from typing import TYPE_CHECKING, Any

import torch

from softknee._errors import DataError
from softknee._report.files import write_atomic
from softknee._search.result import Finalist, Phase, Result, Spent, is_everywhere
from softknee._search.rows import rows_of
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.verdict import Verdict
    from softknee._search.verify import Final

TRAJECTORY = "trajectory"
# Files in the folder of a search.
RESULT, PAGE, MODULE = "result.json", "report.html", "best.py"


def outcome(
    judge: Judge,
    baselines: Sequence[Candidate],
    finals: Sequence[Final],
    verdict: Verdict,
    notes: Sequence[str],
    settings: Mapping[str, Any],
    method: str,
) -> Result:
    """Return the result of a search.

    Args:
        judge: Knows all scores, and the task.
        baselines: To be beaten.
        finals: Of which the verdict is.
        verdict: What they show.
        notes: What else limits the claim.
        settings: What was searched for.
        method: How.
    """
    task = judge.task
    sites = {group.name: tuple(site.name for site in group.sites) for group in task.groups}
    return Result(
        best=Finalist(
            verdict.best,
            any(one.key == verdict.best.key for one in baselines),
            sites,
            everywhere=is_everywhere(settings),
        ),
        verdict=verdict.sentence,
        outcome=verdict.outcome,
        measured_on="test" if task.test_steps else "validation",
        candidate=None if verdict.candidate is None else verdict.candidate.key,
        reference=verdict.reference.key,
        differences=verdict.differences,
        notes=(*verdict.notes, *notes),
        table=rows_of(judge, baselines, finals, verdict.test),
        cost=_spent(judge),
        trajectory=judge.ledger.read(TRAJECTORY),
        settings=_shown(judge, settings, method),
    )


def write(result: Result, folder: Path) -> None:
    """Write the files of a search; the result comes last, for it says that all is done.

    Args:
        result: Of the search.
        folder: Of the search.
    """
    write_atomic(folder / MODULE, result.best.source())
    result.to_html(folder / PAGE)
    result.save(folder / RESULT)


def stored(folder: Path | None) -> Result | None:
    """Return the result that was written.

    Args:
        folder: Of a search; None where it has none.

    Returns:
        The result, None if there is none.

    Raises:
        DataError: It is damaged.
    """
    path = None if folder is None else folder / RESULT
    if path is None or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged; delete it, and it is made again") from error
    return Result.from_json(data)


def _spent(judge: Judge) -> Spent:
    meter, task = judge.meter, judge.task
    failed = {(score.candidate.key, score.run) for score in judge.scores if score.failure is not None}
    return Spent(
        budget=meter.budget,
        spent=meter.spent,
        phases=tuple(Phase(name, cost.runs, cost.seconds) for name, cost in meter.phases.items()),
        seconds=sum(cost.seconds for cost in meter.phases.values()),
        failed=len(failed),
        failed_runs=math.fsum(score.cost for score in judge.scores if (score.candidate.key, score.run) in failed),
        steps=task.run_steps,
        epochs=task.epochs,
    )


def _shown(judge: Judge, settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    task = judge.task
    device = next((one.device for one in task.fresh(0).parameters()), torch.device("cpu"))
    return {
        **{name: value for name, value in settings.items() if name not in {"groups", "budget"}},
        "method": method,
        "groups": [{"name": group.name, "sites": [site.name for site in group.sites]} for group in task.groups],
        "validation_batches": task.val_steps,
        "test_batches": task.test_steps or None,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"softknee": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
