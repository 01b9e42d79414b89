"""The probability that a ReLU network is dead before it is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from softknee._errors import UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence


def born_dead(widths: Sequence[int]) -> float:
    r"""Return the probability that a ReLU network gives 0 to an input, whatever its weights become.

    A layer is dead when all of its units are off, and a network when any of its layers is: $1 - \prod_l (1 - 2^{-n_l})$
    (Lu et al. 2019, arXiv 1903.06733). It holds for one input, weights whose distribution is symmetric, and no biases;
    for sets of inputs it is an upper bound. It is not the product of the probabilities of single units, which is often
    written and far too small. Whether the units of a model are dead is measured by `unit_health`.

    Args:
        widths: Numbers of units of the layers with ReLU.

    Returns:
        A probability.

    Raises:
        UsageError: A width is no positive whole number.
    """
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise UsageError(f"widths must be positive whole numbers, got {excerpt(list(widths))}")
    # In logarithms, for what a wide layer adds is below the rounding of 1.
    return -math.expm1(sum(math.log1p(-(2.0**-width)) for width in widths))
