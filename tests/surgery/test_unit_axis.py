from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, linear, numbers

import softknee as sk

LAYER, CONV1, CONV2 = linear(4, 6), nn.Conv1d(4, 6, 1), nn.Conv2d(4, 6, 1)


@pytest.mark.parametrize(
    ("function", "layer", "shape", "axis"),
    [
        (lambda h: h, LAYER, (2, 4), 1),
        (lambda h: h, LAYER, (4,), 0),
        (lambda h: h, LAYER, (2, 5, 4), 2),
        (lambda h: h, LAYER, (2, 3, 5, 4), 3),
        (lambda h: h.transpose(1, 2), LAYER, (2, 5, 4), 1),
        (lambda h: h.mT, LAYER, (2, 5, 4), 1),
        (lambda h: h.transpose(0, 1).contiguous(), LAYER, (2, 5, 4), 2),
        (lambda h: h[:, 0], LAYER, (2, 5, 4), 1),
        (lambda h: h[:, -1:], LAYER, (2, 5, 4), 2),
        (lambda h: h.view(2, 5, -1), LAYER, (10, 4), 2),
        (lambda h: h, CONV1, (2, 4, 5), 1),
        (lambda h: h, CONV1, (4, 5), 0),
        (lambda h: h[:, :, :-1].contiguous(), CONV1, (2, 4, 5), 1),
        (lambda h: torch.cat([h, h], 1), CONV1, (2, 4, 5), 1),
        (lambda h: F.max_pool1d(F.dropout(h, 0.1), 2), CONV1, (2, 4, 5), 1),
        (lambda h: h + 1, CONV1, (2, 4, 5), 1),
        (lambda h: h, CONV2, (2, 4, 5, 5), 1),
        (lambda h: h, CONV2, (4, 5, 5), 0),
        (lambda h: h.flatten(2), CONV2, (2, 4, 5, 5), 1),
        (lambda h: h.permute(0, 2, 3, 1), CONV2, (2, 4, 5, 5), 3),
        (lambda h: h.flip(-1).sort(-1).values + h, CONV1, (2, 4, 5), 1),
        (lambda h: torch.fft.irfft(torch.fft.rfft(h), n=5) + h, CONV1, (2, 4, 5), 1),
        (lambda h: LAYER.weight @ h.mT[:, :4], LAYER, (2, 5, 4), 1),
        (lambda h: h.mean((2, 3)), CONV2, (2, 4, 5, 5), 1),
        (lambda h: F.adaptive_avg_pool2d(h, 1).flatten(1), CONV2, (2, 4, 5, 5), 1),
    ],
)
def test_the_axis_of_the_units_follows_from_what_made_them(function, layer, shape, axis):
    (site,) = sk.sites(Written(lambda s, x: torch.relu(function(s.layer(x))) + 1, layer=layer), numbers(*shape))
    assert site.unit_axis == axis
    assert site.units in {6, 12}


def test_a_norm_says_where_the_channels_are():
    (site,) = sk.sites(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), numbers(3, 4, 7))
    assert site.unit_axis == 1


def test_features_without_a_batch_are_channels():
    model = nn.Sequential(linear(4, 6), nn.ReLU(), linear(6, 2))
    _, report = sk.swap(model, "prelu", per_channel=True, example_inputs=numbers(4))
    assert [change.site.units for change in report.changed] == [6]
    assert model[1].slope.shape == (6,)
