from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from softknee._bench import attempts as module
from softknee._bench.attempts import Attempt, Watch, fruitless, machine, note_death, read_attempts, take


@pytest.fixture
def gone():
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(folder, number=1, **about):
    """Write what a process that is gone left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    module._write(folder, Attempt(**{**asdict(Attempt(number)), **about}))


def test_of_many_that_ask_at_once_one_gets_the_run(tmp_path):
    rounds, askers = 40, 8
    start, leases = threading.Barrier(askers), [[] for _ in range(rounds)]

    def ask():
        for number in range(rounds):
            start.wait()
            leases[number].append(take(tmp_path / str(number), Watch()))

    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(lease is not None for lease in asked) for asked in leases] == [1] * rounds


def test_of_many_that_see_a_dead_holder_one_takes_over(tmp_path, gone):
    for number in range(40):
        leave(tmp_path / str(number), machine=machine(), pid=gone)
    test_of_many_that_ask_at_once_one_gets_the_run(tmp_path)
    assert all(len(read_attempts(tmp_path / str(number))) == 2 for number in range(40))


def test_a_run_is_held_while_its_process_lives_and_free_when_it_is_gone(tmp_path, gone):
    leave(tmp_path, machine=machine(), pid=os.getpid())
    assert take(tmp_path, Watch()) is None
    leave(tmp_path, machine=machine(), pid=gone)
    lease = take(tmp_path, Watch())
    assert lease is not None
    assert [attempt.pid for attempt in lease.earlier] == [gone]


def test_a_holder_elsewhere_is_dead_when_it_gave_no_sign_of_life_by_the_watchers_clock(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    leave(tmp_path, machine="another", pid=os.getpid())
    path, watch = tmp_path / "attempt-00001.json", Watch()
    for age in (1e9, 0.0, -1e9):  # a clock elsewhere may be years off
        os.utime(path, (1.7e9 + age, 1.7e9 + age))
        now[0] += module.STALE - 1
        assert take(tmp_path, watch) is None
    now[0] += module.STALE - 1
    assert take(tmp_path, watch) is None
    now[0] += 2
    assert take(tmp_path, Watch()) is None  # who sees it for the first time cannot know
    lease = take(tmp_path, watch)
    assert lease is not None
    assert [attempt.number for attempt in read_attempts(tmp_path)] == [1, 2]


def test_a_file_that_is_being_written_holds_the_run(tmp_path):
    (tmp_path / "attempt-00001.json").write_text("")
    assert take(tmp_path, Watch()) is None
    assert read_attempts(tmp_path) == [Attempt(1)]


def test_holders_show_that_they_live(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    path = tmp_path / "attempt-00001.json"
    with take(tmp_path, Watch()):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_what_is_given_up_is_free_and_counts_for_nothing(tmp_path, error):
    for _ in range(3):
        with pytest.raises(error), take(tmp_path, Watch()):
            raise error
    assert [attempt.given_up for attempt in read_attempts(tmp_path)] == [True] * 3
    assert fruitless(read_attempts(tmp_path)) == 0


def test_an_exception_counts_and_its_words_are_kept(tmp_path):
    with pytest.raises(ZeroDivisionError), take(tmp_path, Watch()):
        raise ZeroDivisionError("by nought")
    (attempt,) = read_attempts(tmp_path)
    assert (attempt.words, fruitless([attempt])) == ("ZeroDivisionError('by nought')", 1)


def test_who_was_taken_for_dead_learns_it_also_when_the_run_has_ended_since(tmp_path):
    first = take(tmp_path, Watch())
    assert not first.is_superseded()
    leave(tmp_path, machine="another")
    monkey = take(tmp_path, _Impatient())
    assert first.is_superseded()
    assert not monkey.is_superseded()
    monkey.end()
    assert first.is_superseded()
    first.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


class _Impatient(Watch):
    def is_held(self, folder, attempts):
        return False


@pytest.mark.parametrize(
    ("epochs", "given_up", "count"),
    [
        ((), "", 0),
        ((0, 0, 0), "", 3),
        ((0, 0, 2), "", 0),
        ((2, 0, 0), "", 2),
        ((2, 1, 2), "", 2),  # epochs done again are no progress
        ((2, 0, 3, 0), "", 1),
        ((0, 0, 0), "1", 2),
        ((1, 2, 3, 4, 5, 6), "", 0),
    ],
)
def test_attempts_count_until_one_brings_the_run_further(epochs, given_up, count):
    tried = [Attempt(n + 1, epoch=epoch, given_up=str(n) in given_up) for n, epoch in enumerate(epochs)]
    assert fruitless(tried) == count


def test_a_death_is_noted_on_the_attempt_of_that_process_alone(tmp_path, gone):
    leave(tmp_path, machine=machine(), pid=gone, epoch=3)
    note_death(tmp_path, gone + 1, "somebody else")
    assert read_attempts(tmp_path)[0].words == ""
    note_death(tmp_path, gone, "killed")
    assert read_attempts(tmp_path)[0] == Attempt(1, machine(), gone, epoch=3, words="killed")
    note_death(tmp_path, gone, "stopped", on_purpose=True)
    assert read_attempts(tmp_path)[0].given_up
    note_death(tmp_path / "nowhere", gone, "no run")
