"""What claims about networks rest on, measured on small ones."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from softknee._diagnose.claims.shows import hessian, seeded
from softknee._diagnose.curvature.landscape import landscape
from softknee._diagnose.curvature.ntk import ntk
from softknee._diagnose.flow.born_dead import born_dead

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._diagnose.claims.ledger import Numbers

WIDTH, DEPTH = 256, 12


def silent_by_depth() -> Numbers:
    """Share of ReLUs that are 0 for all of 256 inputs, in the last five of twelve layers, for two initializations."""
    return {
        "share in the deep layers, torch's default": _silent_share(default=True),
        "share in the deep layers, weights scaled for ReLU and no biases": _silent_share(default=False),
    }


def _silent_share(*, default: bool) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, WIDTH, generator=generator, dtype=torch.float64)
    shares = []
    for _ in range(DEPTH):
        if default:
            drawn = (2 * torch.rand(WIDTH + 1, WIDTH, generator=generator, dtype=torch.float64) - 1) / math.sqrt(WIDTH)
            weight, bias = drawn[:-1], drawn[-1]
        else:
            weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) * math.sqrt(2 / WIDTH)
            bias = torch.zeros(WIDTH, dtype=torch.float64)
        x = torch.relu(x @ weight + bias)
        shares.append(float((x == 0).all(0).double().mean()))
    return sum(shares[-5:]) / 5


def dead_at_birth() -> Numbers:
    """Share of ReLU networks of five layers of three units that give 0 to one input, at initialization."""
    generator = torch.Generator().manual_seed(0)
    runs, width, depth = 40_000, 3, 5
    h = torch.randn(runs, width, generator=generator)
    for _ in range(depth):
        weights = torch.randn(runs, width, width, generator=generator)
        h = torch.relu(torch.einsum("ri,rij->rj", h, weights))
    dead = (h == 0).all(1)
    return {
        "share of dead networks": float(dead.float().mean()),
        "1 - prod(1 - 2^-width)": born_dead([width] * depth),
        "the product of single units' probabilities": 0.5**depth,
    }


def xi_index() -> Numbers:
    """The index for a loss and ten times it, and at the beginning and the end of one training."""
    with seeded():
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        x = torch.randn(32, 2, dtype=torch.float64)
    y = x[:, :1] * x[:, 1:]
    start = torch.cat([one.detach().flatten() for one in model.parameters()])

    def loss(flat: Tensor, part: slice, scale: float = 1.0) -> Tensor:
        sizes = [one.numel() for one in model.parameters()]
        names = zip(model.named_parameters(), flat.split(sizes), strict=True)
        weights = {name: piece.view(one.shape) for (name, one), piece in names}
        return scale * F.mse_loss(functional_call(model, weights, (x[part],)), y[part])

    def xi(flat: Tensor, scale: float = 1.0) -> float:
        batches = [slice(i, i + 8) for i in range(0, 32, 8)]
        sizes = [float(torch.linalg.matrix_norm(hessian(loss)(flat, batch, scale))) for batch in batches]
        gradients = [float(grad(loss)(flat, batch, scale).square().sum()) for batch in batches]
        return sum(sizes) / sum(gradients)

    end = start
    for _ in range(600):
        end = end - 0.1 * grad(loss)(end, slice(None))
    return {
        "xi of the loss over xi of ten times the loss": xi(start) / xi(start, 10.0),
        "xi at the end of training over xi at its beginning": xi(end) / xi(start),
    }


def unit_directions() -> Numbers:
    """Losses around a ReLU network and around the same function with its layers scaled by 100 and 1/100."""
    with seeded():
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False)).double()
        x, y = torch.randn(64, 4, dtype=torch.float64), torch.randn(64, 1, dtype=torch.float64)
        drawn = torch.randn(40, dtype=torch.float64)
    scaled = copy.deepcopy(model)
    for one, factor in zip(scaled.parameters(), (100, 0.01), strict=True):
        one.data.mul_(factor)

    def difference(measure: Callable[[nn.Module], tuple[float | None, ...]]) -> float:
        pairs = zip(measure(model), measure(scaled), strict=True)
        return max(abs((one or 0) - (other or 0)) for one, other in pairs)

    def along_filters(one: nn.Module) -> tuple[float | None, ...]:
        return landscape(one, [(x, y)], "mse", points=5, two=False).one

    def along_unit(one: nn.Module) -> tuple[float | None, ...]:
        unit = drawn / drawn.norm()
        return landscape(one, [(x, y)], "mse", points=5, two=False, directions=[unit]).one

    return {
        "largest difference of the losses, directions of length 1": difference(along_unit),
        "largest difference of the losses, filter-normalised": difference(along_filters),
    }


def leaky_kernel() -> Numbers:
    """Smallest eigenvalues of the kernel of a leaky ReLU network with slope 0.1."""
    with seeded():
        model = nn.Sequential(nn.Linear(4, 64, bias=False), nn.LeakyReLU(0.1), nn.Linear(64, 1, bias=False)).double()
        x = torch.randn(3, 4, dtype=torch.float64)
    return {
        "smallest eigenvalue, two inputs equal": ntk(model, torch.cat([x, x[:1]])).eigenvalues[-1],
        "smallest eigenvalue, three inputs": ntk(model, x).eigenvalues[-1],
        "smallest eigenvalue, inputs a tenth as long": ntk(model, x / 10).eigenvalues[-1],
    }


def tanh_curvature() -> Numbers:
    """Largest eigenvalue of a tanh network's Hessian, for targets of two sizes."""
    with seeded():
        x = torch.randn(16, 2, dtype=torch.float64)
        start = torch.randn(12, dtype=torch.float64)

    def top(size: float) -> float:
        def loss(flat: Tensor) -> Tensor:
            first, second = flat[:8].view(4, 2), flat[8:]
            return (torch.tanh(x @ first.T) @ second - size * x.prod(1)).square().mean() / 2

        return float(torch.linalg.eigvalsh(hessian(loss)(start))[-1])

    return {"largest eigenvalue, targets of size 1": top(1), "the same, targets of size 100": top(100)}
