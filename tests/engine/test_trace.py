from __future__ import annotations

import pytest
import torch
from interpret import interpret, same
from subjects import DEFAULTS, SUBJECTS, normal
from torch import nn
from torch.nn import functional as F

from softknee._engine.plan import Plan
from softknee._engine.select import ENGINES, evaluate
from softknee._engine.trace import Formula, NotPointwise
from softknee._errors import OptionError
from softknee._spec import Spec
from softknee.nn.elementwise import Elementwise

POINTS = 41
SPECIALS = (-torch.inf, -1e4, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0, 1e4, torch.inf, torch.nan)
# Constants may have been rounded to float32 on the way.
TOLERANCE = 2e-7


def leaves_of(module: Elementwise) -> tuple[Formula, list[torch.Tensor]]:
    """The formula of a module, and float64 numbers for each entry of its parameters."""
    plan = module._plans[0]
    rows = plan.leaves(module._values(), module.per_channel or 1 + plan.channelwise, torch.device("cpu"))
    return plan.formula, [] if rows is None else [*rows[:, -1].detach().double()]


def requiring_grad(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().expand(POINTS).clone().requires_grad_() for tensor in tensors]


def derivatives(formula: Formula, tensors: list[torch.Tensor], by: str) -> tuple[torch.Tensor, ...]:
    """What autograd gives in float64 for the outputs of one of a formula's graphs."""
    x, g, v, *leaves = requiring_grad(*tensors)
    y = formula(x, *leaves)
    trained = [leaves[index] for index in formula.wanted]
    if by == "value":
        return (y,)
    first = torch.autograd.grad(y, [x, *trained], g, create_graph=True, materialize_grads=True)
    if by == "gradient":
        return first
    return torch.autograd.grad(first[0], [g, x, *trained], v, materialize_grads=True)


@pytest.mark.parametrize("by", ["value", "gradient", "second"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_graphs_of_the_catalogue_are_its_functions_and_their_derivatives(subject, by):
    formula, leaves = leaves_of(subject.module())
    x, g, v = (normal(POINTS, seed=seed).double() for seed in range(3))
    # The arguments of logarithms stay positive.
    x = x.clamp(min=-1) if subject.spec.name == "soft_exponential" else x
    names = {"x": x, "g": g, "v": v, **{f"p{index}": leaf.expand(POINTS) for index, leaf in enumerate(leaves)}}
    got = interpret(getattr(formula, by), names)
    wanted = derivatives(formula, [x, g, v, *leaves], by)
    assert (
        len(got) == len(wanted) == {"value": 1, "gradient": 1, "second": 2}[by] + len(formula.wanted) * (by != "value")
    )
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
def test_the_slope_is_the_first_part_of_the_gradient(subject):
    formula, leaves = leaves_of(subject.module())
    names = {"x": normal(POINTS).double(), "g": normal(POINTS, seed=2).double()}
    names |= {f"p{index}": leaf.expand(POINTS) for index, leaf in enumerate(leaves)}
    assert same(interpret(formula.slope, names)[0], interpret(formula.gradient, names)[0])


def shared(x):
    return x * (x + 1) + torch.exp(x + 1)


def test_repeated_parts_are_computed_once():
    assert [operation.name for operation in Formula(shared, (), ()).value.operations].count("add") == 2


def test_gradients_of_parameters_that_are_not_trained_are_not_computed():
    formula = Formula(lambda x, a, b: a * torch.sin(b * x), (None, None), (True, False))
    assert len(formula.gradient.outputs) == 2
    assert formula.wanted == (0,)
    assert Formula(lambda x, v, b: v[0] * x + v[1] * b, (2, None), (True, True)).wanted == (0, 1, 2)
    assert (
        Formula(lambda x, a: a * x, (None,), (False,)).gradient == Formula(lambda x, a: a * x, (None,), (False,)).slope
    )


POINTWISE = {
    "add with a factor": lambda x: torch.add(x, x * x, alpha=2),
    "difference with a factor": lambda x: torch.rsub(x, 3.0, alpha=2),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp to tensors": lambda x: x.clamp(torch.tensor(-1.0), torch.tensor(1.0)),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 2.0),
    "threshold": lambda x: F.threshold(x, 0.5, -1.0),
    "where of numbers": lambda x: torch.where(x > 0, 1.0, x),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.5)),
    "minimum": lambda x: torch.minimum(x, torch.tensor(0.5)),
    "masked": lambda x: x.masked_fill(x > 0, 3.0),
    "truth as number": lambda x: x * (x > 0),
    "quotient of truths": lambda x: (x > 0).float() / (x > 1).float(),
    "logic of truths": lambda x: ((x > -2) & ~(x > 1) | (x == 3)).float(),
    "logic of numbers": lambda x: torch.logical_and(x, x + 1).float() + 2 * torch.logical_not(x).float(),
    "square": lambda x: x**2 + x.square(),
    "inverse square": lambda x: x**-2,
    "root": lambda x: x**0.5,
    "no power": lambda x: x**0,
    "floor": torch.floor,
    "sign": torch.sign,
    "absolute value": torch.abs,
    "reciprocal": torch.reciprocal,
    "one": torch.ones_like,
    "constant": lambda x: torch.full_like(x, 2.5),
    "number alone": lambda x: torch.tensor(3.0).expand_as(x),
    "in place": lambda x: x.clone().mul_(2).add_(1),
    "wider constant": lambda x: x * torch.tensor(2.0, dtype=torch.float64),
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky relu": F.leaky_relu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softsign": F.softsign,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=2),
}


@pytest.mark.parametrize("function", POINTWISE.values(), ids=[*POINTWISE])
def test_operations_keep_their_meaning(function):
    x = torch.tensor(SPECIALS)
    graph = Formula(function, (), ()).value
    assert same(interpret(graph, {"x": x})[0], function(x).float())
    assert same(evaluate(Plan(function, function), x, (), None, "fused"), function(x).float())


