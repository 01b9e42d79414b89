"""The parameters of trainable activations: where they are now, and whether they are trained as they should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from softknee._errors import UsageError
from softknee._report.plain import finite
from softknee._surgery.find import checked, sites
from softknee._surgery.trace import unwrapped
from softknee.nn.activation import Activation
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softknee._diagnose.flow.gradients import GradientFlow
    from softknee._surgery.places import Site

# How near to a bound counts as at it, relative to the bound, or to 1 where that is smaller.
AT_BOUND = 1e-6


@dataclass(frozen=True)
class TrainedParameter:
    """One parameter of an activation.

    Attributes:
        site: Name of the site; of the first where several share the activation.
        path: Of the activation.
        parameter: Its name there.
        count: Number of its elements.
        mean: Of its finite elements, not a number without any.
        min: The smallest.
        max: The largest.
        start: What it started from, None if that is not known or not one number.
        shared: Whether the activation, or the parameter, acts at several places.
        trained: Whether it requires gradients.
        optimised: Whether an optimizer has it, None if none was given.
        decayed: Whether it is under weight decay there, None if none was given.
        at_bound: How many elements lie at an end of the range allowed, or beyond.
        nonfinite: How many are infinite or not a number.
        gradient: Root mean square of the gradient, None if it was not measured.
    """

    site: str
    path: str
    parameter: str
    count: int
    mean: float
    min: float
    max: float
    start: float | None
    shared: bool
    trained: bool
    optimised: bool | None
    decayed: bool | None
    at_bound: int
    nonfinite: int
    gradient: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        spread = {"min": finite(self.min), "mean": finite(self.mean), "max": finite(self.max)}
        return {
            **{name: value for name, value in vars(self).items() if name not in spread},
            "value": finite(self.mean) if self.count == 1 else spread,
            "start": finite(self.start),
            "gradient": finite(self.gradient),
        }


@dataclass(frozen=True)
class Trainable:
    """The parameters of the trainable activations of a model.

    Attributes:
        parameters: In the order in which the activations are registered.
    """

    parameters: tuple[TrainedParameter, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return plain data."""
        return [one.to_dict() for one in self.parameters]


def trainable(
    model: nn.Module,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    gradients: GradientFlow | None = None,
) -> Trainable:
    """Look at the parameters of the activations of a model, without running it.

    Args:
        model: Any module; activations that are modules count, of softknee, of torch, or of a class that a test shows to
            act on single elements.
        optimizer: What trains it, one or several; None leaves open whether a parameter is trained.
        gradients: Of the same model, for the sizes of the gradients.

    Returns:
        A row for each parameter of each activation.

    Raises:
        UsageError: The model is no module, or an optimizer is none.
    """
    found = checked(model)
    decays = None if optimizer is None else _decays(optimizer)
    sizes = {one.path: one.gradient for one in gradients.layers} if gradients is not None else {}
    names = {parameter: name for name, parameter in found.named_parameters()}
    acting = [site for site in sites(found) if site.how == "module"]
    users = _users(found, acting)
    seen: set[nn.Parameter] = set()
    rows = []
    for site in acting:
        for module, name, parameter in _parameters(found.get_submodule(site.path)):
            if parameter in seen:
                continue
            seen.add(parameter)
            gradient = sizes.get(names[parameter])
            values = unwrapped(parameter.detach()).double().flatten()
            rows.append(
                TrainedParameter(
                    site=site.name,
                    path=site.path,
                    parameter=name,
                    **_summary(values),
                    start=_start(module, name.rpartition(".")[2]),
                    shared=site.shared or users[parameter] > 1,
                    trained=parameter.requires_grad,
                    optimised=None if decays is None else parameter in decays,
                    decayed=None if decays is None else bool(decays.get(parameter, 0.0)),
                    at_bound=_at_bound(module, name.rpartition(".")[2], values),
                    gradient=None if gradient is None else gradient.scale,
                )
            )
    return Trainable(tuple(rows))


def _decays(optimizer: Any) -> dict[nn.Parameter, float]:
    """Return the weight decay of every parameter that is trained.

    Raises:
        UsageError: Something is no optimizer.
    """
    given = [optimizer] if not isinstance(optimizer, Iterable) else list(optimizer)
    wrong = next((one for one in given if not isinstance(one, Optimizer)), None)
    if wrong is not None:
        raise UsageError(f"optimizer must be a torch.optim.Optimizer or several of them, got {excerpt(wrong)}")
    return {
        parameter: float(group.get("weight_decay") or 0.0)
        for one in given
        for group in one.param_groups
        for parameter in group["params"]
    }


def _parameters(activation: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield the parameters of an activation with the module that holds each, and their names in the activation."""
    for path, module in activation.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield module, f"{path}.{name}".lstrip("."), parameter


def _users(model: nn.Module, acting: list[Site]) -> dict[nn.Parameter, int]:
    """Return by how many activations, as modules, each parameter is held."""
    modules = {model.get_submodule(site.path) for site in acting}
    counts: dict[nn.Parameter, int] = {}
    for module in modules:
        for parameter in {one for _, _, one in _parameters(module)}:
            counts[parameter] = counts.get(parameter, 0) + 1
    return counts


def _summary(values: Tensor) -> dict[str, Any]:
    known = values[values.isfinite()]
    low, mean, high = (known.min(), known.mean(), known.max()) if len(known) else (torch.tensor(math.nan),) * 3
    return {
        "count": len(values),
        "mean": float(mean),
        "min": float(low),
        "max": float(high),
        "nonfinite": len(values) - len(known),
    }


def _start(module: nn.Module, name: str) -> float | None:
    """Return the number that all elements of a parameter started from, None if it is not one."""
    if isinstance(module, Activation):
        default = next((one.default for one in module.spec.parameters if one.name == name), None)
        given = module._given.get(name, default)
        if not isinstance(given, Tensor):
            return None if given is None else float(given)
        return float(given.flatten()[0]) if given.numel() and bool((given == given.flatten()[0]).all()) else None
    # torch keeps it since it can reset it.
    return getattr(module, "init", None) if isinstance(module, nn.PReLU) else None


def _at_bound(module: nn.Module, name: str, values: Tensor) -> int:
    """Return how many elements lie at an end of the range that the source allows, or beyond."""
    specs = module.spec.parameters if isinstance(module, Activation) else ()
    param = next((one for one in specs if one.name == name), None)
    low, high = (-math.inf, math.inf) if param is None else (_or(param.low, -math.inf), _or(param.high, math.inf))
    near = [AT_BOUND * max(1.0, abs(end)) if math.isfinite(end) else 0.0 for end in (low, high)]
    return int(((values <= low + near[0]) | (values >= high - near[1])).logical_and(values.isfinite()).sum())


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
