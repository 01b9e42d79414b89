"""Generates garments with a DCGAN and one activation after another: does a trainable one train there, and help?

Generator and discriminator are a small DCGAN for the 28 x 28 images of Fashion-MNIST (Radford, Metz, Chintala 2016:
strided convolutions, batch norm, weights of N(0, 0.02^2), Adam with beta1 = 0.5; the non-saturating loss). They are
written with ReLU and leaky ReLU; `softknee.swap` puts the activation into the generator (and the discriminator's).

The quality is the *Frechet distance in the features of our own classifier; not comparable with published FID*: a small
network is trained once to classify the images, and Gaussians are fitted to its last hidden features of test images and
of as many generated ones. Two distances give the scale: of as many real images that were not trained on, and of noise
(those with their pixels shuffled). `classes` is exp(entropy) of what the classifier sees in generated images, 10 if all
classes are equally frequent: few of them mean a collapse.

A seed gives weights, batches and noise, the same for all activations: differences are paired. Their intervals are for
new seeds, and hold for all comparisons with the first activation together (Bonferroni). The learning rate is the same
for all, and not tuned. `moved` is how far that parameter of the generator's activations went that went farthest.

Usage: python examples/dcgan.py [--activations relu gelu ditac] [--seeds 5] [--data full] [--out FOLDER]
With --quick it takes seconds and only shows that it runs. It needs the extra `bench`, and `plot` for the picture.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
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
METRIC = "Frechet distance in the features of our own classifier; not comparable with published FID"
LATENT, FEATURES, CLASSES = 64, 64, 10
BATCH, MOMENTA = 64, (0.5, 0.999)
# Of the noise that is judged and pictured, the same for all seeds.
JUDGED = 1_000_000
PICTURED = 10

Found = dict[str, Any]  # of one training


def generator(activation: str, width: int) -> nn.Module:
    """Make the network from noise `(batch, LATENT)` to images `(batch, 1, 28, 28)` in [-1, 1]."""
    model = nn.Sequential(
        nn.Linear(LATENT, 2 * width * 49, bias=False),
        nn.Unflatten(1, (2 * width, 7, 7)),
        *(nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
        *(nn.BatchNorm2d(width), nn.ReLU()),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    start(model)
    return sk.swap(model, activation, where="relu", example_inputs=torch.zeros(2, LATENT))[0]


def discriminator(activation: str, width: int) -> nn.Module:
    """Make the network from images `(batch, 1, 28, 28)` to scores `(batch,)`, high for real ones."""
    model = nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
        *(nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)),
        nn.Flatten(),
        nn.Linear(2 * width * 49, 1),
        nn.Flatten(0),
    )
    start(model)
    return sk.swap(model, activation, where="leaky_relu", example_inputs=torch.zeros(2, 1, 28, 28))[0]


def start(model: nn.Module) -> None:
    """Draw the weights of linear layers and convolutions as DCGAN does."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.02)


def adversaries(name: str, seed: int, how: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Make generator and discriminator; all their weights are the same for all activations."""
    torch.manual_seed(seed)
    made = generator(name, how.width)
    torch.manual_seed(seed + JUDGED)  # whatever the activations of the generator have drawn
    return made, discriminator(name if how.discriminator == "same" else how.discriminator, how.width)


def train(made: nn.Module, telling: nn.Module, images: Tensor, seed: int, how: argparse.Namespace) -> list[float]:
    """Train both in turn; return the mean losses of the last tenth, discriminator first."""
    random = torch.Generator().manual_seed(seed)
    first, second = (torch.optim.Adam(model.parameters(), lr=how.rate, betas=MOMENTA) for model in (telling, made))
    losses = []
    for _ in range(how.steps):
        real = images[torch.randint(len(images), (BATCH,), generator=random)]
        fake = made(torch.randn(BATCH, LATENT, generator=random))
        first.zero_grad()
        # log(1 + exp(-score)) is the loss of a real image, and of one that was made to look so.
        told = F.softplus(-telling(real)).mean() + F.softplus(telling(fake.detach())).mean()
        told.backward()
        first.step()
        second.zero_grad()
        fooled = F.softplus(-telling(fake)).mean()
        fooled.backward()
        second.step()
        losses.append((float(told.detach()), float(fooled.detach())))
    return np.mean(losses[-max(1, how.steps // 10) :], axis=0).tolist()


def classifier(images: Tensor, labels: Tensor, *, epochs: int) -> nn.Sequential:
    """Train the network whose features are compared; its last layer makes scores of them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(32 * 49, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, CLASSES),
    )
    random = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(images), generator=random).split(128)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def by_parts(model: nn.Module, x: Tensor) -> Tensor:
    """Return what a model in evaluation mode makes of many inputs."""
    model.eval()
    return torch.cat([model(part) for part in x.split(500)])


