"""How the gradient of the loss reaches each layer: distributions of gradients, weights and outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from softknee._diagnose.flow.distribution import Counter, Distribution, distribution
from softknee._diagnose.preserve import gradients, preserved
from softknee._diagnose.task import SAMPLES, Task, task
from softknee._report.plain import plain
from softknee._surgery.trace import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softknee._diagnose.task import Loss


@dataclass(frozen=True)
class ParameterFlow:
    """One parameter: a weight, a bias, a factor of a norm, a parameter of an activation.

    Attributes:
        path: Its name in the model; a shared one has its first.
        module: Class of the module that it belongs to.
        kind: `"weight"` if it has two dimensions or more, `"bias"` by its name, `"parameter"` if neither.
        shape: Its shape.
        trained: Whether it requires gradients.
        weight: Of its elements.
        gradient: Of the gradient of the mean loss of the whole sample; None where the loss does not depend on it, or it
            is frozen.
        output: Of the outputs of its module, at the first parameter of that; None elsewhere, and for a module that did
            not run by itself.
        weight_norm: Euclidean norm of its elements.
        gradient_norm: Euclidean norm of the gradient, None where there is none.
        output_gradient: Euclidean norm of the gradient by the outputs of its module, at the first parameter of that.
        ratio: For weights: `output_gradient` over that of the next weight in the order of calls: below 1 where
            gradients vanish on their way back, above 1 where they explode. (Norms of gradients by weights do not tell,
            for they go with the inputs of the layer too.) None for the last one, and where either norm is zero, not
            finite or missing.
    """

    path: str
    module: str
    kind: str
    shape: tuple[int, ...]
    trained: bool
    weight: Distribution
    gradient: Distribution | None
    output: Distribution | None
    weight_norm: float
    gradient_norm: float | None
    output_gradient: float | None = None
    ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain({**vars(self), "relative": self.relative})

    @property
    def relative(self) -> float | None:
        """Norm of the gradient over that of the weights; None without a gradient, or where the weights are zero."""
        return self.gradient_norm / self.weight_norm if self.gradient_norm is not None and self.weight_norm else None


@dataclass(frozen=True)
class GradientFlow:
    """The gradient of a loss, parameter by parameter.

    Attributes:
        loss: Mean loss of the sample.
        samples: Number of samples.
        layers: The parameters in the order in which their modules ran; what did not run comes last.
    """

    loss: float
    samples: int
    layers: tuple[ParameterFlow, ...]

    @property
    def per_layer(self) -> float | None:
        """Geometric mean of the ratios from each weight to the next; None where a gradient is missing or zero."""
        ratios = [one.ratio for one in self.layers if one.ratio is not None]
        weights = sum(one.kind == "weight" for one in self.layers)
        whole = ratios and len(ratios) == weights - 1
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if whole else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain({**vars(self), "per_layer": self.per_layer, "layers": [one.to_dict() for one in self.layers]})


def gradient_flow(
    model: nn.Module, loader: Iterable[Any], loss: Loss = None, *, samples: int = SAMPLES
) -> GradientFlow:
    """Measure how the gradient of the loss reaches each parameter, in eval mode.

    The gradient is that of the mean loss of all samples together: the gradients of batches, weighted by their sizes.
    Every parameter counts: weights, biases, factors of norms, parameters of activations; a shared one once, with all
    that reaches it. The model, its modes, buffers and gradients and the random states are afterwards as before.

    Args:
        model: As in `task`.
        loader: As in `task`.
        loss: As in `task`; the mean over a batch.
        samples: How many to take, from the beginning.

    Returns:
        Distributions and norms, parameter by parameter.

    Raises:
        UsageError: As `task`; or there is no loss.
        DataError: As `task`.
    """
    return _measured(task(model, loader, loss, samples=samples))


def _measured(of: Task) -> GradientFlow:
    """Measure a task as `gradient_flow` does."""
    model = of.model
    with preserved(model):
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        outputs = _Outputs(model)
        total = 0.0
        sums: dict[str, Tensor] = {}
        try:
            for batch in of.batches:
                outputs.share = share = batch.size / of.samples
                loss = of.loss(batch, of.run(batch))
                total += float(loss.detach()) * share
                found = gradients(loss, list(trained.values())) if loss.requires_grad else [None] * len(trained)
                for name, gradient in zip(trained, found, strict=True):
                    if gradient is not None:
                        # Sums of half precision would lose what small batches add.
                        part = gradient.to_dense().to(torch.promote_types(gradient.dtype, torch.float32)) * share
                        sums[name] = sums[name] + part if name in sums else part
        finally:
            outputs.remove()
        return GradientFlow(total, of.samples, _with_ratios(_layers(model, sums, outputs)))


class _Outputs:
    """Counts, through hooks, the outputs of modules with parameters of their own, and the gradients by them.

    Attributes:
        counters: Of the outputs.
        squares: Sums of the squared gradients.
        share: Of the samples, that the present batch has.
    """

    def __init__(self, model: nn.Module) -> None:
        self.counters: dict[nn.Module, Counter] = {}
        self.squares: dict[nn.Module, float] = {}
        self.share = 1.0
        own = [module for module in model.modules() if any(one is not None for one in module._parameters.values())]
        self._hooks = [module.register_forward_hook(self._see) for module in own]

    def _see(self, module: nn.Module, _: Any, output: Any) -> None:
        # Reentrant checkpoints run what they hold twice: first without gradients, then while these are computed.
        again = torch._C._current_graph_task_id() != -1
        counter = self.counters.setdefault(module, Counter())
        for one in tree_flatten(output)[0]:
            if isinstance(one, Tensor) and one.is_floating_point():
                if not again:
                    counter.add(one)
                if one.requires_grad:
                    one.register_hook(partial(self._come, module, self.share))

    def _come(self, module: nn.Module, share: float, gradient: Tensor) -> None:
        self.squares[module] = self.squares.get(module, 0.0) + (_norm(gradient) * share) ** 2

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _layers(model: nn.Module, sums: dict[str, Tensor], outputs: _Outputs) -> list[ParameterFlow]:
    """Return the parameters by the order of the first outputs of their modules."""
    ran = {module: place for place, module in enumerate(outputs.counters)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    owned: dict[str, tuple[nn.Module, bool]] = {}
    for module in model.modules():
        for place, parameter in enumerate(one for one in module._parameters.values() if one is not None):
            owned.setdefault(names[parameter], (module, place == 0))
    ordered = sorted(owned, key=lambda name: ran.get(owned[name][0], len(ran)))
    values = dict(model.named_parameters())
    return [_layer(name, values[name], *owned[name], sums.get(name), outputs) for name in ordered]


def _layer(
    name: str, parameter: nn.Parameter, module: nn.Module, first: bool, gradient: Tensor | None, outputs: _Outputs
) -> ParameterFlow:
    counter = outputs.counters.get(module) if first else None
    squares = outputs.squares.get(module) if first else None
    return ParameterFlow(
        path=name,
        module=type(module).__name__,
        kind=_kind(name, parameter),
        shape=tuple(parameter.shape),
        trained=parameter.requires_grad,
        weight=distribution(parameter),
        gradient=None if gradient is None else distribution(gradient),
        output=counter.distribution() if counter is not None and counter.total else None,
        weight_norm=_norm(parameter),
        gradient_norm=None if gradient is None else _norm(gradient),
        output_gradient=None if squares is None else math.sqrt(squares),
    )


def _kind(name: str, parameter: nn.Parameter) -> str:
    if parameter.dim() > 1:
        return "weight"
    return "bias" if "bias" in name.rpartition(".")[2] else "parameter"


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(unwrapped(x.detach()).double()))


def _with_ratios(layers: list[ParameterFlow]) -> tuple[ParameterFlow, ...]:
    """Add to each weight how the gradient by its outputs compares with that of the next."""
    weights = [one for one in layers if one.kind == "weight"]
    ratios = {one.path: _ratio(one.output_gradient, after.output_gradient) for one, after in pairwise(weights)}
    return tuple(replace(one, ratio=ratios.get(one.path)) for one in layers)


def _ratio(norm: float | None, after: float | None) -> float | None:
    usable = all(one is not None and 0 < one < math.inf for one in (norm, after))
    return norm / after if usable and norm is not None and after is not None else None
