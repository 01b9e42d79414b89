"""Engines in whole networks: training steps of ResNet-20 and of a small transformer, eager and compiled.

All variants of a table are timed in turn in one process on one thread; ratios are medians over the rounds of the ratios
within a round.

Usage: python benchmarks/engines_networks.py [SECTION ...] [--rounds 9] [--batch 128] [--keep-memory]
Sections: resnet, compiled, storms
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from engines import table
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.resnet import build_resnet20
from softknee._card.cost import interleaved, ratio
from softknee._catalogue import parse_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACTIVATIONS = (
    *("gelu", "mish", "prelu", "swish", "rational", "srelu[per_channel]", "snake[per_channel]"),
    *("staf[terms=25]", "staf[terms=25,initialization=normal]", "bspline", "linear_spline[terms=32]"),
)


def resnet20(text: str) -> nn.Module:
    """Return ResNet-20 with an activation named as on the command line."""
    generator = torch.Generator().manual_seed(0)
    return build_resnet20(lambda channels: parse_choice(text).build(channels=channels, generator=generator), seed=0)


class Block(nn.Module):
    """A transformer's block: causal attention, then a perceptron with the activation."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, length, width)` to the same shape."""
        batch, length, width = x.shape
        q, k, v = self.mix(self.norms[0](x)).view(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.activation(self.up(self.norms[1](x))))


def training_step(model: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], x: Tensor) -> Callable[[], None]:
    """Return a step of SGD on a loss times zero, so that no activation diverges over many steps.

    Every parameter is moved by a hair all the same, so that tables are built anew as in any training.
    """
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    with torch.no_grad():
        target = torch.randn_like(model(x))

    def run() -> None:
        (0 * F.mse_loss(model(x), target)).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_mul_(parameters, 1 + 1e-6)

    return run


def resnet(rounds: int, batch: int) -> None:
    """A training step of ResNet-20, against the same with torch's ReLU; the last column is the formula as written."""
    x = torch.randn(batch, 3, 32, 32)
    plain = build_resnet20(lambda _: nn.ReLU(), seed=0)
    base = training_step(plain, [*plain.parameters()], x)
    rows = []
    for text in ACTIVATIONS:
        model = resnet20(text)
        sk.calibrate_reach(model, x)
        step = training_step(model, [*model.parameters()], x)
        seconds = interleaved({"base": base, "ours": step}, repeats=rounds)
        found = ratio(seconds["ours"], seconds["base"])
        every = sorted(one / other for one, other in zip(seconds["ours"], seconds["base"], strict=True))
        with sk.engine("eager"):
            start = time.perf_counter()
            step()
            eager = time.perf_counter() - start
        slow = eager / sorted(seconds["base"])[rounds // 2]
        rows.append((text, model.activation.engine, found, f"{every[0]:.2f} to {every[-1]:.2f}", slow))
    table(("activation", "engine", f"step / ReLU's, batch {batch}", "range", "as written, one step"), rows)


def compiled(rounds: int, batch: int) -> None:
    """Compiled networks with our activation against the same with the formula written by hand."""

    class ByHand(nn.Module):
        """Swish as one would write it."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.ones(channels))

        def forward(self, x: Tensor) -> Tensor:
            """Apply it to channels in dimension 1, or in the last of three."""
            beta = self.beta.view(-1, 1, 1) if x.dim() == 4 else self.beta
            return x * torch.sigmoid(beta * x)

    def transformer(make: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*(Block(128, make()) for _ in range(2)))

    cases: dict[str, tuple[nn.Module, nn.Module, Tensor]] = {
        "ResNet-20, Swish per channel": (
            build_resnet20(ByHand, seed=0),
            resnet20("swish[per_channel]"),
            torch.randn(batch // 4, 3, 32, 32),
        ),
        "two transformer blocks, Swish": (
            transformer(lambda: ByHand(1)),
            transformer(sk.nn.Swish),
            torch.randn(16, 64, 128),
        ),
    }
    rows = []
    for name, (by_hand, ours, x) in cases.items():
        runs: dict[str, Any] = {}
        for key, model in (("by hand", by_hand), ("ours", ours)):
            torch._dynamo.reset()
            function = torch.compile(model, fullgraph=True)
            runs[key] = training_step(function, [*model.parameters()], x)
        seconds = interleaved(runs, repeats=3 * rounds)
        rows.append((name, f"{ratio(seconds['ours'], seconds['by hand']):.3f}", "<= 1.02"))
    table(("network", "ours / by hand", "target"), rows)


def storms(_: int, __: int) -> None:
    """How many kernels twenty shapes and ranks of one activation compile, for a formula seen for the first time."""
    from softknee._engine import build

    built = []
    compile_ = build._compile
    build._compile = lambda *arguments: built.append(arguments[-1]) or compile_(*arguments)
    rows = []
    for text in (f"x*sigmoid({time.time()}*b*x)[b=1]", f"tanh({time.time()}*a*x) + b*x[a=1,b=1]"):
        module = parse_choice(text).build(channels=1)
        built.clear()
        for k in range(1, 21):
            shape = (k, *[2] * (k % 5), 1024 * k)
            module(torch.randn(shape, requires_grad=True)).sum().backward()
        rows.append((text, len(built), "2 (forward, backward)"))
    build._compile = compile_
    table(("activation", "kernels compiled", "target"), rows)


SECTIONS = {f.__name__: f for f in (resnet, compiled, storms)}


def main() -> None:
    """Run the chosen sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[*SECTIONS])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--keep-memory", action="store_true", help="call softknee.keep_memory() first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.keep_memory:
        sk.keep_memory()
    warnings.filterwarnings("ignore", module="torch")
    for name in options.sections:
        print(f"## {name}: {SECTIONS[name].__doc__}\n", flush=True)
        SECTIONS[name](options.rounds, options.batch)


if __name__ == "__main__":
    main()
