"""DiTAC against GELU: time, memory and accuracy of the figures to reach.

Everything in a row is timed in turn in one process on one thread; ratios are medians over the rounds of the ratios
within a round. Forward and backward go through autograd, with all gradients. Velocities are drawn as the published code
draws them ("default scale"), and move a little before every run, as an optimizer moves them: each run builds its table
anew.
Memory is the growth of the resident set in a fresh process. Errors are against float64 as it is written.

Usage: python benchmarks/ditac.py [--shape 64x256x16x16] [--rounds 9] [--skip-network]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from engines_networks import training_step
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.model import build_model
from softknee._bench.protocols import get_protocol
from softknee._bench.resnet import build_resnet20
from softknee._card.cost import interleaved, ratio
from softknee._catalogue import parse_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = Callable[[], Any]

# What the published code needs, on another machine of this kind; see the tables' text.
PUBLISHED = {"forward": "28", "forward + backward": "46", "small": "10", "memory": "16"}
DRAWS = 5
# What the protocols compare.
AGAINST = (
    *("ditac[low=-3,high=3,initialization=smooth]", "gelu", "silu", "mish", "prelu", "swish", "rational", "srelu"),
    *("staf", "pdelu", "acon_c", "maxout"),
)
# Elements evaluated at once in float64 under autograd, which keeps every step.
CHUNK = 2**17
MOVE = 1e-4


def ditac(seed: int = 0, channels: int | None = None, **options: Any) -> nn.Module:
    """Return a DiTAC at the default scale."""
    module = sk.nn.DiTAC(initialization="smooth", generator=torch.Generator().manual_seed(seed), **options)
    if channels is None:
        return module
    velocities = [ditac(seed + k, **options).velocities.detach() for k in range(channels)]
    return sk.nn.DiTAC(velocities=torch.stack(velocities, 1), per_channel=channels, **options)


def moved(module: nn.Module, step: Run) -> Run:
    """Return a run that begins with a small change of the parameters, back and forth."""
    sign = [1.0]

    def run() -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(sign[0] * MOVE)
        sign[0] = -sign[0]
        step()

    return run


def forward(module: Callable[[Tensor], Tensor], x: Tensor) -> Run:
    """Return what runs it without gradients."""

    def run() -> None:
        with torch.no_grad():
            module(x)

    return run


def both(module: Callable[[Tensor], Tensor], x: Tensor) -> Run:
    """Return what runs it forward and backward."""
    leaf, g = x.detach().clone().requires_grad_(), torch.randn_like(x)

    def run() -> None:
        module(leaf).backward(g)
        leaf.grad = None

    return run


def compared(base: Run, runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Return the ratio of each run to the base."""
    seconds = interleaved({"base": base, **runs}, repeats=rounds)
    return {name: ratio(seconds[name], seconds["base"]) for name in runs}


def speed(shape: tuple[int, ...], rounds: int) -> list[tuple[str, str, float, str]]:
    """Return rows: what, what the published code needs, what ours does, the target; all relative to GELU."""
    x = torch.randn(shape)
    small, many = torch.randn(128, 64), ditac(channels=shape[1])
    shared = ditac()
    channelwise = compared(both(F.gelu, x), {"run": moved(many, both(many, x))}, rounds)["run"]
    forwards, backwards = (
        compared(way(F.gelu, x), {"new": moved(shared, way(shared, x)), "old": way(shared, x)}, rounds)
        for way in (forward, both)
    )
    smalls = compared(both(F.gelu, small), {"run": moved(shared, both(shared, small))}, 20 * rounds)
    half = x.bfloat16()
    halves = compared(both(F.gelu, half), {"run": moved(shared, both(shared, half))}, rounds)
    return [
        ("forward, table ready (inference)", PUBLISHED["forward"], forwards["old"], "<= 2.0"),
        ("forward, table built anew", PUBLISHED["forward"], forwards["new"], "<= 2.0"),
        ("forward + backward, table ready", PUBLISHED["forward + backward"], backwards["old"], "<= 2.2"),
        ("forward + backward, table built anew", PUBLISHED["forward + backward"], backwards["new"], "<= 2.2"),
        ("the same in bfloat16", "", halves["run"], ""),
        (f"per channel ({shape[1]}), forward + backward", "", channelwise, "<= 4"),
        ("(128, 64), forward + backward", PUBLISHED["small"], smalls["run"], "<= 3"),
    ]


