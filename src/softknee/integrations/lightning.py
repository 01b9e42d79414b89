"""Lightning: a callback that logs parameters and health of activations. For `lightning` and `pytorch_lightning`."""

# ruff: noqa: ARG002  (the library calls these methods with arguments that are not all of use)
from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from softknee._diagnose.units.modules import check_every
from softknee._extras import require
from softknee.integrations._recorder import EVERY, ActivationRecorder, scalars
from softknee.integrations.tensorboard import TensorBoard

if TYPE_CHECKING:
    from softknee.integrations._loggers import Logger

# Either package holds all of Lightning, and takes callbacks of its own base class only.
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


class _Monitor:
    """Logs trained parameters and health of a model's activations at every n-th training batch.

    Results are those of `softknee.integrations.ActivationRecorder`, of the batches of all processes. Numbers go to
    all loggers of the trainer, histograms to those of TensorBoard, under the step that Lightning counts.

    Args:
        every: Batches 0, `every`, 2 `every` and so on of the whole training are recorded.
        logger: Takes numbers and histograms as well, for example `softknee.integrations.JsonLines`.

    Raises:
        OptionError: `every` is no positive whole number.
    """

    def __init__(self, *, every: int = EVERY, logger: Logger | None = None) -> None:
        super().__init__()
        check_every(every)
        self.every = every
        self.logger = logger
        self._batches = 0
        self._step = 0
        self._recorder: ActivationRecorder | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Look for the activations, so that what is wrong is known before training."""
        self._recorder = ActivationRecorder(pl_module, every=self.every, together=trainer.world_size > 1)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin to record, if this batch is one to record."""
        if self._recorder is not None and self._recorder.begin(self._batches):
            self._step = trainer.global_step
        self._batches += 1

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the gradients, unscaled and not yet clipped."""
        if self._recorder is not None:
            self._recorder.note_gradients()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log what was recorded."""
        values = self._recorder.end() if self._recorder is not None else {}
        if not (values and trainer.is_global_zero):
            return
        numbers = scalars(values)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=self._step)
            writer = getattr(logger, "experiment", None)
            if hasattr(writer, "add_histogram_raw"):
                histograms = {tag: value for tag, value in values.items() if tag not in numbers}
                TensorBoard(writer).log(histograms, self._step)
        if self.logger is not None:
            self.logger.log(values, self._step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the model without hooks."""
        if self._recorder is not None:
            self._recorder.cancel()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the model without hooks, and let go of it."""
        if self._recorder is not None:
            self._recorder.cancel()
        self._recorder = None

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches there were, so that a resumed training records the same ones."""
        return {"batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that over."""
        self._batches = state_dict["batches"]


@cache
def _monitor(packages: tuple[str, ...]) -> type:
    bases = [require(package, extra="lightning").Callback for package in packages]
    names = {"__doc__": _Monitor.__doc__, "__module__": __name__, "__qualname__": "ActivationMonitor"}
    return type("ActivationMonitor", (_Monitor, *bases), names)


def __getattr__(name: str) -> Any:
    # Made at its first use: its base class comes from an optional library, or two where both are in use.
    if name == "ActivationMonitor":
        loaded = tuple(package for package in _PACKAGES if package in sys.modules)
        installed = (package for package in _PACKAGES if find_spec(package.partition(".")[0]) is not None)
        return _monitor(loaded or (next(installed, _PACKAGES[0]),))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "ActivationMonitor"])
