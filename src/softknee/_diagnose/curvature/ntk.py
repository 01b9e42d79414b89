"""The empirical neural tangent kernel: how a small step on one sample moves the outputs for another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from softknee._diagnose.curvature.second_order import plain_attention
from softknee._diagnose.preserve import called_with, gradients, preserved
from softknee._diagnose.task import Batch, check_finite, task
from softknee._errors import UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

    from softknee._diagnose.task import Task

    Reduction = Literal["sum", "logit"]
    Outputs = Callable[[Any], Tensor]
    Jacobian = Callable[[Task, Batch, Sequence[str], "_Pick"], dict[str, Tensor]]

SAMPLES, BUDGET = 64, 2**30
REDUCTIONS = ("sum", "logit")
# More would be as many backward passes a sample; of more, at most so many are taken.
MOST_OUTPUTS, TAKEN = 256, 32
# Relative difference up to which two ways to the same gradient agree, in the model's dtype.
SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel over samples, or over pairs of a sample and an output.

    Attributes:
        values: `(n, n)` in float64; with the reduction "logit" `(n k, n k)`, the outputs of a sample side by side.
        reduction: "sum": the kernels of the single outputs, added up. "logit": every output of every sample for itself.
        samples: Number of samples, n.
        outputs: Number of outputs of a sample, k.
        alignment: Cosine between the kernel and that of the targets, both centred over samples (Cortes et al. 2012);
            1 if the kernel tells targets apart and nothing else. None without targets that are classes or numbers.
        method: "vmap", or "loop" for models that `torch.func` refuses.
        fingerprint: Of the samples.
    """

    values: Tensor
    reduction: Reduction
    samples: int
    outputs: int
    alignment: float | None
    method: str
    fingerprint: str

    @property
    def eigenvalues(self) -> tuple[float, ...]:
        """The spectrum, largest first; not numbers where the kernel has some."""
        if not torch.isfinite(self.values).all():
            return (math.nan,) * len(self.values)
        return tuple(torch.linalg.eigvalsh(self.values).flip(0).tolist())

    @property
    def condition(self) -> float | None:
        """Largest eigenvalue over the smallest; None where that is 0 up to rounding."""
        top, *_, bottom = (*self.eigenvalues, self.eigenvalues[-1])
        noise = len(self.values) * torch.finfo(torch.float64).eps * abs(top)
        return top / bottom if bottom > noise else None

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.values.trace())

    def velocity(self, after: Kernel) -> float:
        """Return how far the kernel has turned: 0 if it has only grown or shrunk, as in lazy training.

        Args:
            after: The same model's kernel on the same samples, later.

        Returns:
            `1 - <K0, Kt> / (|K0| |Kt|)` (Fort et al. 2020, arXiv 2010.15110), between 0 and 1.

        Raises:
            UsageError: It is over other samples or outputs.
        """
        if (self.fingerprint, self.reduction, self.values.shape) != (
            after.fingerprint,
            after.reduction,
            after.values.shape,
        ):
            raise UsageError("velocity compares kernels of the same outputs over the same samples")
        return 1 - _cosine(self.values, after.values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the kernel itself."""
        return {
            "samples": self.samples,
            "outputs": self.outputs,
            "eigenvalues": [one if math.isfinite(one) else None for one in self.eigenvalues],
            "condition": self.condition,
            "alignment": self.alignment,
            "trace": self.trace if math.isfinite(self.trace) else None,
            "reduction": self.reduction,
            "method": self.method,
        }


def ntk(
    model: nn.Module,
    loader: Iterable[Any] | Tensor,
    *,
    samples: int = SAMPLES,
    reduction: Reduction = "sum",
    outputs: Outputs | None = None,
    budget: int = BUDGET,
) -> Kernel:
    """Measure the neural tangent kernel `<df(x_i)/dtheta, df(x_j)/dtheta>` at the weights a model has.

    The model runs in eval mode: batch normalisation would make outputs depend on the other samples. Gradients are taken
    sample by sample in the model's dtype, products in float64. Parameters that do not require gradients take no part.

    Args:
        model: As `task` takes it.
        loader: As `task` takes it, or a tensor of inputs. Targets are for the alignment only.
        samples: How many.
        reduction: "sum" adds up the kernels of the outputs; "logit" keeps every output of every sample apart.
        outputs: What of the model's result is meant, as `(batch, k)`; the result itself by default, its `logits` where
            it has some. Of more than 256, as a language model has, at most 32 are taken, evenly spaced.
        budget: Bytes for gradients at the same time. A model that needs more is gone through in groups of parameters.

    Returns:
        The kernel.

    Raises:
        UsageError: An option is outside its range, one parameter alone is over the budget, there are more than 256
            outputs, no parameter requires gradients, or weights or outputs are not finite; and as `task`.
        DataError: As `task`.
    """
    if reduction not in REDUCTIONS:
        raise UsageError(f"reduction must be 'sum' or 'logit', got {excerpt(reduction)}")
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise UsageError(f"budget must be a number of bytes, got {excerpt(budget)}")
    # A loss, so that targets that go by a name are kept from the model.
    gathered = task(model, [loader] if isinstance(loader, Tensor) else loader, F.mse_loss, samples=samples)
    weights = {name: one for name, one in gathered.model.named_parameters() if one.requires_grad and one.numel()}
    if not weights:
        raise UsageError("no parameter of the model requires gradients, so it has no tangent kernel")
    pick = _Pick(outputs)
    with preserved(gathered.model), plain_attention():
        with torch.no_grad():
            first = gathered.batches[0]
            count = pick(gathered.run(first), first.size).shape[1]
        groups = _groups(weights, gathered.samples * count, budget)
        check_finite(gathered, lambda result, batch: pick(result, batch.size), "tangent kernel")
        method = "vmap"
        try:
            values = _summed(gathered, groups, pick, reduction, _by_vmap)
        except _Refused:
            method = "loop"
            values = _summed(gathered, groups, pick, reduction, _by_loop)
    alignment = _alignment(values, _targets(gathered), count, reduction)
    return Kernel(values, reduction, gathered.samples, count, alignment, method, gathered.fingerprint)


class _Pick:
    """Turns what a model returns into a matrix with a row a sample."""

    def __init__(self, function: Outputs | None) -> None:
        self.function = function

    def __call__(self, result: Any, size: int) -> Tensor:
        """Return `(size, k)`.

        Raises:
            UsageError: It is no such tensor.
        """
        found: Any
        if self.function is not None:
            found = self.function(result)
        elif isinstance(result, Tensor):
            found = result
        elif isinstance(result, Mapping):
            found = result.get("logits")
        else:
            found = getattr(result, "logits", None)
        if not isinstance(found, Tensor) or not found.is_floating_point() or not found.dim() or len(found) != size:
            what = "`outputs` returned" if self.function is not None else "the model returned"
            shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else excerpt(result)
            raise UsageError(f"{what} {shown}; a kernel needs numbers with a row for each of the {size} samples")
        rows = found.reshape(size, -1)
        count = rows.shape[1]
        return rows if count <= MOST_OUTPUTS else rows[:, :: -(-count // TAKEN)]


def _groups(weights: Mapping[str, nn.Parameter], rows: int, budget: int) -> list[list[str]]:
    """Divide parameters so that the gradients of each group fit into the budget.

    Raises:
        UsageError: Those of a single one do not.
    """
    # One parameter at a time is also held in float64.
    sizes = {name: rows * one.numel() * (one.element_size() + 8) for name, one in weights.items()}
    name, most = max(sizes.items(), key=lambda item: item[1])
    if most > budget:
        raise UsageError(
            f"the gradients of {name} alone take {rows} x {weights[name].numel()} numbers, {most / 1e6:,.0f} MB, and"
            f" the budget is {budget / 1e6:,.0f} MB; take fewer samples or outputs, or raise `budget`"
        )
    groups: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if size > left:
            groups.append([])
            left = budget
        groups[-1].append(name)
        left -= size
    return groups


def _summed(gathered: Task, groups: Sequence[Sequence[str]], pick: _Pick, reduction: str, jacobian: Jacobian) -> Tensor:
    """Return the sum of the kernels of all parameters, in float64."""
    values = torch.zeros((), dtype=torch.float64)
    for names in groups:
        parts = [jacobian(gathered, batch, names, pick) for batch in gathered.batches]
        for name in names:
            one = torch.cat([part.pop(name) for part in parts]).double()
            rows = one.flatten(1) if reduction == "sum" else one.flatten(0, 1).flatten(1)
            values = values + (rows @ rows.T).cpu()
    return values


class _Refused(Exception):
    """`torch.func` does not differentiate the model sample by sample, or does it wrong."""


def _by_vmap(gathered: Task, batch: Batch, names: Sequence[str], pick: _Pick) -> dict[str, Tensor]:
    """Return the Jacobians of a batch, `(size, k, *shape)` for each parameter, all samples at the same time.

    One output at a time: under two nested `vmap`s the gradient of PReLU's slope is wrong, without an error where the
    numbers of samples and outputs are the same (torch 2.13). For such surprises the first sample is checked.

    Raises:
        _Refused: It fails, in whatever way a model may fail under a transform, or is wrong.
    """
    first = _by_loop(gathered, next(_singles(batch)), names, pick)
    try:
        found = _mapped(gathered, batch, names, pick, count=first[names[0]].shape[1])
    except Exception as error:
        raise _Refused from error
    for name, one in first.items():
        # A gradient may be infinite where the output is not, as that of a root is at 0.
        largest = float(one.abs().nan_to_num(0.0, 0.0, 0.0).max())
        if not torch.allclose(found[name][:1], one, rtol=SAME, atol=SAME * largest, equal_nan=True):
            raise _Refused
    return found


def _mapped(gathered: Task, batch: Batch, names: Sequence[str], pick: _Pick, *, count: int) -> dict[str, Tensor]:
    every = {name: one.detach() for name, one in gathered.model.named_parameters()}
    moving = {name: every[name] for name in names}
    values, structure = tree_flatten((batch.inputs, dict(batch.keywords)))
    axes = [0 if _goes_by_sample(one, batch) else None for one in values]

    def output(moved: dict[str, Tensor], which: int, *single: Any) -> Tensor:
        whole = [one if axis is None else one[None] for one, axis in zip(single, axes, strict=True)]
        inputs, keywords = tree_unflatten(whole, structure)
        return pick(called_with(gathered.model, {**every, **moved}, inputs, keywords), 1)[0, which]

    mapped = vmap(grad(output), in_dims=(None, None, *axes), randomness="different")
    rows: list[dict[str, Tensor]] = [mapped(moving, which, *values) for which in range(count)]
    return {name: torch.stack([row[name].detach() for row in rows], 1) for name in names}


def _by_loop(gathered: Task, batch: Batch, names: Sequence[str], pick: _Pick) -> dict[str, Tensor]:
    """Return the same as `_by_vmap`, by a forward and a backward pass for each output of each sample."""
    every = dict(gathered.model.named_parameters())
    for name, one in every.items():
        one.requires_grad_(name in names)
    chosen = [every[name] for name in names]
    rows: list[list[Tensor]] = []
    for single in _singles(batch):
        index = 0
        while True:
            outputs = pick(gathered.run(single), 1)[0]
            if index == len(outputs):
                break
            found = gradients(outputs[index], chosen) if outputs.requires_grad else [None] * len(chosen)
            rows.append([torch.zeros_like(p) if g is None else g for g, p in zip(found, chosen, strict=True)])
            index += 1
    stacked = [torch.stack(column).unflatten(0, (batch.size, -1)) for column in zip(*rows, strict=True)]
    return dict(zip(names, stacked, strict=True))


def _singles(batch: Batch) -> Iterator[Batch]:
    """Yield batches of one sample."""
    for index in range(batch.size):

        def one_of(value: Any, index: int = index) -> Any:
            return value[index : index + 1] if _goes_by_sample(value, batch) else value

        inputs, keywords, target = tree_map(one_of, (batch.inputs, dict(batch.keywords), batch.target))
        yield Batch(inputs, keywords, target, 1)


def _goes_by_sample(value: Any, batch: Batch) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch.size


def _targets(gathered: Task) -> Tensor | None:
    """Return targets as columns of numbers, one hot for classes; None where they are neither."""
    every = [batch.target for batch in gathered.batches]
    if not all(isinstance(one, Tensor) and one.dim() and not one.is_complex() for one in every):
        return None
    joined = torch.cat([one.detach().cpu() for one in every])
    if joined.is_floating_point():
        return joined.flatten(1).double() if joined.dim() > 1 else joined[:, None].double()
    if joined.dim() > 1 or bool((joined < 0).any()):
        return None
    return F.one_hot(joined.long()).double()


def _alignment(values: Tensor, targets: Tensor | None, count: int, reduction: str) -> float | None:
    """Return the centred alignment of a kernel with the targets."""
    if targets is None or len(targets) < 2 or not torch.isfinite(targets).all() or not torch.isfinite(values).all():
        return None
    samples = len(targets)
    centre = torch.eye(samples, dtype=torch.float64) - 1 / samples
    if reduction == "logit":
        if targets.shape[1] > count:
            return None
        columns = F.pad(targets, (0, count - targets.shape[1])).flatten()[:, None]
        centre = torch.kron(centre, torch.eye(count, dtype=torch.float64))
    else:
        columns = targets
    columns = centre @ columns
    wanted = columns @ columns.T
    return _cosine(centre @ values @ centre, wanted) if bool(wanted.any()) else None


def _cosine(first: Tensor, second: Tensor) -> float:
    sizes = torch.linalg.matrix_norm(first) * torch.linalg.matrix_norm(second)
    return float((first * second).sum() / sizes)
