"""Mixtures and wrappers of activations that the user chooses."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from softknee._errors import OptionError, UnknownActivation, UsageError
from softknee._expression.parse import parse
from softknee._expression.tree import Expression
from softknee._spec import Spec
from softknee.functional import mixtures
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import FUNCTIONS
from softknee.nn.names import BY_NAME, unknown
from softknee.nn.options import listed
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_MIXTURES = {spec.name: spec for spec in mixtures.SPECS}


class Composite(Elementwise):
    """An activation made of others: what the classes here share.

    Args:
        candidates: Names in the catalogue, or specs, of the activations; None for those of the catalogue's entry.
        **options: As in `Elementwise`; the parameters of a candidate begin with its name: `swish_beta`.

    Raises:
        UnknownActivation: No activation has one of the names.
        UsageError: One cannot be part of another.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    # Those of the catalogue's entry.
    candidates: tuple[Spec, ...]

    def __init__(self, candidates: Sequence[str | Spec] | None = None, **options: Any) -> None:
        if candidates is not None:
            self.candidates = tuple(map(_spec_of, _listed(self.spec, candidates)))
            self.spec = self._composed(self.candidates)
        super().__init__(**options)

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        """Return the spec of the activation made of these."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with what brings the candidates back in place of what was made from them."""
        state = super().__getstate__()
        if "candidates" in state:
            state = {name: value for name, value in state.items() if name != "spec"}
            state["candidates"] = tuple(map(_packed, self.candidates))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and compose the candidates again."""
        if "candidates" in state:
            candidates = tuple(map(_unpacked, state["candidates"]))
            state = {**state, "candidates": candidates, "spec": self._composed(candidates)}
        super().__setstate__(state)

    def extra_repr(self) -> str:
        """Return the names of the candidates, then parameters."""
        return f"({', '.join(spec.name for spec in self.candidates)}), {super().extra_repr()}"


class LinearMix(Composite):
    r"""Adaptive blending unit, $\sum_k w_k \varphi_k(x)$ with free weights, at first the mean.

    Args:
        candidates: Names in the catalogue, or specs, of the $\varphi_k$; by default ReLU, ELU, tanh, Swish and the
            identity.
        **options: As in `Elementwise`. Weights are `relu_weight` and so on, the parameters of a candidate `swish_beta`.

    Raises:
        UnknownActivation: No activation has one of the names.
        UsageError: One cannot be part of a mixture: it looks at more than one element, say, or has vectors.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _MIXTURES["linear_mix"]
    candidates = mixtures.BLENDED

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        return mixtures.linear_mix_spec(candidates)


class ConvexMix(Composite):
    r"""Mean of activations, $\sum_k w_k \varphi_k(x)$ with $w = \mathrm{softmax}(s)$ of trained scores, at first equal.

    Args:
        candidates: Names in the catalogue, or specs, of the $\varphi_k$; by default the identity, ReLU and tanh.
        **options: As in `Elementwise`. Scores are `relu_score` and so on, the parameters of a candidate `swish_beta`.

    Raises:
        UnknownActivation: No activation has one of the names.
        UsageError: One cannot be part of a mixture: it looks at more than one element, say, or has vectors.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _MIXTURES["convex_mix"]
    candidates = mixtures.MIXED

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        return mixtures.convex_mix_spec(candidates)


class AffineMix(Composite):
    r"""Sum of activations with weights that sum to 1, $\sum_k w_k \varphi_k(x) \big/ \sum_k w_k$, at first the mean.

    Args:
        candidates: Names in the catalogue, or specs, of the $\varphi_k$; by default the identity, ReLU and tanh.
        **options: As in `Elementwise`. Weights are `relu_weight` and so on, the parameters of a candidate `swish_beta`.

    Raises:
        UnknownActivation: No activation has one of the names.
        UsageError: One cannot be part of a mixture: it looks at more than one element, say, or has vectors.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _MIXTURES["affine_mix"]
    candidates = mixtures.MIXED

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        return mixtures.affine_mix_spec(candidates)


