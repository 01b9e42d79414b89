"""Search: what a step of a gradient search costs in a network, its memory, and how right its gradients are.

Times are taken in turn in one process on one thread, on ResNet-20 with the full GRAFS cell of 110 slots at 19 sites;
ratios are medians over the rounds of the ratios to a plain ReLU step within a round. Memory is by how much a fresh
process grows in a step. `benchmarks/search_enumeration.py` measures the enumeration.

Usage: python benchmarks/search.py [--rounds 15] [--batch 128] [--released] [--keep-memory]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from engines import table
from torch import nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.resnet import build_resnet20
from softknee._card.cost import interleaved, ratio
from softknee._search.mixture import Mixture, RelaxedSite
from softknee._search.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], Any]

# Of a plain ReLU step, as GRAFS was released (shared/specs of the field: measured there on one core).
RELEASED = {"bi-level": ">= 26.5", "single pass": ">= 13", "growth": "~2", "memory": "20"}
# Batch of the comparison with the exact cell, whose every operation is kept for the backward pass.
FEW = 4
UNTABLED = 16
SEEDS, LEFT = 9, (110, 50, 12)


class Network:
    """ResNet-20 with a mixture at every site, or with ReLU, and a batch of random images.

    Args:
        batch: Images.
        mixture: None for ReLU.
    """

    def __init__(self, batch: int, mixture: Mixture | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, 32, 32, generator=generator)
        self.labels = torch.randint(10, (batch,), generator=generator)
        self.mixture = mixture
        self.model = build_resnet20(lambda _: nn.ReLU() if mixture is None else mixture.site(), seed=0)
        self.architecture = [] if mixture is None else mixture.architecture_parameters()
        ours = set(map(id, self.architecture))
        self.weights = [one for one in self.model.parameters() if id(one) not in ours]

    def loss(self) -> torch.Tensor:
        """Return the loss on the batch."""
        return F.cross_entropy(self.model(self.images), self.labels)

    def single(self) -> None:
        """Find the gradients of all parameters."""
        if self.mixture is not None:
            self.mixture.requires_grad_(True)
        self.loss().backward()
        self.model.zero_grad()

    def bilevel(self) -> None:
        """Find those of the weights of operations, then those of the network's, as a search does."""
        assert self.mixture is not None
        self.mixture.requires_grad_(True)
        torch.autograd.grad(self.loss(), self.architecture)
        self.mixture.requires_grad_(False)
        torch.autograd.grad(self.loss(), self.weights)

    def written(self, step: Step) -> Step:
        """Return a step that evaluates the cell itself at every element."""

        def run() -> None:
            with sk.engine("eager"):
                step()

        return run


def doubled() -> Space:
    """Return the space of GRAFS with every operation in it twice."""
    space = Space()
    return Space(
        unary=(*space.unary, *(replace(one, name=f"{one.name}_again") for one in space.unary)),
        binary=(*space.binary, *(replace(one, name=f"{one.name}_again") for one in space.binary)),
    )


def speed(batch: int, rounds: int) -> list[tuple[str, str, float, str]]:
    """Return rows of steps, over a plain ReLU step."""
    mixed, twice = Network(batch, Mixture()), Network(batch, Mixture(doubled()))
    steps = {
        "relu": Network(batch).single,
        "bi-level": mixed.bilevel,
        "single pass": mixed.single,
        "bi-level, twice the operations": twice.bilevel,
        "single pass, twice the operations": twice.single,
    }
    seconds = interleaved(steps, repeats=rounds)
    growth = ratio(seconds["single pass, twice the operations"], seconds["single pass"])
    growth_bilevel = ratio(seconds["bi-level, twice the operations"], seconds["bi-level"])
    return [
        ("search step, bi-level", RELEASED["bi-level"], ratio(seconds["bi-level"], seconds["relu"]), "<= 2.2"),
        (
            "search step, single pass",
            RELEASED["single pass"],
            ratio(seconds["single pass"], seconds["relu"]),
            "<= 1.25",
        ),
        ("single pass, operations doubled / not", RELEASED["growth"], growth, "<= 1.08"),
        ("bi-level, operations doubled / not", RELEASED["growth"], growth_bilevel, "<= 1.08"),
    ]


def released() -> list[tuple[str, str, float, str]]:
    """Return a row of the cell evaluated at every element, on few images for its memory."""
    mixed = Network(UNTABLED, Mixture())
    steps = {"relu": Network(UNTABLED).single, "cell": mixed.written(mixed.single)}
    seconds = interleaved(steps, repeats=3)
    what = f"single pass, the cell itself at every element, batch {UNTABLED}"
    return [(what, RELEASED["single pass"], ratio(seconds["cell"], seconds["relu"]), "")]


