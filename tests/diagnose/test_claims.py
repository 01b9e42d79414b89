from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from softknee import _cli
from softknee._diagnose.claims.ledger import PARTLY, UNSUPPORTED, WRONG, claims
from softknee._errors import UsageError

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
LEDGER = claims()


@pytest.mark.parametrize("row", LEDGER, ids=lambda row: row.id)
def test_what_a_claim_shows_bears_its_verdict(row):
    before = torch.get_rng_state()
    measured = row.show()
    assert torch.equal(torch.get_rng_state(), before)
    assert set(measured) == set(row.shown)
    for name, (value, tolerance) in row.shown.items():
        assert measured[name] == pytest.approx(value, abs=tolerance, rel=0), name


def test_a_claim_that_nothing_can_be_computed_for_says_where_it_was_looked_for():
    assert {row.verdict for row in LEDGER} == {WRONG, UNSUPPORTED, PARTLY}
    assert len({row.id for row in LEDGER}) == len(LEDGER)
    for row in LEDGER:
        assert row.source
        assert row.measure is not None or re.search(r"ooked for|arXiv|ICML|1943", row.source)
        assert row.verdict != UNSUPPORTED or "ooked for" in row.source


def test_the_page_is_the_ledger():
    # python -c "from softknee._diagnose.claims.ledger import claims; print(claims().to_markdown(), end='')"
    table = PAGE.read_text().split("<!-- ledger -->\n")[1]
    assert table.strip() == LEDGER.to_markdown().strip()


def test_claims_are_found_by_id_and_a_wrong_one_is_told():
    assert LEDGER["xi-index"] is LEDGER[[row.id for row in LEDGER].index("xi-index")]
    with pytest.raises(UsageError, match=r"no claim 'xi'.*`softknee claims` lists them"):
        LEDGER["xi"]
    assert LEDGER._repr_html_().count("<tr>") == len(LEDGER) + 1


def test_the_command_lists_claims_or_measures_one(capsys):
    assert _cli.run(["claims"]) == 0
    listed = capsys.readouterr().out
    assert all(row.id in listed for row in LEDGER)
    assert _cli.run(["claims", "relu-convex"]) == 0
    assert "lowest eigenvalue of the Hessian in both weights: -0.97" in capsys.readouterr().out
    assert _cli.run(["claims", "elu-fisher"]) == 0
    assert "no computation can decide" in capsys.readouterr().out
    assert _cli.run(["claims", "no-such"]) == 2
    assert "no claim 'no-such'" in capsys.readouterr().err
