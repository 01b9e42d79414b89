"""What trials have shown: paired differences with intervals, from the model as it is and from its matched gain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._diagnose.trial.rates import Arm
from softknee._report.plain import plain
from softknee._statistics.decisions import holm, verdict
from softknee._statistics.intervals import paired_difference
from softknee._surgery.places import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._diagnose.trial.rates import Kind, Outcome, Record
    from softknee._diagnose.trial.run import Metric
    from softknee._diagnose.trial.screen import Screening
    from softknee._statistics.decisions import Verdict

REFERENCE, MATCHED, AGAIN = Arm("no change"), Arm("matched gain"), Arm("new seed")
# What does not matter: a point of accuracy, or this share of the reference's loss.
MARGIN, MARGIN_OF_LOSS = 1.0, 0.02
_HEADINGS = ("activation", "lr", "score", "difference", "95 % interval", "p", "verdict", "over matched gain", "cost")


@dataclass(frozen=True)
class Comparison:
    """A mean difference over seeds and examples, this one minus another.

    Attributes:
        difference: In the unit of the scores.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided against no difference, Holm-adjusted over what is compared with the same.
        verdict: What it shows.
        seeds: Pairs of runs it rests on.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    seeds: int


@dataclass(frozen=True)
class Entry:
    """One way to train the model.

    Attributes:
        activation: What was put in; of controls, a description.
        kind: `"candidate"`, or the control it is.
        lr: The learning rate that was best on the data to choose on, None if none trained.
        at_edge: Whether that was the smallest or largest rate tried, so that a better one may lie beyond.
        score: Mean on the data to report on, over seeds: percent right, or loss.
        spread: Standard deviation of that between seeds.
        seeds: Runs it rests on.
        diverged: Runs that did not stay finite; they are in no mean.
        cost: Time of a training step, relative to the model without a change.
        compared: With the model as it is, each at its own learning rate; None of the reference itself.
        over_matched: With the same activation at matched gain, of candidates: what is left to the activation itself.
        note: Why there is no result.
    """

    activation: str
    kind: Kind
    lr: float | None
    at_edge: bool
    score: float | None
    spread: float | None
    seeds: int
    diverged: int
    cost: float | None
    compared: Comparison | None
    over_matched: Comparison | None
    note: str = ""


