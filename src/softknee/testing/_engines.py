"""The engines against the function, and what they keep for the backward pass."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.select import engine
from softknee.testing._case import cases
from softknee.testing._subject import CHANNELS, SEED, Subject

if TYPE_CHECKING:
    from softknee._spec import Spec
    from softknee.nn import Elementwise
    from softknee.testing._case import Case

# Enough elements for every engine.
ROWS = 2000
# A table's relative errors of value, slope and sums over elements; kernels are better.
VALUE, SLOPE, SUM = 2e-6, 2e-5, 1e-3
ROUNDINGS = 32
# Bytes for an element, and for what does not depend on their number.
SAVED, SPARE = 4, 2**16


def check_engines(activation: Spec | str, **values: Any) -> None:
    """Check that kernels and tables give what the function gives in float64: value and all gradients.

    In half precision, values only. Tables are not asked for where the engine itself would not use one.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A number is off by more than an accurate table or 32 roundings explain.
    """
    subject = Subject(activation, values)
    x, g = _normal(2.0, 1), _normal(1.0, 2)
    for case in cases(subject.spec, None, values):
        module: Any = case.module
        value, slope, by, condition, slope_condition = _exact(subject, module, x)
        for name in ("fused", "auto"):
            with engine(name):
                got, by_x, *sums = _run(module, x, g)
            tolerance = VALUE * value.abs().max() + ROUNDINGS * torch.finfo(x.dtype).eps * condition
            _within(case, f"engine {name}", got, value, tolerance)
            largest = (g.abs() * (slope.abs().max() + slope_condition)).double()
            _within(case, f"gradient of engine {name}", by_x, g * slope, SLOPE * largest)
            for (key, parameter), total in zip(module.named_parameters(), sums, strict=True):
                shape = {"vector": by[key].dim() > x.dim(), "per_channel": module.per_channel is not None}
                wanted, size = (_summed(parameter, part, **shape) for part in (g * by[key], (g * by[key]).abs()))
                _within(case, f"gradient of {key} by engine {name}", total, wanted, SUM * size + 1e-30)
        for dtype in (torch.bfloat16, torch.float16):
            rounded = x.to(dtype)
            value, _, _, condition, _ = _exact(subject, module, rounded)
            eps = torch.finfo(dtype).eps
            _within(case, f"engine in {dtype}", module(rounded), value, 4 * eps * (value.abs() + condition + 0.01))


def check_memory(activation: Spec | str, **values: Any) -> None:
    """Check that a float32 element costs at most 4 bytes kept for the backward pass.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: More is kept.
    """
    for case in cases(activation, None, values):
        x = torch.randn(2**17 // CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(SEED)).requires_grad_()
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            case.module(x)
        if sum(kept.values()) > SAVED * x.numel() + SPARE:
            case.fail("memory", f"{sum(kept.values()) / x.numel():.1f} bytes an element", f"at most {SAVED}")


def _normal(scale: float, seed: int) -> Tensor:
    return scale * torch.randn(ROWS, CHANNELS, generator=torch.Generator().manual_seed(seed))


def _run(module: Elementwise, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], g)]


def _exact(
    subject: Subject, module: Elementwise, x: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
    """Return value, slope and derivatives by the parameters in float64, and how rounded inputs change the first two."""
    x = x.double().requires_grad_()
    parameters = subject.spec.parameters
    arguments = [
        _spread(value, x, vector=param.vector) for param, value in zip(parameters, module._values(), strict=True)
    ]
    index = {"channel": torch.arange(CHANNELS)} if subject.spec.channelwise else {}
    y = subject.spec.function(x, *arguments, **index)
    inputs = [x, *arguments]
    slope, *by = _grad(y, inputs, create_graph=True)
    conditions = [
        torch.stack([_total(one * to, x) for one, to in zip(ones, inputs, strict=True)]).sum(0)
        for ones in ([slope, *by], _grad(slope, inputs))
    ]
    named = {param.name: one.detach() for param, one in zip(parameters, by, strict=True)}
    return y.detach(), slope.detach(), named, conditions[0] + y.detach().abs(), conditions[1]


def _spread(value: Any, x: Tensor, *, vector: bool) -> Tensor:
    """Return a stored parameter with a copy for each element, behind its terms."""
    tensor = torch.as_tensor(value, dtype=x.dtype).detach()
    terms, channels = tensor.shape[: int(vector)], tensor.shape[int(vector) :]
    shaped = tensor.reshape(*terms, *[1] * (x.dim() - 1), *(channels or (1,)))
    return shaped.expand(*terms, *x.shape).clone().requires_grad_()


def _total(part: Tensor, x: Tensor) -> Tensor:
    """Return the sum of sizes over the terms of a vector."""
    return part.detach().abs().reshape(-1, *x.shape).sum(0)


def _summed(parameter: Tensor, part: Tensor, *, vector: bool, per_channel: bool) -> Tensor:
    """Add up what elements contribute, `(terms, *x.shape)` for a vector, to the gradient of a parameter."""
    rows = part.sum(int(vector))
    return (rows if per_channel else rows.sum(-1)).reshape(parameter.shape)


def _grad(y: Tensor, inputs: list[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    if not y.requires_grad:
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(
        y, inputs, torch.ones_like(y), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _within(case: Case, check: str, got: Tensor, wanted: Tensor, slack: Tensor) -> None:
    excess = (got.double() - wanted).abs() - slack
    i = int(excess.argmax())
    if not (excess <= 0).all():
        case.fail(
            check,
            got.flatten()[i].item(),
            f"{wanted.flatten()[i].item()} within {slack.expand_as(wanted).flatten()[i].item():.1e}",
        )
