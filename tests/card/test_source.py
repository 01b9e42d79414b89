from __future__ import annotations

import builtins
import io
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import softknee
from softknee._card.source import source
from softknee._expression.parse import parse
from softknee._spec import Param, Spec
from softknee.functional import SPECS
from softknee.nn import Elementwise, Formula, Gated
from softknee.nn.gated_by import GatedBy
from softknee.nn.options import can_be_trained, needs_channels, stored

ELEMENTWISE = [spec for spec in SPECS if spec.kind == "elementwise"]
OTHERS = [spec for spec in SPECS if spec.kind != "elementwise"]
X = torch.linspace(-4.03, 4.41, 60, dtype=torch.float64).view(5, 3, 4)
# Pairs and groups of two and three along each dimension; neither kinks nor ties.
IMAGES = (4.4 * torch.rand((4, 6, 6, 12), generator=torch.Generator().manual_seed(2), dtype=torch.float64)) - 2.2


def printed(text, name, **options):
    """An instance of the printed class, made where there is nothing but Python and torch."""

    def guarded(wanted, *rest):
        assert wanted.partition(".")[0] != "softknee"
        return builtins.__import__(wanted, *rest)

    module = ModuleType("printed")
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": guarded}
    sys.modules["printed"] = module  # torch.compile and dataclasses look there
    exec(compile(text, "printed", "exec"), vars(module))
    return getattr(module, name)(**options)


def assert_same(theirs, ours, x=X):
    """Compare values and all gradients."""
    results = []
    for module in (theirs, ours):
        module.double()
        point = x.clone().requires_grad_()
        parameters = dict(module.named_parameters())
        y = module(point)
        gradients = torch.autograd.grad(
            (y * torch.linspace(0.5, 1.5, y.numel()).view_as(y)).sum(),
            [point, *parameters.values()],
            allow_unused=True,
            materialize_grads=True,
        )
        results.append({"y": y.detach(), **dict(zip(["x", *parameters], gradients, strict=True))})
    first, second = results
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.shape == second[name].shape, name
        assert torch.allclose(value, second[name], rtol=1e-12, atol=1e-12), name


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


