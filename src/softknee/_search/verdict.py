"""What the finals show: whether what was found is better than every baseline, and what is returned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from softknee._catalogue import parse_choice
from softknee._statistics.decisions import LEVEL
from softknee._statistics.intervals import paired_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from softknee._search.candidate import Candidate
    from softknee._search.verify import Final

# Of a loss; what is smaller is not asked about.
MARGIN = 1e-2
# Digits of the half-width of an interval that are written.
DIGITS = 2
SEEN = (
    "there are no test batches, so the comparison is on the validation data, which the search has seen: expect less on "
    "new data"
)


@dataclass(frozen=True)
class Against:
    """The chosen candidate compared with a baseline; losses, lower is better.

    Attributes:
        baseline: Key of the baseline.
        gain: Its mean loss minus the candidate's: above 0 where the candidate is better.
        low: Lower end of the 95 % interval of the gain.
        high: Upper end.
        p: Two-sided p value against no difference.
        p_adjusted: The same, times the number of candidates in the finals.
        seed_gains: The gain in each paired run.
    """

    baseline: str
    gain: float
    low: float
    high: float
    p: float
    p_adjusted: float
    seed_gains: tuple[float, ...]

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better, beyond the noise."""
        return self.gain > 0 and self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Verdict:
    """What is returned, and why.

    Attributes:
        sentence: In words.
        outcome: `"better"` if what was found beats every baseline, else `"baseline"`.
        best: What is returned.
        candidate: What was compared, None if nothing could be.
        reference: The best baseline by validation.
        differences: Of the candidate from each baseline, the smallest gain first.
        test: Losses by key on the test data, `(runs, batches)`; empty without them.
        notes: What limits the claim.
    """

    sentence: str
    outcome: Literal["better", "baseline"]
    best: Candidate
    candidate: Candidate | None
    reference: Candidate
    differences: tuple[Against, ...]
    test: dict[str, NDArray[np.float64]]
    notes: tuple[str, ...]


def decide(
    finals: Sequence[Final], fallback: Candidate, test: Callable[[Candidate], NDArray[np.float64]] | None
) -> Verdict:
    """Choose a candidate by validation, and compare it with every baseline of the finals.

    It is better only if it is better than each of them (an intersection-union test), with p values multiplied by the
    number of candidates in the finals (Bonferroni), because one of several was chosen on the same runs.

    Args:
        finals: Everyone's runs.
        fallback: The baseline to return where none in the finals has finished.
        test: Reads the losses on the test data, `(runs, batches)`, once for each that is compared; None without them.

    Returns:
        What is returned, and why.
    """
    found = [one for one in finals if not one.is_baseline]
    baselines = sorted((one for one in finals if one.is_baseline and one.validation is not None), key=_loss)
    finished = sorted((one for one in found if one.validation is not None), key=_loss)
    notes = _failures(finals)
    if not baselines:
        sentence = f"nothing can be said, for every baseline failed in a final run; use {title(fallback)}"
        return _kept(sentence, fallback, notes)
    reference = baselines[0].candidate
    name = title(reference)
    if not finished:
        return _kept(f"nothing new {'finished its final runs' if found else 'was found'}; use {name}", reference, notes)
    chosen = finished[0].candidate
    losses = {one.candidate.key: _losses(one, test) for one in (finished[0], *baselines)}
    against = [one.candidate for one in baselines if _is_finite(losses[one.candidate.key])]
    notes += tuple(
        f"{title(one.candidate)} is left out: its test loss is not finite"
        for one in baselines
        if one.candidate not in against
    )
    notes += () if test else (SEEN,)
    gains = [_against(one, chosen, losses, len(found)) for one in against] if _is_finite(losses[chosen.key]) else []
    differences = tuple(sorted(gains, key=lambda one: one.gain))
    read = losses if test else {}
    if differences and all(one.is_better for one in differences):
        closest = next(one for one in against if one.key == differences[0].baseline)
        seen = "test loss" if test else "validation loss, which the search has seen"
        sentence = f"better than the best baseline, {title(closest)}, by {amount(differences[0])} in {seen}"
        return Verdict(sentence, "better", chosen, chosen, reference, differences, read, notes)
    sentence = f"nothing beat {name} within the noise; use {name}"
    return Verdict(sentence, "baseline", reference, chosen, reference, differences, read, notes)


def title(candidate: Candidate) -> str:
    """Return what people call a candidate: `"GELU"` for the one with the text `gelu`, else its text."""
    labels = dict.fromkeys(function.label for function in candidate.functions)
    return " | ".join(_title(label) for label in labels)


def amount(difference: Against) -> str:
    """Return a gain with its interval, `"0.012 (0.004 to 0.020)"`, in as many digits as the interval bears out."""
    half = (difference.high - difference.low) / 2
    digits = max(0, DIGITS - 1 - math.floor(math.log10(half))) if half > 0 else DIGITS
    gain, low, high = (f"{value:.{digits}f}" for value in (difference.gain, difference.low, difference.high))
    return f"{gain} ({low} to {high})"


def _kept(sentence: str, baseline: Candidate, notes: tuple[str, ...]) -> Verdict:
    """Return the verdict where there is nothing to compare a baseline with."""
    return Verdict(sentence, "baseline", baseline, None, baseline, (), {}, notes)


def _against(
    baseline: Candidate, chosen: Candidate, losses: Mapping[str, NDArray[np.float64]], candidates: int
) -> Against:
    first, second = losses[baseline.key], losses[chosen.key]
    rows = tuple((first - second).mean(axis=1).tolist())
    if first.shape[1] == 1:
        # A single batch says nothing about others.
        first, second = first.repeat(2, axis=1), second.repeat(2, axis=1)
    found = paired_difference(first, second, margin=MARGIN)
    return Against(
        baseline=baseline.key,
        gain=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        p_adjusted=min(found.p * candidates, 1.0),
        seed_gains=rows,
    )


def _losses(final: Final, test: Callable[[Candidate], NDArray[np.float64]] | None) -> NDArray[np.float64]:
    return cast("NDArray[np.float64]", final.validation) if test is None else test(final.candidate)


def _loss(final: Final) -> float:
    return final.loss


def _is_finite(losses: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(losses).all())


def _failures(finals: Sequence[Final]) -> tuple[str, ...]:
    return tuple(
        f"{title(one.candidate)} {'is left out' if one.is_baseline else 'cannot win'}: {one.failure}"
        for one in finals
        if one.failure is not None
    )


def _title(label: str) -> str:
    choice = parse_choice(label)
    return choice.spec.title if choice.what.isidentifier() and not choice.options else choice.label
