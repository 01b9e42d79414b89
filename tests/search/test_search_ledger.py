import os
import time

import pytest
import torch
from search_process import await_, process

from softknee._errors import DataError, UsageError
from softknee._search.ledger import Ledger


@pytest.fixture(params=["memory", "folder"])
def ledger(request, tmp_path):
    return Ledger(None if request.param == "memory" else tmp_path / "search")


def test_records_and_states_come_back_as_they_were(ledger):
    record = {"losses": [0.1, 1e-30], "failure": None}
    assert ledger.read("one") is None
    ledger.write("one", record)
    record["losses"].append(2.0)
    assert ledger.read("one") == {"losses": [0.1, 1e-30], "failure": None}

    state = {"step": 3, "model": {"weight": torch.ones(2)}, "noise": []}
    assert ledger.state("run") is None
    ledger.keep_state("run", state)
    state["model"]["weight"].zero_()
    kept = ledger.state("run")
    assert kept["step"] == 3
    kept["model"]["weight"].zero_()
    assert ledger.state("run")["model"]["weight"].tolist() == [1, 1]
    ledger.drop_state("run")
    ledger.drop_state("run")
    assert ledger.state("run") is None


def test_records_hold_no_nan(ledger):
    with pytest.raises(ValueError, match="JSON"):
        ledger.write("one", {"loss": float("nan")})
    assert ledger.read("one") is None


def test_settings_must_be_the_same_but_the_budget_may_grow(ledger):
    settings = {"budget": 20.0, "seed": 0, "scope": ("a", "b"), "first_loss": 0.5}
    ledger.settle(settings)
    ledger.settle({**settings, "first_loss": 0.50001})
    ledger.settle({**settings, "budget": 30.0})
    with pytest.raises(UsageError, match=r"has budget=30.0, now it is 20.0; give the same arguments to go on, or"):
        ledger.settle(settings)
    with pytest.raises(UsageError, match=r"has seed=0, now it is 1 \(first_loss, epochs differ too\)"):
        ledger.settle({**settings, "budget": 30.0, "seed": 1, "first_loss": 0.6, "epochs": 3})


def test_a_damaged_record_is_named(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write("one", {"losses": []})
    path = tmp_path / "runs" / "one.json"
    for text in ('{"losses": [', "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"one\.json is damaged; delete it, and what it held is found out again"):
            ledger.read("one")


def test_a_damaged_state_is_as_good_as_none(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.keep_state("run", {"step": 1, "weight": torch.ones(1000)})
    path = tmp_path / "checkpoints" / "run.pt"
    path.write_bytes(path.read_bytes()[:2000])
    assert ledger.state("run") is None
    ledger.keep_state("run", {"step": 2})
    assert ledger.state("run") == {"step": 2}


def test_leftovers_of_a_killed_process_are_swept_and_never_read(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write("one", {"losses": []})
    ledger.keep_state("run", {"step": 1})
    leftovers = [tmp_path / "runs" / ".two.json.ab12.part", tmp_path / "checkpoints" / ".run.pt.ab12.part"]
    for path in leftovers:
        path.write_text("{")
    with ledger.held():
        assert not any(path.exists() for path in leftovers)
        assert ledger.read("one") == {"losses": []}
        assert ledger.state("run") == {"step": 1}


def hold(folder, told):
    with Ledger(folder).held():
        told.touch()
        time.sleep(60)


def test_one_process_at_a_time(tmp_path):
    ledger = Ledger(tmp_path)
    with process(hold, tmp_path, tmp_path / "held") as child:
        await_((tmp_path / "held").exists, child)
        with pytest.raises(UsageError, match="another process is working in"), ledger.held():
            pass
    # It was killed.
    with ledger.held(), ledger.held():
        assert (tmp_path / "held").exists()


def test_in_memory_nothing_is_locked():
    ledger = Ledger()
    with ledger.held(), ledger.held():
        ledger.write("one", {})


@pytest.mark.parametrize("kind", ["record", "state"])
def test_a_failed_write_surfaces_and_loses_nothing(kind, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.write("one", {"losses": [1.0]})
    ledger.keep_state("run", {"step": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.write("one", {"losses": [2.0]}) if kind == "record" else ledger.keep_state("run", {"step": 2})
    assert ledger.read("one") == {"losses": [1.0]}
    assert ledger.state("run") == {"step": 1}
    assert not list(tmp_path.glob("*/.*.part"))
