"""Gated pairs as modules: every unit, order, option and surrounding, against the function in float64."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace

import pytest
import torch

from softknee import nn
from softknee._card.cost import saved_bytes
from softknee._catalogue import CATALOGUE, create
from softknee._engine.plan import Plan
from softknee._engine.select import engine
from softknee._errors import OptionError, UsageError
from softknee._glu import glu
from softknee.nn.options import stored
from softknee.testing import check_engines, check_memory

PAIRS = [spec for spec in CATALOGUE if spec.kind == "gated"]
every_pair = pytest.mark.parametrize("spec", PAIRS, ids=lambda spec: spec.name)
ORDERS = [(first, alternating) for first in (True, False) for alternating in (False, True)]
every_order = pytest.mark.parametrize(("gate_first", "interleaved"), ORDERS)


def drawn(*shape, seed=1, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def results(module, x, dtype=torch.float32, how="fused"):
    """Value and all gradients."""
    module = copy.deepcopy(module).to(dtype)
    x = x.detach().to(dtype, copy=True).requires_grad_()
    with engine(how):
        y = module(x)
    g = drawn(*y.shape, seed=2).to(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], g)]


def assert_right(module, x):
    wanted = results(module, x, torch.float64, "eager")
    for place, (got, other) in enumerate(zip(results(module, x), wanted, strict=True)):
        # Gradients of parameters are sums of numbers of either sign.
        near = 1e-5 if place < 2 else 1e-4
        torch.testing.assert_close(got.double(), other, rtol=1e-5, atol=near * max(1.0, other.abs().max().item()))


# Every order for one pair of each kind: without parameters, with trained ones, with fixed ones.
IN_EVERY_ORDER = {"glu", "xatglu", "swiglu_oai"}


@pytest.mark.parametrize(
    ("spec", "gate_first", "interleaved"),
    [
        pytest.param(spec, *order, id=f"{spec.name}-{order[0]}-{order[1]}")
        for spec in PAIRS
        for order in (ORDERS if spec.name in IN_EVERY_ORDER else ORDERS[:1])
    ],
)
def test_values_and_gradients(spec, gate_first, interleaved):
    options = {"gate_first": gate_first, "interleaved": interleaved, "engine": "fused"}
    module = create(spec.name, **options)
    x = drawn(30, 14, scale=5.0)
    assert module.engine_for(x) == "fused"
    assert_right(module, x)
    if stored(spec):
        values = {param.name: param.default + torch.linspace(0.1, 0.7, 5) for param in stored(spec)}
        module = create(spec.name, trainable=True, per_channel=5, dim=1, **values, **options)
        for shape in ((8, 10), (4, 10, 7), (3, 10, 4, 6)):
            assert_right(module, drawn(*shape, scale=5.0))


@every_order
def test_halves_are_where_the_options_say(gate_first, interleaved):
    x = drawn(6, 10)
    gate, value = (x[:, ::2], x[:, 1::2]) if interleaved else (x[:, :5], x[:, 5:])
    gate, value = (gate, value) if gate_first else (value, gate)
    for how in ("eager", "fused"):
        module = nn.ReGLU(gate_first=gate_first, interleaved=interleaved, engine=how)
        assert torch.equal(module(x), gate.relu() * value)


def results_of_two(module, gate, value, dtype=torch.float32, how="fused"):
    """As `results`, of gates and values that are two tensors."""
    module = copy.deepcopy(module).to(dtype)
    leaves = [one.detach().to(dtype).requires_grad_() for one in (gate, value)]
    with engine(how):
        y = module(*leaves)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *module.parameters()], drawn(*y.shape, seed=2).to(y))]


def assert_two_are_right(module, gate, value):
    wanted = results_of_two(module, gate, value, torch.float64, "eager")
    for place, (got, other) in enumerate(zip(results_of_two(module, gate, value), wanted, strict=True)):
        near = 1e-5 if place < 3 else 1e-4
        torch.testing.assert_close(got.double(), other, rtol=1e-5, atol=near * max(1.0, other.abs().max().item()))


@every_pair
def test_gates_and_values_may_be_two_tensors(spec):
    module = create(spec.name, engine="fused")
    gate, value = drawn(30, 7, scale=5.0), drawn(30, 7, scale=5.0, seed=3)
    assert module.engine_for(gate, value) == "fused"
    assert_two_are_right(module, gate, value)
    if stored(spec):
        values = {param.name: param.default + torch.linspace(0.1, 0.7, 5) for param in stored(spec)}
        module = create(spec.name, trainable=True, per_channel=5, dim=1, engine="fused", **values)
        for shape in ((8, 5), (4, 5, 7), (3, 5, 4, 6)):
            assert_two_are_right(module, drawn(*shape, scale=5.0), drawn(*shape, scale=5.0, seed=3))


@every_order
@pytest.mark.parametrize("how", ["eager", "fused"])
def test_where_halves_would_be_does_not_matter_to_two_tensors(gate_first, interleaved, how):
    gate, value = drawn(6, 5, 3), drawn(6, 5, 3, seed=3)
    for dim in (-1, 1, 7):
        module = nn.ReGLU(dim=dim, gate_first=gate_first, interleaved=interleaved, engine=how)
        assert torch.equal(module(gate, value), gate.relu() * value)
        assert torch.equal(module(gate[0, 0, 0], value=value[0, 0, 0]), gate[0, 0, 0].relu() * value[0, 0, 0])


def test_two_tensors_of_half_precision_give_what_one_gives():
    for dtype in (torch.bfloat16, torch.float16):
        x = drawn(30, 14).to(dtype)
        for module in (nn.SwiGLU(engine="fused"), glu("mish", engine="fused")):
            assert torch.equal(module(*x.chunk(2, -1)), module(x))
            assert torch.equal(module(*map(torch.clone, x.chunk(2, -1))), module(x))


@pytest.mark.parametrize("how", ["auto", "eager", "fused"])
@pytest.mark.parametrize(
    ("gate", "value", "said"),
    [
        (torch.ones(4, 6), torch.ones(4, 1), "(4, 6) in float32 and (4, 1) in float32"),
        (torch.ones(4, 6), torch.ones(6), "(4, 6) in float32 and (6,) in float32"),
        (torch.ones(4, 6), torch.ones(4, 6).half(), "(4, 6) in float32 and (4, 6) in float16"),
    ],
)
def test_two_tensors_of_different_kinds_are_refused(how, gate, value, said):
    module = nn.SwiGLU(engine=how)
    message = f"SwiGLU takes gates and values of one shape and dtype; got {said}"
    for ask in (module, module.engine_for):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            ask(gate, value)


@pytest.mark.parametrize("how", ["auto", "eager", "fused"])
def test_two_tensors_with_another_number_of_channels_are_refused(how):
    message = "SwiGLU has parameters for 3 channels, got an input of shape (4, 6) with 6 in dimension 1"
    module = nn.SwiGLU(per_channel=3, engine=how)
    for ask in (module, module.engine_for):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            ask(torch.ones(4, 6), torch.ones(4, 6))
    assert module(torch.ones(4, 3), torch.ones(4, 3)).shape == (4, 3)


@every_pair
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(spec, dtype):
    module, x = create(spec.name, trainable=False), drawn(30, 14).to(dtype)
    got, wanted = results(module, x, dtype), results(module, x, torch.float64, "eager")
    wanted[1] = results(module, x.double(), torch.float64, "eager")[1]
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == dtype
        near = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(one.double(), other, rtol=near, atol=near * other.abs().max().item())


@pytest.mark.parametrize("title", ["GLU", "SwiGLUOAI"])
@pytest.mark.parametrize("dim", [1, -3, 3])
@pytest.mark.parametrize("interleaved", [False, True])
def test_channels_last(title, dim, interleaved):
    module = getattr(nn, title)(dim=dim, interleaved=interleaved)
    x = drawn(3, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    assert_right(module, x)
    with engine("fused"):
        assert module(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("title", ["GLU", "XATGLU"])
def test_inputs_without_elements_and_with_one_dimension(title):
    module = getattr(nn, title)(engine="fused")
    assert module(torch.empty(0, 4)).shape == (0, 2)
    assert module(torch.empty(3, 0)).shape == (3, 0)
    x = drawn(1, 6)
    assert torch.equal(module(x[0]), module(x)[0])


@every_pair
def test_no_more_than_the_input_is_kept(spec):
    for dtype, most in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)):
        assert saved_bytes(create(spec.name), drawn(128, 1024).to(dtype)) <= most


def test_the_engine_is_shown():
    assert repr(nn.ReGLU()) == "ReGLU(dim=-1, gate_first=True, engine=fused)"
    assert repr(nn.GLU(engine="eager", dim=1)) == "GLU(dim=1, gate_first=False, engine=eager)"
    for dim in (-3, -1, 0, 1, 2):
        assert nn.XATGLU(per_channel=300, dim=dim).engine == "fused"


@pytest.mark.parametrize("name", ["table", "", "Fused", None])
def test_engines_that_pairs_do_not_have(name):
    message = f"engine must be one of auto, eager, fused, got {name!r}"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        nn.SwiGLU(engine=name)


@pytest.mark.parametrize("how", ["auto", "eager", "fused"])
def test_inputs_of_the_wrong_size_are_refused_by_every_engine(how):
    with pytest.raises(
        UsageError, match=r"^SwiGLU halves dimension 1, which must be even; got an input of shape \(4, 7\)$"
    ):
        nn.SwiGLU(engine=how)(torch.ones(4, 7))
    message = (
        "SwiGLU has parameters for 3 channels, each with a gate and a value; "
        "got an input of shape (4, 8) with 8 in dimension 1, not 6"
    )
    module = nn.SwiGLU(per_channel=3, engine=how)
    for ask in (module, module.engine_for):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            ask(torch.ones(4, 8))


def test_what_kernels_are_made_for_is_not_changed_afterwards():
    module = nn.SwiGLU()
    for name in ("gate_first", "interleaved"):
        with pytest.raises(AttributeError):
            setattr(module, name, True)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_keep_order_and_engine(way):
    module, x = nn.XATGLU(per_channel=4, gate_first=False, interleaved=True, engine="fused"), drawn(5, 8)
    other = way(module)
    assert repr(other) == repr(module)
    assert other.engine_for(x) == "fused"
    assert torch.equal(other(x), module(x))


def test_values_that_are_set_later_count():
    module, x = nn.SwiGLU(engine="fused"), drawn(4, 8)
    module.beta = 2.0
    torch.testing.assert_close(module(x), nn.SwiGLU(beta=2.0, engine="eager")(x))
    other = nn.XATGLU(engine="fused").double()
    assert other(x).dtype == torch.float32
    moved = {"alpha": torch.tensor([0.5])}
    torch.testing.assert_close(torch.func.functional_call(other, moved, (x,)), nn.XATGLU(alpha=0.5)(x))


def test_transforms_see_plain_operations():
    module, x = nn.SwiGLUOAI(engine="fused"), drawn(5, 8)
    with engine("eager"):
        mapped, jacobian = module(x), torch.autograd.functional.jacobian(module, x)
    torch.testing.assert_close(torch.func.vmap(module)(x), mapped)
    torch.testing.assert_close(torch.func.jacrev(module)(x), jacobian)
    torch.testing.assert_close(torch.func.jacfwd(module)(x), jacobian)
    both = x.chunk(2, -1)
    torch.testing.assert_close(torch.func.vmap(module)(*both), mapped)
    jacobians = torch.func.jacfwd(module, argnums=(0, 1))(*both)
    torch.testing.assert_close(torch.cat(jacobians, -1), jacobian)
    directions = tuple(map(torch.ones_like, both))
    torch.testing.assert_close(torch.func.jvp(module, both, directions)[1], jacobian.sum((-1, -2)))


def test_compiled_and_exported_pairs_are_plain_operations():
    module, x, graphs = nn.SwiGLU(trainable=True, engine="auto"), drawn(300, 512), []
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(compiled(x), module(x))
    assert not [node for node in graphs[0].graph.nodes if "softknee" in str(node.target)]
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.sigmoid.default" in targets
    assert not [target for target in targets if "softknee" in target]
    torch.testing.assert_close(program.module()(x[:7]), module(x[:7]))


def test_two_tensors_compiled_and_exported_are_plain_operations():
    module, both, graphs = nn.SwiGLU(trainable=True, per_channel=256), drawn(300, 512).chunk(2, -1), []
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(compiled(*both), module(*both))
    assert not [node for node in graphs[0].graph.nodes if "softknee" in str(node.target)]
    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(module, both, dynamic_shapes=(rows, rows))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.sigmoid.default" in targets
    assert not [target for target in targets if "softknee" in target]
    few = [one[:7] for one in both]
    torch.testing.assert_close(program.module()(*few), module(*few))


def test_autocast_changes_nothing():
    module, x = nn.GEGLU(engine="fused"), drawn(300, 512)
    with torch.autocast("cpu", torch.bfloat16):
        got, half = module(x), module(x.bfloat16())
    assert torch.equal(got, module(x))
    assert torch.equal(half, module(x.bfloat16()))


def test_without_a_compiler_everything_works(monkeypatch):
    monkeypatch.setattr(Plan, "compiles", lambda plan, device: False)
    module, x = nn.SwiGLU(), drawn(300, 512)
    assert module.engine == module.engine_for(x) == "eager"
    with engine("eager"):
        wanted = module(x)
    assert torch.equal(module(x), wanted)
    assert module.engine_for(*x.chunk(2, -1)) == "eager"
    assert torch.equal(module(*x.chunk(2, -1)), wanted)


def test_the_checker_finds_kernels_that_are_wrong_or_keep_too_much():
    right = next(spec for spec in PAIRS if spec.name == "bilinear")
    check_engines(right)
    for wrong in (lambda x, value: x * value.detach(), lambda x, value: x * value * 1.0001, lambda x, value: x + value):
        with pytest.raises(AssertionError, match="bilinear fails "):
            check_engines(replace(right, kernel=wrong))
    hungry = replace(right, function=lambda x, value: (x * value).cumsum(0).exp().sin())
    with pytest.raises(AssertionError, match="bilinear fails memory"):
        check_memory(hungry)
