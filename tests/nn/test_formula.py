from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.nn import functional as F

from softknee._errors import ExpressionError, OptionError
from softknee._expression.parse import parse
from softknee.nn import Formula
from softknee.nn.formula import FUNCTIONS
from softknee.testing import check_activation

X = torch.linspace(-3, 3, 24).view(4, 6)


def test_names_are_trained_parameters():
    module = Formula("x * sigmoid(beta * x)", beta=1.5)
    assert dict(module.named_parameters()).keys() == {"beta"}
    assert torch.allclose(module(X), X * torch.sigmoid(1.5 * X))
    module(X).sum().backward()
    assert module.beta.grad.shape == (1,)


def test_a_formula_passes_the_checker():
    check_activation(Formula("where(x > 0, x, a * (exp(x) - 1)) + b * x", a=1.0, b=0.1).spec, a=0.7, b=0.2)


@pytest.mark.parametrize("options", [{}, {"per_channel": 6}, {"trainable": False}, {"trainable": ("b",)}])
def test_copies_are_equal(options):
    module = Formula("a * tanh(b * x)", a=2.0, b=0.5, **options)
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(X), module(X))
        assert repr(again) == repr(module)
        assert again.spec == module.spec
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = Formula("a * tanh(b * x)", a=2.0, b=0.5, **options)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(X), module(X))


def test_parameters_per_channel():
    module = Formula("a * x", a=torch.arange(6.0), per_channel=6)
    assert torch.equal(module(X), torch.arange(6.0) * X)


def test_vmap_and_compile():
    module = Formula("where(x > 0, log1p(x), a * x)", a=0.5)
    assert torch.allclose(torch.func.vmap(module)(X), module(X))
    slope = torch.func.vmap(torch.func.grad(module))(X.flatten())
    x = X.flatten().requires_grad_()
    assert torch.allclose(slope, torch.autograd.grad(module(x).sum(), x)[0])
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(X), module(X))


CALLABLE = [name for name, found in FUNCTIONS.items() if name.isidentifier() and not isinstance(found, str)]


@pytest.mark.parametrize("name", CALLABLE)
def test_every_function_works_in_a_formula(name):
    primitive = FUNCTIONS[name]
    arguments = {1: "x", 2: "x, 1", 3: "x > 1, x, 1"}[primitive.arity - len(primitive.parameters)]
    module = Formula(f"{name}({arguments})")
    x = torch.tensor([0.3, 1.7], dtype=torch.float64)
    sympy = pytest.importorskip("sympy")
    symbol = sympy.Symbol("x", real=True)
    exact = module.spec.function.to_sympy({"x": symbol})
    assert module(x).tolist() == pytest.approx([float(exact.subs(symbol, sympy.Rational(v))) for v in x.tolist()])


@pytest.mark.parametrize(
    ("text", "canonical", "same"),
    [
        ("swish(x, 1.5)", "swish(x, 1.5)", lambda x, b: x * torch.sigmoid(1.5 * x)),
        ("swish(x, beta=b)", "swish(x, b)", lambda x, b: x * torch.sigmoid(b * x)),
        ("swish(x, beta=1)", "swish(x)", lambda x, b: F.silu(x)),
        ("leaky_relu(x + 1, 0.2)", "leaky_relu(x + 1, 0.2)", lambda x, b: F.leaky_relu(x + 1, 0.2)),
        ("leakyrelu(x)", "leaky_relu(x)", lambda x, b: F.leaky_relu(x)),
        ("elu(tanh(x), b**2)", "elu(tanh(x), b**2)", lambda x, b: F.elu(torch.tanh(x), b**2)),
        ("elu(x, x)", "elu(x, x)", lambda x, b: torch.where(x > 0, x, x * torch.expm1(x))),
        ("prelu(-1, x)", "prelu(-1, x)", lambda x, b: -x),
        ("hardtanh(x, max_value=2)", "hardtanh(x, -1, 2)", lambda x, b: x.clamp(-1, 2)),
        ("softplus(x)", "softplus(x)", lambda x, b: F.softplus(x)),
        ("softplus(x, beta=1)", "softplus(x)", lambda x, b: F.softplus(x)),
        ("softplus(x, b + 1)", "softplus(x, b + 1)", lambda x, b: F.softplus(x, b + 1)),
    ],
)
def test_catalogued_functions_are_called_with_parameters(text, canonical, same):
    expression = parse(text, FUNCTIONS)
    assert str(expression) == canonical
    assert parse(canonical, FUNCTIONS) == expression
    x = X.double()
    got = expression(x, *[0.5 for _ in expression.parameters])
    assert torch.allclose(got, same(x, 0.5), rtol=1e-9, atol=1e-9)


def test_an_argument_may_be_a_trained_parameter():
    module = Formula("swish(x, b) + leaky_relu(x, a)", a=0.1, b=1.5, per_channel=6)
    module(X).sum().backward()
    assert torch.allclose(module.a.grad, X.clamp(max=0).sum(0))
    assert module.b.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("a * x", {}, OptionError, r"'a' in 'a \* x' is neither x nor a function; give its starting value"),
        ("a * x", {"a": 1.0, "b": 2.0}, OptionError, "has no parameter 'b'; it has a"),
        ("tanh(x)", {"per_channel": 3}, OptionError, "no parameters that could be trained or set per channel"),
        ("a * x", {"a": float("nan")}, OptionError, "a of a . x must be finite, got nan"),
        ("training * x", {"training": 1.0}, OptionError, "'training' cannot name a parameter"),
        ("half * x", {"half": 1.0}, OptionError, "'half' cannot name a parameter"),
        ("terms * x", {"terms": 1.0}, OptionError, "'terms' cannot name a parameter"),
        ("sum(a * x)", {"a": 1.0}, OptionError, "sums over vector parameters"),
        ("gelo(a * x)", {"a": 1.0}, ExpressionError, r"'gelu'.*\?\n  gelo\(a \* x\)\n  \^$"),
        ("staf(x)", {}, ExpressionError, "staf cannot be called in a formula: it has vector parameters"),
        ("rrelu(x)", {}, ExpressionError, "rrelu cannot be called in a formula: it is random in training"),
        ("brelu(x)", {}, ExpressionError, "brelu cannot be called in a formula: it depends on the channel"),
        ("swish()", {}, ExpressionError, "swish takes 1 to 2 arguments, got 0"),
        ("swish(x, 1, 2)", {}, ExpressionError, "swish takes 1 to 2 arguments, got 3"),
        ("swish(x, beat=1)", {}, ExpressionError, "swish has no argument 'beat'; did you mean 'beta'"),
        ("swish(x=x)", {}, ExpressionError, "swish has no argument 'x'; it takes x, beta"),
        ("swish(x, **x)", {}, ExpressionError, "swish has no argument None; it takes x, beta"),
        ("swish(x, 1, beta=1)", {}, ExpressionError, "beta of swish is given twice"),
        ("swish(x, beta=1, beta=1)", {}, ExpressionError, "beta of swish is given twice"),
        ("swish(x, x < 1)", {}, ExpressionError, "comparisons stand in the first place"),
        ("celu(x, 0)", {}, ExpressionError, "alpha of celu must be above 0, got 0"),
        ("celu(x, 1 - 3)", {}, ExpressionError, r"alpha of celu must be above 0, got 1 - 3"),
        ("gelo(x)", {}, ExpressionError, "no function named 'gelo'; did you mean 'gelu'"),
    ],
)
def test_bad_formulas_are_refused(text, options, error, message):
    with pytest.raises(error, match=message):
        Formula(text, **{name: value for name, value in options.items() if name != "terms"})
