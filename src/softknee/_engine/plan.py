"""One activation as the engines see it: what to evaluate, and how its parameters are laid out."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from softknee._engine.build import NoCompiler, warn_once
from softknee._engine.distributed import is_distributed, replicated
from softknee._engine.kernels import Kernels
from softknee._engine.layout import PLAIN, dense, laid_apart, layout_of, layout_of_pairs
from softknee._engine.trace import Formula, NotPointwise
from softknee._expression.parse import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from softknee._engine.layout import Halves, Layout

    Value = Tensor | float


# Entries of vectors up to which a formula is traced; more take minutes to trace and to compile.
MOST_ENTRIES = 256
# Likewise where points go through piece after piece.
MOST_IN_PIECES = 32


class Plan:
    """An activation with the kinds of its parameters, not their values.

    Args:
        function: As a spec has it; random where `random` is set.
        kernel: The same function in the form that kernels are made from.
        lengths: Entries of each parameter, None for a scalar.
        trained: Whether each parameter is trained.
        per_channel: Whether parameters differ between channels.
        channelwise: Whether the function takes `channel=`.
        builtin: Whether `function` is one torch operation that no kernel can beat.
        light: Whether `function` is so few torch operations that no kernel can beat them on small tensors.
        idempotent: Whether value and derivative at `f(x)` are those at `x`.
        random: Whether it draws random numbers.
        halves: Where a gated pair has its gate and its value if one tensor holds both; None where the function takes
            one element.
        surrogate: Whether its gradient is that of another function, so that no table has both.
        names: Of the parameters.
        kinks: Where the derivative jumps, as expressions in the parameters.
        knots: Uniformly spaced places where pieces meet.
        pieces: The number of the piece that `x` is in, a function of the same parameters.
    """

    # The plans in use, so that graphs can name one by its number.
    _numbers: ClassVar[Iterator[int]] = count()
    _all: ClassVar[WeakValueDictionary[int, Plan]] = WeakValueDictionary()

    def __init__(
        self,
        function: Callable[..., Tensor],
        kernel: Callable[..., Tensor],
        *,
        lengths: tuple[int | None, ...] = (),
        trained: tuple[bool, ...] = (),
        per_channel: bool = False,
        channelwise: bool = False,
        builtin: bool = False,
        light: bool = False,
        idempotent: bool = False,
        random: bool = False,
        halves: Halves | None = None,
        surrogate: bool = False,
        names: tuple[str, ...] = (),
        kinks: tuple[str, ...] = (),
        knots: tuple[float, ...] = (),
        pieces: Callable[..., Tensor] | None = None,
    ) -> None:
        self.function = function
        self.formula = Formula(kernel, lengths, trained, channelwise=channelwise, pairs=halves is not None)
        self.lengths = lengths
        self._scalars = not any(lengths)
        self.per_channel = per_channel or channelwise
        self.channelwise = channelwise
        self.builtin = builtin
        self.light = light
        # The gradients of parameters need the input itself.
        self.keeps_output = idempotent and not any(trained)
        self.random = random
        self.halves = halves
        self.has_tables = not random and not surrogate and halves is None
        self.names = names or ("",) * len(lengths)
        self.kinks = [parse(text) for text in kinks]
        self.knots = knots
        self.pieces = (
            None
            if pieces is None
            else Plan(pieces, pieces, lengths=lengths, trained=(False,) * len(lengths), per_channel=per_channel)
        )
        self.number = next(self._numbers)
        self._all[self.number] = self
        self._kernels: dict[tuple[torch.dtype, str], Kernels] = {}
        self._compiles: dict[str, bool] = {}

    def __deepcopy__(self, _: object) -> Plan:
        """Return itself: it never changes, and what is compiled cannot be copied."""
        return self

    @classmethod
    def numbered(cls, number: int) -> Plan:
        """Return the plan with a number of this process."""
        return cls._all[number]

    def kernels(self, dtype: torch.dtype, device: str = "cpu") -> Kernels:
        """Return the kernels for elements of a dtype on a kind of device; each is compiled at its first use."""
        key = (dtype, device)
        if key not in self._kernels:
            self._kernels[key] = Kernels(self.formula, dtype, device, per_channel=self.per_channel)
        return self._kernels[key]

    @cached_property
    def price(self) -> int | None:
        """Vector instructions for an element, forward and backward; None where the formula is no arithmetic on one.

        Nor is there one where the formula has very many terms; it is then evaluated as it is written.
        """
        most = MOST_ENTRIES if self.pieces is None else MOST_IN_PIECES
        if sum(length or 0 for length in self.lengths) > most:
            return None
        try:
            value, gradient = self.formula.value, self.formula.gradient
        except NotPointwise:
            return None
        # Noise that is not declared is drawn as it is written.
        return None if value.draws and not self.random else value.price + gradient.price

    def compiles(self, device: str) -> bool:
        """Whether there are kernels for a kind of device; where a compiler is missing, a warning says so once."""
        if device not in self._compiles:
            self._compiles[device] = self.price is not None and self._try_to_compile(device)
        return self._compiles[device]

    def _try_to_compile(self, device: str) -> bool:
        try:
            self.kernels(torch.float32, device).value  # noqa: B018 (compiles)
        except NoCompiler as error:
            warn_once(f"softknee evaluates activations without kernels of its own, which is slower: {error}")
            return False
        return True

    def takes(self, values: Sequence[Value], x: Tensor) -> bool:
        """Whether kernels can take these values for the parameters.

        Something else may stand in their place: tensors of another kind, device or length, or ones that need a gradient
        where a fixed value was planned.
        """
        for value, length, trained in zip(values, self.lengths, self.formula.trained, strict=True):
            if type(value) is not float and not (
                type(value) in PLAIN
                and value.device == x.device  # type: ignore[union-attr]
                and (trained or not value.requires_grad)  # type: ignore[union-attr]
                and (length is None or len(value) == length)  # type: ignore[arg-type]
            ):
                return False
        return True

    def eager(self, inputs: tuple[Tensor, ...], values: Sequence[Value], channel_dim: int | None) -> Tensor:
        """Evaluate the formula as it is written, under autograd.

        Args:
            inputs: One tensor, or gate and value of pairs: any shape, any floating dtype.
            values: Parameters in their stored shapes, or numbers.
            channel_dim: Of the input, not negative; None where all elements share their parameters. The dimension that
                holds both halves of pairs in one tensor.

        Returns:
            Same dtype as the input, and shape but for pairs, of which one comes out for two.
        """
        elements = self.parts(inputs, channel_dim)
        along = channel_dim if self.per_channel else None
        arguments = [
            broadcast(value, elements[0], vector=length is not None, channel_dim=along)
            for value, length in zip(values, self.lengths, strict=True)
        ]
        if self.channelwise:
            (x,) = elements
            index = torch.arange(x.shape[channel_dim], device=x.device)  # type: ignore[index]
            return self.function(x, *arguments, channel=index.view(_channel_shape(x, channel_dim)))
        return self.function(*elements, *arguments)

    def parts(self, inputs: tuple[Tensor, ...], channel_dim: int | None) -> tuple[Tensor, ...]:
        """Return what the formula takes element by element: gate and value of pairs, else the input itself."""
        if self.halves is None or channel_dim is None or len(inputs) > 1:
            return inputs
        return self.halves.of(inputs[0], channel_dim)

    def laid(self, inputs: tuple[Tensor, ...], channel_dim: int | None) -> tuple[tuple[Tensor, ...], Layout]:
        """Return inputs as kernels can read them, and their layout; arguments as in `eager`."""
        if len(inputs) > 1:
            return laid_apart(*inputs, channel_dim=channel_dim if self.per_channel else None)
        x, memory_format = dense(inputs[0])
        if self.halves is None or channel_dim is None:
            return (x,), layout_of(x, memory_format, channel_dim)
        shared, interleaved = not self.per_channel, self.halves.interleaved
        return (x,), layout_of_pairs(x, memory_format, channel_dim, interleaved=interleaved, shared=shared)

    def leaves(self, values: Sequence[Value], channels: int, device: torch.device) -> Tensor | None:
        """Return all parameter entries as `(entries, channels)` in float32; None where there are none."""
        if not values and not self.channelwise:
            return None
        rows = [
            value
            if isinstance(value, Tensor)
            and value.dtype == torch.float32
            and value.shape == (channels if length is None else length,)
            and (length is None or channels == 1)
            else self._row(value, length, channels, device)
            for value, length in zip(values, self.lengths, strict=True)
        ]
        if self.channelwise:
            rows.append(torch.arange(channels, dtype=torch.float32, device=device))
        return (rows[0].contiguous() if len(rows) == 1 else torch.cat(rows)).view(-1, channels)

    @staticmethod
    def _row(value: Value, length: int | None, channels: int, device: torch.device) -> Tensor:
        """Return a parameter's entries for all channels as one float32 vector."""
        entries = 1 if length is None else length
        if not isinstance(value, Tensor):
            return torch.full((entries * channels,), value, dtype=torch.float32, device=device)
        return value.to(device, torch.float32).reshape(entries, -1).expand(-1, channels).flatten()

    def bends(self, leaves: Tensor | None) -> tuple[float, ...]:
        """Return where pieces meet at parameter values, ascending; kinks that differ between channels are left out."""
        places = dict(zip(self._scalar_names(), range(self.formula.leaves), strict=False))
        zero, found = torch.zeros((), dtype=torch.float64, device="cpu"), {*self.knots}
        for kink in self.kinks:
            if not kink.parameters:
                found.add(float(kink(zero)))
            elif leaves is not None and all(name in places for name in kink.parameters):
                entries = [leaves[places[name]].double() for name in kink.parameters]
                first, *others = kink(zero.to(leaves.device).expand(leaves.shape[1]), *entries).tolist()
                if all(other == first for other in others):
                    found.add(first)
        return tuple(sorted(found))

    def _scalar_names(self) -> list[str]:
        """Return names in the order of the entries; those of a vector's are no names."""
        return [
            name if length is None else ""
            for name, length in zip(self.names, self.lengths, strict=True)
            for _ in range(1 if length is None else length)
        ]

    def gradients(self, sums: Tensor | None, values: Sequence[Value]) -> Sequence[Tensor | None]:
        """Split summed gradients of the trained entries, `(entries, channels)`, into gradients of the parameters."""
        if sums is None:
            return [None] * len(values)
        trained: list[Any] = [value for value, flag in zip(values, self.formula.trained, strict=True) if flag]
        parts: Sequence[Tensor]
        if self._scalars:  # one number a channel each, in the shape of its parameter
            parts = sums.unbind()
        else:
            whole = sums.view(-1).split([value.numel() for value in trained])
            parts = [part.view(value.shape) for part, value in zip(whole, trained, strict=True)]
        cast = iter(
            [
                part if value.dtype == torch.float32 else part.to(value.dtype)
                for part, value in zip(parts, trained, strict=True)
            ]
        )
        return [next(cast) if flag else None for flag in self.formula.trained]


