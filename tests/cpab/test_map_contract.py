"""Maps as functions of PyTorch: dtypes, layouts, borders, transforms, compilers, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

import softknee as sk
from softknee import cpab
from softknee._errors import UsageError

LOW, HIGH = -0.5, 2.0
VELOCITIES = torch.tensor([0.0, 1.0, -0.7, 0.4, 0.0], dtype=torch.float64)
X = torch.linspace(-1, 3, 41, dtype=torch.float64)
WANTED = cpab.warp(X, VELOCITIES, (LOW, HIGH))


@pytest.mark.parametrize("outside", ["identity", "affine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype(dtype, outside):
    """Points that are numbers of the dtype, 1.992 of bfloat16 and both ends among them, to a rounding of the result."""
    x = torch.tensor([-1.0, LOW, -0.25, 0.0, 0.5, 1.0, 1.5, 1.9921875, HIGH, 2.25]).to(dtype)
    velocities = VELOCITIES.to(dtype)
    y = cpab.warp(x, velocities, (LOW, HIGH), outside)
    assert y.dtype == dtype
    wanted = cpab.warp(x.double(), velocities.double(), (LOW, HIGH), outside)
    assert ((y.double() - wanted).abs() <= torch.finfo(dtype).eps * wanted.abs().clamp(min=1)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_borders_and_what_is_no_number(dtype):
    x = torch.tensor([LOW, HIGH, math.inf, -math.inf, math.nan], dtype=dtype)
    y = cpab.warp(x, VELOCITIES.to(dtype), (LOW, HIGH))
    assert torch.equal(y[:4], x[:4])
    assert y[4].isnan()


def test_nothing_in_nothing_out():
    for shape in ((0,), (3, 0, 2)):
        x = torch.empty(shape, dtype=torch.float64, requires_grad=True)
        y = cpab.warp(x, VELOCITIES, (LOW, HIGH))
        assert y.shape == shape
        assert torch.autograd.grad(y.sum(), x)[0].shape == shape
    single = cpab.warp(X[20], VELOCITIES, (LOW, HIGH))
    assert single.shape == ()
    assert single == WANTED[20]


def test_the_input_is_left_alone():
    x, velocities = X.clone(), VELOCITIES.clone()
    still = cpab.warp(x, torch.zeros(2, dtype=torch.float64))
    still.add_(1)
    cpab.warp(x, velocities, (LOW, HIGH)).add_(1)
    assert torch.equal(x, X)
    assert torch.equal(velocities, VELOCITIES)


@pytest.mark.parametrize("cells", [1, 4])
def test_velocities_always_have_a_gradient(cells):
    """Also of a single cell between fixed ends, and for no time: it is zero."""
    velocities = torch.zeros(cells + 1, dtype=torch.float64, requires_grad=True)
    for time in (1.0, 0.0):
        (by_velocities,) = torch.autograd.grad(cpab.warp(X, velocities, time=time).sum(), velocities)
        assert not by_velocities[[0, -1]].any()
        assert cells == 1 or by_velocities[1:-1].any() == (time != 0)


def test_strided_inputs():
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))[::2].permute(2, 0, 1)
    velocities = VELOCITIES.float()
    assert torch.equal(cpab.warp(x, velocities, (LOW, HIGH)), cpab.warp(x.contiguous(), velocities, (LOW, HIGH)))


def test_vmap_over_fields():
    fields = torch.stack([VELOCITIES, -VELOCITIES, 0 * VELOCITIES])
    got = torch.func.vmap(lambda field: cpab.warp(X, field, (LOW, HIGH)))(fields)
    wanted = torch.stack([cpab.warp(X, field, (LOW, HIGH)) for field in fields])
    assert torch.allclose(got, wanted, rtol=0, atol=1e-15)


def test_jacobians_and_hessians_of_torch_func():
    x = X[::4]

    def total(inner):
        return (cpab.warp(x, torch.nn.functional.pad(inner, (1, 1)), (LOW, HIGH)) ** 2).sum()

    inner = VELOCITIES[1:-1]
    reverse = torch.func.jacrev(total)(inner)
    assert torch.allclose(reverse, torch.autograd.functional.jacobian(total, inner), rtol=1e-12)
    hessian = torch.func.hessian(total)(inner)
    assert torch.allclose(hessian, torch.autograd.functional.hessian(total, inner), rtol=1e-9, atol=1e-11)
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    differences = torch.stack(
        [(torch.func.grad(total)(inner + row) - torch.func.grad(total)(inner - row)) / 2e-5 for row in step]
    )
    assert torch.allclose(hessian, differences, rtol=1e-5, atol=1e-6)


def test_compiled_whole():
    compiled = torch.compile(cpab.warp, fullgraph=True, backend="aot_eager")
    x, velocities = X.float().requires_grad_(), VELOCITIES.float().requires_grad_()
    y = compiled(x, velocities, (LOW, HIGH))
    got = torch.autograd.grad(y.sum(), (x, velocities))
    wide = X.clone().requires_grad_(), VELOCITIES.clone().requires_grad_()
    wanted = torch.autograd.grad(cpab.warp(*wide, (LOW, HIGH)).sum(), wide)
    assert torch.allclose(y.double(), WANTED, rtol=0, atol=1e-6)
    assert all(
        torch.allclose(one.double(), other, rtol=1e-4, atol=1e-4) for one, other in zip(got, wanted, strict=True)
    )


def test_exported():
    class Warp(torch.nn.Module):
        def forward(self, x, velocities):
            return cpab.warp(x, velocities, (LOW, HIGH))

    program = torch.export.export(Warp(), (X, VELOCITIES))
    assert torch.allclose(program.module()(X, VELOCITIES), WANTED, rtol=0, atol=1e-14)


def test_without_memory():
    y = cpab.warp(X.to("meta"), VELOCITIES.to("meta"), (LOW, HIGH))
    assert y.is_meta
    assert y.shape == X.shape


FLAT = torch.zeros(5)
FAULTS = [
    ((X, FLAT, (1.0, 1.0)), r"interval must be two finite numbers \(a, b\) with a < b, got \(1.0, 1.0\)"),
    ((X, FLAT, (2.0, 1.0)), r"interval must be two finite numbers .* got \(2.0, 1.0\)"),
    ((X, FLAT, (0.0, math.inf)), r"interval must be two finite numbers"),
    ((X, FLAT, (math.nan, 1.0)), r"interval must be two finite numbers"),
    ((X, FLAT, (1.0,)), r"interval must be two finite numbers"),
    ((X, FLAT, 3.0), r"interval must be two finite numbers .* got 3.0"),
    ((X, FLAT[:1]), r"velocities must be \(N \+ 1,\) or \(channels, N \+ 1\) for at least N = 1 cells, got \(1,\)"),
    ((X, FLAT[:0]), r"velocities must be .* got \(0,\)"),
    ((X, torch.tensor(0.0)), r"velocities must be .* got \(\)"),
    ((X, torch.zeros(1, 1, 5)), r"velocities must be .* got \(1, 1, 5\)"),
    ((X, torch.tensor([0, math.nan, 0])), r"velocities must be finite"),
    ((X, torch.tensor([0, math.inf, 0])), r"velocities must be finite"),
    ((X, torch.tensor([0.0, 1, 2])), r"velocities at both ends must be 0 .* outside='affine'"),
    (
        (X.new_zeros(4, 2), torch.tensor([[0.0, 1, 0], [1e-9, 1, 0]]).T.contiguous().T),
        r"velocities at both ends must be 0",
    ),
    (
        (X, torch.zeros(3, dtype=torch.int64)),
        r"velocities must be a tensor of floating-point numbers, got one of int64",
    ),
    ((X, [0.0, 0.0]), r"velocities must be a tensor of floating-point numbers, got list"),
    ((torch.arange(3), FLAT), r"[xy] must be a tensor of floating-point numbers, got one of int64"),
    ((1.0, FLAT), r"[xy] must be a tensor of floating-point numbers, got float"),
    ((X, FLAT, (0.0, 1.0), "reflect"), r"outside must be 'identity' or 'affine', got 'reflect'"),
    ((X, FLAT, (0.0, 1.0), "identity", math.inf), r"time must be a finite number, got inf"),
    ((X, FLAT, (0.0, 1.0), "identity", "1"), r"time must be a finite number, got '1'"),
    (
        (torch.zeros(2, 4), torch.zeros(3, 5)),
        r"velocities are for 3 channels in dimension 1, but [xy] has the shape \(2, 4\)",
    ),
    ((torch.zeros(3), torch.zeros(3, 5)), r"velocities are for 3 channels in dimension 1, but [xy] has the shape"),
]


@pytest.mark.parametrize("function", [cpab.warp, cpab.inverse])
@pytest.mark.parametrize(("arguments", "sentence"), FAULTS)
def test_what_is_no_map_is_said(function, arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        function(*arguments)


def test_the_sentence_of_the_inverse_names_its_argument():
    with pytest.raises(UsageError, match="y must be a tensor"):
        cpab.inverse(1.0, FLAT)


def test_public_names():
    assert sk.cpab is cpab
    assert set(cpab.__all__) == {"inverse", "theta_of", "velocities_of", "warp"}
