"""Trajectories from a watch, from its file, and from a run of a study."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import softknee as sk
from softknee._diagnose.units.trajectory import trajectories
from softknee._diagnose.units.watch import watch
from softknee._errors import DataError


def watched():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 3), sk.nn.PReLU(), nn.Linear(3, 50), sk.nn.PReLU(per_channel=50), nn.Linear(50, 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, every=1) as seen:
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    return seen


def test_a_watch_its_dictionary_and_its_file_say_the_same(tmp_path):
    seen = watched()
    seen.save(tmp_path / "watch.json")
    found = trajectories(seen)
    assert found == trajectories(seen.to_dict()) == trajectories(str(tmp_path / "watch.json"))
    assert found.unit == "step"
    one, many = found.parameters
    assert (one.path, one.steps, one.summary, len(one.values[0])) == ("1.slope", (0, 1, 2, 3, 4), False, 1)
    assert one.values[0] == (0.25,)
    assert (many.path, many.summary, len(many.values[0])) == ("3.slope", True, 3)
    assert many.values[-1][0] <= many.values[-1][1] <= many.values[-1][2]
    assert [shape.site for shape in found.shapes] == ["1", "3"]
    assert found.shapes[0].steps == (0, 1, 3, 4)
    json.dumps(found.to_dict(), allow_nan=False)
    plain = found.to_dict()["parameters"][0]
    assert plain["trajectory"]["values"][0] == [0.25]


def test_a_run_of_a_study_is_read_as_plain_data(tmp_path):
    result = {
        "trajectories": {
            "activation_0.beta": {"summary": False, "values": [[1.0], [1.1], [1.2]]},
            "block.activation.slope": {"summary": True, "values": [[0.0, 0.1, 0.2, 0.3, 0.4]] * 3},
        },
        "shapes": {"activation_0": {"x": [-1.0, 0.0, 1.0], "before": [0.0, 0.0, 1.0], "after": [-0.1, 0.0, None]}},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    found = trajectories(tmp_path)
    assert found == trajectories(tmp_path / "result.json")
    assert found.unit == "epoch"
    assert (found.parameters[0].site, found.parameters[0].parameter) == ("activation_0", "beta")
    assert (found.parameters[0].steps, found.parameters[0].values) == ((0, 1, 2), ((1.0,), (1.1,), (1.2,)))
    assert found.parameters[1].path == "block.activation.slope"
    assert (found.shapes[0].steps, found.shapes[0].curves) == ((0, 2), ((0.0, 0.0, 1.0), (-0.1, 0.0, None)))


def test_what_has_no_trajectories_is_refused(tmp_path):
    sources = {
        "is.json": ("{", "cannot be read"),
        "list.json": ("[]", "holds no trajectories"),
        "other.json": ("{}", "has no trajectories; give a softknee.watch, a file that it saved"),
        "missing.json": (None, "cannot be read"),
    }
    for name, (text, sentence) in sources.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=sentence):
            trajectories(tmp_path / name)
    with pytest.raises(DataError, match="trajectories cannot be read from 3"):
        trajectories(3)
