"""Rules about units, single sites, and how sites follow one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._report.table import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Losses that apply a softmax or sigmoid of their own; torch's own functions go by the same names.
LOGITS = frozenset({"cross_entropy", "bce_with_logits", "binary_cross_entropy_with_logits"})
# What a negative score is lost to, rather than squeezed.
_SQUEEZES = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "tanh"})
# Keeps a number and its sign on one line.
_SPACE = "\u00a0"
_BETWEEN_LAYERS = frozenset({"activation", "pair"})


@dataclass(frozen=True)
class Evidence:
    """What a rule found.

    Attributes:
        id: Of the rule.
        severity: `"critical"`, `"warn"` or `"info"`.
        site: Name of the site or layer, empty for the whole model.
        text: What was found, in a sentence with its numbers.
        value: The number that decided, None if there is none.
        low: Lower end of its interval.
        high: Upper end.
    """

    id: str
    severity: str
    site: str
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


def of_site(site: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    """Yield what is found at one site.

    Args:
        site: Of the schema.
        limits: Thresholds.

    Yields:
        The evidence.
    """
    yield from _dead(site, limits)
    yield from _others(site, limits)
    yield from _moments(site, limits)
    yield from _precision(site, limits)


def of_structure(data: Mapping[str, Any]) -> Iterator[Evidence]:
    """Yield what is found in the order of the sites and in the outputs.

    Args:
        data: A diagnosis.

    Yields:
        The evidence.
    """
    structure = data["structure"] or {}
    for first, second in structure.get("in_a_row") or ():
        yield Evidence("activations-in-a-row", "warn", second, f"It acts on the output of {first}.")
    fresh = structure.get("fresh_norms") or 0
    if fresh:
        text = f"In eval mode, as units are measured, {plural(fresh, 'batch norm')} without data yet normalize nothing."
        yield Evidence("fresh-statistics", "warn", "", text, float(fresh))
    if structure.get("deterministic") is False:
        yield Evidence("nondeterministic", "warn", "", "Two runs of the first samples in eval mode differ.")
    share = structure.get("outputs_nonfinite") or 0.0
    if share:
        yield Evidence("non-finite", "critical", "", f"{percent(share)} of the model's outputs are not finite.", share)
    layers = structure.get("layers") or 0
    if structure.get("sites") == 0 and layers > 1:
        text = f"{plural(layers, 'layer')} with weights, and no activation was seen."
        yield Evidence("no-activation", "warn", "", text)
    yield from _before_loss(data, structure)


def percent(share: float) -> str:
    """Return a share in percent, small ones not as 0."""
    number = 100 * share
    digits = f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.095 else f"{number:.1g}"
    return f"{digits}{_SPACE}%"


def _share(site: Mapping[str, Any], state: str) -> float:
    found = site["states"].get(state)
    return float(found["share"] or 0.0) if found else 0.0


def _seen(found: Mapping[str, Any], what: str) -> str:
    """Return the sentence that goes with what was never seen."""
    n, bound = found.get("n"), found.get("bound")
    if not n or bound is None:
        return ""
    return f" None of {n:,} values each had {what}, so its rate is under {percent(bound)} (95{_SPACE}%)."


def _dead(site: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    name, units = site["name"], site.get("units")
    dead, silent = site["states"].get("dead"), site["states"].get("silent")
    share = _share(site, "dead")
    if dead and share >= limits["dead_info"]:
        verb = "is" if dead["count"] == 1 else "are"
        text = f"{dead['count']:,} of {plural(units or 0, 'unit')} ({percent(share)}) {verb} dead."
        text += _seen(dead, "a slope")
        level = "critical" if share >= limits["dead_critical"] else "warn" if share >= limits["dead_warn"] else "info"
        whole = share >= 1.0
        level = "info" if _is_rare(dead, limits, units or 1 if whole else 1) else level
        yield Evidence("dead-layer" if whole else "dead-units", level, name, text, share)
    only = _share(site, "silent") - share
    if silent and only >= limits["silent_warn"]:
        text = f"{percent(only)} of {plural(units or 0, 'unit')} gave exactly 0 at every sample."
        level = "info" if _is_rare(silent, limits, 1) else "warn"
        yield Evidence("silent-units", level, name, text + _seen(silent, "an output"), only)


def _is_rare(found: Mapping[str, Any], limits: Mapping[str, float], times: int) -> bool:
    """Return whether so few values were seen that what never happened may happen often; of a layer, `times` more."""
    n = found.get("n") or 0
    return n > 0 and 1 - 0.05 ** (1 / (n * times)) > limits["unseen_rate"]


def _others(site: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    name, units = site["name"], plural(site.get("units") or 0, "unit")
    dead, silent = _share(site, "dead"), _share(site, "silent")
    constant = _share(site, "constant") - max(silent, dead)
    if constant >= limits["constant_warn"]:
        text = f"{percent(constant)} of {units} hardly vary over the samples, at a value other than 0."
        yield Evidence("constant-units", "warn", name, text, constant)
    saturated = _share(site, "saturated") - dead
    if saturated >= limits["saturated_warn"]:
        level = "critical" if saturated >= limits["saturated_critical"] else "warn"
        text = f"{percent(saturated)} of {units} have hardly a slope at 95{_SPACE}% of their values, without dead ones."
        # Of functions that are 0 where they are flat, these units are on, with a slope, at the rest.
        if _rarely_on(site) >= round(saturated * (site.get("units") or 0)):
            text += f" They are 0 there, and learn from the other 5{_SPACE}% at most."
        yield Evidence("saturated-units", level, name, text, saturated)
    for state, what in (("dormant", "output"), ("gradient_dormant", "gradient")):
        share = _share(site, state) - max(silent, dead)
        if share >= limits["dormant_info"]:
            text = f"{percent(share)} of {units} have a mean {what} far under that of the site, dead ones not counted."
            yield Evidence(f"{state.replace('_', '-')}-units", "info", name, text, share)


def _rarely_on(site: Mapping[str, Any]) -> int:
    """Return how many units give something else than 0 at some of their values, and at no more than 5 % of them."""
    silent = site["states"].get("silent") or {}
    return int((site.get("firing") or [0])[0]) - int(silent.get("count") or 0)


def _moments(site: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    name, moments = site["name"], site.get("moments") or {}
    bad = moments.get("nonfinite") or 0.0
    if bad:
        yield Evidence("non-finite", "critical", name, f"{percent(bad)} of the inputs are not finite.", bad)
    linear = moments.get("linear_r2")
    if linear is not None and linear > limits["linear_r2"] and site["role"] in _BETWEEN_LAYERS:
        text = f"A line explains {100 * linear:.2f} % of the variance of {site['kind']}."
        yield Evidence("nearly-linear", "warn", name, text, linear)
    ratio = moments.get("outlier_ratio")
    if ratio is not None and ratio >= limits["outliers_info"] and site["role"] in _BETWEEN_LAYERS:
        level = "warn" if ratio >= limits["outliers_warn"] else "info"
        yield Evidence("outlier-ratio", level, name, f"The largest output is {ratio:,.0f} times the usual one.", ratio)


def _precision(site: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    """Yield what another precision loses; what is flat in all of them is the function's own way."""
    precision = site.get("precision")
    if not precision:
        return
    beyond = precision.get("beyond") or 0.0
    others = {name: share for name, share in (precision.get("others") or {}).items() if share is not None}
    least = min([beyond, *others.values()])
    if beyond - least > limits["vanished_share"]:
        text = (
            f"In {precision['dtype']} the slope is 0 at {percent(beyond)} of the inputs, at least at {percent(least)}."
        )
        yield Evidence("dtype-risk", "warn", site["name"], text, beyond)
        return
    worse = {name: share for name, share in others.items() if share - beyond > limits["vanished_share"]}
    if worse:
        listed = ", ".join(f"{name} {percent(share)}" for name, share in worse.items())
        text = f"The slope would be exactly 0 at more of the inputs in {listed}; now at {percent(beyond)}."
        yield Evidence("dtype-risk", "info", site["name"], text, max(worse.values()))


def _before_loss(data: Mapping[str, Any], structure: Mapping[str, Any]) -> Iterator[Evidence]:
    loss = data["data"].get("loss")
    if loss not in LOGITS:
        return
    for kind, name in structure.get("at_output") or ():
        does = "squeezes" if kind in _SQUEEZES else "changes"
        text = f"The model returns the output of {kind}, which {does} what {loss} takes as logits."
        yield Evidence("activation-before-loss", "critical" if kind in _SQUEEZES else "warn", name, text)
