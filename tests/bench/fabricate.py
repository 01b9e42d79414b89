"""Writes the folder of a study that nobody ran: plausible numbers from a latent model, in the documented format."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</script><img src=x onerror=alert(1)>"
STAF = "staf[terms=25,initialization=normal]"
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SITES = 4
RATES = (0.001, 0.00316, 0.01, 0.0316, 0.1)

# Mean accuracy by cell: default-given, matched-given, default-tuned, matched-tuned.
SKILLS = {
    "sigmoid": (10.0, 58.4, 31.0, 80.1),
    "tanh": (82.2, 86.4, 87.3, 87.6),
    "relu": (81.1, 86.5, 87.9, 88.1),
    "gelu": (80.4, 87.0, 88.0, 88.3),
    "mish": (81.1, 86.9, 88.1, 88.2),
    "leaky_relu": (81.2, 86.5, 87.8, 88.0),
    "silu": (78.0, 87.0, 87.8, 88.2),
    "hardswish": (77.5, 87.2, 87.7, 88.1),
    "prelu": (86.6, 85.9, 87.6, 87.7),
    "rrelu": (81.2, 86.2, 87.5, 87.8),
    "trainable_elu": (87.0, 86.4, 88.0, 87.9),
    "swish[fixed]": (78.1, 87.0, 87.8, 88.2),
    STAF: (85.4, 84.0, 86.0, 86.1),
    "x * tanh(exp(x))": (83.0, 87.0, 88.1, 88.3),
    HOSTILE: (80.0, 86.0, 87.0, 87.5),
}
TRAINABLE = {
    "prelu": ("slope", 1),
    "trainable_elu": ("alpha", 1),
    STAF: ("amplitude", 5),
}
UNMATCHED = {"sigmoid"}
ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "system": "Linux", "processor": "a processor", "cores": 2}
FIELDS = ("name", "title", "initialization", "rate")
CELLS = [
    ("default-given", "default init, given rate", "default", "given"),
    ("matched-given", "matched gain, given rate", "matched", "given"),
    ("default-tuned", "default init, tuned rate", "default", "tuned"),
    ("matched-tuned", "matched gain, tuned rate", "matched", "tuned"),
]


@dataclass(frozen=True)
class Plan:
    """What to fabricate.

    Attributes:
        activations: Labels out of SKILLS or `invented`.
        seeds: How many.
        first_seed: The first of them.
        cells: 1 or 4.
        epochs: Length.
        test_size: Test examples.
        reference: Label.
        endings: Status by (activation, seed) in every cell; `"missing"` writes no result.
        specification: Fields of the specification by name; any at all make results that have every field of today's.
        mark: Begins the keys.
    """

    activations: tuple[str, ...] = tuple(SKILLS)
    seeds: int = 3
    first_seed: int = 0
    cells: int = 1
    epochs: int = 8
    test_size: int = 1000
    reference: str = "relu"
    endings: tuple[tuple[str, int, str], ...] = (
        ("gelu", 1, "diverged"),
        ("mish", 2, "failed"),
        ("silu", 0, "missing"),
        ("rrelu", 1, "lost"),
    )
    specification: tuple[tuple[str, Any], ...] = ()
    mark: str = ""

    @property
    def all_seeds(self) -> range:
        """Every seed."""
        return range(self.first_seed, self.first_seed + self.seeds)


def invented(count: int) -> tuple[str, ...]:
    """Return `count` labels, those of SKILLS first; every third one behind them is trained."""
    more = (f"swish[beta={n}]" if n % 3 == 0 else f"celu[alpha={n}]" for n in range(count))
    return (*SKILLS, *more)[:count]


def skill(label: str, place: int) -> float:
    """Return the mean accuracy of an activation in a cell."""
    return SKILLS[label][place] if label in SKILLS else 80 + (7 * len(label) + sum(map(ord, label))) % 80 / 10


def trained(label: str) -> tuple[str, int] | None:
    """Return the name and size of an activation's parameter, if one is trained."""
    return TRAINABLE.get(label, ("beta", 1) if label.startswith("swish[beta=") else None)


