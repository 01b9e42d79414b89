"""The checker must fail on what is wrong: each spec here is a good one with one thing broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from softknee import nn, testing
from softknee._errors import UnknownActivation, UsageError
from softknee._spec import Param, Promises, Spec

SMOOTH = Spec(
    name="bent",
    title="Bent",
    family="test",
    function=lambda x: x / (1 + x.abs()),
    formula="x / (1 + abs(x))",
    promises=Promises(monotonic=True, lower_bound=-1.0, upper_bound=1.0),
)


def good(x, slope=0.5):
    return torch.where(x > 0, x, slope * x)


GOOD = Spec(
    name="good",
    title="Good",
    family="test",
    function=good,
    formula="where(x > 0, x, slope * x)",
    parameters=(Param(name="slope", default=0.5, trainable=True),),
    promises=Promises(monotonic=True),
    kinks=("0",),
)


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.tanh()

    @staticmethod
    def backward(context, grad):
        return grad


def naive_elu(x, alpha=1.0):
    return torch.where(x > 0, x, alpha * (torch.exp(x) - 1))


def squared_root(x):
    return x / torch.sqrt(1 + x * x)


def branching(x):
    return x if x.sum() > 0 else x * 1


def random_slope(x):
    return x * torch.rand(())


def of(function, formula, *, kinks=(), parameters=(), **promises):
    return Spec(
        name="broken",
        title="Broken",
        family="test",
        function=function,
        formula=formula,
        kinks=kinks,
        parameters=parameters,
        promises=Promises(**promises),
    )


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        y = x.tanh()
        context.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, grad):
        (y,) = context.saved_tensors
        return grad * (1 - y * y)


def hungry(x):
    return (x + 0 * x.cumsum(0)).tanh().tanh().tanh()


def vector(function, statement, **promises):
    return replace(of(function, "", **promises), kind="vector", statement=statement)


def doubled(x, dim=-1):
    return 2 * x


def along_the_last(x, dim=-1):
    return x - x.sum(-1, keepdim=True) + x.sum(-1, keepdim=True) * (1 if dim == -1 else 2)


def without_gradient(x, dim=-1):
    return x + x.detach()


def normalized(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def of_the_first_channel(x, slope=0.5):
    return good(x, slope.flatten()[0] if isinstance(slope, torch.Tensor) else slope)


ALPHA = (Param(name="alpha", default=1.0),)
BROKEN = {
    "wrong formula": (of(torch.tanh, "x / (1 + abs(x))"), testing.check_values, r"its formula .* at x = -6\.0: got"),
    "wrong kernel": (
        replace(of(torch.tanh, "tanh(x)"), kernel=lambda x: torch.tanh(x) * (1 + 1e-9)),
        testing.check_values,
        r"its formula .* at x = -6\.0: got",
    ),
    "wrong derivative of a kernel": (
        replace(of(torch.tanh, "tanh(x)"), kernel=WrongSlope.apply),
        testing.check_derivatives,
        "the derivative by x",
    ),
    "wrong kink value": (
        of(lambda x: torch.where(x == 0, 1.0, x.relu()), "max(x, 0)", kinks=("0",)),
        testing.check_values,
        r"at x = 0\.0: got 1\.0, expected 0\.0",
    ),
    "wrong derivative": (of(WrongSlope.apply, "tanh(x)"), testing.check_derivatives, "the derivative by x"),
    "wrong derivative, by differences": (of(WrongSlope.apply, "tanh(x)"), testing.check_gradients, "gradcheck"),
    "wrong parameter derivative": (
        of(lambda x, alpha=1.0: torch.as_tensor(alpha).detach() * x, "alpha * x", parameters=ALPHA),
        testing.check_derivatives,
        "the derivative by alpha",
    ),
    "derivative at a kink outside its sides": (
        of(lambda x: x.relu() + 2 * torch.where(x == 0, x, 0.0), "max(x, 0)", kinks=("0",)),
        testing.check_derivatives,
        r"x = 0\.0: got 2\.0, expected 0\.0 to 1\.0",
    ),
    "undeclared kink": (
        of(lambda x: x.relu() + 2 * torch.where(x == 0, x, 0.0), "max(x, 0)"),
        testing.check_derivatives,
        r"x = 0\.0: got 2\.0, expected 0\.0 to 1\.0",
    ),
    "NaN gradient": (
        of(naive_elu, "where(x > 0, x, alpha * (exp(x) - 1))", kinks=("0",), parameters=ALPHA),
        testing.check_finite,
        r"torch\.float64 derivative by x .* got nan, expected never NaN",
    ),
    "needless infinity": (
        of(lambda x: torch.log(1 + torch.exp(x)), "log(1 + exp(x))"),
        testing.check_finite,
        r"torch\.float64 value .* got inf, expected 1024\.0",
    ),
    "wrong dtype": (of(lambda x: x.float().tanh(), "tanh(x)"), testing.check_finite, "dtype and shape"),
    "overflow inside": (of(squared_root, "x / sqrt(1 + x**2)"), testing.check_accuracy, r"accuracy in torch\.float16"),
    "false monotonic": (of(F.silu, "x / (1 + exp(-x))", monotonic=True), testing.check_monotonic, "monotonic at x ="),
    "false lower bound": (of(F.silu, "x / (1 + exp(-x))", lower_bound=-0.27), testing.check_bounds, "at least -0.27"),
    "false upper bound": (of(torch.tanh, "tanh(x)", upper_bound=0.99), testing.check_bounds, "at most 0.99"),
    "false smooth": (of(torch.relu, "max(x, 0)", smooth=True), testing.check_smooth, "a jump of derivative 1"),
    "false smooth, second derivative": (
        of(lambda x: x.relu().square(), "max(x, 0)**2", smooth=True),
        testing.check_smooth,
        "a jump of derivative 2",
    ),
    "smooth with kinks": (
        of(torch.tanh, "tanh(x)", smooth=True, kinks=("1",)),
        testing.check_smooth,
        "got declared kinks, expected none",
    ),
    "false idempotent": (of(torch.tanh, "tanh(x)", idempotent=True), testing.check_idempotent, "idempotent with"),
    "idempotent in value alone": (
        of(lambda x: x.relu() + torch.where(x < 0, x - x.detach(), 0.0), "max(x, 0)", kinks=("0",), idempotent=True),
        testing.check_idempotent,
        "idempotent with",
    ),
    "unpicklable": (of(lambda x: x.tanh(), "tanh(x)"), testing.check_copies, "pickle, as it comes"),
    "another output after loading": (of(random_slope, "x"), testing.check_copies, "expected tensor"),
    "graph break": (of(branching, "x"), testing.check_compiles, "compiles, as it comes"),
    "false vmap": (of(branching, "x"), testing.check_vmap, "vmap, as it comes"),
    "no second derivative": (
        of(OnceDifferentiable.apply, "tanh(x)"),
        testing.check_second_derivatives,
        "gradgradcheck with .*Jacobian mismatch",
    ),
    "false odd": (of(F.silu, "x / (1 + exp(-x))", odd=True), testing.check_symmetric, "odd at"),
    "false even": (of(F.silu, "x / (1 + exp(-x))", even=True), testing.check_symmetric, "even at"),
    "false zero": (of(torch.cos, "cos(x)", zero_at_zero=True), testing.check_symmetric, "zero_at_zero at x = 0"),
    "false period": (of(torch.cos, "cos(x)", period=3.0), testing.check_symmetric, "period at"),
    "false lipschitz": (of(torch.tanh, "tanh(x)", lipschitz=0.99), testing.check_lipschitz, "a secant of slope"),
    "loose lipschitz": (of(torch.tanh, "tanh(x)", lipschitz=1.2), testing.check_lipschitz, "no secant steeper"),
    "wrong derivative of a surrogate": (
        replace(of(torch.relu, "max(x, 0)"), surrogate="x / (1 + exp(-x))"),
        testing.check_derivatives,
        "the derivative by x",
    ),
    "wrong statement": (vector(doubled, lambda row: [3 * v for v in row]), testing.check_statement, "its statement at"),
    "another dimension": (vector(along_the_last, lambda row: row), testing.check_statement, "fails"),
    "wrong jacobian": (
        vector(without_gradient, lambda row: [2 * v for v in row]),
        testing.check_jacobian,
        "derivatives by",
    ),
    "false shape": (
        vector(doubled, lambda row: [2 * v for v in row], same_shape=False),
        testing.check_vectors,
        "same_shape",
    ),
    "false vector lipschitz": (
        vector(doubled, lambda row: [2 * v for v in row], lipschitz=1.0),
        testing.check_vectors,
        "lipschitz at",
    ),
    "vectors of NaN": (vector(normalized, doubled), testing.check_vectors, "finite"),
    "dtype by a constant": (
        of(lambda x: x * torch.ones(1, dtype=torch.float64), "x"),
        testing.check_dtypes,
        "dtypes of output and gradient",
    ),
    "input changed": (of(lambda x: x.detach().mul_(2) + 0 * x, "2 * x"), testing.check_layouts, "unchanged input"),
    "layout": (of(lambda x: x + x.stride(-1) - 1, "x"), testing.check_layouts, "channels_last"),
    "not exportable": (of(branching, "x"), testing.check_exports, "export"),
    "kernel of another function": (
        replace(of(torch.tanh, "tanh(x)"), kernel=lambda x: torch.tanh(x) * (1 + 1e-3)),
        testing.check_engines,
        "engine fused",
    ),
    "memory": (of(hungry, "tanh(x)"), testing.check_memory, "12.0 bytes an element"),
    "channels": (
        replace(GOOD, function=of_the_first_channel, name="broken"),
        testing.check_channels,
        "channel 1 of",
    ),
}


class Adding(torch.nn.Module):
    """Forgets its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.zeros(1))
        self.register_load_state_dict_post_hook(self.forget)

    @staticmethod
    def forget(module, _):
        module.offset.fill_(7)

    def forward(self, x):
        return x + self.offset


