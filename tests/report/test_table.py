from __future__ import annotations

import pytest

from softknee._report.table import (
    Cell,
    Column,
    Table,
    listed,
    markdown_table,
    number,
    p_value,
    plural,
    probability,
    signed,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_markdown_is_a_table_whatever_stands_in_it():
    rows = [[Cell(HOSTILE, "name"), Cell("1.5")], [Cell("a|b`c", "name"), Cell("a|b\nc*d<e")]]
    text = markdown_table(
        Table("caption", [Column("name", numeric=False), Column("n")], rows, [[Cell("all"), Cell("2")]])
    )
    assert text.splitlines() == [
        "| name | n |",
        "| :--- | ---: |",
        f"| `{HOSTILE}` | 1.5 |",
        "| `a\\|bʻc` | a\\|b c\\*d\\<e |",
        "| all | 2 |",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(1.005), "1.00"),
        (number(-1.5), "−1.50"),
        (number(-0.001), "0.00"),
        (number(None), "–"),
        (signed(0.5), "+0.50"),
        (signed(-0.001), "0.00"),
        (signed(0.0), "0.00"),
        (probability(0.0004), "< 0.001"),
        (probability(0.0456), "0.046"),
        (probability(None), "–"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (plural(1, "run"), "1 run"),
        (plural(1200, "run"), "1,200 runs"),
    ],
)
def test_numbers_and_lists_read_well(text, expected):
    assert text == expected


def test_a_p_value_in_a_sentence_is_never_zero():
    assert p_value(0.0123) == "p = 0.012"
    assert p_value(1e-5) == "p < 0.001"
