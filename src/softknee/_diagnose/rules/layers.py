"""Rules about layers: signal, gradients, trained activations, curvature, and what was not seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._diagnose.rules.units import Evidence, percent
from softknee._report.table import listed, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NAMED = 3
# Mean square of PyTorch's default weights times their number, and how far a layer of few weights may be off it.
_DEFAULT, _NEAR = 1 / 3, 0.1


def of_signal(data: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Evidence]:
    """Yield what the propagation of the signal shows.

    Args:
        data: A diagnosis.
        limits: Thresholds.

    Yields:
        The evidence.
    """
    signal = data["signal"]
    if not signal:
        return
    before, after = _parted(signal["layers"])
    product = signal.get("chi_product")
    if product == 0 and any(one.get("chi") == 0 for one in after):
        # A head drawn as zeros, which is another after one step.
        product = math.prod(one["chi"] for one in before if one.get("chi") is not None)
    if product is not None and not 1 / limits["chi_product"] <= product <= limits["chi_product"]:
        extreme = limits["chi_product_critical"]
        level = "warn" if 1 / extreme <= product <= extreme else "critical"
        word = "shrinks" if product < 1 else "grows"
        text = f"By theory the squared gradient {word} by {_factor(product)} from the last layer to the first."
        yield Evidence("chi-product", level, "", text, product)
    cosine = signal.get("cosine_last")
    if cosine is not None and cosine > limits["cosine"]:
        last = next((one["layer"] for one in reversed(signal["layers"]) if one.get("cosine") is not None), "")
        text = f"The mean cosine between samples is {cosine:.4f} at the last layer measured."
        yield Evidence("collapse", "warn", last, text, cosine)
    ratio = limits["gain_ratio"]
    off = [one for one in before if one.get("ratio") and not 1 / ratio <= one["ratio"] <= ratio]
    if off:
        far = max(off, key=lambda one: abs(math.log(one["ratio"])))
        measured = sum(one.get("ratio") is not None for one in before)
        off_gain = "is off the forward gain" if len(off) == 1 else "are off the forward gain, here most"
        text = (
            f"{len(off)} of {plural(measured, 'layer')} {off_gain}: σ_w = {far['gain']:.3g} where {far['matched']:.3g} "
            f"fits (ratio {far['ratio']:.2g})."
        )
        if abs(far["gain"] ** 2 / _DEFAULT - 1) < _NEAR:
            text += " PyTorch's default has σ_w² = 1/3, a sixth of He's value for ReLU."
        yield Evidence(
            "gain-mismatch", "info" if data["model"].get("trained") else "warn", far["layer"], text, far["ratio"]
        )


def of_gradients(gradients: Mapping[str, Any] | None, limits: Mapping[str, float]) -> Iterator[Evidence]:
    """Yield what the gradients of the parameters show.

    Args:
        gradients: Of the schema.
        limits: Thresholds.

    Yields:
        The evidence.
    """
    layers = gradients["layers"] if gradients else ()
    for one in layers:
        bad = (one["gradient"] or {}).get("nonfinite") or 0.0
        if bad:
            text = f"{percent(bad)} of the gradient is not finite."
            yield Evidence("non-finite", "critical", one["path"], text, bad)
    meant = [one for one in layers if one.get("trained", True)]
    still = [one["path"] for one in meant if one["gradient"] is None or one["gradient"].get("zero") == 1.0]
    if still:
        yield Evidence("no-gradient", "warn", still[0], f"{_some(still)} got no gradient.", float(len(still)))
    sizes = {one["path"]: _rms(one["gradient"]) for one in layers if _is_layer(one)}
    sizes = {path: size for path, size in sizes.items() if size}
    if len(sizes) > 1:
        low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        spread = sizes[high] / sizes[low]
        if spread > limits["gradient_ratio"]:
            text = f"The gradient of {high} is {spread:,.0f} times that of {low} (root mean squares)."
            yield Evidence("gradient-spread", "warn", low, text, spread)


def of_trainable(rows: Sequence[Mapping[str, Any]]) -> Iterator[Evidence]:
    """Yield what is found about parameters of activations.

    Args:
        rows: Of the schema.

    Yields:
        The evidence.
    """
    for one in rows:
        name = f"{one['path']}.{one['parameter']}".lstrip(".")
        site = one["site"] or name
        if one.get("nonfinite"):
            yield Evidence("parameter-not-finite", "critical", site, f"{name} is not finite.")
        if one.get("optimised") is False and one.get("trained", True):
            text = f"{name} requires gradients and is in no group of the optimizer."
            yield Evidence("not-optimised", "critical", site, text)
        if one.get("decayed"):
            yield Evidence("activation-decay", "warn", site, f"{name} is under weight decay.")
        if one.get("at_bound"):
            yield Evidence("parameter-at-bound", "warn", site, f"{name} lies at the end of its range.")
        if one.get("shared"):
            yield Evidence("shared-parameters", "warn", site, f"{name} acts at several sites.")


def of_curvature(data: Mapping[str, Any]) -> Iterator[Evidence]:
    """Yield whether the learning rate is stable.

    Args:
        data: A diagnosis.

    Yields:
        The evidence.
    """
    curvature, optimizer = data["curvature"], data["model"].get("optimizer") or {}
    rate = optimizer.get("lr")
    if not curvature or rate is None or optimizer.get("kind") != "sgd":
        return
    momentum = optimizer.get("momentum") or 0.0
    top = curvature["eigenvalues"]["top"]
    if not top or top <= 0:
        return
    limit = 2 * (1 + momentum) / top
    residual = curvature["eigenvalues"].get("top_residual") or 0.0
    if rate > limit:
        text = f"The learning rate {rate:g} is {rate / limit:.3g} times the stable {limit:.3g} (λ_max = {top:.4g})."
        scale = 2 * (1 + momentum)
        ends = rate * max(top - residual, 0.0) / scale, rate * (top + residual) / scale
        yield Evidence("sharpness", "warn", "", text, rate / limit, *ends)


def of_coverage(data: Mapping[str, Any]) -> Iterator[Evidence]:
    """Yield what was not seen, and what could not be measured.

    Args:
        data: A diagnosis.

    Yields:
        The evidence.
    """
    for one in data["coverage"]:
        yield Evidence("not-seen", "info", one["path"], one["reason"])
    for part, reason in (data["method"].get("not_measured") or {}).items():
        yield Evidence("not-measured", "info", "", f"{part}: {reason}")


def _parted(layers: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return the layers up to the last that feeds an activation, and the others: heads, whose scale is free."""
    count = max((index for index, one in enumerate(layers, 1) if one.get("site") is not None), default=0)
    return layers[:count], layers[count:]


def _is_layer(one: Mapping[str, Any]) -> bool:
    """Return whether a parameter is the weight of a layer, whose sums have many terms."""
    return len(one["shape"]) > 1 and one["kind"].startswith(("Linear", "Conv"))


def _rms(found: Mapping[str, Any] | None) -> float:
    return float((found or {}).get("scale") or 0.0)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return listed(list(names)) if rest <= 0 else f"{', '.join(names[:_NAMED])} and {rest:,} more"


def _factor(product: float) -> str:
    factor = product if product >= 1 else 1 / product if product > 0 else math.inf
    return f"a factor of {factor:,.0f}" if factor < 1e6 else f"a factor of {factor:.0e}"
