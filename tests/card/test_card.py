from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from softknee._card.card import card
from softknee._catalogue import CATALOGUE, create
from softknee._errors import ExpressionError, OptionError, UnknownActivation, UsageError

GELU = "x * (1 + erf(x / sqrt(2))) / 2"


def test_the_same_function_however_it_is_given():
    wanted = card("gelu")
    for other in (GELU, create("gelu"), nn.GELU(), nn.functional.gelu):
        one = card(other)
        assert one.gain == pytest.approx(wanted.gain, rel=1e-13)
        assert one.chi(2.0, 0.5) == pytest.approx(wanted.chi(2.0, 0.5), rel=1e-13)
        assert one.lipschitz == pytest.approx(wanted.lipschitz, rel=1e-12)
        assert [piece.direction for piece in one.pieces] == ["falls", "rises"]
    assert [card(one).name for one in ("gelu", nn.GELU(), nn.functional.gelu)] == ["gelu", "GELU", "gelu"]


def test_options_and_parameters():
    assert card("swish[beta=2]").gain == card("swish", beta=2).gain != card("swish").gain
    assert card("x * sigmoid(b * x)", b=2.0).gain == pytest.approx(card("swish", beta=2.0).gain, rel=1e-14)
    # A catalogued name is taken at full precision, a module at what it stores.
    assert card("leaky_relu").parameters == {"negative_slope": 0.01}
    assert card(create("swish", beta=0.3)).parameters["beta"] == pytest.approx(0.3, abs=1e-7)


def test_activations_in_place():
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    one = card(nn.ReLU(inplace=True))
    assert one.gain == pytest.approx(math.sqrt(2), rel=1e-13)
    assert one(x).tolist() == [0, 2]
    assert x.tolist() == [-1, 2]
    assert card(torch.relu_).kinks == one.kinks


def test_channels_are_averaged():
    module = create("prelu", per_channel=2, slope=torch.tensor([0.0, 1.0]))
    one = card(module)
    assert one.channels == 2
    assert one.moments().square == pytest.approx(0.75, rel=1e-13)
    assert card("brelu").moments().mean == pytest.approx(0, abs=1e-15)
    assert card(nn.PReLU(3), channels=3).moments().square == pytest.approx((1 + 0.25**2) / 2, rel=1e-7)


def test_a_module_and_the_random_state_stay_as_they_are():
    module = create("prelu").train()
    before, state = module.slope.detach().clone(), torch.get_rng_state()
    card(module).to_dict()
    card("staf").to_dict()
    assert module.training
    assert module.slope.grad is None
    assert torch.equal(module.slope, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_card_keeps_the_values_it_was_made_with():
    module = create("swish", beta=1.0)
    one = card(module)
    with torch.no_grad():
        module.beta.fill_(3.0)
    assert one.gain == pytest.approx(card("silu").gain, rel=1e-14)
    other = nn.PReLU()
    kept = card(other)
    nn.init.zeros_(other.weight)
    assert kept.gain == pytest.approx(card("prelu").gain, rel=1e-14)


@pytest.mark.parametrize("name", ["gelu", "relu", "magnitude_threshold", "sin", "step_ste", "squared_relu", "staf"])
def test_the_dictionary_is_plain_json(name):
    one = card(name)
    plain = one.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["schema"] == 1
    assert plain["gains"]["forward"] == one.gain
    assert set(plain["thresholds"]) == {"float32", "bfloat16", "float16"}
    assert (plain["lipschitz"]["slope"] is None) == math.isinf(one.lipschitz)


def test_it_reads_well():
    text = repr(card("selu"))
    assert text.startswith("Card of selu\n  formula ")
    assert "forward 1.0000, backward 0.9660, chi 1.0716" in text
    assert "keeps mean 0 and variance 1 and draws others near (slope of the variance map 0.7826)" in text
    assert "rises everywhere" in text
    assert "is constant up to 0, rises from 0 on" in repr(card("relu"))
    assert "falls like 44.41 / depth^2" in repr(card("relu"))
    assert "float16 from -4.5078 down and from 4.5078 up" in repr(card("tanh"))


def test_html_is_escaped():
    def evil(x):
        return torch.tanh(x)

    evil.__name__ = "</table><script>alert(1)</script>"
    shown = card(evil)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_every_activation_of_single_elements_has_a_curve():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    for spec in CATALOGUE:
        if spec.kind == "elementwise":
            assert all(one.shape == x.shape for one in card(spec.name).curve(x))


def test_curves_are_value_slope_and_second_derivative():
    x = torch.tensor([[0.3], [-1.1]], dtype=torch.float64)
    value, slope, bend = card("tanh").curve(x[:, 0])
    t = x[:, 0].tanh()
    assert torch.allclose(value, t)
    assert torch.allclose(slope, 1 - t * t)
    assert torch.allclose(bend, -2 * t * (1 - t * t))
    assert card("tanh")(x).shape == (2, 1)
    assert card("tanh")(x.half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("activation", "error", "sentence"),
    [
        ("nope", UnknownActivation, "no activation named 'nope'"),
        ("x +", ExpressionError, "x \\+"),
        ("swiglu", UsageError, "swiglu is of the kind gated; a card is about one function of one number"),
        ("swish[gamma=1]", OptionError, "gamma"),
        (3, UsageError, "an activation is a name, a formula, a module or a function of tensors, got int"),
        (nn.Softmax(1), UsageError, "Softmax is no function of single elements: its values depend on their order"),
        (nn.Softmax(0), UsageError, "its values depend on their order"),
        (nn.GLU(), UsageError, "GLU cannot be evaluated in float64: Halving dimension must be even"),
        (nn.Linear(3, 3), UsageError, "Linear cannot be evaluated in float64"),
        (nn.Flatten(0), UsageError, r"Flatten is no function of single elements: of \(4, 1\) it made \(4,\)"),
        (nn.PReLU(device="meta"), UsageError, "PReLU is on the meta device and has no values"),
        (lambda x: 1.0, UsageError, "it made float"),
        (lambda x: x.cumsum(0), UsageError, "its values depend on their order"),
    ],
)
def test_what_is_no_activation_of_single_elements_is_refused(activation, error, sentence):
    with pytest.raises(error, match=sentence):
        card(activation)


def test_other_bad_arguments():
    with pytest.raises(UsageError, match=r"options \(beta\) go with a name or a formula"):
        card(nn.SiLU(), beta=1)
    with pytest.raises(UsageError, match="channels must be at least 1, got 0"):
        card(nn.PReLU(2), channels=0)
    with pytest.raises(UsageError, match="order must be at least 0, got -1"):
        card("relu").hermite(order=-1)
