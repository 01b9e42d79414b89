"""One module for every elementwise activation: the spec says what, the module holds the parameters."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.plan import plan_of
from softknee._engine.select import check_engine, evaluate, prepare
from softknee._engine.table import REACH
from softknee._errors import OptionError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from softknee._engine.plan import Plan
    from softknee._spec import Param, Spec


# Operations in a formula's text up to which torch evaluates it as fast as anything on small tensors.
FEW = 6
_OPERATION = re.compile(r"[-+/(]|\*\*?")
# Name of the buffer that keeps a declared or calibrated reach.
_REACH = "table_reach"
# It keeps whole multiples of this part of one.
_REACH_UNITS = 2**20
# Elements of a channel in the tensor that `engine` speaks of.
LARGE_EXAMPLE = 2**17
# Of which no more than this many for all channels together.
MOST_ELEMENTS = 2**24


class Elementwise(nn.Module):
    """An activation with its parameters, fixed or trainable, shared or per channel.

    A fixed scalar is a plain number, as in torch's own modules. Trainable scalars are stored with shape `(1,)`,
    per-channel parameters with `(channels,)`, vectors with `(terms,)` or `(terms, channels)`.

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

    spec: Spec
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
        super().__init__()
        self.wanted_engine = check_engine(engine)
        check_options(self.spec, trainable, per_channel, terms, initialization, values)
        self.per_channel = per_channel
        self.channel_dim = channel_dim
        drawn = _drawn(self.spec, terms, initialization, generator)
        for param in self.spec.parameters:
            value = values.get(param.name, drawn.get(param.name, param.default))
            self._store(param, value, trained=_is_trained(param, trainable))
        self._plans = self._make_plans()
        if reach is not None:
            self.set_reach(*reach)

    def _store(self, param: Param, value: Any, *, trained: bool) -> None:
        """Keep a fixed scalar as a number, everything else as a parameter or buffer."""
        if not trained and isinstance(value, float | int) and self.per_channel is None:
            setattr(self, param.name, float(value))
            return
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
        shape = tensor.shape[:1] if param.vector else ()
        if self.per_channel is not None:
            tensor = tensor.unsqueeze(-1) if tensor.dim() == len(shape) else tensor
            tensor = tensor.expand(*shape, self.per_channel).clone()
        elif not param.vector:
            tensor = tensor.reshape(1)
        if trained:
            self.register_parameter(param.name, nn.Parameter(tensor))
        else:
            self.register_buffer(param.name, tensor)

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

    @property
    def engine(self) -> str:
        """How large float32 tensors are evaluated here: `"eager"`, `"fused"` or `"table"`."""
        shape = [1] * max(2, self.channel_dim + 1, -self.channel_dim)
        shape[self.channel_dim] = self.per_channel or 1
        shape[0 if self.channel_dim % len(shape) else 1] = max(1, min(LARGE_EXAMPLE, MOST_ELEMENTS // max(shape)))
        # Never looked into: memory that is not touched is not taken.
        return self.engine_for(torch.empty(shape, dtype=torch.float32, device=self._device))

    @property
    def _device(self) -> torch.device:
        """Where its parameters are, the CPU where it has none."""
        devices = (tensor.device for tensor in (*self.parameters(), *self.buffers()))
        return next(devices, torch.device("cpu"))

    def engine_for(self, x: Tensor) -> str:
        """Return how `x` is evaluated: `"eager"`, `"fused"` or `"table"`."""
        plan = self._plans[self._draws]
        channel_dim = self._channels_of(x) if plan.per_channel else None
        prepared = prepare(plan, x, channel_dim, self.wanted_engine, self.reach)
        if prepared is None:
            return "eager"
        with torch.no_grad():
            return prepared[1].at(self._values(), x.device).engine.name

    def _values(self) -> list[Tensor | float]:
        # Parameters come straight from their dictionary, which is several times faster than as attributes.
        direct: dict[str, Any] = self._parameters
        return [
            getattr(self, param.name) if direct.get(param.name) is None else direct[param.name]
            for param in self.spec.parameters
        ]

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
            UsageError: They are not finite, or not in order.
        """
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(
                f"reach of {type(self).__name__} must be two finite numbers in order, got {low:g}, {high:g}"
            )
        # Whole numbers, which stay what they are when a model changes its dtype or device; outward, lest none is left.
        whole = (math.floor(low * _REACH_UNITS), math.ceil(high * _REACH_UNITS))
        self._reach = (whole[0] / _REACH_UNITS, whole[1] / _REACH_UNITS)
        self.register_buffer(_REACH, torch.tensor(whole, dtype=torch.int64, device=self._device))

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
            light=_is_light(spec, numbers=numbers, vectors=any(lengths)),
            names=tuple(param.name for param in spec.parameters),
            kinks=spec.kinks,
            knots=spec.knots(max(length or 0 for length in lengths)) if spec.knots is not None else (),
            **kinds,
        )
        return (plan,) if spec.sampled is None else (plan, plan_of(spec.sampled, spec.sampled, random=True, **kinds))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what is made again from it."""
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        super().__setstate__(state)
        self._plans = self._make_plans()

    def _channels_of(self, x: Tensor) -> int:
        """Return the dimension of the channels in `x`.

        Raises:
            UsageError: There is no such dimension, or it has another number of channels.
        """
        dim = self._channel_dim(x)
        if self.per_channel is not None and x.shape[dim] != self.per_channel:
            raise UsageError(
                f"{type(self).__name__} has parameters for {self.per_channel} channels, "
                f"got an input of shape {tuple(x.shape)} with {x.shape[dim]} in dimension {dim}"
            )
        return dim

    def _channel_dim(self, x: Tensor) -> int:
        if x.dim() == 1:
            return 0
        if not -x.dim() <= self.channel_dim < x.dim():
            raise UsageError(
                f"{type(self).__name__} expects channels in dimension {self.channel_dim}, "
                f"got an input of shape {tuple(x.shape)}"
            )
        return self.channel_dim % x.dim()

    def named_values(self) -> dict[str, Tensor | float]:
        """Return the present parameter values by name, detached, in their stored shapes."""
        values = {param.name: getattr(self, param.name) for param in self.spec.parameters}
        return {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}

    def extra_repr(self) -> str:
        """Return parameter values, and which are trained."""
        parts = [f"{name}={_shown(value)}" for name, value in self.named_values().items()]
        trained = [name for name, _ in self.named_parameters()]
        parts += [f"trainable=({', '.join(trained)})"] if trained else []
        parts += [f"per_channel={self.per_channel}"] if self.per_channel is not None else []
        parts.append(f"engine={self.engine}")
        return ", ".join(parts)


def _is_light(spec: Spec, *, numbers: bool, vectors: bool) -> bool:
    """Whether torch evaluates the function, at numbers or tensors, in few operations."""
    return (spec.builtin is not None and numbers) or (not vectors and len(_OPERATION.findall(spec.formula)) <= FEW)


def check_options(
    spec: Spec,
    trainable: bool | Collection[str] | None,
    per_channel: int | None,
    terms: int | None,
    initialization: str | None,
    values: Mapping[str, float | Tensor],
) -> None:
    """Check the options of an activation before anything is built.

    Args:
        spec: The activation.
        trainable: As in `Elementwise`.
        per_channel: As in `Elementwise`.
        terms: As in `Elementwise`.
        initialization: As in `Elementwise`.
        values: Parameter values by name.

    Raises:
        OptionError: Naming the option, what was given and what is allowed.
    """
    names = [param.name for param in spec.parameters]
    named = [] if isinstance(trainable, bool | None) else trainable
    for name in (*values, *named):
        if name not in names:
            allowed = f"it has {', '.join(names)}" if names else "it has none"
            raise OptionError(f"{spec.name} has no parameter {name!r}{did_you_mean(name, names) or ';'} {allowed}")
    if (trainable is True or per_channel is not None) and not names:
        raise OptionError(f"{spec.name} has no parameters that could be trained or set per channel")
    for option, number, least in (("per_channel", per_channel, 1), ("terms", terms, spec.fewest_terms)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise OptionError(f"{option} of {spec.name} must be an integer of at least {least}, got {number!r}")
    vectors = bool(spec.initializations)
    if not vectors and (terms is not None or initialization is not None):
        raise OptionError(f"{spec.name} has no terms; it takes neither terms nor initialization")
    if initialization is not None and initialization not in spec.initializations:
        allowed = ", ".join(spec.initializations)
        raise OptionError(f"initialization of {spec.name} must be one of {allowed}, got {initialization!r}")
    for param in spec.parameters:
        if param.name in values:
            _check_range(spec, param, _numbers(values[param.name]))
    _check_order(spec, values)


def _check_order(spec: Spec, values: Mapping[str, float | Tensor]) -> None:
    starts = {param.name: values.get(param.name, param.default) for param in spec.parameters}
    for param in spec.parameters:
        if not param.not_below:
            continue
        low, high = _numbers(starts[param.not_below]), _numbers(starts[param.name])
        if not (low.is_meta or high.is_meta or (low <= high).all()):
            raise OptionError(
                f"{param.name} of {spec.name} must not be below {param.not_below}, "
                f"got {param.not_below}={_shown(low)} and {param.name}={_shown(high)}"
            )


def _numbers(value: Any) -> Tensor:
    """Return a value as a tensor that can be looked into, whatever the default device is."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")


def _check_range(spec: Spec, param: Param, value: Tensor) -> None:
    if value.is_meta:
        return
    low, high = param.low, param.high
    inside = value.isfinite()
    if low is not None:
        inside &= value > low if param.open_low else value >= low
    if high is not None:
        inside &= value <= high
    if not inside.all():
        bounds = [] if low is None else [f"{'above' if param.open_low else 'at least'} {low:g}"]
        bounds += [] if high is None else [f"at most {high:g}"]
        wanted = " and ".join(bounds) or "finite"
        raise OptionError(f"{param.name} of {spec.name} must be {wanted}, got {_shown(value)}")


def _is_trained(param: Param, trainable: bool | Collection[str] | None) -> bool:
    if trainable is None:
        return param.trainable
    return trainable if isinstance(trainable, bool) else param.name in trainable


def _drawn(
    spec: Spec, terms: int | None, initialization: str | None, generator: torch.Generator | None
) -> Mapping[str, Tensor]:
    if not spec.initializations:
        return {}
    draw = spec.initializations[initialization or next(iter(spec.initializations))]
    return draw(terms or spec.terms, generator)


def _shown(value: Tensor | float) -> str:
    if isinstance(value, Tensor) and (value.numel() > 1 or value.is_meta):
        return f"<{' x '.join(map(str, value.shape))}>"
    return f"{float(value):g}"
