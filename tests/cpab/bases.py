"""Bases of continuous, piecewise affine fields, made as the published code makes them: from their constraints."""

from __future__ import annotations

import numpy as np
import torch


def constraints(cells, *, still):
    """Continuity of `slope x + intercept` at inner knots of [0, 1] and, if wanted, none of it at both ends."""
    rows = []
    for i in range(1, cells):
        row, knot = np.zeros(2 * cells), i / cells
        row[2 * i - 2 : 2 * i + 2] = (knot, 1, -knot, -1)
        rows.append(row)
    if still:
        first, last = np.zeros(2 * cells), np.zeros(2 * cells)
        first[1], last[-2:] = -1, (-1, -1)
        rows += [first, last]
    return np.array(rows).reshape(-1, 2 * cells)


def basis(kind, cells, *, still=True):
    rows = constraints(cells, still=still)
    if kind == "svd":
        _, values, vectors = np.linalg.svd(rows)
        null = vectors[(values > 1e-10).sum() :].T
    elif kind == "qr":
        full, _ = np.linalg.qr(rows.T, mode="complete")
        null = full[:, len(rows) :]
    else:  # hats, scaled as "sparse" is
        knots = np.eye(cells + 1)[:, slice(1, -1) if still else slice(None)]
        slopes = np.diff(knots, axis=0) * cells
        intercepts = knots[:-1] - slopes * (np.arange(cells)[:, None] / cells)
        null = np.stack([slopes, intercepts], 1).reshape(2 * cells, -1)
        null /= np.abs(null).max(0)
    assert np.allclose(rows @ null, 0, atol=1e-12)
    return torch.from_numpy(null.copy())
