"""Plain data: what JSON has, and nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from softknee._report.plain import finite, plain


@dataclass(frozen=True)
class Part:
    name: str
    values: tuple[float, ...]


class Pair(NamedTuple):
    low: float
    high: float


def test_numbers_stay_and_what_is_not_finite_is_none():
    given = {"third": 1 / 3, "none": math.inf, "several": [math.nan, 2, None, True], "pair": Pair(-math.inf, 1e-300)}
    assert plain(given) == {"third": 1 / 3, "none": None, "several": [None, 2, None, True], "pair": [None, 1e-300]}


def test_dataclasses_go_by_their_fields_wherever_they_stand():
    found = plain({"parts": [Part("a", (1.0, math.nan))], 3: Part("b", ())})
    assert found == {"parts": [{"name": "a", "values": [1.0, None]}], "3": {"name": "b", "values": []}}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("value", [1j, {1}, object(), Part])
def test_everything_else_is_refused(value):
    with pytest.raises(TypeError, match="results are plain data, got "):
        plain({"a": [value]})


def test_finite():
    assert [finite(one) for one in (1.5, None, math.nan, -math.inf)] == [1.5, None, None, None]
