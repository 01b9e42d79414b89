"""One weight under noise on the loss that an activation makes: its density computed, and sampled beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee import _catalogue
from softknee._diagnose.dynamics.dynamics import Diffusion, fokker_planck, langevin
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.standalone import standalone_svg
from softknee._report.svg import tick_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from softknee._diagnose.dynamics.dynamics import Potential
    from softknee._report.svg import Svg

BINS = 50
SIZE = (520.0, 320.0)


@dataclass(frozen=True, eq=False)
class DynamicsDemo:
    """A density over time beside the histogram of as many chains.

    Attributes:
        activation: Its name.
        diffusion: The density by the Fokker-Planck equation.
        loss: The loss at the cells.
        centres: Centres of the bins.
        histogram: Density of the chains at the same times, `(times, bins)`.
    """

    activation: str
    diffusion: Diffusion
    loss: Tensor
    centres: Tensor
    histogram: Tensor

    def distance(self) -> Tensor:
        """Return half the integral of the absolute difference of both densities at each time, from 0 to 1."""
        cells = len(self.diffusion.x) // len(self.centres)
        coarse = self.diffusion.density.reshape(len(self.histogram), -1, cells).mean(2)
        return (coarse - self.histogram).abs().sum(1) * float(self.centres[1] - self.centres[0]) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "activation": self.activation,
            "diffusion": self.diffusion.to_dict(),
            "loss": self.loss.tolist(),
            "centres": self.centres.tolist(),
            "histogram": self.histogram.tolist(),
        }

    def plot(self) -> Svg:
        """Draw the densities as lines, the chains as dots, the stationary density thin."""
        x, centres = self.diffusion.x.tolist(), self.centres.tolist()
        lines = [Series("where it ends", x, self.diffusion.stationary.tolist(), hue=0, weight="thin")]
        for index, time in enumerate(self.diffusion.times):
            density, dots = self.diffusion.density[index].tolist(), self.histogram[index].tolist()
            lines += [
                Series(f"density at time {tick_text(time)}", x, density, hue=index + 1),
                Series(f"chains at time {tick_text(time)}", centres, dots, hue=index + 1, weight="dots"),
            ]
        times = ", ".join(map(tick_text, self.diffusion.times))
        description = f"Density of the weight at times {times}: lines by the Fokker-Planck equation, dots by chains."
        title = f"One weight on the loss of {self.activation}"
        return line_chart(lines, title=title, description=description, axes=Axes(x="weight"), size=SIZE)

    def write_svg(self, path: Path) -> None:
        """Write the drawing as an SVG file, which is replaced as a whole."""
        write_atomic(path, standalone_svg(self.plot()))


def activation_potential(
    activation: str | Callable[[Tensor], Tensor],
    *,
    inputs: Sequence[float] = (1.0,),
    targets: Sequence[float] = (0.5,),
) -> Potential:
    """Return the loss of one weight in front of an activation as a function of it: `mean (phi(w x) - y)^2 / 2`.

    Where phi is flat, so is the loss: a ReLU's weight below 0 gets no gradient from positive inputs, and only noise
    brings it back.

    Args:
        activation: A name of the catalogue, an expression, or a function from tensor to tensor.
        inputs: x.
        targets: y, as many.

    Returns:
        A function from a tensor of weights to their losses, in float64.

    Raises:
        UsageError: The activation is not one of single elements, or there are not as many targets as inputs.
    """
    if not inputs or len(inputs) != len(targets):
        raise UsageError(f"there must be as many targets as inputs, at least one: {len(targets)} and {len(inputs)}")
    function: Callable[[Tensor], Tensor]
    if isinstance(activation, str):
        choice = _catalogue.parse_choice(activation)
        if choice.spec.kind != "elementwise":
            raise UsageError(f"one weight needs an activation of single elements; {choice.label} is not one")
        function = choice.build(channels=1, generator=torch.Generator().manual_seed(0)).double().eval()
    else:
        function = activation
    x, y = (torch.tensor(list(values), dtype=torch.float64) for values in (inputs, targets))

    def loss(weights: Tensor) -> Tensor:
        outputs = function((weights[..., None] * x).reshape(-1, 1)).reshape(*weights.shape, len(x))
        return (outputs - y).square().mean(-1) / 2

    return loss


def dynamics_demo(
    activation: str,
    *,
    beta: float = 20.0,
    times: Sequence[float] = (0.5, 2.0, 8.0),
    start: tuple[float, float] = (-1.0, 0.3),
    span: tuple[float, float] = (-5.0, 5.0),
    chains: int = 4000,
    rate: float = 0.02,
    seed: int = 0,
) -> DynamicsDemo:
    """Let a weight move under noise on the loss of an activation, by equation and by chains.

    Args:
        activation: A name of the catalogue or an expression.
        beta: Inverse temperature.
        times: When to look, ascending; a chain has made `time / rate` steps by then.
        start: Mean and standard deviation of the weight at first.
        span: Where the weight may be; nothing leaves, chains are reflected.
        chains: How many.
        rate: Of the chains.
        seed: Of the chains.

    Returns:
        Both densities.

    Raises:
        UsageError: An option is outside its range.
    """
    potential = activation_potential(activation)
    low, high = span
    found = fokker_planck(potential, beta=beta, times=times, low=low, high=high, start=start)
    generator = torch.Generator().manual_seed(seed)
    state = start[0] + start[1] * torch.randn(chains, generator=generator, dtype=torch.float64)
    steps = [max(1, round(time / rate)) for time in times]
    states = langevin(potential, state, rate=rate, beta=beta, steps=steps[-1], bounds=span, seed=seed + 1)
    rows = [torch.histc(states[step - 1], BINS, low, high) * BINS / ((high - low) * chains) for step in steps]
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    with torch.no_grad():
        loss = potential(found.x)
    return DynamicsDemo(activation, found, loss, (edges[1:] + edges[:-1]) / 2, torch.stack(rows))
