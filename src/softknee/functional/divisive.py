"""Functions that divide by a size of the whole vector."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._groups import largest, not_negative
from softknee.functional._precision import widening

if TYPE_CHECKING:
    from torch import Tensor

# What training may bring the offset of the divisor down to.
SMALLEST_OFFSET = 1e-6


@widening
def gdn(x: Tensor, beta: Tensor, gamma: Tensor, *, dim: int = -1) -> Tensor:
    r"""Generalized divisive normalization, $x_i \big/ \sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}$.

    Training may make parameters negative; they count by their absolute value, and no $\beta_i$ for less than
    $10^{-6}$. The derivative by a $\gamma_{ij}$ of 0 is that from above. Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype.
        beta: $\beta$, `(channels,)`.
        gamma: $\gamma$, `(channels, channels)`.
        dim: Dimension of the channels.

    Returns:
        Same shape and dtype as `x`.
    """
    dim = not_negative(x, dim, "gdn")
    # In one order in memory, so that results are the same along any dimension.
    rows = x.movedim(dim, -1).contiguous()
    size = largest(rows, -1).clamp(min=1)
    share = rows / size
    offset = _absolute(beta).clamp(min=SMALLEST_OFFSET) / size.square()
    divisor = F.linear(share.square(), _absolute(gamma)) + offset
    return (share / divisor.sqrt()).movedim(-1, dim)


@widening
def poly_norm(
    x: Tensor,
    cubic: Tensor | float = 1 / 3,
    quadratic: Tensor | float = 1 / 3,
    linear: Tensor | float = 1 / 3,
    bias: Tensor | float = 0.0,
    epsilon: Tensor | float = 1e-6,
    *,
    dim: int = -1,
) -> Tensor:
    r"""PolyNorm, $w_0\,n(x^3) + w_1\,n(x^2) + w_2\,n(x) + b$ with powers divided by their size.

    $n(u) = u \big/ \sqrt{\mathrm{mean}(u^2) + \epsilon}$, the mean taken over all entries. Half precision is computed
    in float32.

    Args:
        x: At least one dimension, any floating dtype.
        cubic: $w_0$.
        quadratic: $w_1$.
        linear: $w_2$.
        bias: $b$.
        epsilon: $\epsilon > 0$.
        dim: Dimension that the means are taken along.

    Returns:
        Same shape and dtype as `x`.
    """
    dim = not_negative(x, dim, "poly_norm")
    size = largest(x, dim).clamp(min=1)
    share = x / size
    total: Any = 0.0
    for power, weight in ((3, cubic), (2, quadratic), (1, linear)):
        term = share**power
        mean = term.square().mean(dim, keepdim=True)
        total = total + weight * (term / (mean + epsilon / size ** (2 * power)).sqrt())
    return total + bias  # type: ignore[no-any-return]


def initialize_gdn(channels: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return offsets of 1, and 0.1 on the diagonal of the matrix."""
    diagonal = 0.1 * torch.eye(channels, dtype=torch.float64)
    return {"beta": torch.ones(channels, dtype=torch.float64), "gamma": diagonal}


def _absolute(parameter: Tensor) -> Tensor:
    """Return the absolute value; torch's own has the derivative 0 at 0, where most of the matrix starts."""
    return torch.where(parameter < 0, -parameter, parameter)


def _gdn_stated(entries: list[Any], beta: list[Any], gamma: list[list[Any]]) -> list[Any]:
    return [
        x / (offset + sum(weight * y**2 for weight, y in zip(row, entries, strict=True))) ** 0.5
        for x, offset, row in zip(entries, beta, gamma, strict=True)
    ]


def _poly_norm_stated(
    entries: list[Any], cubic: Any, quadratic: Any, linear: Any, bias: Any, epsilon: Any
) -> list[Any]:
    def normalized(power: int) -> list[Any]:
        mean = sum(x ** (2 * power) for x in entries) / len(entries)
        return [x**power / (mean + epsilon) ** 0.5 for x in entries]

    rows = zip(normalized(3), normalized(2), normalized(1), strict=True)
    return [cubic * a + quadratic * b + linear * c + bias for a, b, c in rows]


SPECS = (
    Spec(
        name="gdn",
        title="GDN",
        family="vector",
        kind="vector",
        function=gdn,
        formula="x_i / sqrt(beta_i + sum of gamma_ij x_j^2)",
        statement=_gdn_stated,
        parameters=(
            Param(name="beta", vector=True, trainable=True, low=0.0, open_low=True),
            Param(name="gamma", vector=True, trainable=True, low=0.0),
        ),
        promises=Promises(
            smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-3.1622777, upper_bound=3.1622777
        ),
        source="balle2016gdn",
        initializations=MappingProxyType({"diagonal": initialize_gdn}),
        note="Absolute values in place of the usual reparametrization by squares, which has no gradient at 0, are ours."
        " The bounds hold at the start.",
        users="learned image compression",
    ),
    Spec(
        name="poly_norm",
        title="PolyNorm",
        family="vector",
        kind="vector",
        dim=-1,
        function=poly_norm,
        formula="w_0 n(x^3) + w_1 n(x^2) + w_2 n(x) + b with n(u) = u / sqrt(mean of u^2 + epsilon)",
        statement=_poly_norm_stated,
        parameters=(
            Param(name="cubic", default=1 / 3, trainable=True),
            Param(name="quadratic", default=1 / 3, trainable=True),
            Param(name="linear", default=1 / 3, trainable=True),
            Param(name="bias", default=0.0, trainable=True),
            Param(name="epsilon", default=1e-6, low=0.0, open_low=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True),
        source="zhuo2025polycom",
        note="The bias starts at 0 in the authors' code and in vLLM, at 1 in Liger.",
        users="Motif",
    ),
)
