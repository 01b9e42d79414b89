"""All of what is measured of the Hessian of a model's loss, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._diagnose.curvature.density import Spectrum, spectrum
from softknee._diagnose.curvature.hessian import hessian
from softknee._diagnose.curvature.spectra import (
    EXACT,
    SAMPLES,
    Eigenvalues,
    check_counts,
    dense,
    ends,
    exact_run,
    exact_split,
    exact_trace,
    krylov_runs,
    lr_limit,
    random_split,
)
from softknee._diagnose.curvature.trace import Interval, Probed, hutchinson
from softknee._diagnose.task import Task, task
from softknee._errors import UsageError
from softknee._report.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from softknee._diagnose.curvature.gauss_newton import Split
    from softknee._diagnose.curvature.hessian import Hessian
    from softknee._diagnose.curvature.lanczos import Krylov
    from softknee._diagnose.task import Loss

# Start vectors of the density.
STARTS = 2
# Share of the trace that its interval may reach to either side.
TOLERANCE = 0.1
# The momentum that the second limit of the learning rate is given for.
MOMENTUM = 0.9


@dataclass(frozen=True)
class Curvature:
    """How the mean loss over a sample bends in the trainable parameters of a model.

    Attributes:
        samples: Of the mean.
        parameters: How many trainable elements.
        method: How products with the Hessian were computed.
        loss: The mean loss.
        eigenvalues: Both ends of the spectrum.
        trace: Sum of all eigenvalues.
        frobenius: Root of the sum of their squares.
        spectrum: Their density.
        split: The trace by parts, None where it cannot be split.
        split_note: Why it cannot.
        probes: Random directions for the trace and its parts, 0 if both are exact.
    """

    samples: int
    parameters: int
    method: str
    loss: float
    eigenvalues: Eigenvalues
    trace: Interval
    frobenius: Interval
    spectrum: Spectrum
    split: Split | None
    split_note: str
    probes: int

    def lr_limit(self, momentum: float = 0.0) -> float | None:
        """Return the learning rate above which SGD is unstable on the quadratic with this Hessian, see `lr_limit`."""
        return lr_limit(self.eigenvalues.top, momentum=momentum)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: the part "curvature" of a diagnosis."""
        return plain(
            {
                "samples": self.samples,
                "parameters": self.parameters,
                "method": self.method,
                "loss": self.loss,
                "eigenvalues": self.eigenvalues.to_dict(),
                "trace": self.trace.to_dict(),
                "frobenius": self.frobenius.to_dict(),
                "probes": self.probes,
                "spectrum": self.spectrum.to_dict(),
                "split": self.split.to_dict() if self.split else None,
                "split_note": self.split_note,
                "sharpness": {
                    "lr_limit": self.lr_limit(),
                    "lr_limit_momentum": self.lr_limit(MOMENTUM),
                    "momentum": MOMENTUM,
                },
            }
        )


def curvature(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    probes: int = 30,
    steps: int = 50,
    seed: int = 0,
) -> Curvature:
    """Measure the Hessian of the mean loss over a sample: eigenvalues, trace, density and its parts.

    Args:
        model: Runs in eval mode; nothing of it is changed.
        loader: Yields batches, as in `softknee.diagnose`.
        loss: Function of outputs and target, or its name; None for a model that returns its own.
        samples: Of the loader, from its beginning.
        probes: Most random directions for the trace and its parts; fewer where the interval is narrow before.
        steps: Of Lanczos' method, from each of two start vectors.
        seed: Of all that is drawn.

    Returns:
        The measurements; exact for fewer than 200 parameters.

    Raises:
        UsageError: No parameter is trainable, the loss depends on none or is not finite, or what is kept does not fit.
    """
    check_counts(probes=probes, steps=steps)
    return curvature_of(task(model, loader, loss, samples=samples), probes=probes, steps=steps, seed=seed)


def curvature_of(gathered: Task, *, probes: int = 30, steps: int = 50, seed: int = 0) -> Curvature:
    """Measure the Hessian of a task, as in `curvature`."""
    with hessian(gathered) as operator:
        if operator.size < EXACT:
            matrix = dense(operator)
            return _gathered(
                operator, [exact_run(matrix)], exact_trace(matrix), lambda: exact_split(operator, matrix), exact=True
            )
        runs = krylov_runs(operator, steps=steps, probes=STARTS, seed=seed)
        probed = hutchinson(operator, like=operator.zeros(), probes=probes, tolerance=TOLERANCE, seed=seed)
        return _gathered(
            operator, runs, probed, lambda: random_split(operator, probed.products, seed=seed), exact=False
        )


def _gathered(
    operator: Hessian, runs: Sequence[Krylov], probed: Probed, make_split: Callable[[], Split], *, exact: bool
) -> Curvature:
    parts, note = None, ""
    try:
        parts = make_split()
    except UsageError as error:
        note = str(error)
    return Curvature(
        samples=operator.task.samples,
        parameters=operator.size,
        method=f"{operator.method}; all eigenvalues" if exact else operator.method,
        loss=operator.loss,
        eigenvalues=ends(runs),
        trace=probed.trace,
        frobenius=probed.frobenius,
        spectrum=spectrum(runs, exact=exact),
        split=parts,
        split_note=note,
        probes=0 if exact else len(probed.products),
    )
