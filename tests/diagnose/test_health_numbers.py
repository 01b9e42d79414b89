"""Numbers of the units of a site: moments, histograms and precision, against closed forms and float64."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from unit_models import gaussian, scaled

from softknee._diagnose.units.health import unit_health


def test_t16_linear_r2_of_a_relu():
    found = unit_health(scaled(20, nn.ReLU(), 1.0), [gaussian(2048, 20), gaussian(2048, 20, seed=4)], samples=4096)
    exact = 0.25 / (0.5 - 0.5 / math.pi)
    assert_close(exact, 0.73347, rtol=1e-5, atol=0)
    assert_close(found["1"].to_dict()["moments"]["linear_r2"], exact, rtol=0, atol=4e-3)
    assert_close(
        unit_health(scaled(20, nn.LeakyReLU(1.0), 1.0), [gaussian(64, 20)])["1"].to_dict()["moments"]["linear_r2"], 1.0
    )


def test_values_that_are_not_finite_are_a_number_and_no_crash():
    x = gaussian(30, 8)
    x[3, 2] = math.nan
    found = unit_health(scaled(8, nn.Tanh(), 1.0), [x])["1"].to_dict()
    # A linear layer spreads it over the row.
    assert found["moments"]["nonfinite"] == 1 / 30
    assert found["moments"]["linear_r2"] is None
    assert abs(found["moments"]["h"]["mean"]) < 1
    everything = unit_health(scaled(8, nn.Tanh(), 1.0), [torch.full((4, 8), math.nan)])["1"].to_dict()
    assert everything["moments"]["z"]["mean"] is None
    assert everything["moments"]["nonfinite"] == 1.0


@pytest.mark.parametrize(
    ("size", "activation"), [(1e11, nn.ReLU), (1e20, nn.ReLU), (1e20, nn.Sigmoid), (1e30, nn.Tanh)]
)
def test_powers_that_leave_the_range_of_float32_are_left_out(size, activation):
    found = unit_health(scaled(4, activation(), size), [gaussian(200, 4)])["1"]
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["moments"]["z"]["kurtosis"] is None
    # Where even squares do, nothing that rests on them is said.
    assert (data["moments"]["linear_r2"] is None) == (size > 1e18)
    assert data["moments"]["outlier_ratio"] is None or data["moments"]["outlier_ratio"] >= 1
    assert data["states"]["constant"]["count"] == 0


def test_the_dictionary_is_json_and_agrees_with_a_reference():
    model, x = scaled(6, nn.GELU(), 2.0, bias=0.5), gaussian(500, 6)
    found = unit_health(model, [x]).to_dict()
    json.dumps(found, allow_nan=False)
    (site,) = found["sites"]
    z = model[0](x).double()
    h = F.gelu(z)
    moments = site["moments"]
    assert_close(moments["z"]["q"], z.square().mean().item(), rtol=1e-5, atol=0)
    assert_close(
        moments["z"]["kurtosis"],
        ((z - z.mean()) ** 4).mean().item() / z.var(correction=0).item() ** 2,
        rtol=1e-5,
        atol=0,
    )
    assert_close(moments["h"]["std"], h.std(correction=0).item(), rtol=1e-5, atol=0)
    assert_close(moments["outlier_ratio"], h.abs().max().item() / h.square().mean().sqrt().item(), rtol=1e-5, atol=0)
    assert sum(site["hist"]["counts"]) == 3000
    assert len(site["hist"]["counts"]) == len(site["hist"]["edges"]) + 1
    assert sum(site["firing"]) == 6
    assert_close(torch.tensor(site["curve"]["y"]), F.gelu(torch.tensor(site["curve"]["x"])), rtol=1e-5, atol=1e-6)
    precision = site["precision"]
    assert precision["dtype"] == "float32"
    assert -6.3 < precision["low"] < -6.0
    beyond = (z <= precision["low"]).double().mean().item()
    assert abs(precision["beyond"] - beyond) < 0.005


def test_precision_of_a_tanh_in_bfloat16():
    site = unit_health(scaled(20, nn.Tanh(), 2.0), [gaussian(2048, 20)])["1"].to_dict()
    exact = math.erfc(3.47 / 2 / math.sqrt(2))
    assert abs(site["precision"]["others"]["bfloat16"] - exact) < 0.01
    assert site["precision"]["beyond"] < 1e-4