CLOSE = {
    "seventh power": lambda x: x**7,
    "half a power": lambda x: x.abs() ** 3.5,
    "power of two": lambda x: 2**x,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": lambda x: F.elu(x, 0.7),
    "celu": lambda x: F.celu(x, 0.7),
    "selu": F.selu,
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, 2.0),
    "tanhshrink": F.tanhshrink,
    "log sigmoid": F.logsigmoid,
    "logaddexp": lambda x: torch.logaddexp(x, 2 * x),
    "cosh": torch.cosh,
    "sinh": torch.sinh,
    "asinh": torch.asinh,
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "sinc": torch.sinc,
    "remainder": lambda x: x % 2,
    "negative remainder": lambda x: x % -0.75,
    "length": lambda x: torch.hypot(x, torch.full_like(x, 3.0)),
}


@pytest.mark.parametrize("function", CLOSE.values(), ids=[*CLOSE])
def test_functions_of_torch_keep_their_meaning(function):
    x = torch.linspace(-6, 6, 97)
    (got,) = interpret(Formula(function, (), ()).value, {"x": x})
    torch.testing.assert_close(got, function(x), rtol=1e-6, atol=1e-6)
    fused = evaluate(Plan(function, function), x, (), None, "fused")
    torch.testing.assert_close(fused, function(x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["sinh", "asinh"])
def test_hyperbolic_functions_are_exact_from_the_smallest_to_the_largest_numbers(name):
    function = getattr(torch, name)
    sizes = torch.tensor(
        [0.0, 1e-38, 1e-20, 1e-6, 1e-3, 0.1, 1.0, 9.0, 88.5, *([1e9, 1e18, 1e19, 3e38] * (name == "asinh"))]
    )
    x = torch.cat([sizes, -sizes])
    plan = Plan(function, function)
    got = evaluate(plan, x, (), None, "fused")
    torch.testing.assert_close(got.double(), function(x.double()), rtol=4e-7, atol=0.0)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(evaluate(plan, leaf, (), None, "fused").sum(), leaf)
    wanted = x.double().cosh() if name == "sinh" else 1 / torch.hypot(x.double(), torch.ones(()).double())
    # A square of 1e38 is infinite: the slope is 0 there instead of 3e-39.
    torch.testing.assert_close(slope.double(), wanted, rtol=6e-7, atol=1e-18)
    ends = torch.tensor([torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(evaluate(plan, ends, (), None, "fused"), ends, equal_nan=True)


HELD = torch.arange(5.0)
PAIR = torch.tensor([1.0, 2.0])
WEIGHT = nn.Parameter(torch.ones(5))

NOT_POINTWISE = {
    "sum": lambda x: x - x.sum(),
    "mean": lambda x: x - x.mean(),
    "norm": lambda x: x / x.norm(),
    "cumulative sum": lambda x: x.cumsum(0),
    "sorted": lambda x: x.sort()[0],
    "flipped": lambda x: x.flip(0),
    "softmax": lambda x: x.softmax(0),
    "first element": lambda x: x * x[0],
    "neighbours": lambda x: x.roll(1),
    "item": lambda x: x * x.abs().max().item(),
    "branch": lambda x: x if bool((x > 100).all()) else -x,
    "whole numbers": lambda x: x - x.long().to(x.dtype),
    "truth of a number": lambda x: x.bool().float(),
    "half precision": lambda x: x.half().float(),
    "division to a whole number": lambda x: torch.div(x, 2, rounding_mode="trunc"),
    "normal noise": lambda x: x + torch.randn_like(x) * 0,
    "unknown operation": torch.lgamma,
    "number of elements": lambda x: x / x.numel(),
    "noise in a shape": lambda x: x * torch.rand(len(x)).sum() * 0,
}
HOLDS = {
    "five numbers": lambda x: x * HELD,
    "two numbers": lambda x: x * PAIR[: x.numel()].sum(),
    "a weight": lambda x: x * WEIGHT,
}


@pytest.mark.parametrize("function", [*NOT_POINTWISE.values(), *HOLDS.values()], ids=[*NOT_POINTWISE, *HOLDS])
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_what_is_no_arithmetic_on_single_elements_says_so(function):
    with pytest.raises(NotPointwise):
        Formula(function, (), ()).value  # noqa: B018


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", [*NOT_POINTWISE.values(), *HOLDS.values()], ids=[*NOT_POINTWISE, *HOLDS])
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_what_is_no_arithmetic_on_single_elements_runs_as_it_is_written(function, engine):
    module = module_of(function)(engine=engine)
    x, y = normal(5).requires_grad_(), normal(5).requires_grad_()
    got, wanted = module(x), function(y)
    assert same(got, wanted)
    if wanted.requires_grad:
        got.sum().backward()
        wanted.sum().backward()
        assert same(x.grad, y.grad)
    assert module.engine == "eager"


def module_of(function) -> type[Elementwise]:
    """A class as the catalogue makes them, of a function that is not in it."""
    return type(
        "Odd", (Elementwise,), {"spec": Spec(name="odd", title="Odd", family="none", function=function, formula="x")}
    )


def test_noise_that_is_not_declared_is_drawn_each_time():
    x = torch.ones(100)
    for engine in ENGINES:
        module = module_of(lambda x: x * torch.rand_like(x))(engine=engine)
        assert not torch.equal(module(x), module(x))
        assert module.engine == "eager"


def test_a_module_refuses_engines_that_do_not_exist():
    with pytest.raises(OptionError, match="engine must be one of auto, eager, fused, table, got 'jit'"):
        module_of(F.relu)(engine="jit")
