"""How a classifier does class by class: confusion matrix, precision, recall and F1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._diagnose.preserve import preserved
from softknee._diagnose.task import Task, task
from softknee._errors import DataError
from softknee._surgery.observe import tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable

# The target by which torch's cross-entropy leaves an element out.
IGNORED = -100
MOST_CLASSES = 1000
_TARGETS = "the targets of a classifier are whole numbers from 0, one a sample, or a row of probabilities"


@dataclass(frozen=True)
class ClassificationReport:
    """What was predicted for which class.

    Scores that would divide by zero are None and not 0, which would say that the model does badly where there was
    nothing to do: the recall of a class that never occurs, the precision of one that is never predicted, and the F1 of
    one to which both apply.

    Attributes:
        confusion: Counts: a row for each true class, a column for each predicted one.
    """

    confusion: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.confusion)

    @property
    def support(self) -> tuple[int, ...]:
        """How often each class occurs."""
        return tuple(sum(row) for row in self.confusion)

    @property
    def predicted(self) -> tuple[int, ...]:
        """How often each class was predicted."""
        return tuple(sum(column) for column in zip(*self.confusion, strict=True))

    @property
    def recall(self) -> tuple[float | None, ...]:
        """Share of each class that was predicted as such."""
        return tuple(_share(hits, count) for hits, count in zip(self._hits, self.support, strict=True))

    @property
    def precision(self) -> tuple[float | None, ...]:
        """Share of what was predicted as each class that is of it."""
        return tuple(_share(hits, count) for hits, count in zip(self._hits, self.predicted, strict=True))

    @property
    def f1(self) -> tuple[float | None, ...]:
        """Twice the hits over the sum of both counts; the harmonic mean of precision and recall where both are."""
        counts = zip(self._hits, self.support, self.predicted, strict=True)
        return tuple(_share(2 * hits, one + other) for hits, one, other in counts)

    @property
    def accuracy(self) -> float | None:
        """Share of all that was predicted rightly; None without samples."""
        return _share(sum(self._hits), sum(self.support))

    @property
    def _hits(self) -> tuple[int, ...]:
        return tuple(row[index] for index, row in enumerate(self.confusion))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "classes": self.classes,
            "confusion": [list(row) for row in self.confusion],
            "precision": list(self.precision),
            "recall": list(self.recall),
            "f1": list(self.f1),
            "support": list(self.support),
            "accuracy": self.accuracy,
        }

    def _rows(self) -> list[tuple[str, ...]]:
        numbers = zip(self.precision, self.recall, self.f1, strict=True)
        return [
            ("class", "precision", "recall", "F1", "samples"),
            *(
                (str(index), *("-" if one is None else f"{one:.3f}" for one in row), str(count))
                for index, (row, count) in enumerate(zip(numbers, self.support, strict=True))
            ),
        ]

    def _repr_html_(self) -> str:
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._rows())
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


class Confusion:
    """A confusion matrix that is counted batch by batch; it grows with the classes seen."""

    def __init__(self) -> None:
        self._counts = torch.zeros(0, 0, dtype=torch.int64)

    def add(self, outputs: Any, targets: Any) -> None:
        """Count a batch in.

        Args:
            outputs: Scores `(N, classes, ...)`, or `(N, ..., classes)` where only that fits the targets, of which the
                highest is predicted; scores `(N,)` or `(N, 1)` of two classes, of which the second is predicted above
                0; or predicted classes, whole numbers. A mapping or a dataclass with a tensor of them, as models of
                transformers return, counts as its `logits`.
            targets: Classes, whole numbers of the shape of the predictions, where -100 is left out; or probabilities of
                the shape of the scores.

        Raises:
            DataError: They do not fit each other, or there are more than 1000 classes.
        """
        scores = _scores(outputs)
        if isinstance(targets, Tensor) and scores.shape[:-1] == targets.shape != _without_classes(scores):
            scores = scores.movedim(-1, 1)
        predicted, classes = _predicted(scores)
        true = _classes(targets, scores, predicted)
        kept = true != IGNORED
        true, predicted = true[kept], predicted[kept]
        most = max(classes, len(self._counts), 1 + int(predicted.max()) if len(predicted) else 0)
        if len(true) and (int(true.min()) < 0 or (classes and int(true.max()) >= classes)):
            wrong = int(true.max() if true.min() >= 0 else true.min())
            raise DataError(f"a target is {wrong}, but there are {most} classes; {_TARGETS}")
        most = max(most, 1 + int(true.max()) if len(true) else 0)
        if most > MOST_CLASSES:
            raise DataError(f"there are {most} classes, too many for a confusion matrix; {MOST_CLASSES} are allowed")
        counts = torch.bincount(true * most + predicted, minlength=most**2).view(most, most).cpu()
        before = len(self._counts)
        counts[:before, :before] += self._counts
        self._counts = counts

    def report(self) -> ClassificationReport:
        """Return what was counted."""
        return ClassificationReport(tuple(map(tuple, self._counts.tolist())))


def classification_report(
    model: nn.Module, loader: Iterable[Any], *, samples: int | None = None
) -> ClassificationReport:
    """Run a classifier in eval mode and report how it does class by class.

    Args:
        model: As in `task`; it returns scores, see `Confusion.add`.
        loader: As in `task`, with targets.
        samples: How many to take, from the beginning; all by default.

    Returns:
        Confusion matrix and scores.

    Raises:
        UsageError: As `task`.
        DataError: As `task`; or the batches have no targets that fit the outputs.
    """
    # Any function of loss has the targets of dictionaries taken apart; it is not called.
    return _measured(task(model, loader, "cross_entropy", samples=2**62 if samples is None else samples))


def _measured(of: Task) -> ClassificationReport:
    """Report on a task as `classification_report` does."""
    found = Confusion()
    with preserved(of.model), torch.no_grad():
        for batch in of.batches:
            found.add(of.run(batch), batch.target)
    return found.report()


def _scores(outputs: Any) -> Tensor:
    """Return the tensor in what a model returned.

    Raises:
        DataError: There is none.
    """
    if isinstance(outputs, Tensor):
        return outputs.detach()
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    found = [named] if isinstance(named, Tensor) else tensors_of(outputs)
    if not found:
        raise DataError("the model returns no tensor of scores, so there is nothing to predict a class from")
    return found[0].detach()


def _without_classes(scores: Tensor) -> torch.Size:
    return scores.shape[:1] + scores.shape[2:]


def _predicted(scores: Tensor) -> tuple[Tensor, int]:
    """Return the predicted classes, flat, and the number of classes, 0 if unknown."""
    if not scores.is_floating_point():
        return scores.long().flatten(), 0
    if scores.dim() < 2 or scores.shape[1] == 1:
        return (scores > 0).long().flatten(), 2
    return scores.argmax(1).flatten(), scores.shape[1]


def _classes(targets: Any, scores: Tensor, predicted: Tensor) -> Tensor:
    """Return the true classes, flat.

    Raises:
        DataError: They are none, or fewer or more than were predicted.
    """
    if not isinstance(targets, Tensor):
        raise DataError(f"a batch has no tensor of targets; {_TARGETS}")
    true = targets.to(scores.device)
    several = scores.dim() > 1 and scores.shape[1] > 1 and scores.is_floating_point()
    if several and true.shape == scores.shape and true.is_floating_point():
        true = true.argmax(1)
    elif true.is_floating_point() and not torch.equal(true, true.round()):
        raise DataError(f"a target is {float(true[true != true.round()][0]):g}; {_TARGETS}")
    if true.numel() != predicted.numel():
        raise DataError(f"there are {true.numel()} targets for {predicted.numel()} predictions; {_TARGETS}")
    return true.long().flatten()


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
