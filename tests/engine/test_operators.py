"""Compiled regions: plain operations for cheap formulas, one operator for expensive ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import softknee as sk

EXPENSIVE = [("staf", {"terms": 25}), ("linear_spline", {"per_channel": 8}), ("bspline", {})]


class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)
        self.activation = activation

    def forward(self, x):
        return self.activation(self.layer(x))


def graphs_of(model, *inputs):
    """Return the compiled model and the targets of the calls that the compiler was given, forward and backward."""
    from torch._dynamo.backends.common import aot_autograd

    seen = []

    def note(module, _):
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=aot_autograd(fw_compiler=note, bw_compiler=note))
    for x in inputs:
        compiled(x).square().sum().backward()
    return compiled, seen


@pytest.mark.parametrize(("name", "options"), EXPENSIVE)
def test_expensive_formulas_are_one_operator(name, options):
    model = Net(sk.create(name, generator=torch.Generator().manual_seed(1), **options))
    compiled, seen = graphs_of(model, *(torch.randn(n, 8) for n in (3000, 5, 7)))
    assert any("softknee.activation." in target for target in seen)
    assert any("softknee.activation_gradient" in target for target in seen)
    x = torch.randn(40, 8)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)
    parameters = [*model.parameters()]
    for one, other in zip(
        torch.autograd.grad(compiled(x).square().sum(), parameters),
        torch.autograd.grad(model(x).square().sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["swish", "mish", "rational"])
def test_cheap_formulas_stay_plain_operations(name):
    _, seen = graphs_of(Net(sk.create(name)), torch.randn(20, 8))
    assert seen
    assert not any("softknee" in target for target in seen)


@pytest.mark.parametrize(("name", "options"), EXPENSIVE)
def test_exported_programs_need_no_operator_of_ours(name, options):
    model, x = Net(sk.create(name, **options)), torch.randn(6, 8)
    program = torch.export.export(model, (x,))
    assert not any("softknee" in str(node.target) for node in program.graph.nodes)
    assert torch.allclose(program.module()(x), model(x), atol=1e-5)


def test_the_operator_passes_torchs_own_checks():
    from softknee._engine.operators import activation

    module = sk.create("bspline")
    values = [value.detach().requires_grad_() for value in module._values()]
    x = torch.randn(300, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(activation, (x, values, module._plans[0].number, -1, [-8.0, 8.0]), test_utils=checks)
