from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from softknee import nn
from softknee.nn.siren import siren_init_


@pytest.mark.parametrize(("first", "bound"), [(True, 1 / 64), (False, (6 / 64) ** 0.5 / 30)])
def test_weights_are_uniform_within_the_papers_bounds(first, bound):
    linear = torch.nn.Linear(64, 500)
    bias = linear.bias.clone()
    assert siren_init_(linear, first=first) is linear
    assert linear.weight.abs().max() <= bound
    assert linear.weight.abs().max() > 0.999 * bound
    assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert torch.equal(linear.bias, bias)


def test_weights_come_from_the_generator():
    first, again = (
        siren_init_(torch.nn.Linear(3, 5), generator=torch.Generator().manual_seed(1)).weight for _ in range(2)
    )
    assert torch.equal(first, again)


def test_inputs_of_sines_stay_normal_in_a_deep_network():
    """Standard normal inputs of a sine give a variance of 1/2, and the next layer makes that 1 again."""
    generator = torch.Generator().manual_seed(2)
    x = 2 * torch.rand(2000, 2, generator=generator) - 1
    widths = [2, 256, 256, 256, 256]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = siren_init_(torch.nn.Linear(inputs, outputs, bias=False), first=i == 0, generator=generator)
        inner = 30 * linear(x)
        x = nn.Sine()(linear(x))
    assert inner.std().item() == pytest.approx(1, abs=0.1)
