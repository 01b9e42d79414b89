"""From what was measured to findings: pure functions of the dictionary of a diagnosis."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from softknee._diagnose.rules import layers, units
from softknee._diagnose.rules.explain import RULES, rule
from softknee._diagnose.schema import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from softknee._diagnose.rules.units import Evidence

# All limits of all rules: shares of units and values are between 0 and 1.
THRESHOLDS: Mapping[str, float] = MappingProxyType(
    {
        "dead_info": 0.01,
        "dead_warn": 0.1,
        "dead_critical": 0.5,
        "unseen_rate": 0.1,
        "silent_warn": 0.1,
        "constant_warn": 0.1,
        "saturated_warn": 0.1,
        "saturated_critical": 0.5,
        "dormant_info": 0.25,
        "linear_r2": 0.99,
        "outliers_info": 32.0,
        "outliers_warn": 127.0,
        "vanished_share": 0.01,
        "chi_product": 100.0,
        "chi_product_critical": 10_000.0,
        "cosine": 0.99,
        "gain_ratio": 1.25,
        "gradient_ratio": 1000.0,
    }
)


def findings(data: Mapping[str, Any], *, silence: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return what the rules find, worst first and in the order of the sites.

    Args:
        data: A diagnosis, without its findings.
        silence: Ids of rules that are to be quiet.

    Returns:
        Findings of the schema.

    Raises:
        UsageError: There is no rule of such an id.
    """
    quiet = {rule(name).id for name in silence}
    order = {name: index for index, name in enumerate(RULES)}
    found = [_finding(one) for one in _evidence(data) if one.id not in quiet]
    # Sorting is stable: within a rule the sites stay in the order of the model.
    return sorted(found, key=lambda one: (SEVERITIES.index(one["severity"]), order[one["id"]]))


def worst(found: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the worst severity of findings, None if there are none."""
    there = {one["severity"] for one in found}
    return next((severity for severity in SEVERITIES if severity in there), None)


def _evidence(data: Mapping[str, Any]) -> Iterator[Evidence]:
    for site in data["sites"]:
        yield from units.of_site(site, THRESHOLDS)
    yield from units.of_structure(data)
    yield from layers.of_signal(data, THRESHOLDS)
    yield from layers.of_gradients(data["gradients"], THRESHOLDS)
    yield from layers.of_trainable(data["trainable"] or ())
    yield from layers.of_curvature(data)
    yield from layers.of_coverage(data)


def _finding(evidence: Evidence) -> dict[str, Any]:
    one = RULES[evidence.id]
    return {
        "id": one.id,
        "severity": evidence.severity,
        "site": evidence.site,
        "value": evidence.value,
        "low": evidence.low,
        "high": evidence.high,
        "text": evidence.text,
        "why": one.why,
        "reference": one.reference,
        "fix": one.fix,
        "check": one.check,
    }
