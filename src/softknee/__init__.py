"""softknee: activation functions for PyTorch. Know them, compare them honestly, put them into any model.

Nothing loads before it is used: each public name is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from softknee._version import __version__

if TYPE_CHECKING:
    from softknee import cpab, diagnostics, functional, integrations, nn, testing
    from softknee._bench.compare import bench
    from softknee._bench.protocol import Protocol
    from softknee._bench.study import Study
    from softknee._card.card import Card, card
    from softknee._card.cost import Cost, cost
    from softknee._card.propagation import gain, moments
    from softknee._card.recognise import recognise
    from softknee._card.source import source
    from softknee._catalogue import cite, create, families, get, list  # noqa: A004 (softknee.list is the public name)
    from softknee._design import Design, design
    from softknee._diagnose.diagnosis import Diagnosis
    from softknee._diagnose.run import diagnose
    from softknee._diagnose.units.watch import watch
    from softknee._engine.memory import keep_memory
    from softknee._engine.select import engine
    from softknee._errors import MissingExtra, SoftkneeError, UsageError
    from softknee._glu import glu
    from softknee._search.mixture import Mixture
    from softknee._search.operations import Operation
    from softknee._search.search import search
    from softknee._search.session import Search
    from softknee._search.space import Space
    from softknee._spec import Param, Promises, Spec
    from softknee._surgery.calibrate import calibrate
    from softknee._surgery.calibration import CalibratedLayer, Calibration
    from softknee._surgery.find import sites
    from softknee._surgery.places import Site, Sites
    from softknee._surgery.recipe import Recipe
    from softknee._surgery.swap import Report, swap, unswap
    from softknee.nn.formula import expression
    from softknee.nn.groups import matrix_parameters, parameter_groups
    from softknee.nn.reach import calibrate_reach

_HOMES = {
    "CalibratedLayer": "softknee._surgery.calibration",
    "Calibration": "softknee._surgery.calibration",
    "Card": "softknee._card.card",
    "Cost": "softknee._card.cost",
    "Design": "softknee._design",
    "Diagnosis": "softknee._diagnose.diagnosis",
    "MissingExtra": "softknee._errors",
    "Mixture": "softknee._search.mixture",
    "Operation": "softknee._search.operations",
    "Param": "softknee._spec",
    "Promises": "softknee._spec",
    "Protocol": "softknee._bench.protocol",
    "Recipe": "softknee._surgery.recipe",
    "Report": "softknee._surgery.swap",
    "Search": "softknee._search.session",
    "Site": "softknee._surgery.places",
    "Sites": "softknee._surgery.places",
    "SoftkneeError": "softknee._errors",
    "Space": "softknee._search.space",
    "Spec": "softknee._spec",
    "Study": "softknee._bench.study",
    "UsageError": "softknee._errors",
    "bench": "softknee._bench.compare",
    "calibrate": "softknee._surgery.calibrate",
    "calibrate_reach": "softknee.nn.reach",
    "card": "softknee._card.card",
    "cite": "softknee._catalogue",
    "cost": "softknee._card.cost",
    "create": "softknee._catalogue",
    "design": "softknee._design",
    "diagnose": "softknee._diagnose.run",
    "engine": "softknee._engine.select",
    "expression": "softknee.nn.formula",
    "families": "softknee._catalogue",
    "gain": "softknee._card.propagation",
    "get": "softknee._catalogue",
    "glu": "softknee._glu",
    "keep_memory": "softknee._engine.memory",
    "list": "softknee._catalogue",
    "matrix_parameters": "softknee.nn.groups",
    "moments": "softknee._card.propagation",
    "parameter_groups": "softknee.nn.groups",
    "recognise": "softknee._card.recognise",
    "search": "softknee._search.search",
    "sites": "softknee._surgery.find",
    "source": "softknee._card.source",
    "swap": "softknee._surgery.swap",
    "unswap": "softknee._surgery.swap",
    "watch": "softknee._diagnose.units.watch",
}
_NAMESPACES = ("cpab", "diagnostics", "functional", "integrations", "nn", "testing")

__all__ = [
    "CalibratedLayer",
    "Calibration",
    "Card",
    "Cost",
    "Design",
    "Diagnosis",
    "MissingExtra",
    "Mixture",
    "Operation",
    "Param",
    "Promises",
    "Protocol",
    "Recipe",
    "Report",
    "Search",
    "Site",
    "Sites",
    "SoftkneeError",
    "Space",
    "Spec",
    "Study",
    "UsageError",
    "__version__",
    "bench",
    "calibrate",
    "calibrate_reach",
    "card",
    "cite",
    "cost",
    "cpab",
    "create",
    "design",
    "diagnose",
    "diagnostics",
    "engine",
    "expression",
    "families",
    "functional",
    "gain",
    "get",
    "glu",
    "integrations",
    "keep_memory",
    "list",
    "matrix_parameters",
    "moments",
    "nn",
    "parameter_groups",
    "recognise",
    "search",
    "sites",
    "source",
    "swap",
    "testing",
    "unswap",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return import_module(f"softknee.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'softknee' has no attribute {name!r}")
    if name in {"bench", "design"}:
        import_module("softknee._extras").require("pydantic", extra="bench")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:  # type: ignore[valid-type]
    return sorted([*globals(), *__all__])
