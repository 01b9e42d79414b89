"""Observes activations while a model runs, by hooks that keep a few sums for each unit and no activation itself.

The hooks ask nothing of the device, change nothing in the model and draw no random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from softknee._surgery.axes import usual_axis
from softknee.integrations._activations import has_slope
from softknee.integrations._histogram import CELLS, EDGES, Histogram, counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from torch.utils.hooks import RemovableHandle

# The bin that zero is in.
_ZERO = 1 + EDGES.index(0.0)


@dataclass(frozen=True)
class Health:
    """How an activation did on one batch.

    A unit is a channel (dimension 1) of inputs with four or more dimensions, an entry of the last dimension of those
    with two or three; all elements of others are samples of one unit.

    Attributes:
        units: Number of units.
        samples: Values seen of each unit: what its death is concluded from.
        dead: Share of units that are dead on this batch: the output is exactly 0 and the slope is exactly 0 at every
            sample, so that nothing the unit did came through, forward or backward. None where an output has no slope
            of its own: it depends on several elements of the input, or on chance.
        zero: Share of outputs that are exactly 0.
        nonfinite: Share of outputs that are infinite or not a number.
        mean: Of the finite outputs.
        std: Standard deviation of the finite outputs.
        inputs: Histogram of the finite inputs.
    """

    units: int
    samples: int
    dead: float | None
    zero: float
    nonfinite: float
    mean: float
    std: float
    inputs: Histogram


@dataclass
class _Sums:
    """What is kept of one activation's calls, on the device of its outputs.

    Attributes:
        active: Of each unit, whether any output was not 0.
        slopes: Of each unit, whether any slope was not 0; None where a call had no slopes.
        counts: Outputs that are 0, outputs that are not finite.
        cells: Of the histogram of inputs.
        moments: Sum and sum of squares of the outputs, then of the inputs.
        least: Smallest input.
        most: Largest input.
        samples: Values of each unit.
    """

    active: Tensor
    slopes: Tensor | None
    counts: Tensor
    cells: Tensor
    moments: Tensor
    least: Tensor
    most: Tensor
    samples: int = 0

    @classmethod
    def empty(cls, units: int, device: torch.device) -> _Sums:
        """Return what is kept before the first call."""

        def zeros(count: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(count, dtype=dtype, device=device)

        wide = wide_dtype(device)
        return cls(
            active=zeros(units, torch.bool),
            slopes=zeros(units, torch.bool),
            counts=zeros(2, torch.int64),
            cells=zeros(CELLS, torch.int64),
            moments=zeros(4, wide),
            least=torch.full((1,), math.inf, dtype=wide, device=device),
            most=torch.full((1,), -math.inf, dtype=wide, device=device),
        )

    def add(self, x: Tensor, output: Tensor, slope: Tensor | None) -> None:
        """Take in one call."""
        silent = output == 0
        self.active |= ~_all_by_unit(silent)
        self.slopes = None if self.slopes is None or slope is None else self.slopes | ~_all_by_unit(slope == 0)
        finite_output, finite = (values.nan_to_num(0.0, 0.0, 0.0) for values in (output, x))
        changed, changed_inputs = (finite_output != output).sum(), (finite != x).sum()
        self.counts += torch.stack([silent.sum(), changed])
        self.cells += counted(finite)
        # What was not finite was counted as zero.
        self.cells[_ZERO] -= changed_inputs
        wide = self.moments.dtype
        self.moments += torch.stack([*_moments(finite_output, wide), *_moments(finite, wide)])
        self.least = torch.minimum(self.least, x.nan_to_num(*[math.inf] * 3).amin().to(wide))
        self.most = torch.maximum(self.most, x.nan_to_num(*[-math.inf] * 3).amax().to(wide))
        self.samples += output.numel() // len(self.active)

    def packed(self) -> Tensor:
        """Return all numbers as one vector, for one transfer."""
        dead = self.active if self.slopes is None else self.active | self.slopes
        parts = [(~dead).sum()[None], self.counts, self.moments, self.least, self.most, self.cells]
        return torch.cat([part.to(self.moments.dtype) for part in parts])

    def health(self, numbers: list[float]) -> Health:
        """Return the results.

        Args:
            numbers: Those of `packed`.
        """
        dead, zeros, nonfinite, total, squares, input_total, input_squares, least, most, *cells = numbers
        units = len(self.active)
        outputs = units * self.samples
        finite = outputs - nonfinite
        mean = total / finite if finite else math.nan
        variance = max(0.0, squares / finite - mean**2) if finite else math.nan
        return Health(
            units=units,
            samples=self.samples,
            dead=None if self.slopes is None else dead / units,
            zero=zeros / outputs,
            nonfinite=nonfinite / outputs,
            mean=mean,
            std=math.sqrt(variance),
            inputs=Histogram(tuple(map(int, cells)), least, most, input_total, input_squares),
        )


@dataclass
class Observer:
    """Hooks on activations, attached only while they are wanted.

    Args:
        activations: By the names of their results; further calls within one run get `#2`, `#3` and so on.
    """

    activations: Mapping[str, nn.Module]
    _sums: dict[str, dict[tuple[int, int], _Sums]] = field(default_factory=dict)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Observe what runs from now on; calls of a module are numbered from here."""
        self.detach()
        for name, activation in self.activations.items():
            probe = _Probe(activation, self._sums.setdefault(name, {}))
            self._handles += [
                activation.register_forward_pre_hook(probe.before, with_kwargs=True),
                activation.register_forward_hook(probe.after),
            ]

    def detach(self) -> None:
        """Take all hooks away; what was observed is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> dict[str, Health]:
        """Return what was observed since the last time, by the names of the activations, and forget it."""
        labelled = {
            name if not number else f"{name}#{number + 1}": sums
            for name, calls in self._sums.items()
            for number, sums in enumerate(calls.values())
        }
        self._sums.clear()
        numbers = fetch({label: sums.packed() for label, sums in labelled.items()})
        return {label: sums.health(numbers[label]) for label, sums in labelled.items()}


class _Probe:
    """The hooks of one activation.

    Args:
        activation: Its module.
        sums: Where to add, by number of the call and of units.
    """

    def __init__(self, activation: nn.Module, sums: dict[tuple[int, int], _Sums]) -> None:
        self.activation = activation
        self.sums = sums
        self.calls = 0
        self.x: Tensor | None = None

    def before(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keep the input until the output is there: a copy where it may be overwritten by then."""
        self.x = None
        x = next(iter((*arguments, *named.values())), None)
        # A replica, as of nn.DataParallel, runs in a thread of its own.
        if module is self.activation and _is_plain(x) and not _is_transformed():
            self.x = x.detach().clone() if getattr(module, "inplace", False) else x.detach()

    def after(self, module: nn.Module, _: Any, output: Any) -> None:
        """Add what came out."""
        x, self.x = self.x, None
        if x is None or not _is_plain(output):
            return
        # In inference mode sums would become tensors that cannot be added to outside of it.
        with torch.inference_mode(mode=False), torch.no_grad():
            slope = slope_of(module, x) if has_slope(module) else None
            key = (self.calls, output.shape[axis] if (axis := unit_axis(output)) is not None else 1)
            if key not in self.sums:
                self.sums[key] = _Sums.empty(key[1], output.device)
            self.sums[key].add(x, output.detach(), slope)
        self.calls += 1


