"""What activations from velocity fields have beyond others: an interval that follows the data, and a prior."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from softknee._errors import OptionError, UsageError
from softknee.functional._flow_prior import SMOOTHNESS, VARIANCE, prior_precision
from softknee.nn.elementwise import Elementwise
from softknee.nn.reach import watched
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

# The initialization whose velocities are drawn for an interval of length 1.
SMOOTH = "smooth"
# Parts of the inputs that lie below and above the interval.
TAILS = (0.01, 0.99)
# Inputs of which quantiles are taken.
MOST_INPUTS = 2**20


class Diffeomorphic(Elementwise):
    """An activation that warps its input by the flow of a trained velocity field; for options see `Elementwise`.

    `velocities` are those at the knots inside the interval, `terms` of them, for `terms + 1` cells.
    `initialization="smooth"` draws them as the published code does.
    """

    @property
    def interval(self) -> tuple[Tensor | float, Tensor | float]:
        """Where the first and the last knot are: numbers, or a tensor with one for each channel."""
        return _interval({param.name: getattr(self, param.name) for param in self.spec.parameters})

    def set_interval(self, low: float, high: float) -> None:
        """Move the interval, in all channels; it is saved with the parameters. Velocities stay as they are.

        Args:
            low: Where it begins; one that is tied to 0, or to `-high`, covers it.
            high: Where it ends.

        Raises:
            OptionError: They are no finite numbers in order, or too near to each other for the module's precision, or
                the module is trained by coordinates that belong to an interval.
        """
        for name, value in self._ends(low, high).items():
            self._keep(name, value)

    def _ends(self, low: float, high: float) -> dict[str, Tensor]:
        """Return the parameters of an interval by name.

        Raises:
            OptionError: It is none.
        """
        if is_parametrized(self):
            raise OptionError(
                f"the coordinates of this {self.spec.name} belong to its interval; make it anew with another"
            )
        given: tuple[Any, Any] = (low, high)
        if not all(isinstance(end, Real) for end in given):
            raise OptionError(f"interval of {self.spec.name} must be two numbers, got {excerpt(low)}, {excerpt(high)}")
        ends = torch.tensor([low, high], dtype=self._values()[0].dtype)
        if not -math.inf < float(ends[0]) < float(ends[1]) < math.inf:
            raise OptionError(
                f"interval of {self.spec.name} must be two finite numbers in order, got {low:g}, {high:g}"
            )
        new = {"low": ends[:1], "high": ends[1:], "bound": ends.abs().max()[None]}
        kept = {param.name: new[param.name] for param in self.spec.parameters if param.name in new}
        for param in self.spec.parameters:
            if param.name in kept and param.low is not None and float(kept[param.name]) <= param.low:
                raise OptionError(f"{param.name} of {self.spec.name} must be above 0, got {float(kept[param.name]):g}")
        return kept

    def regularization(self, *, smoothness: float = SMOOTHNESS, variance: float = VARIANCE) -> Tensor:
        r"""Return the smoothness prior $\theta^\top \Sigma^{-1} \theta$ of the paper, to be added to a loss.

        Args:
            smoothness: How far away coefficients are still alike, `lambda_smooth` of the published code.
            variance: How large they are, its `lambda_var`.

        Returns:
            One number, summed over channels.

        Raises:
            OptionError: One of them is not positive, or the field moves at its ends, for which there is no prior.
        """
        if not (smoothness > 0 and variance > 0):
            raise OptionError(f"smoothness and variance must be positive, got {smoothness:g} and {variance:g}")
        if SMOOTH not in self.spec.initializations:
            raise OptionError(f"{self.spec.name} has no prior, which is about fields that stand still at both ends")
        velocities = self._values()[0]
        low, high = self.interval
        precision = prior_precision(len(velocities), smoothness, variance).to(velocities)
        scaled = (velocities / (high - low)).reshape(len(velocities), -1)
        penalty: Tensor = (scaled * (precision @ scaled)).sum()
        return penalty

    def _drawn(self, generator: torch.Generator | None) -> Mapping[str, Tensor]:
        """Return drawn velocities, on the scale of the interval."""
        if self._initialization != SMOOTH:
            return super()._drawn(generator)
        # Another field in each channel.
        fields = [super(Diffeomorphic, self)._drawn(generator)["velocities"] for _ in range(self.per_channel or 1)]
        velocities = fields[0] if self.per_channel is None else torch.stack(fields, 1)
        given = {param.name: self._given.get(param.name, param.default) for param in self.spec.parameters}
        low, high = _interval(given)
        length = torch.as_tensor(high) - torch.as_tensor(low)
        return {"velocities": velocities * length}

    def _keep(self, name: str, value: Tensor) -> None:
        """Keep a number of the interval as a buffer, or as the parameter that it is."""
        with torch.no_grad():
            if name in self._parameters or name in self._buffers:
                getattr(self, name).copy_(value.to(self._device))
                return
        delattr(self, name)
        self.register_buffer(name, value.to(self._device))
        self._plans = self._make_plans()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over a saved interval, also where it was a number so far."""
        for name in ("low", "high", "bound"):
            saved = state_dict.get(prefix + name)
            if saved is not None and isinstance(self.__dict__.get(name), float):
                self._keep(name, saved.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _ends_of(module: Diffeomorphic, name: str, low: float, high: float) -> dict[str, Tensor]:
    try:
        return module._ends(low, high)
    except OptionError as error:
        raise OptionError(f"{name or 'the model'}: {error}") from None


def _thinned(values: Tensor) -> Tensor:
    """Return every so many of the values, where they are very many."""
    return values[:: max(1, -(-len(values) // MOST_INPUTS))]


def _interval(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return both ends of the interval that parameters describe."""
    if "bound" in values:
        return -values["bound"], values["bound"]
    return values.get("low", 0.0), values["high"]


def calibrate_intervals_(
    model: nn.Module, *inputs: Any, tails: tuple[float, float] = TAILS
) -> dict[str, tuple[float, float]]:
    """Run a model once and have the intervals of its `DiTAC`s and their kin follow what they see.

    To be called before training: velocities stay as they are. Activations that share a module share an interval.

    Args:
        model: With such activations in it.
        *inputs: What the model is called with.
        tails: Which quantiles of the inputs become the ends.

    Returns:
        The interval of each activation that was called, by its name in the model.

    Raises:
        UsageError: The model has no such activation, the tails are not in order, or an activation saw inputs that are
            not finite or all the same.
    """
    if not (isinstance(tails, tuple | list) and len(tails) == 2 and 0 <= tails[0] < tails[1] <= 1):
        raise UsageError(f"tails must be two numbers in order from 0 to 1, got {tails}")
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Diffeomorphic)}
    if not modules:
        raise UsageError("the model has no activation with an interval, such as softknee.nn.DiTAC")
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, x: Tensor) -> None:
        seen.setdefault(name, []).append(_thinned(x.detach().flatten().float()))

    watched(model, inputs, modules, note)
    found = {}
    for name, parts in seen.items():
        values = _thinned(torch.cat(parts))
        low, high = values.quantile(values.new_tensor(tails)).tolist() if len(values) else (math.nan, math.nan)
        if not low < high:
            raise UsageError(
                f"{name or 'it'} saw inputs that are not finite or all the same; its interval cannot follow them"
            )
        found[name] = (low, high)
    # All are looked at before one is moved.
    ends = {name: _ends_of(modules[name], name, *interval) for name, interval in found.items()}
    for name, kept in ends.items():
        for end, value in kept.items():
            modules[name]._keep(end, value)
    return {name: tuple(float(end) for end in modules[name].interval) for name in found}  # type: ignore[misc]
