from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import get
from softknee.functional import kaf, rbf
from softknee.testing import check_derivatives, check_finite, check_values

X = torch.linspace(-6, 6, 241, dtype=torch.float64)


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("function", "reach", "width"), [(rbf, 2, 1), (kaf, 3, 6)])
@pytest.mark.parametrize("count", [2, 8, 20])
def test_bumps_have_their_centres_and_widths(function, reach, width, count):
    centres, spacing = np.linspace(-reach, reach, count, retstep=True)
    heights = drawn(count)
    bumps = np.exp(-((X.numpy()[:, None] - centres) ** 2) / (width * spacing**2))
    assert np.allclose(function(X, heights).numpy(), bumps @ heights.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["rbf", "kaf"])
def test_any_heights_are_what_the_spec_says(name):
    for check in (check_values, check_derivatives, check_finite):
        check(name, coefficients=tuple(drawn(3, 2).tolist()))


def test_coefficients_are_drawn_with_their_deviations():
    for module, deviation in ((nn.RBF, 0.1), (nn.KAF, 0.3)):
        drawn = module(terms=5000, generator=torch.Generator().manual_seed(1)).coefficients
        assert drawn.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize(("target", "function"), [("elu", F.elu), ("tanh", torch.tanh)])
def test_kernel_regression_goes_through_its_target(target, function):
    heights = get("kaf").initializations[target](20, None)["coefficients"]
    inside = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
    assert (kaf(inside, heights) - function(inside)).abs().max() < 5e-3
    # They alternate in sign; without the ridge they are larger than that.
    assert heights.abs().max() < 30
    assert (nn.KAF(initialization=target)(inside.float()) - function(inside.float())).abs().max() < 5e-3