def moved(module):
    """The same module with parameters that no two activations share."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= torch.linspace(0.9, 1.1, parameter.numel()).view_as(parameter)
            parameter += 0.01
    return module


def eager(spec):
    return {"engine": "eager"} if spec.kind == "gated" else {}


def example(spec):
    return IMAGES if spec.kind == "contextual" else IMAGES[0]


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.name)
def test_what_looks_at_more_than_one_element_prints_as_it_comes(spec):
    options = {"channels": 6} if needs_channels(spec) else {}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = printed(source(spec.name), spec.title, **options)
        torch.manual_seed(3)
        mine = softknee.create(spec.name, **options, **eager(spec))
    assert theirs.state_dict().keys() == mine.state_dict().keys()
    assert all(torch.equal(value, mine.state_dict()[name]) for name, value in theirs.state_dict().items())
    # Networks that start at 0 would hide their inputs.
    theirs.load_state_dict(moved(mine).state_dict())
    for training in (True, False):
        assert_same(theirs.train(training), mine.train(training), example(spec))
    if spec.kind != "contextual":
        assert_same(theirs, mine, IMAGES[0, :, 0, 0])
    half = example(spec).bfloat16()
    assert torch.equal(theirs.float()(half), mine.float()(half))


GATED = [spec for spec in OTHERS if spec.kind == "gated"]
VECTOR = [spec for spec in OTHERS if spec.kind == "vector"]
NETWORKS = [
    ("frelu", {"kernel": 5, "spatial": 2}),
    ("dynamic_relu", {"reduction": 2, "shared": True}),
    ("dynamic_relu", {"reduction": 9}),
    ("meta_acon", {"reduction": 2, "batch_norm": True, "trainable": ["p2"]}),
    ("meta_acon", {"reduction": 4, "trainable": False, "p1": 0.7}),
    ("atac", {"reduction": 3}),
    ("gated_mix", {"reduction": 1, "candidates": ["mish", "elu", "blend", "swish"]}),
]


@pytest.mark.parametrize("spec", GATED, ids=lambda spec: spec.name)
@pytest.mark.parametrize("dim", [-1, 0])
def test_a_gated_module_prints_with_its_values(spec, dim):
    values = {"trainable": True, "per_channel": IMAGES[0].shape[dim] // 2} if stored(spec) else {}
    mine = moved(
        getattr(softknee.nn, spec.title)(dim=dim, gate_first=False, interleaved=dim == 0, **values, **eager(spec))
    )
    theirs = printed(source(mine, name="Mine"), "Mine")
    assert_same(theirs, mine, IMAGES[0])
    gate, value = IMAGES[0].chunk(2, dim)
    assert torch.equal(theirs(gate, value), mine(gate, value))
    assert theirs.state_dict().keys() == mine.state_dict().keys()


@pytest.mark.parametrize("spec", VECTOR, ids=lambda spec: spec.name)
def test_a_module_of_vectors_prints_with_its_values(spec):
    trained = any(map(can_be_trained, spec.parameters))
    options = {"channels": 12} if needs_channels(spec) else {}
    options |= {"group": 3} if any(param.name == "group" for param in spec.parameters) else {}
    mine = moved(getattr(softknee.nn, spec.title)(dim=-1, **options, **({"trainable": True} if trained else {})))
    theirs = printed(source(mine), spec.title)
    assert_same(theirs, mine, IMAGES[0])
    assert theirs.state_dict().keys() == mine.state_dict().keys()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_module_with_a_network_prints_with_its_sizes(name, options):
    mine = moved(softknee.create(name, channels=6, **options))
    text = source(mine, name="Mine")
    assert "Trained weights are loaded into it by `load_state_dict`." in text
    theirs = printed(text, "Mine")
    assert [one for one, _ in theirs.named_parameters()] == [one for one, _ in mine.named_parameters()]
    theirs.load_state_dict(mine.state_dict())
    for training in (True, False):
        assert_same(theirs.train(training), mine.train(training), IMAGES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rational", {}),
        ("staf", {"per_channel": 3}),
        ("householder", {"channels": 24}),
        ("blend", {"t": torch.tensor(0.3)}),
    ],
)
def test_printed_values_are_exact_and_keep_their_places(name, options):
    mine = softknee.create(name, **options)
    generator = torch.Generator().manual_seed(4)
    for one in mine.parameters():
        nn.init.normal_(one, std=0.3, generator=generator)
    text = source(mine)
    theirs, expected = printed(text, mine.spec.title).state_dict(), mine.state_dict()
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in theirs.items())
    assert max(map(len, text.splitlines())) <= 120


def test_values_without_a_literal_print():
    mine = softknee.create("swish", beta=1.5, per_channel=3)
    with torch.no_grad():
        mine.beta[1] = torch.nan
        mine.beta[2] = -torch.inf
    beta = printed(source(mine), "Swish").beta
    assert beta[0] == 1.5
    assert beta[1].isnan()
    assert beta[2] == -torch.inf


def test_all_that_is_printed_runs_in_a_process_without_softknee(tmp_path):
    calls = {}
    for spec in SPECS:
        (tmp_path / f"{spec.name}.py").write_text(source(spec.name), encoding="utf-8")
        calls[spec.name] = (spec.title, {"channels": 6} if needs_channels(spec) else {})
    program = (
        f"import importlib, sys; sys.modules['softknee'] = None; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import torch\n"
        f"for name, (title, options) in {calls!r}.items():\n"
        "    y = getattr(importlib.import_module(name), title)(**options)(torch.ones(4, 6, 2, 2))\n"
        "    assert y.isfinite().all(), name\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [("swiglu", {"per_channel": 6, "interleaved": True}), ("group_sort", {"group": 3}), ("frelu", {"channels": 6})],
)
def test_printed_modules_compile_and_export(name, options):
    spec = softknee.get(name)
    x, module = example(spec).float(), printed(source(name), spec.title, **options).eval()
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
    assert torch.allclose(torch.export.export(module, (x,)).module()(x), module(x))


def test_printed_modules_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"dimension -1 must be even to be halved, got an input of shape \(2, 3\)"):
        printed(source("geglu"), "GEGLU")(torch.ones(2, 3))
    with pytest.raises(ValueError, match="maxout takes groups of 2, got an input of shape"):
        printed(source("maxout"), "Maxout")(torch.ones(2, 3))
    with pytest.raises(TypeError, match="channels"):
        printed(source("gdn"), "GDN")


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


GATES = [
    ("mish", {}),
    ("step_ste", {}),
    ("staf", {"terms": 3}),
    ("b * swish(x, a) + x", {"a": 0.7, "b": 2.0, "limit": 1.5}),
    ("swish", {"limit": 0.9, "per_channel": 6, "trainable": True}),
    ("linear_mix", {}),
]


@pytest.mark.parametrize(("gate", "options"), GATES)
def test_a_pair_with_any_gate_prints(gate, options):
    mine = moved(GatedBy(gate, engine="eager", **options))
    theirs = printed(source(mine), "GatedBy")
    assert_same(theirs, mine, IMAGES[0])
    assert [one for one, _ in theirs.named_parameters()] == [one for one, _ in mine.named_parameters()]


def test_a_gated_function_without_source_of_its_own_is_printed_from_its_formula():
    factor = 2.0
    spec = Spec(
        name="twice", title="Twice", family="own", kind="gated", dim=-1,
        function=lambda x, value, a=1.0: factor * value * torch.log1p(torch.exp(x)) + a * x,
        formula="2 * value * log(1 + exp(x)) + a * x",
        parameters=(Param(name="value", default=1.0, given=True), Param(name="a", default=1.5, trainable=True)),
    )  # fmt: skip
    module = type("Twice", (Gated,), {"spec": spec})()
    assert_same(printed(source(module), "Twice"), module, IMAGES[0])


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


def test_printed_modules_refuse_values_that_they_have_not():
    with pytest.raises(TypeError, match="beta"):
        printed(source("silu"), "SiLU", beta=1.0)
