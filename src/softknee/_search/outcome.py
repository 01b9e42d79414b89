"""From finals and scores to the result, and to its files."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import torch

from softknee._search.result import Finalist, Phase, Result, Spent
from softknee._search.rows import rows_of
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.verdict import Verdict
    from softknee._search.verify import Final

TRAJECTORY = "trajectory"


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
        best=Finalist(verdict.best, any(one.key == verdict.best.key for one in baselines), sites),
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


def _spent(judge: Judge) -> Spent:
    meter, task = judge.meter, judge.task
    before, failed = 0.0, dict[tuple[str, int], float]()
    for score in judge.scores:
        if score.failure is not None:
            # What a method spends beside its scores is none of theirs.
            cost = min(score.spent - before, judge.price(score.part, phase="verify"))
            failed.setdefault((score.candidate.key, score.run), cost)
        before = score.spent
    return Spent(
        budget=meter.budget,
        spent=meter.spent,
        phases=tuple(Phase(name, cost.runs, cost.seconds) for name, cost in meter.phases.items()),
        seconds=sum(cost.seconds for cost in meter.phases.values()),
        failed=len(failed),
        failed_runs=sum(failed.values()),
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
