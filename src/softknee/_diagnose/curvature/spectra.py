"""Eigenvalues, trace and density of a Hessian, each by itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softknee._diagnose.curvature.density import Spectrum, spectrum
from softknee._diagnose.curvature.gauss_newton import Split, split
from softknee._diagnose.curvature.hessian import Hessian, hessian
from softknee._diagnose.curvature.lanczos import Krylov, lanczos
from softknee._diagnose.curvature.trace import Interval, Probed, hutchinson, signs
from softknee._diagnose.task import task
from softknee._errors import UsageError
from softknee._report.plain import plain
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn

    from softknee._diagnose.task import Loss

SAMPLES = 512
# Operators of fewer rows are computed as a whole.
EXACT = 200
XI_WARNING = (
    "xi is no property of an activation: for the loss c L it is xi / c, it grows with the number of parameters and "
    "without bound near a minimum; compare xi times the loss, on the same network and at the same loss"
)


@dataclass(frozen=True)
class Eigenvalues:
    """Both ends of the spectrum of a Hessian.

    Attributes:
        top: Largest eigenvalue, by sign and not by magnitude.
        bottom: Smallest one.
        top_residual: An eigenvalue lies within this distance of `top`.
        bottom_residual: The same for `bottom`.
        steps: Products it took.
        vectors: `(2, n)` unit eigenvectors to `bottom` and `top`, None unless asked for.
    """

    top: float
    bottom: float
    top_residual: float
    bottom_residual: float
    steps: int
    vectors: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the vectors."""
        names = ("top", "bottom", "top_residual", "bottom_residual", "steps")
        return plain({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Xi:
    """Frobenius norm of the Hessian over the squared norm of the gradient; read the warning.

    Attributes:
        value: `|H|_F / |g|^2`, in units of 1 / loss; infinite where the gradient is zero.
        times_loss: The same times the loss, without unit.
        loss: Mean loss of the sample.
        warning: What must not be concluded from it.
    """

    value: float
    times_loss: float
    loss: float
    warning: str = XI_WARNING

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return plain({name: getattr(self, name) for name in ("value", "times_loss", "loss", "warning")})


def hvp(
    model: nn.Module, loader: Iterable[Any], loss: Loss, vector: Tensor, *, samples: int = SAMPLES, part: str = ""
) -> Tensor:
    """Multiply a vector with the Hessian of the mean loss.

    Args:
        model: Runs in eval mode; nothing of it is changed.
        loader: Yields batches, as in `softknee.diagnose`.
        loss: Function of outputs and target, or its name; None for a model that returns its own.
        vector: `(n,)`, elements of the trainable parameters in the order of `parameters()`.
        samples: Of the loader, from its beginning.
        part: Path of a module, to differentiate by its parameters alone.

    Returns:
        `(n,)`, float64 if a parameter is, else float32.

    Raises:
        UsageError: The vector has another shape, no parameter is trainable, or the loss is not finite.
    """
    with _opened(model, loader, loss, samples, part) as operator:
        if tuple(vector.shape) != (operator.size,):
            raise UsageError(
                f"the vector has shape {tuple(vector.shape)}; it must be ({operator.size},), the trainable elements"
            )
        return operator(vector.to(operator.zeros()))


def hessian_eigenvalues(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    steps: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
    part: str = "",
    vectors: bool = False,
) -> Eigenvalues:
    """Find the largest and the smallest eigenvalue of the Hessian by Lanczos' method.

    Args:
        model: As in `hvp`.
        loader: As in `hvp`.
        loss: As in `hvp`.
        samples: As in `hvp`.
        steps: Most products to make.
        tolerance: Stop once both residuals are at most this share of the largest magnitude.
        seed: Of the start vector.
        part: As in `hvp`; the eigenvalues of a block are those of its part alone.
        vectors: Whether to return the eigenvectors.

    Returns:
        Both, with what they may be off by.

    Raises:
        UsageError: As `hvp`; the vectors kept do not fit.
    """
    check_counts(steps=steps)
    with _opened(model, loader, loss, samples, part) as operator:
        if operator.size < EXACT and not vectors:
            return ends([exact_run(dense(operator))])
        start = signs(operator.size, seed=seed, probe=0, like=operator.zeros())
        return ends([lanczos(operator, start, steps=steps, tolerance=tolerance, vectors=vectors)])


def hessian_trace(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    probes: int = 100,
    tolerance: float = 0.1,
    seed: int = 0,
    part: str = "",
) -> Probed:
    """Estimate trace, Frobenius norm and diagonal of the Hessian by Hutchinson's method.

    Args:
        model: As in `hvp`.
        loader: As in `hvp`.
        loss: As in `hvp`.
        samples: As in `hvp`.
        probes: Most products to make.
        tolerance: Stop once the 95 % interval of the trace reaches at most this share of it to either side.
        seed: Of the probes.
        part: As in `hvp`.

    Returns:
        The estimates, exact for fewer than 200 parameters.

    Raises:
        UsageError: As `hvp`.
    """
    check_counts(probes=probes)
    with _opened(model, loader, loss, samples, part) as operator:
        if operator.size < EXACT:
            return exact_trace(dense(operator))
        return hutchinson(operator, like=operator.zeros(), probes=probes, tolerance=tolerance, seed=seed)


def hessian_spectrum(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    steps: int = 50,
    probes: int = 2,
    seed: int = 0,
    part: str = "",
) -> Spectrum:
    """Estimate the density of the eigenvalues of the Hessian by stochastic Lanczos quadrature.

    Ubaru, Chen, Saad 2017; Ghorbani, Krishnan, Xiao, arXiv 1901.10159.

    Args:
        model: As in `hvp`.
        loader: As in `hvp`.
        loss: As in `hvp`.
        samples: As in `hvp`.
        steps: Of Lanczos' method from each start vector.
        probes: Start vectors.
        seed: Of these.
        part: As in `hvp`.

    Returns:
        The density with its band over the probes; of the eigenvalues themselves for fewer than 200 parameters.

    Raises:
        UsageError: As `hvp`; the vectors kept do not fit.
    """
    check_counts(steps=steps, probes=probes)
    with _opened(model, loader, loss, samples, part) as operator:
        if operator.size < EXACT:
            return spectrum([exact_run(dense(operator))], exact=True)
        return spectrum(krylov_runs(operator, steps=steps, probes=probes, seed=seed))


def hessian_split(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    probes: int = 30,
    seed: int = 0,
    part: str = "",
) -> Split:
    """Split the trace of the Hessian into Gauss-Newton part and rest, and tell the activations' phi'' in the rest.

    Args:
        model: As in `hvp`.
        loader: As in `hvp`.
        loss: As in `hvp`.
        samples: As in `hvp`.
        probes: Random directions, the same for all parts.
        seed: Of these.
        part: As in `hvp`.

    Returns:
        The traces, in total and by site; exact for fewer than 200 parameters.

    Raises:
        UsageError: As `hvp`; the model has no second derivatives, or no outputs that its loss is a function of.
    """
    check_counts(probes=probes)
    with _opened(model, loader, loss, samples, part) as operator:
        if operator.size < EXACT:
            return exact_split(operator, dense(operator))
        like = operator.zeros()
        return random_split(operator, hutchinson(operator, like=like, probes=probes, seed=seed).products, seed=seed)


def xi(
    model: nn.Module, loader: Iterable[Any], loss: Loss, *, samples: int = SAMPLES, probes: int = 100, seed: int = 0
) -> Xi:
    """Compare the Frobenius norm of the Hessian with the squared norm of the gradient, `|H|_F / |g|^2`.

    This is no property of an activation, and no table of it by activation means anything: for the loss c L it is
    xi / c, it grows with the number of parameters, and near a minimum, where the gradient vanishes, without bound.

    Args:
        model: As in `hvp`.
        loader: As in `hvp`.
        loss: As in `hvp`.
        samples: As in `hvp`.
        probes: To estimate the norm with.
        seed: Of these.

    Returns:
        The ratio, the same times the loss, and the warning.

    Raises:
        UsageError: As `hvp`.
    """
    check_counts(probes=probes)
    with _opened(model, loader, loss, samples, "") as operator:
        found = exact_trace(dense(operator)) if operator.size < EXACT else None
        found = found or hutchinson(operator, like=operator.zeros(), probes=probes, tolerance=0.1, seed=seed)
        square = float(operator.gradient.double().square().sum())
        value = found.frobenius.value / square if square else float("inf")
        return Xi(value, value * operator.loss, operator.loss)


def lr_limit(top: float, *, momentum: float = 0.0) -> float | None:
    """Return the learning rate above which gradient descent is unstable along the top eigenvector of a Hessian.

    `2 / top` without momentum and `2 (1 + b) / top` with momentum b as SGD has it, on the quadratic with this Hessian.
    Networks train near it and somewhat above, for their Hessian changes (Cohen et al., arXiv 2103.00065).

    Args:
        top: Largest eigenvalue.
        momentum: Of SGD, in [0, 1).

    Returns:
        The rate; None where no direction bends up.
    """
    return 2 * (1 + momentum) / top if top > 0 else None


@contextlib.contextmanager
def _opened(model: nn.Module, loader: Iterable[Any], loss: Loss, samples: int, part: str) -> Iterator[Hessian]:
    gathered = task(model, loader, loss, samples=samples)
    parameters = None
    if part:
        paths = dict(gathered.model.named_modules())
        if part not in paths:
            raise UsageError(f"the model has no module {part!r}; part is a path as in named_modules()")
        parameters = list(paths[part].parameters())
    with hessian(gathered, parameters) as operator:
        yield operator


def check_counts(**counts: Any) -> None:
    """Check numbers of steps and probes.

    Raises:
        UsageError: One is no whole number of at least 2.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise UsageError(f"{name} must be a whole number of at least 2, got {excerpt(count)}")


def dense(operator: Hessian) -> Tensor:
    """Return a small operator as a matrix, `(n, n)` float64 on the CPU."""
    rows = [operator(unit) for unit in torch.eye(operator.size).to(operator.zeros())]
    matrix = torch.stack(rows).double().cpu()
    return (matrix + matrix.T) / 2


def exact_run(matrix: Tensor) -> Krylov:
    """Return all eigenvalues of a matrix as nodes of equal weights."""
    values: Any = torch.linalg.eigvalsh(matrix).numpy()
    return Krylov(values, np.full(len(values), 1 / len(values)), np.zeros(len(values)), exhausted=True)


def exact_trace(matrix: Tensor) -> Probed:
    """Return trace, norm and diagonal of a matrix as if estimated."""
    trace, norm = float(matrix.trace()), float(torch.linalg.matrix_norm(matrix))
    diagonal = matrix.diagonal().clone()
    return Probed(Interval(trace, trace, trace), Interval(norm, norm, norm), diagonal, tuple(diagonal.tolist()))


def exact_split(operator: Hessian, matrix: Tensor) -> Split:
    """Split the trace of a small operator by unit vectors."""
    units = torch.eye(operator.size).to(operator.zeros())
    return split(operator, matrix.diagonal().tolist(), lambda number: units[number], exact=True)


def random_split(operator: Hessian, products: Sequence[float], *, seed: int) -> Split:
    """Split a trace by the random signs that it was estimated with."""
    like = operator.zeros()
    return split(operator, products, lambda probe: signs(operator.size, seed=seed, probe=probe, like=like))


def krylov_runs(operator: Hessian, *, steps: int, probes: int, seed: int) -> list[Krylov]:
    """Run Lanczos' method from several vectors of random signs."""
    like = operator.zeros()
    starts = (signs(operator.size, seed=seed, probe=probe, like=like) for probe in range(probes))
    return [lanczos(operator, start, steps=steps) for start in starts]


def ends(runs: Sequence[Krylov]) -> Eigenvalues:
    """Return the outermost nodes of several runs, which eigenvalues lie outside of, if anything."""
    high, low = max(runs, key=lambda run: run.nodes[-1]), min(runs, key=lambda run: run.nodes[0])
    return Eigenvalues(
        *(float(high.nodes[-1]), float(low.nodes[0]), float(high.residuals[-1]), float(low.residuals[0])),
        steps=sum(run.steps for run in runs),
        vectors=runs[0].vectors,
    )
