"""Segments garments with the same small U-Net and one activation after another: does a trainable one train, and help?

Scenes of 48 x 48 pixels are made from Fashion-MNIST: up to three garments, scaled, turned and partly hidden by one
another, on a background of random patches, under noise. Each pixel is one of six kinds: background, top, trousers,
dress, shoe, bag. Scenes are drawn anew for every step; those of the evaluation are made from test images.

The U-Net is written with ReLU, and `softknee.swap` puts the activation in. A seed gives the weights, the scenes to
train on and those of the evaluation, and they are the same for all activations: differences are paired. Their intervals
are for new seeds and new scenes, and hold for all comparisons with the first activation together (Bonferroni). Batch
norm before each activation takes care of the weights' scale; the learning rate is the same for all, and not tuned.

`moved` is how far that parameter of the activations went that went farthest.

Usage: python examples/segmentation.py [--activations relu gelu ditac] [--seeds 5] [--data full] [--out FOLDER]
With --quick it takes seconds and only shows that it runs. It needs the extra `bench`, and `plot` for the picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.data import load

ACTIVATIONS = ("relu", "gelu", "ditac")
KINDS = ("background", "top", "trousers", "dress", "shoe", "bag")
# Of Fashion-MNIST's ten classes, in their order.
KIND_OF_CLASS = (1, 2, 1, 3, 1, 4, 1, 4, 5, 4)
SIZE, GARMENTS, PRESENT = 48, 3, 0.8
BATCH, RATE, DECAY = 8, 1e-2, 0.01
# So that no scene of the evaluation has the seed of one for training.
EVALUATION = 1_000_000
PICTURED = 6

Data = tuple[Tensor, Tensor]


class UNet(nn.Module):
    """Four levels with a convolution, batch norm and ReLU each way, joined across."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(block(*pair) for pair in itertools.pairwise([1, *widths]))
        pairs = [pair[::-1] for pair in itertools.pairwise(widths)][::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.join = nn.ModuleList(block(2 * shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(width, len(KINDS), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, SIZE, SIZE)` to scores `(batch, kinds, SIZE, SIZE)`."""
        levels = []
        for index, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if index else x)
            levels.append(x)
        for up, join, level in zip(self.up, self.join, levels[-2::-1], strict=True):
            x = join(torch.cat([up(x), level], 1))
        return self.head(x)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Make a convolution with batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def network(activation: str, width: int, seed: int) -> nn.Module:
    """Make the U-Net with an activation; the weights are the same for all activations."""
    torch.manual_seed(seed)
    model, _ = sk.swap(UNet(width), activation, where="relu", example_inputs=torch.zeros(2, 1, SIZE, SIZE))
    return model


def garments(images: object, labels: object) -> Data:
    """Return images `(n, 1, 28, 28)` between 0 and 1 and the kind of each."""
    kinds = torch.tensor(KIND_OF_CLASS)[torch.tensor(labels).long()]
    return torch.tensor(images).unsqueeze(1).float().div(255), kinds


def places(count: int, generator: torch.Generator) -> Tensor:
    """Return where to look for each pixel of a scene in an image of one garment, `(count, SIZE, SIZE, 2)`."""
    angle, scale, flip, across, down = torch.rand(5, count, generator=generator)
    angle = (angle - 0.5) * 0.8
    scale = SIZE / (28 * (0.7 + 0.5 * scale))
    cos, sin, flip = scale * angle.cos(), scale * angle.sin(), (flip > 0.5) * 2.0 - 1
    middle = torch.stack([across, down], 1) * 1.4 - 0.7
    turn = torch.stack([torch.stack([cos * flip, -sin * flip], 1), torch.stack([sin, cos], 1)], 1)
    shift = -turn @ middle.unsqueeze(2)
    return F.affine_grid(torch.cat([turn, shift], 2), [count, 1, SIZE, SIZE], align_corners=False)


def scenes(stock: Data, count: int, generator: torch.Generator) -> Data:
    """Draw scenes: `(count, 1, SIZE, SIZE)`, about -1 to 1, and the kind of each pixel, `(count, SIZE, SIZE)`."""
    images, kinds = stock
    patches = torch.rand(count, 1, 8, 8, generator=generator)
    x = F.interpolate(patches, size=SIZE, mode="bilinear")
    y = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    evenly = 1 / torch.bincount(kinds)[kinds]
    for _ in range(GARMENTS):
        which = torch.multinomial(evenly, count, replacement=True, generator=generator)
        grid = places(count, generator)
        drawn = F.grid_sample(images[which], grid, align_corners=False)
        cover = F.grid_sample((images[which] > 0).float(), grid, align_corners=False) > 0.5
        cover &= torch.rand(count, 1, 1, 1, generator=generator) < PRESENT
        x = torch.where(cover, drawn, x)
        y = torch.where(cover[:, 0], kinds[which].view(-1, 1, 1), y)
    return 2 * (x + 0.1 * torch.randn(x.shape, generator=generator)) - 1, y


def train(model: nn.Module, stock: Data, *, steps: int, seed: int) -> float:
    """Train on new scenes at every step; return the mean loss of the last tenth of the steps."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(sk.parameter_groups(model, weight_decay=DECAY), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    losses = []
    for _ in range(steps):
        x, y = scenes(stock, BATCH, generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Return the most likely kind of each pixel."""
    model.eval()
    return torch.cat([model(part).argmax(1) for part in x.split(50)])


def overlaps(predicted: Tensor, y: Tensor) -> Tensor:
    """Return intersection over union of each kind over all pixels, nan for a kind that is nowhere."""
    counts = torch.bincount((y * len(KINDS) + predicted).flatten(), minlength=len(KINDS) ** 2)
    matrix = counts.view(len(KINDS), len(KINDS)).double()
    return matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())


def interval(values: np.ndarray, comparisons: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t, Bonferroni's for several comparisons together."""
    half = -float(stdtrit(len(values) - 1, 0.025 / comparisons)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def own_parameters(model: nn.Module) -> Tensor:
    """Return a copy of the parameters that belong to a model's activations, `(parameters,)`."""
    modules = [module for module in model.modules() if isinstance(module, sk.nn.Activation)]
    owned = dict.fromkeys(parameter for module in modules for parameter in module.parameters())
    return torch.cat([torch.zeros(0), *(parameter.detach().flatten() for parameter in owned)])


def run(name: str, stock: Data, test: Data, *, width: int, steps: int, seed: int) -> tuple[dict[str, Any], Tensor]:
    """Train and evaluate an activation once; return what is written down, and the kinds predicted for a few scenes."""
    begun = time.process_time()
    model = network(name, width, seed)
    before = own_parameters(model)
    loss = train(model, stock, steps=steps, seed=seed)
    seconds = time.process_time() - begun
    moved = max((own_parameters(model) - before).abs().tolist(), default=0.0)
    predicted = predict(model, test[0])
    each = 100 * overlaps(predicted, test[1])
    found = {"score": float(each.nanmean()), "kinds": dict(zip(KINDS, each.tolist(), strict=True)), "loss": loss}
    return {**found, "parameters": len(before), "moved": moved, "seconds": seconds}, predicted[:PICTURED]


def table(names: list[str], runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print means and their intervals, then paired differences from the first activation."""

    def column(name: str, key: str) -> np.ndarray:
        return np.array([found[key] for found in runs[name]])

    print("\nactivation            parameters  moved  mean IoU in %, 95 %        loss   seconds a run")
    for name in names:
        score = column(name, "score")
        low, high = interval(score)
        moved, loss, seconds = (column(name, key).mean() for key in ("moved", "loss", "seconds"))
        shown = f"{score.mean():5.2f}  ({low:.2f} to {high:.2f})"
        print(f"{name:20}  {runs[name][0]['parameters']:10}  {moved:5.2f}  {shown:25}  {loss:.3f}  {seconds:13.1f}")
    others = names[1:]
    if others:
        print(f"\ndifference from {names[0]}, paired by seed, 95 % for the {len(others)} together")
    for name in others:
        gain = column(name, "score") - column(names[0], "score")
        low, high = interval(gain, len(others))
        verdict = "not told apart" if low <= 0 <= high else "better" if low > 0 else "worse"
        print(f"{name:20}  {gain.mean():+.2f}  ({low:+.2f} to {high:+.2f})  {verdict}")


def picture(path: Path, test: Data, predicted: dict[str, Tensor]) -> None:
    """Draw scenes, their labels, and what the networks of the first seed say."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = {"scene": test[0][:PICTURED, 0], "labels": test[1][:PICTURED], **predicted}
    figure = Figure(figsize=(1.3 * PICTURED + 0.5, 1.3 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), PICTURED)
    for line, (name, shown) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        look = {"cmap": "gray"} if name == "scene" else {"cmap": "tab10", "vmin": 0, "vmax": 9, "interpolation": "none"}
        for ax, image in zip(line, shown, strict=True):
            drawn = ax.imshow(image.numpy(), **look)
            ax.set(xticks=[], yticks=[])
    key = [Patch(color=drawn.cmap(drawn.norm(index)), label=kind) for index, kind in enumerate(KINDS)]
    figure.legend(handles=key, loc="outside lower center", ncols=len(KINDS), frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train with each activation on each seed, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS, help="the first is compared with")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=12, help="channels of the first level")
    parser.add_argument("--scenes", type=int, default=500, help="of the evaluation")
    parser.add_argument("--data", default="mini", help="mini, full or a folder with Fashion-MNIST")
    parser.add_argument("--out", type=Path, help="folder for segmentation.png and segmentation.json")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 60 steps, 6 channels, 40 scenes")
    how = parser.parse_args()
    if how.quick:
        how.seeds, how.steps, how.width, how.scenes = 2, 60, 6, 40
    if how.seeds < 2:
        parser.error(f"--seeds is {how.seeds}; an interval needs at least 2")
    names = list(dict.fromkeys(how.activations))
    for name in names:
        network(name, how.width, 0)  # a wrong name stops here, and not after an hour
    loaded = load(how.data)
    stock, held = garments(loaded.train_images, loaded.train_labels), garments(loaded.test_images, loaded.test_labels)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    shown, pictured, lazy = None, {}, []
    for seed in range(1, how.seeds + 1):
        test = scenes(held, how.scenes, torch.Generator().manual_seed(EVALUATION + seed))
        shown = shown or test
        lazy.append(100 * float(overlaps(torch.zeros_like(test[1]), test[1]).nanmean()))
        for name in names:
            found, predicted = run(name, stock, test, width=how.width, steps=how.steps, seed=seed)
            runs[name].append(found)
            print(f"seed {seed}  {name:20}  mean IoU {found['score']:.2f} %", flush=True)
            pictured.setdefault(name, predicted)
    table(names, runs)
    print(f"\nfor scale: {sum(lazy) / len(lazy):.1f} % if everything is called background")
    if how.out is not None:
        how.out.mkdir(parents=True, exist_ok=True)
        picture(how.out / "segmentation.png", shown, pictured)
        about = {"data": how.data, "steps": how.steps, "width": how.width, "scenes": how.scenes}
        text = json.dumps({**about, "all_background": lazy, "runs": runs}, indent=1)
        (how.out / "segmentation.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
