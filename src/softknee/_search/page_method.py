"""How a search was made, and what it cannot say."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from softknee._report.page import Block, Facts, Fold, Section
from softknee._report.table import listed, plural
from softknee._search.page_words import SELECT

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAD = "What was asked, what the numbers are, and what they do not say. All of them are embedded as JSON."
_PAIRED = (
    "Finalists are trained again from {seeds} that the search had not used. With the same seed all start from the same "
    "weights and see the same batches in the same order with the same noise, so that only the activation differs."
)
_BASELINES = "The baselines in the finals are those with the lowest validation loss in one run each. "
_CHOICE = "One candidate came to the finals, the best of those found by {chosen}. "
_FOUND, _SELECTED = "validation loss", "mean validation loss in trainings from seeds used for nothing else"
_TEST = "The test set was read once, after that."
_VALIDATION = "No test set was given: the claim is about validation data, which the search has seen."
_INTERVALS = (
    "Differences are those of losses, paired by run and by batch of {measured} data; the intervals are about new seeds "
    "and new batches together (two random effects, t quantiles). The candidate counts as better only if it is better "
    "than every finalist baseline (intersection-union test). It was chosen in other runs than these, so that no p "
    "value has to be corrected for how many were tried."
)
_LIMITS = (
    "It is about this model, this data, this length of training and this optimizer with its learning rate, which was "
    "not tuned for each function. On another model or data set the order may be another; train it there with paired "
    "seeds before you believe it. A baseline that was returned is not proved best: nothing was seen to beat it with "
    "this budget and these seeds. The batches of a data set are not independent where its examples are not."
)
_POINTERS: Mapping[str, str] = MappingProxyType(
    {
        "grafs": "Gradient-based search of activations (GRAFS, arXiv:2408.06820) with Dirichlet samples (DrNAS, "
        "arXiv:2006.10355): the cell is trained as a mixture of its operations and shrinks to one of them each.",
        "evolve": "Regularised evolution (Real et al. 2019, arXiv:1802.01548): the oldest of a population dies, the "
        "best of a random few has a child.",
        "halving": "Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) with paired seeds: after each "
        "rung the better part goes on.",
        "random": "Random search: distinct functions drawn at random from the space.",
        "enumerate": "Enumeration: every distinct function of the space is trained, many side by side.",
    }
)


def method_section(data: Mapping[str, Any]) -> Section:
    """Return the last section.

    Args:
        data: A result.

    Returns:
        The section.
    """
    settings = data["settings"]
    tested = data["measured_on"] == "test"
    entries = [
        ("asked", _asked(data)),
        ("method", _methods(data)),
        ("space", _space(settings["space"])),
        ("sites", _sites(settings)),
        ("paired runs", _PAIRED.format(seeds=plural(settings["seeds"], "fresh seed"))),
        ("choice", _choice(data, tested=tested)),
        ("statistics", _INTERVALS.format(measured=data["measured_on"])),
        ("what it cannot say", _LIMITS),
        ("environment", _environment(settings)),
    ]
    return Section("method", "Method", _LEAD, [Facts([entry for entry in entries if entry[1]]), *_folds(settings)])


def _asked(data: Mapping[str, Any]) -> str:
    settings, cost = data["settings"], data["cost"]
    batches = plural(settings["validation_batches"], "validation batch", "validation batches")
    test = settings["test_batches"]
    tests = f" and {plural(test, 'test batch', 'test batches')}" if test else ""
    return (
        f"method {settings['method']}, budget {cost['budget']:g} training runs, scope {settings['scope']}, "
        f"{plural(settings['seeds'], 'seed')} for the finals, seed {settings['seed']} for everything drawn; baselines "
        f"{', '.join(settings['baselines'])}; {batches}{tests}; "
        f"{plural(settings['parameters'], 'parameter')} in the model"
    )


def _choice(data: Mapping[str, Any], *, tested: bool) -> str:
    finalists = [row for row in data["table"] if row["final"] and not row["is_baseline"]]
    selected = any(phase["name"] == SELECT for phase in data["cost"]["phases"])
    chosen = _CHOICE.format(chosen=_SELECTED if selected else _FOUND) if finalists else ""
    return f"{_BASELINES}{chosen}{_TEST if tested else _VALIDATION}"


def _methods(data: Mapping[str, Any]) -> str:
    used = {row["origin"] for row in data["table"]} | {phase["name"] for phase in data["cost"]["phases"]}
    return " ".join(text for name, text in _POINTERS.items() if name in used)


def _space(space: Mapping[str, Any]) -> str:
    slots = 2 * space["cores"] * len(space["unary"]) + space["cores"] * len(space["binary"])
    return (
        f"{space['name']}: {plural(space['cores'], 'core')} of two unary operations joined by a binary one, "
        f"{len(space['unary'])} unary and {len(space['binary'])} binary operations to choose from ({slots} slots); "
        f"inputs of what grows fast are bounded so that results stay within ±{space['bound']:g}, in the search and in "
        "what is returned"
    )


def _sites(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"{group['name']}: {plural(len(group['sites']), 'site')}" for group in settings["groups"])


def _environment(settings: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"{versions}; {settings['device']}, {plural(settings['threads'], 'thread')}"


def _folds(settings: Mapping[str, Any]) -> list[Block]:
    space = settings["space"]
    operations = [("unary", ", ".join(space["unary"])), ("binary", ", ".join(space["binary"]))]
    sites = [(group["name"], listed(group["sites"])) for group in settings["groups"] if group["sites"]]
    blocks: list[Block] = [Fold("The operations", [Facts(operations)])]
    return [*blocks, Fold("The sites", [Facts(sites)])] if sites else blocks
