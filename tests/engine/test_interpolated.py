"""Functions known by their values at nodes, against the functions themselves."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import softknee as sk
from softknee._engine import lookup
from softknee._engine.interpolated import STEP, Inner, grid_within, inside, interpolated, nodes, quadratics, sharpest
from softknee._errors import UsageError

CPU = torch.device("cpu")
GRID = grid_within(4.0)


def cell(x, weights):
    """A weighted sum with kinks at nodes, nonlinear in the weights."""
    return weights[0] * F.gelu(x) + weights[1].square() * x.abs() + torch.sin(weights[2] * x)


def looked_up(x, weights, values=None):
    places = nodes(GRID, CPU)
    values = cell(places, weights) if values is None else values
    return interpolated(x, values, quadratics(values[None])[0], GRID, cell, [weights])


@pytest.fixture
def weights():
    return torch.tensor([0.7, -1.2, 1.5], requires_grad=True)


def points(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_grid_covers_its_reach_in_whole_bins():
    grid = grid_within(4.01)
    assert grid.low <= -4.01 < grid.low + STEP
    assert grid.high == -grid.low
    assert_close(nodes(grid, CPU)[[0, -1]], torch.tensor([grid.low, grid.high]))


def test_values_and_slopes_are_those_of_the_function(weights):
    x = points(50_000, scale=1.2).clamp(-4, 4).requires_grad_()
    exact = x.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(looked_up(x, weights).sum(), x)
    (wanted,) = torch.autograd.grad(cell(exact, weights.double()).sum(), exact)
    assert_close(looked_up(x, weights).double(), cell(exact, weights.double()), atol=2e-5, rtol=0)
    # Half precision of the input moves it by 2e-3 at most, and the second derivative is below three.
    assert_close(slope.double(), wanted, atol=6e-3, rtol=0)
    assert (slope.double() - wanted).square().mean().sqrt() < 1e-3


def test_kinks_at_nodes_stay_kinks():
    values = nodes(GRID, CPU).abs()
    rows = quadratics(values[None])[0]
    x = torch.linspace(-1, 1, 4001)
    assert_close(interpolated(x, values, rows, GRID, torch.abs, []), x.abs(), atol=1e-6, rtol=0)


def test_a_kink_between_nodes_spoils_its_bin_alone():
    places = nodes(GRID, CPU)
    kink = 0.4 * STEP
    rows = quadratics((places - kink).abs()[None])[0]
    x = torch.tensor([-STEP / 2, kink, 1.5 * STEP])
    off = (interpolated(x, (places - kink).abs(), rows, GRID, torch.abs, []) - (x - kink).abs()).abs()
    assert off[0] < 1e-6
    assert off[2] < 1e-6
    assert 1e-4 < off[1] < STEP / 2


@pytest.mark.parametrize("shape", [(1000,), (4, 3, 8, 8), (2, 5, 7)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_gradients_of_what_the_function_depends_on(weights, shape, layout):
    x = points(*shape, scale=2.0)  # some lie outside
    if layout == "channels_last" and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    x = x[..., ::2] if layout == "sliced" else x
    x = x.detach().requires_grad_()
    g = torch.cos(x.detach())
    ours = torch.autograd.grad(looked_up(x, weights), [x, weights], g)
    exact = torch.autograd.grad(cell(x, weights), [x, weights], g)
    assert_close(ours[0], exact[0], atol=6e-3, rtol=0)
    assert_close(ours[1], exact[1], rtol=1e-4, atol=1e-3)


def test_what_lies_outside_is_exact(weights):
    x = torch.tensor([-300.0, -4.5, 5.0, 80.0], requires_grad=True)
    ours = torch.autograd.grad(looked_up(x, weights), [x, weights], torch.ones(4))
    exact = torch.autograd.grad(cell(x, weights), [x, weights], torch.ones(4))
    assert_close(looked_up(x, weights), cell(x, weights))
    assert_close(ours, exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_comes_and_goes(weights, dtype):
    x = points(500).to(dtype).requires_grad_()
    y = looked_up(x, weights)
    assert y.dtype == dtype
    (slope,) = torch.autograd.grad(y.sum(), x)
    wide = x.detach().float().requires_grad_()
    (wanted,) = torch.autograd.grad(cell(wide, weights).sum(), wide)
    assert slope.dtype == dtype
    assert_close(slope.float(), wanted, atol=2e-2, rtol=1e-2)


def test_no_gradient_of_values_is_gathered_where_none_is_asked(weights):
    x = points(100).requires_grad_()
    values = cell(nodes(GRID, CPU), weights).detach()
    (slope,) = torch.autograd.grad(looked_up(x, weights.detach(), values).sum(), x)
    assert slope.isfinite().all()


def test_a_second_derivative_is_refused(weights):
    x = points(10).requires_grad_()
    y = looked_up(x, weights).sum()
    with pytest.raises(UsageError, match=r"can be differentiated once; for more, .*softknee.engine\('eager'\)"):
        torch.autograd.grad(y, x, create_graph=True)


def test_torch_and_native_code_agree(weights, monkeypatch):
    x = points(1000, scale=1.2).clamp(-4, 4).requires_grad_()
    native = torch.autograd.grad(looked_up(x, weights), [x, weights], torch.cos(x.detach()))
    monkeypatch.setattr(lookup, "_library", lambda *_: None)
    plain = torch.autograd.grad(looked_up(x, weights), [x, weights], torch.cos(x.detach()))
    assert_close(native, plain, rtol=1e-5, atol=1e-5)


def test_it_keeps_half_of_the_memory_of_its_input(weights):
    x = points(1000).clamp(-4, 4).requires_grad_()
    kept = []
    values = cell(nodes(GRID, CPU), weights).detach()
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        looked_up(x, weights.detach(), values)
    assert sum(one.nbytes for one in kept if one.numel() >= x.numel()) == x.nbytes // 2


def test_forced_engines_decide_who_is_looked_up():
    from softknee._engine.select import takes_tables

    x = torch.randn(3)
    assert takes_tables(x)
    assert not takes_tables(x.double())
    with sk.engine("eager"):
        assert not takes_tables(x)


def shifted(x, shift):
    """A kink that moves, so that the derivative by its place jumps there."""
    return torch.relu(x - shift)


def test_derivatives_that_jump_inside_a_bin_are_summed_on_its_right_side():
    shift = torch.tensor(0.3 * STEP, requires_grad=True)
    x = points(200_000, scale=0.3)
    values = shifted(nodes(GRID, CPU), shift)
    bins = sharpest(values[None])
    inner = Inner(bins[0], shifted(inside(GRID, bins)[0], shift))
    rows, g = quadratics(values[None])[0], torch.ones_like(x)
    (exact,) = torch.autograd.grad(shifted(x, shift), shift, g)
    coarse, fine = (
        torch.autograd.grad(interpolated(x, values, rows, GRID, shifted, [shift], one), shift, g, retain_graph=True)[0]
        for one in (None, inner)
    )
    assert abs(fine - exact) < 1e-3 * abs(exact)
    assert abs(fine - exact) < abs(coarse - exact) / 3


def test_smooth_gradients_do_not_depend_on_which_bins_are_spread_finely(weights):
    x = points(5000, scale=1.2).clamp(-4, 4)
    values = cell(nodes(GRID, CPU), weights)
    bins = sharpest(values[None])
    inner = Inner(bins[0], cell(inside(GRID, bins)[0], weights))
    rows = quadratics(values[None])[0]
    found = [
        torch.autograd.grad(interpolated(x, values, rows, GRID, cell, [weights], one).sum(), weights, retain_graph=True)
        for one in (None, inner)
    ]
    assert_close(found[0], found[1], rtol=1e-3, atol=1e-2)


def test_the_sharpest_bins_are_those_beside_a_kink():
    place = nodes(GRID, CPU)
    kink = place[100] + 0.4 * STEP
    assert set(sharpest((place - kink).abs()[None])[0, :3].tolist()) == {99, 100, 101}
