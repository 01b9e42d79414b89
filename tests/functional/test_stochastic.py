"""Random forms draw what they say; surrogates leave the value alone."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import special, stats

from softknee import functional, nn
from softknee.functional import stochastic

SAMPLED = {
    functional.noisy_relu_sampled: (),
    functional.prob_act_sampled: (0.4,),
    functional.elastic_relu_sampled: (0.3,),
    functional.stoch_act_sampled: (0.4,),
}


def test_normal_numbers_are_quantiles(monkeypatch):
    """All steps near the ends and the middle, and every 97th between."""
    last = 2**24
    picked = torch.cat([torch.arange(0, last, 97), torch.arange(3000), torch.arange(last - 3000, last)])
    uniform = (picked.double() * stochastic.STEP).float()
    monkeypatch.setattr(stochastic, "_uniform", lambda x, _: uniform)
    exact = special.ndtri((uniform.double() + stochastic.STEP / 2).numpy())
    assert abs(stochastic._normal(uniform, None).double().numpy() - exact).max() < 6.4e-6


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_probact_adds_normal_noise(engine):
    torch.manual_seed(1)
    noise = nn.ProbAct(sigma=2.0, engine=engine)(torch.full((100_000,), -1.0)).detach() / 2
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_noisy_relu_has_the_variance_of_a_sigmoid(engine):
    torch.manual_seed(2)
    y = nn.NoisyReLU(engine=engine)(torch.full((100_000,), 0.7)).detach()
    scale = math.sqrt(1 / (1 + math.exp(-0.7)))
    above = stats.truncnorm(-0.7 / scale, math.inf, loc=0.7, scale=scale)
    assert stats.kstest(y[y > 0].numpy(), above.cdf).pvalue > 1e-3
    assert (y == 0).double().mean().item() == pytest.approx(stats.norm.cdf(-0.7 / scale), abs=0.005)


@pytest.mark.parametrize(("function", "arguments"), SAMPLED.items(), ids=[f.__name__ for f in SAMPLED])
def test_random_forms_are_differentiated_at_their_noise(function, arguments):
    def at_noise(x, *values):
        return function(x, *values, generator=torch.Generator().manual_seed(3))

    x = torch.linspace(-3, 3.03, 41, dtype=torch.float64, requires_grad=True)
    values = [torch.full_like(x, value).requires_grad_() for value in arguments]
    assert torch.autograd.gradcheck(at_noise, (x, *values))
    assert torch.autograd.gradgradcheck(at_noise, (x, *values))


@pytest.mark.parametrize(("function", "arguments"), SAMPLED.items(), ids=[f.__name__ for f in SAMPLED])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_random_forms_are_finite(function, arguments, dtype):
    x = torch.cat([torch.linspace(-1e4, 1e4, 401), torch.tensor([0.0, -0.0, 1e-30])]).to(dtype).requires_grad_()
    y = function(x, *arguments)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == slope.dtype == dtype
    assert y.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize(("title", "options"), [("ProbAct", {"sigma": 0.5}), ("ElasticReLU", {}), ("StochAct", {})])
def test_evaluation_is_the_mean_of_training(title, options):
    torch.manual_seed(4)
    module, x = getattr(nn, title)(**options), torch.linspace(-3, 3, 7).repeat(100_000, 1)
    mean = module(x).detach().mean(0)
    assert torch.allclose(mean, module.eval()(x[0]), atol=0.01)


def test_sugar_is_relu_forward_and_bsilu_backward():
    x = torch.linspace(-6, 6, 49, dtype=torch.float64, requires_grad=True)
    y = functional.sugar(x)
    assert torch.equal(y, x.relu())
    got, wanted = (torch.autograd.grad(z.sum(), x)[0] for z in (y, functional.bsilu(x)))
    assert torch.allclose(got, wanted, atol=1e-12)
