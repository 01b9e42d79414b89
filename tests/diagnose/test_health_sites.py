"""Where the health of units is measured: what counts as a site, a unit and a sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from unit_models import gaussian

from softknee._diagnose.units.health import unit_health


def test_channels_of_a_convolution_are_units_over_all_positions():
    """Per position most of these would be dead."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-0.6)
        model[0].bias[2] = -1e4
    x = gaussian(4, 3, 12, 12)
    site = unit_health(model, [x])["1"]
    h = model(x)
    assert (site.sums.units, site.sums.n) == (5, 400)
    assert site.units_in("dead") == (2,)
    assert ((h == 0).all(0)).double().mean() > 0.3
    assert_close(site.firing, (h > 0).double().mean((0, 2, 3)))


def test_tokens_are_samples_and_not_units():
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
    found = unit_health(model, [gaussian(4, 7, 6)])["1"]
    assert (found.sums.units, found.sums.n) == (10, 28)


def test_softmax_of_attention_is_seen_without_what_needs_slopes():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            return F.softmax(self.q(x) @ self.k(x).transpose(1, 2), dim=-1) @ self.v(x)

    (site,) = unit_health(Attention(), [gaussian(4, 5, 6)]).sites
    found = site.to_dict()
    assert (found["kind"], found["role"], found["slopes"], found["curve"]) == ("softmax", "normaliser", None, None)
    assert [found["states"][name] for name in ("dead", "linear", "saturated")] == [None] * 3
    assert found["states"]["silent"]["count"] == 0
    assert "depend on one another" in found["notes"][0]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = self.b(x)
        return self.c(x * torch.sigmoid(x))


def test_a_model_without_activation_modules_is_seen():
    found = unit_health(Functional(), [gaussian(30, 8)])
    assert [(one.to_dict()["kind"], one.to_dict()["how"]) for one in found.sites] == [
        ("relu", "function"),
        ("silu", "expression"),
    ]
    assert found.coverage == ()


def test_the_activation_inside_an_encoder_layer_is_seen():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = unit_health(model, [gaussian(4, 5, 8)])
    (site,) = [one for one in found.sites if one.to_dict()["kind"] == "relu"]
    assert (site.sums.units, site.sums.n) == (16, 20)


def test_what_is_not_seen_is_listed():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.act, self.spare = nn.LSTM(6, 4, batch_first=True), nn.ReLU(), nn.GELU()

        def forward(self, x):
            return self.act(self.rnn(x)[0])

    found = unit_health(Both(), [gaussian(3, 5, 6)])
    assert [site.name for site in found.sites] == ["act"]
    assert {one["path"]: one["reason"] for one in found.coverage} == {
        "rnn": "the gates of an LSTM are inside one kernel",
        "spare": "it did not run on these samples",
    }


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_model_is_measured_with_gradients(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.block = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(checkpoint(self.block, self.first(x), use_reentrant=reentrant))

    site = unit_health(Checkpointed(), [(gaussian(30, 8), torch.zeros(30, dtype=torch.long))], "cross_entropy")[
        "block.1"
    ]
    assert (site.sums.n, site.sums.gradients) == (30, 30)
