"""Executors: ways to do the runs of a study, chosen by name.

An executor is a callable of jobs and a listener that returns when all of them have ended. What is right does not depend
on it: every process does a run through `softknee._bench.work.attempt`, and what a run is and how far it came lies in
its folder. So a study may be begun by one executor and go on by another, and other processes may help.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from softknee._bench.execute import Event, run_here, run_in_children
from softknee._bench.execute_ray import run_with_ray
from softknee._bench.execute_slurm import run_with_slurm
from softknee._bench.plan import check_at_least
from softknee._bench.runs import Job
from softknee._errors import UsageError
from softknee._extras import require

Executor = Callable[[Sequence[Job], Callable[[Event], None]], None]
EXECUTORS = ("local", "here", "ray", "slurm")


def make_executor(name: str, jobs: int | None, pack: int = 1) -> Executor:
    """Return an executor.

    Args:
        name: `"local"`, child processes on this machine; `"here"`, this process; `"ray"`, tasks of a Ray cluster;
            `"slurm"`, jobs of a Slurm cluster.
        jobs: How many runs are done at the same time; by default one a core of this machine, or a processor of the Ray
            cluster.
        pack: Runs that a process may train side by side.

    Returns:
        It.

    Raises:
        UsageError: There is none of that name, or `jobs` is missing or too small.
        MissingExtra: What it needs is not installed.
    """
    check_at_least(1, pack=pack, **({} if jobs is None else {"jobs": jobs}))
    if name == "local":
        return partial(run_in_children, slots=jobs or _cores(), pack=pack)
    if name == "here":
        return partial(run_here, pack=pack)
    if name == "ray":
        require("ray", extra="ray")
        return partial(run_with_ray, slots=jobs, pack=pack)
    if name == "slurm":
        require("submitit", extra="slurm")
        if jobs is None:
            raise UsageError("the executor slurm needs jobs: how many Slurm jobs are to work at the same time")
        return partial(run_with_slurm, slots=jobs, pack=pack)
    raise UsageError(f"executor must be one of {', '.join(EXECUTORS)}, got {name!r}")


def _cores() -> int:
    """Count the cores this process may use, which containers and schedulers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
