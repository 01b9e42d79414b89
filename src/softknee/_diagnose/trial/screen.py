"""Which activations of the catalogue are worth a trial in a model, by theory alone: what to try, not what is best."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from softknee._card.propagation import moments
from softknee._catalogue import create
from softknee._errors import UsageError
from softknee._surgery.calibrate import calibrate
from softknee._surgery.compose import Composer, replay
from softknee._surgery.example import arguments
from softknee._surgery.layers import Follower
from softknee._surgery.observe import observe
from softknee._surgery.places import aligned
from softknee._surgery.untouched import untouched
from softknee.functional import SPECS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from softknee._spec import Spec

Cost = Literal["one operation", "one kernel"]

# By how much gradients may grow or shrink through all activations.
LOWEST, HIGHEST = 1e-2, 1e2
# Share of inputs without a gradient, and straightness, beyond which there is nothing to learn from.
MOST_FLAT, MOST_LINEAR = 0.75, 0.99
CANDIDATES = 4
# Variances of inputs are told apart in steps of a tenth of a decade: theory is not more exact.
STEPS = 10
# Correlation of outputs, but for scale and shift, from which on two functions are one for a trial.
SAME = 0.998
# Of the grid on which gradients are counted that are exactly zero: also those in the middle, as of a shrinkage, which
# the ends beyond which all are zero, as of a card, do not tell.
QUANTILES = 4001
# A product within this factor of one is as good as one.
EVEN = 2.0
_ROLES = ("activation", "pair")
_HEADINGS = ("activation", "chi product", "zero gradient", "linear R2", "cost", "")


@dataclass(frozen=True)
class Screened:
    """What theory says of an activation in a model whose gain is matched to it.

    Attributes:
        activation: Its name.
        chi_product: Of `q E[phi'(z)^2] / E[phi(z)^2]` over the activations of the model, `z ~ N(0, q)` with the `q`
            that each sees: by how much mean squares of gradients grow from the last activation to the first.
        zero: Share of such inputs whose gradient is exactly zero in the model's precision, the largest of all places.
        linear: Share of the outputs' variance that a straight line explains, the smallest of all places.
        cost: How it is evaluated.
        reason: Why it is not worth a trial; empty if it is.
    """

    activation: str
    chi_product: float | None
    zero: float | None
    linear: float | None
    cost: Cost
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "activation": self.activation,
            "chi_product": self.chi_product,
            "zero": self.zero,
            "linear_r2": self.linear,
            "cost": self.cost,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, repr=False)
class Screening:
    """Activations in the order in which they are worth a trial.

    Attributes:
        rows: Those worth one first.
        variances: Of the inputs of the model's activations, and how many have it.
        dtype: The model's precision.
        residual: Whether the model adds its streams, so that gradients have ways around activations, and the product
            over all of them decides nothing.
    """

    rows: tuple[Screened, ...]
    variances: Mapping[float, int]
    dtype: str
    residual: bool

    def candidates(self, count: int = CANDIDATES) -> tuple[str, ...]:
        """Return the names of the first that are worth a trial."""
        return tuple(row.activation for row in self.rows if not row.reason)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        variances = [{"q": q, "count": count} for q, count in self.variances.items()]
        rows = [row.to_dict() for row in self.rows]
        return {"dtype": self.dtype, "residual": self.residual, "variances": variances, "rows": rows}

    def __repr__(self) -> str:
        return "\n".join(aligned([_HEADINGS, *map(_row, self.rows)]))


def screen(model: nn.Module, example: Any, *, matched: bool = True, specs: Sequence[Spec] | None = None) -> Screening:
    """Look through the catalogue for activations that suit a model's depth, the inputs its activations see, and dtype.

    Left out with a reason are those through which gradients vanish or explode (a product of chi outside 0.01 to 100,
    unless the model is residual), those that give no gradient for most inputs, those that are nearly straight, those
    without a gain, and those that are nearly the same as another or as what the model has. The others come in the order
    of how even the product is, where more than a factor of 2 is missing, then of their cost, then of how many inputs
    have no gradient, then as in the catalogue. None of this says which of them trains best.

    Args:
        model: In training mode; it stays as it is.
        example: A typical batch: a tensor, a tuple, or a dictionary of named inputs.
        matched: Whether weights are to be matched to the gain of activations; otherwise the model is taken as it is.
        specs: What to look through, by default the catalogue's functions of single elements with fixed numbers of
            parameters and without chance.

    Returns:
        The table.

    Raises:
        UsageError: The model has no activation that could be exchanged.
    """
    copied = copy.deepcopy(model)
    residual = False
    if matched:
        report = calibrate(copied, example, generator=torch.Generator().manual_seed(0))
        residual = any("sum" in layer.fed_by for layer in report.layers)
    variances, own = _seen(copied, example)
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    found = usual() if specs is None else specs
    screened = [_screened(spec, variances, dtype, residual=residual) for spec in found]
    screened.sort(key=lambda one: _rank(one[0]))
    with untouched(copied):
        rows = _told_apart(screened, _own(own, _usual(variances)))
    rows.sort(key=lambda row: bool(row.reason))
    return Screening(tuple(rows), variances, str(dtype).removeprefix("torch."), residual)


def usual() -> list[Spec]:
    """Return what is looked through by default."""
    return [
        spec
        for spec in SPECS
        if spec.kind == "elementwise"
        and not (spec.terms or spec.sampled or spec.surrogate or spec.channelwise)
        and not any(param.vector or param.default is None for param in spec.parameters)
        and not (spec.promises.even or spec.promises.period)
    ]


def _seen(model: nn.Module, example: Any) -> tuple[dict[float, int], list[Callable[[Tensor], Tensor]]]:
    """Return the mean squares of the inputs of activations with how many have it, and the activations.

    Raises:
        UsageError: There are none.
    """
    seen = Follower(model)
    inputs, keywords = arguments(example)
    observe(model, inputs, keywords, observer=seen)
    acting = [one for one in Composer(seen.trace).compose() if one.role in _ROLES]
    squares = [float(seen.moments[one.source][1]) for one in acting if one.source in seen.moments]
    steps = [round(STEPS * math.log10(square)) for square in squares if 0 < square < math.inf]
    if not steps:
        raise UsageError("no activation to change was found in the model")
    own: list[Callable[[Tensor], Tensor]] = [
        one.last.module or partial(replay, one.calls, one.source) for one in acting
    ]
    return {round(10 ** (step / STEPS), 4): count for step, count in sorted(Counter(steps).items())}, own


def _screened(
    spec: Spec, variances: Mapping[float, int], dtype: torch.dtype, *, residual: bool
) -> tuple[Screened, Tensor]:
    """Return what theory says of an activation, and its outputs for the usual inputs, mean 0 and mean square 1."""
    activation = create(spec.name).requires_grad_(requires_grad=False).double().eval()
    cost: Cost = "one operation" if spec.builtin else "one kernel"
    logarithm, straight, zero = 0.0, 1.0, 0.0
    for q, count in variances.items():
        at = moments(activation, q=q)
        if not (0 < at.square < math.inf and 0 < at.slope_square < math.inf):
            none = torch.zeros(QUANTILES, dtype=torch.float64)
            return Screened(spec.name, None, None, None, cost, "it has no gain for normal inputs"), none
        logarithm += count * math.log(q * at.slope_square / at.square)
        x = _normal(q)
        straight = min(straight, float((_standard(activation(x)) * _standard(x)).mean() ** 2))
        zero = max(zero, _flat(activation, x.to(dtype)))
    product = math.exp(min(max(logarithm, -700.0), 700.0))
    reason = ""
    if not residual and not LOWEST <= product <= HIGHEST:
        change = f"shrink to {product:.1g}" if product < LOWEST else f"grow to {product:.1g}"
        reason = f"gradients {change} of their mean square through {sum(variances.values())} activations"
    elif zero > MOST_FLAT:
        reason = f"{100 * zero:.0f} % of inputs have no gradient"
    elif straight > MOST_LINEAR:
        reason = "it is nearly a straight line there"
    return Screened(spec.name, product, zero, straight, cost, reason), _standard(activation(_usual(variances)))


def _told_apart(found: Sequence[tuple[Screened, Tensor]], own: Sequence[tuple[str, Tensor]]) -> list[Screened]:
    """Leave out, in order, what is nearly the same as what the model has, or as one that comes before."""
    known = [(name, outputs) for name, outputs in own]
    rows = []
    for row, outputs in found:
        same = next((name for name, one in known if abs(float((one * outputs).mean())) > SAME), None)
        if not row.reason and same is not None:
            row = replace(row, reason=f"it is nearly the same as {same}")
        elif not row.reason:
            known.append((row.activation, outputs))
        rows.append(row)
    return rows


def _own(functions: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> list[tuple[str, Tensor]]:
    """Return the outputs of the model's activations, of those that act on single elements."""
    found = []
    for function in functions:
        one = copy.deepcopy(function).double() if isinstance(function, nn.Module) else function
        with contextlib.suppress(Exception):  # anybody's module may raise anything at an input it was not made for
            y = one(x.clone())
            if y.shape == x.shape:
                found.append(("what the model has", _standard(y.detach())))
    return found


