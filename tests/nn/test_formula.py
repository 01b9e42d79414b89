from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from softknee._errors import ExpressionError, OptionError
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


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.isidentifier()])
def test_every_function_works_in_a_formula(name):
    primitive = FUNCTIONS[name]
    arguments = {1: "x", 2: "x, 1", 3: "x > 1, x, 1"}[primitive.arity]
    module = Formula(f"{name}({arguments})")
    x = torch.tensor([0.3, 1.7], dtype=torch.float64)
    sympy = pytest.importorskip("sympy")
    symbol = sympy.Symbol("x", real=True)
    exact = module.spec.function.to_sympy({"x": symbol})
    assert module(x).tolist() == pytest.approx([float(exact.subs(symbol, sympy.Rational(v))) for v in x.tolist()])


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
        ("gelo(x)", {}, ExpressionError, "no function named 'gelo'; did you mean 'gelu'"),
    ],
)
def test_bad_formulas_are_refused(text, options, error, message):
    with pytest.raises(error, match=message):
        Formula(text, **{name: value for name, value in options.items() if name != "terms"})