def gradient() -> list[tuple[str, str, str]]:
    """Return relative errors of the gradient of the mixture's parameters: one cell that learns GELU, and ResNet-20.

    For ResNet-20, what goes into each site and what comes back are those of the exact network at its start.
    """
    rows = []
    for left in LEFT:
        found = ([_error_of_a_cell(seed, left) for seed in range(SEEDS)], [_error_in_resnet(s, left) for s in range(2)])
        alone, network = (f"{median(one):.1e} ({max(one):.1e})" for one in found)
        rows.append((f"{left} of 110 slots left", alone, network))
    return rows


def _mixture(seed: int, left: int) -> Mixture:
    """Return a mixture that has shrunk, at random."""
    mixture, generator = Mixture(seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in (mixture.unary_alpha, mixture.binary_alpha):
            one.add_(torch.randn(one.shape, generator=generator) * (left < mixture.space.slots))
    mixture.shrink(mixture.space.slots - left)
    return mixture


def _error_of_a_cell(seed: int, left: int) -> float:
    mixture = _mixture(seed, left)
    mixture.site()
    x = torch.randn(2**17, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), sk.engine("eager"):
        mixture.draws = 0
        coming = 2 * (mixture.at(0, x) - F.gelu(x)) / len(x)
    mixture.draws = 0
    return _error(mixture, {0: [x, coming]})


def _error(mixture: Mixture, seen: dict[int, list[torch.Tensor]]) -> float:
    exact, ours = (_gradients(mixture, seen, name) for name in ("eager", "table"))
    return float((exact - ours).norm() / exact.norm())


def _error_in_resnet(seed: int, left: int) -> float:
    mixture = _mixture(seed, left)
    network = Network(FEW, mixture)
    seen: dict[int, list[torch.Tensor]] = {}

    def keep(site: Any, inputs: Any, output: torch.Tensor) -> None:
        pair = seen[site.number] = [inputs[0].detach()]
        output.register_hook(lambda g: pair.append(g.detach()))

    hooks = [one.register_forward_hook(keep) for one in network.model.modules() if isinstance(one, RelaxedSite)]
    with sk.engine("eager"):
        network.loss().backward()
    for hook in hooks:
        hook.remove()
    return _error(mixture, seen)


def _gradients(mixture: Mixture, seen: dict[int, list[torch.Tensor]], engine: str) -> torch.Tensor:
    """Return the gradient of the mixture's parameters from all sites, always by the same samples."""
    mixture.draws = 0
    mixture.sample()
    with sk.engine(engine):
        outputs = [mixture.at(site, x) for site, (x, _) in seen.items()]
    coming = [g for _, g in seen.values()]
    found = torch.autograd.grad(outputs, mixture.architecture_parameters(), coming, materialize_grads=True)
    return torch.cat([one.flatten().double() for one in found])


def peak(what: str, batch: int) -> float:
    """Return by how many MiB a fresh process grows in a step."""
    command = [sys.executable, __file__, "--peak", what, "--batch", str(batch)]
    # Otherwise the C library keeps freed memory of unlucky sizes, more of it from time to time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def _measure_peak(what: str, batch: int) -> None:
    def step_of(images: int) -> Step:
        network = Network(images, None if what == "relu" else Mixture())
        return network.bilevel if what == "bi-level" else network.single

    step_of(2)()
    step = step_of(batch)
    # Starts the high-water mark anew (Linux).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _high_water()
    step()
    print(_high_water() - before)


def _high_water() -> float:
    """Return the largest resident set so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--released", action="store_true", help="time the cell itself too")
    parser.add_argument("--keep-memory", action="store_true", help="call softknee.keep_memory() first")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        _measure_peak(options.peak, options.batch)
        return
    if options.keep_memory:
        sk.keep_memory()
    rows = speed(options.batch, options.rounds)
    plain = peak("relu", options.batch)
    rows += [
        (f"peak memory, {what}", RELEASED["memory"], peak(what, options.batch) / plain, "<= 1.4")
        for what in ("bi-level", "single pass")
    ]
    if options.released:
        rows += released()
    table(("over a plain ReLU step", "as released", "softknee", "target"), rows)
    print(f"| relative error of the mixture's gradient, median of {SEEDS} (worst) | one cell learns GELU | ResNet-20 |")
    print("|---|---|---|")
    for row in gradient():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
