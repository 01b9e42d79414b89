"""A recurrent network that reads square grey images row by row, with its activations as modules."""

from __future__ import annotations

from collections import OrderedDict
from math import isqrt
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import nn

from softknee._bench.activations import build_activation, units_before
from softknee._bench.streams import Stream, stream_generator, stream_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from softknee._bench.protocol import PlaceName, Recipe
    from softknee._bench.submission import Entry

# The layers of a cell with the activation, by its place.
PLACES: Mapping[PlaceName, tuple[str, ...]] = MappingProxyType(
    {"candidate": ("candidate",), "gates": ("update", "reset")}
)


def build_gru(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build a gated cell that reads the rows, and a linear layer on its last state; see `build_model`.

    Args:
        recipe: Its widths are pixels, units of the state, classes; its place is where the activation stands.
        choice: The activation.
        seed: Of the run.

    Returns:
        `(batch, pixels)` in, logits out.
    """
    side, units = isqrt(recipe.widths[0]), recipe.widths[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, Stream.WEIGHTS))
        cell = Cell(side, units, units_before(choice, units), place=recipe.place)
        last = nn.Linear(units, recipe.widths[-1])
        # For networks inside of activations.
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION))
        generator = stream_generator(seed, Stream.ACTIVATION)
        for path in PLACES[recipe.place]:
            cell.get_submodule(path).activation_0 = build_activation(choice, units, generator=generator)
    return nn.Sequential(OrderedDict(rows=nn.Unflatten(1, (side, side)), cell=cell, linear_1=last))


class Cell(nn.Module):
    r"""A gated recurrent unit (Cho et al. 2014): $h \leftarrow h + z\,(\phi(W [x, r h] + b) - h)$.

    The gates $z$ (`update`) and $r$ (`reset`) are layers on $[x, h]$, usually with sigmoids; $\phi$ (`candidate`) is
    usually a tanh. Activations at one of the two places are left to be set.

    Args:
        inputs: Numbers of a row.
        units: Of the state, which begins at zero.
        before: Units that an activation to be set gets.
        place: Where it stands.
    """

    update: nn.Sequential
    reset: nn.Sequential
    candidate: nn.Sequential

    def __init__(self, inputs: int, units: int, before: int, *, place: PlaceName) -> None:
        super().__init__()
        self.units = units
        for path, usual in (("update", nn.Sigmoid()), ("reset", nn.Sigmoid()), ("candidate", nn.Tanh())):
            if path in PLACES[place]:
                layers = OrderedDict(linear_0=nn.Linear(inputs + units, before), activation_0=nn.Identity())
            else:
                layers = OrderedDict(linear=nn.Linear(inputs + units, units), usual=usual)
            self.add_module(path, nn.Sequential(layers))

    def forward(self, rows: Tensor) -> Tensor:
        """Read rows, the first one first.

        Args:
            rows: `(batch, rows, inputs)`.

        Returns:
            The last state, `(batch, units)`.
        """
        state = rows.new_zeros(len(rows), self.units)
        for row in rows.unbind(1):
            both = torch.cat([row, state], 1)
            candidate = self.candidate(torch.cat([row, self.reset(both) * state], 1))
            state = state + self.update(both) * (candidate - state)
        return state
