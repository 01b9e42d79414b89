"""Priors of velocity fields, as in the published code of DiTAC and of difw, on which that is built.

A field on [0, 1] that stands still at both ends is a vector of the slope and the intercept in each cell, one after the
other. Those of continuous fields are a linear space; what is drawn from, or measured against, a normal distribution of
all vectors is projected on it. So nothing here depends on a choice of coordinates in that space.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# How far away coefficients are still alike, and how large they are.
SMOOTHNESS = 5.0
VARIANCE = 2.0
# How much less alike a slope and an intercept are.
APART = 100.0
RIDGE = 1.2e-7


def draw_smooth(
    inner: int, generator: torch.Generator | None = None, *, smoothness: float = SMOOTHNESS, variance: float = VARIANCE
) -> Tensor:
    """Draw the velocities of a smooth field: mostly one bump of random sign.

    Args:
        inner: How many knots there are inside [0, 1].
        generator: Source of random numbers, torch's global one by default.
        smoothness: How far away coefficients are still alike, `lambda_smooth_init` of the published code.
        variance: How large they are, its `lambda_var_init`.

    Returns:
        `(inner,)` float32.
    """
    cells = inner + 1
    centres = (torch.arange(cells, dtype=torch.float64, device="cpu") + 0.5) / cells
    distances = (centres[:, None] - centres).abs()
    alike = torch.exp(-distances / (2 * smoothness**2))
    across = torch.exp(-APART * distances.max() / (2 * smoothness**2)).expand_as(alike)
    # Slopes and intercepts take turns.
    covariance = variance**2 * torch.stack([alike, across, across, alike]).view(2, 2, cells, cells)
    covariance = covariance.permute(2, 0, 3, 1).reshape(2 * cells, 2 * cells)
    values, vectors = torch.linalg.eigh(covariance)
    noise = torch.randn(2 * cells, generator=generator, device="cpu")
    drawn = vectors @ (values.clamp(min=0).sqrt() * noise.double())
    velocities: Tensor = torch.linalg.lstsq(coefficients(inner), drawn[:, None]).solution[:, 0]
    return velocities.float()


@lru_cache(maxsize=16)
def prior_precision(inner: int, smoothness: float = SMOOTHNESS, variance: float = VARIANCE) -> Tensor:
    r"""Return $Q$ with $\theta^\top \Sigma^{-1} \theta = u^\top Q u$ for velocities $u$ at the inner knots of [0, 1].

    Args:
        inner: How many knots there are inside.
        smoothness: `lambda_smooth` of the published code.
        variance: Its `lambda_var`.

    Returns:
        `(inner, inner)` float64.
    """
    # What is kept may be asked for first where no gradients can go through tensors.
    with torch.inference_mode(mode=False):
        _, coordinates = basis(inner)
        return coordinates.T @ precision_of_theta(inner, smoothness, variance) @ coordinates


def precision_of_theta(inner: int, smoothness: float, variance: float) -> Tensor:
    r"""Return $\Sigma^{-1}$, `(inner, inner)` float64, in the coordinates of `basis`."""
    size = 2 * (inner + 1)
    places = torch.linspace(-1, 1, size, dtype=torch.float64, device="cpu")
    covariance = (variance * size) ** 2 * torch.exp(-2 * (places[:, None] - places).abs() / smoothness)
    vectors, _ = basis(inner)
    ridge = RIDGE * torch.eye(inner, dtype=torch.float64, device="cpu")
    precision: Tensor = torch.linalg.inv(vectors.T @ covariance @ vectors + ridge)
    return precision


def basis(inner: int) -> tuple[Tensor, Tensor]:
    """Return orthonormal columns of continuous fields, and the matrix from velocities at the knots to coordinates."""
    vectors, coordinates = torch.linalg.qr(coefficients(inner))
    return vectors, coordinates


@lru_cache(maxsize=16)
def coefficients(inner: int) -> Tensor:
    """Return the matrix from velocities at the inner knots of [0, 1] to slopes and intercepts, `(2 cells, inner)`."""
    cells = inner + 1
    hats = torch.eye(cells + 1, dtype=torch.float64, device="cpu")[:, 1:-1]
    slopes = (hats[1:] - hats[:-1]) * cells
    starts = torch.arange(cells, dtype=torch.float64, device="cpu")[:, None] / cells
    return torch.stack([slopes, hats[:-1] - slopes * starts], 1).flatten(0, 1)
