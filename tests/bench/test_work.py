from __future__ import annotations

import errno
import json
import os
import threading
import time

import pytest
from test_runs import SPEC

from softknee._bench import pack
from softknee._bench import work as module
from softknee._bench.attempts import ATTEMPTS, Attempt, Watch, _write, fruitless, machine, read_attempts
from softknee._bench.open_runs import OPEN, read_open, settle, write_open
from softknee._bench.runs import CHECKPOINT, Job, read_result, write_failure, write_result
from softknee._bench.work import attempt, work_off, work_through
from softknee._errors import SoftkneeError, UsageError

GONE = 2**22 + 1  # more than a process id can be


@pytest.fixture
def trained(monkeypatch):
    """Stands for training, with an epoch's end in the middle: the seeds in the order in which they came to the end."""
    seeds = []

    def execute(job, progress):
        progress(1, 50.0)
        time.sleep(0.002)
        write_result(job.folder, job.spec, "done")
        seeds.append(job.spec.seed)
        return "done"

    monkeypatch.setattr(pack, "execute", execute)
    monkeypatch.setattr(module, "kernels_on", lambda device: "none")
    monkeypatch.setattr(module, "PAUSE", 0.01)
    return seeds


def make(folder, seed=0):
    spec = SPEC.model_copy(update={"seed": seed})
    return Job(spec=spec, source="mini", folder=folder / "runs" / spec.key)


def ignore(*_):
    pass