WRONG = {check for _, check, _ in BROKEN.values()}


class Remembering(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.ones(1))
        self.seen = torch.ones(1)
        self.register_load_state_dict_post_hook(self.remember)

    @staticmethod
    def remember(module, _):
        module.seen = module.slope.detach().clone()

    def forward(self, x):
        return x * self.seen


def test_every_check_can_fail():
    assert {*testing.CHECKS} - WRONG == {testing.check_functional_call, testing.check_safetensors}
    with pytest.raises(AssertionError, match="Remembering fails functional_call, as it is"):
        testing.check_functional_call(Remembering())
    with pytest.raises(AssertionError, match="Adding fails safetensors, as it is"):
        testing.check_safetensors(Adding())


@pytest.mark.parametrize(("spec", "check", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_activation_fails(spec, check, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check(spec)
    assert str(caught.value).startswith("broken fails")


@pytest.mark.parametrize(
    "check", [check for check in testing.CHECKS if check in WRONG], ids=lambda check: check.__name__
)
def test_a_broken_activation_fails_the_whole_checker(check):
    (spec, *_) = next(row for row in BROKEN.values() if row[1] is check)
    with pytest.raises(AssertionError, match="broken fails"):
        testing.check_activation(spec)


def test_a_good_activation_of_your_own_passes():
    testing.check_activation(GOOD)


@pytest.mark.parametrize(
    "module", [torch.nn.GELU(), torch.nn.PReLU(6), nn.SReLU(per_channel=6), nn.Formula("x * tanh(x)")]
)
def test_any_module_can_be_checked(module):
    testing.check(module)
    assert set(testing.findings(module).values()) == {""}


class Naive(torch.nn.Module):
    """An ELU as it is often written."""

    def __init__(self):
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.ones(1))
        self.unused = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.where(x > 0, x, self.alpha * (torch.exp(x) - 1))


def test_findings_name_all_that_is_wrong_with_a_module():
    found = {name for name, message in testing.findings(Naive()).items() if message}
    assert found == {"extremes", "parameters"}
    with pytest.raises(AssertionError, match=r"Naive fails 2 of 10 checks:\n  extremes: .*NaN at"):
        testing.check(Naive())


def test_a_module_that_cannot_be_called_is_reported():
    with pytest.raises(UsageError, match=r"Linear cannot be called with an input of shape \(4, 6\)"):
        testing.check(torch.nn.Linear(3, 3))


def test_a_name_passes_at_other_values():
    testing.check_activation("elu", alpha=0.7)


def test_only_promises_made_are_checked():
    silent = replace(SMOOTH, function=torch.neg, promises=Promises())
    testing.check_monotonic(silent)
    testing.check_bounds(silent)
    testing.check_smooth(replace(SMOOTH, promises=Promises()))
    testing.check_vmap(replace(SMOOTH, function=branching, promises=Promises(vmap=False)))
    testing.check_compiles(replace(SMOOTH, function=branching, promises=Promises(compiles=False)))


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_knots_are_kinks_and_may_be_rounded(slope):
    """A third has no float; the derivative there may be that of either side, or lie between."""

    def hinge(x, a):
        return a[0] * torch.where(x == 1 / 3, slope * (x - 1 / 3), F.relu(x - 1 / 3))

    spec = Spec(
        name="hinge",
        title="Hinge",
        family="test",
        function=hinge,
        formula="sum(a) * max(x - 1 / 3, 0)",
        parameters=(Param(name="a", vector=True),),
        knots=lambda terms: (terms / 3,),
    )
    testing.check_derivatives(spec, a=(0.75,))
    with pytest.raises(AssertionError, match="got declared kinks, expected none"):
        testing.check_smooth(replace(spec, promises=Promises(smooth=True)), a=(0.75,))


def test_an_unknown_name_is_reported():
    with pytest.raises(UnknownActivation, match="no activation named 'gelo'; did you mean 'gelu'"):
        testing.check_activation("gelo")
