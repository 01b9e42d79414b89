from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import softknee as sk
from softknee._errors import OptionError
from softknee._expression.nodes import Name, Number
from softknee._expression.tree import Expression
from softknee._search.operations import BINARY, UNARY, Operation
from softknee._search.space import Genotype, Space

X = torch.cat([torch.linspace(-50, 50, 401), torch.linspace(-4, 4, 160)]).double()
# Their values as the specification writes them, for a bound l and scalars b.
LIMITED = {
    "identity": lambda x, b, bound: x,
    "negate": lambda x, b, bound: -x,
    "abs": lambda x, b, bound: abs(x),
    "square": lambda x, b, bound: min(x * x, bound),
    "cube": lambda x, b, bound: min(max(x**3, -bound), bound),
    "sqrt": lambda x, b, bound: math.sqrt(max(x, 1e-3)),
    "add_beta": lambda x, b, bound: x + b,
    "mul_beta": lambda x, b, bound: b * x,
    "const_beta": lambda x, b, bound: b,
    "exp": lambda x, b, bound: min(math.exp(x), bound),
    "sinh": lambda x, b, bound: min(max(math.sinh(x), -bound), bound),
    "tanh": lambda x, b, bound: math.tanh(x),
    "asinh": lambda x, b, bound: math.asinh(x),
    "atan": lambda x, b, bound: math.atan(x),
    "sigmoid": lambda x, b, bound: math.exp(x) / (1 + math.exp(x)),
    "erf": lambda x, b, bound: math.erf(x),
    "max0": lambda x, b, bound: max(x, 0),
    "min0": lambda x, b, bound: min(x, 0),
    "softplus": lambda x, b, bound: math.log1p(math.exp(x)),
    "silu": lambda x, b, bound: x * math.exp(x) / (1 + math.exp(x)),
    "gelu": lambda x, b, bound: x * math.erfc(-x / math.sqrt(2)) / 2,
    "elu": lambda x, b, bound: x if x > 0 else math.expm1(x),
    "leaky_relu": lambda x, b, bound: max(x, 0.01 * x),
}
PAIRED = {
    "add": lambda a, b, s, root: a + b,
    "sub": lambda a, b, s, root: a - b,
    "mul": lambda a, b, s, root: min(max(a, -root), root) * min(max(b, -root), root),
    "max": lambda a, b, s, root: max(a, b),
    "min": lambda a, b, s, root: min(a, b),
    "gate": lambda a, b, s, root: b / (1 + math.exp(-a)),
    "mix": lambda a, b, s, root: s * a + (1 - s) * b,
    "left": lambda a, b, s, root: a,
    "right": lambda a, b, s, root: b,
}


def test_there_are_23_and_9_in_the_order_of_the_specification():
    assert list(UNARY) == list(LIMITED)
    assert list(BINARY) == list(PAIRED)
    assert (len(UNARY), len(BINARY)) == (23, 9)
    assert {one.name: one.beta for one in (*UNARY.values(), *BINARY.values()) if one.beta} == {
        **dict.fromkeys(("add_beta", "mul_beta", "const_beta"), (1.0, 0.25)),
        "mix": (0.0, 0.0),
    }


