"""Lanczos' method: extreme eigenvalues of a symmetric operator, and how it spreads a vector over its eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

# Bytes that the vectors kept for orthogonality may take.
BASIS_LIMIT = 2**33
# How often the eigenvalues are looked at on the way, in steps.
_EVERY = 5
# In roundings of the largest entry of the tridiagonal matrix: what is left of an exhausted space. Going on after it
# would do no harm, for what is found then has no weight; stopping before it would.
_NOTHING = 256


@dataclass(frozen=True)
class Krylov:
    """What m steps from one vector show of an operator of n rows.

    Attributes:
        nodes: `(m,)` float64, ascending: the eigenvalues as far as they are resolved (Ritz values).
        weights: `(m,)` float64: shares of the squared start vector that lie on them; their sum is 1.
        residuals: `(m,)` float64: an eigenvalue lies within this distance of the node.
        exhausted: Whether the space was: nodes and weights are then exact, up to rounding.
        vectors: `(2, n)`: unit vectors to the lowest and the highest node, None unless asked for.
    """

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]
    exhausted: bool
    vectors: Tensor | None = None

    @property
    def steps(self) -> int:
        """How many products were made."""
        return len(self.nodes)


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int,
    tolerance: float = 0.0,
    vectors: bool = False,
) -> Krylov:
    """Run Lanczos' method with full orthogonalization, done twice.

    All comparisons are relative to the operator, so that its scale does not matter.

    Args:
        product: Symmetric linear map of `(n,)` to the same shape and dtype.
        start: `(n,)` vector, not zero; float32 or float64, which the method runs in.
        steps: Most products to make.
        tolerance: Stop once the residuals of both the lowest and the highest node are at most this share of the
            largest magnitude; 0 makes all steps.
        vectors: Whether to return the vectors of both ends.

    Returns:
        Nodes, weights and residuals, of fewer steps where the space is exhausted.

    Raises:
        UsageError: The vectors kept do not fit `BASIS_LIMIT`, or a product is not finite.
    """
    steps = min(steps, len(start))
    _check_memory(start, steps)
    basis = start.new_empty((steps, len(start)))
    alphas: list[float] = []
    betas: list[float] = []
    rounding = _NOTHING * torch.finfo(start.dtype).eps
    q = start / torch.linalg.vector_norm(start)
    for step in range(steps):
        basis[step] = q
        w = product(q)
        alphas.append(float(torch.dot(q, w)))
        known = basis[: step + 1]
        for _ in range(2):
            w = w - known.T @ (known @ w)
        betas.append(float(torch.linalg.vector_norm(w)))
        if not np.isfinite(alphas[-1] + betas[-1]):
            raise UsageError("the Hessian has elements that are not finite, so it has no eigenvalues")
        scale = max(map(abs, (*alphas, *betas)))
        exhausted = step + 1 == len(start) or betas[-1] <= rounding * scale
        if exhausted or (tolerance and step % _EVERY == _EVERY - 1 and _converged(alphas, betas, tolerance)):
            break
        q = w / betas[-1]
    return _resolved(alphas, betas, basis if vectors else None, exhausted=exhausted)


def _check_memory(start: Tensor, steps: int) -> None:
    row = start.numel() * start.element_size()
    if row * steps > BASIS_LIMIT:
        raise UsageError(
            f"{steps} steps with {start.numel():,} parameters keep {row * steps / 2**30:.1f} GiB of vectors, more than "
            f"{BASIS_LIMIT / 2**30:.0f} GiB; at most {BASIS_LIMIT // row} steps fit, or choose fewer parameters"
        )


def _eigen(alphas: list[float], betas: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues and eigenvectors of the tridiagonal matrix."""
    between = betas[: len(alphas) - 1]
    values, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(between, 1) + np.diag(between, -1))
    return values, vectors


def _converged(alphas: list[float], betas: list[float], tolerance: float) -> bool:
    values, vectors = _eigen(alphas, betas)
    residuals = betas[-1] * np.abs(vectors[-1, [0, -1]])
    return bool(residuals.max() <= tolerance * np.abs(values).max())


def _resolved(alphas: list[float], betas: list[float], basis: Tensor | None, *, exhausted: bool) -> Krylov:
    values, vectors = _eigen(alphas, betas)
    ends = None
    if basis is not None:
        both = torch.from_numpy(np.ascontiguousarray(vectors[:, [0, -1]].T)).to(basis)
        ends = both @ basis[: len(alphas)]
    return Krylov(values, np.square(vectors[0]), betas[-1] * np.abs(vectors[-1]), exhausted, ends)
