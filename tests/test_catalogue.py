from __future__ import annotations

import pytest
import torch

from softknee._catalogue import CATALOGUE, create
from softknee.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_activation_is_what_its_spec_says(spec, check):
    check(spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "soft_exponential", "staf"])
def test_inductor_agrees_with_eager(name):
    options = {"generator": torch.Generator().manual_seed(1)} if name == "staf" else {}
    module = create(name, **options)
    x = torch.linspace(-3, 3, 40).view(4, 10)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True)
    assert torch.allclose(compiled(x), module(x), atol=1e-5)
    got, expected = (
        torch.autograd.grad(f(z).sum(), z)[0] for f in (compiled, module) for z in [x.clone().requires_grad_()]
    )
    assert torch.allclose(got, expected, atol=1e-4)
