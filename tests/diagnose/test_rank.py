"""In how many directions outputs vary."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.flow.rank import Covariance, dimensions, rank
from softknee._errors import UsageError


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("variances", "dims"),
    [((0.98, 0.015, 0.005), 2), ((0.6, 0.395, 0.005), 2), ((0.5, 0.3, 0.185, 0.01, 0.005), 4), ((1.0, 0.0), 1)],
)
def test_t26_smallest_number_of_directions(variances, dims):
    q = torch.linalg.qr(torch.randn(len(variances), len(variances), dtype=torch.float64))[0]
    for basis in (torch.eye(len(variances), dtype=torch.float64), q):
        assert dimensions(basis @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ basis.T)[0] == dims


def test_t26_rounding_costs_no_direction():
    # In floating point 0.9 + 0.09 is less than 0.99.
    assert dimensions(torch.diag(torch.tensor([0.9, 0.09, 0.01], dtype=torch.float64)))[0] == 2


@pytest.mark.parametrize("count", [1, 3, 8])
def test_all_measures_agree_on_equal_variances(count):
    covariance = torch.diag(torch.tensor([2.0] * count + [0.0] * (8 - count)))
    dims, participation, effective = dimensions(covariance, 1.0)
    assert dims == count
    assert (participation, effective) == pytest.approx((count, count))


def test_participation_and_entropy():
    _, participation, effective = dimensions(torch.diag(torch.tensor([3.0, 1.0])))
    assert participation == pytest.approx(16 / 10)
    assert effective == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_nothing_varies():
    dims, participation, effective = dimensions(torch.zeros(3, 3))
    assert dims == 0
    assert math.isnan(participation)
    assert math.isnan(effective)


def test_t29_the_covariance_of_parts_is_that_of_the_whole_far_from_zero():
    x = 1e4 + torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    parts = Covariance(6)
    for part in x.split([1, 200, 299]):
        parts.add(part)
    assert torch.allclose(parts.matrix(), torch.cov(x.T, correction=0), rtol=1e-9)


class Low(nn.Module):
    """Outputs of rank 3 in 40 units, then a ReLU as a function."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Linear(10, 3, bias=False), nn.Linear(3, 40, bias=False)
        self.act = nn.Identity()

    def forward(self, x):
        return F.relu(F.leaky_relu(self.wide(self.narrow(x)), 1.0))


def test_the_rank_of_sites_is_that_of_their_outputs():
    model, x = Low(), torch.randn(400, 10)
    linear, relu = rank(model, [*x.split(150)], share=1.0).sites
    assert (linear.site, relu.site) == ("model#0", "model#1")
    assert (linear.dims, linear.width, linear.samples, linear.projected) == (3, 40, 400, 40)
    assert linear.saturation == 3 / 40
    outputs = model(x).double().detach()
    variances = torch.linalg.eigvalsh(torch.cov(outputs.T))
    assert relu.dims > 3
    assert relu.participation == pytest.approx((variances.sum() ** 2 / variances.square().sum()).item(), rel=1e-6)


def test_positions_of_images_are_rows():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh())
    x = torch.randn(20, 3, 10, 10)
    (found,) = rank(model, [x]).sites
    rows = model(x).movedim(1, -1).flatten(0, -2).double().detach()
    variances = torch.linalg.eigvalsh(torch.cov(rows.T))
    assert (found.width, found.samples) == (6, 20 * 64)
    assert found.participation == pytest.approx((variances.sum() ** 2 / variances.square().sum()).item(), rel=1e-6)


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr("softknee._diagnose.flow.rank.MOST_ROWS", 300)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh())
    x = torch.randn(20, 3, 10, 10)
    first, second, other = (rank(model, [*x.split(10)], seed=seed).sites[0] for seed in (0, 0, 1))
    assert first.samples == 300
    assert first == second != other
    assert first.participation == pytest.approx(rank(model, [x], seed=2).sites[0].participation, rel=0.1)


def test_wide_outputs_are_projected():
    """Few directions survive a random projection: their number does, and how even they are nearly so."""
    model, x = nn.Sequential(nn.Linear(5, 300, bias=False), nn.LeakyReLU(1.0)), torch.randn(200, 5)
    whole, part = (rank(model, [x], most=most, share=1.0).sites[0] for most in (512, 40))
    assert (whole.projected, part.projected) == (300, 40)
    assert whole.dims == part.dims == 5
    assert part.participation == pytest.approx(whole.participation, rel=0.25)


def test_in_place_shared_and_functional_activations_have_their_own_rows():
    act = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 8), act)
    first, second = rank(model, [torch.randn(50, 4)]).sites
    assert (first.site, first.width) == ("1", 6)
    assert (second.site, second.width) == ("3", 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "share must be above 0 and at most 1, got 0"),
        ({"most": 0}, "most must be a whole number of at least 1, got 0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        rank(Low(), [torch.randn(4, 10)], **options)


def test_t30_everything_is_as_before():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    rank(model, [torch.randn(50, 4, generator=torch.Generator().manual_seed(1))])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())
