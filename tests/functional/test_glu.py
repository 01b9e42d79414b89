from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from softknee import functional, nn
from softknee._catalogue import CATALOGUE
from softknee.testing._oracle import oracle

PAIRS = [spec for spec in CATALOGUE if spec.kind == "gated"]
INF = math.inf

every_pair = pytest.mark.parametrize("spec", PAIRS, ids=lambda spec: spec.name)


def drawn(*shape, seed=1, scale=3.0, dtype=torch.float64):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def defaults(spec):
    return {param.name: param.default for param in spec.parameters}


@every_pair
def test_values_and_derivatives_at_any_gate_and_value(spec):
    """The checker moves the gate only; here the values are of both signs, and beyond all limits."""
    exact = oracle(spec.formula, spec.parameters, channelwise=False)
    gates, values = drawn(40, scale=6.0).requires_grad_(), drawn(40, seed=2, scale=20.0).requires_grad_()
    y = spec.function(gates, values)
    slopes = torch.autograd.grad(y.sum(), (gates, values))
    for i, (gate, value) in enumerate(zip(gates.tolist(), values.tolist(), strict=True)):
        point = {**defaults(spec), "value": value}
        assert y[i].item() == pytest.approx(float(exact.value(gate, point)), rel=1e-12, abs=1e-13)
        for name, slope in zip(("x", "value"), slopes, strict=True):
            assert slope[i].item() == pytest.approx(float(exact.slopes(name, gate, point)[0]), rel=1e-11, abs=1e-12)


@every_pair
def test_bounds_hold_for_every_value(spec):
    gate, value = drawn(20_000, scale=30.0), drawn(20_000, seed=2, scale=100.0)
    y = spec.function(gate, value)
    if spec.promises.lower_bound is not None:
        assert y.min() >= spec.promises.lower_bound
    if spec.promises.upper_bound is not None:
        assert y.max() <= spec.promises.upper_bound
    if spec.promises.zero_at_zero:
        assert not spec.function(torch.zeros(()), value).any()
    if spec.promises.odd:
        assert torch.equal(spec.function(-gate, value), -y)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_halves_as_large_as_the_dtype_allows_give_no_nan(spec, dtype):
    ends = torch.tensor([-1.0, -0.25, 0.0, 0.25, 1.0]) * 6e4
    gate, value = (one.flatten().to(dtype).requires_grad_() for one in torch.meshgrid(ends, ends, indexing="ij"))
    y = spec.function(gate, value)
    gradients = torch.autograd.grad(y.sum(), (gate, value))
    assert y.dtype == dtype
    assert not any(one.isnan().any() for one in (y, *gradients))


@every_pair
def test_half_precision_agrees_with_single(spec):
    gate, value = drawn(500), drawn(500, seed=2)
    for dtype in (torch.float16, torch.bfloat16):
        got = spec.function(gate.to(dtype), value.to(dtype)).double()
        wanted = spec.function(gate.to(dtype).double(), value.to(dtype).double())
        assert torch.allclose(got, wanted, rtol=8 * torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)


def test_glu_is_that_of_torch():
    x = drawn(4, 10, 6)
    for dim in (1, -1):
        assert torch.equal(nn.GLU(dim=dim)(x), F.glu(x, dim))


@pytest.mark.parametrize(
    ("title", "gate"),
    [
        ("Bilinear", lambda x: x),
        ("ReGLU", F.relu),
        ("GEGLU", F.gelu),
        ("GEGLUTanh", lambda x: F.gelu(x, approximate="tanh")),
        ("SwiGLU", F.silu),
        ("SquaredReGLU", lambda x: F.relu(x).square()),
        ("XATGLU", nn.ATLU()),
    ],
)
def test_products_of_a_known_function_and_the_value(title, gate):
    """With the gate in the first half, as language models have it."""
    x = drawn(5, 8)
    assert torch.allclose(getattr(nn, title)()(x), gate(x[:, :4]) * x[:, 4:], rtol=1e-12)


def test_a_number_in_place_of_beta_changes_nothing():
    gate, value, one = drawn(50), drawn(50, seed=2), torch.tensor(1.0, dtype=torch.float64)
    assert torch.allclose(functional.swiglu(gate, value), functional.swiglu(gate, value, one), rtol=1e-14)


def test_swiglu_of_gpt_oss():
    """As its reference computes it, gates and values alternating."""
    x = drawn(6, 16, scale=10.0)
    gate, value = x[..., ::2].clamp(max=7.0), x[..., 1::2].clamp(-7.0, 7.0)
    expected = gate * torch.sigmoid(1.702 * gate) * (value + 1)
    assert torch.allclose(nn.SwiGLUOAI(interleaved=True)(x), expected, rtol=1e-14)


def test_limits_are_those_of_the_halves():
    gate, value = torch.tensor([INF, INF, -INF, 10.0]), torch.tensor([INF, -INF, 3.0, 0.0])
    most = 100 * torch.sigmoid(torch.tensor(10.0))
    got = functional.swiglu_clamped(gate[:2], value[:2])
    assert torch.allclose(got, torch.stack([most, -most]))
    assert functional.situ_glu(gate[:2], value[:2]).tolist() == [100.0, -100.0]
    assert functional.gtu(gate[:3], value[:3]).tolist() == [1.0, -1.0, 0.0]
    # Inside, the clamped form is SwiGLU.
    gate, value = drawn(100, scale=2.0).clamp(max=9.0), drawn(100, seed=2, scale=2.0).clamp(-9.0, 9.0)
    assert torch.equal(functional.swiglu_clamped(gate, value), functional.swiglu(gate, value))


def test_situ_glu_is_swiglu_near_zero_and_for_high_caps():
    gate, value = drawn(100, scale=1e-3), drawn(100, seed=2, scale=1e-3)
    assert torch.allclose(functional.situ_glu(gate, value), functional.swiglu(gate, value), rtol=1e-5)
    gate, value = drawn(100), drawn(100, seed=2)
    assert torch.allclose(functional.situ_glu(gate, value, 1e6, 1e6), functional.swiglu(gate, value), rtol=1e-10)


def test_derivatives_at_zeros_of_either_sign():
    for zero in (0.0, -0.0):
        gate, value = (torch.tensor(zero, requires_grad=True) for _ in range(2))
        for function in (functional.reglu, functional.dreglu, functional.squared_reglu):
            y = function(gate, value)
            assert y.item() == 0
            assert torch.autograd.grad(y, (gate, value)) == (torch.tensor(0.0), torch.tensor(0.0))


def test_limits_and_caps_of_each_channel_are_trained():
    module = nn.SiTUGLU(trainable=True, per_channel=3, gate_cap=2.0)
    module(drawn(8, 6, dtype=torch.float32)).square().sum().backward()
    assert module.gate_cap.grad.shape == module.value_cap.grad.shape == (3,)
    assert (module.gate_cap.grad > 0).all()
