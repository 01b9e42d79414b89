from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import create, get
from softknee._errors import OptionError, UnknownActivation, UsageError
from softknee._spec import Param, Spec
from softknee.nn.formula import formula_spec

X = torch.linspace(-3, 3, 24).view(4, 6)


def doubled(x, factor=2.0):
    return factor * x


OWN = Spec(
    name="doubled",
    title="Doubled",
    family="mine",
    function=doubled,
    formula="factor * x",
    parameters=(Param(name="factor", default=2.0),),
)
MODULES = [
    lambda: nn.LinearMix(),
    lambda: nn.LinearMix(["relu", "swish"]),
    lambda: nn.LinearMix(("gelu", OWN), trainable=("gelu_weight",)),
    lambda: nn.ConvexMix(["prelu", "prelu", "mish"], per_channel=6),
    lambda: nn.AffineMix(["relu", formula_spec("x * tanh(x) + gelu(x)", ())]),
    lambda: nn.TAAF("swish", alpha=2.0, trainable=False),
    lambda: nn.Blend("relu", "silu", 0.25),
    lambda: nn.Blend("relu", "silu", torch.tensor(0.25)),
    lambda: nn.TAAF("linear_mix"),
]


@pytest.mark.parametrize("make", MODULES)
def test_copies_are_equal(make):
    module = make()
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(X), module(X))
        assert repr(again) == repr(module)
        assert again.spec.parameters == module.spec.parameters
        assert [spec.name for spec in again.candidates] == [spec.name for spec in module.candidates]
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = make()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(X), module(X))


@pytest.mark.parametrize("make", MODULES)
def test_compile_and_vmap(make):
    module = make()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(X), module(X), atol=1e-6)
    if module.per_channel is None:
        assert torch.allclose(torch.func.vmap(module)(X), module(X), atol=1e-6)


def test_the_catalogues_entries_are_the_classes():
    for name, cls in (("linear_mix", nn.LinearMix), ("blend", nn.Blend), ("taaf", nn.TAAF)):
        module = create(name)
        assert type(module) is cls
        assert module.spec is get(name)
    assert torch.allclose(create("linear_mix", relu_weight=1.2)(X), nn.LinearMix()(X) + X.relu(), atol=1e-6)


def test_a_mixture_has_a_weight_for_each_candidate():
    module = nn.LinearMix(["relu", "tanh"], relu_weight=2.0, tanh_weight=-1.0)
    assert [name for name, _ in module.named_parameters()] == ["relu_weight", "tanh_weight"]
    assert torch.allclose(module(X), 2 * X.relu() - X.tanh(), atol=1e-6)
    module(X).sum().backward()
    assert module.relu_weight.grad.item() == pytest.approx(X.relu().sum().item())


def test_candidates_keep_their_parameters():
    module = nn.LinearMix(["swish", "prelu"], swish_beta=3.0, prelu_slope=0.5)
    expected = (X * torch.sigmoid(3 * X) + F.leaky_relu(X, 0.5)) / 2
    assert torch.allclose(module(X), expected, atol=1e-6)
    assert module.swish_beta.requires_grad


def test_a_wrapper_starts_as_its_base():
    assert torch.allclose(nn.TAAF("gelu")(X), F.gelu(X), atol=1e-6)
    module = nn.TAAF("relu", alpha=2.0, beta=-1.0, gamma=0.5, delta=1.0)
    assert torch.allclose(module(X), 2 * (0.5 - X).relu() + 1)


def test_blending_goes_from_one_to_the_other():
    module = nn.Blend("relu", "mish")
    for t in (0.0, 0.25, 1.0):
        module.t = t
        assert torch.allclose(module(X), (1 - t) * X.relu() + t * F.mish(X), atol=1e-6)
    assert not list(module.parameters())
    assert not module.state_dict()


def test_how_far_a_blend_is_can_be_saved():
    module, other = (nn.Blend("relu", "mish", torch.tensor(start)) for start in (0.0, 0.5))
    module.t.fill_(0.75)
    other.load_state_dict(module.state_dict())
    assert torch.allclose(other(X), 0.25 * X.relu() + 0.75 * F.mish(X), atol=1e-6)


def test_modules_of_the_same_candidates_share_kernels():
    first, again, other = (nn.ConvexMix(names) for names in (["relu", "gelu"], ["relu", "gelu"], ["gelu", "relu"]))
    assert first._plans[0] is again._plans[0]
    assert first._plans[0] is not other._plans[0]


def test_large_tensors_go_to_kernels():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    module = nn.ConvexMix(["relu", "gelu", "swish"])
    assert module.engine == "fused"
    gradients = []
    for engine in ("eager", "fused"):
        module.wanted_engine = engine
        z = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(z).square().sum(), [z, *module.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_representations_name_the_candidates():
    assert repr(nn.Blend("relu", "silu", 0.25)) == "Blend((relu, silu), t=0.25, engine=fused)"
    assert repr(nn.TAAF(trainable=False)) == "TAAF((tanh), alpha=1, beta=1, gamma=0, delta=0, engine=fused)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.LinearMix(["relo"]), UnknownActivation, "no activation named 'relo'; did you mean 'relu'"),
        (lambda: nn.LinearMix(["relu"], tanh_weight=1.0), OptionError, "linear_mix has no parameter 'tanh_weight'"),
        (lambda: nn.LinearMix([]), UsageError, "linear_mix is made of other functions; name at least one"),
        (lambda: nn.ConvexMix(["relu", "staf"]), UsageError, "staf cannot be part of convex_mix: it has vector"),
        (lambda: nn.TAAF("rrelu"), UsageError, "rrelu cannot be part of taaf: it is random in training"),
        (lambda: nn.Blend(t=1.5), OptionError, "t of blend must be at least 0 and at most 1, got 1.5"),
        (lambda: nn.TAAF("celu", celu_alpha=0.0), OptionError, "celu_alpha of taaf must be above 0, got 0"),
    ],
)
def test_bad_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
