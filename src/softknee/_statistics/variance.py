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
        freedom: Degrees of freedom with which `seeds` was estimated.
    """

    mean: float
    seeds: float
    examples: float
    noise: float
    rows: int
    columns: int
    freedom: float

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
        freedom=n - 1,
    )


def unpaired_components(first: NDArray[Any], second: NDArray[Any]) -> Components:
    """Split the variance of `first.mean() - second.mean()` where examples pair and seeds do not.

    The seed parts of both add up, with the degrees of freedom of Welch (1947, Biometrika 34, 28-35) and Satterthwaite
    (1946, Biometrics Bulletin 2, 110-114). The example part is that of the difference between column means, so what
    makes an example hard for both cancels.

    Args:
        first: `(n, m)`, any numeric or boolean dtype.
        second: `(k, m)`; column `j` of both is the same example.

    Returns:
        The unbiased variance components of the difference; `rows` is the smaller number of seeds.

    Raises:
        UsageError: A matrix is too small, or they are not about the same number of examples.
    """
    check_same_examples(first, second)
    parts = components(first), components(second)
    columns = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    seeds, noise = (float(sum(found)) for found in zip(*((part.seeds, part.noise) for part in parts), strict=True))
    spread = sum(part.seeds**2 / part.freedom for part in parts)
    return Components(
        mean=parts[0].mean - parts[1].mean,
        seeds=seeds,
        examples=max(float(columns.var(ddof=1)) / len(columns) - noise, 0.0),
        noise=noise,
        rows=min(part.rows for part in parts),
        columns=len(columns),
        freedom=seeds**2 / spread if spread > 0 else sum(part.freedom for part in parts),
    )


def check_same_examples(first: NDArray[Any], second: NDArray[Any]) -> None:
    """Refuse two score matrices that are not about the same number of test examples.

    Args:
        first: `(n, m)`.
        second: `(k, m)`.

    Raises:
        UsageError: The second numbers of the shapes differ.
    """
    if first.shape[1:] != second.shape[1:]:
        raise UsageError(
            f"scores have shapes {first.shape} and {second.shape}; "
            "the second number, of test examples, must be the same"
        )
