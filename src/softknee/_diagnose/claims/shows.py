"""What claims about single functions rest on, measured."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev
from torch.nn import functional as F

from softknee import _catalogue
from softknee._card.propagation import moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softknee._diagnose.claims.ledger import Numbers


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw from a seed; the state of torch's generator is afterwards as before."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield


def slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the derivative of a function of single elements."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(function(x).sum(), x)[0]


def hessian(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function of the Hessian of a function of a vector, by reverse mode twice."""
    twice: Callable[..., Tensor] = jacrev(grad(function))
    return twice


def _elementwise(name: str) -> nn.Module:
    return _catalogue.parse_choice(name).build(channels=1, generator=torch.Generator().manual_seed(0)).double().eval()


def _value(name: str, x: float) -> float:
    """Return the value of an activation of the catalogue at its default parameters."""
    return float(_elementwise(name)(torch.tensor([[x]], dtype=torch.float64)).detach())


def detached_spline() -> Numbers:
    """A function evaluated on detached arrays, against the catalogue's spline."""
    x = torch.linspace(-1, 1, 8, dtype=torch.float64, requires_grad=True)
    coefficients = torch.arange(5.0, dtype=torch.float64, requires_grad=True)
    grid = np.linspace(-1, 1, 5)
    outside = torch.from_numpy(np.interp(x.detach().numpy(), grid, coefficients.detach().numpy()))
    y = (outside * coefficients.mean()).sum()
    (to_x,) = torch.autograd.grad(y, x, allow_unused=True, retain_graph=True)
    (to_coefficients,) = torch.autograd.grad(y, coefficients)
    own = slope(_elementwise("bspline"), x.detach()[:, None])
    return {
        "gradient to the input, detached": 0.0 if to_x is None else float(to_x.abs().max()),
        "spread of the coefficients' gradients, detached": float(to_coefficients.std()),
        "gradient to the input, softknee's bspline": float(own.abs().max()),
    }


def polyval() -> Numbers:
    """Whether torch has the function."""
    return {"functions of that name in torch": float(hasattr(torch, "polyval"))}


def trainable_elu() -> Numbers:
    """Gradients of both ways to write a trained ELU, in float32."""
    x = torch.tensor([88.0, 89.0])
    written = slope(lambda v: torch.where(v > 0, v, torch.exp(v) - 1), x)
    safe = slope(lambda v: torch.where(v > 0, v, torch.expm1(v.clamp_max(0))), x)
    return {
        "gradients at 88 and 89 that are no numbers, as written": float(torch.isnan(written).sum()),
        "the same with expm1(min(x, 0))": float(torch.isnan(safe).sum()),
        "TeLU at -1": _value("telu", -1.0),
        "ELU at -1": _value("trainable_elu", -1.0),
    }


def default_initialization() -> Numbers:
    """Variance of the weights that torch draws."""
    with seeded():
        layer = nn.Linear(1024, 1024)
        return {
            "fan-in times variance, torch's default": 1024 * float(layer.weight.detach().var()),
            "fan-in times variance that ReLU needs": float(2 * 0.5 / moments(torch.relu).square),
        }


def gelu_shape() -> Numbers:
    """Slope of GELU."""
    x = torch.linspace(-3, 3, 600_001, dtype=torch.float64)
    slopes = slope(F.gelu, x)
    turn = float(x[(slopes[1:].sign() != slopes[:-1].sign()).nonzero()[0, 0]])
    left = torch.linspace(-8, -4, 40_001)
    gone = left[slope(F.gelu, left) == 0]
    return {
        "GELU at 10": float(F.gelu(torch.tensor(10.0))),
        "place where its slope is 0": turn,
        "its lowest slope": float(slopes.min()),
        "place from which its slope is exactly 0 in float32": float(gone.max()),
    }


def attention_lipschitz() -> Numbers:
    """Norm of the Jacobian of dot-product attention at inputs of two sizes (the example of Kim et al. 2021)."""

    def attention(x: Tensor) -> Tensor:
        return torch.softmax(x @ x.T, 1) @ x

    def norm(size: float) -> float:
        x = torch.tensor([[0.0], [size], [-size]], dtype=torch.float64)
        return float(torch.linalg.matrix_norm(jacrev(attention)(x).reshape(3, 3), 2))

    steepest = slope(F.gelu, torch.linspace(1, 2, 100_001, dtype=torch.float64)).max()
    return {
        "steepest slope of GELU": float(steepest),
        "norm of attention's Jacobian at inputs of size 3": norm(3),
        "the same at size 30": norm(30),
    }


def relu_convexity() -> Numbers:
    """Curvature of `(v relu(w) - 1)^2 / 2` at v = w = 0.1, inside one region."""

    def loss(weights: Tensor) -> Tensor:
        return (weights[1] * torch.relu(weights[0]) - 1).square() / 2

    curvature = hessian(loss)(torch.tensor([0.1, 0.1], dtype=torch.float64))
    return {
        "lowest eigenvalue of the Hessian in both weights": float(torch.linalg.eigvalsh(curvature)[0]),
        "curvature in the first weight alone": float(curvature[0, 0]),
    }


def sgt_limit() -> Numbers:
    """Limits to the right."""
    return {
        "Gamma(1.5) tanh(x) far right": math.gamma(1.5) * math.tanh(1e3),
        "softknee's sgt far right": _value("sgt", 1e3),
    }


def nipuna_jump() -> Numbers:
    """Values beside 0."""
    return {
        "softplus(x) just left of 0": _value("softplus", -1e-12),
        "softknee's nipuna just left of 0": _value("nipuna", -1e-12),
    }


def lstm_path() -> Numbers:
    """The derivative of a cell state by the one before, the hidden state held."""
    with seeded():
        cell = nn.LSTMCell(3, 4).double()
        x, h, c = (torch.randn(1, size, dtype=torch.float64) for size in (3, 4, 4))
    with torch.enable_grad():
        moving = c.clone().requires_grad_()
        (found,) = torch.autograd.grad(cell(x, (h, moving))[1].sum(), moving)
    gates = F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh)
    return {"largest difference from the forget gate": float((found - gates[:, 4:8].detach().sigmoid()).abs().max())}


def sigmoid_hessian() -> Numbers:
    """Hessians of a sigmoid unit's output and of its cross-entropy, against the printed formula."""
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.8, 0.7], dtype=torch.float64)
    s = torch.sigmoid(weights @ x)
    printed = s * (1 - s) * (1 - 2 * s) * torch.outer(x, x)
    output = hessian(lambda w: torch.sigmoid(w @ x))(weights)
    loss = hessian(lambda w: F.softplus(-(w @ x)))(weights)
    return {
        "largest difference from the Hessian of the output": float((printed - output).abs().max()),
        "largest difference from the Hessian of the cross-entropy": float((printed - loss).abs().max()),
    }


def default_signal() -> Numbers:
    """By how much four hidden layers shrink the gradient's variance under torch's default initialization."""
    found = {}
    for name in ("sigmoid", "gelu", "silu", "relu", "prelu", "tanh"):
        function = _elementwise(name)
        q, product = 1 / 3 + 1 / (3 * 784), 1.0
        for fan_in in (256, 192, 128, 64):
            there = moments(function, q=q)
            product *= there.slope_square / 3
            q = there.square / 3 + 1 / (3 * fan_in)
        found[f"factor under {name}"] = product
    return found
