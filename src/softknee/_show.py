"""What `softknee show` says about one activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee import _catalogue
from softknee._card.propagation import gain
from softknee._card.properties import properties
from softknee._card.recognise import recognise
from softknee._errors import ExpressionError, UsageError
from softknee._expression.parse import parse
from softknee._report.files import write_atomic
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.standalone import standalone_svg
from softknee._report.table import choices
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from softknee._card.propagation import Gain
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
    """Describe an activation named as on the command line.

    Args:
        text: As `parse_choice` takes it.

    Returns:
        The description; drawn parameters come from seed 0.

    Raises:
        UsageError: Or a subclass, as `parse_choice`.
    """
    choice = _catalogue.parse_choice(text)
    spec = choice.spec
    curve: tuple[list[float], list[float]] = ([], [])
    measured: dict[str, str] = {}
    if spec.kind == "elementwise":
        activation = choice.build(channels=1, generator=torch.Generator().manual_seed(0)).eval()
        measured = {
            "recognised": _recognised(activation) if spec.family == "formula" else "",
            "derivative": _derivative(spec),
            "parameters": _parameters(activation),
            "properties": properties(activation).sentence,
            "gain": _gain(gain(activation)),
        }
        x = torch.linspace(*CURVE)
        with torch.no_grad():
            curve = x.tolist(), activation(x[:, None])[:, 0].tolist()
    facts = {
        "activation": f"{choice.label} (softknee.nn.{spec.title}, {spec.family}, {KINDS[spec.kind]})",
        "formula": spec.formula,
        **measured,
        "starts": choices(spec.initializations) if spec.initializations else "",
        "also called": ", ".join(spec.aliases),
        "kinks": ", ".join(spec.kinks),
        "note": spec.note,
        "used by": spec.users,
        "source": "" if spec.family == "formula" else _catalogue.cite(spec.name),
    }
    return Description(choice.label, {name: fact for name, fact in facts.items() if fact}, *curve)


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


def _recognised(activation: Elementwise) -> str:
    """Say which activation of the catalogue a formula is, at its present parameters."""
    values = [float(value) for value in activation.named_values().values()]
    match = recognise(lambda x: activation.spec.function(x, *values))
    return "" if match is None else f"the same function as {match}"


def _gain(found: Gain) -> str:
    verdict = "" if found.valid else "; no valid match: no weight scale suits both directions"
    return f"forward {found.forward:.4f}, backward {found.backward:.4f}, chi {found.chi:.4f}{verdict}"
