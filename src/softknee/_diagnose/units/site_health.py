"""How one site is doing, as plain data: see the schema of a diagnosis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._card.function import function_of
from softknee._card.precision import thresholds
from softknee._diagnose.units.fused import common
from softknee._diagnose.units.histogram import EDGES
from softknee._diagnose.units.slopes import curve_of
from softknee._diagnose.units.states import (
    NAMES,
    Limits,
    State,
    has_slopes,
    linear_r2,
    masks,
    mean,
    moments,
    state,
    variance,
)
from softknee._report.plain import finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._diagnose.units.places import Target
    from softknee._diagnose.units.slopes import Function
    from softknee._diagnose.units.sums import Sums
    from softknee._surgery.places import Unseen

# The worst units are listed.
WORST = 20
_BINS = 20
_POINTS = 81
_HALF = ("bfloat16", "float16")
_NO_SLOPE = {
    "normaliser": "outputs depend on one another, so that units have no slope of their own",
    "": "the function has no slope of single inputs: it takes several, changes the shape, or depends on chance",
}
_ONE_VALUE = "one value of each unit does not show whether it varies"
_NO_LOSS = "no gradient reached the outputs"


@dataclass(frozen=True)
class Form:
    """What a function is, as far as it was called for that.

    Attributes:
        curve: Points and values over the range of inputs seen; None where there are none.
        precision: Where its gradient is exactly 0, and the share of inputs there; None where there is no such function.
    """

    curve: tuple[list[float], list[float | None]] | None = None
    precision: dict[str, Any] | None = None


@dataclass(frozen=True)
class SiteHealth:
    """How the units of one site are doing.

    Attributes:
        target: The place.
        sums: What was seen, in the memory of the CPU.
        limits: From where on a unit is in a state.
        gradients: Whether gradients were asked for.
        form: The function.
    """

    target: Target
    sums: Sums
    limits: Limits = field(default_factory=Limits)
    gradients: bool = False
    form: Form = field(default_factory=Form)

    @property
    def name(self) -> str:
        """Of the site."""
        return self.target.name

    @cached_property
    def _masks(self) -> dict[str, tuple[Tensor, int] | None]:
        return masks(self.sums, self.limits)

    @property
    def states(self) -> dict[str, State | None]:
        """How many units are in each state; None where it could not be measured, for which `notes` say why."""
        return {name: None if (found := self._masks[name]) is None else state(*found) for name in NAMES}

    def units_in(self, name: str) -> tuple[int, ...] | None:
        """Return which units are in a state; None where it could not be measured."""
        found = self._masks[name]
        return None if found is None else tuple(found[0].nonzero().flatten().tolist())

    @property
    def firing(self) -> Tensor:
        """Share of outputs of each unit that are not 0, `(units,)`, float64."""
        return 1 - self.sums.parts["h_counts"][1].double() / self.sums.n

    @property
    def notes(self) -> list[str]:
        """Why some things could not be measured."""
        site, notes = self.target.site, []
        if not has_slopes(self.sums):
            notes.append(_NO_SLOPE.get(site.role if site else "", _NO_SLOPE[""]))
        if self._masks["constant"] is None:
            notes.append(_ONE_VALUE)
        if self.gradients and not self.sums.gradients:
            notes.append(_NO_LOSS)
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return it as an entry of `sites` of a diagnosis."""
        sums, z, h = self.sums, moments(self.sums, "z"), moments(self.sums, "h")
        return {
            **self.to_place(),
            "samples": sums.n,
            "slopes": sums.slopes if has_slopes(sums) else None,
            "states": {name: None if one is None else one.to_dict() for name, one in self.states.items()},
            "notes": self.notes,
            "flagged": self._flagged(),
            "firing": torch.histc(self.firing, _BINS, 0.0, 1.0).long().tolist(),
            "moments": {
                "z": {
                    "mean": finite(z.mean),
                    "std": finite(z.std),
                    "q": finite(z.q),
                    "kurtosis": z.kurtosis,
                    "min": finite(z.minimum),
                    "max": finite(z.maximum),
                },
                "h": {
                    "mean": finite(h.mean),
                    "std": finite(h.std),
                    "q": finite(h.q),
                    "max": finite(max(abs(h.minimum), abs(h.maximum))),
                },
                "linear_r2": linear_r2(sums),
                "outlier_ratio": max(abs(h.minimum), abs(h.maximum)) / math.sqrt(h.q) if 0 < h.q < math.inf else None,
                "zero": float(sums.parts["h_counts"][1].sum()) / (sums.n * sums.units),
                "nonfinite": self.nonfinite,
            },
            "hist": {"edges": list(EDGES), "counts": sums.parts["cells"][0].tolist()},
            "gradient": self._gradient(),
            "precision": self.form.precision,
            "curve": None if self.form.curve is None else {"x": self.form.curve[0], "y": self.form.curve[1]},
        }

    @property
    def nonfinite(self) -> float:
        """Share of inputs, or of outputs if it is larger, that are infinite or not a number."""
        before = float(self.sums.parts["z_bad"].sum()) / (self.sums.inputs * self.sums.parts["z_bad"].shape[1])
        after = float(self.sums.parts["h_counts"][0].sum()) / (self.sums.n * self.sums.units)
        return max(before, after)

    def to_place(self) -> dict[str, Any]:
        """Return what is known of the place."""
        site, module = self.target.site, self.target.module
        if site is None:
            kind = type(module).__name__
            known: dict[str, Any] = {"path": self.name, "call": 0, "kind": kind, "role": "activation", "how": "module"}
            return {**known, "name": self.name, "units": self.sums.units, "shape": [], "times": 0, "shared": False}
        return {
            "path": site.path,
            "call": site.call,
            "name": site.name,
            "kind": site.kind,
            "role": site.role,
            "how": site.how,
            "units": self.sums.units,
            "shape": list(site.shape),
            "times": site.times,
            "shared": site.shared,
        }

    def _flagged(self) -> list[dict[str, Any]]:
        units = [[name for name in NAMES if (found := self._masks[name]) and found[0][unit]] for unit in self._bad()]
        means, stds = mean(self.sums, "h"), variance(self.sums, "h").sqrt()
        edges, firing = self.sums.parts["h_edges"], self.firing
        return [
            {
                "unit": unit,
                "states": states,
                "firing": float(firing[unit]),
                "mean": finite(float(means[unit])),
                "std": finite(float(stds[unit])),
                "min": finite(-float(edges[0][unit])),
                "max": finite(float(edges[1][unit])),
            }
            for unit, states in zip(self._bad(), units, strict=True)
        ]

    def _bad(self) -> list[int]:
        """Return the worst units, worst first."""
        score = torch.zeros(self.sums.units, dtype=torch.int64)
        for weight, name in enumerate(reversed(NAMES)):
            found = self._masks[name]
            if found is not None:
                score += found[0].long() << weight
        order = score.argsort(descending=True, stable=True)[:WORST].tolist()
        return [unit for unit in order if score[unit]]

    def _gradient(self) -> dict[str, Any] | None:
        if not self.sums.gradients:
            return None
        count = self.sums.gradients * self.sums.units
        size, square = self.sums.parts["grad_sums"].sum(1).tolist()
        zero = float(self.sums.parts["grad_zero"].sum()) / count
        return {"rms": math.sqrt(square / count), "mean_abs": size / count, "zero": zero}


