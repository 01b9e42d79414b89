"""Would the ranking be the same with other seeds?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._statistics.ranks import check_rankable
from softknee._statistics.resampling import DRAWS, counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Ways to halve the seeds that are tried.
SPLITS = 100


@dataclass(frozen=True)
class Stability:
    """How a ranking by mean scores holds up when seeds are drawn anew.

    Attributes:
        order: Indices of the activations, best mean first.
        first: For each activation, in the order given, the probability of being first; they sum to 1.
        reversed: For each two neighbours in `order`, the probability that the lower one comes out above; ties count
            half.
        halves: Mean of Kendall's tau-b between the rankings by two halves of the seeds: 1 where both are always the
            same, 0 where one says nothing about the other.
        seeds: Number of seeds.
    """

    order: tuple[int, ...]
    first: tuple[float, ...]
    reversed: tuple[float, ...]
    halves: float
    seeds: int


def ranking_stability(
    scores: NDArray[Any],
    *,
    paired: bool,
    generator: np.random.Generator,
    draws: int = DRAWS,
    splits: int = SPLITS,
) -> Stability:
    """Bootstrap the ranking of activations over seeds.

    It is about new seeds on the same test examples. Drawn means vary too little by `sqrt((n - 1) / n)`, so a ranking of
    three seeds seems more stable than it is; halves of the seeds vary more than the whole, so `halves` errs downward.

    Args:
        scores: `(activations, seeds)`, one run each, higher is better; `-inf` for runs that diverged: a mean that holds
            one is last.
        paired: Whether column `j` is the same seed for all and runs are deterministic; else each activation's seeds are
            drawn for themselves.
        generator: Draws.
        draws: Number of resamples.
        splits: Number of ways to halve the seeds.

    Returns:
        Probabilities and agreement.

    Raises:
        UsageError: There are fewer than two activations or seeds, or a score is NaN.
    """
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise UsageError(f"scores have shape {scores.shape}; at least (2 activations, 2 seeds) are needed")
    check_rankable(scores)
    values = scores.astype(np.float64)
    order = np.argsort(-values.mean(axis=1), kind="stable")
    means = _drawn_means(values, paired, generator, draws)
    top = means == means.max(axis=0)
    higher, lower = means[order[:-1]], means[order[1:]]
    return Stability(
        order=tuple(order.tolist()),
        first=tuple((top / top.sum(axis=0)).mean(axis=1).tolist()),
        reversed=tuple(((lower > higher) + 0.5 * (lower == higher)).mean(axis=1).tolist()),
        halves=float(np.mean([_tau(*pair) for pair in _halves(values, paired, generator, splits)])),
        seeds=values.shape[1],
    )


def _drawn_means(
    values: NDArray[np.float64], paired: bool, generator: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    """Return `(activations, draws)` means over drawn seeds; those with a diverged run are `-inf`."""
    size = values.shape[1]
    finite, lost = np.where(np.isfinite(values), values, 0.0), np.isneginf(values).astype(np.float64)
    if paired:
        drawn = counts(size, draws, generator).T / size
        return np.where(lost @ drawn > 0, -np.inf, finite @ drawn)
    means = np.empty((len(values), draws))
    for row, (scores, gone) in enumerate(zip(finite, lost, strict=True)):
        drawn = counts(size, draws, generator) / size
        means[row] = np.where(drawn @ gone > 0, -np.inf, drawn @ scores)
    return means


def _halves(
    values: NDArray[np.float64], paired: bool, generator: np.random.Generator, splits: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the means of the activations over two disjoint halves of their seeds."""
    half = values.shape[1] // 2
    for _ in range(splits):
        mixed = generator.permutation(values, axis=1) if paired else generator.permuted(values, axis=1)
        yield mixed[:, :half].mean(axis=1), mixed[:, half : 2 * half].mean(axis=1)


def _tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Kendall's tau-b, or 0 where one side ties everything and so agrees with nothing."""
    tau = float(require("scipy.stats", extra="bench").kendalltau(first, second).statistic)
    return 0.0 if np.isnan(tau) else tau
