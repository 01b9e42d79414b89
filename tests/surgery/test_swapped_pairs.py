"""Gated pairs as what is put in: activation and product become one module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee as sk


class Block(nn.Module):
    """A gated block as language models have it; `how` says in which way its code multiplies."""

    def __init__(self, how, gate=None):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.up, self.down = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)
        self.how, self.function = how, gate
        self.act = nn.SiLU() if how in {"module", "value first", "used"} else None

    def forward(self, x):
        gate, up = self.gate(x), self.up(x)
        match self.how:
            case "module":
                y = self.act(gate) * up
            case "value first":
                y = up * self.act(gate)
            case "function":
                y = torch.mul(F.silu(gate), up + 1)
            case "expression":
                y = gate * torch.sigmoid(gate) * up
            case "used":
                y = self.act(gate)
                y = y * up + y
            case "written":
                y = self.function(gate, up + 1 if self.up_is_shifted else up)
        return self.down(y)

    up_is_shifted = False


WAYS = ["module", "value first", "function", "expression"]
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def by_hand(how, function):
    block = Block("written", function)
    block.up_is_shifted = how == "function"
    return block


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("to", "function"),
    [
        ("geglu", lambda gate, up: F.gelu(gate) * up),
        (lambda: sk.glu("mish", limit=0.3), lambda gate, up: F.mish(gate.clamp(max=0.3)) * up.clamp(-0.3, 0.3)),
    ],
)
def test_both_streams_go_through_it(how, to, function):
    model, wanted = Block(how), by_hand(how, function)
    model, report = sk.swap(model, to, where="pair", example_inputs=X)
    assert [change.path for change in report.changed] == ["softknee_0"]
    for one in (model, wanted):
        one(X).square().sum().backward()
    torch.testing.assert_close(model(X), wanted(X))
    for name, parameter in wanted.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)
    assert report.difference == pytest.approx((model(X) - Block(how)(X)).abs().max().item())


@pytest.mark.parametrize("how", WAYS)
def test_it_is_copied_compiled_undone_and_written_down(how, tmp_path):
    plain = Block(how)
    before, keys = plain(X), plain.state_dict().keys()
    model, _ = sk.swap(plain, "swiglu[trainable]", where="pair", example_inputs=X, per_channel=True)
    assert model.softknee_0.beta.shape == (10,)
    torch.testing.assert_close(model(X), before)
    with torch.no_grad():
        model.softknee_0.beta.mul_(1.5)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), model(X))
    sk.Recipe.of(model).save(tmp_path / "softknee.json")
    fresh = sk.Recipe.load(tmp_path / "softknee.json").apply(Block(how))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))
    restored = sk.unswap(model)
    assert restored.state_dict().keys() == keys
    assert torch.equal(restored(X), before)
    assert type(restored) is Block


def test_an_activation_that_something_else_uses_is_no_place_for_it():
    model = Block("used")
    assert sk.sites(model, X)[0].role == "pair"
    with pytest.raises(sk.UsageError, match=r"GEGLU makes \(2, 5\) of \(2, 10\) at act, where silu makes \(2, 10\)"):
        sk.swap(model, "geglu", where="silu", example_inputs=X)
    assert isinstance(model.act, nn.SiLU)
    # The gate alone can be changed all the same.
    model, _ = sk.swap(model, "gelu", where="silu", example_inputs=X)
    assert isinstance(model.act, sk.nn.GELU)


def test_halves_in_one_tensor_are_a_place_too():
    model = nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 2))
    weights = copy.deepcopy(model)
    model, report = sk.swap(model, lambda: sk.glu("gelu", gate_first=False), where="glu", example_inputs=X)
    value, gate = weights[0](X).chunk(2, -1)
    torch.testing.assert_close(model(X), weights[2](F.gelu(gate) * value))
    assert report.changed[0].path == "1"
