"""Activations that are small networks of one input and one output."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._intervals import as_tensor, entries_of
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

# The best such function with three hidden units for ReLU, in the sense of least squares at 6001 evenly spaced points of
# [-3, 3], where it is within 0.059; tests check that no small change of them is better.
OUTPUT = (0.25152906, 0.477005046, 0.988122442)
SLOPE = (3.87491502, 1.76886839, 1.04888213)
SHIFT = (-1.33871971, -1.9428849, -2.54531849)
BIAS = 1.71161008
FIT_REACH = 3.0


def vaf(
    x: Tensor,
    output: Sequence[Tensor | float],
    slope: Sequence[Tensor | float],
    shift: Sequence[Tensor | float],
    bias: Tensor | float = BIAS,
) -> Tensor:
    r"""Variable activation function: a network with one hidden layer, $d + \sum_k b_k \tanh(a_k x + c_k)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        output: $b_k$: `(units, ...)`, or a tuple, each entry broadcastable to `x`.
        slope: $a_k$, likewise.
        shift: $c_k$, likewise.
        bias: $d$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    total = as_tensor(bias, wide)
    for b, a, c in zip(*(entries_of(vector, wide) for vector in (output, slope, shift)), strict=True):
        total = total + b * torch.tanh(a * wide + c)
    return total.to(x.dtype)


def initialize_near_relu(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return three units that are near ReLU together, and others that differ but do not count yet."""
    others = terms - len(OUTPUT)
    # Under another default device, some of these calls may still end up here: transformers loads models that way.
    with torch.device("cpu"):
        centres = torch.linspace(-FIT_REACH, FIT_REACH, others + 2, dtype=torch.float64)[1:-1]
        parts = {
            "output": (OUTPUT, torch.zeros(others)),
            "slope": (SLOPE, torch.ones(others)),
            "shift": (SHIFT, -centres),
        }
        return {name: torch.cat([torch.tensor(fit, dtype=torch.float64), rest]) for name, (fit, rest) in parts.items()}


SPECS = (
    Spec(
        name="vaf",
        title="VAF",
        family="mixture",
        function=vaf,
        formula="bias + sum(output * tanh(slope * x + shift))",
        parameters=(
            Param(name="output", trainable=True, vector=True),
            Param(name="slope", trainable=True, vector=True),
            Param(name="shift", trainable=True, vector=True),
            Param(name="bias", default=BIAS, trainable=True),
        ),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.241595, upper_bound=3.428267),
        source="apicella2019vaf",
        note=(
            "The paper takes tanh or ReLU for the hidden units; this one has tanh. The start near ReLU on [-3, 3] is"
            " ours; outside, it is bounded. Units beyond the third start with an output weight of 0."
        ),
        initializations=MappingProxyType({"relu": initialize_near_relu}),
        terms=3,
        fewest_terms=3,
    ),
)
