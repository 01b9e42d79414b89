"""Swaps in eight models: what is found and changed, how far outputs move, whether the result trains and exports, times.

Each model has random weights and is small; its activations are replaced by trainable ones that begin as the functions
they replace. Differences are largest absolute ones. Times are medians over repetitions, in seconds.

Usage: python benchmarks/surgery.py [--repetitions 5] [--no-onnx]
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import statistics
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from engines import table
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.mobilenet import build_mobilenet_v2
from softknee._bench.resnet import build_resnet20
from softknee._bench.vgg import build_vgg16_bn

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"
HEADINGS = (
    *("model", "what is put in", "sites", "changed", "left", "not seen", "error of fit", "outputs moved by"),
    *("trained in a step", "ONNX error", "`sites`", "`swap`"),
)
ERF = "x * (1 + erf(b*x)) / 2[b=0.7]"
TANH = "x * (1 + tanh(a*x + b*x**3)) / 2[a=0.8,b=0.04]"
LAYERS = 100


class Functional(nn.Module):
    """A small network that calls its activations as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 16)` to `(batch, 4)`."""
        x = F.relu(self.first(x))
        x = self.second(x).relu()
        gate = self.second(x)
        return self.last(gate * torch.sigmoid(gate))


class Deep(nn.Module):
    """Many layers, each with a module and a function."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(layers)])
        self.activations = nn.ModuleList([nn.GELU() for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 64)` to the same shape."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = x + activation(F.relu(layer(x)))
        return x


def models() -> dict[str, tuple[Callable[[], nn.Module], Any, str, dict[str, Any]]]:
    """Return how to build each model, an example of its inputs, what to put in, and further options of the swap."""
    import transformers as hf

    hf.logging.set_verbosity_error()
    size = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    tokens = {"input_ids": torch.randint(0, 100, (2, 16))}
    images = torch.randn(4, 3, 32, 32)
    special = {"vocab_size": 100, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    channels = {"per_channel": True}
    return {
        "BERT": (
            lambda: hf.BertForSequenceClassification(hf.BertConfig(**size, **special)),
            tokens,
            ERF,
            {"where": "gelu"},
        ),
        "GPT-2": (
            lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=64, n_layer=4, n_head=4, **special)),
            *(tokens, TANH, {}),
        ),
        "Llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**size, **special)), tokens, "swish", channels),
        "ViT": (
            lambda: hf.ViTForImageClassification(hf.ViTConfig(**size, image_size=32, patch_size=8)),
            *({"pixel_values": images}, ERF, channels),
        ),
        "ResNet-20": (lambda: build_resnet20(lambda _: nn.ReLU(), seed=0), images, "prelu", channels),
        "VGG-16-BN": (lambda: build_vgg16_bn(lambda _: nn.ReLU(), seed=0), images, "prelu", channels),
        "MobileNetV2": (lambda: build_mobilenet_v2(lambda _: nn.ReLU6(), seed=0), images, "srelu", channels),
        "`F.relu`, `x * sigmoid(x)`": (Functional, torch.randn(4, 16), "prelu", {"where": "relu"}),
        "GPT-2, rational": (
            lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=64, n_layer=4, n_head=4, **special)),
            *(tokens, "rational", {}),
        ),
    }


def outputs(model: nn.Module, example: Any) -> Tensor:
    """Return the logits."""
    result = model(**example) if isinstance(example, dict) else model(example)
    return result if isinstance(result, Tensor) else result.logits


def step(model: nn.Module, example: Any, paths: list[str]) -> str:
    """Train one step; return how many of the new activations' parameters had a gradient."""
    model.train()
    own = [parameter for path in paths for parameter in model.get_submodule(path).parameters()]
    optimizer = torch.optim.SGD(sk.parameter_groups(model, weight_decay=0.0), lr=1e-3)
    torch.manual_seed(0)
    y = outputs(model, example)
    loss = F.mse_loss(y, torch.randn_like(y))
    loss.backward()
    optimizer.step()
    trained = sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in own)
    finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters()) and bool(loss.isfinite())
    return f"{trained} of {len(own)}" if finite else "not finite"


def onnx_error(model: nn.Module, example: Any) -> float:
    """Return how far onnxruntime's outputs of the exported model are from the model's."""
    import onnxruntime

    arguments, keywords = ((), example) if isinstance(example, dict) else ((example,), None)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, arguments, kwargs=keywords, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    feeds = example if isinstance(example, dict) else {"x": example}
    named = {one.name: value.numpy() for one, value in zip(session.get_inputs(), feeds.values(), strict=True)}
    with torch.no_grad():
        return float((torch.from_numpy(session.run(None, named)[0]) - outputs(model, example)).abs().max())


def timed(action: Callable[[], Any], repetitions: int) -> float:
    """Return the median time of an action."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def sites_of(model: nn.Module, example: Any) -> sk.Sites:
    """Return what is found with an example."""
    return sk.sites(model, **example) if isinstance(example, dict) else sk.sites(model, example)


def row(
    name: str, build: Callable[[], nn.Module], example: Any, to: str, options: dict[str, Any], how: Any
) -> list[str]:
    """Return the figures of a model."""
    torch.manual_seed(0)
    model = build().eval()
    found = sites_of(model, example)
    look = timed(lambda: sites_of(model, example), how.repetitions)
    with torch.no_grad():
        before = outputs(model, example)
    begin = time.perf_counter()
    model, report = sk.swap(model, to, like="original", example_inputs=example, **options)
    swapping = time.perf_counter() - begin
    with torch.no_grad():
        moved = float((outputs(model, example) - before).abs().max())
    error = max(change.error or 0.0 for change in report.changed)
    exported = "-" if how.no_onnx else f"{onnx_error(model, example):.1e}"
    stepped = step(model, example, [change.path for change in report.changed])
    counts = (len(found), len(report.changed), len(report.left), len(report.missed))
    return [
        *(name, f"`{to.partition('[')[0]}`", *map(str, counts), f"{error:.1e}", f"{moved:.1e}"),
        *(stepped, exported, f"{look:.3f}", f"{swapping:.3f}"),
    ]


def deep(repetitions: int) -> list[str]:
    """Return the times for a model of many layers, without the fit that `like` asks for."""
    example = torch.randn(8, 64)
    model = Deep(LAYERS)
    look = timed(lambda: sk.sites(model, example), repetitions)
    found = len(sk.sites(model, example))

    def there_and_back() -> None:
        sk.swap(model, "swish", example_inputs=example)
        sk.unswap(model)

    both = timed(there_and_back, repetitions)
    return [
        f"{LAYERS} layers",
        "`swish`",
        str(found),
        str(found),
        *["-"] * 6,
        f"{look:.3f}",
        f"{both:.3f} with `unswap`",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-onnx", action="store_true")
    how = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = [row(name, *rest, how) for name, rest in models().items()]
    table(HEADINGS, [*rows, deep(how.repetitions)])


if __name__ == "__main__":
    main()
