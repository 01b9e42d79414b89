"""Gated pairs: one half of the input gates the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from softknee._engine.distributed import along_of, cut_as, is_distributed, local_parts
from softknee._engine.layout import Halves, as_tuple
from softknee._engine.plan import plan_of
from softknee._engine.select import evaluate, prepare
from softknee._errors import UsageError
from softknee.nn.activation import dimension
from softknee.nn.evaluated import Evaluated
from softknee.nn.options import check_flag, check_integer, stored

if TYPE_CHECKING:
    from collections.abc import Collection

    from softknee._engine.layout import Input
    from softknee._engine.plan import Plan

# Operations in a formula's text up to which torch evaluates it as fast as anything on small tensors.
FEW = 8


class Gated(Evaluated):
    """A gated pair, such as GEGLU: the input holds gate and value, the output is half as wide.

    `module(gate, value)` takes the two as tensors of their own. Only the channels' dimension then matters of the three
    options that say where they are.

    Args:
        dim: Dimension that holds both, and that of the output's channels.
        gate_first: Whether the gate is the first half; by default as its source has it (`torch.nn.GLU`: the second).
        interleaved: Whether gates and values alternate instead.
        trainable: Whether parameters are trained: all, none, or those named; by default as their source does.
        per_channel: Number of channels of the output, for separate parameters in each.
        engine: How it is evaluated: `"eager"` as written, `"fused"` by kernels of its own, which read gate and value
            where they are; `"auto"` takes what is fastest for the tensor at hand.
        **values: Parameters by name: numbers, or tensors of the stored shape.

    Raises:
        OptionError: An option is unknown to this activation, or its value is outside the allowed range.
    """

    # A table has one input.
    engines = ("auto", "eager", "fused")

    def __init__(
        self,
        *,
        dim: int | None = None,
        gate_first: bool | None = None,
        interleaved: bool = False,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        engine: str = "auto",
        **values: Any,
    ) -> None:
        dim = self.spec.dim if dim is None else dim
        gate_first = self.spec.gate_first if gate_first is None else gate_first
        check_integer(self.spec, "dim", dim)
        check_flag(self.spec, "gate_first", gate_first)
        check_flag(self.spec, "interleaved", interleaved)
        self._want(engine)
        super().__init__(trainable=trainable, per_channel=per_channel, **values)
        self.dim = dim
        self._halves = Halves(gate_first, interleaved)
        self._plans = self._make_plans()

    @property
    def gate_first(self) -> bool:
        """Whether the gate comes before its value."""
        return self._halves.gate_first

    @property
    def interleaved(self) -> bool:
        """Whether gates and values alternate."""
        return self._halves.interleaved

    def forward(self, x: Tensor, value: Tensor | None = None) -> Tensor:
        """Apply the activation.

        Args:
            x: Gates and values: any shape with an even number of channels in `dim`, any floating dtype. Where `value`
                is given, the gates alone: any shape.
            value: The values, in the shape and dtype of the gates.

        Returns:
            Half as many channels, else the shape and dtype of `x`; with `value` the same shape, too.

        Raises:
            UsageError: The number of channels is odd, or not what the parameters are for; or gates and values differ in
                shape or dtype.
        """
        inputs, dim = self._inputs(x, value)
        return evaluate(self._plans[0], inputs, self._values(), dim, self.wanted_engine)

    def _large_example(self) -> Tensor:
        return self._large(self.dim, 2 * (self.per_channel or 1))

    def engine_for(self, x: Tensor, value: Tensor | None = None) -> str:
        """Return how inputs, or the parts of DTensors that are here, are evaluated: `"eager"` or `"fused"`.

        Args:
            x: As in `forward`.
            value: As in `forward`.

        Raises:
            UsageError: As `forward`.
        """
        inputs, dim = self._inputs(x, value)
        values = self._values()
        if all(map(is_distributed, as_tuple(inputs))):
            whole, values = local_parts(x, values, along_of(self._plans[0], inputs, dim))
            inputs = tuple(cut_as(one, whole).to_local() for one in as_tuple(inputs))
        prepared = prepare(self._plans[0], inputs, dim, self.wanted_engine)
        return "eager" if prepared is None or not self._plans[0].takes(values, as_tuple(inputs)[0]) else "fused"

    def _inputs(self, x: Tensor, value: Tensor | None) -> tuple[Input, int | None]:
        """Return what the function is applied to, and the dimension of the channels where it matters.

        Raises:
            UsageError: As `forward`.
        """
        if value is None:
            return x, self._dim_of(x)
        if x.shape != value.shape or x.dtype != value.dtype:
            raise UsageError(
                f"{type(self).__name__} takes gates and values of one shape and dtype; "
                f"got {_described(x)} and {_described(value)}"
            )
        return (x, value), None if self.per_channel is None else dimension(self, x, self.dim, self.per_channel)

    def _dim_of(self, x: Tensor) -> int:
        """Return the dimension that holds gates and values, not negative.

        Raises:
            UsageError: As `forward`.
        """
        dim = dimension(self, x, self.dim)
        size = x.shape[dim]
        if size % 2:
            raise UsageError(
                f"{type(self).__name__} halves dimension {dim}, which must be even; "
                f"got an input of shape {tuple(x.shape)}"
            )
        if self.per_channel is not None and size != 2 * self.per_channel:
            raise UsageError(
                f"{type(self).__name__} has parameters for {self.per_channel} channels, each with a gate and a value; "
                f"got an input of shape {tuple(x.shape)} with {size} in dimension {dim}, not {2 * self.per_channel}"
            )
        return dim

    @property
    def _is_light(self) -> bool:
        """Whether torch evaluates the function in few operations."""
        return self._operations <= FEW

    def _make_plans(self) -> tuple[Plan, ...]:
        spec, values = self.spec, self._values()
        plan = plan_of(
            spec.function,
            spec.kernel or spec.function,
            lengths=tuple(
                len(value) if param.vector else None for param, value in zip(stored(spec), values, strict=True)
            ),
            trained=tuple(isinstance(value, nn.Parameter) for value in values),
            per_channel=self.per_channel is not None,
            light=self._is_light,
            halves=self._halves,
        )
        return (plan,)

    def _layout(self) -> tuple[str, ...]:
        order = "interleaved, " * self.interleaved + f"gate_first={self.gate_first}"
        return f"dim={self.dim}", order


def _described(x: Tensor) -> str:
    return f"{tuple(x.shape)} in {str(x.dtype).removeprefix('torch.')}"
