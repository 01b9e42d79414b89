"""Activations as pure functions, each with its spec beside it; a family fills one file or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee.functional import (
    asymmetric,
    bounded,
    cdfs,
    contextual,
    curved_rectifiers,
    diffeomorphic,
    divisive,
    equivariant,
    exponential,
    exponential_units,
    gated,
    gated_linear,
    gated_linear_bounded,
    gates_by_cdf,
    harmonics,
    hinges,
    implicit,
    mixtures,
    oscillating,
    pairs_and_groups,
    parametric_rectifiers,
    piecewise,
    polynomials,
    power_rectifiers,
    radial,
    rational_versions,
    rationals,
    rectifiers,
    self_gated,
    sigmoidal,
    simplex,
    soft_rectifiers,
    softplus_gates,
    sparse_codes,
    splines,
    stochastic,
    subnetworks,
    surrogate,
    trainable_gates,
    tropical_polynomials,
    waves,
    waves_and_powers,
)

if TYPE_CHECKING:
    from softknee._spec import Spec

FAMILIES = (
    rectifiers,
    parametric_rectifiers,
    power_rectifiers,
    curved_rectifiers,
    exponential,
    exponential_units,
    soft_rectifiers,
    sigmoidal,
    bounded,
    asymmetric,
    cdfs,
    gated,
    self_gated,
    softplus_gates,
    gates_by_cdf,
    trainable_gates,
    waves_and_powers,
    oscillating,
    waves,
    implicit,
    harmonics,
    rationals,
    rational_versions,
    polynomials,
    tropical_polynomials,
    splines,
    radial,
    piecewise,
    hinges,
    diffeomorphic,
    stochastic,
    surrogate,
    gated_linear,
    gated_linear_bounded,
    pairs_and_groups,
    sparse_codes,
    simplex,
    divisive,
    equivariant,
    contextual,
    mixtures,
    subnetworks,
)
SPECS: tuple[Spec, ...] = tuple(spec for family in FAMILIES for spec in family.SPECS)

_FUNCTIONS = {
    function.__name__: function for spec in SPECS for function in (spec.function, spec.sampled) if function is not None
}

__all__ = ["SPECS", *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'softknee.functional' has no attribute {name!r}")
    return _FUNCTIONS[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS])
