"""Gated pairs of any function: an elementwise activation of the gate, times the value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from softknee._errors import OptionError, UnknownActivation
from softknee._expression.substitute import substitute
from softknee._spec import Param, Spec
from softknee.functional._precision import widened
from softknee.functional.gated_linear import VALUE, as_tensor
from softknee.nn.formula import FUNCTIONS, expression, formula_spec
from softknee.nn.gated import Gated
from softknee.nn.names import BY_NAME, unknown
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import torch

LIMIT = "limit"
# What the module has beside the parameters of a formula.
OPTIONS = ("dim", "gate", "gate_first", "interleaved", LIMIT, VALUE.name)


class GatedBy(Gated):
    """A gated pair whose gate goes through any elementwise activation: `GatedBy("mish")` is `mish(gate) * value`.

    Half precision is computed in float32.

    Args:
        gate: A name of the catalogue, or a formula in `x` as in `Formula`; its parameters are this module's.
        limit: Clamps the gate from above, and the value on both sides, as gpt-oss and DeepSeek-V4 do; a parameter that
            is not trained unless `trainable` says so. None clamps nothing.
        dim: Dimension that holds gate and value.
        gate_first: Whether the gate is the first half.
        interleaved: Whether gates and values alternate instead.
        trainable: Whether parameters are trained: all, none, or those named; by default as the gate's source does.
        per_channel: Number of channels of the output, for separate parameters in each.
        terms: As in `Elementwise`, for gates that have terms.
        initialization: As in `Elementwise`, likewise.
        generator: As in `Elementwise`, likewise.
        engine: As in `Gated`.
        **values: Parameters by name: numbers, or tensors of the stored shape.

    Raises:
        UnknownActivation: The gate is a single word and no name of the catalogue.
        ExpressionError: The gate is no formula.
        OptionError: The gate looks at more than single elements or is random, or an option is unknown or out of range.
    """

    def __init__(
        self,
        gate: str,
        *,
        limit: float | Tensor | None = None,
        dim: int = -1,
        gate_first: bool = True,
        interleaved: bool = False,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        terms: int | None = None,
        initialization: str | None = None,
        generator: torch.Generator | None = None,
        engine: str = "auto",
        **values: Any,
    ) -> None:
        spec = gate_spec(gate, values)
        self.gate = spec.name
        self.spec = _pair_spec(spec, limited=limit is not None)
        super().__init__(
            dim=dim,
            gate_first=gate_first,
            interleaved=interleaved,
            trainable=trainable,
            per_channel=per_channel,
            terms=terms,
            initialization=initialization,
            generator=generator,
            engine=engine,
            **({} if limit is None else {LIMIT: limit}),
            **values,
        )

    @property
    def _is_light(self) -> bool:
        return (self.gate in BY_NAME and BY_NAME[self.gate].builtin is not None) or super()._is_light

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the functions, which the name of the gate brings back."""
        state = super().__getstate__()
        return {**state, "spec": None, "limited": LIMIT in {param.name for param in self.spec.parameters}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and look up the gate again."""
        state = {**state}
        names = {name for part in ("_parameters", "_buffers") for name in state[part]} | set(state)
        spec = _pair_spec(gate_spec(state["gate"], names), limited=state.pop("limited"))
        super().__setstate__({**state, "spec": spec})

    def extra_repr(self) -> str:
        """Return the gate, then parameters and options."""
        return f"{self.gate!r}, {super().extra_repr()}"


def gate_spec(gate: str, values: Collection[str]) -> Spec:
    """Return the spec of what can be the gate of a pair.

    Args:
        gate: A name of the catalogue, or a formula in `x`.
        values: Names of the parameters that values are given for.

    Returns:
        Of the kind "elementwise".

    Raises:
        UnknownActivation: It is a single word and no name of the catalogue.
        ExpressionError: It is no formula.
        OptionError: It looks at more than single elements or is random, or a name in it cannot be a parameter's.
    """
    if not isinstance(gate, str):
        raise OptionError(f"a gate is a name or a formula, as in 'mish' or 'x * sigmoid(x)'; got {excerpt(gate)}")
    if gate in BY_NAME:
        return _fit(BY_NAME[gate])
    if gate.isidentifier() and gate != "x" and gate not in FUNCTIONS:
        raise UnknownActivation(unknown(gate, " to be a gate"))
    spec = formula_spec(gate, (*values, *OPTIONS))
    taken = [param.name for param in spec.parameters if param.name in OPTIONS]
    if taken:
        raise OptionError(f"{taken[0]!r} cannot name a parameter of a gate, for every gated pair has it already")
    return spec


def _fit(spec: Spec) -> Spec:
    """Return a catalogued activation that can be a gate.

    Raises:
        OptionError: It cannot.
    """
    reasons = {
        f"it is a gated pair itself; softknee.create({spec.name!r}) makes it": spec.kind == "gated",
        "it looks at more than single elements": spec.kind != "elementwise",
        "it depends on the channel": spec.channelwise,
        "it is random in training": spec.sampled is not None,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    if reason:
        raise OptionError(f"{spec.name} cannot be a gate: {reason}")
    return spec


def _pair_spec(gate: Spec, *, limited: bool) -> Spec:
    """Return the spec of a gate's function times the value."""
    formula, value = gate.formula, VALUE.name
    limit: tuple[Param, ...] = ()
    if limited:
        clamped = f"min(x, {LIMIT})"
        # What no formula states is described.
        described = f"{formula}, of {clamped} in the place of x"
        stated = gate.statement is None
        formula = str(substitute(expression(formula), {"x": expression(clamped)})) if stated else described
        value = f"min(max({value}, -{LIMIT}), {LIMIT})"
        limit = (Param(name=LIMIT, low=0.0, open_low=True),)
    function, kernel = (_product(one, limited=limited) for one in (gate.function, gate.kernel or gate.function))
    return Spec(
        name=f"glu({gate.name!r})",
        title="GatedBy",
        family="glu",
        kind="gated",
        dim=-1,
        function=function,
        kernel=kernel,
        formula=f"({formula}) * {value}",
        parameters=(VALUE, *gate.parameters, *limit),
        source=gate.source,
        kinks=(*gate.kinks, *(param.name for param in limit)),
        initializations=gate.initializations,
        terms=gate.terms,
        fewest_terms=gate.fewest_terms,
        most_terms=gate.most_terms,
    )


@dataclass(frozen=True)
class Product:
    """A function of the gate times the value, both clamped first where they are limited.

    Attributes:
        function: `f(x, *parameters)`.
        limited: Whether the last parameter is a limit.
    """

    function: Callable[..., Tensor]
    limited: bool

    def __call__(self, x: Tensor, value: Tensor | float = 1.0, *parameters: Any) -> Tensor:
        """Evaluate; half precision is computed in float32.

        Args:
            x: The gate: any shape, any floating dtype.
            value: Broadcastable to `x`.
            *parameters: Those of the function, then the limit where there is one; numbers, or broadcastable to `x`.

        Returns:
            Same shape and dtype as `x`.
        """
        gate, dtype = widened(x), x.dtype
        wide = [widened(one) if isinstance(one, Tensor) else one for one in parameters]
        value = widened(as_tensor(value, x))
        if self.limited:
            *wide, limit = wide
            gate, value = gate.clamp(max=limit), value.clamp(-limit, limit)
        return (self.function(gate, *wide) * value).to(dtype)


@lru_cache(maxsize=512)
def _product(function: Callable[..., Tensor], *, limited: bool) -> Product:
    """Return one and the same function for all modules of a kind."""
    return Product(function, limited)
