from __future__ import annotations

import pytest
import torch

from softknee import nn
from softknee.functional import melu, plu, splash, srelu
from softknee.functional.hinges import melu_knots, splash_knots
from softknee.testing import check_derivatives, check_finite, check_values

X = torch.linspace(-6, 6, 241, dtype=torch.float64)


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_plu_is_an_s_shaped_relu():
    for alpha, corner in ((0.1, 1.0), (0.5, 2.0)):
        assert torch.equal(plu(X, alpha, corner), srelu(X, -corner, alpha, corner, alpha))


def test_the_hats_are_dyadic():
    """Centres 2; 1, 3; 0.5, 1.5, 2.5, 3.5, each reaching to its neighbours' edges."""
    centres, halves = [2, 1, 3, 0.5, 1.5, 2.5, 3.5], [2, 1, 1, 0.5, 0.5, 0.5, 0.5]
    heights = drawn(7)
    expected = X.relu() + sum(
        c * (half - (X - centre).abs()).relu() for c, centre, half in zip(heights, centres, halves, strict=True)
    )
    assert torch.allclose(melu(X, heights), expected, atol=1e-13)
    assert melu_knots(3) == (0, 1, 2, 3, 4)
    assert melu_knots(7) == tuple(k / 2 for k in range(9))
    assert melu_knots(4) == (0, 0.5, 1, 2, 3, 4)


def test_the_derivative_at_every_bend_is_the_slope_left_of_it():
    heights, slopes = drawn(7), (drawn(4, 2), drawn(4, 3), torch.tensor([0.0, 1.0, 2.0, 2.5], dtype=torch.float64))
    for function, places in (
        (lambda x: melu(x, heights, 0.25), melu_knots(7)),
        (lambda x: splash(x, *slopes), splash_knots(4)),
    ):
        x = torch.tensor(places, dtype=torch.float64)
        here, left = (
            torch.autograd.grad(function(z).sum(), z)[0]
            for z in (x.requires_grad_(), (x - 1e-9).detach().requires_grad_())
        )
        assert torch.allclose(here, left, atol=1e-13)


def test_hats_that_add_up_to_a_line_have_its_slope_in_the_middle():
    """Sums of derivatives that are each zero at a bend would not."""
    x = torch.tensor([2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(melu(x, (0.0, -1.0, 1.0)).sum(), x)
    assert slope.item() == 2


def test_hinges_further_out():
    assert nn.SPLASH(terms=6).hinges.tolist() == [0, 1, 2, 2.5, 3, 3.5]
    assert nn.SPLASH(terms=2).hinges.tolist() == [0, 1]
    assert splash_knots(2) == (-1, 0, 1)
    assert [name for name, _ in nn.SPLASH().named_parameters()] == ["right_slopes", "left_slopes"]


@pytest.mark.parametrize("module", [nn.MeLU(), nn.MeLU(terms=3), nn.SPLASH(), nn.SPLASH(terms=1)])
def test_they_start_as_relu(module):
    x = X.float().requires_grad_()
    y = module(x)
    assert torch.equal(y, x.relu())
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())


@pytest.mark.parametrize(
    ("name", "vectors"),
    [
        ("melu", {"coefficients": 7}),
        ("melu", {"coefficients": 12}),
        ("splash", {"right_slopes": 4, "left_slopes": 4, "hinges": (0.0, 1.0, 2.0, 2.5)}),
    ],
)
def test_any_slopes_are_what_the_spec_says(name, vectors):
    values = {
        key: tuple(drawn(value, seed).tolist()) if isinstance(value, int) else value
        for seed, (key, value) in enumerate(vectors.items())
    }
    for check in (check_values, check_derivatives, check_finite):
        check(name, **values)
