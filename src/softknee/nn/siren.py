"""Weights for layers in front of a sine."""

from __future__ import annotations

import math

import torch
from torch import nn


def siren_init_(
    linear: nn.Linear, *, first: bool = False, w0: float = 30.0, generator: torch.Generator | None = None
) -> nn.Linear:
    r"""Draw a layer's weights for a `Sine(omega=w0)` behind it, so that sines' inputs stay normal in deep networks.

    With $n$ inputs: from $U(-1/n, 1/n)$ in the first layer, whose inputs are coordinates in $[-1, 1]$, else from
    $U(-\sqrt{6/n} / \omega_0, \sqrt{6/n} / \omega_0)$. Biases are left as they are, as in the authors' code.

    Args:
        linear: The layer.
        first: Whether it is the network's first.
        w0: Frequency of the sine.
        generator: Source of the weights, torch's global one by default.

    Returns:
        The layer.
    """
    inputs = linear.in_features
    bound = 1 / inputs if first else math.sqrt(6 / inputs) / w0
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
    return linear
