"""What the finals show: whether what was found is better than every baseline, and what is returned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from softknee._catalogue import parse_choice
from softknee._search.verify import several_batches
from softknee._statistics.decisions import LEVEL
from softknee._statistics.intervals import paired_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
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
        seed_gains: The gain in each paired run.
    """

    baseline: str
    gain: float
    low: float
    high: float
    p: float
    seed_gains: tuple[float, ...]

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better, beyond the noise."""
        return self.gain > 0 and self.p < LEVEL

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Against:
        """Return what plain data were made of."""
        numbers = {name: data[name] for name in ("baseline", "gain", "low", "high", "p")}
        return cls(**numbers, seed_gains=tuple(data["seed_gains"]))


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
    """Compare the candidate with every baseline of the finals.

    It is better only if it is better than each of them (an intersection-union test). There is one candidate, chosen in
    other runs, so that no p value has to be corrected.

    Args:
        finals: Everyone's runs.
        fallback: The baseline to return where none in the finals has finished.
        test: Reads the losses on the test data, `(runs, batches)`, once for each that is compared; None without them.

    Returns:
        What is returned, and why.
    """
    found = next((one for one in finals if not one.is_baseline), None)
    baselines = sorted(
        (one for one in finals if one.is_baseline and one.validation is not None), key=lambda one: one.loss
    )
    notes = _failures(finals)
    if not baselines:
        sentence = f"nothing can be said, for every baseline failed in a final run; use {title(fallback)}"
        return _kept(sentence, fallback, notes)
    reference = baselines[0].candidate
    name = title(reference)
    if found is None or found.validation is None:
        return _kept(f"nothing new {'finished its final runs' if found else 'was found'}; use {name}", reference, notes)
    chosen, names = found.candidate, {one.candidate.key: title(one.candidate) for one in baselines}
    losses = {one.candidate.key: _losses(one, test) for one in (found, *baselines)}
    notes += () if test else (SEEN,)
    gains = [_against(key, losses[key], losses[chosen.key]) for key in names]
    differences = tuple(sorted(gains, key=lambda one: one.gain))
    read = losses if test else {}
    unbeaten = [one.baseline for one in differences if not one.is_better]
    if not unbeaten:
        seen = "test loss" if test else "validation loss, which the search has seen"
        closest = names[differences[0].baseline]
        sentence = f"better than the best baseline, {closest}, by {amount(differences[0])} in {seen}"
        return Verdict(sentence, "better", chosen, chosen, reference, differences, read, notes)
    stronger = name if reference.key in unbeaten else names[unbeaten[0]]
    sentence = f"nothing beat {stronger} within the noise; use {name}"
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


def _against(baseline: str, theirs: NDArray[np.float64], own: NDArray[np.float64]) -> Against:
    found = paired_difference(several_batches(theirs), several_batches(own), margin=MARGIN)
    return Against(
        baseline=baseline,
        gain=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        seed_gains=tuple((theirs - own).mean(axis=1).tolist()),
    )


def _losses(final: Final, test: Callable[[Candidate], NDArray[np.float64]] | None) -> NDArray[np.float64]:
    return cast("NDArray[np.float64]", final.validation) if test is None else test(final.candidate)


def _failures(finals: Sequence[Final]) -> tuple[str, ...]:
    return tuple(
        f"{title(one.candidate)} {'is left out' if one.is_baseline else 'cannot win'}: {one.failure}"
        for one in finals
        if one.failure is not None
    )


def _title(label: str) -> str:
    choice = parse_choice(label)
    return choice.spec.title if choice.what.isidentifier() and not choice.options else choice.label
