"""Layers after the last activation may be drawn as small as anybody likes: no finding of the gain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import softknee as sk

DATA = [torch.randn(128, 16, generator=torch.Generator().manual_seed(1))]


class Network(nn.Module):
    """Three layers at the gain of ReLU, and heads that are drawn by a function."""

    def __init__(self, draw):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*(one for _ in range(3) for one in (nn.Linear(16, 16), nn.ReLU())))
        self.heads = nn.ModuleList([nn.Linear(16, 5), nn.Linear(16, 2)])
        sk.calibrate(self, *DATA)
        with torch.no_grad():
            for head in self.heads:
                draw(head.weight)

    def forward(self, x):
        x = self.body(x)
        return [head(x) for head in self.heads]


def found(model, *ids):
    return [one for one in sk.diagnose(model, DATA).findings if one["id"] in ids]


def test_small_heads_are_off_no_gain():
    assert found(Network(lambda weight: weight.normal_(std=0.02)), "gain-mismatch") == []


def test_heads_of_zeros_are_no_finding():
    assert sk.diagnose(Network(torch.zero_), DATA).to_dict()["signal"]["chi_product"] == 0
    assert found(Network(torch.zero_), "gain-mismatch", "chi-product") == []


def test_the_layers_before_are_judged_alone():
    model = Network(torch.zero_)
    with torch.no_grad():
        model.body[2].weight.mul_(0.05)
    product, gain = found(model, "chi-product", "gain-mismatch")
    assert gain["site"] == "body.2"
    assert gain["text"].startswith("1 of 2 layers is off the forward gain")
    # Two layers after activations, one of them a twentieth of its gain.
    assert product["value"] == pytest.approx(0.05**2, rel=0.3)


@pytest.mark.parametrize(("scale", "said"), [(1.0, True), (0.8, False)])
def test_the_default_of_pytorch_is_only_named_where_it_is_that(scale, said):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        model[2].weight.mul_(scale)
    (gain,) = found(model, "gain-mismatch")
    assert gain["site"] == "2"
    assert ("PyTorch's default has σ_w² = 1/3" in gain["text"]) == said
    assert "PyTorch" not in gain["why"]
