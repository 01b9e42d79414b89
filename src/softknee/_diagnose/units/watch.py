"""Watches a training: every n-th run of a model is observed, without a change to the loop."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from softknee._diagnose.units.fused import Fused, collected, to_cpu
from softknee._diagnose.units.history import History, Shape, Shapes, Values, period
from softknee._diagnose.units.modules import check_every, check_not_compiled
from softknee._diagnose.units.observer import Observer, is_transformed
from softknee._diagnose.units.places import Target, targets_by_class, targets_of
from softknee._diagnose.units.site_health import SiteHealth, coverage_of
from softknee._diagnose.units.slopes import curve_of
from softknee._diagnose.units.summary import summary
from softknee._diagnose.units.sums import gathered
from softknee._diagnose.units.trained import noted, numbers, trained
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._surgery.find import checked, look
from softknee._surgery.places import Unseen
from softknee._surgery.untouched import LOOKS

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

    from softknee._diagnose.units.sums import Sums

EVERY = 10
# Of each unit, in one observed step.
VALUES = 16
# So many inputs are held before they are summed.
HELD = 2**18
# Observed steps that are one period of the history, and that states are concluded from.
PERIOD = 20
SPAN, POINTS = 5.0, 81
# Parameters with more values are noted as minimum, mean and maximum.
MOST_VALUES = 32
_DISTRIBUTED = "parameters are sharded over processes; only activation modules are seen"
_FAILED = "the activations could not be looked for; only activation modules are seen"


class Watch:
    """What `softknee.watch` returns; use it in a `with` block.

    Args:
        model: See `watch`.
        every: See `watch`.
        gradients: See `watch`.
    """

    def __init__(self, model: nn.Module, *, every: int = EVERY, gradients: bool = True) -> None:
        check_every(every)
        inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.model = checked(inner)
        check_not_compiled(inner, "watch")
        self.every = every
        self.gradients = gradients
        self.steps = 0
        self._targets: tuple[Target, ...] = ()
        self._unseen: tuple[Unseen, ...] = ()
        self._trained: dict[tuple[str, str], nn.Parameter] = {}
        self._modules: tuple[nn.Module, ...] = ()
        self._observer: Observer | None = None
        self._handles: list[RemovableHandle] = []
        self._running = False
        self._step = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; steps are counted on."""
        self.observed = 0
        if self._observer is not None:
            self._observer.forget()
        self._is_new = False
        self._recent: deque[tuple[int, list[Fused]]] = deque()
        self._histories: dict[str, History] = {}
        self._values: dict[tuple[str, str], Values] = {}
        self._noted: dict[tuple[str, str], Tensor] = {}
        self._shapes: dict[str, Shapes] = {}

    def __enter__(self) -> Watch:  # noqa: PYI034  (`Self` is newer than the oldest Python)
        """Begin to watch.

        Raises:
            UsageError: The model was compiled in the meantime, or this watch is on already.
        """
        if self._handles:
            raise UsageError("this watch is on already")
        check_not_compiled(self.model, "watch")
        self._handles = [self.model.register_forward_pre_hook(self._before, with_kwargs=True)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the model without hooks; what was seen is kept."""
        self._pause()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._collect()
        self._draw(self._step)

    # Around the runs of the model.

    def _before(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        # Most runs end here, and must not take longer than they would.
        if LOOKS.depth or self._running or torch._C._current_graph_task_id() != -1:
            return
        if self._is_new:
            self._collect()
        if not module.training:
            return
        step, self.steps = self.steps, self.steps + 1
        if step % self.every or is_transformed():
            return
        modules = tuple(self.model.modules())
        if self._observer is None or modules != self._modules:
            # Of activations that were swapped in the meantime nothing is known from before.
            self._recent.clear()
            self._modules, self._observer = modules, self._look(arguments, named)
        self._step = step
        self.observed += 1
        self._note()
        self._observer.attach()
        self._handles.append(module.register_forward_hook(self._after, always_call=True))
        self._observer.open()
        self._running = self._is_new = True

    def _after(self, *_: Any) -> None:
        # Another watch may look while this one's run begins.
        if not LOOKS.depth:
            # Hooks stay until the next run: a checkpoint may come back in the backward pass.
            self._pause()

    def _pause(self) -> None:
        if self._running and self._observer is not None:
            self._running = False
            self._observer.close()
            for handle in self._handles[1:]:
                handle.remove()
            del self._handles[1:]

    def _look(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Observer:
        """Find the activations by a run of the model that leaves nothing behind."""
        # What is sharded must not be run within its own run.
        reason = _DISTRIBUTED if any(hasattr(one, "full_tensor") for one in self.model.parameters()) else ""
        try:
            found = None if reason else look(self.model, arguments, named)
        except Exception as error:  # what a look cannot do must not end a training
            found, reason = None, f"{_FAILED} ({type(error).__name__}: {error})"
        if found is None:
            self._unseen, self._targets = (Unseen("", reason),), targets_by_class(self.model)
        else:
            self._unseen, self._targets = found.sites.unseen, targets_of(found, self.model)
        self._trained = trained(self._targets)
        return Observer(self.model, self._targets, values=VALUES, gradients=self.gradients)

    def _collect(self) -> None:
        """Take what the last observed step has left, and the hooks away."""
        if self._observer is None or self._running:
            return
        self._observer.detach()
        if not self._is_new:
            return
        self._is_new = False
        for (site, parameter), values in numbers(self._noted).items():
            summary = len(values) > 1 and self._trained[site, parameter].numel() > MOST_VALUES
            self._values.setdefault((site, parameter), Values(site, parameter, summary)).add(self._step, values)
        self._noted = {}
        ends = self.observed % PERIOD == 0
        if ends or self._observer.held > HELD:
            self._sum()
        if ends and self._recent:
            for name, one in self._merged().items():
                self._histories.setdefault(name, History()).add(period(self._step, one))
        if self.observed & (self.observed - 1) == 0:
            self._draw(self._step)

    def _sum(self) -> None:
        """Sum what is held, those of several steps at once, for that is cheaper."""
        found = self._observer.take() if self._observer is not None else []
        if found:
            self._recent.append((self.observed, to_cpu(found)))
        while self._recent and self._recent[0][0] <= self.observed - PERIOD:
            self._recent.popleft()

    def _merged(self) -> dict[str, Sums]:
        """Return what the last steps have seen together."""
        return collected([one for _, parts in self._recent for one in parts])

    def _note(self) -> None:
        """Note the parameters of activations as a step begins."""
        self._noted = {name: noted(one, MOST_VALUES) for name, one in self._trained.items()}

    def _draw(self, step: int) -> None:
        """Note the shapes of activations with parameters."""
        x = torch.linspace(-SPAN, SPAN, POINTS)
        for target in self._targets:
            if target.module is None or not target.has_slope or not any(True for _ in target.module.parameters()):
                continue
            like, axis = self._observer.inputs.get(target.name, (None, None)) if self._observer else (None, None)
            if like is None:
                continue
            y = curve_of(target.function, like, axis, -SPAN, SPAN, POINTS)
            shapes = self._shapes.setdefault(target.name, Shapes(tuple(x.tolist())))
            shapes.add(Shape(step, tuple(y.tolist())))

    # What was seen.

    def sites(self, *, together: bool = False) -> tuple[SiteHealth, ...]:
        """Return how the units did in the last observed steps, at most 20 of them.

        Args:
            together: Merge what all processes have seen; all must call it.
        """
        self._collect()
        self._sum()
        found = gathered(self._merged()) if together else self._merged()
        return tuple(
            SiteHealth(target, found[target.name], gradients=self.gradients)
            for target in self._targets
            if target.name in found
        )

    def to_dict(self, *, together: bool = False) -> dict[str, Any]:
        """Return all that was seen as plain data.

        Args:
            together: Merge the states of what all processes have seen; all must call it.

        Returns:
            `every`, `steps`, `observed`; `sites` as in a diagnosis, each with `steps`, `firing` by period and unit
            (`shown` are the indices), `dead`, `births` and `revivals` by period; `trainable` parameters with their
            values over the steps; `shapes` of trained activations; `coverage`.
        """
        sites = self.sites(together=together)
        return {
            "schema": 1,
            "every": self.every,
            "steps": self.steps,
            "observed": self.observed,
            "sites": [{**one.to_dict(), **self._histories.get(one.name, History()).to_dict()} for one in sites],
            "trainable": [one.to_dict() for one in self._values.values()],
            "shapes": {name: one.to_dict() for name, one in self._shapes.items()},
            "coverage": coverage_of(self._targets, [site.name for site in sites], self._unseen),
        }

    def summary(self, *, together: bool = False) -> str:
        """Return a table of the states in the last observed steps.

        Args:
            together: Merge what all processes have seen; all must call it.
        """
        return summary(self.sites(together=together), self.steps, self.observed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict()` to a file of JSON, which is there as a whole or not at all.

        Args:
            path: The file; its folder is made if it is missing.
        """
        write_atomic(path, json.dumps(self.to_dict(), allow_nan=False))

    def __repr__(self) -> str:
        return self.summary()


def watch(model: nn.Module, *, every: int = EVERY, gradients: bool = True) -> Watch:
    """Watch the activations of a model while it is trained.

    Within the `with` block every `every`-th run of the model in training mode is observed: up to 16 values of each
    unit. The loop stays as it is, and training, random numbers included, goes on exactly as without; afterwards the
    model has no hooks. At the first run, and where modules were exchanged, the activations are looked for, by one more
    run that leaves nothing behind. What `swap`, `sites`, `calibrate`, `diagnose` or another watch run is no step.

    Args:
        model: Runs as written. Of a `DistributedDataParallel` the model in it is watched.
        every: Runs 0, `every`, 2 `every` and so on are observed; batches whose gradients are added up count each.
        gradients: Whether to take the gradients by the outputs of activations as well.

    Returns:
        A context manager with `summary()`, `to_dict()`, `save(path)` and `reset()`, during the block and after it.

    Raises:
        UsageError: The model is no module, scripted or compiled.
        OptionError: `every` is no positive whole number.
    """
    return Watch(model, every=every, gradients=gradients)
