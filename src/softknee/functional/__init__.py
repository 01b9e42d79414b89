"""Activations as pure functions, one file a family, each with its spec beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee.functional import exponential, gated, oscillating, rationals, rectifiers, sigmoidal, splines

if TYPE_CHECKING:
    from softknee._spec import Spec

FAMILIES = (
    rectifiers,
    exponential,
    sigmoidal,
    gated,
    oscillating,
    rationals,
    splines,
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
