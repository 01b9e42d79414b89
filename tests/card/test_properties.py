from __future__ import annotations

import math

import pytest
import torch

from softknee._card.properties import properties
from softknee._catalogue import CATALOGUE, create


def test_known_properties():
    gelu = properties(create("gelu"))
    assert gelu.minimum == pytest.approx(-0.16997, abs=1e-5)
    assert gelu.maximum == math.inf
    assert not gelu.monotonic
    assert (gelu.left_slope, gelu.right_slope) == pytest.approx((0.0, 1.0))
    assert gelu.lipschitz == pytest.approx(1.128904, abs=1e-5)
    tanh = properties(create("tanh"))
    assert (tanh.minimum, tanh.maximum) == (-1.0, 1.0)
    assert tanh.odd
    assert tanh.monotonic
    assert tanh.flat == pytest.approx(2 * 0.5 * math.erfc(math.atanh(math.sqrt(1 - 1e-3)) / math.sqrt(2)), abs=1e-3)
    relu = properties(torch.relu)
    assert relu.minimum == 0
    assert relu.flat == pytest.approx(0.5, abs=1e-3)


def test_the_sentence():
    assert properties(create("x * x")).sentence == (
        "values in [0, inf]; f(0) = 0; not monotonic; even; steepest slope 40 for |x| up to 20; "
        "slope -2e+04 at the far left and 2e+04 at the far right; flat for 0.0 % of standard normal inputs"
    )


PLAIN = [spec for spec in CATALOGUE if spec.kind == "elementwise" and not spec.channelwise]


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.name)
def test_what_is_seen_is_what_is_promised(spec):
    options = {"generator": torch.Generator().manual_seed(0)} if spec.initializations else {}
    seen, promises = properties(create(spec.name, **options)), spec.promises
    assert seen.monotonic or not promises.monotonic
    assert seen.odd or not promises.odd
    assert seen.even or not promises.even
    assert seen.at_zero == 0 or not promises.zero_at_zero
    # Modules keep trained parameters in float32.
    if promises.lipschitz is not None and not spec.surrogate:
        assert seen.lipschitz <= promises.lipschitz * (1 + 1e-6)
    if promises.lower_bound is not None:
        assert seen.minimum >= promises.lower_bound - 1e-6 * abs(promises.lower_bound)
    if promises.upper_bound is not None:
        assert seen.maximum <= promises.upper_bound + 1e-6 * abs(promises.upper_bound)
