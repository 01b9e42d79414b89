"""How weights move under noise: Langevin dynamics, the Fokker-Planck equation of their density, one slope that learns.

On small problems whose answers are known, to teach and to check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._errors import UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Potential = Callable[[Tensor], Tensor]

CELLS = 400
# Cells are dense columns of a matrix that is squared a few dozen times.
MOST_CELLS = 2000
# Terms of an exponential series whose argument is at most 1: the next one is below 1e-17.
TERMS = 18


def langevin(
    loss: Potential,
    start: Tensor,
    *,
    rate: float,
    beta: float,
    steps: int,
    every: int = 1,
    burn: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Tensor:
    """Run chains of stochastic gradient Langevin dynamics (Welling & Teh 2011).

    A step is `w - rate g + sqrt(2 rate / beta) N(0, 1)`.
    The chains settle at the density `exp(-beta loss)` as the rate goes to 0. At a finite rate they are wider: on
    `lambda w^2 / 2` the variance is `1 / (beta lambda (1 - rate lambda / 2))`, and from `rate = 2 / lambda` on they
    diverge.

    Args:
        loss: A function of all chains, of the shape of `start`, that returns a loss for each chain or each element; it
            may draw its own part of the data every time.
        start: Where the chains begin, the first dimension going over chains.
        rate: Length of a step, positive.
        beta: Inverse temperature, positive; infinity for plain gradient descent.
        steps: How many.
        every: Keep one state in so many.
        burn: How many steps to leave out first.
        bounds: Where states that leave are reflected, if anywhere.
        seed: Of the noise.

    Returns:
        `(kept, *start.shape)`.

    Raises:
        UsageError: An option is outside its range, or chains left the range of the dtype.
    """
    _check_positive(rate=rate, beta=beta)
    _check_whole(1, steps=steps, every=every)
    _check_whole(0, burn=burn)
    if burn >= steps:
        raise UsageError(f"burn must be below the {steps} steps, got {burn}")
    generator = torch.Generator(start.device).manual_seed(seed)
    state, kept = start.detach().clone(), []
    for step in range(steps):
        with torch.enable_grad():
            moving = state.requires_grad_()
            (slope,) = torch.autograd.grad(loss(moving).sum(), moving)
        noise = torch.randn(state.shape, generator=generator, dtype=state.dtype, device=state.device)
        state = moving.detach() - rate * slope + math.sqrt(2 * rate / beta) * noise
        if bounds is not None:
            state = _reflected(state, *bounds)
        if step >= burn and (step - burn) % every == 0:
            kept.append(state.clone())
    if not torch.isfinite(state).all():
        raise UsageError(f"the chains diverged within {steps} steps; take a rate below {rate}")
    return torch.stack(kept)


def _reflected(state: Tensor, low: float, high: float) -> Tensor:
    """Mirror what went beyond an end back inside."""
    state = torch.where(state < low, 2 * low - state, state)
    return torch.where(state > high, 2 * high - state, state).clamp(low, high)


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A density over time.

    Attributes:
        x: Centres of the cells.
        times: Times.
        density: `(times, cells)`, in float64.
        stationary: The density it tends to, exp(-beta potential) over the cells.
    """

    x: Tensor
    times: tuple[float, ...]
    density: Tensor
    stationary: Tensor

    @property
    def width(self) -> float:
        """Width of a cell."""
        return float(self.x[1] - self.x[0])

    @property
    def mass(self) -> Tensor:
        """Integral of the density at each time; 1 up to rounding."""
        return self.density.sum(1) * self.width

    @property
    def mean(self) -> Tensor:
        """Mean at each time."""
        return (self.density * self.x).sum(1) * self.width

    @property
    def variance(self) -> Tensor:
        """Variance at each time."""
        return (self.density * (self.x - self.mean[:, None]).square()).sum(1) * self.width

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "x": self.x.tolist(),
            "times": list(self.times),
            "density": self.density.tolist(),
            "stationary": self.stationary.tolist(),
        }


