"""The signal through convolutions, branches, norms, attention and gates."""

from __future__ import annotations

import pytest
import torch
from signal_networks import draw, samples
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.flow.signal import signal

pytestmark = pytest.mark.usefixtures("_seeded")


def test_convolutions_count_the_inputs_that_padding_leaves():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=2, groups=1, bias=False))
    first, second = signal(model, [torch.randn(8, 3, 8, 8)]).layers
    # Of 8 positions a side, two have two neighbours instead of three.
    inputs = 3 * (22 / 8) ** 2
    assert first.sw2 == pytest.approx(inputs * model[0].weight.square().mean().item(), rel=1e-6)
    assert second.sw2 == pytest.approx(model[2].weight.square().sum().item() / 7, rel=1e-6)
    assert first.sb2 == pytest.approx(model[0].bias.square().mean().item(), rel=1e-6)
    assert second.sb2 == 0
    assert (first.site, second.site) == ("1", None)


def test_a_convolutional_network_follows_theory():
    model = nn.Sequential(
        *(draw(nn.Conv2d(3, 48, 3, padding=1), 2.0), nn.ReLU(inplace=True)),
        *(draw(nn.Conv2d(48, 64, 3, stride=2, padding=1), 2.0), nn.ReLU(inplace=True)),
        *(draw(nn.Conv2d(64, 64, 3, padding=1), 2.0), nn.MaxPool2d(2), nn.Flatten(), draw(nn.Linear(1024, 10), 2.0)),
    )
    found = signal(model, [torch.randn(32, 3, 16, 16)])
    for one in found.layers[1:3]:
        assert one.q == pytest.approx(one.q_theory, rel=0.15)
        assert one.cosine == pytest.approx(one.cosine_theory, abs=0.06)
        assert one.backward == pytest.approx(one.chi, rel=0.15)
    assert found.layers[3].note == "theory starts here (max_pool2d before it)"
    assert found.layers[3].q_theory == found.layers[3].q
    assert found.layers[3].backward is None


class Residual(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.norm = norm(width)
        self.first, self.second = draw(nn.Linear(width, width), 2.0), draw(nn.Linear(width, width), 2.0)

    def forward(self, x):
        return x + self.second(F.relu(self.first(self.norm(x))))


@pytest.mark.parametrize("norm", [nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d])
def test_branches_add_up_and_norms_reset(norm):
    width = 600
    model = nn.Sequential(draw(nn.Linear(100, width), 1.0), *(Residual(width, norm) for _ in range(3)), nn.ReLU())
    found = signal(nn.Sequential(model, draw(nn.Linear(width, width), 2.0)), [samples(cosine=0.2)])
    assert found.residual
    assert found.chi_product is None
    assert found.normed == (norm is not nn.Identity)
    for one in found.layers[1:]:
        assert one.q == pytest.approx(one.q_theory, rel=0.2), one.layer
        assert one.cosine == pytest.approx(one.cosine_theory, abs=0.08), one.layer
        assert not one.note
    if norm is nn.Identity:
        # Each block doubles the mean square of the stream: so does what its first layer gets.
        assert found.layers[5].q_theory / found.layers[1].q_theory == pytest.approx(9, rel=0.2)
    else:
        assert found.layers[5].q_theory == pytest.approx(2, rel=0.05)
        assert found.layers[5].matched is None


def test_factors_and_shifts_of_norms_count():
    norm = nn.LayerNorm(200)
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(1)
    model = nn.Sequential(draw(nn.Linear(100, 200), 1.0), norm, draw(nn.Linear(200, 50), 1.0))
    assert signal(model, [samples()]).layers[1].q_theory == pytest.approx(10, rel=0.03)


def test_batch_norm_uses_the_batch_and_stays_as_it_is():
    model = nn.Sequential(draw(nn.Linear(100, 200), 9.0), nn.BatchNorm1d(200), nn.ReLU(), draw(nn.Linear(200, 50), 2.0))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = signal(model, [samples(), samples(seed=2)])
    assert found.layers[1].q == pytest.approx(1, rel=0.15)
    assert not model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = draw(nn.Linear(width, 4 * width), 2.0), draw(nn.Linear(4 * width, width), 2.0)

    def forward(self, x):
        h = self.before(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.between(x))))


def test_a_transformer_is_followed_but_through_attention():
    model = nn.Sequential(nn.Embedding(50, 64), Block(64), Block(64), draw(nn.Linear(64, 50), 1.0))
    found = signal(model, [torch.randint(0, 50, (64, 12))])
    assert [one.layer for one in found.layers] == ["1.up", "1.down", "2.up", "2.down", "3"]
    assert [one.site for one in found.layers] == ["1#0", None, "2#0", None, None]
    assert found.refused is None
    for one in found.layers[1:]:
        assert one.q == pytest.approx(one.q_theory, rel=0.2)
    assert "multi_head_attention_forward" in found.layers[2].note
    assert found.layers[1].backward == pytest.approx(found.layers[1].chi, rel=0.1)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = draw(nn.Linear(100, 200), 1.0)
        self.gate, self.up, self.down = (draw(nn.Linear(200, 200), 2.0) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


def test_a_gated_pair_multiplies():
    found = signal(Gated(), [samples(cosine=0.3)]).layers[-1]
    assert found.q == pytest.approx(found.q_theory, rel=0.2)
    assert found.cosine == pytest.approx(found.cosine_theory, abs=0.08)
    assert (found.matched, found.chi, found.backward) == (None, None, None)


def test_layers_without_a_row_are_listed():
    model = nn.Sequential(nn.Embedding(50, 64), Block(64), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 8)))
    model.idle = nn.Linear(2, 2)
    found = signal(Skipping(model), [torch.randint(0, 50, (6, 12))])
    assert found.left == (
        ("inner.1.attention", "its weights are inside one function"),
        ("inner.1.attention.out_proj", "it did not run by itself"),
        ("inner.2", "its weights are computed from others, such as by spectral norm"),
        ("inner.idle", "it did not run by itself"),
    )


class Skipping(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner[2](self.inner[1](self.inner[0](x)))


def test_a_norm_that_is_written_out_is_a_norm():
    class Written(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    model = nn.Sequential(draw(nn.Linear(100, 300), 9.0), Written(), draw(nn.Linear(300, 300), 2.0))
    found = signal(model, [samples(cosine=0.3)])
    last = found.layers[-1]
    assert found.normed
    assert (last.q_theory, last.cosine_theory) == pytest.approx((2, found.layers[0].cosine), rel=0.05)
    assert not last.note
