"""What is written down about a run while it trains and after it."""

from __future__ import annotations

import base64
import math
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softknee._bench.activations import has_curve
from softknee._bench.model import activation_sites, site_width
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from softknee._bench.metric import Metric

# Longer parameter vectors are recorded by their quartiles.
LONGEST_RECORDED = 32
CURVE_RANGE = (-5.0, 5.0, 201)


@dataclass
class History:
    """Per-epoch records of a run; plain lists, so that it goes into a checkpoint and into the result as it is.

    Attributes:
        train_loss: Mean over the epoch's batches as they were trained on.
        train_score: The metric over them.
        test_loss: After the epoch.
        test_score: The metric after it.
        seconds: Wall time of the epoch, evaluation included.
        step_seconds: Wall time of a step of the epoch, evaluation left out.
        trajectories: Trainable activation parameters by name, before training and after each epoch.
        before: The trainable activations before training, by site.
    """

    train_loss: list[float] = field(default_factory=list)
    train_score: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_score: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    trajectories: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: dict[str, list[float | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Mapping[str, Any], metric: Metric) -> History:
        """Return the history of which `named` gave the fields; what an older version did not record stays empty."""
        names = {metric.train: "train_score", metric.test: "test_score"}
        return cls(**{names.get(name, name): value for name, value in fields.items()})

    def named(self, metric: Metric) -> dict[str, Any]:
        """Return the fields under the names they have on disk."""
        names = {"train_score": metric.train, "test_score": metric.test}
        return {names.get(name, name): value for name, value in asdict(self).items()}

    def note_parameters(self, model: nn.Sequential) -> None:
        """Append the present values of the trainable activation parameters."""
        for site, module in activation_sites(model).items():
            for name, parameter in module.named_parameters():
                values = parameter.detach().flatten().cpu()
                summary = len(values) > LONGEST_RECORDED
                entry = self.trajectories.setdefault(f"{site}.{name}", {"summary": summary, "values": []})
                quartiles = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
                entry["values"].append((values.quantile(quartiles) if summary else values).tolist())


def trained_shapes(model: nn.Sequential) -> dict[str, list[float | None]]:
    """Sample the trainable activations of single elements, the mean over channels, at `curve_points()`."""
    trainable = {name: site for name, site in activation_sites(model).items() if any(True for _ in site.parameters())}
    return {
        name: finite(sample(site, site_width(model, name)).mean(1))
        for name, site in trainable.items()
        if has_curve(site)
    }


@torch.no_grad()
def sample(activation: nn.Module, channels: int) -> Tensor:
    """Evaluate an activation in eval mode at `curve_points()`; `(points, channels)`, the mode is put back."""
    mode = activation.training
    device = next((parameter.device for parameter in activation.parameters()), None)
    points = torch.linspace(*CURVE_RANGE, device=device)
    values: Tensor = activation.eval()(points[:, None].expand(-1, channels))
    activation.train(mode)
    return values


def finite(values: Tensor) -> list[float | None]:
    """Return a vector as a list, with None for what JSON has no number for."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def curve_points() -> list[float]:
    """Return the inputs at which activations are sampled for the report."""
    return torch.linspace(*CURVE_RANGE).tolist()


def shape_fields(history: History, after: dict[str, list[float | None]]) -> dict[str, Any]:
    """Return the trained activations before and after training.

    Args:
        history: Of the run.
        after: The trained activations, as `trained_shapes` gives them.

    Returns:
        Plain data, see `docs/results-format.md`.
    """
    x = curve_points()
    return {site: {"x": x, "before": history.before[site], "after": values} for site, values in after.items()}


def classification_fields(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], *, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of a finished run's result that come from its last predictions.

    Args:
        predicted: `(n,)` classes predicted after the last epoch.
        labels: `(n,)` true classes.
        classes: Their names.

    Returns:
        Plain data, see `docs/results-format.md`.
    """
    confusion = confusion_matrix(labels, predicted, classes=len(classes))
    return {
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": per_class_scores(confusion),
        "correct": base64.b64encode(np.packbits(predicted == labels).tobytes()).decode(),
        "test_size": len(labels),
    }


def history_fields(history: History, metric: Metric) -> dict[str, Any]:
    """Return the fields of a result that its history holds, with the best epoch, and its times as single numbers."""
    fields = history.named(metric)
    del fields["before"]
    scores, steps = history.test_score, history.step_seconds
    best = int(np.argmax(scores)) if scores else None
    return {
        **fields,
        metric.best: None if best is None else scores[best],
        "best_epoch": None if best is None else best + 1,
        "seconds": sum(history.seconds),
        "step_seconds": statistics.median(steps) if steps else None,
    }


def confusion_matrix(labels: NDArray[np.integer], predicted: NDArray[np.integer], *, classes: int) -> NDArray[np.int64]:
    """Count pairs; rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class_scores(confusion: NDArray[np.int64]) -> dict[str, list[float]]:
    """Return precision, recall and F1 of each class; zero where nothing was predicted, or nothing is there."""
    hits = np.diag(confusion).astype(float)
    precision = hits / np.maximum(confusion.sum(0), 1)
    recall = hits / np.maximum(confusion.sum(1), 1)
    f1 = 2 * hits / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    return {"precision": precision.tolist(), "recall": recall.tolist(), "f1": f1.tolist()}


def environment(device: str = "cpu") -> dict[str, Any]:
    """Describe the machine and the versions a run was made with.

    Args:
        device: It computed on.

    Returns:
        Plain data.
    """
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if device == "cuda" else {}
    return {
        "softknee": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **gpu,
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
