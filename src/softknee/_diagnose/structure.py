"""How the activations of a model follow one another, and what it returns, seen on its first samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from softknee._card.function import function_of
from softknee._card.kinks import kinks_of
from softknee._card.meanfield import MeanField
from softknee._diagnose.preserve import preserved
from softknee._errors import UsageError
from softknee._surgery.find import look
from softknee._surgery.observe import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._diagnose.task import Task

# Rounding may differ from run to run, by less than this share of the largest output.
_ROUNDING = 1e-4
_BETWEEN_LAYERS = frozenset({"activation", "pair"})
# At which the edge of chaos is computed, evenly in their logarithms.
_VARIANCES = tuple(10.0 ** (power / 5) for power in range(-15, 6))


@dataclass(frozen=True)
class Structure:
    """How activations follow one another.

    Attributes:
        data: Part `structure` of the schema, without `outputs_nonfinite`.
        acts: What acts at the first site of each kind of activation.
        own_loss: Whether the model returns a loss of its own, where none is given.
    """

    data: dict[str, Any]
    acts: Mapping[str, Callable[..., Any]]
    own_loss: bool


def structure(task: Task, *, loss: bool) -> Structure:
    """Look at how activations follow one another, and whether the model runs, is finite and repeats itself.

    The model runs twice on the first batch, in eval mode.

    Args:
        task: A few samples.
        loss: Whether to compute the loss too, to see that it is one number.

    Returns:
        What was seen.

    Raises:
        UsageError: The model fails, or its loss is not one number.
    """
    model, batch = task.model, task.batches[0]
    with preserved(model):
        try:
            seen = look(model, batch.inputs, batch.keywords)
            # The first run has left the random numbers as they were.
            torch.rand(())
            with torch.no_grad():
                again = task.run(batch)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(f"the model failed on the first batch of the loader: {reason}") from error
        if loss:
            _check_loss(task, again)
        own_loss = not loss and _returns_loss(task, again)
    acts = {site.kind: seen.functions[site.place] for site in reversed(seen.sites) if site.role in _BETWEEN_LAYERS}
    data = {
        "in_a_row": [[first.name, second.name] for first, second in seen.in_a_row],
        "at_output": [[site.kind, site.name] for site in seen.returned],
        "sites": len(seen.sites) + sum(one.site is not None for one in seen.sites.unseen),
        "deterministic": _same(seen.outputs, again),
        "layers": sum(one.dim() > 1 for one in model.parameters()),
        "fresh_norms": sum(map(_is_fresh, model.modules())),
    }
    return Structure(data, acts, own_loss)


def edges(acts: Mapping[str, Callable[..., Any]]) -> list[dict[str, Any]]:
    """Return where gradients neither vanish nor explode, for each kind of activation that theory knows.

    Args:
        acts: As in `Structure`.

    Returns:
        For each kind the variances of weights and biases along its edge of chaos; left out where it has none.
    """
    found = []
    for kind, act in acts.items():
        try:
            function = function_of(act)
            field = MeanField(function, kinks_of(function))
            points = [field.edge_of_chaos(q) for q in _VARIANCES]
        except Exception:  # noqa: S112  # anybody's module may raise anything at inputs it was not made for
            continue
        there = [point for point in points if point is not None]
        if there:
            weights, biases = [point.sigma_w2 for point in there], [point.sigma_b2 for point in there]
            found.append({"kind": kind, "sw2": weights, "sb2": biases})
    return found


class Outputs:
    """Counts, as a forward hook of the model, which of its outputs are finite."""

    def __init__(self) -> None:
        self._runs: list[list[tuple[torch.Tensor, int]]] = []

    def __call__(self, _: Any, __: Any, outputs: Any) -> None:
        """Count the outputs of one run."""
        tensors = [one.detach() for one in tensors_of(outputs)]
        self._runs.append([((~one.isfinite()).sum(), one.numel()) for one in tensors])

    def nonfinite(self, runs: int) -> float:
        """Return the share that is not finite in the last runs; those before were trials."""
        counts = [pair for run in self._runs[-runs:] for pair in run]
        whole = sum(count for _, count in counts)
        return sum(int(bad) for bad, _ in counts) / whole if whole else 0.0


def _check_loss(task: Task, outputs: Any) -> None:
    """Compute the loss of the first batch.

    Raises:
        UsageError: It fails, or is not one number.
    """
    try:
        with torch.no_grad():
            task.loss(task.batches[0], outputs)
    except UsageError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"the loss failed on the first batch of the loader: {reason}") from error


def _returns_loss(task: Task, outputs: Any) -> bool:
    try:
        task.loss(task.batches[0], outputs)
    except UsageError:
        return False
    return True


def _is_fresh(module: nn.Module) -> bool:
    """Return whether a module is a batch norm that has its first statistics and uses them in eval mode."""
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return False
    return not bool(module.running_mean.any()) and bool((module.running_var == 1).all())


def _same(first: Any, second: Any) -> bool:
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=False))
    return all(one.shape == two.shape and _close(one, two) for one, two in pairs)


def _close(one: torch.Tensor, two: torch.Tensor) -> bool:
    one, two = one.detach().double(), two.detach().double()
    size = one[one.isfinite()].abs().amax() if bool(one.isfinite().any()) else torch.zeros(())
    return bool(torch.allclose(one, two, rtol=0.0, atol=float(size) * _ROUNDING, equal_nan=True))
