"""The engines against the function, and what they keep for the backward pass."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.layout import Halves
from softknee._engine.select import engine
from softknee.nn.options import stored
from softknee.testing._case import cases
from softknee.testing._subject import CHANNELS, SEED, Subject

if TYPE_CHECKING:
    from softknee._spec import Spec
    from softknee.nn import Activation
    from softknee.testing._case import Case

# Enough elements for every engine, by kind.
ROWS = {"elementwise": 2000, "gated": 6000}
# A table's relative errors of value, slope and sums over elements; kernels are better.
VALUE, SLOPE, SUM = 2e-6, 2e-5, 1e-3
ROUNDINGS = 32
# Bytes for an element, and for what does not depend on their number.
SAVED, SPARE = 4, 2**16


def check_engines(activation: Spec | str, **values: Any) -> None:
    """Check that kernels and tables give what the function gives in float64: value and all gradients.

    In half precision, values only. Tables are not asked for where the engine itself would not use one.

    Args:
        activation: As in `check_values`; of single elements or pairs.
        **values: As in `check_values`.

    Raises:
        AssertionError: A number is off by more than an accurate table or 32 roundings explain.
    """
    subject = Subject(activation, values)
    for case in cases(subject.spec, None, values):
        module: Any = case.module
        x, g = _normal(2.0, 1, case), _normal(1.0, 2, case)
        g = _elements(module, g)[0]
        value, slopes, by, condition, slope_conditions = _exact(subject, module, x)
        for name in ("fused", "auto"):
            with engine(name):
                got, by_x, *sums = _run(module, x, g)
            tolerance = VALUE * value.abs().max() + ROUNDINGS * torch.finfo(x.dtype).eps * condition
            _within(case, f"engine {name}", got, value, tolerance)
            for part, slope, slope_condition in zip(_elements(module, by_x), slopes, slope_conditions, strict=True):
                largest = (g.abs() * (slope.abs().max() + slope_condition)).double()
                _within(case, f"gradient of engine {name}", part, g * slope, SLOPE * largest)
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
    """Check that a float32 element of the input costs at most 4 bytes kept for the backward pass.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: More is kept.
    """
    for case in cases(activation, None, values):
        x = _normal(1.0, SEED, case, rows=2**17 // CHANNELS).requires_grad_()
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            case.module(x)
        if sum(kept.values()) > SAVED * x.numel() + SPARE:
            case.fail("memory", f"{sum(kept.values()) / x.numel():.1f} bytes an element", f"at most {SAVED}")


def _normal(scale: float, seed: int, case: Case, rows: int | None = None) -> Tensor:
    columns = 2 * CHANNELS if case.kind == "gated" else CHANNELS
    return scale * torch.randn(rows or ROWS[case.kind], columns, generator=torch.Generator().manual_seed(seed))


def _elements(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Return what the function of a module takes element by element: gate and value of pairs, or the input itself."""
    if module.spec.kind != "gated":
        return (x,)
    return Halves(module.gate_first, module.interleaved).of(x, module.dim % x.dim())


def _run(module: Activation, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], g)]


def _exact(
    subject: Subject, module: Activation, x: Tensor
) -> tuple[Tensor, list[Tensor], dict[str, Tensor], Tensor, list[Tensor]]:
    """Return what a module gives in float64, and how it depends on the rounding of the inputs.

    Returns:
        Value, slopes by the elements that the function takes, derivatives by the parameters, and how much relative
        changes of 1 in all inputs change value and slopes.
    """
    elements = [part.double().clone().requires_grad_() for part in _elements(module, x)]
    parameters, x = stored(subject.spec), elements[0]
    arguments = [
        _spread(value, x, vector=param.vector) for param, value in zip(parameters, module._values(), strict=True)
    ]
    index = {"channel": torch.arange(CHANNELS)} if subject.spec.channelwise else {}
    y = subject.spec.function(*elements, *arguments, **index)
    inputs = [*elements, *arguments]
    first = _grad(y, inputs, create_graph=True)
    slopes, by = first[: len(elements)], first[len(elements) :]
    condition, *slope_conditions = [
        torch.stack([_total(one * to, x) for one, to in zip(ones, inputs, strict=True)]).sum(0)
        for ones in (first, *(_grad(slope, inputs) for slope in slopes))
    ]
    named = {param.name: one.detach() for param, one in zip(parameters, by, strict=True)}
    return y.detach(), [one.detach() for one in slopes], named, condition + y.detach().abs(), slope_conditions


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
    ones = torch.ones_like(y)
    return torch.autograd.grad(
        y, inputs, ones, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
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
