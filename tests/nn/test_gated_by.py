"""Any activation as the gate of a pair: against the product as one would write it, and the checks of the catalogue."""

from __future__ import annotations

import copy
import pickle
import re
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import CATALOGUE, create
from softknee._engine.select import engine
from softknee._errors import AmbiguousActivation, ExpressionError, OptionError, UnknownActivation
from softknee._glu import glu
from softknee.nn.gated_by import GatedBy
from softknee.testing import check_activation

GATES = [spec for spec in CATALOGUE if spec.kind == "elementwise" and not spec.channelwise and spec.sampled is None]
# One of every structure: others go through the engines in `make test-all`.
STRUCTURES = {"relu", "mish", "swish", "srelu", "staf", "rational", "linear_spline", "hardswish", "sugar", "ditac"}


def drawn(*shape, seed=1, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(module, x, how="auto"):
    x = x.detach().clone().requires_grad_()
    with engine(how):
        y = module(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]


@pytest.mark.parametrize(
    ("gate", "title"),
    [("silu", "SwiGLU"), ("relu", "ReGLU"), ("gelu", "GEGLU"), ("gelu_tanh", "GEGLUTanh"), ("identity", "Bilinear")],
)
@pytest.mark.parametrize("how", ["eager", "fused"])
def test_products_that_are_catalogued_are_the_same(gate, title, how):
    x, options = drawn(30, 16), {"interleaved": True, "gate_first": False, "engine": how}
    for got, wanted in zip(
        *(with_gradients(module, x, how) for module in (glu(gate, **options), getattr(nn, title)(**options))),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_a_sigmoid_is_the_gate_of_torch_s_glu():
    x = drawn(30, 16)
    torch.testing.assert_close(glu("sigmoid", gate_first=False, engine="fused")(x), F.glu(x))


@pytest.mark.parametrize("spec", GATES, ids=lambda spec: spec.name)
def test_any_activation_of_single_elements_is_a_gate(spec):
    generator = partial(torch.Generator().manual_seed, 0)
    options = {"terms": min(spec.terms, 9)} if spec.terms and spec.fewest_terms <= 9 else {}
    drawing = {"generator": generator(), **options} if spec.initializations else {}
    module = GatedBy(spec.name, **drawing)
    drawing = {"generator": generator(), **options} if spec.initializations else {}
    alone = create(spec.name, **drawing)
    x = drawn(20, 12)
    with engine("eager"):
        wanted = alone(x[:, :6]) * x[:, 6:]
        torch.testing.assert_close(module(x), wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in alone.named_parameters()]


def by_structure(spec):
    return pytest.param(spec, id=spec.name, marks=() if spec.name in STRUCTURES else pytest.mark.slow)


@pytest.mark.parametrize("limit", [None, 1.5])
@pytest.mark.parametrize("spec", [by_structure(spec) for spec in GATES])
def test_kernels_of_any_gate(spec, limit):
    options = {"terms": 9} if spec.name == "linear_spline" else {}
    drawing = {"generator": torch.Generator().manual_seed(0)} if spec.initializations else {}
    module, x = GatedBy(spec.name, limit=limit, **options, **drawing), drawn(40, 12).clamp(min=-1.0)
    assert module.engine == "fused"
    wanted = with_gradients(copy.deepcopy(module).double(), x.double(), "eager")
    written = with_gradients(module, x, "eager")
    for got, other, torchs in zip(with_gradients(module, x, "fused"), wanted, written, strict=True):
        # Where the formula itself magnifies roundings, torch's float32 errs as much.
        allowed = 1e-4 * other.abs() + 2e-5 * max(1.0, other.abs().max().item()) + 2 * (torchs - other).abs().max()
        assert bool(((got - other).abs() <= allowed).all())


@pytest.mark.parametrize(
    ("gate", "values"),
    [
        ("mish", {"limit": 2.5}),
        ("swish", {"limit": 2.5}),
        ("relu", {"limit": 2.5}),
        ("staf[terms=3]", {}),
    ],
)
def test_what_the_catalogue_promises(gate, values):
    """Against the formula evaluated to a hundred digits, in every precision, layout and surrounding."""
    check_activation(glu(gate, **values).spec, **values)


@pytest.mark.parametrize("how", ["eager", "fused"])
def test_limits_are_those_of_gpt_oss(how):
    """The gate is clamped from above only, the value on both sides."""
    x = drawn(30, 16, scale=8.0)
    gate, value = x[:, ::2].clamp(max=7.0), x[:, 1::2].clamp(-7.0, 7.0)
    module = glu("mish", limit=7.0, interleaved=True, engine=how)
    torch.testing.assert_close(module(x), F.mish(gate) * value)
    torch.testing.assert_close(glu("silu", limit=7.0, engine=how)(x), nn.SwiGLUClamped(limit=7.0, engine=how)(x))


def test_parameters_of_the_gate_and_the_limit_are_trained_in_each_channel():
    module = glu("swish[beta=1.5]", limit=2.0, trainable=True, per_channel=6)
    assert {name: tuple(value.shape) for name, value in module.named_parameters()} == {"beta": (6,), "limit": (6,)}
    for how in ("eager", "fused"):
        by = with_gradients(module, drawn(40, 12), how)[2:]
        assert all((one != 0).all() for one in by)
    assert not glu("swish", limit=2.0).state_dict().keys() & {"limit"}


def test_formulas_bring_their_parameters():
    x = drawn(30, 16)
    module = glu("x * sigmoid(b * x)", b=1.5, trainable=False, engine="fused")
    torch.testing.assert_close(module(x), nn.SwiGLU(beta=1.5)(x))
    torch.testing.assert_close(glu("x", engine="fused")(x), x[:, :8] * x[:, 8:])
    assert repr(module) == "GatedBy('x * sigmoid(b * x)', b=1.5, dim=-1, gate_first=True, engine=fused)"
    assert repr(glu("mish", limit=7)) == "GatedBy('mish', limit=7, dim=-1, gate_first=True, engine=fused)"


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("gate", ["mish", "staf[terms=4]", "a * x + tanh(x)[a=0.3]", "swish[per_channel=8]"])
def test_copies(gate, way):
    module, x = glu(gate, limit=1.5, gate_first=False), drawn(30, 16)
    other = way(module)
    assert repr(other) == repr(module)
    assert torch.equal(other(x), module(x))
    assert other.state_dict().keys() == module.state_dict().keys()


def test_modules_of_a_kind_share_what_is_compiled():
    assert glu("x * tanh(a * x)", a=1.0)._plans[0] is glu("x * tanh(a * x)", a=2.0)._plans[0]
    assert pickle.loads(pickle.dumps(glu("mish")))._plans[0] is glu("mish")._plans[0]
    assert glu("mish", limit=1.0)._plans[0] is not glu("mish")._plans[0]


def test_half_precision_is_rounded_once():
    """squared_relu(300) leaves the range of float16; times a small value it does not."""
    x = torch.tensor([[300.0, 1e-3]], dtype=torch.float16)
    wanted = (torch.tensor(300.0).square() * x[0, 1].float()).half()
    for how in ("eager", "fused"):
        assert glu("squared_relu", engine=how)(x).item() == wanted.item()


BAD = [
    ("swiglu", OptionError, "swiglu cannot be a gate: it is a gated pair itself; softknee.create('swiglu') makes it"),
    ("softmax", OptionError, "softmax cannot be a gate: it looks at more than single elements"),
    ("rrelu", OptionError, "rrelu cannot be a gate: it is random in training"),
    ("brelu", OptionError, "brelu cannot be a gate: it depends on the channel"),
    ("limit * x", OptionError, "'limit' cannot name a parameter of a gate, for every gated pair has it already"),
    (3, OptionError, "a gate is a name or a formula, as in 'mish' or 'x * sigmoid(x)'; got 3"),
    ("swish[per_channel]", OptionError, "say how many channels 'swish[per_channel]' has, as in per_channel=64"),
    ("nothing_like_it", UnknownActivation, "no activation named 'nothing_like_it'"),
    ("x *", ExpressionError, "this is no formula"),
]


@pytest.mark.parametrize(("gate", "kind", "message"), BAD)
def test_what_cannot_be_a_gate(gate, kind, message):
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        glu(gate)


def test_options_that_are_wrong():
    with pytest.raises(OptionError, match=r"^beta is given twice: in 'swish\[beta=1\]' and as an option; keep one$"):
        glu("swish[beta=1]", beta=2.0)
    with pytest.raises(OptionError, match=r"^limit of glu\('mish'\) must be above 0, got -1$"):
        glu("mish", limit=-1)
    with pytest.raises(OptionError, match=r"^glu\('mish'\) has no parameter 'beta'; it has none$"):
        glu("mish", beta=1.0)
    with pytest.raises(UnknownActivation, match="^no activation named 'nothing' to be a gate"):
        GatedBy("nothing")


def test_names_of_several_functions_are_refused():
    with pytest.raises(AmbiguousActivation, match="^'drelu' stands for several functions; say which: "):
        glu("drelu")