@lru_cache(maxsize=512)
def plan_of(function: Callable[..., Tensor], kernel: Callable[..., Tensor], **kinds: Any) -> Plan:
    """Return the plan of an activation, one and the same for all modules of its kind: what is compiled is shared.

    Args:
        function: As in `Plan`.
        kernel: As in `Plan`.
        **kinds: As in `Plan`.

    Returns:
        The plan.
    """
    return Plan(function, kernel, **kinds)


def broadcast(value: Value, x: Tensor, *, vector: bool = False, channel_dim: int | None = None) -> Value:
    """Return a stored parameter in the shape and dtype in which formulas take it.

    Args:
        value: In its stored shape, or a number.
        x: The input it is for.
        vector: Whether its first axis counts terms.
        channel_dim: Dimension of the channels in `x`, not negative; None where all elements share their parameters.

    Returns:
        A number as it is; a tensor in the dtype of `x`, broadcastable to it behind the terms.
    """
    if not isinstance(value, Tensor):
        return value
    if type(x) not in PLAIN and is_distributed(x):
        value = replicated(value, x)
    value = value.to(x.dtype)
    if channel_dim is not None and value.dim() > vector and value.shape[-1] == x.shape[channel_dim]:
        return value.view(*value.shape[:vector], *_channel_shape(x, channel_dim))
    return value if vector else value.view(())


def _channel_shape(x: Tensor, channel_dim: int | None) -> tuple[int, ...]:
    return (-1, *[1] * (x.dim() - 1 - (channel_dim or 0)))
