"""In how many directions the outputs of each activation vary: the rank of representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._diagnose.preserve import preserved
from softknee._diagnose.task import SAMPLES, Task, task
from softknee._errors import UsageError
from softknee._report.plain import plain
from softknee._surgery.find import look
from softknee._surgery.observe import Observer, observe
from softknee._surgery.trace import unwrapped
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softknee._surgery.places import Place, Site
    from softknee._surgery.trace import Call

    Key = tuple[str, str, int]

SHARE = 0.99
# Units beyond which outputs are projected at random, and rows (samples times positions) that are looked at.
MOST_UNITS = 512
MOST_ROWS = 2**16


@dataclass(frozen=True)
class SiteRank:
    """Of the outputs of one activation.

    Attributes:
        site: Name of the site.
        width: Number of its units.
        samples: Number of rows of which the covariance is: samples, times positions where there are such.
        projected: Number of directions that the outputs were projected on at random, `width` if they were not. What is
            said below is about these.
        dims: Smallest number of principal directions that carry the share of the variance asked for; 0 if nothing
            varies.
        participation: `(tr C)^2 / tr C^2` for the covariance `C`, not a number if nothing varies.
        effective: Exponential of the entropy of the shares that the directions have of the variance, not a number if
            nothing varies.
    """

    site: str
    width: int
    samples: int
    projected: int
    dims: int
    participation: float
    effective: float

    @property
    def saturation(self) -> float:
        """Share of the directions that is needed."""
        return self.dims / self.projected

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain({**vars(self), "saturation": self.saturation})


@dataclass(frozen=True)
class Rank:
    """The rank of the representations of a model.

    Attributes:
        share: Of the variance that `dims` carries.
        sites: In the order of calls.
    """

    share: float
    sites: tuple[SiteRank, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return plain data."""
        return [one.to_dict() for one in self.sites]


