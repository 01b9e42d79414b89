from __future__ import annotations

import errno
import os
import sys

import pytest
from test_compare import run, small_protocols, stored  # noqa: F401 (a fixture)
from test_train import TIMES, make_job, numbers

from softknee._bench import execute_slurm, runs
from softknee._bench.attempts import Attempt, _write
from softknee._bench.execute import run_here
from softknee._bench.execute_ray import run_with_ray
from softknee._bench.execute_slurm import _last_line, run_with_slurm
from softknee._bench.execute_watched import Watched
from softknee._bench.executors import make_executor
from softknee._bench.lock import only_process
from softknee._bench.runs import write_result
from softknee._engine.build import kernel_level
from softknee._errors import MissingExtra, SoftkneeError, UsageError


def planned(folder, **changes):
    """A job that machines like this one may do."""
    return make_job(folder, kernels=kernel_level(), **changes)


@pytest.mark.parametrize(
    ("name", "jobs", "message"),
    [
        ("slrum", None, "executor must be one of local, here, ray, slurm, got 'slrum'"),
        ("local", 0, "jobs must be an integer of at least 1, got 0"),
        ("slurm", None, "the executor slurm needs jobs: how many Slurm jobs are to work at the same time"),
    ],
)
def test_bad_requests_are_refused(name, jobs, message):
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match=message):
        make_executor(name, jobs)


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_what_is_not_installed_is_named_before_any_work(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module} is not installed; `pip install 'softknee\[{name}\]'` brings it"):
        run(tmp_path / "out", executor=name, jobs=2)
    assert not (tmp_path / "out").exists()


def test_a_machine_without_slurm_is_named(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    job = planned(tmp_path)  # first: which kernels there are is asked once a process, and there are none without PATH
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SoftkneeError, match="this is no machine of a Slurm cluster: .*srun"):
        run_with_slurm([job], lambda event: None, slots=1)


def test_of_runs_elsewhere_epochs_and_ends_are_told_once(tmp_path):
    job, seen = make_job(tmp_path), []
    watched = Watched([job], lambda event: seen.append((event.epoch, event.status)))
    watched.look()
    assert (watched.changes, seen) == (0, [])
    job.folder.mkdir()
    _write(job.folder, Attempt(1, "another"))
    watched.look()
    assert (watched.changes, seen) == (1, [])
    for epoch in (1, 1, 3):
        _write(job.folder, Attempt(1, "another", epoch=epoch))
        watched.look()
    write_result(job.folder, job.spec, "done")
    watched.look()
    watched.look()
    assert (watched.changes, watched.open) == (4, [])
    assert seen == [(1, None), (3, None), (0, "done")]


def test_the_last_line_of_a_workers_traceback_is_shown():
    rule = "-" * 22
    text = f"Job failed:\n{rule}\nTraceback:\n  File\nOSError: no space\n\n{rule}\nYou can check logs"
    assert _last_line(text) == "OSError: no space"
    assert _last_line("killed") == "killed"


def test_a_disk_that_fills_is_one_error_and_costs_no_finished_run(tmp_path, monkeypatch):
    write, written = runs.write_atomic, []

    def full(path, content):
        if len(written) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_atomic", full)
        with pytest.raises(
            SoftkneeError, match="cannot write in .*: No space left on device; what is finished is kept"
        ):
            run(tmp_path / "full", seeds=1)
    (kept,) = stored(tmp_path / "full").values()
    assert kept["status"] == "done"
    before = written[0].stat().st_mtime_ns
    run(tmp_path / "full", seeds=1)
    assert written[0].stat().st_mtime_ns == before
    run(tmp_path / "whole", seeds=1)
    assert untimed(tmp_path / "full") == untimed(tmp_path / "whole")
    assert not list((tmp_path / "full").glob("runs/**/*attempt*"))
    assert not list((tmp_path / "full").glob("runs/.open*"))


def untimed(out):
    return {key: {k: v for k, v in result.items() if k not in TIMES} for key, result in stored(out).items()}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_refused_before_any_run(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", refuse)
        with pytest.raises(UsageError) as caught, only_process(tmp_path / "out"):
            raise AssertionError("no work may be done")
    reason = os.strerror(number)
    assert (
        str(caught.value) == f"cannot write in {tmp_path / 'out'}: {reason}; mend that, or give another folder as out"
    )


def test_a_second_command_is_refused_and_leaves_nothing_behind(tmp_path):
    def again(progress):
        with pytest.raises(UsageError, match="another process is working in"):
            run(tmp_path, seeds=1)
        assert sorted(path.name for path in (tmp_path / "runs").glob(".*")) == [".lock", ".open.jsonl"]

    run(tmp_path, seeds=1, progress=again)
    assert {result["status"] for result in stored(tmp_path).values()} == {"done"}
    assert [path.name for path in (tmp_path / "runs").glob(".*")] == [".lock"]


@pytest.mark.slow
def test_ray_gives_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # it takes 6 s, and 45 s on a busy machine
    same_as_here(tmp_path, lambda jobs, listen: run_with_ray(jobs, listen, slots=2))


@pytest.mark.slow
def test_workers_that_submitit_starts_give_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(execute_slurm, "LOOK", 0.2)
    same_as_here(tmp_path, lambda jobs, listen: run_with_slurm(jobs, listen, slots=2, cluster="local"))


def same_as_here(tmp_path, execute):
    """The clusters' processes are as strange to this one as those of other machines, but for the file system."""
    there, here = ([planned(tmp_path / name, seed=seed) for seed in (0, 1, 2)] for name in ("there", "here"))
    ends = []
    execute(there, lambda event: event.status and ends.append((event.job.spec.seed, event.status)))
    run_here(here, lambda event: None)
    assert sorted(ends) == [(seed, "done") for seed in (0, 1, 2)]
    assert [numbers(job) for job in there] == [numbers(job) for job in here]
