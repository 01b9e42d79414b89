"""An activation written as a formula."""

from __future__ import annotations

from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import nn

from softknee._errors import OptionError
from softknee._expression.nodes import vectors_of
from softknee._expression.parse import parse
from softknee._expression.primitives import PRIMITIVES, Primitive
from softknee._spec import Param, Promises, Spec
from softknee.functional import SPECS
from softknee.nn.elementwise import Elementwise
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from softknee._expression.nodes import Node
    from softknee._expression.tree import Expression


def _callable(spec: Spec) -> Primitive | str:
    """Return a catalogued function as formulas call it, or why they cannot."""
    reasons = {
        f"it is {spec.kind}, and a formula looks at one element": spec.kind != "elementwise",
        "it has vector parameters": any(param.vector for param in spec.parameters),
        "it depends on the channel": spec.channelwise,
        "it is random in training": spec.sampled is not None,
        "its derivative is not that of its formula": bool(spec.surrogate),
        "its parameters have no defaults": any(param.default is None for param in spec.parameters),
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    if reason:
        return reason
    return Primitive(
        name=spec.name,
        arity=1 + len(spec.parameters),
        function=spec.function,
        symbolic=partial(_symbolic, spec),
        parameters=spec.parameters,
        definition=partial(_definition, spec.formula),
    )


def _symbolic(spec: Spec, _: Any, *arguments: Any) -> Any:
    names = ("x", *(param.name for param in spec.parameters))
    return parse(spec.formula).to_sympy(dict(zip(names, arguments, strict=True)))


@cache
def _definition(formula: str) -> Node:
    return parse(formula).root


# What a formula may call: the primitives, and the catalogued functions of one element.
FUNCTIONS: Mapping[str, Primitive | str] = MappingProxyType(
    {
        **PRIMITIVES,
        **{
            name: function
            for spec in SPECS
            for function in (_callable(spec),)
            for name in (spec.name, *spec.aliases)
            if name not in PRIMITIVES or (spec.parameters and not isinstance(function, str))
        },
    }
)

# Attributes and options of a module, which a parameter would hide.
OPTIONS = (
    *("channel_dim", "engine", "generator", "initialization", "per_channel", "spec", "terms", "text", "trainable"),
    *("table_reach", "wanted_engine"),
)
RESERVED = frozenset({*dir(nn.Module()), *dir(Elementwise), *OPTIONS})


def expression(text: str) -> Expression:
    """Read a formula in `x`, which may call the functions of the catalogue.

    Args:
        text: In the expression language.

    Returns:
        A tree that can be evaluated, printed, simplified and differentiated.

    Raises:
        ExpressionError: The text is no formula; the message shows the place.
    """
    return parse(text, FUNCTIONS)


def formula_spec(text: str, values: Collection[str]) -> Spec:
    """Return the spec of a formula, every name in it other than `x` a trainable parameter.

    Args:
        text: In the expression language; catalogued functions of one element may be called.
        values: Names of the parameters that values are given for.

    Returns:
        A spec named by the canonical text.

    Raises:
        ExpressionError: The text is no formula.
        OptionError: It is no text, or a name in it has no value, or modules use it otherwise, or it is a vector.
    """
    if not isinstance(text, str):
        raise OptionError(f"a formula is a text, as in 'x * sigmoid(x)'; got {excerpt(text)}")
    tree = expression(text)
    if vectors_of(tree.root):
        raise OptionError(f"{str(tree)!r} sums over vector parameters; those of a formula are single numbers")
    taken = [name for name in tree.parameters if name in RESERVED]
    if taken:
        raise OptionError(f"{taken[0]!r} cannot name a parameter, for every module has it already; choose another name")
    missing = [name for name in tree.parameters if name not in values]
    if missing:
        raise OptionError(
            f"{missing[0]!r} in {str(tree)!r} is neither x nor a function; give its starting value as an option"
        )
    return Spec(
        name=str(tree),
        title="Formula",
        family="formula",
        function=tree,
        formula=str(tree),
        parameters=tuple(Param(name=name, trainable=True) for name in tree.parameters),
        promises=Promises(),
        source="formula",
    )


class Formula(Elementwise):
    """An activation written as a formula, for example `Formula("x * sigmoid(beta * x)", beta=1.0)`.

    Args:
        text: In the expression language; names other than `x` are parameters and need a value.
        trainable: Whether parameters are trained: all (the default), none, or those named.
        per_channel: As in `Elementwise`.
        channel_dim: As in `Elementwise`.
        engine: As in `Elementwise`.
        reach: As in `Elementwise`.
        **values: Starting values of the parameters.

    Raises:
        ExpressionError: The text is no formula.
        OptionError: A parameter has no value, or an option is unknown.
    """

    def __init__(
        self,
        text: str,
        *,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        channel_dim: int = 1,
        engine: str = "auto",
        reach: tuple[float, float] | None = None,
        **values: float | Tensor,
    ) -> None:
        self.spec = formula_spec(text, values)
        options: dict[str, Any] = {**values}
        super().__init__(
            trainable=trainable, per_channel=per_channel, channel_dim=channel_dim, engine=engine, reach=reach, **options
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the compiled formula, whose text brings it back."""
        return {**super().__getstate__(), "spec": self.spec.formula}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and read the formula again."""
        names = {name for part in ("_parameters", "_buffers") for name in state[part]} | set(state)
        super().__setstate__({**state, "spec": formula_spec(state["spec"], names)})

    def extra_repr(self) -> str:
        """Return the formula, then its parameters."""
        return ", ".join(filter(None, [repr(self.spec.formula), super().extra_repr()]))
