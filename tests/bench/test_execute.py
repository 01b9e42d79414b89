from __future__ import annotations

import os
import signal

import pytest
from test_train import make_job, numbers

from softknee._bench import execute as module
from softknee._bench.attempts import fruitless, read_attempts
from softknee._bench.execute import run_here, run_in_children
from softknee._bench.runs import CHECKPOINT, read_result
from softknee._errors import SoftkneeError


@pytest.fixture
def children(monkeypatch):
    """The process ids of the children, in the order they start."""
    started = []
    popen = module.subprocess.Popen

    def recording(*args, **options):
        process = popen(*args, **options)
        started.append(process)
        return process

    monkeypatch.setattr(module.subprocess, "Popen", recording)
    return started


def test_children_and_this_process_give_the_same_numbers_whatever_ran_before(tmp_path, children):
    def jobs(folder):
        return [make_job(folder, activation=name, epochs=1) for name in ("rrelu", "staf", "relu")]

    run_here(jobs(tmp_path / "here"), lambda event: None)
    run_in_children(jobs(tmp_path / "there")[::-1], lambda event: None, slots=2)
    assert len(children) == 2
    for here, there in zip(*(jobs(tmp_path / name) for name in ("here", "there")), strict=True):
        assert numbers(here) == numbers(there)


def test_a_killed_child_is_replaced_and_its_run_goes_on(tmp_path, children):
    jobs = [make_job(tmp_path, epochs=3), make_job(tmp_path, epochs=3, seed=1)]
    seen = []

    def kill_once(event):
        seen.append((event.job.spec.seed, event.epoch, event.status))
        if len(seen) == 1:
            os.kill(children[0].pid, signal.SIGKILL)

    run_in_children(jobs, kill_once, slots=1)
    assert len(children) == 2
    assert [read_result(job.folder)["status"] for job in jobs] == ["done", "done"]
    undisturbed = make_job(tmp_path / "undisturbed", epochs=3)
    run_here([undisturbed], lambda event: None)
    assert numbers(jobs[0]) == numbers(undisturbed)


# A worker in which the runs of seed 0 end the process at once; two such ends are enough here.
DEADLY = """
import os, signal
from softknee._bench import pack, work, worker
execute, work.ATTEMPTS = pack.execute, 2
def kill(job, note):
    if job.spec.seed == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    return execute(job, note)
pack.execute = kill
worker.main([])
"""


def test_a_run_that_kills_every_child_is_lost_and_the_others_go_on(tmp_path, monkeypatch):
    popen, started = module.subprocess.Popen, []

    def deadly(command, **options):
        started.append(command)
        return popen([command[0], "-c", DEADLY], **options)

    monkeypatch.setattr(module.subprocess, "Popen", deadly)
    jobs, ends = [make_job(tmp_path, epochs=1, seed=seed) for seed in (0, 1)], []
    run_in_children(jobs, lambda event: event.status and ends.append((event.job.spec.seed, event.status)), slots=1)
    assert ends == [(0, "lost"), (1, "done")]
    assert len(started) == 3
    assert "exit status -11" in read_result(jobs[0].folder)["error"]["message"]
    assert [[path.name for path in job.folder.iterdir()] for job in jobs] == [["result.json"]] * 2


def test_children_that_cannot_start_end_the_study_with_their_last_words(tmp_path, monkeypatch):
    popen, started = module.subprocess.Popen, []

    def broken(command, **options):
        started.append(command)
        return popen([command[0], "-c", "import torsh"], **options)

    monkeypatch.setattr(module.subprocess, "Popen", broken)
    with pytest.raises(SoftkneeError, match="a process for runs cannot be started: .*(?s:.)*No module named 'torsh'"):
        run_in_children([make_job(tmp_path)], lambda event: None, slots=1)
    assert len(started) == 1
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(("interruption", "slots"), [(KeyboardInterrupt, 2), (RuntimeError, 1)])
def test_leaving_in_the_middle_leaves_no_child_and_a_run_to_resume(tmp_path, children, interruption, slots):
    jobs = [make_job(tmp_path, epochs=200, seed=seed) for seed in (0, 1)]

    def interrupt(event):
        raise interruption

    with pytest.raises(interruption):
        run_in_children(jobs, interrupt, slots=slots)
    assert len(children) == slots
    assert all(child.poll() is not None for child in children)
    assert any((job.folder / CHECKPOINT).is_file() for job in jobs)
    assert all(read_result(job.folder) is None for job in jobs)
    assert all(fruitless(read_attempts(job.folder)) == 0 for job in jobs)
