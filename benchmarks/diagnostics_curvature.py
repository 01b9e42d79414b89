"""Curvature beside PyHessian, hessian-eigenthings and curvlinops, and what a product with the Hessian costs.

Spectral density: 50 steps of Lanczos' method from 2 start vectors, for a network of 10,015 parameters on 1,797 samples
of 64 features in 10 classes, after 300 steps of training; one thread, float32, rounds interleaved in one process, as
one batch and in batches of 256, the last of which has 5. The ends are compared with those of Lanczos' method in float64
until both residuals are below 1e-6 of the largest eigenvalue.

The other libraries are measured where they can be imported, `PYTHONPATH` showing where they are; without them the table
says so. What it takes to run them with a current torch:

- PyHessian 0.1, the last release, calls `torch.eig`, which torch no longer has. It is put in for the time of the call
  as `torch.linalg.eigh` of the same matrix, which favours PyHessian: the matrix is symmetric. One batch of all samples,
  which is the variant that keeps the graph. Its own smoothing of nodes to a density is a script outside of the package
  and is not timed.
- hessian-eigenthings 1.0.0a5 and curvlinops-for-pytorch 3.0.1 run as they are, installed without their dependencies
  but with `einops`, `einconv`, `linear_operator`, `jaxtyping` and `wadler_lindig` for the latter, whose method does not
  orthogonalize. Of curvlinops the nodes and weights are timed, without the density and the search for its boundaries.

Usage: python benchmarks/diagnostics_curvature.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from engines import table
from torch import Tensor, nn
from torch.nn import functional as F

from softknee._bench.resnet import build_resnet20
from softknee._card.cost import interleaved, ratio
from softknee._diagnose.curvature.density import spectrum
from softknee._diagnose.curvature.hessian import hessian
from softknee._diagnose.curvature.lanczos import lanczos
from softknee._diagnose.curvature.spectra import ends, hessian_spectrum, krylov_runs
from softknee._diagnose.curvature.trace import signs
from softknee._diagnose.task import task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES, FEATURES, CLASSES, WIDTH = 1797, 64, 10, 69
STEPS, PROBES = 50, 2
BATCH = 256

Ends = tuple[float, float]


def digits() -> tuple[Tensor, Tensor]:
    """Return samples around 10 means."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(SAMPLES) % CLASSES
    means = torch.randn(CLASSES, FEATURES, generator=generator)
    return means[y] + 1.5 * torch.randn(SAMPLES, FEATURES, generator=generator), y


def perceptron() -> nn.Module:
    """Return a network of 10,015 parameters."""
    layers = [nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)]
    return nn.Sequential(*layers)


