"""Functions made of other functions, and the parameters, formulas and kinks that they then have."""

from __future__ import annotations

from dataclasses import replace
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from softknee._errors import UsageError
from softknee._expression.nodes import Name
from softknee._expression.parse import parse
from softknee._expression.substitute import substitute
from softknee._expression.tree import Expression
from softknee._spec import Spec
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from softknee._spec import Param, Promises

    Rule = Callable[[Tensor, "Sequence[Tensor | float]", "Sequence[Part]"], Tensor]


_ABOUT = """{what}

Half precision is computed in float32.

Args:
    x: Any shape, any floating dtype.
    *parameters: {own}; then those of the functions, each broadcastable to `x`.

Returns:
    Same shape and dtype as `x`; derivatives at kinks are those of the functions."""


class Part(NamedTuple):
    """A function with values for its parameters."""

    function: Callable[..., Tensor]
    values: tuple[Tensor | float, ...]

    def at(self, x: Tensor) -> Tensor:
        """Evaluate it."""
        return self.function(x, *self.values)


class Composed:
    """A function made of others: `f(x, *parameters)`, its own parameters first, then theirs, one after the other.

    Two that are made alike are equal, so that their modules share kernels. Half precision is computed in float32.

    Args:
        name: Of the function.
        about: Its docstring.
        rule: From `x`, its own parameters and its parts to the value.
        functions: What it is made of, each with the number of its parameters.
        parameters: Its own, then those of the parts.
    """

    def __init__(
        self,
        name: str,
        about: str,
        rule: Rule,
        functions: tuple[tuple[Callable[..., Tensor], int], ...],
        parameters: tuple[Param, ...],
    ) -> None:
        self.__name__ = name
        self.__doc__ = about
        self.rule = rule
        self.functions = functions
        self.defaults = tuple((param.name, param.default) for param in parameters)
        self.own = len(parameters) - sum(count for _, count in functions)

    def __call__(self, x: Tensor, *values: Any, **named: Any) -> Tensor:
        """Evaluate it.

        Args:
            x: Any shape, any floating dtype.
            *values: Parameters in order, broadcastable to `x`.
            **named: Parameters by name; the others have their defaults.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            TypeError: There is no such parameter, or it is given twice.
        """
        left = dict(self.defaults[len(values) :])
        if len(values) > len(self.defaults) or named.keys() - left.keys():
            names = ", ".join(name for name, _ in self.defaults)
            raise TypeError(f"{self.__name__} takes x and, once each, {names}")
        wide = [
            widened(value) if isinstance(value, Tensor) else value for value in (*values, *{**left, **named}.values())
        ]
        parts, start = [], self.own
        for function, count in self.functions:
            parts.append(Part(function, tuple(wide[start : start + count])))
            start += count
        return self.rule(widened(x), wide[: self.own], parts).to(x.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Composed) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.rule, self.functions, self.defaults)

    @property
    def __signature__(self) -> Signature:
        kind = Parameter.POSITIONAL_OR_KEYWORD
        values = (Parameter(name, kind, default=default) for name, default in self.defaults)
        return Signature([Parameter("x", kind), *values])


def labels_of(specs: Sequence[Spec]) -> list[str]:
    """Return a name for each function that parameters can begin with; a second one of a kind is `name_2`."""
    labels: list[str] = []
    for k, spec in enumerate(specs):
        name = spec.name if spec.name.isidentifier() else f"function_{k + 1}"
        again = sum(before.name == spec.name for before in specs[:k])
        labels.append(f"{name}_{again + 1}" if again else name)
    return labels


