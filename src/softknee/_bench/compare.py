"""`bench`: run a comparison of activations from the request to the finished study."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softknee._bench.device import check_executor
from softknee._bench.execute import Event
from softknee._bench.executors import make_executor
from softknee._bench.lock import check_writable, only_process
from softknee._bench.manifest import cell_rate, write_study
from softknee._bench.open_runs import settle, write_open
from softknee._bench.plan import default_folder, make_plan
from softknee._bench.runs import FINISHED, read_result
from softknee._bench.study import Study
from softknee._bench.suite import SUITES
from softknee._bench.suite_files import write_suite
from softknee._bench.suite_plan import suite_plans
from softknee._bench.suite_study import SuiteStudy
from softknee._bench.tune import RateSearch
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from softknee._bench.executors import Executor
    from softknee._bench.manifest import Rates
    from softknee._bench.plan import Plan
    from softknee._bench.protocol import InitializationName, Protocol, RateSource
    from softknee._bench.runs import DeviceName, Job, Precision, Split

# What runs are evaluated on, by what a user asks for.
SPLITS: Mapping[str, Split] = MappingProxyType({"test": "test", "dev": "validation"})


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
    protocol: str | Path | Protocol,
    activations: Sequence[str],
    *,
    seeds: int = 3,
    epochs: int | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    executor: str = "local",
    jobs: int | None = None,
    pack: int = 1,
    reference: str | None = None,
    margin: float | None = None,
    save_epochs: Sequence[int] = (),
    split: Literal["test", "dev"] = "test",
    final: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
    time_limit: float | None = None,
    memory_limit: float | None = None,
    device: DeviceName = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Study | SuiteStudy:
    """Compare activations under a frozen protocol, or under each of a suite.

    Every run has a folder of its own under a key that hashes its full specification. Finished runs are skipped and
    interrupted ones go on where they were, with the same numbers bit by bit, so the same call can be repeated at any
    time; a call with other activations or more seeds on the same folder adds to the study there.

    Args:
        protocol: Name of a protocol (`"fashion-mlp-fair"`) or of a suite (`"mls"`, `"transfer"`); or one of your own,
            as such or as a file that ends in `.toml`, see `docs/protocols.md`.
        activations: Names (`"gelu"`), names with options (`"swish[beta=1.5]"`, `"prelu[per_channel]"`), expressions
            (`"x*tanh(exp(x))"`), the groups `"chapter"` and `"mls-baselines"`, or `"submission:FILE.py"`, a file that
            defines a class `CustomActivation`; see `docs/mls.md`.
        seeds: How many; the seeds are `0 ... seeds - 1` unless the protocol names some.
        epochs: Of each evaluated run; the protocol's own by default.
        data: `"mini"` (a part of Fashion-MNIST that ships with softknee, the small protocols' default), `"full"`, or a
            folder with the data; not for protocols that make their data.
        out: Where results go; `results/<protocol>` by default, `results/<protocol>-dev` with the split `"dev"`.
        executor: Who does the runs: `"local"`, child processes of this one; `"here"`, this process; `"ray"`, a Ray
            cluster; `"slurm"`, a Slurm cluster. It decides no number, and the same study may go on by another.
        jobs: Runs at the same time; by default one a core, as many as the Ray cluster takes, or one on a GPU.
        pack: Runs that a process trains side by side, where their models are small perceptrons: it takes less time, and
            decides no number. What a step takes is then not recorded.
        reference: What the others are compared with; ReLU where it takes part, else the first.
        margin: Differences within it count as equivalent; half a percentage point of accuracy, 0.01 of R² or 0.02 bits
            by default.
        save_epochs: Epochs after which the weights are kept, as `epoch-NNN.pt` in the run's folder.
        split: What is evaluated on: `"test"`, or `"dev"`, a part held out of the training data, for iterating.
        final: Evaluate under the hidden protocols of a suite, too.
        options: Open points of the protocol to be settled otherwise, by field of its recipe.
        time_limit: Minutes that an epoch of a submission may take, 60 by default.
        memory_limit: Gigabytes that the process of a submission may take, half of the memory by default.
        device: Where runs compute: `"cpu"`, or `"cuda"` if it is asked for; a study's numbers must not depend on what a
            machine happens to have. On CUDA they are not the same bit by bit from call to call.
        precision: A tier, part of every key and never pooled with others: `"float32"`; `"tf32"`, whose products and
            convolutions round to TensorFloat-32, on CUDA; `"bfloat16"`, forward passes under PyTorch's automatic casts.
        compiled: Compile the steps of training by `torch.compile`, and replay them as CUDA graphs on CUDA; part of
            every key, too. See `docs/speed.md`.
        progress: Called after each epoch and at the end of each run.

    Returns:
        The study; diverged, failed and lost runs are in it and in its report, and never averaged in.

    Raises:
        UsageError: The request cannot be met as given; raised before any training.
        MissingExtra: What the executor needs is not installed; likewise.
        SoftkneeError: Nothing can be written any more, or no process can be started; what is finished is kept.
    """
    check_executor(device, executor)
    execute = make_executor(executor, 1 if jobs is None and device == "cuda" else jobs, pack)
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    asked = partial(
        make_plan,
        activations=activations,
        seeds=seeds,
        epochs=epochs,
        reference=reference,
        margin=margin,
        save_epochs=save_epochs,
        split=SPLITS[split],
        time_limit=time_limit,
        memory_limit=memory_limit,
        device=device,
        precision=precision,
        compiled=compiled,
    )
    out = None if out is None else Path(out)
    if isinstance(protocol, str) and protocol in SUITES:
        folder = default_folder(protocol, SPLITS[split]) if out is None else out
        plans = suite_plans(SUITES[protocol], folder, asked, data=data, final=final, options=options)
        check_writable(folder)
        write_suite(folder, SUITES[protocol], list(plans))
        _conduct(list(plans.values()), execute, progress)
        return SuiteStudy.load(folder)
    if final:
        raise UsageError(
            f"final is for suites with hidden protocols, which {getattr(protocol, 'name', protocol)} is not"
        )
    plan = asked(protocol, data=data, out=out, options=options)
    _conduct([plan], execute, progress)
    return Study.load(plan.folder)


def _conduct(plans: Sequence[Plan], execute: Executor, progress: Callable[[Progress], None] | None) -> None:
    """Carry out plans, one after the other, and tell their progress as that of one."""
    total, before = sum(plan.total_epochs() for plan in plans), 0
    for plan in plans:

        def listen(now: Progress, before: int = before) -> None:
            if progress is not None:
                progress(Progress(before + now.done, total, now.event))

        with only_process(plan.folder):
            _Conductor(plan, execute=execute, progress=listen).conduct()
        before += plan.total_epochs()


class _Conductor:
    """Carries a plan out: given rates and the tuning grid first, then tuning to its end, then the tuned rates."""

    def __init__(self, plan: Plan, *, execute: Executor, progress: Callable[[Progress], None]) -> None:
        self.plan = plan
        self.execute = execute
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
        write_open(self.plan.folder, [])

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
        """Have jobs done that are not; other processes that help with the study find them in its folder."""
        waiting = []
        for job in {job.spec.key: job for job in jobs}.values():
            status = settle(job)
            if status is None:
                waiting.append(job)
            else:
                self._listen(Event(job, status=status))
        if waiting:
            write_open(self.plan.folder, waiting)
            self.execute(waiting, self._listen)

    def _listen(self, event: Event) -> None:
        key, spec = event.job.spec.key, event.job.spec
        self.epochs[key] = event.epoch if event.status is None else spec.epochs
        self.progress(Progress(self.epochs.total(), self.plan.total_epochs(), event))
