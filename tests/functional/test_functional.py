from __future__ import annotations

import hypothesis.strategies as st
import mpmath
import pytest
import torch
from hypothesis import given, settings

from softknee import functional
from softknee._catalogue import CATALOGUE, get
from softknee.testing import (
    check_accuracy,
    check_derivatives,
    check_engines,
    check_finite,
    check_gradients,
    check_second_derivatives,
    check_values,
)
from softknee.testing._oracle import oracle
from softknee.testing._subject import Subject

MONOTONIC = [spec for spec in CATALOGUE if spec.promises.monotonic]
BOUNDED = ["gelu", "gelu_tanh", "silu", "swish", "mish", "telu", "swigelu", "hardswish"]
# Of numbers; layouts, copies and compilers are tried at the defaults.
NUMERIC = (
    *(check_values, check_derivatives, check_gradients, check_second_derivatives),
    *(check_finite, check_accuracy, check_engines),
)
REALS = st.floats(-1e4, 1e4, allow_subnormal=False)


@pytest.mark.parametrize("spec", MONOTONIC, ids=lambda spec: spec.name)
@settings(max_examples=25, deadline=None)
@given(points=st.lists(REALS, min_size=2, max_size=50))
def test_monotonic_functions_never_decrease(spec, points):
    subject = Subject(spec, {})
    x = torch.tensor(points, dtype=torch.float64).sort().values
    for channel in subject.channels:
        y = subject(x, subject.defaults, channel=channel)
        assert (y.diff() >= -1e-15 * y[:-1].abs()).all()


@pytest.mark.parametrize("name", BOUNDED)
def test_lower_bounds_are_tight(name):
    spec, subject = get(name), Subject(name, {})
    exact = oracle(spec.formula, spec.parameters, channelwise=False)
    with mpmath.workdps(30):
        lowest = mpmath.findroot(lambda x: exact.slopes("x", x, subject.defaults)[0], -1.0)
        minimum = exact.value(lowest, subject.defaults)
    assert spec.promises.lower_bound <= minimum < spec.promises.lower_bound + 2e-8


def test_sampled_rrelu_draws_uniform_slopes():
    x = torch.full((40_000,), -2.0, dtype=torch.float64, requires_grad=True)
    y = functional.rrelu_sampled(x, 0.1, 0.4, generator=torch.Generator().manual_seed(5))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope * x, y)
    assert slope.min() >= 0.1
    assert slope.max() <= 0.4
    # Kolmogorov's distance to U(0.1, 0.4); 1.95 / sqrt(n) is exceeded once in a thousand times.
    ranks = torch.linspace(0, 1, len(slope), dtype=torch.float64)
    assert ((slope.sort().values - 0.1) / 0.3 - ranks).abs().max() < 1.95 / len(slope) ** 0.5


def test_sampled_rrelu_leaves_positive_inputs_alone():
    x = torch.tensor([0.5, 3.0])
    assert torch.equal(functional.rrelu_sampled(x), x)