def trained(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Train a network, so that its Hessian looks like one."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(300):
        start = step * 128 % (SAMPLES - 128)
        optimizer.zero_grad()
        F.cross_entropy(model(x[start : start + 128]), y[start : start + 128]).backward()
        optimizer.step()
    return model.eval().requires_grad_()


def whole(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return all samples as one batch."""
    return [(x, y)]


def batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return all samples in batches."""
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def softknee(model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> Ends:
    """Measure ours: nodes, weights, density and its band."""
    found = hessian_spectrum(model, loader, "cross_entropy", samples=SAMPLES, steps=STEPS, probes=PROBES)
    return min(nodes[0] for nodes in found.nodes), max(nodes[-1] for nodes in found.nodes)


@contextlib.contextmanager
def old_eig() -> Iterator[None]:
    """Put in what PyHessian calls."""

    def eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    before = getattr(torch, "eig", None)
    torch.eig = eig  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if before is None:
            del torch.eig  # type: ignore[attr-defined]
        else:
            torch.eig = before  # type: ignore[attr-defined]


def pyhessian(library: Any, model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> Ends:
    """Measure PyHessian: nodes and weights; it leaves gradients with graphs, which are dropped."""
    data = {"data": loader[0]} if len(loader) == 1 else {"dataloader": loader}
    with old_eig():
        nodes, _ = library.hessian(model, nn.CrossEntropyLoss(), cuda=False, **data).density(iter=STEPS, n_v=PROBES)
    model.zero_grad()
    return min(map(min, nodes)), max(map(max, nodes))


def eigenthings(library: Any, model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> Ends:
    """Measure hessian-eigenthings: nodes, weights and density."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    operator = library.operators.HessianOperator(model, loader, loss)
    found = library.algorithms.spectral_density(operator, num_runs=PROBES, lanczos_steps=STEPS, seed=0)
    model.zero_grad()
    nodes = found.raw_eigenvalues[~found.raw_eigenvalues.isnan()]
    return float(nodes.min()), float(nodes.max())


def curvlinops(library: Any, model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> Ends:
    """Measure curvlinops: nodes and weights, without orthogonalization."""
    parameters = list(model.parameters())
    operator = library.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, loader, check_deterministic=False
    )
    fast_lanczos = importlib.import_module("curvlinops.papyan2020traces.spectrum").fast_lanczos
    found = [fast_lanczos(operator, STEPS)[0] for _ in range(PROBES)]
    return min(float(nodes.min()) for nodes in found), max(float(nodes.max()) for nodes in found)


OTHERS: dict[str, tuple[str, Callable[[Any, nn.Module, list[tuple[Tensor, Tensor]]], Ends]]] = {
    "PyHessian 0.1": ("pyhessian", pyhessian),
    "hessian-eigenthings 1.0.0a5": ("hessian_eigenthings", eigenthings),
    "curvlinops 3.0.1": ("curvlinops", curvlinops),
}


def reference(model: nn.Module, x: Tensor, y: Tensor) -> Ends:
    """Return both ends by many steps in float64."""
    double = perceptron().double()
    double.load_state_dict(model.state_dict())
    with hessian(task(double, whole(x.double(), y), "cross_entropy", samples=SAMPLES)) as operator:
        start = signs(operator.size, seed=5, probe=0, like=operator.zeros())
        run = lanczos(operator, start, steps=400, tolerance=1e-6)
    return float(run.nodes[0]), float(run.nodes[-1])


def density(rounds: int) -> None:
    """Print the table of spectral densities."""
    x, y = digits()
    torch.manual_seed(0)
    model = trained(perceptron(), x, y)
    exact = reference(model, x, y)
    print(f"{sum(one.numel() for one in model.parameters())} parameters; ends {exact[0]:.6f} and {exact[1]:.6f}\n")
    measured: dict[str, Callable[[], Ends]] = {
        "softknee": lambda: softknee(model, whole(x, y)),
        f"softknee, batches of {BATCH}": lambda: softknee(model, batches(x, y)),
    }
    missing = []
    for name, (module, measure) in OTHERS.items():
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            missing.append((name, f"not installed ({error})", "", "", ""))
            continue
        measured[name] = lambda library=library, measure=measure: measure(library, model, whole(x, y))
        measured[f"{name}, batches of {BATCH}"] = lambda library=library, measure=measure: measure(
            library, model, batches(x, y)
        )
    found = {name: run() for name, run in measured.items()}
    seconds = interleaved(measured, repeats=rounds)
    rows = [
        (
            name,
            f"{statistics.median(seconds[name]):.3f}",
            ratio(seconds[name], seconds["softknee"]),
            *(f"{abs(one - right) / exact[1]:.0e}" for one, right in zip(found[name], exact, strict=True)),
        )
        for name in measured
    ]
    table(("library", "seconds", "/ softknee", "bottom off by (share of top)", "top off by"), [*rows, *missing])


class Transformer(nn.Module):
    """Two encoder layers over 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 16, 32)` to `(batch, 10)`."""
        return self.last(self.encoder(x).mean(1))


def convolutional() -> nn.Module:
    """Return three convolutions and a layer."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 32, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(288, CLASSES))


def costs(rounds: int) -> None:
    """Print what products cost, in forward and backward passes."""
    torch.manual_seed(0)
    cases: dict[str, tuple[nn.Module, Tensor]] = {
        "MLP, 10,015 parameters": (perceptron(), digits()[0]),
        "convolutions on 16x16": (convolutional(), torch.randn(128, 3, 16, 16)),
        "ResNet-20 on 32x32, eval": (build_resnet20(lambda _: nn.ReLU(), seed=0), torch.randn(16, 3, 32, 32)),
        "transformer": (Transformer(), torch.randn(128, 16, 32)),
    }
    rows = []
    for name, (model, x) in cases.items():
        model.eval()
        y = torch.arange(len(x)) % CLASSES

        def forward_backward(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))

        measured = task(model, whole(x, y), "cross_entropy", samples=len(x))
        with hessian(measured) as kept, hessian(measured, limit=0) as anew:
            v = signs(kept.size, seed=0, probe=0, like=kept.zeros())
            seconds = interleaved(
                {"base": forward_backward, "kept": partial(kept, v), "anew": partial(anew, v)}, repeats=rounds
            )
        rows.append((name, *(ratio(seconds[one], seconds["base"]) for one in ("kept", "anew"))))
    table(("network", "product / forward and backward, graph kept", "graph made anew"), rows)


def shares(rounds: int) -> None:
    """Print where the time of a spectral density goes."""
    x, y = digits()
    torch.manual_seed(0)
    model = trained(perceptron(), x, y)
    with hessian(task(model, whole(x, y), "cross_entropy", samples=SAMPLES)) as operator:
        v = signs(operator.size, seed=0, probe=0, like=operator.zeros())
        runs = krylov_runs(operator, steps=STEPS, probes=PROBES, seed=0)
        seconds = interleaved(
            {
                "100 products": lambda: [operator(v) for _ in range(STEPS * PROBES)],
                "Lanczos' method with them": lambda: ends(krylov_runs(operator, steps=STEPS, probes=PROBES, seed=0)),
                "smoothing": lambda: spectrum(runs),
            },
            repeats=rounds,
        )
    table(("part", "seconds"), [(name, f"{statistics.median(one):.4f}") for name, one in seconds.items()])


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    how = parser.parse_args()
    torch.set_num_threads(1)
    # PyHessian's backward passes keep their graphs, of which torch warns.
    warnings.filterwarnings("ignore", message="Using backward")
    costs(4 * how.rounds)
    shares(how.rounds)
    density(how.rounds)


if __name__ == "__main__":
    main()