def form_of(target: Target, sums: Sums, like: Tensor | None, axis: int | None, known: dict[str, Ends]) -> Form:
    """Return what the function at a place is now.

    Args:
        target: The place.
        sums: What was seen there.
        like: A part of an input, None if nothing was seen.
        axis: Dimension of the units in it.
        known: Where the gradients of functions that are the same at several places are 0.
    """
    if like is None or not has_slopes(sums):
        return Form()
    z = moments(sums, "z")
    low, high = (z.minimum, z.maximum) if z.minimum < z.maximum else (z.minimum - 1, z.maximum + 1)
    curve: tuple[list[float], list[float | None]] | None = None
    if math.isfinite(low) and math.isfinite(high):
        y = curve_of(target.function, like, axis, low, high, _POINTS)
        x = torch.linspace(low, high, _POINTS, dtype=torch.float64)
        curve = (x.tolist(), [finite(value) for value in y.tolist()])
    return Form(curve, _precision(target, sums, str(like.dtype).removeprefix("torch."), known))


Ends = dict[str, "tuple[float | None, float | None]"]


def _precision(target: Target, sums: Sums, dtype: str, known: dict[str, Ends]) -> dict[str, Any] | None:
    """Return where the gradient of a function is exactly 0, here and in other dtypes; None where that is not known."""
    shared = common(target.function)
    if shared is None or shared.key not in known:
        ends = _ends(target.function)
        if shared is not None:
            known[shared.key] = ends
    else:
        ends = known[shared.key]
    if dtype not in ends:
        return None
    shares = {name: beyond(sums, low, high) for name, (low, high) in ends.items()}
    low, high = ends[dtype]
    others = {name: shares[name] for name in _HALF if name in shares and name != dtype}
    return {"dtype": dtype, "low": low, "high": high, "beyond": shares[dtype], "others": others}


def _ends(function: Function) -> Ends:
    """Return where the gradient of a function is exactly 0, by dtype; nothing where units differ."""
    own = function.parameters() if isinstance(function, nn.Module) else ()
    if any(parameter.numel() > 1 for parameter in own):
        return {}
    try:
        return {name: (one.low, one.high) for name, one in thresholds(function_of(function)).items()}
    except Exception:  # anybody's function may raise anything in a dtype that it was not made for
        return {}


def beyond(sums: Sums, low: float | None, high: float | None) -> float:
    """Return the share of finite inputs at or below a number, and at or above another, from their histogram."""
    cells = sums.parts["cells"][0].double()
    total = float(cells.sum())
    z = moments(sums, "z")
    edges = [min(z.minimum, EDGES[0]), *EDGES, max(z.maximum, EDGES[-1])]
    found = 0.0
    for count, left, right in zip(cells.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            # Within a bin, and within what was seen, values are taken to lie evenly.
            start, end = max(left, z.minimum), min(right, z.maximum)
            width = max(end - start, 0.0)
            for inside in (
                0.0 if low is None else _part(start, width, low),
                0.0 if high is None else _part(-end, width, -high),
            ):
                found += count * inside
    return min(1.0, found / total) if total else 0.0


def _part(start: float, width: float, limit: float) -> float:
    """Return the share of an interval that lies at or below a limit."""
    if not width:
        return float(start <= limit)
    return min(1.0, max(0.0, (limit - start) / width))


def coverage_of(targets: Sequence[Target], seen: Sequence[str], unseen: Sequence[Unseen]) -> list[dict[str, str]]:
    """Return what could not be seen, with reasons.

    Args:
        targets: The places.
        seen: Names of those at which something happened.
        unseen: What a look could not see.
    """
    silent = [one for one in targets if one.name not in set(seen)]
    paths = {one.site.path if one.site else one.name for one in silent}
    rest = [one for one in unseen if one.site is None and one.path not in paths]
    return [
        *({"path": one.path, "reason": one.reason} for one in rest),
        *({"path": one.name, "reason": "it did not run on these samples"} for one in silent),
    ]