@dataclass(frozen=True, repr=False)
class Trials:
    """What trials of activations have shown on one model, its data, and one training schedule.

    Attributes:
        entries: The model without a change, the other controls, then the candidates.
        metric: `"accuracy"` in percent, or `"loss"`.
        margin: Differences below it do not matter, in the unit of the metric.
        steps: Of each run.
        seeds: Runs of each way that were asked for.
        rates: Learning rates that were tried.
        samples: How many there were to train on, to choose learning rates on, and to report on.
        from_scratch: Whether every run began with weights drawn anew; else with the weights that the model has.
        ended: `"complete"`, `"out of time"` or `"interrupted"`.
        notes: What else must be known.
        screening: How the candidates were chosen, None if they were given.
    """

    entries: tuple[Entry, ...]
    metric: Metric
    margin: float
    steps: int
    seeds: int
    rates: tuple[float, ...]
    samples: tuple[int, int, int]
    from_scratch: bool
    ended: str
    notes: tuple[str, ...] = ()
    screening: Screening | None = None

    @property
    def candidates(self) -> tuple[Entry, ...]:
        """The entries that are no controls."""
        return tuple(entry for entry in self.entries if entry.kind == "candidate")

    @property
    def verdict(self) -> str:
        """One sentence, of this model, these data and this schedule only."""
        better = [one for one in self.candidates if one.compared is not None and one.compared.verdict == "better"]
        alone = [one for one in better if one.over_matched is None or one.over_matched.verdict == "better"]
        names = ", ".join(one.activation for one in alone)
        gain = next((one for one in self.entries if one.kind == "matched gain"), None)
        if alone:
            than = "the model as it is and than its own activation at matched gain"
            return f"Better here than {than if self.from_scratch else 'the model as it is'}: {names}."
        if gain is not None and gain.compared is not None and gain.compared.verdict == "better":
            return "Match the gain first: that alone is better here, and no candidate is better than that."
        if better:
            found = ", ".join(one.activation for one in better)
            return f"Better here than the model as it is, but not than its own activation at matched gain: {found}."
        shown = "No candidate has been shown to be better here than the model as it is"
        said = [(one.activation, one.compared.verdict) for one in self.candidates if one.compared is not None]
        kinds = dict.fromkeys(kind for _, kind in said)
        listed = [f"{kind}: {', '.join(name for name, its in said if its == kind)}" for kind in kinds]
        return f"{shown} ({'; '.join(listed)})." if listed else f"{shown}."

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the entries as plain data, finite or None."""
        screened = {row.activation: row.to_dict() for row in self.screening.rows} if self.screening else {}
        return [_plain(entry, screened.get(entry.activation)) for entry in self.entries]

    def about(self) -> dict[str, Any]:
        """Return how the trials were made, as plain data."""
        return {
            "metric": self.metric,
            "margin": self.margin,
            "steps": self.steps,
            "seeds": self.seeds,
            "rates": list(self.rates),
            "samples": dict(zip(("training", "choosing", "reporting"), self.samples, strict=True)),
            "from_scratch": self.from_scratch,
            "ended": self.ended,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "screening": None if self.screening is None else self.screening.to_dict(),
        }

    def __repr__(self) -> str:
        return "\n".join([*aligned([_HEADINGS, *map(_row, self.entries)]), *self._notes()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in _row(entry)) for entry in self.entries)
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><tr>{head}</tr>{rows}</table>{''.join(f'<p>{escape(note)}</p>' for note in self._notes())}"

    def _notes(self) -> list[str]:
        training, choosing, reporting = self.samples
        unit = "percent right" if self.metric == "accuracy" else "mean loss, lower is better"
        start = "from weights drawn anew" if self.from_scratch else "fine-tuning of the weights that the model has"
        rates = ", ".join(f"{rate:.3g}" for rate in self.rates)
        how = (
            f"{unit}; {self.steps} steps, {start}; {self.seeds} seeds; differences from the model as it is, each at its"
        )
        return [
            self.verdict,
            f"{how} best of the rates {rates}; margin {self.margin:.3g}; p values are Holm-adjusted",
            f"{training} samples to train on, {choosing} to choose the rate on, {reporting} to report on",
            *self.notes,
            *(f"{entry.activation}: {entry.note}" for entry in self.entries if entry.note),
        ]


def summed_up(
    arms: Sequence[Arm], record: Record, *, metric: Metric, margin: float | None, rates: Sequence[float]
) -> tuple[tuple[Entry, ...], float]:
    """Return what runs have shown, arm by arm, and the margin.

    Args:
        arms: All, the reference first.
        record: The runs.
        metric: What the scores are.
        margin: In their unit; None for the usual one.
        rates: That were tried.
    """
    margin = margin or _margin(record, metric)
    against_reference = _compared(REFERENCE, [arm for arm in arms if arm is not REFERENCE], record, metric, margin)
    candidates = [arm for arm in arms if arm.kind == "candidate"]
    against_matched = _compared(MATCHED, candidates, record, metric, margin) if MATCHED in arms else {}
    entries = []
    for arm in arms:
        means = [float(one.scores.mean()) for one in _runs(arm, record) if one.scores is not None]
        rate = record.best(REFERENCE if arm.kind == "new seed" else arm)
        entries.append(
            Entry(
                activation=arm.activation or _DESCRIBED[arm.kind],
                kind=arm.kind,
                lr=rate,
                at_edge=rate is not None and len(rates) > 1 and rate in {min(rates), max(rates)},
                score=sum(means) / len(means) if means else None,
                spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
                seeds=len(means),
                diverged=len(_runs(arm, record)) - len(means),
                cost=_cost(arm, record),
                compared=against_reference.get(arm),
                over_matched=against_matched.get(arm),
                note=record.dropped.get(arm, "" if means else _why_none(arm, record)),
            )
        )
    return tuple(entries), margin


_DESCRIBED: dict[Kind, str] = {
    "no change": "no change",
    "matched gain": "same activation, matched gain",
    "new seed": "no change, new seed",
}


def _compared(base: Arm, arms: Sequence[Arm], record: Record, metric: Metric, margin: float) -> dict[Arm, Comparison]:
    """Compare arms with one, over the seeds that both have finished."""
    sign = 1 if metric == "accuracy" else -1
    found: dict[Arm, Comparison] = {}
    p: list[float] = []
    p_equivalence: list[float] = []
    for arm in arms:
        pairs = _pairs(record.outcomes.get(arm, {}), record.outcomes.get(base, {}))
        if len(pairs) < 2:
            found[arm] = Comparison(None, None, None, None, "too few seeds", len(pairs))
            continue
        first, second = (np.stack(scores) for scores in zip(*pairs, strict=True))
        one = paired_difference(first, second, margin=margin)
        found[arm] = Comparison(one.mean, one.low, one.high, one.p, "undecided", one.seeds)
        p.append(one.p)
        p_equivalence.append(one.p_equivalence)
    adjusted = iter(zip(holm(p), holm(p_equivalence), strict=True))
    for arm, made in found.items():
        if made.difference is None:
            continue
        ours, theirs = (float(value) for value in next(adjusted))
        said = verdict(sign * made.difference, p=ours, p_equivalence=theirs, seeds=made.seeds)
        lost = any(run.scores is None for of in (arm, base) for run in _runs(of, record))
        # Of runs that diverged nothing is known but that.
        said = "undecided" if lost and said != "too few seeds" else said
        found[arm] = replace(made, p=ours, verdict=said)
    return found


def _pairs(first: Mapping[int, Outcome], second: Mapping[int, Outcome]) -> list[tuple[Any, Any]]:
    both = [(first[number].scores, second[number].scores) for number in sorted(first.keys() & second.keys())]
    return [(one, other) for one, other in both if one is not None and other is not None]


def _runs(arm: Arm, record: Record) -> list[Outcome]:
    return list(record.outcomes.get(arm, {}).values())


def _margin(record: Record, metric: Metric) -> float:
    if metric == "accuracy":
        return MARGIN
    losses = [float(one.scores.mean()) for one in _runs(REFERENCE, record) if one.scores is not None]
    return max(MARGIN_OF_LOSS * abs(sum(losses) / len(losses)), 1e-12) if losses else MARGIN_OF_LOSS


def _cost(arm: Arm, record: Record) -> float | None:
    arm = REFERENCE if arm.kind == "new seed" else arm
    ours, theirs = record.seconds.get(arm), record.seconds.get(REFERENCE)
    # The fastest of runs is the one that other processes disturbed least.
    return min(ours) / min(theirs) if ours and theirs and min(theirs) else None


def _why_none(arm: Arm, record: Record) -> str:
    of = REFERENCE if arm.kind == "new seed" else arm
    if of in record.choosing and record.best(of) is None:
        return "diverged at all learning rates"
    return "diverged" if _runs(arm, record) else f"not tried: {record.ended}"


def _plain(entry: Entry, screened: dict[str, Any] | None) -> dict[str, Any]:
    compared = entry.compared or Comparison(None, None, None, None, "undecided", entry.seeds)
    return plain(
        {
            "activation": entry.activation,
            "kind": entry.kind,
            "lr": entry.lr,
            "at_edge": entry.at_edge,
            "difference": compared.difference,
            "low": compared.low,
            "high": compared.high,
            "p": compared.p,
            "verdict": None if entry.compared is None else compared.verdict,
            "seeds": entry.seeds,
            "diverged": entry.diverged,
            "score": entry.score,
            "spread": entry.spread,
            "cost": entry.cost,
            "over_matched": entry.over_matched,
            "screen": screened,
            "note": entry.note or None,
        }
    )


def _row(entry: Entry) -> tuple[str, ...]:
    one, over = entry.compared, entry.over_matched
    score = "-" if entry.score is None else f"{entry.score:.4g}"
    score += "" if entry.spread is None else f" (sd {entry.spread:.2g})"
    difference, interval, p = "-", "-", "-"
    if one is not None and one.difference is not None:
        difference, interval, p = f"{one.difference:+.3g}", f"{one.low:+.3g} to {one.high:+.3g}", f"{one.p:.2g}"
    said = "-" if one is None else one.verdict + (f", {entry.diverged} diverged" if entry.diverged else "")
    matched = "-"
    if over is not None:
        matched = over.verdict + ("" if over.difference is None else f" {over.difference:+.3g}")
    rate = "-" if entry.lr is None else f"{entry.lr:.3g}{' (edge)' if entry.at_edge else ''}"
    cost = "-" if entry.cost is None else f"{entry.cost:.2f}"
    return entry.activation, rate, score, difference, interval, p, said, matched, cost