class Covariance:
    """A covariance matrix in float64 that is summed up batch by batch, in memory of the number of units squared.

    Args:
        width: Number of units.
        most: How many there may be before they are projected at random on that many directions.
        seed: Of the projection.
    """

    def __init__(self, width: int, *, most: int = MOST_UNITS, seed: int = 0) -> None:
        self.width = width
        self.count = 0
        self.size = min(width, most)
        self._projection = None
        if width > most:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(width, most, dtype=torch.float64, generator=generator)
            # Orthogonal directions, so that no direction counts twice.
            self._projection = torch.linalg.qr(drawn)[0]
        self._shift = torch.zeros(0)
        self._sum = torch.zeros(self.size, dtype=torch.float64)
        self._squares = torch.zeros(self.size, self.size, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Count rows `(n, units)` in, but those that are not finite."""
        rows = rows.detach().double().cpu()
        rows = rows[rows.isfinite().all(1)]
        if self._projection is not None:
            rows = rows @ self._projection
        if not len(rows):
            return
        if not self.count:
            # Sums of squares far from the mean would lose the variance.
            self._shift = rows.mean(0)
        rows = rows - self._shift
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._squares += rows.T @ rows

    def matrix(self) -> Tensor:
        """Return the covariance, `(size, size)`; zero without rows."""
        mean = self._sum / max(self.count, 1)
        return self._squares / max(self.count, 1) - torch.outer(mean, mean)


def dimensions(covariance: Tensor, share: float = SHARE) -> tuple[int, float, float]:
    """Return in how many directions something varies.

    Args:
        covariance: Symmetric, `(n, n)`.
        share: Of the variance.

    Returns:
        Smallest number of directions whose variances add up to at least the share, participation ratio, effective rank;
        see `SiteRank`.
    """
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).flip(0)
    # What rounding leaves of a matrix of lower rank is not counted.
    values = torch.where(values > values[:1] * len(values) * torch.finfo(torch.float64).eps, values, 0.0)
    total = values.sum()
    if not 0 < total < torch.inf:
        return 0, torch.nan, torch.nan
    shares = values / total
    # Rounding in the sum must not cost a direction: 0.98 + 0.01 is to be 0.99.
    dims = 1 + int((shares.cumsum(0) < share * (1 - 1e-12)).sum())
    return dims, float(1 / shares.square().sum()), float(torch.special.entr(shares).sum().exp())


def rank(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    samples: int = SAMPLES,
    share: float = SHARE,
    most: int = MOST_UNITS,
    seed: int = 0,
) -> Rank:
    """Measure in how many directions the outputs of each activation vary, in eval mode.

    Units are channels or features; of outputs with positions (images, sequences), each position of each sample is a
    row, of which at most 65,536 are taken, evenly from all batches.

    Args:
        model: As in `task`.
        loader: As in `task`.
        samples: How many to take, from the beginning.
        share: Of the variance that `dims` is to carry.
        most: Units beyond which a random projection is looked at.
        seed: Of the projection and of the rows taken.

    Returns:
        A row for each site.

    Raises:
        UsageError: As `task`; or `share` is not between 0 and 1.
        DataError: As `task`.
    """
    if not (isinstance(share, int | float) and 0 < share <= 1):
        raise UsageError(f"share must be above 0 and at most 1, got {excerpt(share)}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise UsageError(f"most must be a whole number of at least 1, got {excerpt(most)}")
    return _measured(task(model, loader, samples=samples), share=share, most=most, seed=seed)


def _measured(of: Task, *, share: float, most: int, seed: int) -> Rank:
    """Measure a task as `rank` does."""
    with preserved(of.model), torch.no_grad():
        first = of.batches[0]
        found = look(of.model, first.inputs, first.keywords).sites
        sums = [_Sum(site, most, seed) for site in found if site.unit_axis is not None and site.times]
        by_key = {_key(one.site.place): one for one in sums}
        rows = -(-MOST_ROWS // len(of.batches))
        for batch in of.batches:
            observe(of.model, batch.inputs, batch.keywords, observer=_Catcher(of.model, by_key, rows))
    return Rank(float(share), tuple(one.rank(share) for one in sums if one.covariance is not None))


class _Sum:
    """Sums up the outputs of one site."""

    def __init__(self, site: Site, most: int, seed: int) -> None:
        self.site = site
        self.covariance: Covariance | None = None
        self._most, self._seed = most, seed
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, output: Tensor, rows: int) -> None:
        """Count some rows of an output in."""
        axis = self.site.unit_axis
        if axis is None or axis >= output.dim():
            return
        values = unwrapped(output.detach()).movedim(axis, -1).flatten(0, -2) if output.dim() > 1 else output[None]
        if self.covariance is None:
            self.covariance = Covariance(values.shape[1], most=self._most, seed=self._seed)
        if values.shape[1] != self.covariance.width:
            return
        if len(values) > rows:
            chosen = torch.randperm(len(values), generator=self._generator)[:rows]
            values = values[chosen.to(values.device)]
        self.covariance.add(values)

    def rank(self, share: float) -> SiteRank:
        covariance = self.covariance
        if covariance is None:
            raise AssertionError
        found = dimensions(covariance.matrix(), share)
        return SiteRank(self.site.name, covariance.width, covariance.count, covariance.size, *found)


class _Catcher(Observer):
    """Catches the outputs of activations."""

    def __init__(self, model: nn.Module, sums: dict[Key, _Sum], rows: int) -> None:
        super().__init__(model)
        self._sums = sums
        self._rows = rows

    def _finish(self, call: Call, result: Any, *, fixed: bool = False) -> None:
        super()._finish(call, result, fixed=fixed)
        caught = self._sums.get((call.run.path, call.path or call.name, call.occurrence))
        if caught is not None and isinstance(result, Tensor):
            caught.add(result, self._rows)


def _key(place: Place) -> Key:
    """Return what the last call of an activation is known by: owner, what is called, and the how many-th time."""
    return place.owner, place.module or place.operation, place.turn if place.module else place.occurrence
