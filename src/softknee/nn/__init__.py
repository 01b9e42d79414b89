"""Activations as modules: one class for each entry of the catalogue, made at its first use from its spec."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from softknee.functional import SPECS
from softknee.nn.activation import Activation
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import Formula
from softknee.nn.gated import Gated
from softknee.nn.vector import Vector

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPECS = {spec.title: spec for spec in SPECS}
_BASES: Mapping[str, type[Activation]] = {"elementwise": Elementwise, "gated": Gated, "vector": Vector}
# Of the entries of a family that have more in common, by the file that holds it.
_FAMILY_BASES: Mapping[str, tuple[str, str]] = {"diffeomorphic": ("diffeomorphic", "Diffeomorphic")}
# What is written by hand, by the file that holds it: classes that need more than a spec, and helpers.
_WRITTEN: Mapping[str, str] = {
    **dict.fromkeys(("FReLU", "DynamicReLU", "MetaACON", "ATAC"), "contextual"),
    "GatedBy": "gated_by",
    "GatedMix": "gated_mix",
    **dict.fromkeys(("LinearMix", "ConvexMix", "AffineMix", "TAAF", "Blend"), "mixture"),
    **dict.fromkeys(("Diffeomorphic", "calibrate_intervals_"), "diffeomorphic"),
    "published_ditac": "published",
    "fit_": "fitting",
    "siren_init_": "siren",
}

__all__ = ["Activation", "Elementwise", "Formula", "Gated", "Vector", *dict.fromkeys((*_SPECS, *_WRITTEN))]


def __getattr__(name: str) -> Any:
    if name in _WRITTEN:
        return getattr(import_module(f"softknee.nn.{_WRITTEN[name]}"), name)
    if name not in _SPECS:
        raise AttributeError(f"module 'softknee.nn' has no attribute {name!r}")
    spec = _SPECS[name]
    base = _BASES[spec.kind]
    if spec.family in _FAMILY_BASES:
        file, title = _FAMILY_BASES[spec.family]
        base = getattr(import_module(f"softknee.nn.{file}"), title)
    about = f"{inspect.getdoc(spec.function)}\n\nOptions: see `{base.__name__}`."
    module = type(name, (base,), {"spec": spec, "__doc__": about, "__module__": __name__, "__qualname__": name})
    globals()[name] = module
    return module


def __dir__() -> list[str]:
    return sorted({*globals(), *_SPECS, *_WRITTEN})