def fokker_planck(
    potential: Potential,
    *,
    beta: float,
    times: Sequence[float],
    low: float,
    high: float,
    start: tuple[float, float] | Potential,
    cells: int = CELLS,
) -> Diffusion:
    """Solve `dp/dt = d/dx (L' p) + (1/beta) d^2p/dx^2` in one dimension, for the density that `langevin` samples.

    Finite volumes with the fluxes of Scharfetter and Gummel (1969; of Chang and Cooper 1970 likewise): `exp(-beta L)`
    at the cells' centres is stationary exactly, whatever their width, and the error is of second order in it. Time is
    exact: the exponential of the generator is a series of non-negative terms, squared, so that the density stays
    non-negative and its mass 1 up to rounding. Nothing leaves through either end.

    Args:
        potential: L, a function of float64 numbers.
        beta: Inverse temperature, positive.
        times: When to give the density, ascending, from 0 on.
        low: Left end.
        high: Right end.
        start: Mean and standard deviation of a normal density at time 0, or a density as a function; either is scaled
            to mass 1 between the ends.
        cells: Number of cells, 10 to 2000.

    Returns:
        The density at the times.

    Raises:
        UsageError: An option is outside its range, or potential or start are not finite or not positive somewhere.
    """
    _check_positive(beta=beta)
    if isinstance(cells, bool) or not isinstance(cells, int) or not 10 <= cells <= MOST_CELLS:
        raise UsageError(f"cells must be a whole number from 10 to {MOST_CELLS}, got {excerpt(cells)}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"low must be below high, got {excerpt(low)} and {excerpt(high)}")
    moments = [float(time) for time in times]
    if not moments or moments[0] < 0 or any(b < a for a, b in pairwise(moments)):
        raise UsageError(f"times must ascend from 0 or later, got {excerpt(list(times))}")
    edges = torch.linspace(low, high, cells + 1, dtype=torch.float64)
    x, width = (edges[1:] + edges[:-1]) / 2, (high - low) / cells
    with torch.no_grad():
        levels = beta * potential(x)
        share = _start(start, edges, x)
    if levels.shape != x.shape or not torch.isfinite(levels).all():
        raise UsageError("the potential must return a finite number for each of its inputs between low and high")
    rates = _generator(levels, beta, width)
    density, now, known = [], 0.0, (0.0, torch.eye(cells, dtype=torch.float64))
    for time in moments:
        gap = time - now
        if not math.isclose(gap, known[0], rel_tol=1e-12):
            known = (gap, _exponential(rates, gap))
        share, now = known[1] @ share, time
        density.append(share / width)
    stationary = torch.exp(levels.min() - levels)
    return Diffusion(x, tuple(moments), torch.stack(density), stationary / (stationary.sum() * width))


def _check_positive(**values: float) -> None:
    """Check that numbers are positive.

    Raises:
        UsageError: One is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"{name} must be a positive number, got {excerpt(value)}")


def _check_whole(least: int, **values: int) -> None:
    """Check that numbers are whole.

    Raises:
        UsageError: One is not, or is below the least.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {excerpt(value)}")


def _start(start: tuple[float, float] | Potential, edges: Tensor, x: Tensor) -> Tensor:
    """Return the share of each cell at time 0.

    Raises:
        UsageError: It is no density.
    """
    if callable(start):
        share = start(x).double()
    else:
        mean, deviation = start
        _check_positive(deviation=deviation)
        share = torch.special.ndtr((edges - mean) / deviation).diff()
    if share.shape != x.shape or not bool((share >= 0).all()) or not 0 < float(share.sum()) < math.inf:
        raise UsageError("the start must be a density, with some of its mass between low and high")
    return share / share.sum()


def _generator(levels: Tensor, beta: float, width: float) -> Tensor:
    """Return the matrix of rates between cells, from column to row; columns sum to 0."""
    rise = levels.diff()
    right, left = (_bernoulli(one) / (beta * width**2) for one in (rise, -rise))
    off = torch.diag(right, -1) + torch.diag(left, 1)
    return off - torch.diag(off.sum(0))


def _bernoulli(u: Tensor) -> Tensor:
    """Return `u / (exp(u) - 1)`."""
    small = u.abs() < 1e-5
    safe = torch.where(small, torch.ones_like(u), u)
    return torch.where(small, 1 - u / 2 + u.square() / 12, safe / torch.expm1(safe))


def _exponential(generator: Tensor, time: float) -> Tensor:
    """Return `exp(generator * time)` for a matrix of rates: non-negative, with columns that sum to 1.

    Over a short time it is `e^-r sum_k (r Q)^k / k!` with `Q` stochastic (uniformisation), which subtracts nothing;
    that is squared. Each squaring would double the error of the columns' sums, so they are made 1 again.
    """
    fastest = float(-generator.diagonal().min()) * time
    if fastest == 0:
        return torch.eye(len(generator), dtype=generator.dtype)
    squarings = max(0, math.ceil(math.log2(fastest)))
    rate = fastest / 2**squarings
    unit = torch.eye(len(generator), dtype=generator.dtype)
    moved = rate * unit + generator * (time / 2**squarings)
    total = term = unit
    for k in range(1, TERMS + 1):
        term = moved @ term / k
        total = total + term
    for _ in range(squarings):
        total = total / total.sum(0)
        total = total @ total
    return total / total.sum(0)


def prelu_student(*, start: float, teacher: float, rate: float, steps: int, runs: int, seed: int = 0) -> Tensor:
    """Train the slope of a PReLU to that of another by online gradient descent, many runs at the same time.

    Inputs are standard normal, one a step, the loss half the squared error. A step multiplies the distance by
    `1 - rate x^2` for negative inputs, so in expectation `a_t - a* = (a_0 - a*) (1 - rate / 2)^t`.

    Args:
        start: Slope of the student at first.
        teacher: Slope to learn.
        rate: Length of a step, positive.
        steps: How many.
        runs: How many students.
        seed: Of the inputs.

    Returns:
        Slopes at times 0 to `steps`, `(steps + 1, runs)`, in float64.

    Raises:
        UsageError: An option is outside its range.
    """
    _check_positive(rate=rate)
    _check_whole(1, steps=steps, runs=runs)
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.full((runs,), float(start), dtype=torch.float64)
    goal = torch.full_like(slopes, teacher)
    history = [slopes]
    for _ in range(steps):
        x = torch.randn(1, runs, generator=generator, dtype=torch.float64)
        with torch.enable_grad():
            moving = slopes.clone().requires_grad_()
            loss = (F.prelu(x, moving) - F.prelu(x, goal)).square().sum() / 2
            (slope,) = torch.autograd.grad(loss, moving)
        slopes = slopes - rate * slope
        history.append(slopes)
    return torch.stack(history)
