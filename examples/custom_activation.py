"""A file to hand in: Swish with a slope of its own at each place, learned with the network's weights.

`softknee bench mls --submission examples/custom_activation.py` evaluates it; with `--check-only` nothing is trained.
The public benchmark takes the same class. See docs/mls.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CustomActivation(nn.Module):
    """`x sigmoid(a x)`; a new instance, made without arguments, stands at every place of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`: images `(batch, channels, height, width)` or rows `(batch, units)`."""
        return x * torch.sigmoid(self.slope * x)
