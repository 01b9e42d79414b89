"""Which activation of the catalogue a formula is."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import torch

from softknee._expression.fingerprint import POINTS, SAME, affine, difference, fingerprint, fit
from softknee._expression.parse import parse
from softknee._expression.tree import Expression
from softknee.functional import SPECS
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from softknee._spec import Param, Spec

# Parameters are fitted from the defaults, and from these multiples of them (or numbers, of a default of 0).
STARTS = ((1.0, 0.1), (0.4, -0.5), (2.5, 1.0))
MOST_PARAMETERS = 4
INPUT_SCALES = (0.5, 2.0, -1.0)
# Scales beyond these make almost anything of a function.
SMALLEST_SCALE, LARGEST_SCALE = 1e-2, 1e2
# Decimals that found numbers are tried with, so that 1.702 is not 1.7020000000001.
DECIMALS = (2, 4, 6, 8)


@dataclass(frozen=True)
class Match:
    """What a function is: `scale * name(input_scale * x) + shift`.

    Attributes:
        name: In the catalogue.
        parameters: Values found.
        scale: Of the output.
        shift: Of the output.
        input_scale: Of the input.
        difference: Largest difference at the points compared, relative where values are large.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    shift: float = 0.0
    input_scale: float = 1.0
    difference: float = 0.0

    def __str__(self) -> str:
        if (self.scale, self.shift, self.input_scale) == (1.0, 0.0, 1.0):
            values = ", ".join(f"{name} = {value:g}" for name, value in self.parameters.items())
            return f"{self.name} with {values}" if values else self.name
        inner = "x" if self.input_scale == 1 else "-x" if self.input_scale == -1 else f"{self.input_scale:g} * x"
        scale = "" if self.scale == 1 else "-" if self.scale == -1 else f"{self.scale:g} * "
        shift = f" {'-' if self.shift < 0 else '+'} {abs(self.shift):g}" if self.shift else ""
        return f"{scale}{self.name}({inner}){shift}"


def recognise(
    activation: str | Expression | Callable[[Tensor], Tensor], candidates: Iterable[Spec] = SPECS, **values: float
) -> Match | None:
    """Say which known activation a function is, if any: exactly, with other parameters, or scaled and shifted.

    Args:
        activation: A formula, or a function of a tensor.
        candidates: The activations it may be; those of one element, without vector parameters, are compared.
        **values: Of the parameters of a formula.

    Returns:
        The simplest match; None where there is none.
    """
    if isinstance(activation, str):
        activation = parse(activation, FUNCTIONS)
    if isinstance(activation, Expression):
        # Simpler forms overflow less.
        expression = activation.simplify()
        target = fingerprint(lambda x: expression(x, *[values[name] for name in expression.parameters]))
    else:
        target = fingerprint(activation)
    if target is None or bool((target == target[0]).all()):
        return None
    known = sorted((spec for spec in candidates if _is_comparable(spec)), key=lambda spec: len(spec.parameters))
    tried = ((way, spec) for way in (_as_it_is, _moved, _with_parameters, _rescaled) for spec in known)
    with _one_thread():
        return next(filter(None, (way(spec, target) for way, spec in tried)), None)


def exactly(values: Tensor) -> str | None:
    """Return the name of the activation that has these values at the fixed points with its defaults, None if none has.

    Args:
        values: A fingerprint, in float64; some may not be finite.
    """
    if not bool(values.isfinite().all()) or bool((values == values[0]).all()):
        return None
    names, table = _table()
    same = (((values - table).abs() / (1 + values.abs())).amax(dim=1) < SAME).tolist()
    return next((name for name, found in zip(names, same, strict=True) if found), None)


