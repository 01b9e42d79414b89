"""The figures of a card: curve, surface, correlation and variance maps, phase diagram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from softknee._card.curves import curves_of
from softknee._card.panels import slope_panel, value_panel
from softknee._card.subject import Subject
from softknee._report.lines import Axes, Series, line_chart, spark
from softknee._report.page import Figure, Key
from softknee._report.surface import Surface
from softknee._report.svg import padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.card import Card
    from softknee._card.curves import Curves
    from softknee._report.svg import Svg

SIZE = (340.0, 236.0)
# PyTorch's default for linear layers and convolutions: fan_in times the variance of a weight.
DEFAULT = 1 / 3
CORRELATIONS = 41
COBWEB, START = 12, 0.2
VARIANCES = tuple(10 ** (power / 8) for power in range(-16, 17))
MATCHED, EDGE, USUAL, PLAIN = 0, 2, 1, 6


class Setting(NamedTuple):
    """Variances of the weights (times fan_in) and biases of a layer, with their colour."""

    name: str
    sigma_w2: float
    sigma_b2: float
    hue: int


@dataclass(frozen=True)
class Drawn:
    """A card as something to plot."""

    card: Card

    @property
    def kinks(self) -> Sequence[float]:
        """Where it or a derivative jumps, ascending."""
        return sorted(kink.place for kink in self.card.kinks)

    def derivatives(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return value, first and second derivative."""
        return self.card.curve(x)

    def backward(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return what is differentiated in its place; None where that is the function."""
        spec = self.card.function.spec
        return None if spec is None else Subject(spec, self.card.parameters).backward(x)


def curves(card: Card) -> Curves:
    """Return what the plots of a function show."""
    return curves_of(Drawn(card), points=201)


def settings(card: Card) -> list[Setting]:
    """Return the layers that a card is drawn for, at unit variance: matched gain, and the edge of chaos."""
    found = []
    if 0 < card.gain < math.inf:
        found.append(Setting("matched gain", card.gain**2, 0.0, MATCHED))
    edge = card.edge_of_chaos(1.0)
    if edge is not None and not (found and math.isclose(edge.sigma_w2, found[0].sigma_w2, rel_tol=1e-6)):
        found.append(Setting("edge of chaos", edge.sigma_w2, edge.sigma_b2, EDGE))
    return found


def curve_figures(card: Card, shown: Curves) -> list[Figure]:
    """Return the function with its kinks, and its derivatives."""
    kinks = [kink.place for kink in card.kinks if kink.kind != "bend"]
    return [
        Figure(value_panel(shown, card.name, kinks=kinks, size=SIZE), "value", name=False),
        Figure(slope_panel(shown, card.name, size=SIZE), "derivatives", name=False),
    ]


def curve_keys(card: Card, shown: Curves) -> list[Key]:
    """Return what the lines of the curves are."""
    divided = "" if shown.divisor == 1 else f" ÷ {shown.divisor}"
    keys = [Key("f", "main hue-0"), Key("f′", "main hue-1"), Key(f"f″{divided}", "main hue-2")]
    keys += [] if shown.backward is None else [Key("what is differentiated in place of f", "main hue-1 dashed")]
    return [*keys, Key("○ jump of f or f′", "")] if any(kink.kind != "bend" for kink in card.kinks) else keys


def surface_figures(card: Card, reach: float, *, points: int, named: bool = True) -> list[Figure]:
    """Return f(x) + f(y) as a surface, and the length of its gradient as a map.

    Args:
        card: Of the function.
        reach: They go from minus this to this along both axes.
        points: Along an axis.
        named: Whether their captions name the function.

    Returns:
        Both figures.
    """
    corners = torch.linspace(-reach, reach, points, dtype=torch.float64)
    value, _, _ = card.curve(corners)
    # In the middle of its cell, no slope is taken at a kink in 0.
    _, slope, _ = card.curve((corners[1:] + corners[:-1]) / 2)
    height = Surface(f"{card.name}: surface", "f(x) + f(y) over a square.", _finite(value), "sum", (-reach, reach))
    size = "The length of the gradient of f(x) + f(y) over a square."
    steepness = Surface(f"{card.name}: gradient map", size, _finite(slope), "norm", (-reach, reach), flat=True)
    if named:
        return [Figure(height, card.name), Figure(steepness, "length of its gradient", name=False)]
    return [Figure(height, "f(x) + f(y)", name=False), Figure(steepness, "length of its gradient", name=False)]


def correlation_figure(card: Card) -> Figure | None:
    """Return how a layer changes the correlation of two inputs, with a cobweb; None where it cannot be scaled."""
    layers = settings(card)
    if not layers:
        return None
    c = [index / (CORRELATIONS - 1) for index in range(CORRELATIONS)]
    series = [Series("no change", [0.0, 1.0], [0.0, 1.0], hue=PLAIN, weight="thin")]
    for layer in layers:
        mapped = [card.correlation_map(value, layer.sigma_w2, layer.sigma_b2) for value in c]
        series.append(Series(layer.name, c, mapped, hue=layer.hue))
    first = layers[0]
    chi = card.chi(first.sigma_w2)
    series.append(Series(f"slope chi = {chi:.4f} at c = 1", [0.0, 1.0], [1 - chi, 1.0], hue=first.hue, dashed=True))
    series.append(_cobweb(card, first))
    picture = line_chart(
        series,
        title=f"{card.name}: correlation map",
        description="Correlation of two inputs after a layer against before it, and the way of twelve layers.",
        axes=Axes(x="correlation before", y=(0.0, 1.03), y_name="after"),
        size=SIZE,
    )
    return Figure(picture, "correlation map", name=False)


def variance_figure(card: Card) -> Figure | None:
    """Return how a layer changes the variance, with its fixed points; None where it cannot."""
    layers = [*settings(card), Setting("default", DEFAULT, 0.0, USUAL)]
    q, squares = list(VARIANCES), [card.moments(q).square for q in VARIANCES]
    series = [Series("no change", [q[0], q[-1]], [q[0], q[-1]], hue=PLAIN, weight="thin")]
    for layer in layers:
        mapped = [layer.sigma_w2 * square + layer.sigma_b2 for square in squares]
        series.append(Series(layer.name, q, mapped, hue=layer.hue))
        kept = card.fixed_points(layer.sigma_w2, layer.sigma_b2)
        fixed = [point.q for point in kept if q[0] <= point.q <= q[-1] and not point.every]
        series.append(Series(f"fixed points, {layer.name}", fixed, fixed, hue=layer.hue, weight="ring"))
    picture = line_chart(
        series,
        title=f"{card.name}: variance map",
        description="Variance of pre-activations after a layer against before it; rings are fixed points.",
        axes=Axes(x="variance q before", y=(q[0] / 10, q[-1] * 10), x_kind="log", y_kind="log", y_name="after"),
        size=SIZE,
    )
    return Figure(picture, "variance map", name=False)


def phase_figure(card: Card) -> Figure | None:
    """Return the edge of chaos in the plane of the two variances; None where there is none near the usual layers."""
    layers = [*settings(card), Setting("default", DEFAULT, 0.0, USUAL)]
    most_w = max(1.6 * layer.sigma_w2 for layer in layers)
    most_b = max(0.2, *(3 * layer.sigma_b2 for layer in layers))
    edges = [edge for edge in map(card.edge_of_chaos, VARIANCES) if edge is not None]
    line = [edge for edge in edges if edge.sigma_w2 <= most_w and edge.sigma_b2 <= most_b]
    if not line:
        return None
    series = [
        Series("the edge of chaos", [edge.sigma_w2 for edge in line], [edge.sigma_b2 for edge in line], hue=EDGE),
        Series("", [0.0, most_w], [None, None]),
        *(
            Series(layer.name, [layer.sigma_w2], [layer.sigma_b2], hue=layer.hue, weight="dots", texts=(layer.name,))
            for layer in layers
        ),
    ]
    picture = line_chart(
        series,
        title=f"{card.name}: phase diagram",
        description="The edge of chaos by the variances of weights and biases; order left of it, chaos right of it.",
        axes=Axes(x="σw² = fan_in · Var(w)", y=padded((0.0, most_b)), y_name="σb²"),
        size=SIZE,
    )
    return Figure(picture, "phase diagram", name=False)


def layer_keys(card: Card) -> list[Key]:
    """Return what the lines of the maps are."""
    layers = [*settings(card), Setting("default", DEFAULT, 0.0, USUAL)]
    keys = [
        Key(f"{layer.name}: σw² = {layer.sigma_w2:.4g}, σb² = {layer.sigma_b2:.4g}", f"main hue-{layer.hue}")
        for layer in layers
    ]
    return [
        *keys,
        Key("no change", f"thin hue-{PLAIN}"),
        Key("slope χ₁ at c = 1", f"main hue-{MATCHED} dashed"),
        Key("left of the edge: order, right of it: chaos", ""),
    ]


def sketch(card: Card) -> Svg:
    """Return the curve in the size of a word."""
    x = torch.linspace(-3, 3, 49, dtype=torch.float64)
    return spark(x.tolist(), _finite(card.curve(x)[0]), title=card.name)


def _cobweb(card: Card, layer: Setting) -> Series:
    """Return the stairs between map and diagonal."""
    x, y, c = [START], [0.0], START
    for _ in range(COBWEB):
        after = card.correlation_map(c, layer.sigma_w2, layer.sigma_b2)
        x += [c, after]
        y += [after, after]
        c = after
    return Series(f"{COBWEB} layers from {START}", x, y, hue=USUAL, weight="thin")


def _finite(values: torch.Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
