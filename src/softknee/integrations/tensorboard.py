"""TensorBoard: scalars, and histograms of inputs from counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.units.histogram import EDGES, Histogram
from softknee._extras import require

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


class TensorBoard:
    """Writes results to TensorBoard's event files.

    Args:
        to: A folder, or a `torch.utils.tensorboard.SummaryWriter`, which is then yours to close.

    Raises:
        MissingExtra: A folder is given, and tensorboard is not installed.
    """

    def __init__(self, to: str | os.PathLike[str] | Any) -> None:
        self.writer: Any = to if hasattr(to, "add_histogram_raw") else _writer(to)

    def log(self, values: Mapping[str, float | Histogram], step: int) -> None:
        """Write the results of a step.

        Args:
            values: Numbers and histograms by their tags; histograms without a value are left out.
            step: Number of the step.
        """
        for tag, value in values.items():
            if isinstance(value, Histogram):
                self._log_histogram(tag, value, step)
            else:
                self.writer.add_scalar(tag, value, global_step=step)

    def _log_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        if not histogram.count:
            return
        self.writer.add_histogram_raw(
            tag=tag,
            min=histogram.minimum,
            max=histogram.maximum,
            num=histogram.count,
            sum=histogram.total,
            sum_squares=histogram.total_squares,
            # Upper ends of the bins; the last has none.
            bucket_limits=[*EDGES, max(EDGES[-1], histogram.maximum)],
            bucket_counts=histogram.counts,
            global_step=step,
        )

    def close(self) -> None:
        """Write what is left and close the writer."""
        self.writer.close()


def _writer(folder: str | os.PathLike[str]) -> Any:
    require("tensorboard", extra="tensorboard")
    return require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(folder)
