from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from subjects import (
    CHANNELS,
    DEFAULTS,
    normal,
)
from torch.autograd import grad
from torch.nn import functional as F

from softknee._errors import UsageError

LOWER, UPPER = 0.125, 1 / 3


def noise(*shape: int, seed: int = 0, module=None) -> torch.Tensor:
    """The slopes that a forward pass drew."""
    from softknee.nn import RReLU

    torch.manual_seed(seed)
    x = -torch.ones(shape, device="cpu")
    return ((module or RReLU(engine="fused"))(x) / x).detach()


def rrelu(**options):
    from softknee.nn import RReLU

    return RReLU(engine="fused", **options)


KINDS = {
    "shared": ((400, 50), {}),
    "rows": ((20, 5, 200), {"per_channel": 5}),
    "columns": ((4000, 5), {"per_channel": 5}),
}


@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_drawn_slopes_are_uniform(shape, options):
    slopes = noise(*shape, module=rrelu(**options))
    assert rrelu(**options).engine == "fused"
    uniform = stats.uniform(LOWER, UPPER - LOWER)
    assert stats.kstest(slopes.flatten().numpy(), uniform.cdf).pvalue > 1e-3
    # Neighbours along every dimension are independent.
    for dim in range(slopes.dim()):
        one, other = slopes.narrow(dim, 0, slopes.shape[dim] - 1), slopes.narrow(dim, 1, slopes.shape[dim] - 1)
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()
        assert abs(correlation) < 5 / math.sqrt(one.numel())
    assert len(slopes.unique()) > 0.98 * slopes.numel()


@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_the_seed_governs_what_is_drawn(shape, options):
    module = rrelu(**options)
    assert torch.equal(noise(*shape, module=module), noise(*shape, module=module))
    assert not torch.equal(noise(*shape, module=module), noise(*shape, module=module, seed=1))
    torch.manual_seed(0)
    x = -torch.ones(shape)
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_backward_uses_the_slopes_of_forward(shape, options, dtype):
    module = rrelu(trainable=True, **options)
    x, g = normal(*shape).to(dtype).requires_grad_(), normal(*shape, seed=2).to(dtype)
    y = module(x)
    once = grad(y, [x, *module.parameters()], g, retain_graph=True)
    again = grad(y, [x, *module.parameters()], g)
    assert all(map(torch.equal, once, again))
    if dtype == torch.float32:
        torch.testing.assert_close(once[0], torch.where(x > 0, g, g * y / x), rtol=1e-5, atol=1e-6)
        share = ((y / x - LOWER) / (UPPER - LOWER)).detach()
        flowing = torch.where(x > 0, 0.0, g * x).detach()
        by_upper = (flowing * share).double()
        dims = [*range(x.dim())] if not options else [dim for dim in range(x.dim()) if dim != 1]
        torch.testing.assert_close(once[2].double(), by_upper.sum(dims).view(-1), rtol=1e-3, atol=1e-2)


def test_random_activations_twice_differentiated():
    module = rrelu()
    x, g, v = normal(40, 5).requires_grad_(), normal(40, 5, seed=2).requires_grad_(), normal(40, 5, seed=3)
    y = module(x)
    (by_x,) = grad(y, x, g, create_graph=True)
    slopes = torch.where(x > 0, 1.0, y / x).detach()
    by_g, by_x_again = grad(by_x, [g, x], v, materialize_grads=True)
    torch.testing.assert_close(by_g, v * slopes, rtol=1e-5, atol=1e-6)
    assert not by_x_again.any()


def test_random_activations_say_how_far_they_can_be_differentiated():
    module = rrelu()
    x = normal(40, 5).requires_grad_()
    (by_x,) = grad(module(x).sum(), x, create_graph=True)
    (second,) = grad(by_x.square().sum(), x, retain_graph=True)
    assert not second.any()
    with pytest.raises(UsageError, match="can be differentiated twice by its input, and no further"):
        grad(by_x.square().sum(), x, create_graph=True)


def test_evaluation_draws_nothing():
    module = rrelu().eval()
    x = -torch.ones(50)
    before = torch.get_rng_state()
    torch.testing.assert_close(module(x), x * (LOWER + UPPER) / 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_recomputed_activations_draw_the_same():
    module, x = rrelu(), normal(300).requires_grad_()
    torch.manual_seed(0)
    y = module(x)
    wanted = grad(y.square().sum(), x)[0]
    torch.manual_seed(0)
    again = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    assert torch.equal(y, again)
    assert torch.equal(grad(again.square().sum(), x)[0], wanted)


def test_noise_does_not_need_a_default_device():
    with torch.device("meta"):
        assert 0.125 < noise(100).mean() < 1 / 3


def test_dropout_draws_the_same_after_a_random_activation_as_seeded():
    """What follows depends on the seed alone, not on how large the activation's input was."""

    def following(size):
        torch.manual_seed(0)
        rrelu()(-torch.ones(size))
        return F.dropout(torch.ones(50))

    assert torch.equal(following(10), following(5000))


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_only_random_activations_draw(case):
    x = normal(6, CHANNELS).requires_grad_()
    before = torch.get_rng_state()
    case.module()(x).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
