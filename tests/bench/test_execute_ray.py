"""The executor's own part, with a cluster that stands for Ray's; `test_executors` takes the real one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from test_work import make, trained  # noqa: F401 (a fixture)

from softknee._bench import execute_ray as module
from softknee._bench.execute_ray import run_with_ray
from softknee._bench.protocol import Recipe
from softknee._bench.runs import read_result, write_result
from softknee._errors import SoftkneeError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Cluster:
    """Does a task when it is waited for; `crash` says of the n-th one whether its process dies before it."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, crash):
        self.crash, self.started, self.cancelled, self.most = crash, [], [], 0

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, *, max_retries):
        assert max_retries == 0  # only the executor knows which runs are lost
        return lambda work: SimpleNamespace(options=lambda *, num_cpus: SimpleNamespace(remote=self._start(work)))

    def _start(self, work):
        def start(*arguments):
            self.started.append((work, arguments))
            return len(self.started) - 1

        return start

    def wait(self, pending, *, timeout):
        self.most = max(self.most, len(pending))
        return pending[:1], pending[1:]

    def get(self, number):
        if self.crash(number):
            raise RayError("its node went away")
        work, arguments = self.started[number]
        try:
            return work(*arguments)
        except Exception as error:
            raise RayTaskError(error) from error

    def cancel(self, number, *, force):
        self.cancelled.append(number)


@pytest.fixture
def cluster(monkeypatch):
    def put(crash):
        made = Cluster(crash)
        monkeypatch.setattr(module, "require", lambda name, extra: made)
        return made

    return put


@pytest.mark.parametrize(("slots", "most"), [(None, 4), (3, 3)])
def test_runs_of_tasks_that_die_go_on_in_others_and_all_end_once(tmp_path, trained, cluster, slots, most):  # noqa: F811
    made = cluster(lambda number: number % 3 == 0)
    jobs, ends = [make(tmp_path, seed) for seed in range(8)], []
    run_with_ray(jobs, lambda event: event.status and ends.append((event.job.spec.seed, event.status)), slots=slots)
    assert sorted(ends) == [(seed, "done") for seed in range(8)]
    assert sorted(trained) == list(range(8))
    assert len(made.started) > 8
    assert made.most == most
    assert all(read_result(job.folder)["status"] == "done" for job in jobs)


def test_what_stops_one_task_stops_all_with_its_own_words(tmp_path, trained, cluster, monkeypatch):  # noqa: F811
    monkeypatch.setattr("softknee._bench.work.kernels_on", lambda device: "AVX512")
    made = cluster(lambda number: False)
    with pytest.raises(SoftkneeError, match="planned with kernels for none, and this machine has AVX512"):
        run_with_ray([make(tmp_path, seed) for seed in range(3)], lambda event: None, slots=2)
    assert made.cancelled == [1]


def test_a_task_that_fails_by_itself_is_named(tmp_path, trained, cluster, monkeypatch):  # noqa: F811
    monkeypatch.setattr("softknee._bench.work.kernels_on", lambda device: 1 / 0)
    cluster(lambda number: False)
    with pytest.raises(SoftkneeError, match=r"a task failed: ZeroDivisionError\('division by zero'\)"):
        run_with_ray([make(tmp_path)], lambda event: None, slots=1)


def small(job):
    """Of a perceptron that is packed."""
    return job.model_copy(update={"spec": job.spec.model_copy(update={"recipe": Recipe(widths=(4, 3, 2))})})


def test_packs_are_split_where_a_task_died(tmp_path, cluster, monkeypatch):
    made, shared = cluster(lambda number: number == 0), []

    def execute_together(jobs, progress):
        shared.append(len(jobs))
        for job in jobs:
            write_result(job.folder, job.spec, "done")
        return ["done"] * len(jobs)

    monkeypatch.setattr("softknee._bench.work.execute_together", execute_together)
    monkeypatch.setattr("softknee._bench.work.kernels_on", lambda device: "none")
    jobs = [small(make(tmp_path, seed)) for seed in range(8)]
    run_with_ray(jobs, lambda event: None, slots=2, pack=4)
    assert [len(texts) for _, (texts, *_) in made.started] == [4, 4, 1, 1, 1, 1]
    assert sorted(shared) == [1, 1, 1, 1, 4]


def test_tasks_that_never_begin_end_the_study(tmp_path, trained, cluster):  # noqa: F811
    made = cluster(lambda number: True)
    with pytest.raises(SoftkneeError, match="20 tasks in a row died before they did anything: its node went away"):
        run_with_ray([make(tmp_path)], lambda event: None, slots=1)
    assert len(made.started) == module.DEATHS
