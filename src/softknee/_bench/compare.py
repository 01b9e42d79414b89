"""`bench`: run a comparison of activations from the request to the finished study."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._bench.execute import run_here, run_in_children
from softknee._bench.lock import only_process
from softknee._bench.manifest import cell_rate, write_study
from softknee._bench.plan import check_at_least, make_plan
from softknee._bench.runs import FINISHED, read_result
from softknee._bench.study import Study
from softknee._bench.tune import RateSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.execute import Event
    from softknee._bench.manifest import Rates
    from softknee._bench.plan import Plan
    from softknee._bench.protocol import InitializationName, RateSource
    from softknee._bench.runs import Job


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes:
        done: Epochs that are finished, those of earlier calls included.
        total: Epochs of the whole study.
        event: What happened last.
    """

    done: int
    total: int
    event: Event


def bench(
    protocol: str,
    activations: Sequence[str],
    *,
    seeds: int = 3,
    epochs: int | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    reference: str | None = None,
    margin: float | None = None,
    save_epochs: Sequence[int] = (),
    in_process: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Study:
    """Compare activations under a frozen protocol.

    Every run has a folder of its own under a key that hashes its full specification. Finished runs are skipped and
    interrupted ones go on where they were, with the same numbers bit by bit, so the same call can be repeated at any
    time; a call with other activations or more seeds on the same folder adds to the study there.

    Args:
        protocol: `"fashion-mlp"`, `"fashion-mlp-chapter"`, `"fashion-mlp-fair"`, `"fashion-cnn"`, `"gmm-2d"`,
            `"regression-1d"` or `"regression-2d"`.
        activations: Names (`"gelu"`), names with options (`"swish[beta=1.5]"`, `"prelu[per_channel]"`), expressions
            (`"x*tanh(exp(x))"`) or the group `"chapter"`.
        seeds: How many; the seeds are `0 ... seeds - 1`.
        epochs: Of each evaluated run; the protocol's own by default.
        data: `"mini"` (ships with softknee, the default), `"full"`, or a folder with Fashion-MNIST; not for protocols
            that make their data.
        out: Where results go; `results/<protocol>` by default.
        jobs: Child processes at the same time; one a core by default.
        reference: What the others are compared with; ReLU where it takes part, else the first.
        margin: Differences within it count as equivalent; half a percentage point of accuracy or 0.01 of R² by
            default.
        save_epochs: Epochs after which the weights are kept, as `epoch-NNN.pt` in the run's folder.
        in_process: Train in this process, one run after the other, instead of in child processes.
        progress: Called after each epoch and at the end of each run.

    Returns:
        The study; diverged, failed and lost runs are in it and in its report, and never averaged in.

    Raises:
        UsageError: The request cannot be met as given; raised before any training.
    """
    slots = _cores() if jobs is None else jobs
    check_at_least(1, jobs=slots)
    plan = make_plan(
        protocol,
        activations,
        seeds=seeds,
        epochs=epochs,
        data=data,
        out=None if out is None else Path(out),
        reference=reference,
        margin=margin,
        save_epochs=save_epochs,
    )
    with only_process(plan.folder):
        _Conductor(plan, slots=0 if in_process else slots, progress=progress).conduct()
    return Study.load(plan.folder)


class _Conductor:
    """Carries a plan out: given rates and the tuning grid first, then tuning to its end, then the tuned rates."""

    def __init__(self, plan: Plan, *, slots: int, progress: Callable[[Progress], None] | None) -> None:
        self.plan = plan
        self.slots = slots
        self.progress = progress
        self.epochs: Counter[str] = Counter()
        tuning = plan.protocol.tuning
        wanted = dict.fromkeys(cell.initialization for cell in plan.protocol.cells if cell.rate == "tuned")
        self.searches = {
            (label, initialization): RateSearch(tuning) for initialization in wanted for label in plan.labels if tuning
        }

    def conduct(self) -> None:
        self._advance()
        self._write()
        self._execute(self._cell_jobs("given") + self._tuning_jobs())
        while self._advance():
            self._execute(self._tuning_jobs())
        self._write()
        self._execute(self._cell_jobs("tuned"))

    def _write(self) -> None:
        records = [self._tuning_record(*task, search) for task, search in self.searches.items() if search.scores]
        write_study(self.plan, rates=self._rates, tuning=records)

    @property
    def _rates(self) -> Rates:
        """The rates of the searches that are complete."""
        complete = {task: search for task, search in self.searches.items() if not search.proposals()}
        return {task: search.best if search.found else None for task, search in complete.items()}

    def _cell_jobs(self, rate_source: RateSource) -> list[Job]:
        """Return the runs of the cells with this source of rates, a seed of everything before the next seed."""
        jobs, rates = [], self._rates
        for seed in self.plan.seeds:
            for cell in self.plan.protocol.cells:
                for label in self.plan.labels:
                    rate = cell_rate(self.plan, cell, label, rates)
                    if cell.rate == rate_source and rate is not None:
                        jobs.append(self.plan.job(label, seed, initialization=cell.initialization, rate=rate))
        return jobs

    def _tuning_jobs(self) -> list[Job]:
        return [
            job
            for (label, initialization), search in self.searches.items()
            for rate in search.proposals()
            for job in self._trial(label, initialization, rate)
        ]

    def _trial(self, label: str, initialization: InitializationName, rate: float) -> list[Job]:
        tuning = self.plan.protocol.tuning
        return [
            self.plan.job(label, seed, initialization=initialization, rate=rate, tunes=True)
            for seed in (tuning.seeds if tuning else ())
        ]

    def _advance(self) -> bool:
        """Score every proposal whose runs are finished; say whether that opened anything more to try.

        A search waits while a run of its is failed or lost: such a run says nothing about its rate.
        """
        entered = False
        for (label, initialization), search in self.searches.items():
            while proposals := search.proposals():
                scores = {rate: self._mean_score(self._trial(label, initialization, rate)) for rate in proposals}
                known = {rate: score for rate, score in scores.items() if score is not None}
                if len(known) < len(proposals):
                    break
                search.scores.update(known)
                entered = True
        return entered and any(search.proposals() for search in self.searches.values())

    def _mean_score(self, jobs: list[Job]) -> float | None:
        """Return the mean last validation score: minus infinity if a run diverged, None if one is missing."""
        results = [read_result(job.folder) or {} for job in jobs]
        if any(result.get("status") not in FINISHED for result in results):
            return None
        if any(result["status"] == "diverged" for result in results):
            return -inf
        return float(np.mean([result[self.plan.metric.test][-1] for result in results]))

    def _tuning_record(self, label: str, initialization: InitializationName, search: RateSearch) -> dict[str, Any]:
        trials = [
            {
                "learning_rate": rate,
                self.plan.metric.name: score if isfinite(score) else None,
                "keys": [job.spec.key for job in self._trial(label, initialization, rate)],
            }
            for rate, score in sorted(search.scores.items())
        ]
        chosen = search.best if search.found else None
        about = {"activation": label, "initialization": initialization, "chosen": chosen, "at_edge": search.at_edge}
        return {**about, "trials": trials}

    def _execute(self, jobs: list[Job]) -> None:
        distinct = list({job.spec.key: job for job in jobs}.values())
        if self.slots:
            run_in_children(distinct, self._listen, slots=self.slots)
        else:
            run_here(distinct, self._listen)

    def _listen(self, event: Event) -> None:
        key, spec = event.job.spec.key, event.job.spec
        self.epochs[key] = event.epoch if event.status is None else spec.epochs
        if self.progress is not None:
            self.progress(Progress(self.epochs.total(), self.plan.total_epochs(), event))


def _cores() -> int:
    """Count the cores this process may use, which containers and schedulers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
