from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

import softknee as sk
from softknee._card.cost import interleaved, ratio, saved_bytes
from softknee._card.cost_table import cost_report
from softknee._errors import OptionError, UnknownActivation, UsageError


def test_one_entry_for_each_engine_that_can():
    found = sk.cost("mish", "gelu", shape=(2, 4096), repeats=1)
    assert [(entry.activation, entry.engine, entry.used) for entry in found] == [
        ("mish", "auto", "fused"),
        ("mish", "eager", "eager"),
        ("mish", "fused", "fused"),
        ("mish", "table", "table"),
        ("gelu", "auto", "eager"),
        ("gelu", "eager", "eager"),
        ("gelu", "fused", "fused"),
        ("gelu", "table", "table"),
    ]
    assert all(entry.forward > 0 and entry.both > 0 and entry.milliseconds > 0 for entry in found)
    assert {entry.saved_bytes for entry in found if entry.engine != "eager"} == {4.0}


def test_saved_memory_is_that_of_distinct_tensors():
    x = torch.randn(2**12)
    assert saved_bytes(torch.relu, x) == 4
    assert saved_bytes(lambda x: x * x.sigmoid(), x) == 8
    assert saved_bytes(lambda x: x.view(2, -1) * x.view(2, -1), x) == 4
    assert saved_bytes(lambda x: x + 1, x) == 0
    assert saved_bytes(torch.relu, x.bfloat16()) == 2


def test_runs_take_turns():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3)
    assert {name: len(rounds) for name, rounds in seconds.items()} == {"a": 3, "b": 3}
    changes = sum(one != other for one, other in pairwise(order))
    assert changes >= 5


def test_ratios_are_medians_within_rounds():
    assert ratio([2.0, 4.0, 30.0], [1.0, 2.0, 3.0]) == 2.0


def test_the_report_as_a_table_and_as_json(tmp_path):
    report = cost_report(["swish[per_channel]"], (4, 8, 64), device="cpu", repeats=1, threads=1)
    assert "shape 4 x 8 x 64" in report.table.caption
    assert [len(row) for row in report.table.rows] == [len(report.table.columns)] * len(report.costs)
    report.write(tmp_path / "cost.json")
    plain = json.loads((tmp_path / "cost.json").read_text())
    assert plain["machine"]["threads"] == 1
    assert plain["costs"][0]["activation"] == "swish[per_channel]"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {}, UsageError, "name at least one activation"),
        (("gelo",), {}, UnknownActivation, "did you mean 'gelu'"),
        (("gelu",), {"shape": (0, 3)}, UsageError, "shape must be whole numbers of at least 1, got '0x3'"),
        (("gelu",), {"repeats": 0}, UsageError, "repeats must be at least 1, got 0"),
        (("gelu",), {"engines": ("fast",)}, OptionError, "engine must be one of auto, eager, fused, table, got 'fast'"),
        (("gelu",), {"device": "abacus"}, UsageError, "device 'abacus' cannot be used here"),
    ],
)
def test_bad_input_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        sk.cost(*arguments, **options)