@cache
def _table() -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the catalogue, of fewest parameters first, and their fingerprints at the defaults."""
    known = sorted((spec for spec in SPECS if _is_comparable(spec)), key=lambda spec: len(spec.parameters))
    rows = [(spec.name, values) for spec in known for values in (_values(spec),) if values is not None]
    return tuple(name for name, _ in rows), torch.stack([values for _, values in rows])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from waking other threads for a hundred numbers, which on a busy machine takes them a long time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_comparable(spec: Spec) -> bool:
    plain = spec.kind == "elementwise" and not spec.channelwise and not any(param.vector for param in spec.parameters)
    return plain and all(param.default is not None for param in spec.parameters)


def _values(spec: Spec) -> Tensor | None:
    """Return the fingerprint of an activation at its defaults."""
    return _values_at(spec.function, tuple(param.default for param in spec.parameters))


@lru_cache(maxsize=1024)
def _values_at(function: Callable[..., Tensor], values: tuple[float | None, ...]) -> Tensor | None:
    return fingerprint(lambda x: function(x, *values))


def _as_it_is(spec: Spec, target: Tensor) -> Match | None:
    values = _values(spec)
    found = math.inf if values is None else difference(target, values)
    return Match(spec.name, difference=found) if found < SAME else None


def _with_parameters(spec: Spec, target: Tensor) -> Match | None:
    """Match an activation with other values of its parameters."""
    if not 0 < len(spec.parameters) <= MOST_PARAMETERS or any(param.integer for param in spec.parameters):
        return None

    def residual(sets: Tensor) -> Tensor:
        columns = [_inside(param, column[:, None]) for param, column in zip(spec.parameters, sets.T, strict=True)]
        return _relative(spec.function(POINTS.expand(len(sets), -1), *columns), target)

    for scale, elsewhere in STARTS:
        found, worst = fit(residual, [(param.default or 0.0) * scale or elsewhere for param in spec.parameters])
        if worst < SAME:
            plain, worst = _rounded(found, residual)
            values = zip(spec.parameters, plain.tolist(), strict=True)
            return Match(spec.name, {param.name: value for param, value in values}, difference=worst)
    return None


def _inside(param: Param, values: Tensor) -> Tensor:
    """Return values moved into the range of a parameter."""
    low = -math.inf if param.low is None else param.low + 1e-6 * param.open_low
    return values.clamp(low, math.inf if param.high is None else param.high)


def _relative(values: Tensor, target: Tensor) -> Tensor:
    return (values - target) / (1 + target.abs())


def _moved(spec: Spec, target: Tensor) -> Match | None:
    """Match a multiple of an activation, with a number added."""
    values = _values(spec)
    return None if values is None else _scaled(spec, target, 1.0, values)


def _rescaled(spec: Spec, target: Tensor) -> Match | None:
    """Match a multiple of an activation of a multiple of `x`, with a number added."""
    if spec.parameters or _values(spec) is None:
        return None

    def residual(sets: Tensor) -> Tensor:
        values = spec.function(sets * POINTS)
        scale, shift = affine(target, values)
        return _relative(scale * values + shift, target)

    for start in INPUT_SCALES:
        found, worst = fit(residual, [start])
        if worst < SAME:
            plain = float(_rounded(found, residual)[0])
            return _scaled(spec, target, plain, spec.function(plain * POINTS))
    return None


def _scaled(spec: Spec, target: Tensor, input_scale: float, values: Tensor) -> Match | None:
    best = torch.cat(affine(target, values[None]), dim=1)[0]
    (scale, shift), worst = _rounded(best, lambda sets: _relative(sets[:, :1] * values + sets[:, 1:], target))
    in_range = all(SMALLEST_SCALE < abs(float(one)) < LARGEST_SCALE for one in (scale, input_scale))
    if worst < SAME and in_range:
        return Match(spec.name, scale=float(scale), shift=float(shift), input_scale=input_scale, difference=worst)
    return None


def _rounded(values: Tensor, residual: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    """Return numbers with as few decimals as make no difference, and the largest residual there."""
    tried = torch.stack([*(values.round(decimals=decimals) + 0.0 for decimals in DECIMALS), values])
    worst = residual(tried).abs().amax(dim=1)
    first = int((worst < SAME).int().argmax())
    return tried[first], float(worst[first])
