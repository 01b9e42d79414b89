"""One module for every elementwise activation: the spec says what, the module holds the parameters."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.distributed import along_of, is_distributed, local_parts
from softknee._engine.plan import plan_of
from softknee._engine.select import ENGINES, evaluate, prepare
from softknee._engine.table import REACH
from softknee._errors import OptionError
from softknee.nn.activation import dimension
from softknee.nn.evaluated import Evaluated
from softknee.nn.options import check_integer
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection

    from softknee._engine.plan import Plan


# Operations in a formula's text up to which torch evaluates it as fast as anything on small tensors.
FEW = 6
# Name of the buffer that keeps a declared or calibrated reach.
_REACH = "table_reach"
# It keeps whole multiples of this part of one.
_REACH_UNITS = 2**20
# Where a reach must end, for its units are kept as whole numbers of 64 bits.
FARTHEST = 2**42


class Elementwise(Evaluated):
    """An activation of single elements, evaluated by an engine.

    Args:
        trainable: Whether parameters are trained: all, none, or those named; by default as their source does.
        per_channel: Number of channels, for separate parameters in each.
        channel_dim: Dimension of the channels in the input; one-dimensional inputs are all channels.
        terms: Number of terms: the length of vector parameters, or the degree of a rational function.
        initialization: How vector parameters are drawn; the spec lists the ways.
        engine: How it is evaluated: `"eager"` as written, `"fused"` by kernels of its own, `"table"` through a table;
            `"auto"` takes what is fastest for the tensor at hand.
        reach: The range that its tables cover, (-8, 8) by default; outside, the formula itself is evaluated.
        generator: Source of drawn parameters, torch's global one by default. The noise of random activations always
            comes from the global one, as dropout's does.
        **values: Parameters by name: numbers, or tensors of the stored shape.

    Raises:
        OptionError: An option is unknown to this activation, or its value is outside the allowed range.
    """

    engines = ENGINES
    _reach: tuple[float, float] = REACH

    def __init__(
        self,
        *,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        channel_dim: int = 1,
        terms: int | None = None,
        initialization: str | None = None,
        generator: torch.Generator | None = None,
        engine: str = "auto",
        reach: tuple[float, float] | None = None,
        **values: float | Tensor,
    ) -> None:
        self._want(engine)
        check_integer(self.spec, "channel_dim", channel_dim)
        if reach is not None:
            reach = self._checked_reach(reach)
        super().__init__(
            trainable=trainable,
            per_channel=per_channel,
            terms=terms,
            initialization=initialization,
            generator=generator,
            **values,
        )
        self.channel_dim = channel_dim
        self._plans = self._make_plans()
        if reach is not None:
            self.set_reach(*reach)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: Any shape, any floating dtype; the channels in `channel_dim` where there are parameters for each.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The input has another number of channels.
        """
        plan = self._plans[self._draws]
        return evaluate(
            plan, x, self._values(), self._channels_of(x) if plan.per_channel else None, self.wanted_engine, self.reach
        )

    def _large_example(self) -> Tensor:
        return self._large(self.channel_dim, self.per_channel or 1)

    def engine_for(self, x: Tensor) -> str:
        """Return how `x`, or the part of a DTensor that is here, is evaluated: `"eager"`, `"fused"` or `"table"`."""
        plan, values = self._plans[self._draws], self._values()
        channel_dim = self._channels_of(x) if plan.per_channel else None
        if is_distributed(x) and not plan.random:
            part, values = local_parts(x, values, along_of(plan, x, channel_dim))
            x = part.to_local()
        prepared = prepare(plan, x, channel_dim, self.wanted_engine, self.reach)
        if prepared is None or not plan.takes(values, x):
            return "eager"
        with torch.no_grad():
            return prepared[1].at(values, x.device).engine.name

    @property
    def reach(self) -> tuple[float, float]:
        """The range that its tables cover."""
        return self._reach

    def set_reach(self, low: float, high: float) -> None:
        """Have tables cover a range from now on; it is saved with the parameters.

        Args:
            low: Where it begins.
            high: Where it ends.

        Raises:
            OptionError: They are no finite numbers in order.
        """
        low, high = self._checked_reach((low, high))
        # Whole numbers, which stay what they are when a model changes its dtype or device; outward, lest none is left.
        whole = (math.floor(low * _REACH_UNITS), math.ceil(high * _REACH_UNITS))
        self._reach = (whole[0] / _REACH_UNITS, whole[1] / _REACH_UNITS)
        self.register_buffer(_REACH, torch.tensor(whole, dtype=torch.int64, device=self._device))

    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set parameters and buffers to what they started from, but for the reach, which stays; see `Activation`.

        Args:
            generator: Source of drawn parameters, torch's global one by default.
        """
        super().reset_parameters(generator=generator)
        if _REACH in self._buffers:
            self.set_reach(*self._reach)

    def _checked_reach(self, reach: Any) -> tuple[float, float]:
        """Return two numbers in order.

        Raises:
            OptionError: They are not.
        """
        ends = tuple(reach) if isinstance(reach, tuple | list) else ()
        given = ", ".join(f"{end:g}" if isinstance(end, float) else excerpt(end) for end in ends) or excerpt(reach)
        if not (len(ends) == 2 and all(map(_is_finite, ends)) and ends[0] < ends[1]):
            raise OptionError(f"reach of {type(self).__name__} must be two finite numbers in order, got {given}")
        # Others would leave the range of the whole numbers they are kept as.
        if max(map(abs, ends)) > FARTHEST:
            raise OptionError(f"reach of {type(self).__name__} must end within 2**42, got {given}")
        return ends[0], ends[1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over a saved reach, also where there was none so far."""
        saved = state_dict.get(prefix + _REACH)
        if saved is not None:
            low, high = (bound / _REACH_UNITS for bound in saved.tolist())
            self.set_reach(low, high)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def _draws(self) -> bool:
        return self.training and self.spec.sampled is not None

    def _make_plans(self) -> tuple[Plan, ...]:
        """Return the plan of the function and, where it is random in training, that of its random form."""
        spec, values = self.spec, self._values()
        lengths = tuple(
            len(value) if param.vector and isinstance(value, Tensor) else None
            for param, value in zip(spec.parameters, values, strict=True)
        )
        numbers = not any(isinstance(value, Tensor) for value in values)
        kinds = {
            "lengths": lengths,
            "trained": tuple(isinstance(value, nn.Parameter) for value in values),
            "per_channel": self.per_channel is not None,
            "channelwise": spec.channelwise,
        }
        plan = plan_of(
            spec.function,
            spec.kernel or spec.function,
            builtin=spec.builtin == "always" and numbers,
            idempotent=spec.promises.idempotent,
            surrogate=bool(spec.surrogate),
            # Torch's own function, or few operations.
            light=(spec.builtin is not None and numbers) or (not any(lengths) and self._operations <= FEW),
            names=tuple(param.name for param in spec.parameters),
            kinks=spec.kinks,
            knots=spec.knots(max(length or 0 for length in lengths)) if spec.knots is not None else (),
            pieces=spec.pieces,
            **kinds,
        )
        return (plan,) if spec.sampled is None else (plan, plan_of(spec.sampled, spec.sampled, random=True, **kinds))

    def _channels_of(self, x: Tensor) -> int:
        return dimension(self, x, self.channel_dim, self.per_channel)


def _is_finite(number: Any) -> bool:
    real = number is not True and number is not False and issubclass(type(number), Real)
    return real and bool(-math.inf < number < math.inf)
