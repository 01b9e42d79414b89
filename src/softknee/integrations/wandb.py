"""Weights & Biases: scalars, and histograms of inputs from counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.units.histogram import EDGES, Histogram
from softknee._extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping


class WandB:
    """Writes results to a run of Weights & Biases, without its `watch`, which would keep tensors.

    Args:
        run: What `wandb.init` returned; it stays yours to finish.

    Raises:
        MissingExtra: wandb is not installed.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self._histogram = require("wandb", extra="wandb").Histogram

    def log(self, values: Mapping[str, float | Histogram], step: int) -> None:
        """Write the results of a step.

        Args:
            values: Numbers and histograms by their tags; histograms without a value are left out.
            step: Number of the step.
        """
        plain = {tag: value for tag, value in values.items() if not isinstance(value, Histogram)}
        drawn = {
            tag: self._histogram(np_histogram=(list(value.counts), _edges(value)))
            for tag, value in values.items()
            if isinstance(value, Histogram) and value.count
        }
        self.run.log({**plain, **drawn}, step=step)


def _edges(histogram: Histogram) -> list[float]:
    """Return both ends of all bins: the outer two reach as far as the values do."""
    return [min(EDGES[0], histogram.minimum), *EDGES, max(EDGES[-1], histogram.maximum)]