def composed_spec(
    about: Mapping[str, Any],
    functions: Sequence[Spec],
    *,
    what: str,
    arguments: str,
    rule: Rule,
    own: tuple[Param, ...],
    template: str,
    promises: Promises,
    inward: str = "x",
    outward: str = "x",
) -> Spec:
    """Return the spec of a function made of others.

    Args:
        about: Fields of it that do not depend on them.
        functions: What it is made of.
        what: First line of its docstring.
        arguments: What that says about its own parameters.
        rule: As in `Composed`.
        own: Its own parameters.
        template: Its formula, with `part0`, `part1`, ... for theirs.
        promises: What it promises.
        inward: What its parts are evaluated at.
        outward: Where that is `x`.

    Returns:
        The spec.

    Raises:
        UsageError: A function cannot be part of it.
    """
    _check_parts(about["name"], functions)
    pairs = list(zip(labels_of(functions), functions, strict=True))
    parameters = (*own, *(param for label, spec in pairs for param in _parameters_of(label, spec)))
    _check_names(about["name"], parameters)
    text = _ABOUT.format(what=what, own=arguments)

    def made(*forms: Any) -> Composed:
        counted = tuple((form, len(spec.parameters)) for form, spec in zip(forms, functions, strict=True))
        return Composed(about["name"], text, rule, counted, parameters)

    kernels = [spec.kernel or spec.function for spec in functions]
    formulas = [substitute(_formula_of(label, spec), {"x": parse(inward)}) for label, spec in pairs]
    kinks = [substitute(parse(outward), {"x": kink}) for label, spec in pairs for kink in _kinks_of(label, spec)]
    return Spec(
        **about,
        family="mixture",
        function=made(*(spec.function for spec in functions)),
        kernel=made(*kernels) if any(spec.kernel for spec in functions) else None,
        formula=str(substitute(parse(template), {f"part{k}": formula for k, formula in enumerate(formulas)})),
        parameters=parameters,
        promises=promises,
        kinks=tuple(dict.fromkeys(map(str, kinks))),
    )


def _parameters_of(label: str, spec: Spec) -> tuple[Param, ...]:
    """Return the parameters of a part under names that begin with its label."""
    return tuple(
        replace(
            param,
            name=f"{label}_{param.name}",
            not_below=f"{label}_{param.not_below}" if param.not_below else "",
        )
        for param in spec.parameters
    )


def _formula_of(label: str, spec: Spec) -> Expression:
    """Return the formula of a part with its parameters under their new names."""
    own = spec.function if isinstance(spec.function, Expression) else parse(spec.formula)
    return substitute(own, _renamed(label, spec))


def _kinks_of(label: str, spec: Spec) -> list[Expression]:
    """Return where the derivative of a part jumps, likewise."""
    return [substitute(parse(kink), _renamed(label, spec)) for kink in spec.kinks]


def _check_parts(whole: str, specs: Sequence[Spec]) -> None:
    """Check that functions can be parts of another.

    Args:
        whole: Name of the other.
        specs: The functions.

    Raises:
        UsageError: There are none, or one looks at more than an element, draws random numbers, or has vectors,
            parameters without a starting value or a derivative that is not its own.
    """
    if not specs:
        raise UsageError(f"{whole} is made of other functions; name at least one")
    for spec in specs:
        reasons = {
            f"it is {spec.kind}, and only functions of single elements can be": spec.kind != "elementwise",
            "it depends on the channel": spec.channelwise,
            "it is random in training": spec.sampled is not None,
            "its derivative is not that of its formula": bool(spec.surrogate),
            "it has vector parameters": any(param.vector for param in spec.parameters),
            "its parameters have no starting values": any(
                param.default is None and not param.vector for param in spec.parameters
            ),
        }
        reason = next((reason for reason, holds in reasons.items() if holds), "")
        if reason:
            raise UsageError(f"{spec.name} cannot be part of {whole}: {reason}")


def _check_names(whole: str, parameters: Sequence[Param]) -> None:
    """Check that no two parameters share a name.

    Raises:
        UsageError: Two do.
    """
    names = [param.name for param in parameters]
    double = next((name for name in names if names.count(name) > 1), "")
    if double:
        raise UsageError(f"two parameters of {whole} would be called {double!r}; rename one of its functions")


def _renamed(label: str, spec: Spec) -> Mapping[str, Name]:
    return {param.name: Name(f"{label}_{param.name}") for param in spec.parameters}
