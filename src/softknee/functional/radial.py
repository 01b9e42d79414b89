"""Sums of Gaussian bumps on a uniform grid, trained by their heights."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._intervals import entries_of
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The outermost centres lie at plus and minus this.
RBF_REACH = 2.0
KAF_REACH = 3.0
# Squared distances, in spacings, from which the bumps of a kernel activation fall to 1 / e.
KAF_WIDTH = 6.0
# Added to the diagonal of the kernel matrix where heights are fitted.
RIDGE = 1e-5


def rbf(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Radial basis functions as in FastKAN, $\sum_i c_i \exp(-((x - m_i) / h)^2)$.

    The centres $m_i$ lie evenly from -2 to 2, at distance $h$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c_i$: `(centres, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`.
    """
    return _bumps(x, coefficients, RBF_REACH, 1.0)


def kaf(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Kernel activation function, $\sum_i a_i \exp(-\gamma (x - d_i)^2)$ with $\gamma = 1 / (6 \Delta^2)$.

    The dictionary $d_i$ lies evenly from -3 to 3, at distance $\Delta$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $a_i$: `(dictionary, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`.
    """
    return _bumps(x, coefficients, KAF_REACH, KAF_WIDTH)


def _bumps(x: Tensor, heights: Sequence[Tensor | float], reach: float, width: float) -> Tensor:
    """Return the sum of bumps `exp(-t^2 / width)`, with `t` the distance from a centre in spacings."""
    wide = widened(x)
    last = len(heights) - 1
    place = wide * (last / (2 * reach)) + last / 2
    total = wide.new_zeros(())
    for i, height in enumerate(entries_of(heights, wide)):
        total = total + height * torch.exp(-(place - i).square() / width)
    return total.to(x.dtype)


def initialize_small(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw coefficients of standard deviation 0.1."""
    return {"coefficients": 0.1 * torch.randn(terms, generator=generator)}


def initialize_normal(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw coefficients of standard deviation 0.3."""
    return {"coefficients": 0.3 * torch.randn(terms, generator=generator)}


def _fitted(target: Callable[[Tensor], Tensor], terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the coefficients of a kernel activation near the target, by kernel ridge regression at the dictionary."""
    places = torch.arange(terms, dtype=torch.float64)
    kernel = torch.exp(-(places[:, None] - places).square() / KAF_WIDTH)
    values = target(torch.linspace(-KAF_REACH, KAF_REACH, terms, dtype=torch.float64))
    return {"coefficients": torch.linalg.solve(kernel + RIDGE * torch.eye(terms, dtype=torch.float64), values)}


SPECS = (
    Spec(
        name="rbf",
        title="RBF",
        family="spline",
        function=rbf,
        formula="sum(coefficients * exp(-((x + 2) * (terms - 1) / 4 - index)**2))",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True),
        source="li2024fastkan",
        note=(
            "Vanishes a few spacings outside [-2, 2], gradient included: its layers normalize their inputs first. They"
            " also add a SiLU of the input with weights of its own, which is no part of this function. The"
            " coefficients are drawn from N(0, 0.1^2)."
        ),
        aliases=("fastkan",),
        initializations=MappingProxyType({"normal": initialize_small}),
        terms=8,
        fewest_terms=2,
    ),
    Spec(
        name="kaf",
        title="KAF",
        family="spline",
        function=kaf,
        formula="sum(coefficients * exp(-(x - 6 * index / (terms - 1) + 3)**2 / (6 * (6 / (terms - 1))**2)))",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True),
        source="scardapane2019kaf",
        note=(
            "Vanishes a few spacings outside [-3, 3], gradient included. The bandwidth is the paper's rule; the authors"
            " also published code whose bumps are wider, with 8 in place of 6. Targets are fitted by kernel ridge"
            " regression, as in the paper; the ridge of 1e-5 is ours."
        ),
        aliases=("kernel_activation",),
        initializations=MappingProxyType(
            {"normal": initialize_normal, "elu": partial(_fitted, F.elu), "tanh": partial(_fitted, torch.tanh)}
        ),
        terms=20,
        fewest_terms=2,
    ),
)
