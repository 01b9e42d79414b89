"""How the units of a model are doing on its data: dead, silent, saturated and others, with what that is said from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee._diagnose.preserve import preserved
from softknee._diagnose.task import SAMPLES, task
from softknee._diagnose.units.fused import collected, to_cpu
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import targets_of
from softknee._diagnose.units.site_health import Ends, SiteHealth, coverage_of, form_of
from softknee._diagnose.units.states import Limits
from softknee._errors import OptionError
from softknee._report.plain import plain
from softknee._surgery.find import look
from softknee._surgery.observe import visible
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from softknee._diagnose.task import Loss, Task
    from softknee._diagnose.units.places import Target

# So many samples show where activations act.
_EXAMPLE = 4


@dataclass(frozen=True)
class Health:
    """How the activations of a model do on a sample of its data.

    Attributes:
        sites: In the order of their calls.
        coverage: What could not be seen: path and reason.
        samples: Number of samples of the data.
    """

    sites: tuple[SiteHealth, ...]
    coverage: tuple[Mapping[str, str], ...]
    samples: int

    def __getitem__(self, name: str) -> SiteHealth:
        """Return the site of a name.

        Raises:
            KeyError: There is none.
        """
        return next((site for site in self.sites if site.name == name), None) or self._missing(name)

    def _missing(self, name: str) -> SiteHealth:
        raise KeyError(f"no site is named {name!r}; there are {', '.join(site.name for site in self.sites) or 'none'}")

    def compare(self, after: Health) -> Changes:
        """Return which units died and which came back to life.

        Args:
            after: Health of the same model later, on the same data.
        """
        sites = {}
        for site in self.sites:
            later = next((one for one in after.sites if one.name == site.name), None)
            if later is None or later.sums.units != site.sums.units:
                continue
            state = "dead" if site.units_in("dead") is not None and later.units_in("dead") is not None else "silent"
            old, new = set(site.units_in(state) or ()), set(later.units_in(state) or ())
            sites[site.name] = Change(state, tuple(sorted(new - old)), tuple(sorted(old - new)), len(old & new))
        return Changes(sites)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: `sites`, `coverage` and `samples`."""
        return {
            "sites": [site.to_dict() for site in self.sites],
            "coverage": [dict(one) for one in self.coverage],
            "samples": self.samples,
        }


@dataclass(frozen=True)
class Change:
    """What became of the units of a site.

    Attributes:
        state: `"dead"`; `"silent"` where slopes could not be measured.
        births: Units that are in the state now and were not.
        revivals: Units that were and are no longer.
        stayed: How many were and are.
    """

    state: str
    births: tuple[int, ...]
    revivals: tuple[int, ...]
    stayed: int


@dataclass(frozen=True)
class Changes:
    """What became of the units of a model.

    Attributes:
        sites: By name.
    """

    sites: Mapping[str, Change]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return plain(self.sites)


def unit_health(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss = None,
    *,
    samples: int = SAMPLES,
    dormant: float = 0.025,
    saturated: float = 0.95,
    gradients: bool | None = None,
) -> Health:
    """Measure in which states the units of all activations are, in evaluation mode.

    A unit is a channel or feature: an entry of the dimension that the layer before gives its outputs. Of convolutions
    its values are those of all samples and positions, or of some where a batch has more than 65,536 values. A unit is
    `silent` if its output is exactly 0 for all values, `dead` if its slope is; `constant` if its output hardly varies;
    `linear` if its slope is the same, and not 0, for all values; `saturated` if the slope is below a hundredth of the
    steepest for 95 % of them; `dormant` or `gradient_dormant` if the mean of |h|, or of |dL/dh|, is small beside that
    of the layer.

    The model, its modes, buffers, gradients and hooks and the random states are afterwards as before.

    Args:
        model: Runs as written, on one device.
        loader: Yields batches: inputs, `(inputs, target)` or a dictionary of named inputs.
        loss: A function of outputs and target that returns a mean, or its name; None for a model that returns its own,
            or where there is none. Gradients are those of the sum over the samples of a batch.
        samples: How many to take, from the beginning of the loader.
        dormant: Units are dormant up to this share of the layer's mean.
        saturated: Units are saturated from this share of their values on.
        gradients: Whether to measure gradients too; None does where `loss` is given.

    Returns:
        The states, with what else is known of inputs, outputs, slopes and gradients.

    Raises:
        UsageError: The model cannot be observed, or `loss` is not one number.
        DataError: The loader is empty, fails, or yields something else.
        OptionError: A limit is no number between 0 and 1.
    """
    limits = Limits(dormant=_share("dormant", dormant), saturated=_share("saturated", saturated))
    whole = task(model, loader, loss, samples=samples)
    example = whole.batches[0].first(_EXAMPLE)
    found = look(whole.model, example.inputs, example.keywords)
    targets = targets_of(found, whole.model)
    differentiated = whole.has_loss() if gradients is None else gradients
    observer = Observer(whole.model, targets, gradients=differentiated)
    with preserved(whole.model), visible():
        try:
            observer.attach()
            for batch in whole.batches:
                observer.begin()
                # Gradients of the sum over the samples do not depend on how many go together.
                observer.factor = float(batch.size)
                context = contextlib.nullcontext() if differentiated else torch.no_grad()
                with context:
                    observer.open()
                    try:
                        outputs = whole.run(batch)
                    finally:
                        observer.close()
                    if differentiated:
                        _differentiate(whole, batch, outputs)
        finally:
            observer.detach()
        sites = _sites(targets, observer, limits)
    coverage = coverage_of(targets, [site.name for site in sites], found.sites.unseen)
    return Health(sites, tuple(coverage), whole.samples)


def _sites(targets: Sequence[Target], observer: Observer, limits: Limits) -> tuple[SiteHealth, ...]:
    sums = collected(to_cpu(observer.take()))
    known: dict[str, Ends] = {}
    found = []
    for target in targets:
        if target.name in sums:
            like, axis = observer.inputs.get(target.name, (None, None))
            form = form_of(target, sums[target.name], like, axis, known)
            found.append(SiteHealth(target, sums[target.name], limits, observer.gradients, form))
    return tuple(found)


def _differentiate(whole: Task, batch: Any, outputs: Any) -> None:
    loss = whole.loss(batch, outputs)
    if loss.requires_grad:
        loss.backward()
        for parameter in whole.model.parameters():
            parameter.grad = None


def _share(name: str, value: float) -> float:
    """Return a share.

    Raises:
        OptionError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise OptionError(f"{name} must be a number between 0 and 1, got {excerpt(value)}")
    return float(value)
