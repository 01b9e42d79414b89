"""Eight runs trained side by side in one process, against one after the other.

Both take the same steps, with the same fused optimizer, from the same weights, and must end with the same bits. Epochs
alternate; one thread; the ratio is that of the medians of processor time, for one step of one model.

Usage: python benchmarks/packed.py [--rounds 9] [protocol ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from softknee._bench.model import build_model
from softknee._bench.packed import Member, train_epoch_packed
from softknee._bench.protocols import get_protocol
from softknee._bench.submission import parse_entry
from softknee._bench.tasks import TASKS, load_tensors
from softknee._bench.train import Trained, make_optimizer, train_epoch

PROTOCOLS = ("gmm-2d", "regression-1d", "mnist1d", "fashion-mlp")
EIGHT = ("relu", "gelu", "silu", "mish", "tanh", "elu", "prelu", "swish")
PACKS = {
    "8 activations": [(activation, 0) for activation in EIGHT],
    "8 seeds of GELU": [("gelu", seed) for seed in range(8)],
    "8 seeds of PReLU": [("prelu", seed) for seed in range(8)],
}


def members(protocol: str, pack: list[tuple[str, int]]) -> list[Member]:
    """Models at their start."""
    fixed = get_protocol(protocol)
    task = fixed.recipe.task
    examples = load_tensors(TASKS[task].source(None), "test", task).under(fixed.recipe)
    found = []
    for activation, seed in pack:
        model = build_model(fixed.recipe, parse_entry(activation, Path()), seed=seed)
        optimizer = make_optimizer(model.parameters(), fixed.recipe, fixed.learning_rate)
        found.append(Member(model, optimizer, examples, torch.Generator().manual_seed(seed)))
    return found


def one_by_one(given: list[Member], batch_size: int, steps: int) -> list[Trained]:
    """An epoch of each."""
    return [train_epoch(*member, batch_size, steps) for member in given]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocols", nargs="*", default=PROTOCOLS)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for protocol in given.protocols:
        recipe = get_protocol(protocol).recipe
        for name, pack in PACKS.items():
            ways = {train_epoch_packed: members(protocol, pack), one_by_one: members(protocol, pack)}
            times: dict[object, list[float]] = {way: [] for way in ways}
            for turn in range(given.rounds + 1):
                results = []
                for way, models in ways.items():
                    started = time.process_time()
                    results.append(way(models, recipe.batch_size, recipe.steps))
                    if turn:
                        times[way].append((time.process_time() - started) / results[0][0].steps / len(pack))
                assert results[0] == results[1]
            packed, alone = (1e6 * statistics.median(found) for found in times.values())
            print(
                f"{protocol}, {name}: {packed:.0f} us a step of a model, alone {alone:.0f}, ratio {packed / alone:.2f}"
            )


if __name__ == "__main__":
    main()
