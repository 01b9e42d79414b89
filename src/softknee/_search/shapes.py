"""Which candidates are the same function, as `distinct` has it: up to a scale and a shift of what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._engine.select import engine
from softknee._errors import UsageError
from softknee._expression.fingerprint import POINTS
from softknee._search.distinct import REACH, SAME, differences, normalised

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from softknee._search.candidate import Candidate, Function
    from softknee._search.distinct import Numbers

# Formulas end at the largest number of their dtype; that of networks is float32.
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, eq=False)
class Shape:
    """What a function is compared by.

    Attributes:
        trained: What is trained of it, as text: functions that learn are the same only if they learn the same.
        values: Without their scale and shift.
    """

    trained: str
    values: Numbers


class Shapes:
    """Candidates that were met, told apart by what their functions are.

    Args:
        known: To begin with; of those that are the same, the first stands for all.
    """

    def __init__(self, known: Iterable[Candidate] = ()) -> None:
        self._keys: dict[str, Candidate] = {}
        self._kept: dict[tuple[str, ...], list[tuple[Candidate, list[Numbers]]]] = {}
        for candidate in known:
            self.add(candidate)

    def add(self, candidate: Candidate) -> Candidate | None:
        """Keep a candidate if it is new; return the one met before that is the same, None if it is new."""
        earlier = self.find(candidate)
        if earlier is None:
            self._keys[candidate.key] = candidate
            shapes = [shape_of(function) for function in candidate.functions]
            kept = [one for one in shapes if one is not None]
            if len(kept) == len(shapes):
                alike = self._kept.setdefault(tuple(one.trained for one in kept), [])
                alike.append((candidate, [one.values for one in kept]))
        return earlier

    def find(self, candidate: Candidate) -> Candidate | None:
        """Return the one met before that is the same, None if it is new."""
        if candidate.key in self._keys:
            return self._keys[candidate.key]
        shapes = [shape_of(function) for function in candidate.functions]
        found = [one for one in shapes if one is not None]
        alike = self._kept.get(tuple(one.trained for one in found), []) if len(found) == len(shapes) else []
        if not alike:
            return None
        others = (np.stack(column) for column in zip(*(values for _, values in alike), strict=True))
        pairs = zip(found, others, strict=True)
        same = np.all([differences(one.values, other) < SAME for one, other in pairs], axis=0)
        return alike[int(same.argmax())][0] if same.any() else None


@lru_cache(maxsize=4096)
def shape_of(function: Function) -> Shape | None:
    """Return what a function is compared by; None where it is constant, not finite, or not of single elements.

    Args:
        function: A choice of the catalogue, or a formula.
    """
    module = _module(function)
    values = None if module is None else _values(module)
    if module is None or values is None:
        return None
    (shape,) = normalised(values[POINTS.abs() <= REACH][None])
    trained = function.label if any(True for _ in module.parameters()) else ""
    return None if shape is None else Shape(trained, shape)


def values_of(function: Function) -> Tensor | None:
    """Return the values of a function at the fixed points, in float64, as it is before training.

    Args:
        function: A choice of the catalogue, or a formula.

    Returns:
        `(points,)`; None where some are not finite, or it is no function of single elements.
    """
    module = _module(function)
    return None if module is None else _values(module)


def _module(function: Function) -> nn.Module | None:
    try:
        return function.make().double().eval()
    except UsageError:
        return None


def _values(module: nn.Module) -> Tensor | None:
    try:
        with torch.no_grad(), engine("eager"):
            values: Tensor = module(POINTS[:, None])[..., 0]
    except (UsageError, RuntimeError):
        return None
    return values if values.shape == POINTS.shape and bool((values.abs() < LARGEST).all()) else None
