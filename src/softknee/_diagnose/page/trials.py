"""What to try: controls first, then what trials have shown of other activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import number_cell, share_cell, short
from softknee._report.forest import Span, forest
from softknee._report.page import Facts, Figure, Fold, Gallery, Note, Section
from softknee._report.table import ABSENT, Cell, Column, Table, probability, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softknee._report.page import Block

    Trial = Mapping[str, Any]

_LEAD = (
    "An activation is worth changing only where it beats two controls: the same activation at matched gain, and no "
    "change at all with a new seed, whose difference is chance."
)
_NONE = (
    "No trial was made. At level trial the model is trained for a short time with other activations, at three "
    "learning rates, paired by seed, batch and initial weights, beside both controls."
)
_FIRST = (
    ("same activation, matched gain", "softknee.calibrate(model, batch), then tune the learning rate again"),
    ("no change, new seed", "shows how far two runs differ by chance"),
    ("another activation", "softknee.swap(model, name), at its own matched gain and learning rate"),
)


def trials_section(data: Mapping[str, Any]) -> Section:
    """Return the section of what to try.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    trials = data["trials"]
    if not trials:
        return Section("trials", "What to try", _LEAD, [Note(_NONE), Facts(_FIRST)])
    about = data.get("trials_about") or {}
    blocks: list[Block] = [Note(about["verdict"])] if about.get("verdict") else []
    compared = [one for one in trials if one.get("difference") is not None]
    if compared:
        blocks.append(_forest(compared, about))
    blocks += [_table(trials, about), *_screen(trials), *_about(about)]
    return Section("trials", "What to try", _LEAD, blocks)


def _forest(trials: Sequence[Trial], about: Mapping[str, Any]) -> Gallery:
    loss = about.get("metric") == "loss"
    unit = "loss, lower is better" if loss else "percentage points"
    spans = [
        Span(
            one["activation"],
            one["difference"],
            one["low"],
            one["high"],
            f"{signed(one['difference'])}  {one['verdict']}",
            one["verdict"].replace(" ", "-"),
        )
        for one in trials
    ]
    picture = forest(
        spans,
        margin=about.get("margin") or 0.0,
        title="Differences from the model as it is",
        description="Mean paired difference with its 95 % interval, one row a way to train.",
        unit=f"{unit}, against no change",
        width=820,
        label_width=250,
    )
    return Gallery([Figure(picture)], wide=True)


def _table(trials: Sequence[Trial], about: Mapping[str, Any]) -> Table:
    score = "Loss" if about.get("metric") == "loss" else "Score"
    columns = [
        Column("Activation", numeric=False),
        Column("Rate", hint="best of the learning rates tried, chosen on other data"),
        Column(score),
        Column("Difference", hint="from the model as it is"),
        Column("95 % interval"),
        Column("p", hint="adjusted by Holm's method"),
        Column("Verdict", numeric=False),
        Column("Over matched gain", hint="difference from the same activation at matched gain"),
        Column("Seeds"),
        Column("Cost", hint="time of a training step over that without a change"),
    ]
    rows = []
    for one in trials:
        ends = ABSENT if one.get("low") is None else f"{signed(one['low'])} to {signed(one['high'])}"
        verdict = one.get("verdict") or "reference"
        rows.append(
            [
                Cell(one["activation"], kind="name"),
                _rate(one),
                number_cell(one.get("score")),
                Cell(signed(one.get("difference")), value=one.get("difference")),
                Cell(ends),
                Cell(probability(one.get("p")), value=one.get("p")),
                Cell(verdict, kind=f"verdict {verdict.replace(' ', '-')}"),
                _over(one.get("over_matched")),
                number_cell(one.get("seeds")),
                number_cell(one.get("cost")),
            ]
        )
    return Table("Trials", columns, rows)


def _rate(one: Trial) -> Cell:
    hint = "the smallest or largest one tried; a better one may lie beyond" if one.get("at_edge") else ""
    return number_cell(one.get("lr"), kind="warning" if hint else "", hint=hint)


def _over(found: Mapping[str, Any] | None) -> Cell:
    if not found or found.get("difference") is None:
        return Cell(ABSENT, kind="quiet")
    kind = found["verdict"].replace(" ", "-")
    return Cell(f"{signed(found['difference'])} {found['verdict']}", kind=f"verdict {kind}", value=found["difference"])


def _screen(trials: Sequence[Trial]) -> Iterator[Block]:
    """Yield why the candidates were chosen."""
    found = [(one["activation"], one["screen"]) for one in trials if one.get("screen")]
    if not found:
        return
    columns = [
        Column("Activation", numeric=False),
        Column("Product of χ", hint="at matched gain and at the mean squares that the model's activations see"),
        Column("No slope %", hint="inputs at which the gradient is exactly 0"),
        Column("Linear R²", hint="share of the variance of the output that a line explains"),
        Column("Cost", numeric=False),
    ]
    rows = [
        [
            Cell(name, kind="name"),
            number_cell(screen.get("chi_product")),
            share_cell(screen.get("zero")),
            number_cell(screen.get("linear_r2")),
            Cell(screen.get("cost") or ABSENT),
        ]
        for name, screen in found
    ]
    yield Fold("Why these: the screen by theory", [Table("By theory", columns, rows, sortable=len(rows) > 1)])


def _about(about: Mapping[str, Any]) -> Iterator[Block]:
    if not about:
        return
    start = "weights drawn anew" if about.get("from_scratch") else "fine-tuning of the weights that the model has"
    rates = ", ".join(short(rate) for rate in about.get("rates") or ())
    samples = ", ".join(f"{count:,} for {name}" for name, count in (about.get("samples") or {}).items())
    facts = [
        ("How", f"{about.get('steps')} steps, {start}; {about.get('seeds')} seeds; learning rates {rates}"),
        ("Samples", samples),
        ("Margin", f"differences under {short(about.get('margin'))} count as equivalent"),
        ("Ended", about.get("ended") or ""),
    ]
    yield Facts([pair for pair in facts if pair[1]])
    yield from map(Note, about.get("notes") or ())
