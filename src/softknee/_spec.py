"""What is known about one activation, as plain data. Nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import Tensor

    Initialization = Callable[[int, torch.Generator | None], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Param:
    """A named parameter of a formula.

    Attributes:
        name: As it stands in the formula text and in the function's signature.
        default: Initial value; None for a vector, which the spec's initializations draw.
        trainable: Whether the source trains it, hence the default of the module.
        vector: Whether it has one entry a term (STAF's amplitudes). Vectors of one spec may differ in length by a
            constant (a rational function's numerator and denominator); its initializations say what they are.
        low: Smallest allowed value, itself excluded when `open_low`.
        high: Largest allowed value.
        open_low: Whether `low` itself is excluded (a positive parameter is `low=0.0, open_low=True`).
        not_below: Name of another parameter, which this one must not start below.
        above: Name of another parameter, which this one must start above.
        integer: Whether it is a whole number, such as the size of a group.
        fixed: Whether it cannot be trained, because the function has no derivative by it.
        free_from: Smallest number of entries of a vector whose length is its own (the degree of a denominator, say); 0
            where it goes with those of the others.
        shorter_than: Name of another vector, which must have more entries.
        given: Whether the module computes it from its input instead of storing it: the value half of a gated pair, a
            slope that a small network predicts.
    """

    name: str
    default: float | None = None
    trainable: bool = False
    vector: bool = False
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    not_below: str = ""
    above: str = ""
    integer: bool = False
    fixed: bool = False
    free_from: int = 0
    shorter_than: str = ""
    given: bool = False


@dataclass(frozen=True, kw_only=True)
class Promises:
    """Properties that hold at the default parameters; each one made is tested.

    Attributes:
        monotonic: Never decreases.
        smooth: Infinitely often differentiable everywhere.
        odd: `f(-x) = -f(x)`.
        even: `f(-x) = f(x)`.
        zero_at_zero: `f(0) = 0`.
        lipschitz: Smallest constant `L` known with `|f(x) - f(y)| <= L |x - y|`.
        period: Smallest `p > 0` with `f(x + p) = f(x)`.
        lower_bound: `f(x) >= lower_bound` for every finite `x`.
        upper_bound: `f(x) <= upper_bound` for every finite `x`.
        idempotent: `f(f(x)) = f(x)` with the same derivative there, so that `f(x)` can be kept in place of `x`.
        same_shape: The output has the shape of the input.
        vmap: Works under `torch.func.vmap`.
        compiles: Works under `torch.compile(fullgraph=True)`.
    """

    monotonic: bool = False
    smooth: bool = False
    odd: bool = False
    even: bool = False
    zero_at_zero: bool = False
    lipschitz: float | None = None
    period: float | None = None
    lower_bound: float | None = None
    upper_bound: float | None = None
    idempotent: bool = False
    same_shape: bool = True
    vmap: bool = True
    compiles: bool = True


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One activation: the only place where anything about it is written down.

    Attributes:
        name: Unique, snake case; what `create` and the command line take.
        title: Class name in `softknee.nn`.
        family: One of the catalogue's groups, for example `"rectifier"`.
        function: `f(x, *parameters)`, pure; parameters broadcast against `x` (vectors: along their first axis,
            entry by entry). A `channelwise` function also takes `channel=`, the channel index of each element.
        formula: The same function stated independently in softknee's expression language; tests compare the two. Of a
            vector function, a description for people.
        parameters: In the order of the function's arguments.
        promises: What else is guaranteed.
        source: Key in `references.bib`.
        kind: What the function looks at. `"elementwise"`: one element. `"gated"`: one element of either half of the
            input; `x` is the gate, and a given parameter `value` the other half. `"contextual"`: one element, and given
            parameters that a small network computes from the whole input. `"vector"`: the entries along one dimension,
            `function(x, *parameters, dim=...)`.
        dim: Dimension along which a vector function works, or in which the halves of a gated one lie, by default.
        gate_first: Whether the first half is the gate, by default.
        surrogate: Formula whose derivative the backward pass takes in place of the function's own, if it does.
        statement: The function stated independently where no formula can: `(entries, *parameters) -> entries` of a
            vector function, on lists of numbers, `(x, *parameters) -> y` of one element, on numbers of mpmath, so that
            it can be evaluated to any number of digits. `formula` then is a description for people.
        note: What a reader must know: choices that are ours, what the source leaves open, what a design guarantees.
        users: Well-known models that use it.
        kernel: The same function in the form that kernels are made from, where another is better there: with fewer
            exponentials, say, or without branches. Checked as the function is.
        builtin: `"always"` where `function`, at numbers, is one operation of torch that moves memory as fast as it can
            be moved; `"small"` where it is one that is slow on large tensors; None where it is several.
        kinks: Where the derivative jumps, as expressions in the parameters. The derivative there is the
            function's own choice, stated in its docstring.
        knots: Positions of kinks or of joins between polynomial pieces, for vectors of the given length.
        pieces: `(x, *parameters)`, the number of the piece that `x` is in, where the second derivative jumps from piece
            to piece at places that depend on trained parameters.
        aliases: Other names in common use for exactly this function.
        sampled: `f(x, *parameters, generator=None)`, the random form used in training, if there is one.
        initializations: How vector parameters are drawn: `(terms, generator) -> {name: tensor}`; the first is the
            default. Those of a vector function are drawn for a number of channels: `(channels, generator) -> ...`.
        terms: Default number of terms: the length of vector parameters, or the degree of a rational function; 0 where
            it must be given.
        fewest_terms: Smallest number of terms.
        most_terms: Largest number of terms, where there is one.
        channelwise: Whether the function depends on the channel an element is in.
    """

    name: str
    title: str
    family: str
    function: Callable[..., Tensor]
    formula: str
    parameters: tuple[Param, ...] = ()
    promises: Promises = Promises()
    source: str = ""
    kind: Literal["elementwise", "gated", "contextual", "vector"] = "elementwise"
    dim: int = 1
    gate_first: bool = True
    surrogate: str = ""
    statement: Callable[..., Any] | None = None
    note: str = ""
    users: str = ""
    kernel: Callable[..., Tensor] | None = None
    builtin: Literal["always", "small"] | None = None
    kinks: tuple[str, ...] = ()
    knots: Callable[[int], tuple[float, ...]] | None = None
    pieces: Callable[..., Tensor] | None = None
    aliases: tuple[str, ...] = ()
    sampled: Callable[..., Tensor] | None = None
    initializations: Mapping[str, Initialization] = field(default_factory=lambda: MappingProxyType({}))
    terms: int = 0
    fewest_terms: int = 1
    most_terms: int | None = None
    channelwise: bool = False
