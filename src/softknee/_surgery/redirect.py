"""Has a module call other activations in the place of functions, or in turn, without a change of its code."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from softknee._errors import UsageError
from softknee._surgery.operations import functions, takes_expert

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._surgery.places import Place

# Attribute of a module that says what it calls instead.
PLAN = "_softknee_plan"


_EAGER_ONLY = (
    "torch.relu_ and functions like it cannot be replaced where a compiler runs them; write x.relu_() or F.relu(x)"
)


class _Running(threading.local):
    """The modules that run in this thread, of those that redirect calls and those inside them."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []


_running = _Running()


class Turns(nn.ModuleList):
    """Activations that take turns at a place where one used to be called several times."""

    turn: int | None = 0

    def restart(self) -> None:
        """Begin with the first."""
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        """Apply the one whose turn it is.

        Raises:
            UsageError: All have had their turns.
        """
        turn = self.turn or 0
        if turn >= len(self):
            raise UsageError(
                f"an activation is called {turn + 1} times here, but was called {len(self)} times at the swap"
            )
        self.turn = turn + 1
        result: Tensor = self[turn](x)
        return result


class Experts(nn.ModuleList):
    """Activations of a mixture of experts, one for each."""

    expert: int | Tensor | None = None

    def restart(self) -> None:
        """Wait to be told which expert is at work."""
        self.expert = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply that of the expert at work.

        Raises:
            UsageError: The experts do not run one by one.
        """
        if self.expert is None:
            raise UsageError(NOT_ONE_BY_ONE)
        result: Tensor = self[int(self.expert)](x)
        return result


NOT_ONE_BY_ONE = (
    "one activation for each expert needs the experts to run one by one, "
    'in transformers by `model.set_experts_implementation("eager")`'
)


class Plan:
    """What a module calls instead: plain data, copied and pickled with the module.

    Attributes:
        ends: Name of the activation that gives the result of a call of a function, by the function and its occurrence.
        sources: Names of activations and the argument that is their input, by the function and its occurrence.
        skipped: Calls whose results nothing needs any more.
        in_place: Names of activations whose result must also overwrite their input.
        turns: Paths of `Turns` inside the module.
        experts: Paths of `Experts` inside the module.
        by_expert: Whether calls are counted for each expert from the beginning.
        eager_only: Whether compilers would miss a call.
        functions: Those that matter, with their names.
    """

    def __init__(self) -> None:
        self.ends: dict[tuple[str, int], str] = {}
        self.sources: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self.skipped: set[tuple[str, int]] = set()
        self.in_place: set[str] = set()
        self.turns: list[str] = []
        self.experts: list[str] = []
        self.by_expert = False
        self.eager_only = False
        self.functions: tuple[tuple[Callable[..., Any], str], ...] = ()

    def add(self, name: str, place: Place) -> None:
        """Have an activation act in the place of functions.

        Args:
            name: Of the activation in the module.
            place: Of the functions.
        """
        function, occurrence, argument = place.source or (place.operation, place.occurrence, 0)
        self.ends[place.operation, place.occurrence] = name
        self.sources.setdefault((function, occurrence), []).append((name, argument))
        self.skipped.update(place.inner)
        self.by_expert = self.by_expert or place.experts > 0
        self.eager_only = self.eager_only or place.eager_only
        if place.in_place:
            self.in_place.add(name)
        self._look_up()

    def add_experts(self, path: str) -> None:
        """Have activations of experts told which expert is at work.

        Args:
            path: Of them in the module.
        """
        self.experts.append(path)
        self.by_expert = True
        self._look_up()

    def restart(self, owner: nn.Module) -> None:
        """Have activations that take turns, or that belong to experts, begin anew.

        Args:
            owner: The module with this plan.
        """
        for path in (*self.turns, *self.experts):
            cast("Turns | Experts", owner.get_submodule(path)).restart()

    def _look_up(self) -> None:
        """Look up the functions that matter."""
        names = {name for name, _ in (*self.ends, *self.sources, *self.skipped)}
        names |= {"getitem"} if self.by_expert else set()
        self.functions = tuple((function, name) for name in sorted(names) for function in functions(name))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "functions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look_up()


class Redirect(TorchFunctionMode):
    """Looks at the functions that a module calls, and replaces some.

    Args:
        owner: The module.
        plan: Its plan.
    """

    def __init__(self, owner: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.owner = owner
        self.plan = plan
        self.counts: dict[str, int] = {}
        self.inputs: dict[str, Tensor] = {}
        self.expert: int | Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, or the activation in its place."""
        if _running.modules[-1] is self.owner and args and isinstance(args[0], Tensor):
            # One by one, for a compiler cannot look functions up.
            for function, name in self.plan.functions:
                if func is function:
                    return self._call(name, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "getitem":
            if takes_expert(self.owner, args) and args[1] is not self.expert:
                self.expert = args[1]
                self.counts.clear()
                for path in self.plan.experts:
                    self.owner.get_submodule(path).expert = args[1]
        elif args[0].is_floating_point():
            call = (name, self.counts.get(name, 0))
            self.counts[name] = call[1] + 1
            for activation, argument in self.plan.sources.get(call, ()):
                self.inputs[activation] = args[argument]
            if call in self.plan.ends:
                return self._instead(self.plan.ends[call])
            if call in self.plan.skipped:
                return args[0]
        return func(*args, **kwargs)

    def _instead(self, activation: str) -> Tensor:
        x = self.inputs.pop(activation)
        module = self.owner.get_submodule(activation)
        if activation in self.plan.in_place:
            # A copy, for what is computed must not change under its own gradient.
            return x.copy_(module(x.clone()))
        result: Tensor = module(x)
        return result


def enter(module: nn.Module, _: Any) -> None:
    """Note that a module inside another runs; a hook."""
    if _running.modules:
        _running.modules.append(module)


def leave(module: nn.Module, _: Any, __: Any) -> None:
    """Note that it has run; a hook."""
    if _running.modules and _running.modules[-1] is module:
        _running.modules.pop()


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def redirecting(base: type[nn.Module]) -> type[nn.Module]:
    """Return a class whose instances are those of another, but call what their plan says, the same one each time."""
    if base not in _classes:
        _classes[base] = _make_class(base)
    return _classes[base]


def _make_class(base: type[nn.Module]) -> type[nn.Module]:
    class Redirecting(base):  # type: ignore[valid-type, misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            plan: Plan = getattr(self, PLAN)
            if plan.eager_only and torch.compiler.is_compiling():
                raise UsageError(_EAGER_ONLY)
            depth = len(_running.modules)
            _running.modules.append(self)
            plan.restart(self)
            try:
                if not plan.functions:
                    return super().forward(*args, **kwargs)
                with Redirect(self, plan):
                    return super().forward(*args, **kwargs)
            finally:
                while len(_running.modules) > depth:
                    _running.modules.pop()
                # So that the next run, and a compiler that looks at it, finds the same.
                plan.restart(self)

        def __reduce_ex__(self, _: Any) -> Any:
            state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
            return _bare, (base,), state

    Redirecting.__name__, Redirecting.__qualname__ = base.__name__, base.__qualname__
    Redirecting.__module__, Redirecting.__doc__ = base.__module__, base.__doc__
    return Redirecting


def _bare(base: type[nn.Module]) -> nn.Module:
    """Return an instance of a redirecting class without its state, as pickle and copies need it."""
    made = redirecting(base)
    return made.__new__(made)


def base_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module as its author wrote it."""
    kind = type(module)
    return kind.__mro__[1] if PLAN in module.__dict__ else kind
