"""Mixtures of activations, and activations with a scaled and shifted input and output."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional import exponential, gated, rectifiers, sigmoidal
from softknee.functional._composition import composed_spec, labels_of
from softknee.functional._intervals import as_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee.functional._composition import Part

    Values = Sequence[Tensor | float]

_LINEAR = {
    "name": "linear_mix",
    "title": "LinearMix",
    "source": "sutfeld2018abu",
    "note": (
        "The adaptive blending unit (ABU). Its functions and its start, the mean of them, are the paper's; other ones"
        " are given to the module."
    ),
}
_CONVEX = {
    "name": "convex_mix",
    "title": "ConvexMix",
    "source": "manessi2018combinations",
    "note": (
        "The functions are the paper's; other ones are given to the module. That weights are kept positive, with a sum"
        " of 1, by a softmax of scores is ours, as is the start at equal ones."
    ),
}
_AFFINE = {
    "name": "affine_mix",
    "title": "AffineMix",
    "source": "manessi2018combinations",
    "note": (
        "The functions are the paper's; other ones are given to the module. That weights are kept to a sum of 1 by"
        " dividing them by it is ours, as is the start at equal ones; nothing keeps the sum itself away from 0."
    ),
}
_TAAF = {
    "name": "taaf",
    "title": "TAAF",
    "source": "kunc2021taaf",
    "note": (
        "A wrapper for any function, which starts as that function; tanh is the default here, and others are given to"
        " the module."
    ),
}
_BLEND = {
    "name": "blend",
    "title": "Blend",
    "source": "folklore",
    "note": (
        "For replacing the activation of a trained model step by step: whoever trains it raises t from 0 to 1. Here"
        " from ReLU to GELU; others are given to the module. The promises are about t = 0."
    ),
}


def _linear(x: Tensor, weights: Values, parts: Sequence[Part]) -> Tensor:
    return _total([weight * part.at(x) for weight, part in zip(weights, parts, strict=True)])


def _convex(x: Tensor, scores: Values, parts: Sequence[Part]) -> Tensor:
    numbers = [as_tensor(score, x) for score in scores]
    largest = reduce(torch.maximum, numbers).detach()
    return _affine(x, [torch.exp(number - largest) for number in numbers], parts)


def _affine(x: Tensor, weights: Values, parts: Sequence[Part]) -> Tensor:
    numbers = [as_tensor(weight, x) for weight in weights]
    total = _total(numbers)
    return _linear(x, [number / total for number in numbers], parts)


def _wrapped(x: Tensor, own: Values, parts: Sequence[Part]) -> Tensor:
    alpha, beta, gamma, delta = own
    return alpha * parts[0].at(beta * x + gamma) + delta


def _blended(x: Tensor, own: Values, parts: Sequence[Part]) -> Tensor:
    (t,) = own
    old, new = parts
    return (1 - t) * old.at(x) + t * new.at(x)


def _total(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


def linear_mix_spec(functions: Sequence[Spec]) -> Spec:
    """Return the spec of a sum of functions with a trained weight each, `relu_weight` for that of ReLU and so on.

    Args:
        functions: Elementwise ones whose parameters are numbers.

    Returns:
        The spec; it promises what all functions promise and sums keep.

    Raises:
        UsageError: A function cannot be part of it.
    """
    labels = labels_of(functions)
    return composed_spec(
        _LINEAR,
        functions,
        what=r"Sum of functions with free weights, $\sum_k w_k \varphi_k(x)$.",
        arguments="$w_k$, one for each function",
        rule=_linear,
        own=tuple(Param(name=f"{label}_weight", default=1 / len(labels), trainable=True) for label in labels),
        template=" + ".join(f"{label}_weight * part{k}" for k, label in enumerate(labels)),
        promises=_of_sums(functions),
    )


def convex_mix_spec(functions: Sequence[Spec]) -> Spec:
    """Return the spec of a weighted mean of functions, the weights a softmax of trained scores (`relu_score`, ...).

    Args:
        functions: Elementwise ones whose parameters are numbers.

    Returns:
        The spec; it promises what all functions promise and means keep.

    Raises:
        UsageError: A function cannot be part of it.
    """
    labels = labels_of(functions)
    sizes = [f"exp({label}_score)" for label in labels]
    return composed_spec(
        _CONVEX,
        functions,
        what=r"Mean of functions, $\sum_k w_k \varphi_k(x)$ with weights $w = \mathrm{softmax}(s)$.",
        arguments="$s_k$, one for each function",
        rule=_convex,
        own=tuple(Param(name=f"{label}_score", default=0.0, trainable=True) for label in labels),
        template=f"({' + '.join(f'{size} * part{k}' for k, size in enumerate(sizes))}) / ({' + '.join(sizes)})",
        promises=_of_sums(functions),
    )


def affine_mix_spec(functions: Sequence[Spec]) -> Spec:
    """Return the spec of a sum of functions with trained weights (`relu_weight`, ...) that are divided by their sum.

    Args:
        functions: Elementwise ones whose parameters are numbers.

    Returns:
        The spec; it promises what all functions promise and means keep.

    Raises:
        UsageError: A function cannot be part of it.
    """
    labels = labels_of(functions)
    weights = [f"{label}_weight" for label in labels]
    return composed_spec(
        _AFFINE,
        functions,
        what=r"Sum of functions with weights that sum to 1, $\sum_k w_k \varphi_k(x) \big/ \sum_k w_k$.",
        arguments="$w_k$, one for each function",
        rule=_affine,
        own=tuple(Param(name=weight, default=1 / len(labels), trainable=True) for weight in weights),
        template=f"({' + '.join(f'{weight} * part{k}' for k, weight in enumerate(weights))}) / ({' + '.join(weights)})",
        promises=_of_sums(functions),
    )


def taaf_spec(base: Spec) -> Spec:
    """Return the spec of a function with its input and output scaled and shifted.

    Args:
        base: The function, elementwise; its parameters are numbers.

    Returns:
        The spec; it promises what the function does, for it starts as it.

    Raises:
        UsageError: The function cannot be part of it.
    """
    starts = {"alpha": 1.0, "beta": 1.0, "gamma": 0.0, "delta": 0.0}
    return composed_spec(
        _TAAF,
        [base],
        what=r"Transformative adaptive activation function, $\alpha\,\varphi(\beta x + \gamma) + \delta$.",
        arguments=r"$\alpha$, $\beta$, $\gamma$ and $\delta$",
        rule=_wrapped,
        own=tuple(Param(name=name, default=start, trainable=True) for name, start in starts.items()),
        template="alpha * part0 + delta",
        promises=replace(base.promises, idempotent=False),
        inward="beta * x + gamma",
        outward="(x - gamma) / beta",
    )


def blend_spec(old: Spec, new: Spec) -> Spec:
    """Return the spec of the way from one function to another.

    Args:
        old: The function at `t = 0`, elementwise; its parameters are numbers.
        new: The one at `t = 1`, likewise.

    Returns:
        The spec; it promises what the old one does.

    Raises:
        UsageError: A function cannot be part of it.
    """
    both = _of_sums([old, new])
    return composed_spec(
        _BLEND,
        [old, new],
        what=r"Way from one function to another, $(1 - t)\,\varphi_0(x) + t\,\varphi_1(x)$.",
        arguments="$t$, from 0 to 1",
        rule=_blended,
        own=(Param(name="t", default=0.0, low=0.0, high=1.0),),
        template="(1 - t) * part0 + t * part1",
        promises=replace(old.promises, smooth=both.smooth, vmap=both.vmap, compiles=both.compiles, idempotent=False),
    )


def _of_sums(functions: Sequence[Spec]) -> Promises:
    """Return what sums with positive weights keep of what functions promise."""
    kept = ("monotonic", "smooth", "odd", "even", "zero_at_zero", "vmap", "compiles")
    return Promises(**{name: all(getattr(spec.promises, name) for spec in functions) for name in kept})


def _named(name: str) -> Spec:
    specs: tuple[Spec, ...] = (*rectifiers.SPECS, *exponential.SPECS, *sigmoidal.SPECS, *gated.SPECS)
    return next(spec for spec in specs if spec.name == name)


def _promising(spec: Spec, **promises: Any) -> Spec:
    """Return a spec that promises more: what holds for these functions, not for any that promise the same."""
    return replace(spec, promises=replace(spec.promises, **promises))


BLENDED = tuple(_named(name) for name in ("relu", "elu", "tanh", "swish", "identity"))
MIXED = tuple(_named(name) for name in ("identity", "relu", "tanh"))

SPECS = (
    # The sum rises everywhere, although Swish does not.
    _promising(linear_mix_spec(BLENDED), monotonic=True, zero_at_zero=True, lipschitz=0.9127804),
    _promising(convex_mix_spec(MIXED), zero_at_zero=True, lipschitz=1.0),
    _promising(affine_mix_spec(MIXED), zero_at_zero=True, lipschitz=1.0),
    _promising(taaf_spec(_named("tanh")), odd=True, zero_at_zero=True, lipschitz=1.0),
    _promising(blend_spec(_named("relu"), _named("gelu")), zero_at_zero=True, lipschitz=1.0),
)