def unit_axis(x: Tensor) -> int | None:
    """Return the dimension of the units of an activation: see `Health`; None where all elements are one unit."""
    return None if x.dim() < 2 else usual_axis(x.shape)


def slope_of(module: nn.Module, x: Tensor) -> Tensor:
    """Return the derivative of an activation of single elements at each element of its input, of the same shape."""
    x = x.clone() if x.is_inference() else x.detach()
    # Hooks of the surroundings, such as checkpointing's, count what is saved; they see nothing of this.
    with torch.enable_grad(), saved_tensors_hooks(_same, _same):
        x.requires_grad_()
        output = module.forward(x.clone() if getattr(module, "inplace", False) else x)
        if not output.requires_grad:
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(output, x, torch.ones_like(output), allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating dtype of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def fetch(vectors: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Return the entries of vectors, by their names, in one transfer for each device."""
    values: dict[str, list[float]] = {}
    for device in {vector.device for vector in vectors.values()}:
        here = {name: vector for name, vector in vectors.items() if vector.device == device}
        numbers = iter(torch.cat(list(here.values())).tolist())
        values |= {name: [next(numbers) for _ in range(len(vector))] for name, vector in here.items()}
    return values


def _all_by_unit(mask: Tensor) -> Tensor:
    axis = unit_axis(mask)
    others = [dim for dim in range(mask.dim()) if dim != axis]
    # The smallest of truth values is several times faster than `all`.
    return mask.amin(dim=others).reshape(-1)


def _moments(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the sum and the sum of squares."""
    return x.sum(dtype=dtype), torch.linalg.vector_norm(x, dtype=dtype).square()


def _is_plain(x: Any) -> TypeGuard[Tensor]:
    return (
        type(x) in {Tensor, nn.Parameter}
        and x.is_floating_point()
        and x.layout == torch.strided
        and not x.is_meta
        and x.numel() > 0
    )


def _is_transformed() -> bool:
    """Whether a call is none of the model's own: recomputed in a backward pass, traced, compiled or vectorised."""
    return (
        torch._C._current_graph_task_id() != -1
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def _same(x: Tensor) -> Tensor:
    return x
