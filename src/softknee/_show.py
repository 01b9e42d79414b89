"""What `softknee show` and `softknee card` say about an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee import _catalogue
from softknee._card.card import card
from softknee._card.facts import gain_text, smoothness_text
from softknee._card.recognise import recognise
from softknee._errors import ExpressionError, UsageError
from softknee._expression.parse import parse
from softknee._report.files import write_atomic
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.standalone import standalone_svg
from softknee._report.table import choices
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from softknee._card.card import Card
    from softknee._catalogue import Choice
    from softknee._spec import Spec
    from softknee.nn.elementwise import Elementwise

CURVE = (-5.0, 5.0, 401)
LONGEST_DERIVATIVE = 160
KINDS = {
    "elementwise": "single elements",
    "gated": "gated pairs: the output is half as wide",
    "contextual": "a small network looks at the whole input",
    "vector": "vectors along a dimension",
}


@dataclass(frozen=True)
class Description:
    """An activation in words and as a curve.

    Attributes:
        title: Canonical text.
        facts: What is known, by heading.
        x: Positions of the curve; none where the activation is not one of single elements.
        y: Its values.
    """

    title: str
    facts: dict[str, str]
    x: list[float]
    y: list[float]

    def write_svg(self, path: Path) -> None:
        """Write the curve as an SVG file.

        Args:
            path: The file; replaced as a whole.

        Raises:
            UsageError: There is no curve.
        """
        if not self.x:
            raise UsageError(f"{self.title} is no function of one number, so it has no curve")
        axes = Axes(x="x", zero=True)
        curve = Series(self.title, self.x, self.y)
        picture = line_chart([curve], title=self.title, description=self.facts["formula"], axes=axes, size=(480, 300))
        write_atomic(path, standalone_svg(picture))


def describe(text: str) -> Description:
    """Describe an activation named as on the command line, in short.

    Args:
        text: As `parse_choice` takes it.

    Returns:
        The description; drawn parameters come from seed 0.

    Raises:
        UsageError: Or a subclass, as `parse_choice`.
    """
    choice = _catalogue.parse_choice(text)
    if choice.spec.kind != "elementwise":
        return Description(choice.label, _facts(choice, {}), [], [])
    found = card(text)
    known = {
        "properties": found.properties.sentence,
        "smoothness": smoothness_text(found),
        "gain": gain_text(found.gains),
    }
    return _description(choice, found, known)


def describe_card(found: Card) -> Description:
    """Describe an activation with all that its card says.

    Args:
        found: The card of a text.

    Returns:
        The description.
    """
    known = {name: fact for name, fact in found.facts.items() if name not in {"formula", "parameters"}}
    return _description(_catalogue.parse_choice(found.name), found, known)


def cards_of(texts: Iterable[str]) -> list[Card]:
    """Return the cards of activations named as on the command line, each once.

    Args:
        texts: As `parse_choice` takes them; `"all"` stands for everything in the catalogue that has a card.

    Returns:
        The cards, in this order.

    Raises:
        UsageError: Or a subclass, as `card`.
    """
    every = [name for name in _catalogue.list() if _catalogue.get(name).kind == "elementwise"]
    wanted = (name for text in texts for name in (every if text == "all" else [text]))
    cards = {found.name: found for found in map(card, wanted)}
    return list(cards.values())


def _description(choice: Choice, found: Card, known: dict[str, str]) -> Description:
    x = torch.linspace(*CURVE, dtype=torch.float64)
    activation = choice.build(channels=1, generator=torch.Generator().manual_seed(0)).eval()
    measured = {
        "recognised": _recognised(found) if choice.spec.family == "formula" else "",
        "derivative": _derivative(choice.spec),
        "parameters": _parameters(activation),
        **known,
    }
    return Description(choice.label, _facts(choice, measured), x.tolist(), found(x).tolist())


def _facts(choice: Choice, measured: dict[str, str]) -> dict[str, str]:
    """Return what is written down about an activation around what was measured; empty facts are left out."""
    spec = choice.spec
    facts = {
        "activation": f"{choice.label} (softknee.nn.{spec.title}, {spec.family}, {KINDS[spec.kind]})",
        "formula": spec.formula,
        **measured,
        "starts": choices(spec.initializations) if spec.initializations else "",
        "also called": ", ".join(spec.aliases),
        "note": spec.note,
        "used by": spec.users,
        "source": "" if spec.family == "formula" else _catalogue.cite(spec.name),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _derivative(spec: Spec) -> str:
    """Return the derivative as text, where it is short enough to be read."""
    try:
        text = str(parse(spec.surrogate or spec.formula, FUNCTIONS).simplify().derivative("x"))
    except ExpressionError:
        return ""
    return text if len(text) <= LONGEST_DERIVATIVE else ""


def _parameters(activation: Elementwise) -> str:
    trained = {name for name, _ in activation.named_parameters()}
    values = {
        name: f"{float(value):g}" if torch.as_tensor(value).numel() == 1 else f"{torch.as_tensor(value).numel()} values"
        for name, value in activation.named_values().items()
    }
    return ", ".join(
        f"{name} = {value} ({'trained' if name in trained else 'fixed'})" for name, value in values.items()
    )


def _recognised(found: Card) -> str:
    """Say which activation of the catalogue a formula is, at its present parameters."""
    match = recognise(found)
    return "" if match is None else f"the same function as {match}"
