"""Observes activations while a model runs, and keeps a few sums for each unit and no activation itself.

Modules are seen by hooks, functions by a mode; both are there only while something is observed. They ask nothing of the
device, change nothing in the model and draw no random numbers.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._diagnose.units.functions import Expressions, Frame, Functions
from softknee._diagnose.units.fused import Common, Fused, Record, Shifts, common, flat, fuse
from softknee._diagnose.units.places import per_unit, pick, picks_of
from softknee._diagnose.units.slopes import slope_of, steepest
from softknee._diagnose.units.sums import Sums, by_unit, wide
from softknee._surgery.untouched import LOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeGuard

    from torch.utils.hooks import RemovableHandle

    from softknee._diagnose.units.places import Picks, Target

# Of a site, in one call, at most as many values are taken where all are wanted.
MOST = 65_536


@dataclass
class Seen:
    """An input, until the output is there.

    Attributes:
        target: The place.
        name: Of its results.
        z: The chosen values, a copy.
        shape: Of the whole input.
        axis: Dimension of the units.
        picks: Which values were chosen.
    """

    target: Target
    name: str
    z: Tensor
    shape: torch.Size
    axis: int | None
    picks: Picks


class Observer:
    """Sees what happens at some places.

    Args:
        model: The model that runs.
        targets: The places.
        values: Of each unit, in one call, at most as many are taken, to be summed later, all at once; None for as many
            as all units together may have, 65,536, and to sum them right away.
        gradients: Whether to take the derivatives of what is differentiated by the outputs as well.
    """

    def __init__(
        self, model: nn.Module, targets: Sequence[Target], *, values: int | None = None, gradients: bool = False
    ) -> None:
        self.model = model
        self.targets = tuple(targets)
        self.values = values
        self.gradients = gradients
        # What gradients are multiplied by, which makes them those of a sum over the samples.
        self.factor = 1.0
        # What inputs are like, and where their units are.
        self.inputs: dict[str, tuple[Tensor, int | None]] = {}
        self._sums: dict[tuple[str, int], Sums] = {}
        self._records: list[Record] = []
        self._shifts: Shifts = {}
        self._steepest: dict[str, Tensor] = {}
        # What is written out in a model stays so, and takes long to compare.
        self._written: dict[str, Common | None] = {}
        self._trained = [target.name for target in self.targets if _is_trained(target)]
        self._turn = -1
        self._handles: list[RemovableHandle] = []
        self._inside: list[Seen | None] = []
        self._looks = LOOKS.depth
        self._modules: dict[nn.Module, list[Target]] = {}
        for target in self.targets:
            if target.module is not None:
                self._modules.setdefault(target.module, []).append(target)
        self._expressions = Expressions(self.targets, model)
        self._mode = Functions(self) if self._expressions.names else None
        self._frames: list[Frame] = [Frame(model, "")]
        # Where a module acts at several places, who calls it must be known.
        several = any(len(places) > 1 for places in self._modules.values())
        self._needs_frames = self._mode is not None or several

    def attach(self) -> None:
        """Observe what modules do from now on; calls are numbered from here."""
        self.detach()
        self._turn += 1
        for name in self._trained:
            self._steepest.pop(name, None)
        self.begin()
        for module in self._modules:
            self._handles += [
                module.register_forward_pre_hook(self._before, with_kwargs=True),
                module.register_forward_hook(self._after, always_call=True),
            ]
        for module in self.model.modules() if self._needs_frames else ():
            if module is not self.model and module not in self._modules and not _is_scripted(module):
                self._handles += [
                    module.register_forward_pre_hook(self._enter),
                    module.register_forward_hook(self._leave, always_call=True),
                ]

    def detach(self) -> None:
        """Take all hooks away; what was observed is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin(self) -> None:
        """A run of the model begins: nothing of an earlier one is open."""
        self._frames = [Frame(self.model, "")]
        self._inside = []
        # What looks at the model from now on is none of its runs; the observer may be part of a look itself.
        self._looks = LOOKS.depth

    def open(self) -> None:
        """See functions as well, in this thread, until `close`."""
        if self._mode is not None:
            self._mode.__enter__()

    def close(self) -> None:
        """See functions no longer."""
        if self._mode is not None:
            self._mode.__exit__(None, None, None)

    def take(self) -> list[Fused]:
        """Return the sums of what was observed since the last time, and forget it."""
        sums, self._sums = self._sums, {}
        records, self._records = self._records, []
        whole = [Fused((name,), (one.units,), one.packed()) for (name, _), one in sums.items()]
        with _outside(None):
            return [*whole, *fuse(records, self._shifts)]

    def forget(self) -> None:
        """Forget what was observed since the last time."""
        self._sums, self._records = {}, []

    @property
    def held(self) -> int:
        """How many inputs are held that were not summed yet."""
        return sum(one.z.numel() for one in self._records)

    # Hooks of modules.

    def _enter(self, module: nn.Module, _: Any) -> None:
        if not self._inside:
            self._frames.append(Frame(module, ""))

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        if not self._inside and self._frames[-1].module is module:
            self._frames.pop()

    def _before(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = next(iter((*arguments, *named.values())), None)
        # A replica, as of nn.DataParallel, runs in a thread of its own, and is another module.
        seen = None
        own = not self._inside and LOOKS.depth == self._looks
        if own and module in self._modules and _is_plain(x) and not is_transformed():
            found = self._target(module)
            seen = None if found is None else self.see(*found, x)
        self._inside.append(seen)

    def _after(self, module: nn.Module, _: Any, output: Any) -> None:
        seen = self._inside.pop() if self._inside else None
        if seen is not None:
            self.add(seen, output)
        elif not self._inside and module in self._modules:
            self._again(module, output)

    def _target(self, module: nn.Module) -> tuple[Target, str] | None:
        """Return which place a call of a module is, and the name of its results."""
        frame = self._frames[-1]
        places = self._modules[module]
        turn = frame.turns[places[0].name]
        frame.turns[places[0].name] += 1
        if places[0].place is None:
            return places[0], places[0].name + (f"#{turn}" if turn else "")
        if len(places) > 1:
            here = [one for one in places if one.place and self._owner(one) is frame.module]
            # An expert calls its one place as often as the data wills.
            places = here if len(here) < 2 else here[turn : turn + 1]
        return (places[0], places[0].name) if places else None

    def _owner(self, target: Target) -> nn.Module | None:
        return self.model.get_submodule(target.place.owner) if target.place else None

    def _again(self, module: nn.Module, output: Any) -> None:
        """Take the gradient where a reentrant checkpoint runs again, for its first run had none."""
        places = self._modules[module]
        again = torch._C._current_graph_task_id() != -1 and len(places) == 1 and _is_plain(output)
        if again and output.requires_grad and self.gradients:
            name, axis = places[0].name, places[0].axis(output)
            held: list[Record | Sums] = [one for one in self._records if one.name == name]
            held += [one for key, one in self._sums.items() if key == (name, _units(output, axis))]
            if len(held) == 1:
                self._follow(held[0], output, axis, picks_of(output, axis, self._most(output, axis), self._turn))

    # What happens at a place.

    def see(self, target: Target, name: str, x: Any) -> Seen | None:
        """Keep what is needed of an input: a copy, for it may be overwritten."""
        if not _is_plain(x):
            return None
        with _outside(self._mode):
            axis = target.axis(x)
            picks = picks_of(x, axis, self._most(x, axis), self._turn)
            z = pick(x.detach(), picks)
            return Seen(target, name, z if picks else z.clone(), x.shape, axis, picks)

    def add(self, seen: Seen, output: Any) -> None:
        """Add what came out."""
        if not _is_plain(output):
            return
        with _outside(self._mode):
            same = output.shape == seen.shape
            axis = seen.axis if same else seen.target.axis(output)
            picks = seen.picks if same else picks_of(output, axis, self._most(output, axis), self._turn)
            h = pick(output.detach(), picks)
            if seen.name not in self.inputs:
                self.inputs[seen.name] = (torch.empty_like(seen.z[:1] if seen.z.dim() else seen.z), seen.axis)
            slopes, top = self._slopes(seen) if same else (None, None)
            taker: Record | Sums
            if self.values is None:
                taker = self._sums.setdefault((seen.name, _units(output, axis)), Sums())
                taker.add(wide(by_unit(seen.z, seen.axis)), wide(by_unit(h, axis)))
                taker.add_slopes(wide(by_unit(slopes, seen.axis)) if isinstance(slopes, Tensor) else None, top)
            else:
                own = flat(slopes, seen.axis) if isinstance(slopes, Tensor) else slopes
                # A copy: the output may be overwritten.
                h = flat(h if picks else h.clone(), axis)
                taker = Record(seen.name, flat(seen.z, seen.axis), h, own, None if top is None else top[..., 0])
                self._records.append(taker)
            if self.gradients and output.requires_grad:
                self._follow(taker, output, axis, picks)

    def _most(self, x: Tensor, axis: int | None) -> int:
        return per_unit(x.shape, axis, MOST) if self.values is None else self.values

    def _slopes(self, seen: Seen) -> tuple[Tensor | Common | None, Tensor | None]:
        """Return slopes at the chosen inputs, or how to find them, and the steepest one; None where there are none."""
        target = seen.target
        if not target.has_slope:
            return None, None
        try:
            if seen.name not in self._steepest:
                self._steepest[seen.name] = steepest(target.function, seen.z, seen.axis)
            return self._common(target) or slope_of(target.function, seen.z), self._steepest[seen.name]
        except Exception:  # anybody's function may raise anything at an input it was not made for
            return None, None

    def _common(self, target: Target) -> Common | None:
        """Return the function at a place as one that other places have too, None if it is summed up right away."""
        if self.values is None:
            return None
        if target.module is not None:
            return common(target.module)
        if target.name not in self._written:
            self._written[target.name] = common(target.function)
        return self._written[target.name]

    def _follow(self, taker: Record | Sums, output: Tensor, axis: int | None, picks: Picks) -> None:
        output.register_hook(partial(_add_gradient, taker, axis, picks, self.factor))

    # What the mode asks.

    @property
    def frame(self) -> Frame | None:
        """The innermost running module, None inside an activation or where nothing is the model's own."""
        own = not self._inside and LOOKS.depth == self._looks
        return self._frames[-1] if own and not is_transformed() else None

    @property
    def expressions(self) -> Expressions:
        """The functions to see."""
        return self._expressions


def is_transformed() -> bool:
    """Whether a call is none of the model's own: recomputed in a backward pass, traced, compiled or vectorised."""
    return (
        torch._C._current_graph_task_id() != -1
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def _add_gradient(taker: Record | Sums, axis: int | None, picks: Picks, factor: float, g: Tensor) -> None:
    if not _is_plain(g):
        return
    with torch.no_grad():
        chosen = pick(g.detach(), picks)
        chosen = chosen if factor == 1.0 else chosen * factor
        if isinstance(taker, Sums):
            taker.add_gradient(wide(by_unit(chosen, axis)))
        else:
            taker.gradients.append(flat(chosen if picks else chosen.clone(), axis))


@contextlib.contextmanager
def _outside(mode: Functions | None) -> Iterator[None]:
    """Compute something that neither gradients nor a mode see."""
    # In inference mode sums would become tensors that cannot be added to outside of it.
    plain = torch.inference_mode(mode=False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()
    with plain, torch.no_grad(), contextlib.nullcontext() if mode is None else torch._C.DisableTorchFunction():
        yield


def _units(x: Tensor, axis: int | None) -> int:
    return 1 if axis is None else x.shape[axis]


def _is_trained(target: Target) -> bool:
    return target.module is not None and next(target.module.parameters(), None) is not None


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _is_plain(x: Any) -> TypeGuard[Tensor]:
    return (
        type(x) in {Tensor, nn.Parameter}
        and x.is_floating_point()
        and x.layout == torch.strided
        and not x.is_meta
        and x.numel() > 0
    )
