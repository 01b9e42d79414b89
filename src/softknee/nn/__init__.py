"""Activations as modules: one class for each entry of the catalogue, made at its first use from its spec."""

from __future__ import annotations

import inspect
from typing import Any

from softknee.functional import SPECS
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import Formula

_SPECS = {spec.title: spec for spec in SPECS}

__all__ = ["Elementwise", "Formula", *_SPECS]


def __getattr__(name: str) -> Any:
    if name not in _SPECS:
        raise AttributeError(f"module 'softknee.nn' has no attribute {name!r}")
    spec = _SPECS[name]
    about = f"{inspect.getdoc(spec.function)}\n\nOptions: see `Elementwise`."
    module = type(name, (Elementwise,), {"spec": spec, "__doc__": about, "__module__": __name__, "__qualname__": name})
    globals()[name] = module
    return module


def __dir__() -> list[str]:
    return sorted([*globals(), *_SPECS])
