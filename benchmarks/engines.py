"""Engines: time and memory of single activations against ReLU, a copy, and torch's own functions.

Everything in a table is timed in turn in one process on one thread; ratios are medians over the rounds of the ratios
within a round. Forward and backward go through autograd, with the gradients of all parameters.

Usage: python benchmarks/engines.py [SECTION ...] [--rounds 9]
Sections: speed, alternatives, builtins, layouts, overhead, memory, second
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._card.cost import cost, forward_backward, interleaved, ratio, saved_bytes
from softknee._catalogue import CATALOGUE, parse_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGE, SMALL = (128, 128, 32, 32), (128, 16, 32, 32)
# Activation, and the ratio to reach.
SUBJECTS = {
    "rational": 1.7,
    "rational[per_channel]": 1.7,
    "srelu[per_channel]": 1.7,
    "swish": 1.6,
    "pelu": 1.6,
    "snake[per_channel]": 1.6,
    "isru[trainable]": 1.6,
    "staf[terms=25]": 1.7,
    "staf[terms=25,initialization=normal]": 1.7,
    "bspline[terms=8]": 2.0,
    "bspline[terms=16]": 2.0,
    "linear_spline[terms=32]": 1.7,
    "a*sin(b*x) + c*tanh(d*x)*exp(-x**2/k) + x*sigmoid(h*x)[a=0.5,b=2,c=0.3,d=1.5,k=2,h=1]": 1.7,
    "mish": 1.6,
    "telu": 1.6,
    "gelu": 1.6,
}


def build(text: str, channels: int) -> nn.Module:
    """Return an activation named as on the command line, its drawn parameters those of seed 0."""
    return parse_choice(text).build(channels=channels, generator=torch.Generator().manual_seed(0))


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table."""
    head = list(head)
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in row)} |", flush=True)
    print()