@pytest.mark.parametrize("bound", [10.0, 0.5])
@pytest.mark.parametrize("name", UNARY)
def test_unary_operations_are_those_of_the_specification(name, bound):
    operation = UNARY[name]
    scalar = () if operation.beta is None else (1.25,)
    wanted = torch.tensor([LIMITED[name](x, 1.25, bound) for x in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(operation.function(X, *scalar, bound=bound), wanted, rtol=1e-12, atol=1e-14)
    tree = Expression.of(operation.node(Name("x"), *map(Number, scalar), bound=bound))
    torch.testing.assert_close(tree(X), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", BINARY)
def test_binary_operations_are_those_of_the_specification(name):
    operation = BINARY[name]
    scalar = () if operation.beta is None else (0.75,)
    other = X.flip(0) + 0.3
    share = 1 / (1 + math.exp(-0.75))
    pairs = zip(X.tolist(), other.tolist(), strict=True)
    wanted = torch.tensor([PAIRED[name](a, b, share, math.sqrt(10)) for a, b in pairs], dtype=torch.float64)
    torch.testing.assert_close(operation.function(X, other, *scalar, bound=10.0), wanted, rtol=1e-12, atol=1e-14)
    tree = Expression.of(operation.node(Name("x"), Name("b"), *map(Number, scalar), bound=10.0))
    given = [other] if tree.parameters else []
    got = tree(X, *given) if name != "right" else other
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", UNARY)
def test_float32_and_its_gradient_are_finite_and_bounded_everywhere(name):
    operation = UNARY[name]
    scalar = () if operation.beta is None else (1.0,)
    x = torch.tensor([-1e37, -1e4, -89.0, -1.0, 0.0, 1.0, 89.0, 1e4, 1e37], requires_grad=True)
    y = operation.function(x, *scalar, bound=10.0)
    assert bool(y.isfinite().all())
    (slope,) = torch.autograd.grad((y + 0 * x).sum(), x)
    # That of the square root at 1e-3 is the steepest, that of the cube below 14.
    assert float(slope.abs().max()) < 16
    if name in {"square", "cube", "exp", "sinh"}:
        assert float(y.detach().max()) == pytest.approx(10, rel=1e-6)
        assert not slope[[-1, -2]].any()


@pytest.mark.parametrize("operation", [*UNARY.values(), *BINARY.values()], ids=lambda one: one.name)
def test_shapes_broadcast_and_scalars_get_their_gradient(operation):
    torch.manual_seed(0)
    inputs = [torch.randn(7, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float64)][: operation.arity]
    shape = torch.broadcast_shapes(*[one.shape for one in inputs])
    if operation.beta is None:
        assert operation.function(*inputs, bound=10.0).shape == shape
        return
    beta = torch.randn(5, *[1] * len(shape), dtype=torch.float64, requires_grad=True)
    assert operation.function(*inputs, beta, bound=10.0).shape == (5, *shape)
    assert torch.autograd.gradcheck(lambda beta: operation.function(*inputs, beta, bound=10.0), beta)


def test_operations_can_be_copied_and_sent_to_another_process():
    for operation in (*UNARY.values(), *BINARY.values()):
        assert copy.deepcopy(operation) is operation
        assert pickle.loads(pickle.dumps(operation)) is operation


def test_activations_are_those_of_torch():
    x = torch.linspace(-9, 9, 301)
    for name, function in {"silu": F.silu, "gelu": F.gelu, "elu": F.elu, "leaky_relu": F.leaky_relu}.items():
        assert torch.equal(UNARY[name].function(x, bound=10.0), function(x))


def test_operations_of_your_own_are_formulas():
    wave = Operation.of("wave", "sin(beta * min(max(x, -bound), bound))", beta=(1.0, 0.25))
    ratio = Operation.of("ratio", "x / (1 + abs(y))")
    assert (wave.arity, ratio.arity) == (1, 2)
    x, y = torch.linspace(-30, 30, 7, dtype=torch.float64), torch.linspace(2, -4, 7, dtype=torch.float64)
    assert_close(wave.function(x, torch.tensor(2.0), bound=10.0), torch.sin(2 * x.clamp(-10, 10)))
    assert_close(ratio.function(x, y, bound=10.0), x / (1 + y.abs()))
    space = Space(unary=["identity", wave], binary=[ratio, "add"], cores=1, bound=10.0)
    found = space.function(Genotype(("wave", "identity"), ("ratio",)), {("unary", 0): 2.0})
    exact = torch.sin(2 * x.clamp(-10, 10)) / (1 + x.abs())
    assert_close(sk.create(found.text)(x), exact, atol=1e-12, rtol=0)
    again = pickle.loads(pickle.dumps(space))
    assert again.unary[1].formula == wave.formula
    mixture = sk.Mixture(space)
    with sk.engine("eager"):
        assert mixture(x.float()).isfinite().all()


@pytest.mark.parametrize(
    ("formula", "beta", "message"),
    [
        ("x * z", None, "'z' in 'x \\* z' is none of x, y, beta and bound"),
        ("sin(beta * x)", None, "beta must be given as .* just where the formula has it"),
        ("sin(x)", (1.0, 0.1), "beta must be given as .* just where the formula has it"),
    ],
    ids=["name", "missing", "unused"],
)
def test_formulas_that_are_no_operations(formula, beta, message):
    with pytest.raises(OptionError, match=message):
        Operation.of("mine", formula, beta=beta)
