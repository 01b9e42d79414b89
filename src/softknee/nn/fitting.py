"""Sets the trained parameters of an activation so that it comes close to a target function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._errors import UnknownActivation, UsageError
from softknee.nn.names import BY_NAME, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softknee._spec import Param, Spec
    from softknee.nn.elementwise import Elementwise

    Function = Callable[[Tensor], Tensor]

# Evenly spaced points of the interval that count, and those between which the largest distance is looked for.
POINTS = 1001
CHECKED = 10 * (POINTS - 1) + 1
STEPS = 200
# A step that makes the sum of squares smaller by less than this part is the last.
ENOUGH = 1e-9
FIRST_DAMPING, MOST_DAMPING = 1e-6, 1e8
SEED = 0


def fit_(module: Elementwise, target: Function | str, *, interval: tuple[float, float] = (-3.0, 3.0)) -> float:
    """Bring an activation as close to a target function as its trained parameters allow, by least squares.

    Damped Gauss-Newton steps in float64 lead there, the first undamped: where the function is linear in its parameters,
    as polynomials and splines are, it is the solution, and entries that do not count in the interval stay as they are.
    Other functions may have several optima; the best that is found from the present values and from the ways to draw
    vectors is taken. Nothing is drawn; last digits may differ between machines. Where there are vectors, numbers beside
    them stay as they are, as do parameters that are not trained; channels are fitted one by one.

    Outside the interval the result is on its own; one of the unsafe rational functions may have poles there.

    Args:
        module: An activation with trained parameters, or vectors that its source trains, such as a rational function.
        target: A function of tensors, or the name of a catalogued one, which is taken at its default parameters.
        interval: Where they are to be close.

    Returns:
        The largest distance in the interval.

    Raises:
        UsageError: The activation has no such parameters, the interval is none, or the target is not finite in it.
        UnknownActivation: No activation has the target's name.
    """
    spec = module.spec
    names = _names(module)
    if not names or spec.kind != "elementwise":
        raise UsageError(f"{spec.name} has no trained parameters to fit; swish, a rational function or a spline has")
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"interval must be two finite numbers in order, got {low:g}, {high:g}")
    function = _named(target) if isinstance(target, str) else target
    x, between = (torch.linspace(low, high, count, dtype=torch.float64, device="cpu") for count in (POINTS, CHECKED))
    wanted, wanted_between = (function(points).detach().double().cpu() for points in (x, between))
    if not wanted_between.isfinite().all():
        raise UsageError(f"the target is not finite everywhere between {low:g} and {high:g}")
    solved: dict[Any, dict[str, Tensor]] = {}
    worst = 0.0
    for channel in range(module.per_channel or 1):
        values = _values(module, channel)
        key = tuple(tuple(value.tolist()) if isinstance(value, Tensor) else value for value in values.values())
        if key not in solved:
            solved[key] = _closest(spec, names, values, x, wanted)
        _store(module, channel, solved[key])
        distance = spec.function(between, *_values(module, channel).values()) - wanted_between
        worst = max(worst, float(distance.abs().max()))
    return worst


def _names(module: Elementwise) -> list[str]:
    """Return the parameters to fit: vectors that the source trains; without any, the numbers that the module trains."""
    trained = dict(module.named_parameters(recurse=False))
    params = module.spec.parameters
    vectors = [param.name for param in params if param.vector and param.trainable]
    return vectors or [param.name for param in params if param.name in trained and not param.vector]


def _named(name: str) -> Function:
    """Return a catalogued function at its default parameters.

    Raises:
        UnknownActivation: There is none of that name.
        UsageError: It is not a function of single elements.
    """
    if name not in BY_NAME:
        raise UnknownActivation(unknown(name))
    spec = BY_NAME[name]
    if spec.kind != "elementwise" or spec.channelwise:
        raise UsageError(f"{name} is no function of single elements, so nothing can be fitted to it")
    drawn = next(iter(_drawn(spec, spec.terms)), {})
    values = [drawn.get(param.name, param.default) for param in spec.parameters]
    return lambda x: spec.function(x, *values)


def _drawn(spec: Spec, terms: int) -> Iterator[dict[str, Tensor]]:
    """Yield what each way to draw the vectors gives."""
    for draw in spec.initializations.values():
        drawn = draw(terms, torch.Generator().manual_seed(SEED))
        yield {name: value.double() for name, value in drawn.items()}


def _values(module: Elementwise, channel: int) -> dict[str, Any]:
    """Return the parameters of a channel in float64, scalars as numbers."""
    values: dict[str, Any] = {}
    vectors = {param.name for param in module.spec.parameters if param.vector}
    for name, value in module.named_values().items():
        values[name] = value
        if isinstance(value, Tensor):
            shared = value.double().cpu()
            own = shared[..., channel] if module.per_channel is not None else shared
            values[name] = own if name in vectors else own.item()
    return values


def _store(module: Elementwise, channel: int, found: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in found.items():
            stored = getattr(module, name)
            (stored[..., channel] if module.per_channel is not None else stored).copy_(value)


def _closest(spec: Spec, names: list[str], values: dict[str, Any], x: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Return the parameters of the best function found."""
    params = [param for param in spec.parameters if param.name in names]
    vectors = [param.name for param in params if param.vector]
    lengths = [len(values[param.name]) if param.vector else 1 for param in params]

    def found(entries: Tensor) -> dict[str, Tensor]:
        parts = zip(params, entries.split(lengths), strict=True)
        return {param.name: part if param.vector else part[0] for param, part in parts}

    def function(entries: Tensor) -> Tensor:
        new = found(entries)
        allowed = all(_is_allowed(param, new[param.name]) for param in params if not param.vector)
        return spec.function(x, *{**values, **new}.values()) if allowed else x * math.nan * entries.sum(0)

    starts = [values]
    if vectors:
        # Lengths and terms differ by the same number whatever the terms.
        default = next(_drawn(spec, spec.terms))
        terms = spec.terms + len(values[vectors[0]]) - len(default[vectors[0]])
        # Where each vector has a length of its own, what is drawn may have others.
        drawn = [{**values, **start} for start in _drawn(spec, terms)]
        starts += [start for start in drawn if all(len(start[name]) == len(values[name]) for name in vectors)]
    entries = [
        torch.cat([torch.as_tensor(start[name], dtype=x.dtype).reshape(-1) for name in names]) for start in starts
    ]
    _, best = min((_improved(function, start, x, wanted) for start in entries), key=lambda pair: pair[0])
    return found(best)