def network(rounds: int, batch: int) -> float:
    """Return the time of a training step of ResNet-20 relative to that with GELU, one DiTAC a site."""
    x = torch.randn(batch, 3, 32, 32)
    steps = {}
    for name, make in {"gelu": nn.GELU, "ditac": ditac}.items():
        model = build_resnet20(lambda _, make=make: make(), seed=0)
        steps[name] = training_step(model, [*model.parameters()], x)
    seconds = interleaved(steps, repeats=rounds)
    return ratio(seconds["ditac"], seconds["gelu"])


def steps(rounds: int) -> list[tuple[str, ...]]:
    """Return rows: an activation, and the time of a training step in the models of two protocols relative to ReLU."""
    cells: dict[str, list[str]] = {text: [text] for text in AGAINST}
    for name in ("regression-2d", "fashion-mlp"):
        recipe = get_protocol(name).recipe
        x = torch.randn(recipe.batch_size, recipe.widths[0])
        runs = {}
        for text in ("relu", *AGAINST):
            model = build_model(recipe, parse_choice(text), seed=0)
            runs[text] = training_step(model, [*model.parameters()], x)
        seconds = interleaved(runs, repeats=20 * rounds)
        for text in AGAINST:
            cells[text].append(f"{ratio(seconds[text], seconds['relu']):.2f}")
    return [tuple(row) for row in cells.values()]


def errors(shape: tuple[int, ...], draws: int) -> dict[str, float]:
    """Return the errors against float64 over a tensor of that shape, the worst of some draws."""
    worst = {"y": 0.0, "slope": 0.0, "gradient": 0.0}
    for seed in range(draws):
        module = ditac(seed)
        x, g = torch.randn(shape), torch.randn(shape)
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        y.backward(g)
        exact, off, squares = module.velocities.detach().double().requires_grad_(), 0.0, 0.0
        for part, upstream, value, slope in zip(
            *(one.flatten().split(CHUNK) for one in (x, g, y.detach(), leaf.grad)), strict=True
        ):
            at = part.double().requires_grad_()
            reference = sk.functional.ditac(at, exact)
            reference.backward(upstream.double())
            off = max(off, float((value - reference.detach()).abs().max()))
            squares += float((slope / upstream.double() - at.grad / upstream.double()).square().sum())
        found = {
            "y": off,
            "slope": (squares / x.numel()) ** 0.5,
            "gradient": float((module.velocities.grad - exact.grad).norm() / exact.grad.norm()),
        }
        worst = {name: max(worst[name], value) for name, value in found.items()}
    return worst


def peak(what: str, shape: str) -> float:
    """Return by how many MiB a fresh process grows in one forward and backward pass."""
    return float(
        subprocess.run(
            [sys.executable, __file__, "--peak", what, "--shape", shape], capture_output=True, text=True, check=True
        ).stdout
    )


def _measure_peak(what: str, shape: tuple[int, ...]) -> None:
    module = F.gelu if what == "gelu" else ditac()
    both(module, torch.randn(2**17))()
    x, g = torch.randn(shape, requires_grad=True), torch.randn(shape)
    # Starts the high-water mark anew (Linux).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _high_water()
    module(x).backward(g)
    print(_high_water() - before)


def _high_water() -> float:
    """Return the largest resident set so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64x256x16x16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--skip-network", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = tuple(map(int, options.shape.split("x")))
    if options.peak:
        _measure_peak(options.peak, shape)
        return
    rows = [(what, old, f"{new:.2f}", wanted) for what, old, new, wanted in speed(shape, options.rounds)]
    memory = peak("ditac", options.shape) / peak("gelu", options.shape)
    rows.append(("peak extra memory, forward + backward", PUBLISHED["memory"], f"{memory:.2f}", "<= 1.1"))
    if not options.skip_network:
        rows.append(("ResNet-20 training step", "", f"{network(options.rounds, options.batch):.2f}", "<= 1.15"))
    print("| relative to GELU | published code | softknee | target |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print("\n| training step / ReLU's | regression-2d | fashion-mlp |\n|---|---|---|")
    for row in steps(options.rounds):
        print(f"| {' | '.join(row)} |")
    found = errors(shape, DRAWS)
    print(f"\n| worst of {DRAWS} draws | published code | softknee | target |\n|---|---|---|---|")
    print(f"| largest error of y | 1.4e-3 | {found['y']:.1e} | <= 3e-6 |")
    print(f"| rms error of dy/dx | 2.5e-4 | {found['slope']:.1e} | <= 2e-5 |")
    print(f"| relative error of the gradient of the velocities | 8.0 | {found['gradient']:.1e} | <= 1e-4 |")


if __name__ == "__main__":
    main()