def frechet(first: Tensor, second: Tensor) -> float:
    """Return the squared Frechet distance of the Gaussians with the moments of two samples `(n, features)`."""
    (m, c), (n, d) = ((sample.double().mean(0), torch.cov(sample.double().T)) for sample in (first, second))
    # The trace of (c d)^(1/2) is that of the root of a symmetric matrix, whose eigenvalues rounding can make negative.
    values, vectors = torch.linalg.eigh(c)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ d @ root).clamp(min=0).sqrt().sum()
    return float((m - n).square().sum() + c.trace() + d.trace() - 2 * cross)


def own_parameters(model: nn.Module) -> Tensor:
    """Return a copy of the parameters that belong to a model's activations, `(parameters,)`."""
    modules = [module for module in model.modules() if isinstance(module, sk.nn.Activation)]
    owned = dict.fromkeys(parameter for module in modules for parameter in module.parameters())
    return torch.cat([torch.zeros(0), *(parameter.detach().flatten() for parameter in owned)])


def interval(values: np.ndarray, comparisons: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t, Bonferroni's for several comparisons together."""
    half = -float(stdtrit(len(values) - 1, 0.025 / comparisons)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


@dataclass(frozen=True)
class Judge:
    """Compares images with real ones by the features of a classifier."""

    features: nn.Module
    last: nn.Module
    target: Tensor

    def distance(self, images: Tensor) -> float:
        """Return the Frechet distance of images from the real ones."""
        return frechet(by_parts(self.features, images), self.target)

    def classes(self, images: Tensor) -> float:
        """Return how many classes are seen in images, as exp(entropy)."""
        scores = by_parts(self.last, by_parts(self.features, images))
        return float(torch.special.entr(scores.softmax(1).double().mean(0)).sum().exp())


def run(name: str, images: Tensor, judge: Judge, z: Tensor, seed: int, how: argparse.Namespace) -> tuple[Found, Tensor]:
    """Train and judge an activation once; return what is written down, and the images made of the noise `z`."""
    begun = time.process_time()
    made, telling = adversaries(name, seed, how)
    before = own_parameters(made)
    losses = train(made, telling, images, seed, how)
    seconds = time.process_time() - begun
    moved = max((own_parameters(made) - before).abs().tolist(), default=0.0)
    fakes = by_parts(made, z)
    found = {"score": judge.distance(fakes), "classes": judge.classes(fakes), "losses": losses}
    return {**found, "parameters": len(before), "moved": moved, "seconds": seconds}, fakes


def table(names: list[str], runs: dict[str, list[Found]]) -> None:
    """Print means and their intervals, then paired differences from the first activation."""

    def column(name: str, key: str) -> np.ndarray:
        return np.array([found[key] for found in runs[name]])

    print(f"\n{METRIC}")
    print("activation            parameters  moved  distance, 95 %             classes  losses D, G   seconds a run")
    for name in names:
        score = column(name, "score")
        low, high = interval(score)
        shown = f"{score.mean():5.2f}  ({low:.2f} to {high:.2f})"
        moved, classes, seconds = (column(name, key).mean() for key in ("moved", "classes", "seconds"))
        told, fooled = column(name, "losses").mean(0)
        line = f"{name:20}  {runs[name][0]['parameters']:10}  {moved:5.2f}  {shown:25}  {classes:7.1f}"
        print(f"{line}  {told:.2f}, {fooled:.2f}  {seconds:14.1f}")
    others = names[1:]
    if others:
        print(f"\ndifference from {names[0]}, less is better, paired by seed, 95 % for the {len(others)} together")
    for name in others:
        gain = column(name, "score") - column(names[0], "score")
        low, high = interval(gain, len(others))
        verdict = "not told apart" if low <= 0 <= high else "worse" if low > 0 else "better"
        print(f"{name:20}  {gain.mean():+.2f}  ({low:+.2f} to {high:+.2f})  {verdict}")


def picture(path: Path, rows: dict[str, Tensor]) -> None:
    """Draw real images, and what the generators of the first seed make of the same noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PICTURED, len(rows)), layout="constrained")
    for line, (name, shown) in zip(figure.subplots(len(rows), PICTURED), rows.items(), strict=True):
        line[0].set_ylabel(name)
        for ax, image in zip(line, shown[:PICTURED, 0], strict=True):
            ax.imshow(image.numpy(), cmap="gray", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def pixels(images: object) -> Tensor:
    """Return images `(n, 1, 28, 28)` in [-1, 1]."""
    return torch.tensor(images).unsqueeze(1).float().div(127.5).sub(1)


def main() -> None:
    """Train the classifier, then a pair of networks with each activation on each seed; print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS, help="the first is compared with")
    parser.add_argument("--discriminator", default="leaky_relu[negative_slope=0.2]", help="activation, or same")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=32, help="channels of the layers next to the images")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--data", default="mini", help="mini, full or a folder with Fashion-MNIST")
    parser.add_argument("--out", type=Path, help="folder for dcgan.png and dcgan.json")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 40 steps, 8 channels")
    how = parser.parse_args()
    if how.quick:
        how.seeds, how.steps, how.width = 2, 40, 8
    if how.seeds < 2:
        parser.error(f"--seeds is {how.seeds}; an interval needs at least 2")
    names = list(dict.fromkeys(how.activations))
    for name in names:
        adversaries(name, 0, how)  # a wrong name stops here, and not after an hour
    loaded = load(how.data)
    split = loaded.validation()
    # The distance depends on the number of images, which is therefore the same everywhere.
    count = min(len(split.test_images), len(loaded.test_images))
    images, held, test = map(pixels, (split.train_images, split.test_images[:count], loaded.test_images[:count]))
    model = classifier(images, torch.tensor(split.train_labels).long(), epochs=1 if how.quick else 4)
    right = 100 * float(np.mean(by_parts(model, test).argmax(1).numpy() == loaded.test_labels[:count]))
    judge = Judge(model[:-1], model[-1], by_parts(model[:-1], test))
    random = torch.Generator().manual_seed(JUDGED)
    shuffled = torch.rand(count, 784, generator=random).argsort(1)
    floor = judge.distance(held)
    ceiling = judge.distance(held.flatten(1).gather(1, shuffled).view_as(held))
    print(f"{count} images each; the classifier is right on {right:.1f} % of the test images")
    z = torch.randn(count, LATENT, generator=random)
    runs: dict[str, list[Found]] = {name: [] for name in names}
    pictured = {"real": held}
    for seed in range(1, how.seeds + 1):
        for name in names:
            found, fakes = run(name, images, judge, z, seed, how)
            runs[name].append(found)
            pictured.setdefault(name, fakes)
            print(f"seed {seed}  {name:20}  distance {found['score']:.2f}", flush=True)
    table(names, runs)
    print(f"\nfor scale: real images {floor:.2f}, noise {ceiling:.2f}")
    if how.out is not None:
        how.out.mkdir(parents=True, exist_ok=True)
        picture(how.out / "dcgan.png", pictured)
        about = {"metric": METRIC, "data": how.data, "steps": how.steps, "width": how.width, "rate": how.rate}
        scale = {"images": count, "classifier": right, "real": floor, "noise": ceiling}
        text = json.dumps({**about, "discriminator": how.discriminator, **scale, "runs": runs}, indent=1)
        (how.out / "dcgan.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
