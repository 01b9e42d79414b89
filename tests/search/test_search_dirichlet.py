"""Draws from a simplex against closed forms, and against torch's own distribution."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from softknee._search.dirichlet import draw

MANY = 100_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_moments_are_those_of_the_distribution():
    concentration = torch.tensor([1.0, 2.0, 0.5, 3.0])
    weights = draw(concentration.expand(MANY, 4), torch.ones(4, dtype=torch.bool), generator())
    exact = torch.distributions.Dirichlet(concentration)
    assert_close(weights.sum(-1), torch.ones(MANY))
    assert_close(weights.mean(0), exact.mean, atol=3e-3, rtol=0)
    assert_close(weights.var(0), exact.variance, atol=2e-3, rtol=0)


def test_ones_are_uniform_on_the_simplex():
    weights = draw(torch.ones(MANY, 23), torch.ones(23, dtype=torch.bool), generator())
    assert_close(weights.mean(0), torch.full((23,), 1 / 23), atol=1e-3, rtol=0)
    assert_close(weights.var(0), torch.full((23,), 22 / (23**2 * 24)), atol=1e-4, rtol=0)


def test_corners_that_take_no_part_are_zero_and_the_others_as_without_them():
    concentration = torch.tensor([1.0, 2.0, 0.5, 3.0])
    live = torch.tensor([True, True, False, True])
    weights = draw(concentration.expand(MANY, 4), live, generator())
    exact = torch.distributions.Dirichlet(concentration[live])
    assert (weights[:, 2] == 0).all()
    assert_close(weights[:, live].mean(0), exact.mean, atol=3e-3, rtol=0)
    assert_close(weights[:, live].var(0), exact.variance, atol=2e-3, rtol=0)


def test_gradients_are_those_of_expectations():
    live = torch.tensor([True, True, False, True])
    concentration = torch.tensor([1.0, 2.0, 0.5, 3.0], requires_grad=True)
    weights = draw(concentration.expand(MANY, 4), live, generator())
    loss = (weights[:, 0].square() + weights[:, 1] * weights[:, 3]).mean()
    (ours,) = torch.autograd.grad(loss, concentration)
    exact = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    a, b, _, c = exact
    total = a + b + c
    moment = (a * (a + 1) + b * c) / (total * (total + 1))
    (wanted,) = torch.autograd.grad(moment, exact)
    assert_close(ours.double(), wanted, atol=1e-3, rtol=0)


def test_the_pathwise_gradient_is_torchs():
    concentration = torch.tensor([[0.7, 1.3, 2.0]], requires_grad=True)
    weights = draw(concentration, torch.ones(3, dtype=torch.bool), generator())
    g = torch.tensor([[1.0, -2.0, 0.5]])
    (ours,) = torch.autograd.grad(weights, concentration, g)
    total = concentration.detach().sum(-1, keepdim=True).expand(1, 3)
    slopes = torch._dirichlet_grad(weights.detach(), concentration.detach(), total)
    assert_close(ours, slopes * (g - (weights.detach() * g).sum(-1, keepdim=True)))


def test_a_single_corner_is_certain_and_has_no_gradient():
    concentration = torch.tensor([[1.0, 1.0]], requires_grad=True)
    weights = draw(concentration, torch.tensor([False, True]), generator())
    assert weights.tolist() == [[0.0, 1.0]]
    (ours,) = torch.autograd.grad(weights, concentration, torch.tensor([[3.0, -4.0]]))
    assert ours.tolist() == [[0.0, 0.0]]


def test_tiny_concentrations_stay_finite():
    concentration = torch.full((1000, 5), 1e-8, requires_grad=True)
    weights = draw(concentration, torch.ones(5, dtype=torch.bool), generator())
    (ours,) = torch.autograd.grad(weights[:, 0].sum(), concentration)
    assert weights.isfinite().all()
    assert ours.isfinite().all()


def test_the_generator_decides():
    concentration, live = torch.ones(3, 5), torch.ones(5, dtype=torch.bool)
    assert_close(draw(concentration, live, generator(1)), draw(concentration, live, generator(1)), atol=0, rtol=0)
    assert not torch.equal(draw(concentration, live, generator(1)), draw(concentration, live, generator(2)))
