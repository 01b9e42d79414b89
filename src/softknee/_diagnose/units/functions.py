"""Sees activations that are functions, or written out, where a model calls them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from softknee._surgery.observe import occurrence
from softknee._surgery.operations import functions, positional, takes_expert
from softknee._surgery.trace import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from softknee._diagnose.units.observer import Observer, Seen
    from softknee._diagnose.units.places import Target


@dataclass(eq=False)
class Frame(Run):
    """One run of a module.

    Attributes:
        seen: Inputs of activations that have not ended yet, by their names.
    """

    seen: dict[str, Seen | None] = field(default_factory=dict)


class Expressions:
    """Where activations that are no modules begin and end.

    Args:
        targets: All places.
        model: The model.

    Attributes:
        sources: By module, function and occurrence: the places whose input it is given, and as which argument.
        ends: By module, function and occurrence: the place whose output it returns.
        names: The functions that count, with their names.
    """

    def __init__(self, targets: Sequence[Target], model: nn.Module) -> None:
        self.sources: dict[tuple[nn.Module, str, int], list[tuple[Target, int]]] = {}
        self.ends: dict[tuple[nn.Module, str, int], Target] = {}
        names: set[str] = set()
        for target in targets:
            place = target.place
            if target.module is not None or place is None:
                continue
            owner = model.get_submodule(place.owner)
            name, turn, argument = place.source or (place.operation, place.occurrence, 0)
            self.sources.setdefault((owner, name, turn), []).append((target, argument))
            self.ends[owner, place.operation, place.occurrence] = target
            names |= {name, place.operation} | ({"getitem"} if place.experts else set())
        self.names: dict[Callable[..., Any], str] = dict(functions(names)) if names else {}


class Functions(TorchFunctionMode):
    """Tells an observer of the functions that are activations, or begin or end one.

    Args:
        observer: It.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and look at it if it matters."""
        kwargs = kwargs or {}
        name = self.observer.expressions.names.get(func)
        frame = None if name is None else self.observer.frame
        if name is None or frame is None:
            return func(*args, **kwargs)
        args, kwargs = positional(args, kwargs)
        if not (args and isinstance(args[0], Tensor)):
            return func(*args, **kwargs)
        if name == "getitem":
            # The next expert counts its calls from the beginning.
            if takes_expert(frame.module, args) and args[1] is not frame.expert:
                frame.expert = args[1]
                frame.counts.clear()
            return func(*args, **kwargs)
        return self._run(frame, name, func, args, kwargs) if args[0].is_floating_point() else func(*args, **kwargs)

    def _run(
        self, frame: Frame, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = (frame.module, name, occurrence(frame, name))
        frame.counts[name] += 1
        expressions = self.observer.expressions
        for target, argument in expressions.sources.get(call, ()):
            x = args[argument] if argument < len(args) else None
            frame.seen[target.name] = self.observer.see(target, target.name, x)
        result = func(*args, **kwargs)
        end = expressions.ends.get(call)
        seen = None if end is None else frame.seen.pop(end.name, None)
        if seen is not None:
            self.observer.add(seen, result)
        return result
