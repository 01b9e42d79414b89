"""What DiTAC learns, in pictures, and why GELU fails where it does not.

A network 2-50-1 learns a sum of six plane waves on a square (98 fresh points a step, Adam at 0.005, 10,000 steps: the
task of DiTAC's published code) with DiTAC on [-3, 3], PReLU, ReLU and GELU, each from the same weights and on the same
points. Two more are there to be looked into: three units on noisy data of one variable, with DiTAC and with GELU, and
three hidden layers of DiTAC on Fashion-MNIST's embedded subset. `--out` draws

- *field*: the velocity field that was learned, the map T it makes, and the slope of T;
- *training*: the activations while they are trained, of the regression and of each layer on Fashion-MNIST;
- *order*: f(T(x)) beside T(f(x)): what is lost where the map comes after;
- *units*: the networks of three units from inside;
- *surface*: target, fits and errors.

`--why` looks for what makes GELU fail, and tests what it finds (drawing *why*):

- what activations hold beyond polynomials of some degree, for inputs as large as PyTorch's weights make them
  (`softknee.card`), and which degrees the target needs;
- where the target lies in the spectrum of the tangent kernel (`softknee.diagnostics.ntk`);
- what becomes of GELU where its scale alone is changed, by hand (GELU(k x) / k, or first weights k times as large) or
  by training (k is a parameter); what other rates and more steps do; and whether the shape that DiTAC has learned is
  enough: it is frozen, and new weights are trained.

Usage: python examples/ditac.py [--out FOLDER] [--why] [--seeds 3] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.data import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Shapes = list[tuple[int, list[Tensor]]]

# The waves of the target, by their direction and size, and what they count.
FORMS = torch.tensor([(9.0, -7.0), (-9.0, 11.0), (3.0, 13.0), (9.0, 9.0), (13.0, 5.0), (3.0, 19.0)])
PARTS = torch.tensor([0.4, 0.1, 0.15, 0.15, 0.1, 0.1])
POINTS, RATE, WIDTHS, SIDE = 98, 5e-3, (2, 50, 1), 101
BOUND = 3.0
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "DiTAC": {"activation": "ditac", "low": -BOUND, "high": BOUND},
    "PReLU": {"activation": "prelu"},
    "ReLU": {"activation": "relu"},
    "GELU": {"activation": "gelu"},
}
# Where shapes are looked at, and after how many steps.
AXIS = torch.linspace(-BOUND - 0.5, BOUND + 0.5, 701)
FRAMES = {round(10 ** (1 + k / 16)) for k in range(49)}
# Of `--why`.
SHARPNESS = (1, 2, 3, 5, 10, 20)
DEGREES = tuple(range(1, 25))
KERNEL_POINTS, ROUNDING, EARLY = 512, 1e-15, 200
CAPTIONS = {
    "field": "A field of velocities at eleven knots, 0 at both ends, makes a map of the interval on itself.",
    "training": "Activations while they are trained. One shape serves all units of a layer.",
    "order": "Where the map comes last, it never sees what the activation has cut off.",
    "units": "Three units, before and after the activation, and what becomes of them.",
    "surface": "The target, what each activation makes of it, and what is wrong with that.",
    "why": "GELU is too smooth for the target at the scale at which it is used.",
}


def waves(x: Tensor) -> Tensor:
    """Return the target at points `(n, 2)`, as `(n, 1)`."""
    return (x @ FORMS.to(x.dtype).T).sin() @ PARTS.to(x.dtype)[:, None]


def bumps(x: Tensor) -> Tensor:
    """Return the target of one variable."""
    return torch.sin(2.5 * x) * torch.exp(-x.square() / 4) + 0.2 * x


def grid() -> Tensor:
    """Return the points on which fits are scored, `(101 * 101, 2)`."""
    axis = torch.linspace(-1, 1, SIDE)
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def r2(model: nn.Module) -> float:
    """Return the share of the target's variance on the grid that a model explains."""
    target = waves(grid())
    return float(1 - (model(grid()) - target).square().mean() / target.var(correction=0))


def network(
    widths: tuple[int, ...], seed: int, *, activation: str, scale: float = 1.0, **options: Any
) -> nn.Sequential:
    """Make a network with PyTorch's initialization, the first layer's weights and biases times `scale`."""
    torch.manual_seed(seed)
    linear = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    with torch.no_grad():
        for parameter in linear[0].parameters():
            parameter.mul_(scale)
    hidden = itertools.chain.from_iterable((layer, sk.create(activation, **options)) for layer in linear[:-1])
    return nn.Sequential(*hidden, linear[-1])


@torch.no_grad()
def shapes(model: nn.Sequential) -> list[Tensor]:
    """Return what each activation makes of the axis."""
    return [module(AXIS) for module in model[1::2]]


def train(
    model: nn.Sequential,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    *,
    rate: float = RATE,
) -> Shapes:
    """Train with Adam; return steps, and the shapes of the activations after them."""
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=rate)
    frames = [(0, shapes(model))]
    for step, (x, y) in enumerate(batches, 1):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        if step in FRAMES:
            frames.append((step, shapes(model)))
    return frames


