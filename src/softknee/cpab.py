r"""One-dimensional CPAB maps: diffeomorphisms that are flows of continuous, piecewise affine velocity fields.

An interval `[a, b]` is divided into N cells of equal width. The velocity field is given by its values at the N + 1
knots and is affine in between; a map $T$ carries each point $x$ to $y(t)$, where $\dot y = v(y)$ and $y(0) = x$. It is
increasing, its inverse is the same flow for the time $-t$, and it is evaluated in closed form.

Freifeld, Hauberg, Batmanghelich, Fisher: Transformations based on continuous piecewise-affine velocity fields,
TPAMI 2017; Martinez, Viles, Olaizola: Closed-form diffeomorphic transformations for time series alignment, ICML 2022.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from softknee._engine.plan import broadcast, plan_of
from softknee._engine.select import evaluate
from softknee._engine.table import REACH
from softknee._errors import UsageError
from softknee.functional._flow import carried_everywhere, carried_within
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Interval = tuple[float, float]
    Outside = Literal["identity", "affine"]

__all__ = ["inverse", "theta_of", "velocities_of", "warp"]

# How far from theirs, relatively, velocities may be that a basis does not reach.
REACHED = 1e-5


def warp(
    x: Tensor,
    velocities: Tensor,
    interval: Interval = (0.0, 1.0),
    outside: Outside = "identity",
    time: float = 1.0,
    *,
    channel_dim: int = 1,
) -> Tensor:
    """Map points by the flow of a velocity field.

    Differentiable by `x` and `velocities`, in float64 exactly and as often as wanted. Large tensors in lower precision
    go through kernels or a table, as activations do.

    Args:
        x: Any shape, any floating dtype.
        velocities: At the knots, the ends of the interval among them: `(N + 1,)`, or `(channels, N + 1)` for a map of
            its own in each channel. On the scale of `x` and `time`: a velocity of 1 goes a way of 1 in a time of 1.
        interval: Where the first and the last knot are.
        outside: What happens beyond them: `"identity"`, nothing, for which the velocities there must be 0; `"affine"`,
            the field goes on straight.
        time: How long the flow lasts; `-time` gives the inverse.
        channel_dim: Dimension of the channels in `x`.

    Returns:
        Same shape and dtype as `x`.

    Raises:
        UsageError: An argument is not as described.
    """
    ends = _checked_interval(interval)
    _check("x", x, velocities, outside, time, channel_dim)
    return _warped(x, velocities, ends, outside, time, channel_dim)


def _warped(
    x: Tensor, velocities: Tensor, interval: Interval, outside: Outside, time: float, channel_dim: int
) -> Tensor:
    (low, high), per_channel = interval, velocities.dim() > 1
    within = outside == "identity"
    entries = velocities.movedim(-1, 0) * time
    if within:
        # A single cell has no knots inside, and nothing moves.
        entries = entries[1:-1] if len(entries) > 2 else 0 * entries[:1]
    function = _identity_outside if within else _affine_outside
    along = channel_dim % x.dim() if per_channel else None
    if torch.compiler.is_compiling():
        return function(x, cast("Sequence[Tensor]", broadcast(entries, x, vector=True, channel_dim=along)), low, high)
    plan = plan_of(
        function,
        function,
        lengths=(len(entries), None, None),
        trained=(entries.requires_grad, False, False),
        per_channel=per_channel,
        kinks=("low", "high") if within else (),
        names=("velocities", "low", "high"),
        pieces=_PIECES[function],
    )
    # What is outside of a table is evaluated one by one.
    reach = (min(2 * low - high, REACH[0]), max(2 * high - low, REACH[1]))
    return evaluate(plan, x, [entries.contiguous(), low, high], along, reach=reach)


def inverse(
    y: Tensor,
    velocities: Tensor,
    interval: Interval = (0.0, 1.0),
    outside: Outside = "identity",
    time: float = 1.0,
    *,
    channel_dim: int = 1,
) -> Tensor:
    """Return where points came from: `warp(inverse(y, ...), ...)` is `y`.

    Args:
        y: Any shape, any floating dtype.
        velocities: As in `warp`.
        interval: As in `warp`.
        outside: As in `warp`.
        time: As in `warp`.
        channel_dim: As in `warp`.

    Returns:
        Same shape and dtype as `y`.

    Raises:
        UsageError: An argument is not as described.
    """
    ends = _checked_interval(interval)
    _check("y", y, velocities, outside, time, channel_dim)
    return _warped(y, velocities, ends, outside, -time, channel_dim)


def velocities_of(theta: Tensor, basis: Tensor, interval: Interval = (0.0, 1.0)) -> Tensor:
    r"""Return the velocities at the knots of a field in the coordinates of the published code.

    There, slopes and intercepts in the N cells of [0, 1] are $B \theta$, interleaved $(s_0, o_0, s_1, o_1, \dots)$, for
    a matrix $B$ called `svd`, `qr`, `rref` or `sparse`. The first two differ from machine to machine, so coordinates
    mean nothing without their matrix.

    Args:
        theta: `(d,)` or `(channels, d)`.
        basis: $B$, `(2 N, d)`.
        interval: Where the field is wanted.

    Returns:
        `(N + 1,)` or `(channels, N + 1)`, as `warp` takes them.

    Raises:
        UsageError: The shapes do not fit, or the interval is none.
    """
    low, high = _checked_interval(interval)
    at_knots = _at_knots(basis)
    if not isinstance(theta, Tensor) or not theta.is_floating_point():
        raise UsageError(f"theta must be a tensor of floating-point numbers, got {_kind(theta)}")
    if theta.dim() not in {1, 2} or theta.shape[-1] != basis.shape[1]:
        raise UsageError(
            f"theta must be ({basis.shape[1]},) or (channels, {basis.shape[1]}) for this basis, got {_shape(theta)}"
        )
    return (high - low) * theta @ at_knots.to(theta.dtype).T


def theta_of(velocities: Tensor, basis: Tensor, interval: Interval = (0.0, 1.0)) -> Tensor:
    """Return the coordinates of a field in the published code; see `velocities_of`, whose inverse this is.

    Args:
        velocities: `(N + 1,)` or `(channels, N + 1)`.
        basis: `(2 N, d)`.
        interval: Where the knots are.

    Returns:
        `(d,)` or `(channels, d)`.

    Raises:
        UsageError: The shapes do not fit, the interval is none, or the basis does not reach the velocities: one of
            fields that stand still at both ends, say, and velocities that do not.
    """
    low, high = _checked_interval(interval)
    at_knots = _at_knots(basis.double())
    if velocities.dim() not in {1, 2} or velocities.shape[-1] != len(at_knots):
        raise UsageError(
            f"velocities must be ({len(at_knots)},) or (channels, {len(at_knots)}) for this basis, "
            f"got {_shape(velocities)}"
        )
    if not velocities.detach().isfinite().all():
        raise UsageError("velocities must be finite, got some that are not")
    # One column a channel; in float64, in which equal velocities have equal coordinates.
    wanted = (velocities.double() / (high - low)).reshape(-1, len(at_knots)).T
    theta = torch.linalg.lstsq(at_knots, wanted).solution
    off = (at_knots @ theta - wanted).detach().abs().max()
    if off > REACHED * wanted.detach().abs().max():
        raise UsageError(f"velocities must be those of a field that the basis reaches; the nearest is off by {off:.1g}")
    found: Tensor = theta.T.reshape(*velocities.shape[:-1], -1)
    return found.to(velocities.dtype)


def _identity_outside(x: Tensor, velocities: Sequence[Tensor], low: Tensor | float, high: Tensor | float) -> Tensor:
    return carried_within(widened(x), velocities, low, high).place.to(x.dtype)


def _affine_outside(x: Tensor, velocities: Sequence[Tensor], low: Tensor | float, high: Tensor | float) -> Tensor:
    return carried_everywhere(widened(x), velocities, low, high).place.to(x.dtype)


def _pieces_within(x: Tensor, velocities: Sequence[Tensor], low: Tensor | float, high: Tensor | float) -> Tensor:
    return carried_within(x, velocities, low, high).piece


def _pieces(x: Tensor, velocities: Sequence[Tensor], low: Tensor | float, high: Tensor | float) -> Tensor:
    return carried_everywhere(x, velocities, low, high).piece


_PIECES: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    _identity_outside: _pieces_within,
    _affine_outside: _pieces,
}


def _at_knots(basis: Tensor) -> Tensor:
    """Return the matrix from coordinates to velocities at the knots of [0, 1], `(N + 1, d)`.

    Raises:
        UsageError: The basis is none.
    """
    if basis.dim() != 2 or basis.shape[0] < 2 or basis.shape[0] % 2:
        raise UsageError(f"basis must be (2 N, d), a slope and an intercept for each of N cells, got {_shape(basis)}")
    slopes, intercepts = basis[0::2], basis[1::2]
    cells = len(slopes)
    starts = torch.arange(cells, dtype=basis.dtype, device=basis.device)[:, None] / cells
    return torch.cat([intercepts + slopes * starts, (intercepts + slopes)[-1:]])


def _checked_interval(interval: Interval) -> Interval:
    """Return two numbers in order.

    Raises:
        UsageError: They are not.
    """
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError, OverflowError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"interval must be two finite numbers (a, b) with a < b, got {interval!r}")
    return low, high


def _check(name: str, x: Tensor, velocities: Tensor, outside: str, time: float, channel_dim: int) -> None:
    """Refuse what is no input of a map.

    Raises:
        UsageError: Naming the argument, what was given and what is allowed.
    """
    for what, tensor in ((name, x), ("velocities", velocities)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise UsageError(f"{what} must be a tensor of floating-point numbers, got {_kind(tensor)}")
    if velocities.dim() not in {1, 2} or velocities.shape[-1] < 2:
        raise UsageError(
            f"velocities must be (N + 1,) or (channels, N + 1) for at least N = 1 cells, got {_shape(velocities)}"
        )
    if outside not in {"identity", "affine"}:
        raise UsageError(f"outside must be 'identity' or 'affine', got {outside!r}")
    if not isinstance(time, int | float) or not math.isfinite(time):
        raise UsageError(f"time must be a finite number, got {time!r}")
    if velocities.dim() > 1:
        _check_channels(name, x, len(velocities), channel_dim)
    # Neither a compiler nor a transform has values to look at.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or velocities.is_meta:
        return
    if not velocities.detach().isfinite().all():
        raise UsageError("velocities must be finite, got some that are not")
    if outside == "identity" and velocities.detach()[..., [0, -1]].any():
        raise UsageError(
            "velocities at both ends must be 0 where nothing moves outside; set them to 0, or say outside='affine'"
        )


def _check_channels(name: str, x: Tensor, channels: int, channel_dim: int) -> None:
    """Refuse tensors that have not as many channels as there are maps.

    Raises:
        UsageError: They have not.
    """
    if not -x.dim() <= channel_dim < x.dim() or x.shape[channel_dim] != channels:
        raise UsageError(
            f"velocities are for {channels} channels in dimension {channel_dim}, but {name} has the shape {_shape(x)}"
        )


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(value: object) -> str:
    return f"one of {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else type(value).__name__
