"""Functions of the length of a vector that keep its direction: whatever is turned in front of them is turned behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._groups import filled, grouped, largest
from softknee.functional._precision import widening


@widening
def norm_relu(x: Tensor, group: int = 2, bias: Tensor | float = 0.0, *, dim: int = -1) -> Tensor:
    r"""Norm-ReLU, $\max(|z| + b, 0)\,z / |z|$ for each group $z$ of neighbouring entries.

    Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype.
        group: Entries of a group.
        bias: $b$, a number.
        dim: Dimension of the entries, of a size that is a multiple of `group`.

    Returns:
        Same shape and dtype as `x`; 0 at 0, with the derivative of the identity there for $b \ge 0$. At $|z| = -b$ the
        derivative is 0.
    """
    groups, inner = grouped(x, group, dim, "norm_relu")
    length, has_direction = _length(groups, inner)
    offset = bias if isinstance(bias, Tensor) else groups.new_full((), bias)
    active = (length + offset > 0) | (offset >= 0)
    direction = groups / torch.where(active & has_direction, length, 1.0)
    result = torch.where(active, groups + offset * direction, 0.0)
    return result.flatten(inner - 1, inner)


@widening
def squash(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""Squash of a capsule, $\frac{|x|^2}{1 + |x|^2} \frac{x}{|x|}$: vectors become shorter than 1.

    Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype.
        dim: Dimension of the vector.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    length, _ = _length(x, filled(x, dim, "squash"))
    # The factor t / (1 + t^2) is the same for a length t and for 1 / t, whose square does not overflow.
    long = length > 1
    t = torch.where(long, 1 / torch.where(long, length, 1.0), length)
    return x * (t / (1 + t.square()))


def _length(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the length of vectors, and whether it is large enough to divide by; of others it has no gradient."""
    size = largest(x, dim)
    has_direction = size >= torch.finfo(x.dtype).tiny
    safe = torch.where(has_direction, size, 1.0)
    squares = torch.where(has_direction, (x / safe).square().sum(dim, keepdim=True), 1.0)
    return torch.where(has_direction, safe * squares.sqrt(), 0.0), has_direction


def _norm_relu_stated(entries: list[Any], group: int, bias: Any) -> list[Any]:
    turned = []
    for start in range(0, len(entries), group):
        z = entries[start : start + group]
        length = sum(x**2 for x in z) ** 0.5
        turned += [max(length + bias, 0) * x / length if length > 0 else x for x in z]
    return turned


def _squash_stated(entries: list[Any]) -> list[Any]:
    square = sum(x**2 for x in entries)
    return [square**0.5 / (1 + square) * x for x in entries]


SPECS = (
    Spec(
        name="norm_relu",
        title="NormReLU",
        family="vector",
        kind="vector",
        function=norm_relu,
        formula="max(|z| + b, 0) z / |z| for each group z of neighbouring entries",
        statement=_norm_relu_stated,
        parameters=(
            Param(name="group", default=2, integer=True, low=1),
            Param(name="bias", default=0.0, trainable=True),
        ),
        promises=Promises(odd=True, zero_at_zero=True, lipschitz=1.0),
        source="worrall2017harmonic",
        note="Equivariant: f(R z) = R f(z) for every rotation or reflection R of a group's entries, so where the layer"
        " in front turns its features with its input, this does too. With groups of two it is modReLU of complex"
        " numbers (Arjovsky et al. 2016, arXiv 1511.06464). It starts as the identity; a bias below 0 makes short"
        " vectors 0, one above 0 makes it jump at 0. One bias for all groups is ours; the sources have one for each.",
    ),
    Spec(
        name="squash",
        title="Squash",
        family="vector",
        kind="vector",
        dim=-1,
        function=squash,
        formula="|x| x / (1 + |x|^2)",
        statement=_squash_stated,
        promises=Promises(odd=True, zero_at_zero=True, lipschitz=0.6495191, lower_bound=-1.0, upper_bound=1.0),
        source="sabour2017capsules",
        note="Equivariant under rotations and reflections of the whole vector, the capsule.",
        users="CapsNet",
    ),
)