def test_sampled_rrelu_draws_from_its_generator_or_the_global_one():
    x = torch.linspace(-3, 3, 50)
    first, again = (functional.rrelu_sampled(x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(7)
    drawn = functional.rrelu_sampled(x)
    torch.manual_seed(7)
    assert torch.equal(functional.rrelu_sampled(x), drawn)
    assert not torch.equal(functional.rrelu_sampled(x), drawn)


def test_rrelu_agrees_with_torch_in_evaluation():
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(functional.rrelu(x), torch.nn.RReLU().eval()(x))


@pytest.mark.parametrize("alpha", [1e-30, -1e-30, 1e-9, -1e-9, 1e-4, -1e-4])
def test_soft_exponential_is_accurate_around_zero(alpha):
    x = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    parameter = torch.full_like(x, alpha, requires_grad=True)
    y = functional.soft_exponential(x, parameter)
    by_x, by_alpha = torch.autograd.grad(y.sum(), (x, parameter))
    assert torch.allclose(y, x + alpha + alpha * x.square() / 2, atol=3e-7)
    assert torch.allclose(by_x, 1 + alpha * x, atol=3e-7)
    assert torch.allclose(by_alpha, 1 + x.square() / 2, atol=1e-2)


@pytest.mark.parametrize("edge", [1e-2, -1e-2, 40.0])
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_soft_exponential_is_continuous_where_its_evaluation_changes(edge, alpha):
    x = torch.tensor([edge / alpha * (1 - 1e-12), edge / alpha * (1 + 1e-12)], dtype=torch.float64, requires_grad=True)
    y = functional.soft_exponential(x, alpha)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y[0].item() == pytest.approx(y[1].item(), rel=1e-9)
    assert slope[0].item() == pytest.approx(slope[1].item(), rel=1e-9)


def test_soft_exponential_is_finite_outside_its_domain():
    x = torch.tensor([-1e4, -5.0, -1.5], requires_grad=True)
    alpha = torch.tensor(-0.5, requires_grad=True)
    y = functional.soft_exponential(x, alpha)
    gradients = torch.autograd.grad(y.sum(), (x, alpha))
    assert all(value.isfinite().all() for value in (y, *gradients))


@pytest.mark.parametrize("a", [0.0, 1e-30, -1e-9, 25.0])
def test_snake_and_its_gradients_are_right_around_zero(a):
    """At 0 it is the identity, and its derivative by `a` is the square of x."""
    for check in NUMERIC:
        check("snake", a=a)
    x = torch.tensor([-3.0, 0.0, 1e-20, 0.5], requires_grad=True)
    parameter = torch.full_like(x, a, requires_grad=True)
    by_x, by_a = torch.autograd.grad(functional.snake(x, parameter).sum(), (x, parameter))
    angle = 2 * a * x.detach().double()
    assert torch.allclose(by_x.double(), 1 + angle.sin(), atol=1e-5)
    if abs(a) < 1:
        assert torch.allclose(by_a, x.square(), rtol=1e-6)


@pytest.mark.parametrize(
    "spec", [spec for spec in CATALOGUE if spec.initializations and spec.kind != "vector"], ids=lambda spec: spec.name
)
def test_vectors_may_be_tuples_of_numbers_or_tensors(spec):
    """As the engine hands them over."""
    subject = Subject(spec, {})
    x = torch.linspace(-3, 3, 21, dtype=torch.float64)
    tensors = [torch.tensor(subject.defaults[param.name], dtype=torch.float64) for param in spec.parameters]
    expected = spec.function(x, *tensors)
    numbers = [subject.defaults[param.name] for param in spec.parameters]
    entries = [tuple(value) if value.dim() else value for value in tensors]
    assert torch.equal(spec.function(x, *numbers), expected)
    assert torch.equal(spec.function(x, *entries), expected)


@pytest.mark.parametrize("draw", ["theorem", "code", "normal"])
def test_staf_initializations(draw):
    drawn = get("staf").initializations[draw](20_000, torch.Generator().manual_seed(1))
    squares = drawn["amplitude"].square()
    signed = drawn["amplitude"].sign() * squares
    # A Laplace density of scale b has mean absolute value b and variance 2 b^2.
    scale = {"theorem": 2 / 20_000, "code": 1 / 40_000}.get(draw)
    if scale is None:
        assert drawn["frequency"].std().item() == pytest.approx(1, abs=0.03)
        return
    assert squares.mean().item() == pytest.approx(scale, rel=0.03)
    assert signed.var().item() == pytest.approx(2 * scale**2, rel=0.1)
    assert drawn["frequency"].min() >= 0
    assert drawn["frequency"].mean().item() == pytest.approx(15, rel=0.03)
    assert drawn["phase"].abs().max() <= torch.pi


def test_staf_by_its_theorem_has_unit_variance():
    generator = torch.Generator().manual_seed(2)
    spec, x = get("staf"), torch.randn(2000, generator=generator)
    variances = [
        functional.staf(x, **spec.initializations["theorem"](64, generator)).square().mean() for _ in range(200)
    ]
    assert torch.stack(variances).mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_functions_are_found_by_name(spec):
    """A file that bore the name of a function would hide it."""
    assert getattr(functional, spec.function.__name__) is spec.function
    assert spec.function.__name__ == spec.name
    assert spec.function.__doc__