def _is_allowed(param: Param, value: Tensor) -> bool:
    """Return whether a number is in the range of its parameter."""
    low, high = (-math.inf if param.low is None else param.low), (math.inf if param.high is None else param.high)
    least, most = (float(bound) for bound in value.detach().aminmax())
    return low <= least and most <= high and not (param.open_low and least <= low)


def _improved(function: Function, start: Tensor, x: Tensor, wanted: Tensor) -> tuple[float, Tensor]:
    """Return the sum of squares and the entries that damped Gauss-Newton steps lead to."""
    entries, damping = start, 0.0
    residual, jacobian = _residual(function, entries, x, wanted)
    loss = float(residual.square().sum())
    for _ in range(STEPS):
        trial = entries + _step(jacobian, residual, damping)
        new_residual, new_jacobian = _residual(function, trial, x, wanted)
        new_loss = float(new_residual.square().sum())
        # Not so where it is not a number.
        if new_loss < loss:
            done = new_loss > (1 - ENOUGH) * loss
            entries, residual, jacobian, loss = trial, new_residual, new_jacobian, new_loss
            damping = damping / 10 if damping > FIRST_DAMPING else 0.0
        else:
            damping = max(10 * damping, FIRST_DAMPING)
            done = damping > MOST_DAMPING
        if done:
            break
    return (loss if math.isfinite(loss) else math.inf), entries


def _residual(function: Function, entries: Tensor, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is missing at each point, and the derivatives there by each entry, `(points, entries)`."""
    # A copy of each entry for each point: then one backward pass has all derivatives.
    spread = entries[:, None].expand(-1, len(x)).clone().requires_grad_()
    with torch.enable_grad():
        values = function(spread)
        (jacobian,) = torch.autograd.grad(values.sum(), spread)
    return wanted - values.detach(), jacobian.T


def _step(jacobian: Tensor, residual: Tensor, damping: float) -> Tensor:
    """Return the smallest of the best steps, in units in which all entries weigh the same."""
    scale = jacobian.norm(dim=0)
    scale = torch.where(scale > 0, scale, 1.0)
    rows = torch.cat([jacobian / scale, math.sqrt(damping) * torch.eye(len(scale), dtype=scale.dtype)])
    right = torch.cat([residual, residual.new_zeros(len(scale))])
    if not (rows.isfinite().all() and right.isfinite().all()):
        return torch.zeros_like(scale)
    solution: Tensor = torch.linalg.lstsq(rows, right[:, None], driver="gelsd").solution
    return solution[:, 0] / scale
