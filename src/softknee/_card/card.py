"""All that theory and arithmetic say about one activation."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from softknee._card.facts import facts_of
from softknee._card.function import function_of
from softknee._card.precision import thresholds
from softknee._card.properties import properties
from softknee._card.shape import shape_of, smoothness
from softknee._card.theory import Theory
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.plain import plain

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from softknee._card.precision import Threshold
    from softknee._card.properties import Properties
    from softknee._card.shape import Asymptote, Extremum, Piece, Shape

SCHEMA = 1
WIDTH = 17


def card(activation: str | Callable[[Tensor], Tensor], *, channels: int | None = None, **options: Any) -> Card:
    """Return all that is known about one activation of single elements, as numbers.

    Nothing is computed before it is asked for. Everything is in float64 at the activation's present parameters:
    integrals are good to about 1e-12, kinks need not be declared.

    Args:
        activation: A name (`"gelu"`), a name with options (`"swish[beta=1.5]"`), a formula (`"x * sigmoid(x)"`), a
            module, or a function from tensor to tensor of the same shape.
        channels: How many channels a module or function treats each by itself; one by default, or as many as a module
            of softknee has. Moments are averaged over them, and the shape is that of the first.
        **options: Parameter values of a name or formula, as in `card("swish", beta=1.5)`.

    Returns:
        The card.

    Raises:
        UsageError: Or a subclass: there is no such activation, it is no function of single elements, or an option is
            not as it should be.
    """
    if options:
        if not isinstance(activation, str):
            raise UsageError(f"options ({', '.join(options)}) go with a name or a formula; a module has its values")
        activation = f"{activation}[{','.join(f'{name}={value}' for name, value in options.items())}]"
    return Card(function_of(activation, channels=channels))


@dataclass(frozen=True, eq=False, repr=False)
class Card(Theory):
    """An activation in numbers; each is computed at its first use and kept."""

    @property
    def name(self) -> str:
        """Canonical text of a name or formula; class of a module."""
        return self.function.name

    @property
    def formula(self) -> str:
        """In the expression language; empty where it is not known."""
        return self.function.formula

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Present values by name: numbers, or tuples of them."""
        return self.function.values

    @property
    def channels(self) -> int:
        """How many channels with parameters of their own are averaged over."""
        return self.function.channels

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the activation of the first channel.

        Args:
            x: Any shape, any floating dtype.

        Returns:
            Same shape and dtype.
        """
        return self.function(x.reshape(-1))[:, 0].view_as(x)

    def curve(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, slope and second derivative of the first channel.

        Args:
            x: Points `(n,)`, float64 for full precision.

        Returns:
            Three tensors `(n,)`; derivatives are those of autograd.
        """
        value, slope, bend = (one[:, 0] for one in self.function.derivatives(x, 2))
        return value, slope, bend

    @property
    def smoothness(self) -> str:
        """How smooth it is, in words."""
        spec = self.function.spec
        return smoothness(self.kinks, promised=spec is not None and spec.promises.smooth)

    @cached_property
    def shape(self) -> Shape:
        """Pieces, extremes, asymptotes and the steepest slope together."""
        return shape_of(self.function, self.kinks)

    @property
    def lipschitz(self) -> float:
        """`sup |phi'|`: the Lipschitz constant; infinite where there is none."""
        return self.shape.steepest.slope

    @property
    def lipschitz_at(self) -> float:
        """Where it is steepest; infinite where that is approached far out."""
        return self.shape.steepest.place

    @property
    def asymptotes(self) -> tuple[Asymptote | None, Asymptote | None]:
        """The lines that it approaches at the far left and the far right."""
        return self.shape.left, self.shape.right

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Intervals on which it rises, falls or is constant; none for a wave with more than 60."""
        return self.shape.pieces

    @property
    def extrema(self) -> tuple[Extremum, ...]:
        """Where it has a minimum or maximum."""
        return self.shape.extrema

    @cached_property
    def thresholds(self) -> dict[str, Threshold]:
        """Beyond which inputs the gradient is exactly 0, in float32, bfloat16 and float16."""
        return thresholds(self.function)

    @cached_property
    def properties(self) -> Properties:
        """Bounds, symmetry, monotonicity and flatness."""
        return properties(self)

    @cached_property
    def facts(self) -> dict[str, str]:
        """What is known in words, by heading."""
        return facts_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain JSON data: finite floats, None for what is infinite or does not exist.

        Returns:
            The data; `schema` is 1.
        """
        edge, rate = self.edge_of_chaos(), self.edge_rate()
        return plain(
            {
                "schema": SCHEMA,
                "name": self.name,
                "formula": self.formula,
                "parameters": dict(self.parameters),
                "channels": self.channels,
                "gains": self.gains,
                "moments": self.moments(),
                "linear_r2": self.linear_r2(),
                "finite_width": self.finite_width(),
                "edge_of_chaos": None if edge is None else edge._asdict(),
                "no_edge": self.no_edge(),
                "edge_rate": None if rate is None else rate._asdict(),
                "self_normalising": self.self_normalising(),
                "lipschitz": self.shape.steepest,
                "kinks": self.kinks,
                "smoothness": self.smoothness,
                "asymptotes": {"left": self.shape.left, "right": self.shape.right},
                "pieces": self.pieces,
                "extrema": self.extrema,
                "thresholds": self.thresholds,
                "properties": self.properties,
            }
        )

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the card as a page with its plots: curve, surface, correlation and variance maps, phase diagram.

        Args:
            path: Also write it to this file.

        Returns:
            One self-contained HTML document.

        Raises:
            MissingExtra: Jinja2 is not installed.
        """
        from softknee._card.card_page import card_page

        page = card_page([self])
        if path is not None:
            write_atomic(path, page)
        return page

    def plot(self, ax: Any = None) -> Any:
        """Draw value, slope and second derivative with matplotlib.

        Args:
            ax: A matplotlib `Axes` to draw into; those of a new figure by default.

        Returns:
            The axes.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from softknee._card.plot import plot

        return plot(self, ax)

    def __repr__(self) -> str:
        lines = (f"  {name:<{WIDTH}}{fact}" for name, fact in self.facts.items())
        return "\n".join([f"Card of {self.name}", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(fact)}</td></tr>"
            for name, fact in self.facts.items()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"
