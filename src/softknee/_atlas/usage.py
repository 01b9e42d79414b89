"""How an activation is made, trained and evaluated, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._atlas.claims import figure
from softknee._atlas.facts import ADAPTATIONS, CHEAP, DEAR
from softknee._card.subject import CHANNELS
from softknee._report.table import choices, listed, plural
from softknee.nn.options import needs_channels, stored

if TYPE_CHECKING:
    from softknee._atlas.facts import Entry
    from softknee._card.propagation import Gain
    from softknee._spec import Spec

ENGINES = {
    "eager": "evaluated as it is written",
    "fused": "evaluated by kernels of its own, one pass forward and one backward, on large tensors",
    "table": "evaluated through a table made from its present parameters, on large tensors",
}
BUILT_IN = "torch has it as one operation, as fast as memory can be moved"
COST_TEXTS = {
    "cheap": "its time is that of moving the tensor",
    "moderate": "some arithmetic beside moving the tensor",
    "expensive": "more arithmetic than a lookup in a table",
    "not counted": "it is no arithmetic on single elements",
}


def facts_text(entry: Entry) -> list[tuple[str, str]]:
    """Return how an activation adapts, trains, runs and what it costs: terms with explanations."""
    spec, promises = entry.spec, entry.spec.promises
    facts = [
        ("Adapts", f"{entry.adaptation}: {ADAPTATIONS[entry.adaptation]}"),
        ("Parameters", _parameters(entry)),
        ("Starts", choices(spec.initializations) if spec.initializations else ""),
        ("Weight decay", _weight_decay(entry)),
        ("Gain", _gain(entry.gain) if entry.gain is not None else ""),
    ]
    if spec.kind == "elementwise":
        price = "" if entry.price is None else f" ({entry.price} vector instructions an element, forward and backward)"
        facts += [
            ("Cost", f"{entry.cost}{price}: {COST_TEXTS[entry.cost]}"),
            ("Engine", f"{entry.engine}: {BUILT_IN if entry.built_in else ENGINES[entry.engine]}"),
        ]
    works = [*["torch.compile"] * promises.compiles, *["torch.func.vmap"] * promises.vmap]
    facts.append(("Works under", listed(works) if works else ""))
    return [(term, text) for term, text in facts if text]


def _weight_decay(entry: Entry) -> str:
    """Return what `parameter_groups` does with its parameters."""
    advice = []
    if entry.trained:
        advice.append(f"none for {listed(entry.trained)}: softknee.parameter_groups(model, weight_decay) sees to it")
    if entry.spec.kind == "contextual":
        advice.append("the weights of its small network decay like others")
    return "; ".join(advice)


def _gain(gain: Gain) -> str:
    verdict = (
        "one scale of the weights keeps signal and gradient within a factor of two a layer"
        if gain.valid
        else "no scale of the weights suits both directions"
    )
    return f"forward {figure(gain.forward)}, backward {figure(gain.backward)}, χ {figure(gain.chi)}: {verdict}"


def _parameters(entry: Entry) -> str:
    if entry.spec.kind == "contextual":
        count = sum(parameter.numel() for parameter in entry.module.parameters())
        return f"{count} trained numbers for {plural(CHANNELS, 'channel')}, those of its network included"
    kept = stored(entry.spec)
    if not kept:
        return "none"
    parts = []
    for param in kept:
        value: Any = entry.subject.values.get(param.name)
        if isinstance(value, float | int):
            start = f" = {figure(float(value))}"
        else:
            start = f", {len(value)} entries" if isinstance(value, tuple) else ", a number for each channel"
        parts.append(f"{param.name}{start} ({'trained' if param.trainable else 'fixed'})")
    return "; ".join(parts)


def snippet(spec: Spec) -> str:
    """Return source that makes an activation."""
    channels = "channels=64" if needs_channels(spec) else ""
    create = ", ".join(filter(None, [f'"{spec.name}"', channels]))
    lines = [
        "import softknee as sk",
        "",
        f"act = sk.create({create})",
        f"act = sk.nn.{spec.title}({channels})  # the same as a class",
    ]
    scalars = [param for param in stored(spec) if param.default is not None and not (param.integer or param.fixed)]
    if scalars and spec.kind in {"elementwise", "gated"}:
        value = f"{scalars[0].name}={scalars[0].default:g}"
        lines.append(f'act = sk.create("{spec.name}", {value}, trainable=True, per_channel=64)  # one for each channel')
    elif spec.terms:
        lines.append(f'act = sk.create("{spec.name}", terms={spec.terms + 2})')
    arguments = ", ".join(["x", *(param.name for param in spec.parameters if param.given)])
    if spec.kind != "contextual" and not spec.channelwise and not any(param.vector for param in stored(spec)):
        lines.append(f"y = sk.functional.{spec.function.__name__}({arguments})  # the function alone")
    return "\n".join(lines)


def cost_note() -> str:
    """Return what the classes of cost mean."""
    return (
        "Costs count the vector instructions of an element, forward and backward."
        f" Up to {CHEAP} are cheap: measured at up to about 1.2 of ReLU's time, which is that of moving the tensor."
        f" Up to {DEAR} are moderate: up to 1.35. Beyond, large tensors go through a table at 1.4 to 1.7 of ReLU's,"
        " whatever the formula. As written, in plain PyTorch, such functions took 2.5 to 180 times ReLU's."
        " See the benchmarks of the repository for the machine and the method."
    )
