"""A submission that hangs, ends its process or takes all memory harms nothing but its own run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from submissions import write

from softknee._bench import submission_check
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.submission import read_submission
from softknee._bench.submission_check import check_submission
from softknee._bench.submission_guard import Limits, Stopped, guarded

DIGITS = PROTOCOLS["digits-cnn"]
LIMITS = Limits(seconds=120, gigabytes=None)


def checked(path, gigabytes=None):
    return check_submission(DIGITS, read_submission(path), gigabytes=gigabytes)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"top": "sys.exit('no thanks')"}, "while it was imported, it ended its process with status 1: no thanks"),
        ({"body": "os._exit(3)"}, "in the first forward pass, it ended its process with status 3"),
        ({"init": "os.kill(os.getpid(), 11)"}, "while it was made, it ended its process by SIGSEGV"),
    ],
)
def test_ending_the_process_is_told(tmp_path, parts, problem):
    assert checked(write(tmp_path, **parts)).problem == problem


def test_what_hangs_is_stopped_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(submission_check, "STAGE_SECONDS", 5.0)
    noted = tmp_path / "pid"
    body = f"""\
        if x.requires_grad and torch.is_grad_enabled():
            child = os.fork()
            if child:
                open({str(noted)!r}, "w").write(str(child))
            while True:
                time.sleep(1)
        return x
    """
    found = checked(write(tmp_path, body))
    assert found.problem == "in a training step, it took longer than 5 seconds"
    _wait_for_the_end(int(noted.read_text()))


def test_memory_without_end_is_stopped(tmp_path):
    top = "kept = []\nwhile True:\n    kept.append(torch.ones(10_000_000))\n    time.sleep(0.01)"
    problem = checked(write(tmp_path, top=top), gigabytes=1.0).problem
    assert problem == "while it was imported, it took more than 1 GB of memory"


def test_words_without_end_disturb_nothing(tmp_path):
    top = "print('a' * 1_000_000)\nprint('{\"found\": {}}', flush=True)\nsys.stderr.write('b' * 1_000_000)"
    assert checked(write(tmp_path, top=top)).parameters == 6_090


def test_modules_beside_the_file_or_in_the_current_folder_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert "ModuleNotFoundError: No module named 'beside'" in checked(write(tmp_path, top="import beside")).problem


def test_a_context_that_is_left_leaves_no_process(tmp_path):
    before = _children()
    with guarded(_endless(tmp_path), LIMITS) as answers:
        assert next(answers) == {"stage": "while it was imported"}
        (child,) = _children() - before
    assert not _runs(child)


def test_a_process_that_is_killed_from_outside_is_told(tmp_path):
    before = _children()
    with guarded(_endless(tmp_path), LIMITS) as answers:
        next(answers)
        os.kill(*_children() - before, signal.SIGKILL)
        with pytest.raises(Stopped, match="it ended its process by SIGKILL"):
            next(answers)


@pytest.mark.parametrize(
    "top",
    ["while True:\n    pass", "sum(range(10**15))"],
    ids=["a loop of Python's", "a loop in C, which never lets go of the interpreter's lock"],
)
def test_a_process_ends_with_its_parent_and_so_does_what_it_started(tmp_path, top):
    program = (
        "import json, os, sys; from softknee._bench.submission_guard import Limits, guarded\n"
        "with guarded(json.loads(sys.argv[1]), Limits(seconds=600, gigabytes=None)) as answers:\n"
        "    next(answers); print(open('/proc/self/task/%d/children' % os.getpid()).read(), flush=True); next(answers)"
    )
    noted = tmp_path / "pid"
    fork = f"child = os.fork()\nif child:\n    open({str(noted)!r}, 'w').write(f'{{child}}\\n')\n"
    command = [sys.executable, "-c", program, json.dumps(_request(write(tmp_path, top=fork + top)))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        while not (noted.is_file() and noted.read_text().endswith("\n")):
            time.sleep(0.01)
        assert _runs(child)
        parent.kill()
    _wait_for_the_end(child)
    _wait_for_the_end(int(noted.read_text()))


def _endless(folder):
    return _request(write(folder, top="while True:\n    pass"))


def _request(path):
    return {"path": str(path), "recipe": DIGITS.recipe.model_dump(mode="json"), "seed": 0}


def _wait_for_the_end(pid):
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _children():
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
