"""Bootstrap intervals that resample seeds and test examples together.

Resampled is as in the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2), 386-411): rows and columns of
a seeds-by-examples matrix are drawn with replacement, each for themselves. The interval is the studentized one, also
called bootstrap-t (Efron and Tibshirani 1993, section 12.5): each drawn mean is divided by a standard error of its own.
It takes nothing to be normal, which `softknee._statistics.intervals` does, and so is a second opinion on skewed scores.

It is no substitute at few seeds. Simulated coverage of its nominal 95 % is 87 % at 3 seeds where these vary most, 89 to
98 % at 5 to 10 and 94 to 98 % from 20 on; Student's t has 93 to 99 % throughout. With two or three seeds, draws of
the same one every time are frequent: where examples say little, the interval then has no ends, as it should.
Percentiles of the drawn means, the usual choice, cover less where seeds vary most (81 % at 3, 91 % at 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._statistics.intervals import CONFIDENCE, Estimate
from softknee._statistics.variance import check_same_examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DRAWS = 2000
# Entries of the largest matrix of counts that is made at once.
BLOCK = 1 << 20
# Examples for each that is unlike all others, from which on it is faster to draw those.
SAVING = 8
# A drawn standard error below this part of the observed one is rounding: all seeds and all examples were the same.
ROUNDING = 1e-9


def bootstrap_difference(
    first: NDArray[Any], second: NDArray[Any], *, paired: bool, generator: np.random.Generator, draws: int = DRAWS
) -> Estimate:
    """Mean difference of two score matrices with a 95 % bootstrap-t interval; test examples are always paired.

    Args:
        first: `(n, m)`, any numeric or boolean dtype.
        second: `(k, m)`, column `j` of both is the same example; `k = n` where `paired`.
        paired: Whether row `i` of both has the same seed and runs are deterministic, so that seeds are drawn in pairs.
        generator: Draws the resamples.
        draws: Number of resamples.

    Returns:
        The mean of `first - second` and its interval, in the unit of the scores; `seeds` is the smaller number.

    Raises:
        UsageError: The shapes do not fit together, or there are fewer than two seeds or two examples.
    """
    if paired and first.shape != second.shape:
        raise UsageError(f"paired scores have shapes {first.shape} and {second.shape}; they must be the same")
    check_same_examples(first, second)
    one, other = _checked(first), _checked(second)
    return _interval([one - other] if paired else [one, -other], generator, draws)


def counts(size: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `size` of `size` things with replacement, `draws` times.

    Args:
        size: Number of things.
        draws: Number of draws.
        generator: Draws.

    Returns:
        `(draws, size)`, how often each thing was drawn; rows sum to `size`.
    """
    # Some twenty times as fast as `generator.multinomial` for thousands of things.
    drawn = generator.integers(size, size=(draws, size))
    drawn += size * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size)


def _checked(scores: NDArray[Any]) -> NDArray[np.float64]:
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise UsageError(f"scores have shape {scores.shape}; at least (2 seeds, 2 examples) are needed")
    return scores.astype(np.float64)


def _interval(parts: Sequence[NDArray[np.float64]], generator: np.random.Generator, draws: int) -> Estimate:
    """Return the sum of the parts' means; each part has seeds of its own, the examples are common."""
    parts, often = _distinct(parts)
    number, seeds = often.sum(), [_even(len(part)) for part in parts]
    mean, error = (float(found[0]) for found in _sums(parts, seeds, often[None] / number, number))
    most = max(BLOCK // len(often), 1)
    drawn = [_drawn(parts, often, min(most, draws - start), generator) for start in range(0, draws, most)]
    distance, spread = (
        np.concatenate([sums - mean for sums, _ in drawn]),
        np.concatenate([errors for _, errors in drawn]),
    )
    lost = spread <= ROUNDING * error
    ratio = np.where(lost, np.copysign(np.inf, distance), distance / np.where(lost, 1.0, spread))
    tail = (1 - CONFIDENCE) / 2
    # Not interpolated: between a finite and an infinite value there is none.
    low, high = np.quantile(ratio, [tail, 1 - tail], method="inverted_cdf")
    reach = (high * error, low * error) if error > 0 else (0.0, 0.0)
    return Estimate(mean, float(mean - reach[0]), float(mean - reach[1]), min(len(part) for part in parts))


def _distinct(parts: Sequence[NDArray[np.float64]]) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Return the parts with examples that are alike as one, and how often each is there: few seeds tell few apart."""
    found, often = np.unique(np.concatenate(parts), axis=1, return_counts=True)
    if often.sum() < SAVING * len(often):
        return list(parts), np.ones(parts[0].shape[1], dtype=np.int64)
    return np.split(found, np.cumsum([len(part) for part in parts])[:-1]), often


def _even(size: int) -> NDArray[np.float64]:
    return np.full((1, size), 1 / size)


def _drawn(
    parts: Sequence[NDArray[np.float64]], often: NDArray[np.int64], draws: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of means of drawn seeds and examples, and their standard errors."""
    number = often.sum()
    seeds = [counts(len(part), draws, generator) / len(part) for part in parts]
    alike = number > len(often)
    drawn = generator.multinomial(number, often / number, draws) if alike else counts(number, draws, generator)
    return _sums(parts, seeds, drawn / number, number)


def _sums(
    parts: Sequence[NDArray[np.float64]],
    seeds: Sequence[NDArray[np.float64]],
    examples: NDArray[np.float64],
    number: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weighted sums of the parts' means, and the standard errors that the same weights give.

    Args:
        parts: `(n_p, m)` each.
        seeds: `(draws, n_p)` for each part; rows sum to 1.
        examples: `(draws, m)`; rows sum to 1.
        number: Of examples, those that are alike counted each.

    Returns:
        Both `(draws,)`.
    """
    total, variance = np.zeros(len(examples)), np.zeros(len(examples))
    by_example = np.zeros_like(examples)
    for part, weights in zip(parts, seeds, strict=True):
        by_seed = examples @ part.T
        mean = (weights * by_seed).sum(axis=1)
        variance += (weights * (by_seed - mean[:, None]) ** 2).sum(axis=1) / len(part)
        by_example += weights @ part
        total += mean
    by_example -= total[:, None]
    return total, np.sqrt(variance + (examples * by_example**2).sum(axis=1) / number)
