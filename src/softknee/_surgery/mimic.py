"""Lets a new activation begin as the function it replaces."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from softknee._catalogue import parse_choice
from softknee._errors import UnknownActivation, UsageError
from softknee._surgery.places import Misfit
from softknee._surgery.probe import acts_on_elements
from softknee.nn.elementwise import Elementwise
from softknee.nn.fitting import POINTS, fit_

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._surgery.places import Site

# What `like` says to mean the function that is replaced.
ORIGINAL = "original"


class Mimic:
    """Fits activations to functions, the same ones once.

    Args:
        like: The function: a name, a formula, either with options in brackets, or `"original"`.
    """

    def __init__(self, like: str) -> None:
        self.named = None if like == ORIGINAL else _named(like)
        self._fitted: dict[Any, tuple[dict[str, Tensor], float]] = {}

    def fit(self, made: nn.Module, site: Site, original: Callable[[Tensor], Tensor]) -> float:
        """Fit an activation on the range that its place sees, widened to whole numbers.

        Args:
            made: The activation.
            site: The place.
            original: What acts there.

        Returns:
            The largest distance from the function in that range.

        Raises:
            UsageError: The activation cannot be fitted.
            Misfit: The range is unknown, or the function looks at more than single elements.
        """
        if not isinstance(made, Elementwise):
            raise UsageError(
                f"like needs a catalogued activation of single elements or a formula, whose parameters can be fitted; "
                f"got {type(made).__name__} for {site.name}"
            )
        if not site.low <= site.high or not math.isfinite(site.high - site.low):
            raise Misfit(f"like needs the range of inputs at {site.name}; give example_inputs with which it runs")
        low, high = math.floor(site.low), math.ceil(site.high)
        interval = (float(low), float(high if high > low else low + 1))
        target = self.named or _function(original, site, interval)
        trained = isinstance(original, nn.Module) and any(True for _ in original.parameters())
        key = (repr(made), interval, "" if self.named else site.kind, id(original) if trained else 0)
        if key not in self._fitted:
            error = fit_(made, target, interval=interval)
            self._fitted[key] = (copy.deepcopy(made.state_dict()), error)
        state, error = self._fitted[key]
        made.load_state_dict(state)
        return error


def _named(like: str) -> nn.Module:
    """Return the activation of a name.

    Raises:
        UsageError: There is none.
    """
    try:
        return parse_choice(like).build(channels=1).double()
    except UnknownActivation as error:
        raise UsageError(f"{error}; like={ORIGINAL!r} means what is replaced") from error


def _function(original: Callable[[Tensor], Tensor], site: Site, interval: tuple[float, float]) -> Callable[..., Tensor]:
    """Return a function of single elements in float64.

    Raises:
        Misfit: It is none.
    """
    if isinstance(original, nn.Module):
        original = cast("Callable[[Tensor], Tensor]", copy.deepcopy(original).eval().double())

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            return original(x.clone())

    x = torch.linspace(*interval, POINTS, dtype=torch.float64)
    try:
        y = function(x)
        elementwise = y.shape == x.shape and acts_on_elements(function, x, y)
    except Exception:  # anybody's module may raise anything
        elementwise = False
    if not elementwise:
        raise Misfit(f"{site.kind} at {site.name} is no function of single elements that could be imitated")
    return function
