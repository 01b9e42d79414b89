"""An epoch of the public protocol's ResNet-20 here, and as it is usually written: a DataLoader, image by image, eager.

The usual loop has torchvision's transforms written out with Pillow (crop of the padded image, flip, tensor, normalize),
two worker processes, SGD without options, and the same model with torch's ReLU. Both train the same number of steps of
128 images; parts of epochs alternate, and the ratio is that of the medians. The pipelines alone are timed too.

Usage: python benchmarks/protocol_epoch.py [--steps 40] [--rounds 5] [--threads 2] [--images 10000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from softknee._bench.colour import CONSTANTS
from softknee._bench.images import PADDING, Images
from softknee._bench.model import build_model
from softknee._bench.protocols import get_protocol
from softknee._bench.resnet import build_resnet20
from softknee._bench.streams import Stream, stream_generator
from softknee._bench.train import make_optimizer, train_epoch
from softknee._catalogue import parse_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH, WORKERS = 128, 2
MEAN, STD = CONSTANTS["cifar10"]["exact"]


class Usual(Dataset[tuple[torch.Tensor, int]]):
    """Images as Pillow's, transformed one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index])
        wide = Image.new("RGB", (32 + 2 * PADDING, 32 + 2 * PADDING))
        wide.paste(image, (PADDING, PADDING))
        y, x = (int(torch.randint(2 * PADDING + 1, ())) for _ in range(2))
        image = wide.crop((x, y, x + 32, y + 32))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub_(self.mean).div_(self.std), int(self.labels[index])


@dataclass
class Loop:
    """A way to train.

    Attributes:
        steps: Takes so many steps.
        batches: Yields batches without training.
    """

    steps: Callable[[int], None]
    batches: Callable[[], Iterator[Any]]


def usual(images: np.ndarray, labels: np.ndarray) -> Loop:
    """The loop of most scripts."""
    loader = DataLoader(Usual(images, labels), BATCH, shuffle=True, num_workers=WORKERS)
    model = build_resnet20(lambda _: nn.ReLU(), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def steps(number: int) -> None:
        model.train()
        for inputs, targets in islice(loader, number):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            loss.item()

    return Loop(steps, lambda: iter(loader))


def ours(images: np.ndarray, labels: np.ndarray) -> Loop:
    """The loop of the bench."""
    protocol = get_protocol("mls-resnet20-cifar10")
    examples = Images(
        fingerprint="",
        train_inputs=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        train_labels=torch.from_numpy(labels),
        test_inputs=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        test_targets=torch.zeros(1, dtype=torch.int64),
        classes=tuple(map(str, range(10))),
        constants=CONSTANTS["cifar10"],
    ).under(protocol.recipe)
    model = build_model(protocol.recipe, parse_choice("relu"), seed=0)
    optimizer = make_optimizer(model.parameters(), protocol.recipe, 0.1)
    orders = count()

    def batches() -> Iterator[Any]:
        return examples.batches(stream_generator(0, Stream.ORDER, next(orders)), BATCH, 0)

    def steps(number: int) -> None:
        train_epoch(model, optimizer, _Some(batches(), number, examples), torch.Generator(), BATCH)

    return Loop(steps, batches)


class _Some:
    """The first batches of an epoch, as examples."""

    def __init__(self, batches: Iterator[Any], number: int, examples: Images) -> None:
        self._batches, self._number, self._examples = batches, number, examples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._examples, name)

    def batches(self, *_: Any) -> Iterator[Any]:
        return islice(self._batches, self._number)


def seconds(call: Callable[[], object]) -> float:
    """Time a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    random = np.random.default_rng(0)
    images = random.integers(256, size=(given.images, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(10, size=given.images)
    loops = {"usual": usual(images, labels), "softknee": ours(images, labels)}
    for part in ("training", "pipeline"):
        times: dict[str, list[float]] = {name: [] for name in loops}
        for turn in range(given.rounds + 1):
            for name, loop in loops.items():
                call = (
                    (lambda loop=loop: loop.steps(given.steps))
                    if part == "training"
                    else (lambda loop=loop: sum(1 for _ in islice(loop.batches(), given.steps)))
                )
                taken = seconds(call)
                if turn:
                    times[name].append(taken)
        medians = {name: statistics.median(found) / given.steps for name, found in times.items()}
        print(
            f"{part}: usual {1e3 * medians['usual']:.2f} ms, softknee {1e3 * medians['softknee']:.2f} ms a step of "
            f"{BATCH}, ratio {medians['softknee'] / medians['usual']:.3f}"
        )


if __name__ == "__main__":
    main()