def fabricate(folder: Path, plan: Plan = Plan()) -> Path:
    """Write the study into `folder` and return it."""
    latent = _Latent(plan)
    runs, tuning = [], []
    if plan.cells == 4:
        tuning = [latent.search(folder, label, init) for label in plan.activations for init in ("default", "matched")]
    chosen = {(search["activation"], search["initialization"]): search["chosen"] for search in tuning}
    for place, (cell, _, init, rate) in enumerate(CELLS[: plan.cells]):
        for label in plan.activations:
            for seed in plan.all_seeds:
                learning_rate = 0.001 if rate == "given" else chosen[label, init]
                key = f"{plan.mark}{place:x}{plan.activations.index(label):02x}{seed:02x}"
                runs.append(
                    {"key": key, "cell": cell, "activation": label, "seed": seed, "learning_rate": learning_rate}
                )
                latent.run(folder, runs[-1], init, skill(label, place))
    manifest = {
        "schema": 1,
        "protocol": {
            "tuning": {"epochs_fraction": 0.5, "seeds": [1000], "trials": 5} if plan.cells > 1 else None,
            "name": "fashion-mlp" if plan.cells == 1 else "fashion-mlp-fair",
            "title": "MLP on Fashion-MNIST" + ("" if plan.cells == 1 else ", with matched gain and tuned rate"),
            "description": "A 784-256-192-128-64-10 perceptron, SGD, batch 128, momentum 0.9.",
        },
        "data": {"name": "mini", "fingerprint": "5e" * 32, "train": 10_000, "test": plan.test_size},
        "epochs": plan.epochs,
        "seeds": list(plan.all_seeds),
        "activations": list(plan.activations),
        "reference": plan.reference,
        "margin": 0.5,
        "cells": [dict(zip(FIELDS, cell, strict=True)) for cell in CELLS[: plan.cells]],
        "runs": runs,
        "evaluated_runs": len(runs),
        "tuning": tuning,
        "curves": {label: latent.curve(label) for label in plan.activations},
        "environment": ENVIRONMENT,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


class _Latent:
    """Test examples differ in difficulty, seeds in luck; an activation gets right what its skill reaches."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = np.random.default_rng(0)
        self.labels = self.rng.integers(10, size=plan.test_size)
        self.difficulty = self.rng.normal(size=plan.test_size)
        self.luck = 0.02 * self.rng.normal(size=plan.first_seed + plan.seeds)

    def run(self, folder: Path, entry: dict, init: str, skill: float) -> None:
        label, seed = entry["activation"], entry["seed"]
        status = {(a, s): e for a, s, e in self.plan.endings}.get((label, seed), "done")
        if status == "missing":
            return
        result = {
            "schema": 1, "key": entry["key"], "status": status, "protocol": "fabricated", "activation": label,
            "seed": seed, "initialization": init, "learning_rate": entry["learning_rate"], "split": "test",
            "epochs": self.plan.epochs, "error": None,
        }  # fmt: skip
        if self.plan.specification:
            result |= self._specified(label)
        if status in {"failed", "lost"}:
            result["error"] = {
                "type": "OSError",
                "message": "<b>disk</b> is full | really",
                "traceback": "Traceback ...",
            }
        else:
            result |= self._trained(label, seed, skill, init, diverged=status == "diverged")
        write(folder, result)

    def _specified(self, label: str) -> dict:
        today = {"definition": f"the formula of {label}", "data": "5e" * 32, "save_epochs": [], "threads": 1,
                 "engine": "auto", "kernels": "AVX512", "revision": 4}  # fmt: skip
        return {**today, **dict(self.plan.specification), "environment": {"softknee": "0.1.0", **ENVIRONMENT}}

    def _trained(self, label: str, seed: int, skill: float, init: str, *, diverged: bool) -> dict:
        correct = self._correct(skill, seed)
        history = self._history(100 * correct.mean(), epochs=3 if diverged else self.plan.epochs)
        fields = {
            **history,
            "seconds": float(20 + 5 * self.rng.random()),
            "counts": {
                "parameters": 307_178,
                "activation_parameters": 0,
                "multiply_adds": 306_560,
            },
            "gain": [self._gain(label, site) for site in range(SITES)],
            "trajectories": self._trajectories(label, len(history["test_loss"])),
        }
        if self.plan.specification:
            operations = {"activation_inputs": 640, "activation_price": 2_400}
            fields["counts"] |= operations
            fields["engines"] = {f"activation_{site}": "fused" for site in range(SITES)}
            fields["step_seconds"] = 0.0018 + 0.0001 * float(self.rng.random())
        if diverged:
            return fields
        confusion = self._confusion(correct)
        hits = np.diag(confusion)
        precision, recall = hits / np.maximum(confusion.sum(0), 1), hits / np.maximum(confusion.sum(1), 1)
        f1 = 2 * hits / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
        return fields | {
            "best_test_accuracy": max(history["test_accuracy"]),
            "best_epoch": int(np.argmax(history["test_accuracy"])) + 1,
            "classes": CLASSES,
            "confusion": confusion.tolist(),
            "per_class": {"precision": precision.tolist(), "recall": recall.tolist(), "f1": f1.tolist()},
            "correct": base64.b64encode(np.packbits(correct).tobytes()).decode(),
            "test_size": self.plan.test_size,
            "shapes": self._shapes(label),
        }

    def _correct(self, skill: float, seed: int) -> np.ndarray:
        level = np.quantile(self.difficulty, min(skill / 100, 0.999))
        noise = 0.12 * self.rng.normal(size=self.plan.test_size)
        return self.difficulty + noise < level + self.luck[seed]

    def _history(self, final: float, *, epochs: int) -> dict:
        progress = 1 - np.exp(-2.5 * np.arange(1, epochs + 1) / self.plan.epochs)
        test = 10 + (final - 10) * progress / (1 - np.exp(-2.5)) + 0.3 * self.rng.normal(size=epochs)
        # The best epoch is never the last, so that nothing can take one for the other.
        test[-2:] = final + 0.4, final
        train = np.minimum(test + 1.5 * progress, 100)
        return {
            "test_accuracy": test.tolist(),
            "train_accuracy": train.tolist(),
            "test_loss": (2.3 * (1 - test / 105)).tolist(),
            "train_loss": (2.25 * (1 - train / 105)).tolist(),
        }

    def _gain(self, label: str, site: int) -> dict:
        valid = label not in UNMATCHED
        forward, chi = (1.4142, 1.0) if valid else (1.8462, 0.1528)
        return {"site": site, "forward": forward, "backward": 1.4142, "chi": chi, "valid": valid}

    def _confusion(self, correct: np.ndarray) -> np.ndarray:
        predicted = np.where(correct, self.labels, (self.labels + 2 + 2 * self.rng.integers(3, size=len(correct))) % 10)
        return np.bincount(self.labels * 10 + predicted, minlength=100).reshape(10, 10)

    def _trajectories(self, label: str, epochs: int) -> dict:
        parameter = trained(label)
        if parameter is None:
            return {}
        name, size = parameter
        walks = np.cumsum(0.03 * self.rng.normal(0.5, 1, size=(SITES, epochs + 1, size)), axis=1) + 0.25
        found = {f"activation_{s}.{name}": {"summary": False, "values": walks[s].tolist()} for s in range(SITES)}
        if size > 1:
            spread = np.array([-1.0, -0.4, 0.0, 0.4, 1.0])
            values = (walks[0, :, :1] + spread).tolist()
            found["activation_0.frequency"] = {"summary": True, "values": values}
        return found

    def _shapes(self, label: str) -> dict:
        if trained(label) is None:
            return {}
        curve = self.curve(label)
        x, y = np.array(curve["x"]), np.array(curve["y"])
        return {
            f"activation_{site}": {
                "x": curve["x"],
                "before": curve["y"],
                "after": (y + (0.08 * site + 0.03 * self.rng.normal()) * np.minimum(x, 0)).tolist(),
            }
            for site in range(SITES)
        }

    def curve(self, label: str) -> dict:
        x = np.linspace(-5, 5, 201 if self.plan.specification else 101)
        shapes = {
            "sigmoid": 1 / (1 + np.exp(-x)), "tanh": np.tanh(x), "relu": np.maximum(x, 0), "silu": x / (1 + np.exp(-x)),
            "prelu": np.where(x > 0, x, 0.25 * x), "trainable_elu": np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
            "hardswish": x * np.clip(x / 6 + 0.5, 0, 1), STAF: np.sin(2 * x) + np.cos(x) / 2,
        }  # fmt: skip
        return {"x": x.tolist(), "y": shapes.get(label, x * np.tanh(np.log1p(np.exp(x)))).tolist()}

    def search(self, folder: Path, label: str, init: str) -> dict:
        best = 0.0316 if init == "default" else 0.01
        trials = []
        for rate in RATES:
            accuracy = (
                None
                if rate == 0.1 and label == "tanh"
                else 87 - 6 * np.log10(rate / best) ** 2 + self.rng.normal() * 0.2
            )
            key = f"t{self.plan.activations.index(label):02x}{init[0]}{RATES.index(rate)}"
            status = "diverged" if accuracy is None else "done"
            history = self._history(accuracy or 10.0, epochs=2)
            write(folder, {"schema": 1, "key": key, "status": status, "activation": label, "seed": 1_000_000,
                           "initialization": init, "learning_rate": rate, "split": "validation", "epochs": 2,
                           "error": None, **history})  # fmt: skip
            trials.append({"learning_rate": rate, "accuracy": accuracy, "keys": [key]})
        chosen = max((t for t in trials if t["accuracy"]), key=lambda t: t["accuracy"])["learning_rate"]
        if label == "sigmoid":
            chosen = 0.1
        return {
            "activation": label,
            "initialization": init,
            "chosen": chosen,
            "at_edge": chosen == 0.1,
            "trials": trials,
        }


def write(folder: Path, result: dict) -> None:
    """Write a result where its run's folder is."""
    place = folder / "runs" / result["key"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "result.json").write_text(json.dumps(result, allow_nan=False))
