"""Automatic mixed precision: low inputs, parameters in float32, and gradients of them as precise as these."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import CASES, Network, activation, batch, loss_of

import softknee as sk

LOW = torch.bfloat16


@pytest.mark.parametrize("engine", ["auto", "fused", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_activations_take_what_layers_give(case, engine):
    network = Network(case)
    seen = []
    network.act.register_forward_hook(lambda _, inputs, y: seen.extend([inputs[0].dtype, y.dtype]))
    with torch.autocast("cpu", dtype=LOW), sk.engine(engine):
        loss = loss_of(network(batch()).float())
    loss.backward()
    assert seen == [LOW, LOW]
    exact = copy.deepcopy(network)
    exact.zero_grad()
    loss_of(exact(batch())).backward()
    for one, other in zip(network.parameters(), exact.parameters(), strict=True):
        assert one.dtype == one.grad.dtype == torch.float32
        torch.testing.assert_close(one.grad, other.grad, rtol=0.05, atol=0.02 * float(other.grad.abs().max()))


@pytest.mark.parametrize("case", ["scalar", "per-channel", "vector", "vector-per-channel", "gated", "table"])
def test_sums_over_elements_are_as_precise_as_float32(case):
    """A thousandth part of a sum over 32,768 elements is lost where it is added up in bfloat16."""
    act = activation(case)
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(3)).to(LOW)
    with torch.autocast("cpu", dtype=LOW), sk.engine("table" if case == "table" else "fused"):
        act(x).float().mul(1 / 4096).sum().backward()
    exact = activation(case).double()
    with sk.engine("eager"):
        exact(x.double()).mul(1 / 4096).sum().backward()
    for one, other in zip(act.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-3, atol=1e-3 * float(other.grad.abs().max()))


@pytest.mark.parametrize("native", [True, False])
def test_tables_are_made_and_differentiated_in_float32(native, monkeypatch):
    """Also where that happens inside of the cast region, and by operations of torch."""
    if not native:
        monkeypatch.setattr("softknee._engine.fit._library", lambda: None)
    torch.manual_seed(8 + native)  # no table made before stands for these
    act = sk.create("bspline", engine="table")
    x = torch.randn(4096, generator=torch.Generator().manual_seed(3))
    outcomes = []
    for engine in ("table", "eager"):
        act.zero_grad()
        with torch.autocast("cpu", dtype=LOW), sk.engine(engine):
            y = act(x)
            y.sum().backward()
        outcomes.append([y.detach(), act.coefficients.grad])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_gradient_scaling():
    """A step that overflows in float16 is left out, the next is taken."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), sk.create("swish"), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=10)
    before = network[1].beta.clone()
    steps = 0
    while torch.equal(network[1].beta, before) and steps < 30:
        with torch.autocast("cpu", dtype=torch.float16):
            loss = network(batch()).float().square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        steps += 1
    assert 1 < steps < 30
    assert torch.isfinite(network[1].beta).all()