def test_workers_side_by_side_do_each_run_once(tmp_path, trained):
    texts = [make(tmp_path, seed).model_dump_json() for seed in range(30)]
    told = []
    threads = [
        threading.Thread(target=work_through, args=(texts, lambda job, status: told.append(job.spec.seed)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trained) == list(range(30))
    assert set(told) == set(range(30))
    assert [path.name for path in tmp_path.glob("runs/*/*")] == ["result.json"] * 30


def test_a_run_is_lost_after_attempts_that_died_and_the_next_call_tries_it_again(tmp_path, trained):
    job = make(tmp_path)
    job.folder.mkdir(parents=True)
    for number in range(1, ATTEMPTS + 1):
        _write(job.folder, Attempt(number, machine(), GONE, words="" if number < ATTEMPTS else "it met its end"))
    assert attempt([job], Watch(), ignore) == ["lost"]
    result = read_result(job.folder)
    message = f"{ATTEMPTS} attempts in a row ended without a further epoch; at the last one it met its end"
    assert (result["status"], result["error"]["message"]) == ("lost", message)
    assert attempt([job], Watch(), ignore) == ["lost"]  # by another worker of the same call
    assert not trained
    assert settle(job) is None
    assert attempt([job], Watch(), ignore) == ["done"]


def test_attempts_that_bring_a_run_further_never_lose_it(tmp_path, trained):
    job = make(tmp_path)
    job.folder.mkdir(parents=True)
    for number in range(1, 4 * ATTEMPTS):
        _write(job.folder, Attempt(number, machine(), GONE, epoch=number))
    assert attempt([job], Watch(), ignore) == ["done"]


def test_who_was_taken_for_dead_stops_without_a_word(tmp_path, trained, monkeypatch):
    job, told = make(tmp_path), []

    def superseded(job, progress):
        _write(job.folder, Attempt(2, "another"))
        progress(1, 50.0)

    monkeypatch.setattr(pack, "execute", superseded)
    assert attempt([job], Watch(), lambda job, epoch, score: told.append(epoch)) == [None]
    assert read_result(job.folder) is None
    assert not told


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(tmp_path, trained, monkeypatch):
    job = make(tmp_path)

    def full(job, progress):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "result.json")

    with monkeypatch.context() as patch:
        patch.setattr(pack, "execute", full)
        for _ in range(ATTEMPTS + 1):
            with pytest.raises(SoftkneeError) as caught:
                attempt([job], Watch(), ignore)
    assert str(caught.value) == (
        f"cannot write in {tmp_path / 'runs'}: No space left on device; what is finished is kept, and the same call "
        "goes on once that is mended"
    )
    assert read_result(job.folder) is None
    assert fruitless(read_attempts(job.folder)) == 0
    assert attempt([job], Watch(), ignore) == ["done"]


def test_what_a_process_left_that_died_behind_its_result_is_removed(tmp_path, trained):
    jobs = [make(tmp_path, seed) for seed in (0, 1)]
    for job in jobs:
        write_result(job.folder, job.spec, "done")
        for name in (CHECKPOINT, "checkpoint.partial", ".result.json.0123.part"):
            (job.folder / name).write_bytes(b"")
        _write(job.folder, Attempt(1, machine(), GONE))
    assert attempt(jobs[:1], Watch(), ignore) == ["done"]
    assert settle(jobs[1]) == "done"
    assert [path.name for path in tmp_path.glob("runs/*/*")] == ["result.json"] * 2
    assert not trained


def test_a_new_call_forgets_failures_and_keeps_what_is_finished(tmp_path):
    failed, diverged, missing = (make(tmp_path, seed) for seed in range(3))
    write_failure(failed.folder, failed.spec, "failed", kind="ValueError", message="no")
    write_result(diverged.folder, diverged.spec, "diverged")
    assert [settle(job) for job in (failed, diverged, missing)] == [None, "diverged", None]
    assert read_result(failed.folder) is None
    assert read_result(diverged.folder)["status"] == "diverged"


def test_a_worker_helps_wherever_the_folder_is_mounted_until_the_study_is_finished(tmp_path, trained):
    write_open(tmp_path / "there", [make(tmp_path / "there", seed) for seed in range(3)])
    (tmp_path / "there").rename(tmp_path / "here")
    folder, told = tmp_path / "here", []

    def listen(job, status):
        told.append((job.spec.seed, status))
        if len(told) == 3:  # the conductor finds all done
            write_open(folder, [])

    work_off(folder, listen)
    assert told == [(seed, "done") for seed in range(3)]
    assert len(list(folder.glob("runs/*/result.json"))) == 3
    assert not (tmp_path / "there").exists()
    assert read_open(folder) is None


def test_a_worker_finds_the_studies_of_a_suite(tmp_path, trained):
    studies = [tmp_path / name for name in ("one", "two")]
    for number, folder in enumerate(studies):
        write_open(folder, [make(folder, number)])
    assert [job.folder for job in read_open(tmp_path)] == [make(f, n).folder for n, f in enumerate(studies)]
    assert json.loads((studies[0] / "runs" / OPEN).read_text())["spec"]["seed"] == 0


def test_a_worker_of_another_version_takes_no_run(tmp_path, trained):
    job = make(tmp_path)
    older = job.model_copy(update={"spec": job.spec.model_copy(update={"revision": 3})})
    write_open(tmp_path, [older])
    with pytest.raises(UsageError, match="is planned with revision 3 of its numbers, and this version .* has 4; let"):
        work_off(tmp_path, ignore)
    path = tmp_path / "runs" / OPEN
    path.write_text(job.model_dump_json().replace('"seed"', '"sead"'))
    with pytest.raises(UsageError, match=f"{path} is of another version of softknee; let processes of one version"):
        work_off(tmp_path, ignore)
    assert not trained


def test_a_worker_without_a_study_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with pytest.raises(UsageError, match="no study was begun in .* in 0 seconds; `softknee bench` begins one"):
        work_off(tmp_path, ignore)


def test_machines_with_other_kernels_take_no_run(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(module, "kernels_on", lambda device: "AVX512")
    job = make(tmp_path)
    message = f"the run {job.spec.key} is planned with kernels for none, and this machine has AVX512; let machines"
    with pytest.raises(UsageError, match=message):
        work_through([job.model_dump_json()], ignore)
    assert not (tmp_path / "runs").exists()
