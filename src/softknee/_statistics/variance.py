"""Where the uncertainty of a mean over seeds and test examples comes from.

The pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2), 386-411) resamples seeds and test examples
together, each with replacement. The variance it converges to has a closed form, so nothing is drawn here: with row
means `r`, column means `c` and doubly centred residuals `e` of an `n x m` matrix it is

    sum((r - mean)^2) / n^2  +  sum((c - mean)^2) / m^2  +  sum(e^2) / (n m)^2 .

Its expectation is off in three known ways: the seed part is too small by `(n - 1) / n` (a third of it is missing at
three seeds), the example part by `(m - 1) / m`, and the noise of single predictions is counted about three times
instead of once. `components` returns the parts with these biases removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Components:
    """Variance of the mean of a seeds-by-examples matrix, split by source.

    Attributes:
        mean: Mean of the matrix, in the unit of its entries.
        seeds: Variance of the mean through the choice of seeds, single-prediction noise included; unit squared.
        examples: Variance of the mean through the choice of test examples, noise excluded; at least 0.
        noise: Variance of the mean through noise that belongs to neither alone; already part of `seeds`.
        rows: Number of seeds, `n`.
        columns: Number of test examples, `m`.
    """

    mean: float
    seeds: float
    examples: float
    noise: float
    rows: int
    columns: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over seeds and examples together, in the unit of the entries."""
        return float(np.sqrt(self.seeds + self.examples))


def components(scores: NDArray[Any]) -> Components:
    """Split the variance of `scores.mean()` into seeds and test examples.

    Args:
        scores: `(n, m)`, one row a seed, one column a test example, any numeric or boolean dtype; entries are scores
            or paired differences of scores.

    Returns:
        The unbiased variance components (the one of the examples is cut at 0).

    Raises:
        UsageError: `scores` is not a matrix of at least two seeds and two examples.
    """
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise UsageError(f"scores have shape {scores.shape}; at least (2 seeds, 2 examples) are needed")
    values = scores.astype(np.float64)
    n, m = values.shape
    mean = float(values.mean())
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    residuals = values - rows[:, None] - columns + mean
    noise = float(np.square(residuals).sum()) / ((n - 1) * (m - 1)) / (n * m)
    return Components(
        mean=mean,
        seeds=float(rows.var(ddof=1)) / n,
        examples=max(float(columns.var(ddof=1)) / m - noise, 0.0),
        noise=noise,
        rows=n,
        columns=m,
    )
