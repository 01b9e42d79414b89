"""The activation under test, with everything the checks ask of it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from softknee import nn
from softknee._catalogue import get
from softknee._expression.tree import Expression
from softknee._spec import Param, Spec
from softknee.nn.options import can_be_trained, needs_channels, stored
from softknee.testing._oracle import Oracle, oracle, stated_oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softknee.testing._oracle import Values

SEED = 20
# Each setting scales the defaults and puts a parameter whose default is zero elsewhere.
SETTINGS = ((1.0, 0.0), (0.5, -0.5), (1.5, 0.5))
# Terms up to which vectors are checked: more show nothing else and take long.
MOST_TERMS = 12
# Those of functions that look at one piece after the other, whose kernels take long to compile.
MOST_PIECES = 3
# Channels of the examples that modules are tried on: groups of two and of three fit in.
CHANNELS = 6


def at_defaults(activation: Spec | str, values: Values) -> Subject:
    """Return the subject at the default number of terms, for which promises are made."""
    spec = activation if isinstance(activation, Spec) else get(activation)
    return Subject(spec, values, terms=spec.terms)


class Subject:
    """A spec with the parameter values it is checked at.

    Args:
        activation: A spec, or a name of the catalogue.
        values: Values in place of the defaults, and for parameters that have none.
        terms: Of drawn vectors; by default the spec's own number, but no more than `MOST_TERMS`.
    """

    def __init__(self, activation: Spec | str, values: Values, *, terms: int | None = None) -> None:
        self.spec = activation if isinstance(activation, Spec) else get(activation)
        most = MOST_TERMS if self.spec.pieces is None else MOST_PIECES
        few = max(self.spec.fewest_terms, min(self.spec.terms, most)) if self.spec.terms else CHANNELS
        self.defaults: Values = {**self._drawn(terms or few), **_defaults(self.spec), **values}
        vectors = [self.defaults[param.name] for param in self.spec.parameters if param.vector]
        self.lengths = tuple(len(vector) for vector in vectors if isinstance(vector, tuple))
        self.channels = (0, 1) if self.spec.channelwise else (0,)

    @property
    def oracle(self) -> Oracle:
        """The exact form of the formula."""
        if self.spec.statement is not None:
            return stated_oracle(self.spec.statement, self.spec.parameters, self.lengths)
        return self._oracle(self.spec.formula)

    @property
    def backward(self) -> Oracle:
        """The exact form of what the backward pass differentiates."""
        return self._oracle(self.spec.surrogate) if self.spec.surrogate else self.oracle

    def _oracle(self, formula: str) -> Oracle:
        spec = self.spec
        return oracle(formula, spec.parameters, channelwise=spec.channelwise, lengths=self.lengths)

    def settings(self, *further: tuple[float, float]) -> Iterator[Values]:
        """Yield the parameter values to check at, the defaults first: those of SETTINGS and further ones."""
        scalars = [param for param in self.spec.parameters if not param.vector]
        for scale, elsewhere in (*SETTINGS, *further) if scalars else SETTINGS[:1]:
            moved = {param.name: self._moved(param, scale, elsewhere) for param in scalars}
            yield {**self.defaults, **moved}

    def __call__(self, x: Tensor, values: Values, *, channel: int = 0) -> Tensor:
        """Evaluate the function at numbers, as a module with fixed parameters does."""
        return self.apply(x, [self._as_argument(values[param.name], x) for param in self.spec.parameters], channel)

    def apply(self, x: Tensor, arguments: list[Any], channel: int = 0) -> Tensor:
        """Evaluate the function at tensors."""
        if self.spec.channelwise:
            return self.spec.function(x, *arguments, channel=torch.tensor(channel))
        return self.spec.function(x, *arguments)

    def tensors(self, values: Values, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
        """Return each parameter as a tensor of the given shape (behind the terms, for a vector) with gradient."""
        made = []
        for param in self.spec.parameters:
            value = torch.tensor(values[param.name], dtype=dtype)
            value = value.reshape((*value.shape, *[1] * len(shape))).expand((*value.shape, *shape))
            made.append(value.clone().requires_grad_())
        return made

    def kinks(self, values: Values) -> list[float]:
        """Return the declared kinks as numbers, knots among them."""
        knots = self.spec.knots(max(self.lengths)) if self.spec.knots is not None else ()
        kinks = (
            oracle(text, self.spec.parameters, channelwise=False, lengths=self.lengths).value(0.0, values)
            for text in self.spec.kinks
        )
        return sorted({*knots, *map(float, kinks)})

    def in_one_piece(self, low: float, high: float, values: Values) -> bool:
        """Return whether the function is analytic between two points, as far as its spec tells."""
        if self.spec.pieces is None:
            return True
        x = torch.tensor([low, high], dtype=torch.float64)
        pieces = self.spec.pieces(x, *(self._as_argument(values[param.name], x) for param in self.spec.parameters))
        return bool(pieces[0] == pieces[1])

    def module(self, **options: Any) -> nn.Activation:
        """Return the activation as a module in eval mode."""
        spec = self.spec
        kept = {param.name: self.defaults[param.name] for param in stored(spec) if param.name in self.defaults}
        values = {name: torch.tensor(v) if isinstance(v, tuple) else v for name, v in kept.items()}
        if isinstance(spec.function, Expression):
            return nn.Formula(spec.formula, **{**values, **options}).eval()
        if needs_channels(spec):
            options = {"channels": CHANNELS, **options}
        catalogued = getattr(nn, spec.title, None)
        if catalogued is not None and getattr(catalogued, "spec", None) is spec:
            return catalogued(**{**values, **options}).eval()  # type: ignore[no-any-return]
        base = {"elementwise": _Elementwise, "gated": _Gated, "vector": _Vector}[spec.kind]
        return base(spec, **{**values, **options}).eval()

    def modules(self) -> Iterator[tuple[str, nn.Activation]]:
        """Yield modules to try: as it comes, and with all parameters trained in each channel where it has some."""
        yield "as it comes", self.module()
        names = [param.name for param in stored(self.spec) if can_be_trained(param)]
        if names and self.spec.kind in {"elementwise", "gated"}:
            yield "trained per channel", self.module(trainable=names, per_channel=CHANNELS)

    def example(self) -> Tensor:
        """Return an input for modules, channels in dimension 1."""
        shape = {"gated": (4, 2 * CHANNELS), "contextual": (2, CHANNELS, 4, 5)}.get(self.spec.kind, (4, CHANNELS))
        size = torch.Size(shape).numel()
        # No kinks at multiples of simple fractions, no ties.
        return (torch.linspace(-4, 4, size) + 0.0137)[torch.randperm(size, generator=_seeded())].view(shape)

    def fail(self, check: str, x: object, got: object, expected: object) -> NoReturn:
        """Report a failed check.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError(f"{self.spec.name} fails {check} at x = {x}: got {got}, expected {expected}")

    def _moved(self, param: Param, scale: float, elsewhere: float) -> float:
        start = self.defaults[param.name]
        assert not isinstance(start, tuple)  # noqa: S101 (a scalar, by the caller)
        moved = start * scale if start else elsewhere
        inside = (param.low is None or moved > param.low) and (param.high is None or moved <= param.high)
        return moved if inside else start

    def _drawn(self, terms: int) -> dict[str, tuple[float, ...]]:
        if not self.spec.initializations:
            return {}
        draw = next(iter(self.spec.initializations.values()))
        drawn = draw(terms, _seeded())
        return {name: tuple(value.tolist()) for name, value in drawn.items()}

    @staticmethod
    def _as_argument(value: float | tuple[float, ...], x: Tensor) -> Tensor | float:
        return torch.tensor(value, dtype=x.dtype) if isinstance(value, tuple) else value


def _defaults(spec: Spec) -> dict[str, float]:
    return {param.name: param.default for param in spec.parameters if param.default is not None}


class _Made:
    """A module of any spec; unlike a spec, its pickled state holds no read-only mapping."""

    spec: Spec

    def __init__(self, spec: Spec, **options: Any) -> None:
        self.spec = spec
        super().__init__(**options)

    def __getstate__(self) -> dict[str, Any]:
        plain = {field.name: getattr(self.spec, field.name) for field in fields(Spec)}
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {**state, "spec": {**plain, "initializations": dict(self.spec.initializations)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "spec": Spec(**state["spec"])})  # type: ignore[misc]


class _Elementwise(_Made, nn.Elementwise):
    pass


class _Gated(_Made, nn.Gated):
    pass


class _Vector(_Made, nn.Vector):
    pass


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)
