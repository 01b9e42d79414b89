"""The smoothness prior and the random start of DiTAC against dense computations in the coordinates of a basis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bases import basis

import softknee as sk
from softknee import cpab
from softknee._errors import OptionError

# Standard deviations of the velocities at the knots inside [0, 1] that the published code starts from.
PROFILE = [0.138, 0.237, 0.298, 0.326, 0.324, 0.296, 0.246, 0.178, 0.095]


def prior(matrix, *, smooth=5.0, variance=2.0):
    """The published precision of coordinates: coefficients are alike by their place in the row, slopes and all."""
    count = len(matrix)
    places = np.linspace(-1, 1, count)
    covariance = (variance * count) ** 2 * np.exp(-2 * np.abs(places[:, None] - places) / smooth)
    columns = matrix.numpy()
    return np.linalg.inv(columns.T @ covariance @ columns + 1.2e-7 * np.eye(columns.shape[1]))


def start(cells, *, smooth=5.0, variance=2.0):
    """The published covariance of coefficients at the start: slopes like slopes, intercepts like intercepts."""
    centres = (np.arange(cells) + 0.5) / cells
    distances = np.abs(centres[:, None] - centres)
    covariance = np.full((2 * cells, 2 * cells), np.exp(-100 * distances.max() / (2 * smooth**2)))
    covariance[0::2, 0::2] = covariance[1::2, 1::2] = np.exp(-distances / (2 * smooth**2))
    return variance**2 * covariance


def random_velocities(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["svd", "qr"])
@pytest.mark.parametrize(("low", "high"), [(-0.5, 2.0), (-3.0, 3.0)])
@pytest.mark.parametrize("options", [{}, {"smooth": 2.0, "variance": 1.0}])
def test_the_penalty_is_that_of_coordinates(kind, low, high, options):
    """Of any orthonormal basis; the ridge is the same in all of them."""
    velocities = random_velocities(9)
    act = sk.nn.DiTAC(low=low, high=high, velocities=velocities).double()
    matrix = basis(kind, 10)
    theta = cpab.theta_of(torch.nn.functional.pad(velocities.double(), (1, 1)), matrix, (low, high)).numpy()
    wanted = theta @ prior(matrix, **options) @ theta
    named = {{"smooth": "smoothness"}.get(name, name): value for name, value in options.items()}
    assert act.regularization(**named).item() == pytest.approx(wanted, rel=1e-9)


def test_the_penalty_has_a_gradient():
    act = sk.nn.DiTAC(velocities=random_velocities(9)).double()
    act.regularization().backward()
    matrix = basis("svd", 10)
    # d/dv of theta' P theta by the chain rule, through the pseudoinverse of the map from coordinates to velocities.
    to_knots = np.stack([cpab.velocities_of(row, matrix, (-0.5, 2.0)).numpy() for row in torch.eye(9).double()], 1)[
        1:-1
    ]
    back = np.linalg.inv(to_knots)
    wanted = 2 * back.T @ prior(matrix) @ back @ act.velocities.detach().numpy()
    assert np.allclose(act.velocities.grad.numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize("name", ["digraf", "ge_ditac", "leaky_ditac"])
def test_kin_have_the_penalty_of_their_interval(name):
    act = sk.create(name, velocities=random_velocities(9)).double()
    low, high = act.interval
    same = sk.nn.DiTAC(low=low, high=high, velocities=random_velocities(9)).double()
    assert act.regularization().item() == pytest.approx(same.regularization().item(), rel=1e-12)


def test_channels_add_up():
    fields = torch.stack([random_velocities(4, seed) for seed in range(3)], 1)
    together = sk.nn.DiTAC(terms=4, per_channel=3, velocities=fields).regularization()
    alone = sum(sk.nn.DiTAC(terms=4, velocities=field).regularization() for field in fields.T)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


def test_no_field_no_penalty():
    act = sk.nn.DiTAC()
    penalty = act.regularization()
    penalty.backward()
    assert penalty.item() == 0
    assert not act.velocities.grad.any()


@pytest.mark.parametrize("options", [{"smoothness": 0.0}, {"variance": -1.0}])
def test_what_is_no_prior_is_said(options):
    with pytest.raises(OptionError, match="smoothness and variance must be positive, got"):
        sk.nn.DiTAC().regularization(**options)


def test_fields_that_move_at_their_ends_have_no_prior():
    with pytest.raises(OptionError, match="inf_ditac has no prior, which is about fields that stand still"):
        sk.nn.InfDiTAC().regularization()


def test_a_smooth_start_is_drawn_from_the_published_covariance():
    """All of it, not only the profile: coefficients are drawn, and projected on what is continuous and still."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [sk.nn.DiTAC(initialization="smooth", generator=generator).velocities.detach() for _ in range(1500)]
    ).double()
    columns = basis("svd", 10)
    to_knots = np.stack([cpab.velocities_of(row, columns).numpy() for row in torch.eye(9).double()], 1)[1:-1]
    projected = to_knots @ columns.numpy().T
    covariance = projected @ start(10) @ projected.T
    assert np.allclose(np.sqrt(np.diag(covariance)), PROFILE, rtol=0, atol=6e-4)
    got = np.cov((draws / 2.5).numpy().T)
    # Five standard errors of an estimated covariance.
    spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / len(draws))
    assert (np.abs(got - covariance) <= 5 * spread).all()
    assert (np.abs(draws.mean(0).numpy()) <= 5 * 2.5 * np.array(PROFILE) / np.sqrt(len(draws))).all()


def test_a_smooth_start_is_far_from_the_identity():
    """As measured with the published code: the largest move is 0.22 of the interval in the median, 0.03 to 0.54."""
    x = torch.linspace(0, 1, 201, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    fields = [sk.nn.DiTAC(low=0.0, high=1.0, initialization="smooth", generator=generator) for _ in range(300)]
    velocities = torch.stack([torch.nn.functional.pad(act.velocities.detach(), (1, 1)) for act in fields]).double()
    moved = (cpab.warp(x.expand(300, -1), velocities, channel_dim=0) - x).abs().amax(1)
    quantiles = moved.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    assert quantiles == pytest.approx([0.03, 0.22, 0.54], abs=0.05)


def test_a_smooth_start_follows_the_interval():
    narrow, wide = (
        sk.nn.DiTAC(low=low, high=high, initialization="smooth", generator=torch.Generator().manual_seed(1)).velocities
        for low, high in ((0.0, 1.0), (-3.0, 3.0))
    )
    assert torch.allclose(6 * narrow, wide)


def test_a_smooth_start_repeats_with_its_seed():
    draws = [
        sk.nn.DiTAC(initialization="smooth", generator=torch.Generator().manual_seed(seed)).velocities
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_each_channel_starts_with_a_field_of_its_own_on_the_scale_of_its_interval():
    def made(**options):
        return sk.nn.DiTAC(initialization="smooth", generator=torch.Generator().manual_seed(1), **options).velocities

    ends = {"low": torch.tensor([0.0, -1.0]), "high": torch.tensor([1.0, 3.0])}
    both, unit = made(per_channel=2, **ends), made(per_channel=2, low=0.0, high=1.0)
    assert torch.allclose(both, unit * torch.tensor([1.0, 4.0]))
    assert torch.equal(unit[:, 0], made(low=0.0, high=1.0))
    assert not torch.allclose(unit[:, 0].abs(), unit[:, 1].abs(), rtol=0.1)
