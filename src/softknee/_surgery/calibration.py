"""What a calibration has changed."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from softknee._surgery.places import aligned

if TYPE_CHECKING:
    from softknee._surgery.places import Unseen

_HEADINGS = ("layer", "fed by", "gain", "fan in", "std of weights", "std of outputs")


@dataclass(frozen=True)
class CalibratedLayer:
    """One layer whose weights were drawn.

    Attributes:
        path: Of the layer, or of its weight where that is not called `weight`.
        fed_by: The activation whose outputs it gets, by the catalogue's name where it has one; else the norm, layer or
            function; `"sum"` of a residual stream; `"input"` of the model.
        gain: Theory's standard deviation of the weights, times the root of `fan_in`; 1 without an activation.
        fan_in: How many inputs an output is a sum of, on average; zeros of padding do not count.
        weight_before: Standard deviation of the weights before.
        weight_after: The same afterwards.
        output_before: Standard deviation of all elements of its outputs in the example, before.
        output_after: The same afterwards, with all layers drawn.
        factor: By which `lsuv` scaled theory's weights, 1 without it.
    """

    path: str
    fed_by: str
    gain: float
    fan_in: float
    weight_before: float
    weight_after: float
    output_before: float
    output_after: float
    factor: float = 1.0


@dataclass(frozen=True, repr=False)
class Calibration:
    """What a calibration has changed, and what not.

    Attributes:
        layers: Whose weights were drawn, in the order of first calls.
        left: Other weights, with the reasons.
    """

    layers: tuple[CalibratedLayer, ...]
    left: tuple[Unseen, ...]

    def __repr__(self) -> str:
        return "\n".join([*aligned([self._headings(), *map(self._row, self.layers)]), *self._notes()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{heading}</th>" for heading in self._headings())
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in self._row(layer)) for layer in self.layers)
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><tr>{head}</tr>{rows}</table>{''.join(f'<p>{escape(note)}</p>' for note in self._notes())}"

    @property
    def _scaled(self) -> bool:
        return any(layer.factor != 1 for layer in self.layers)

    def _headings(self) -> tuple[str, ...]:
        return (*_HEADINGS, "scaled by") if self._scaled else _HEADINGS

    def _row(self, layer: CalibratedLayer) -> tuple[str, ...]:
        weights = f"{layer.weight_before:.3g} -> {layer.weight_after:.3g}"
        outputs = f"{layer.output_before:.3g} -> {layer.output_after:.3g}"
        row = (layer.path or "(model)", layer.fed_by, f"{layer.gain:.4g}", f"{layer.fan_in:.5g}", weights, outputs)
        return (*row, f"{layer.factor:.3g}") if self._scaled else row

    def _notes(self) -> list[str]:
        before, after = ([getattr(one, name) for one in self.layers] for name in ("output_before", "output_after"))
        spans = [f"{min(stds):.3g} to {max(stds):.3g}" for stds in (before, after)]
        count = f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)} drawn"
        note = f"{count}; standard deviations of outputs: {spans[0]} before, {spans[1]} now"
        return [note, *(f"left: {one.path or 'the model'}: {one.reason}" for one in self.left)]
