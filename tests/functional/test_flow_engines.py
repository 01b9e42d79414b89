"""Kernels and tables of warped activations against float64: at the usual scale, steep, flat, standing, per channel."""

from __future__ import annotations

import copy

import pytest
import torch

import softknee as sk
from softknee import cpab
from softknee.functional._flow_prior import draw_smooth

# Of N(0, 1), as in the figures that are asked for.
X = torch.randn(2**16, generator=torch.Generator().manual_seed(0))


def smooth(seed):
    """Velocities as the published code starts from, for [-0.5, 2]."""
    return 2.5 * draw_smooth(9, torch.Generator().manual_seed(seed))


def normal(seed, scale):
    return scale * torch.randn(9, generator=torch.Generator().manual_seed(seed))


# Knots are 0.25 apart: 6 means slopes of up to 48.
FIELDS = {
    "none": torch.zeros(9),
    "smooth": smooth(1),
    "rough": normal(1, 0.5),
    "steep": 6 * torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1, 1]),
    "steep to one side": 6 * torch.tensor([-1.0, 1, 1, -0.1, 1, -0.5, -1, 1, -1]),
    "flat": torch.full((9,), 0.3),
    "standing": torch.tensor([0.5, 0.0, 0.5, 0.0, -0.5, 0.0, 0.0, 0.0, 0.5]),
    "tiny": 1e-8 * normal(2, 1.0),
    "one": torch.tensor([0, 0, 0, 0, 1.0, 0, 0, 0, 0]),
}


def measured(act, x=X):
    """Errors against float64: the largest of values, the rms of slopes, and that of the gradient, relatively."""
    wide = copy.deepcopy(act).double()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    found = []
    for module, dtype in ((act, torch.float32), (wide, torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        y = module(leaf)
        (by_x,) = torch.autograd.grad(y.sum(), leaf, retain_graph=True)
        (by_velocities,) = torch.autograd.grad((weights.to(dtype) * y).sum(), module.velocities)
        found.append((y.detach().double(), by_x.double(), by_velocities.double()))
    (y, by_x, by_velocities), (wanted, slopes, gradient) = found
    return (
        (y - wanted).abs().max().item(),
        (by_x - slopes).square().mean().sqrt().item() / max(1, slopes.square().mean().sqrt().item()),
        ((by_velocities - gradient).norm() / gradient.norm()).item(),
    )


@pytest.mark.parametrize("kind", FIELDS)
def test_kernels(kind):
    """In one pass, however many knots: float32's roundings, and what steep fields make of those of x."""
    act = sk.nn.DiTAC(velocities=FIELDS[kind], engine="fused")
    assert act.engine_for(X) == "fused"
    value, slope, gradient = measured(act)
    assert value <= 3e-7 * 2.5
    # Where the field gathers and parts points within a rounding, slopes differ at single points.
    steep = kind.startswith("steep")
    assert slope <= (1e-3 if steep else 2e-6)
    assert gradient <= (1e-3 if steep else 1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_tables_at_the_usual_scale(seed):
    """The figures that are asked for, one parameter update each; the last is asked for of larger tensors."""
    act = sk.nn.DiTAC(velocities=smooth(seed), engine="table")
    value, slope, gradient = measured(act)
    assert value <= 3e-6
    assert slope <= 2e-5
    assert gradient <= 2e-4


@pytest.mark.parametrize("kind", FIELDS)
def test_the_engine_that_is_taken_is_right(kind):
    """A table where one is fine enough, else kernels, and which of them can be seen."""
    act = sk.nn.DiTAC(velocities=FIELDS[kind])
    value, slope, gradient = measured(act)
    assert act.engine_for(X) in {"table", "fused"}
    steep = kind.startswith("steep")
    assert value <= (3e-6 if not steep else 2e-5)
    assert slope <= (5e-5 if not steep else 1e-3)
    assert gradient <= (1e-4 if not steep else 1e-3)


def test_tables_give_way_to_kernels():
    """As parameters change, and back."""
    act = sk.nn.DiTAC(velocities=smooth(1))
    large = X.repeat(4)
    assert act.engine_for(large) == "table"
    with torch.no_grad():
        act.velocities.copy_(40 * FIELDS["steep to one side"])
    assert act.engine_for(large) == "fused"
    with torch.no_grad():
        act.velocities.copy_(smooth(1))
    assert act.engine_for(large) == "table"
    assert act.engine_for(X.double()) == "eager"


@pytest.mark.parametrize("engine", ["fused", "table"])
def test_channels(engine):
    # Few knots, for each is traced; with more, kernels are tried above.
    fields = torch.stack([2.5 * draw_smooth(3, torch.Generator().manual_seed(seed)) for seed in range(4)], 1)
    act = sk.nn.DiTAC(per_channel=4, velocities=fields, engine=engine)
    value, slope, gradient = measured(act, X.reshape(-1, 4, 8))
    assert value <= 3e-6
    assert slope <= 5e-5
    assert gradient <= 1e-4


@pytest.mark.parametrize("engine", ["fused", "table"])
def test_maps(engine):
    """`warp` itself, values and both gradients."""
    inner = smooth(2)
    field = torch.nn.functional.pad(inner, (1, 1)).requires_grad_()
    x = X.clone().requires_grad_()
    with sk.engine(engine):
        y = cpab.warp(x, field, (-0.5, 2.0))
        got = torch.autograd.grad(y.square().sum(), (x, field))
    wide = X.double().requires_grad_(), field.detach().double().requires_grad_()
    exact = cpab.warp(*wide, (-0.5, 2.0))
    wanted = torch.autograd.grad(exact.square().sum(), wide)
    assert (y.double() - exact).abs().max().item() <= 3e-6
    assert (got[0] - wanted[0]).square().mean().sqrt().item() <= 2e-4
    assert ((got[1] - wanted[1]).norm() / wanted[1].norm()).item() <= 1e-4


@pytest.mark.parametrize("engine", ["eager", "fused", "table"])
def test_at_and_beside_both_ends(engine):
    """Nothing of one side reaches the other: slopes jump between neighbouring numbers. Ends belong to the inside."""
    act = sk.nn.DiTAC(velocities=smooth(1), engine=engine)
    ends = torch.tensor([-0.5, 2.0])
    outer, inner = torch.nextafter(ends, torch.tensor([-9.0, 9.0])), torch.nextafter(ends, torch.tensor([0.0, 0.0]))
    wide = copy.deepcopy(act).double()

    def slopes(module, x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf).sum(), leaf)[0].double()

    outside, at, inside = (slopes(wide, x.double()) for x in (outer, ends, inner))
    assert ((outside - inside).abs() > 0.2).all()
    assert torch.allclose(slopes(act, outer), outside, rtol=0, atol=1e-4)
    assert torch.allclose(slopes(act, inner), inside, rtol=0, atol=1e-4)
    # In a table, an end is where the next bin begins.
    if engine != "table":
        assert torch.allclose(slopes(act, ends), at, rtol=0, atol=1e-4)
    assert (act(outer) - torch.nn.functional.gelu(outer)).abs().max().item() <= 1e-6
    assert (act(ends) - ends * torch.special.ndtr(ends)).abs().max().item() <= 1e-6


@pytest.mark.parametrize("engine", ["fused", "table"])
def test_threads_change_nothing(engine):
    act = sk.nn.DiTAC(velocities=smooth(1), engine=engine)
    before = torch.get_num_threads()
    try:
        got = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(act(X).detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*got)
