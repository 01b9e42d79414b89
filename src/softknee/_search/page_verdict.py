"""The first section of a search's page: what the answer rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.forest import Span, forest
from softknee._report.page import Block, Figure, Fold, Gallery, Measure, Note, Section
from softknee._report.table import ABSENT, Cell, Column, Table, listed, plural, probability, signed
from softknee._search.page_words import (
    brief,
    digits_for,
    estimate,
    final_digits,
    kind_of,
    loss_cell,
    name_cell,
    rows_by_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._report.svg import Svg

_SIGNS = {"better": "▲ better", "worse": "▼ worse", "undecided": "○ undecided", "too-few-seeds": "○ too few seeds"}


def verdict_section(data: Mapping[str, Any]) -> Section:
    """Return the paired differences of the candidate to the baselines, and the final losses behind them.

    Args:
        data: A result.

    Returns:
        The section.
    """
    measured = data["measured_on"]
    if not data["differences"]:
        note = Note(
            "No candidate other than the baselines was trained with several seeds: there is nothing to compare."
        )
        return Section("verdict", "What it rests on", "", [note, *_finals(data)])
    name = brief(rows_by_key(data)[data["candidate"]]["name"])
    lead = (
        f"{measured.capitalize()} loss of each baseline less that of {name}, from runs with the same starting weights "
        "and the same batches in the same order. Right of zero the candidate is better. Lines are 95 % intervals over "
        "new seeds and new batches. It is called better only if it is better than every baseline here."
    )
    blocks: list[Block] = [Gallery([Figure(_forest(data, name))], wide=True), difference_table(data)]
    return Section("verdict", "What it rests on", lead, [*blocks, *_finals(data), *_seeds(data)])


def measures(data: Mapping[str, Any]) -> list[Measure]:
    """Return what the search cost and tried, in large numbers.

    Args:
        data: A result.

    Returns:
        The numbers.
    """
    cost, table = data["cost"], data["table"]
    failed = cost["failed"]
    found = [
        Measure(f"{cost['spent']:.1f}", "runs", f"spent of {cost['budget']:g}, verification included"),
        Measure(
            f"{sum(not row['is_baseline'] for row in table):,}", "candidates", "in the table, beside the baselines"
        ),
        Measure(str(data["settings"]["seeds"]), "seeds", "fresh ones for each finalist, paired"),
    ]
    return [*found, Measure(str(failed), "failed", "trainings that diverged; charged and shown")] if failed else found


def difference_table(data: Mapping[str, Any]) -> Table:
    """Return the paired differences of the candidate as a table.

    Args:
        data: A result.

    Returns:
        One row a finalist baseline.
    """
    rows, known, digits = [], rows_by_key(data), _gain_digits(data)
    for one in data["differences"]:
        kind = kind_of(one)
        rows.append(
            [
                name_cell(known[one["baseline"]]),
                Cell(_SIGNS[kind], kind),
                Cell(estimate(one["gain"], one["low"], one["high"], digits, sign=True), value=one["gain"]),
                Cell(probability(one["p"])),
                Cell(str(len(one["seed_gains"]))),
            ]
        )
    columns = [
        Column("Against", numeric=False),
        Column("Candidate is", numeric=False),
        Column("Difference", hint=f"in {data['measured_on']} loss: positive where the candidate is better"),
        Column("p", hint="two-sided, against no difference"),
        Column("Paired runs"),
    ]
    return Table("Paired differences", columns, rows)


def finals_table(data: Mapping[str, Any]) -> Table:
    """Return the final losses of all finalists.

    Args:
        data: A result.

    Returns:
        One row a finalist, in the order of the result.
    """
    test = any(row["final"] and row["final"]["test_mean"] is not None for row in data["table"])
    rows, digits = [], final_digits(data)
    for row in data["table"]:
        final = row["final"]
        if not final:
            continue
        cells = [
            name_cell(row),
            Cell("returned" if row["key"] == data["best"] else "", "strong"),
            Cell("baseline" if row["is_baseline"] else row["origin"]),
            _final_cell(final, "validation", digits),
        ]
        rows.append([*cells, *([_final_cell(final, "test", digits)] if test else []), Cell(_done(final))])
    columns = [
        Column("Finalist", numeric=False),
        Column("", numeric=False),
        Column("Origin", numeric=False),
        Column("Validation loss", hint="mean over runs with its 95 % interval"),
        *([Column("Test loss", hint="read once, behind all choices")] if test else []),
        Column("Runs", hint="that did not diverge, of those trained"),
    ]
    return Table("Finalists", columns, rows)


def _forest(data: Mapping[str, Any], name: str) -> Svg:
    known, digits = rows_by_key(data), _gain_digits(data)
    spans = [
        Span(
            brief(known[one["baseline"]]["name"]),
            one["gain"],
            one["low"],
            one["high"],
            estimate(one["gain"], one["low"], one["high"], digits, sign=True),
            kind_of(one),
        )
        for one in data["differences"]
    ]
    found = listed([f"{span.label}: {span.note}, {span.kind.replace('-', ' ')}" for span in spans])
    return forest(
        spans,
        margin=0.0,
        title=f"{name} against the finalist baselines",
        description=f"Paired difference in {data['measured_on']} loss with its 95 % interval, one row a baseline. "
        f"{found}.",
        unit=f"{data['measured_on']} loss saved: right is better",
        width=820,
        note_width=230,
        label_width=170,
    )


def _gain_digits(data: Mapping[str, Any]) -> int:
    """Return with how many decimals differences are written."""
    found = data["differences"]
    widths = [(one["high"] - one["low"]) / 2 for one in found if one["low"] is not None]
    return digits_for(*widths or [abs(one["gain"] or 0.0) / 20 for one in found])


def _finals(data: Mapping[str, Any]) -> list[Block]:
    table = finals_table(data)
    return [table] if table.rows else []


def _seeds(data: Mapping[str, Any]) -> list[Block]:
    """Return the difference of each run, folded."""
    known, found = rows_by_key(data), data["differences"]
    if not any(one["seed_gains"] for one in found):
        return []
    digits = _gain_digits(data)
    count = max(len(one["seed_gains"]) for one in found)
    columns = [Column("Against", numeric=False), *(Column(f"run {index + 1}") for index in range(count))]
    rows = [[name_cell(known[one["baseline"]]), *_padded(one["seed_gains"], count, digits)] for one in found]
    return [Fold("Run by run", [Table(f"Difference of each pair of runs, {plural(count, 'seed')}", columns, rows)])]


def _padded(gains: Sequence[float], count: int, digits: int) -> list[Cell]:
    cells = [Cell(signed(gain, digits), value=gain) for gain in gains]
    return [*cells, *[Cell(ABSENT)] * (count - len(cells))]


def _final_cell(final: Mapping[str, Any], kind: str, digits: int) -> Cell:
    mean = final[f"{kind}_mean"]
    if mean is None:
        failed = final[kind] is not None and any(value is None for value in final[kind])
        return loss_cell(None, digits, failure="a run diverged" if failed else None)
    return Cell(estimate(mean, final[f"{kind}_low"], final[f"{kind}_high"], digits), value=mean)


def _done(final: Mapping[str, Any]) -> str:
    done = sum(value is not None for value in final["validation"])
    return f"{done} of {len(final['runs'])}"