def points(seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield fresh points of the square and the target there."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = 2 * torch.rand(POINTS, 2, generator=generator) - 1
        yield x, waves(x)


def noisy(seed: int) -> tuple[Tensor, Tensor]:
    """Return 150 points of one variable, and the target there with noise of standard deviation 0.05."""
    generator = torch.Generator().manual_seed(seed)
    x = 6 * torch.rand(150, 1, generator=generator) - 3
    return x, bumps(x) + 0.05 * torch.randn(150, 1, generator=generator)


def garments(seed: int, epochs: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of 100 images between -1 and 1, flat, and labels."""
    data = load("mini")
    x = torch.tensor(data.train_images[:images]).flatten(1).float().div(127.5).sub(1)
    y = torch.tensor(data.train_labels[:images]).long()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(100):
            yield x[batch], y[batch]


def regression(steps: int, seeds: int) -> tuple[dict[str, list[float]], dict[str, list[nn.Sequential]], Shapes]:
    """Train on the waves; return scores and models of all seeds, and DiTAC's shapes with the first one."""
    scores: dict[str, list[float]] = {}
    models: dict[str, list[nn.Sequential]] = {}
    frames: Shapes = []
    for name, options in ACTIVATIONS.items():
        scores[name], models[name] = [], []
        for seed in range(1, seeds + 1):
            model = network(WIDTHS, seed, **options)
            seen = train(model, points(seed, steps))
            scores[name].append(r2(model))
            models[name].append(model)
            frames = frames or seen
        print(f"{name:32}{text(scores[name])}", flush=True)
    return scores, models, frames


def text(scores: list[float]) -> str:
    """Return the mean, and each seed's score."""
    return f"R2 {sum(scores) / len(scores):6.3f}   ({', '.join(f'{one:.3f}' for one in scores)})"


def polynomial_r2(values: Tensor) -> list[float]:
    """Return how much of the variance of values on the grid the best polynomial of each total degree explains."""
    x, y = grid().double().numpy().T
    most = DEGREES[-1]
    products = np.polynomial.legendre.legvander2d(x, y, [most, most])
    degrees = np.add.outer(range(most + 1), range(most + 1)).ravel()
    order = np.argsort(degrees, kind="stable")[: (most + 1) * (most + 2) // 2]
    directions, _ = np.linalg.qr(products[:, order])
    wanted = values.double().flatten().numpy()
    parts = (directions.T @ (wanted - wanted.mean())) ** 2
    return [float(parts[degrees[order] <= degree].sum() / len(wanted) / wanted.var()) for degree in DEGREES]


@torch.no_grad()
def size(seeds: int) -> float:
    """Return the mean square of what the first layer makes of the grid before any training."""
    return (
        sum(float(network(WIDTHS, seed, activation="relu")[0](grid()).square().mean()) for seed in range(1, seeds + 1))
        / seeds
    )


def beyond(activation: str, q: float) -> list[float]:
    """Return the share of an activation's variance beyond Hermite polynomials of each degree, for inputs N(0, q)."""
    card = sk.card(activation)
    mean = float(card.hermite(q, 0).coefficients[0].square().mean())
    variance = card.moments(q=q).square - mean
    return [card.hermite(q, degree).rest / variance for degree in DEGREES]


def kernel(model: nn.Sequential) -> dict[str, list[float]]:
    """Return the tangent kernel's eigenvalues over the largest, and the target's share down to each."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(KERNEL_POINTS, 2, generator=generator, dtype=torch.float64) - 1
    y = waves(x)[:, 0]
    found = sk.diagnostics.ntk(copy.deepcopy(model).double(), x, samples=KERNEL_POINTS)
    values, vectors = torch.linalg.eigh(found.values)
    parts = (vectors.T @ (y - y.mean())).square().flip(0).cumsum(0)
    return {"eigenvalues": (values / values[-1]).flip(0).tolist(), "share": (parts / parts[-1]).tolist()}


def causes(models: dict[str, nn.Sequential], seeds: int) -> dict[str, Any]:
    """Measure what may explain the scores, and print it."""
    q = size(seeds)
    every = {**ACTIVATIONS, "GELU(5 x) / 5": {"activation": "gelu(5*x)/5"}}
    networks = {name: network(WIDTHS, 1, **options) for name, options in every.items()}
    early = network(WIDTHS, 1, **ACTIVATIONS["DiTAC"])
    train(early, points(1, EARLY))
    networks |= {f"DiTAC, after {EARLY} steps": early} | {
        f"{name}, trained": models[name] for name in ("DiTAC", "GELU")
    }
    found: dict[str, Any] = {
        "q": q,
        "beyond": {name: beyond(name, q) for name in ("relu", "gelu", "gelu(5*x)/5")},
        "target_r2": polynomial_r2(waves(grid())),
        "gelu_r2": polynomial_r2(models["GELU"](grid()).detach()),
        "kernels": {name: kernel(one) for name, one in networks.items()},
    }
    print(f"\nthe activation's inputs have standard deviation {math.sqrt(q):.2f} before training")
    print("\ndegree   share of the variance beyond it           R2 of the best polynomial")
    print(f"         {'ReLU':12}{'GELU':12}{'GELU(5x)/5':12}      of the target   of what GELU learned")
    for index in (degree - 1 for degree in (2, 4, 10, 12, 14, 16)):
        shares = "".join(f"{one[index]:<12.1e}" for one in found["beyond"].values())
        print(f"{DEGREES[index]:6}   {shares}{found['target_r2'][index]:16.3f}{found['gelu_r2'][index]:17.3f}")
    print("\nhalf of the target lies in directions of the tangent kernel down to this eigenvalue, the largest being 1")
    for name, one in found["kernels"].items():
        half = next(value for value, share in zip(one["eigenvalues"], one["share"], strict=True) if share >= 0.5)
        print(f"{name:32}{'rounding' if half < ROUNDING else format(half, '.1e')}")
    return found


def interventions(models: dict[str, nn.Sequential], steps: int, seeds: int) -> dict[str, Any]:
    """Change one thing at a time, train again, return the scores."""

    def again(
        name: str, activation: str = "gelu", *, rate: float = RATE, longer: int = 1, **options: Any
    ) -> list[float]:
        scores = []
        for seed in range(1, seeds + 1):
            model = network(WIDTHS, seed, activation=activation, **options)
            train(model, points(seed, longer * steps), rate=rate)
            scores.append(r2(model))
        print(f"{name:32}{text(scores)}", flush=True)
        return scores

    print()
    return {
        "sharpened": {k: again(f"GELU({k} x) / {k}", f"gelu({k}*x)/{k}") for k in SHARPNESS},
        "weights": {k: again(f"GELU, first weights x {k}", scale=k) for k in SHARPNESS[1:]},
        "relu_weights": again("ReLU, first weights x 10", "relu", scale=10),
        "trained": again("GELU(b x) / b, b trained from 1", "gelu(b*x)/b", b=1.0),
        "rates": {k: again(f"GELU, rate x {k}", rate=k * RATE) for k in (0.2, 4, 10)},
        "longer": again("GELU, 3 times the steps", longer=3),
        "frozen": frozen(models["DiTAC"], steps, seeds),
    }


def frozen(trained: nn.Sequential, steps: int, seeds: int) -> list[float]:
    """Train new weights around an activation as it was learned, return the scores."""
    scores = []
    for seed in range(11, 11 + seeds):
        model = network(WIDTHS, seed, activation="relu")
        model[1] = copy.deepcopy(trained[1]).requires_grad_(requires_grad=False)
        train(model, points(seed, steps))
        scores.append(r2(model))
    print(f"{'DiTAC as learned, new weights':32}{text(scores)}", flush=True)
    return scores


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="folder for drawings, a page of them, and results.json")
    parser.add_argument("--why", action="store_true", help="look for the cause of GELU's failure, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="60 steps and one seed, to see that it runs")
    how = parser.parse_args()
    steps, seeds = (60, 1) if how.quick else (10_000, how.seeds)
    scores, every, film = regression(steps, seeds)
    models = {name: found[0] for name, found in every.items()}
    found: dict[str, Any] = {"steps": steps, "seeds": seeds, "scores": scores}
    if how.why:
        found |= {"causes": causes(models, seeds), "interventions": interventions(models, steps, seeds)}
    if how.out is None:
        return
    import ditac_drawings as drawings

    x, y = noisy(0)
    three = {name: network((1, 3, 1), 3, **ACTIVATIONS[name]) for name in ("DiTAC", "GELU")}
    for model in three.values():
        train(model, itertools.repeat((x, y), steps // 2), rate=1e-2)
    deep = network((784, 128, 64, 32, 10), 1, **ACTIVATIONS["DiTAC"])
    layers = train(deep, garments(1, 2 if how.quick else 20, 1000 if how.quick else 10_000), F.cross_entropy, rate=1e-3)
    drawn = {
        "field": (
            drawings.field([one[1] for one in every["DiTAC"]], models["DiTAC"][0](grid()).detach(), BOUND),
            CAPTIONS["field"],
        ),
        "training": (drawings.training(AXIS, [("regression", film), ("Fashion-MNIST", layers)]), CAPTIONS["training"]),
        "order": (drawings.order(BOUND), CAPTIONS["order"]),
        "units": (drawings.units(three, x, y, bumps), CAPTIONS["units"]),
        "surface": (drawings.surface(models, scores, grid(), waves(grid())), CAPTIONS["surface"]),
    }
    if how.why:
        drawn["why"] = (drawings.why(found["causes"], found["interventions"], scores, DEGREES), CAPTIONS["why"])
    print(f"\nthe drawings are in {drawings.page(how.out, drawn, scores)}")
    (how.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