def compare(base: Callable[[], Any], runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the ratio of each run's time to the base's."""
    seconds = interleaved({"base": base, **runs}, repeats=rounds)
    return {name: ratio(seconds[name], seconds["base"]) for name in runs}


def speed(rounds: int) -> None:
    """Our automatic choice against ReLU, on tensors of 16 Mi and of 2 Mi elements."""
    rows = []
    for text, target in SUBJECTS.items():
        large, small = (cost(text, shape=shape, engines=("auto",), repeats=rounds)[0] for shape in (LARGE, SMALL))
        rows.append((text, large.used, large.both, f"<= {target}", large.forward_to_relu, large.forward, small.both))
    names = ("activation", "engine", "f+b / ReLU", "target", "forward / ReLU", "forward / copy", "f+b / ReLU at 2 Mi")
    table(names, rows)


def alternatives(rounds: int) -> None:
    """The formula as written, and compiled alone, against ReLU, on 2 Mi elements (256 Ki for the expensive ones)."""
    rows = []
    for text in SUBJECTS:
        module = build(text, SMALL[1])
        expensive = module.engine == "table"
        x = torch.randn(16 if expensive else 128, *SMALL[1:])
        torch._dynamo.reset()
        compiled = torch.compile(partial(_as_written, module), fullgraph=True, dynamic=False)
        runs = {
            "eager": forward_backward(module, x, "eager"),
            "compiled": _with_parameters(compiled, module, x),
            "ours": forward_backward(module, x),
        }
        found = compare(forward_backward(F.relu, x), runs, min(rounds, 5) if expensive else rounds)
        rows.append((text, *found.values(), saved_bytes(module, x, "eager"), saved_bytes(module, x)))
    table(("activation", "eager", "compiled alone", "ours", "saved B eager", "saved B ours"), rows)


def _as_written(module: Any, x: Tensor) -> Tensor:
    plan = module._plans[0]
    return plan.eager(x, module._values(), module.channel_dim if plan.per_channel else None)


def _with_parameters(function: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Callable[[], None]:
    x = x.detach().requires_grad_()
    g = torch.randn_like(x)

    def run() -> None:
        torch.autograd.backward(function(x), g)
        for tensor in (x, *module.parameters()):
            tensor.grad = None

    return run


def builtins(rounds: int) -> None:
    """Ours against torch's own functions, 16 Mi elements."""
    x = torch.randn(LARGE)
    pairs: dict[str, tuple[Any, Any, float]] = {
        "Mish, f+b": (nn.Mish(), sk.nn.Mish(), 0.5),
        "PReLU, f+b": (nn.PReLU(), sk.nn.PReLU(), 0.5),
        "PReLU per channel, f+b": (nn.PReLU(LARGE[1]), sk.nn.PReLU(per_channel=LARGE[1]), 0.5),
        "Softsign, f+b": (nn.Softsign(), sk.nn.Softsign(), 0.35),
        "Tanh, f+b": (nn.Tanh(), sk.nn.Tanh(), 1.0),
        "ELU, f+b": (nn.ELU(), sk.nn.ELU(), 1.0),
        "Softplus, f+b": (nn.Softplus(), sk.nn.Softplus(), 1.0),
        "GELU, f+b": (nn.GELU(), sk.nn.GELU(), 1.0),
    }
    rows = []
    for name, (theirs, ours, target) in pairs.items():
        found = compare(forward_backward(theirs, x), {"ours": forward_backward(ours, x)}, rounds)["ours"]
        rows.append((name, found, f"<= {target}"))
    forward = {"ours": partial(sk.nn.RReLU(), x)}
    with torch.no_grad():
        rows.append(("RReLU in training, forward", compare(partial(nn.RReLU(), x), forward, rounds)["ours"], "<= 0.35"))
        softsign = compare(partial(nn.Softsign(), x), {"ours": partial(sk.nn.Softsign(), x)}, rounds)["ours"]
        rows.append(("Softsign, forward", softsign, ""))
    table(("function", "ours / torch's own", "target"), rows)


def layouts(rounds: int) -> None:
    """Backward where input and gradient have different layouts, against one layout, 16 Mi elements."""
    formats = (torch.channels_last, torch.contiguous_format)
    rows = []
    for text in ("relu", "gelu", "silu", "mish", "swish", "srelu[per_channel]", "staf[terms=25]"):
        module = build(text, LARGE[1])
        found = []
        for ours, other in (formats, formats[::-1]):
            x = torch.randn(LARGE).to(memory_format=ours).requires_grad_()
            y = module(x)
            same, mixed = (torch.randn(x.shape).to(memory_format=layout) for layout in (ours, other))
            backward = partial(torch.autograd.grad, y, [x, *module.parameters()], retain_graph=True)
            found.append(compare(partial(backward, same), {"mixed": partial(backward, mixed)}, rounds)["mixed"])
        rows.append((text, *found, "<= 1.6"))
    table(("activation", "x channels_last, g contiguous", "x contiguous, g channels_last", "target"), rows)


def overhead(rounds: int) -> None:
    """The whole catalogue on 64 elements, forward and backward, against ReLU as a module."""
    x, rows = torch.randn(8, 8), []
    for spec in CATALOGUE:
        module = build(spec.name, 8).eval()
        runs = {"ours": forward_backward(module, x)}
        theirs = getattr(nn, spec.title, None) if spec.builtin else None
        if theirs is not None:
            runs["torch"] = forward_backward(theirs(), x)
        found = compare(forward_backward(nn.ReLU(), x), runs, 5 * rounds)
        with sk.engine("auto"):
            used = module.engine_for(x)
        rows.append((spec.name, used, found["ours"], found["ours"] / found["torch"] if theirs else ""))
    rows.sort(key=lambda row: -row[2])
    table(("activation", "engine", "ours / nn.ReLU", "ours / torch's own"), rows)


def memory(_: int) -> None:
    """Bytes kept for the backward pass for each element, float32 and bfloat16, whole catalogue."""
    rows = []
    for spec in CATALOGUE:
        for text in (spec.name, f"{spec.name}[per_channel]") if spec.parameters else (spec.name,):
            module = build(text, 64)
            x = torch.randn(16, 64, 16, 16)
            rows.append(
                (text, saved_bytes(module, x, "eager"), saved_bytes(module, x), saved_bytes(module, x.bfloat16()))
            )
    worst = [max(row[k] for row in rows) for k in (1, 2, 3)]
    table(("activation", "eager", "auto", "auto, bfloat16"), [*rows, ("largest", *worst)])


def second(rounds: int) -> None:
    """The gradient of a gradient penalty (second derivatives) against the formula as written, 2 Mi elements."""
    rows = []
    for text in ("swish", "mish", "tanh", "snake", "isru[trainable]", "rational", "a*sin(b*x)[a=1,b=2]"):
        module = build(text, SMALL[1])
        runs = {how: _penalty(module, torch.randn(SMALL), how) for how in ("eager", "auto")}
        rows.append((text, compare(runs["eager"], {"ours": runs["auto"]}, rounds)["ours"], "<= 1"))
    table(("activation", "ours / eager", "target"), rows)


def _penalty(module: nn.Module, x: Tensor, how: str) -> Callable[[], None]:
    x = x.requires_grad_()
    g = torch.randn_like(x)

    def run() -> None:
        with sk.engine(how):
            (slope,) = torch.autograd.grad(module(x), x, g, create_graph=True)
            torch.autograd.grad(slope.square().sum(), [x, *module.parameters()], allow_unused=True)

    return run


SECTIONS = {f.__name__: f for f in (speed, alternatives, builtins, layouts, overhead, memory, second)}


def main() -> None:
    """Run the chosen sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[*SECTIONS])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", module="torch")
    for name in options.sections:
        print(f"## {name}: {SECTIONS[name].__doc__}\n", flush=True)
        SECTIONS[name](options.rounds)


if __name__ == "__main__":
    main()