class TAAF(Composite):
    r"""Transformative adaptive activation function, $\alpha\,\varphi(\beta x + \gamma) + \delta$.

    It starts as $\varphi(x)$.

    Args:
        base: Name in the catalogue, or spec, of $\varphi$.
        **options: As in `Elementwise`. The parameters are `alpha`, `beta`, `gamma`, `delta` and those of the base,
            which begin with its name: `swish_beta`.

    Raises:
        UnknownActivation: No activation has that name.
        UsageError: It cannot be wrapped: it looks at more than one element, say, or has vectors.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _MIXTURES["taaf"]
    candidates = (BY_NAME["tanh"],)

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        return mixtures.taaf_spec(*candidates)

    def __init__(self, base: str | Spec = "tanh", **options: Any) -> None:
        _no_candidates(self.spec, options, "base")
        super().__init__(None if isinstance(base, str) and base == "tanh" else [base], **options)


class Blend(Composite):
    r"""Way from one activation to another, $(1 - t)\,\varphi_0(x) + t\,\varphi_1(x)$.

    Raise `t` while the model is trained: `module.t = 0.1`. A number is not saved with the model, and one that changes
    makes compiled models compile again; given as a tensor, `t` is a buffer instead: `module.t.fill_(0.1)`.

    Args:
        old: Name in the catalogue, or spec, of $\varphi_0$.
        new: The same of $\varphi_1$.
        t: How far to go, from 0 to 1.
        **options: As in `Elementwise`; the parameters of the activations begin with their names: `swish_beta`.

    Raises:
        UnknownActivation: No activation has one of the names.
        UsageError: One cannot be blended: it looks at more than one element, say, or has vectors.
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _MIXTURES["blend"]
    candidates = (BY_NAME["relu"], BY_NAME["gelu"])

    @staticmethod
    def _composed(candidates: Sequence[Spec]) -> Spec:
        return mixtures.blend_spec(*candidates)

    def __init__(
        self, old: str | Spec = "relu", new: str | Spec = "gelu", t: float | Tensor = 0.0, **options: Any
    ) -> None:
        _no_candidates(self.spec, options, "old and new")
        usual = isinstance(old, str) and isinstance(new, str) and (old, new) == ("relu", "gelu")
        super().__init__(None if usual else [old, new], t=t, **options)


def _no_candidates(spec: Spec, options: dict[str, Any], instead: str) -> None:
    """Refuse candidates where they have names of their own.

    Raises:
        OptionError: They are given.
    """
    if "candidates" in options:
        raise OptionError(f"{spec.name} takes {instead} in place of candidates")


def _listed(spec: Spec, candidates: Any) -> tuple[Any, ...]:
    """Return candidates as a tuple.

    Raises:
        UsageError: They are no list.
    """
    entries = listed(candidates)
    if entries is None:
        raise UsageError(
            f"candidates of {spec.name} must be a list of names or specs, as in ['relu', 'gelu'], "
            f"got {excerpt(candidates)}"
        )
    return entries


def _spec_of(candidate: str | Spec) -> Spec:
    """Return the spec of a candidate.

    Raises:
        UnknownActivation: No activation has that name.
        UsageError: It is neither a name nor a spec.
    """
    if isinstance(candidate, Spec):
        return candidate
    if not isinstance(candidate, str):
        raise UsageError(f"an activation is given by its name, as in 'gelu', or by its spec; got {excerpt(candidate)}")
    if candidate not in BY_NAME:
        raise UnknownActivation(unknown(candidate))
    return BY_NAME[candidate]


def _packed(spec: Spec) -> str | dict[str, Any]:
    """Return what brings a candidate back: its name, or its fields, a formula as its text."""
    if BY_NAME.get(spec.name) is spec:
        return spec.name
    state = {field.name: getattr(spec, field.name) for field in fields(spec)}
    function = str(spec.function) if isinstance(spec.function, Expression) else spec.function
    return {**state, "function": function, "initializations": {}}


def _unpacked(state: str | dict[str, Any]) -> Spec:
    if isinstance(state, str):
        return BY_NAME[state]
    function = state["function"]
    return Spec(**{**state, "function": parse(function, FUNCTIONS) if isinstance(function, str) else function})
