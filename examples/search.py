"""Searches an activation for a model and data of one's own, twice: in one call, and in a training loop of one's own.

The task is the height of a landscape of waves at places in a square, from 400 noisy measurements, by a perceptron with
two hidden layers. First `softknee.search` does everything: it trains the usual activations, looks for a better one,
trains the best of both anew with several seeds, and says whether the found one is better on test data that nothing was
chosen by. If it is not, the result is the best of the usual ones.

Then `softknee.Mixture` stands in the same model as an activation that is all functions of a space at once. Weights of
the network are trained on training data, weights of the functions on validation data, and the least likely operations
are taken out until one function is left. What it is worth is told by training it anew, beside ReLU and GELU.

Usage: python examples/search.py [--budget 40] [--seeds 5] [--method auto] [--out FOLDER]
It takes less than a minute on one core, and needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import softknee as sk

NOISE = 0.1
EPOCHS, RATE, BATCH = 40, 1e-2, 50
# Of the weights of functions.
SEARCH_EPOCHS, SEARCH_RATE = 120, 0.02


def measured(number: int, seed: int) -> TensorDataset:
    """Return places `(number, 2)` in a square and what was measured there, `(number, 1)`."""
    draws = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(number, 2, generator=draws) - 1
    y = torch.sin(4 * x[:, :1] - 2 * x[:, 1:]) + torch.cos(5 * x[:, 1:]) * x[:, :1]
    return TensorDataset(x, y + NOISE * torch.randn(number, 1, generator=draws))


def make_model() -> nn.Module:
    """Return a new perceptron."""
    return nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))


def train_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of a batch."""
    x, y = batch
    return F.mse_loss(model(x), y)


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of a network's weights."""
    return torch.optim.Adam(parameters, RATE)


def loaders() -> tuple[DataLoader, DataLoader, DataLoader]:
    """Return batches to train on, to select by, and for the final reading."""
    train = DataLoader(measured(400, 0), BATCH, shuffle=True)
    return train, DataLoader(measured(200, 1), BATCH), DataLoader(measured(2000, 2), BATCH)


def mixed(train: DataLoader, validation: DataLoader) -> str:
    """Train the network with all functions at once, take out one operation after the other, and return what is left."""
    torch.manual_seed(0)
    mixture = sk.Mixture("one-core", seed=0)
    model = make_model()
    model[1], model[3] = mixture.site(), mixture.site()
    functions = mixture.architecture_parameters()
    theirs = torch.optim.Adam(functions, SEARCH_RATE, betas=(0.5, 0.999), weight_decay=1e-3)
    ours = adam([one for one in model.parameters() if all(one is not other for other in functions)])
    steps, drops = SEARCH_EPOCHS * len(train), mixture.operations_left() - 3
    taken = step = 0
    for _ in range(SEARCH_EPOCHS):
        for batch in train:
            held_out = next(iter(validation))
            for optimizer, one in ((theirs, held_out), (ours, batch)):
                model.zero_grad()
                train_step(model, one).backward()
                optimizer.step()
            step += 1
            # Evenly, after a fifth of the time in which all stay.
            due = round(drops * max(0.0, step / steps - 0.2) / 0.75)
            mixture.shrink(min(due, drops) - taken)
            taken = min(due, drops)
    return mixture.formula()


def trained(activation: str, seed: int, train: DataLoader, test: DataLoader) -> float:
    """Return the test loss of a network with an activation."""
    torch.manual_seed(seed)
    model, _ = sk.swap(make_model(), activation)
    optimizer = adam(list(model.parameters()))
    for _ in range(EPOCHS):
        for batch in train:
            optimizer.zero_grad()
            train_step(model, batch).backward()
            optimizer.step()
    with torch.no_grad():
        return statistics.fmean(train_step(model.eval(), batch).item() for batch in test)


def main() -> None:
    """Search in both ways, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=40.0, help="of the first search, in training runs")
    parser.add_argument("--seeds", type=int, default=5, help="of the verification")
    parser.add_argument("--method", default="auto", help="of the first search")
    parser.add_argument("--out", default=None, help="folder for the report of the first search")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, validation, test = loaders()

    print("One call:")
    result = sk.search(
        make_model,
        train_step,
        train,
        validation,
        test,
        optimizer=adam,
        epochs=EPOCHS,
        method=given.method,
        budget=given.budget,
        seeds=given.seeds,
        out=given.out,
    )
    print(result)
    print(f"to use: {result.best.name}\n")

    print("A loop of one's own:")
    formula = mixed(train, validation)
    for activation in (formula, "relu", "gelu"):
        losses = [trained(activation, seed, train, test) for seed in range(given.seeds)]
        print(f"{statistics.fmean(losses):.4f} test loss, mean of {given.seeds} runs: {activation}")


if __name__ == "__main__":
    main()
