from __future__ import annotations

import contextlib
import io
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import softknee
from softknee._card.source import source
from softknee._errors import UnknownActivation, UsageError
from softknee._expression.parse import parse
from softknee._spec import Param, Spec
from softknee.functional import SPECS
from softknee.nn import Elementwise, Formula
from softknee.nn.options import can_be_trained

ELEMENTWISE = [spec for spec in SPECS if spec.kind == "elementwise"]
X = torch.linspace(-4.03, 4.41, 60, dtype=torch.float64).view(5, 3, 4)


def printed(text, name, **options):
    """An instance of the printed class, made where there is nothing but Python and torch."""
    assert "import softknee" not in text
    assert "from softknee" not in text
    module = ModuleType("printed")
    exec(compile(text, "printed", "exec"), vars(module))
    sys.modules["printed"] = module  # torch.compile looks there
    return getattr(module, name)(**options)


def assert_same(theirs, ours, x=X):
    """Compare values and all gradients."""
    results = []
    for module in (theirs, ours):
        module.double()
        point = x.clone().requires_grad_()
        parameters = dict(module.named_parameters())
        y = module(point)
        assert y.shape == x.shape
        gradients = torch.autograd.grad(
            (y * torch.linspace(0.5, 1.5, x.numel()).view_as(x)).sum(),
            [point, *parameters.values()],
            allow_unused=True,
            materialize_grads=True,
        )
        results.append({"y": y.detach(), **dict(zip(["x", *parameters], gradients, strict=True))})
    first, second = results
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=1e-9, atol=1e-11), name


def ours(spec, **options):
    generator = torch.Generator().manual_seed(1)
    return softknee.create(spec.name, engine="eager", generator=generator, **options)


@pytest.mark.parametrize("spec", ELEMENTWISE, ids=lambda spec: spec.name)
def test_every_catalogued_activation_prints_as_a_module_of_its_own(spec):
    options = {"generator": torch.Generator().manual_seed(1)} if spec.initializations else {}
    with torch.random.fork_rng():
        theirs = printed(source(spec.name), spec.title, **options)
    mine = ours(spec)
    if spec.sampled is not None:
        theirs.eval(), mine.eval()
    assert_same(theirs, mine)
    theirs.load_state_dict(mine.state_dict())


TRAINED = [spec for spec in ELEMENTWISE if any(map(can_be_trained, spec.parameters))]


@pytest.mark.parametrize("spec", TRAINED, ids=lambda spec: spec.name)
def test_a_module_prints_with_its_values(spec):
    mine = ours(spec, trainable=True, per_channel=3)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter *= torch.linspace(0.9, 1.1, parameter.numel()).view_as(parameter)
    theirs = printed(source(mine.eval()), spec.title).eval()
    assert_same(theirs, mine)
    assert {name for name, _ in theirs.named_parameters()} == {param.name for param in spec.parameters}


def test_printed_noise_is_drawn_as_ours_is():
    theirs, mine = printed(source("rrelu"), "RReLU"), softknee.create("rrelu", engine="eager")
    x = torch.linspace(-2, 2, 9)
    results = []
    for module in (theirs, mine):
        torch.manual_seed(3)
        results.append(module(x))
    assert torch.equal(*results)


@pytest.mark.parametrize("options", [{}, {"per_channel": 3}, {"trainable": False}, {"trainable": ("a",)}])
def test_a_formula_prints_with_its_values(options):
    mine = Formula(
        "where(x > 0, swish(x, b), a * (exp(x) - 1)) + log1p(exp(x))", a=0.3, b=1.7, engine="eager", **options
    )
    theirs = printed(source(mine), "Activation")
    assert_same(theirs, mine)
    assert mine.state_dict().keys() == theirs.state_dict().keys()


def test_a_bare_formula_needs_its_values_when_it_is_made():
    text = source("a * tanh(b * x)", name="Scaled")
    with pytest.raises(TypeError, match="a.*b"):
        printed(text, "Scaled")
    assert_same(printed(text, "Scaled", a=1.0, b=2.0), Formula("a * tanh(b * x)", a=1.0, b=2.0, engine="eager"))
    fixed = printed(text, "Scaled", a=1.0, b=2.0, trainable=("b",), per_channel=3, channel_dim=-1)
    assert dict(fixed.named_parameters()).keys() == {"b"}
    assert fixed(torch.ones(2, 5, 3)).shape == (2, 5, 3)
    with_values = parse("a * tanh(b * x)").to_module_source("Scaled", a=1.0, b=2.0)
    assert_same(printed(with_values, "Scaled"), Formula("a * tanh(b * x)", a=1.0, b=2.0, engine="eager"))


def test_sums_over_vectors_print():
    text = parse("sum(a * sin(b * x))").to_module_source("Wave", a=(1.0, 2.0), b=(0.5, -1.0))
    module = printed(text, "Wave")
    x = torch.linspace(-1, 1, 5)
    assert torch.allclose(module(x), torch.sin(0.5 * x) + 2 * torch.sin(-x))
    assert module.a.shape == (2,)
    channels = printed(text, "Wave", per_channel=4)
    assert channels.a.shape == (2, 4)
    assert channels(torch.ones(3, 4)).shape == (3, 4)


def test_printed_modules_go_wherever_modules_go():
    module = printed(source(softknee.create("swish", beta=1.5)), "Swish")
    model = nn.Sequential(nn.Linear(3, 3), module)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), model(x))
    assert torch.export.export(model, (x,)).module()(x).shape == (2, 3)


def test_a_function_without_source_of_its_own_is_printed_from_its_formula():
    factor = 2.0
    spec = Spec(
        name="twice", title="Twice", family="own",
        function=lambda x, a=1.0: factor * x + a * torch.log(1 + torch.exp(x)),
        formula="2 * x + a * log(1 + exp(x))", parameters=(Param(name="a", default=1.0, trainable=True),),
    )  # fmt: skip
    module = type("Twice", (Elementwise,), {"spec": spec})(engine="eager")
    text = source(module)
    assert "F.softplus" in text
    assert_same(printed(text, "Twice"), module)


def test_source_for_reading():
    text = source("silu")
    assert text.startswith('"""SiLU, printed by softknee ')
    assert text.endswith(
        "class SiLU(nn.Module):\n"
        '    """`x / (1 + exp(-x))`"""\n\n'
        "    def forward(self, x: Tensor) -> Tensor:\n"
        '        """Apply it to a tensor of any shape."""\n'
        "        return silu(x)\n"
    )


@pytest.mark.parametrize(
    ("activation", "name", "error", "message"),
    [
        ("gleu", None, UnknownActivation, "no activation named 'gleu'"),
        ("x +", None, UsageError, "no formula"),
        ("silu", "silu x", UsageError, "name must be a Python name"),
        ("forward * x", None, UsageError, "'forward' cannot name a parameter"),
        (nn.ReLU(), None, UsageError, "must be a name, a formula or a module of softknee, got ReLU"),
    ],
)
def test_bad_requests_are_refused(activation, name, error, message):
    with pytest.raises(error, match=message):
        source(activation, name=name)


def test_what_looks_at_more_than_one_element_is_refused():
    other = [spec for spec in SPECS if spec.kind != "elementwise"]
    for spec in other[:3]:
        with pytest.raises(UsageError, match="only activations of one element can be printed"):
            source(spec.name)


def test_unknown_values_are_refused():
    with pytest.raises(UsageError, match="has no parameter 'c'; it has a"):
        parse("a * x").to_module_source("Line", c=1.0)
    with contextlib.suppress(TypeError):
        printed(source("silu"), "SiLU", beta=1.0)