def _normal(q: float) -> Tensor:
    """Return quantiles of a normal distribution."""
    shares = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    x: Tensor = torch.special.ndtri(shares)
    return math.sqrt(q) * x


def _usual(variances: Mapping[float, int]) -> Tensor:
    """Return inputs of the variance that most activations see."""
    return _normal(max(variances, key=lambda q: (variances[q], q)))


def _standard(values: Tensor) -> Tensor:
    centred = values - values.mean()
    root: Tensor = centred.square().mean().sqrt().clamp_min(torch.finfo(values.dtype).tiny)
    return centred / root


def _flat(activation: nn.Module, x: Tensor) -> float:
    """Return the share of inputs whose gradient is exactly zero in their precision."""
    x = x[:, None].requires_grad_()
    with torch.enable_grad():
        y = copy.deepcopy(activation).to(x.dtype)(x)
        (slope,) = torch.autograd.grad(y.sum(), x, allow_unused=True) if y.requires_grad else (None,)
    return 1.0 if slope is None else float((slope == 0).double().mean())


def _rank(row: Screened) -> tuple[bool, float, bool, float]:
    uneven = abs(math.log(row.chi_product)) if row.chi_product else math.inf
    # Python's sort is stable: ties stay as in the catalogue.
    return bool(row.reason), max(uneven - math.log(EVEN), 0.0), row.cost != "one operation", round(row.zero or 0.0, 1)


def _row(row: Screened) -> tuple[str, ...]:
    numbers = ["-" if value is None else f"{value:.3g}" for value in (row.chi_product, row.zero, row.linear)]
    return row.activation, *numbers, row.cost, f"left out: {row.reason}" if row.reason else ""
