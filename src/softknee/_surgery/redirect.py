"""Has a module call other activations in the place of functions, or in turn, without a change of its code."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from softknee._errors import UsageError
from softknee._surgery.operations import functions, positional, takes_expert

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from softknee._surgery.places import Place

# Attribute of a module that says what it calls instead.
PLAN = "_softknee_plan"


_EAGER_ONLY = (
    "torch.relu_, F.tanh, F.hardswish and functions like them cannot be replaced where a compiler runs them; "
    "write x.relu_(), x.tanh(), nn.Hardswish()"
)
_TRACED = (
    "torch.fx does not show x.relu() and other methods to what replaces them where it traces; trace first, then swap, "
    "or use torch.export"
)


class _Running(threading.local):
    """What runs in this thread: runs of modules that redirect calls, and the modules that were entered in them."""

    def __init__(self) -> None:
        self.stack: list[nn.Module | Redirect] = []

    def redirect(self) -> Redirect | None:
        """Return the innermost run of a module that redirects calls, None if there is none."""
        for one in reversed(self.stack):
            if isinstance(one, Redirect):
                return one
        return None


_running = _Running()


class Turns(nn.ModuleList):
    """Activations that take turns at a place where one used to be called several times.

    Args:
        activations: In the order of their turns.
        path: Of this list in the module that calls it.
    """

    def __init__(self, activations: Iterable[nn.Module], path: str) -> None:
        super().__init__(activations)
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """Apply the one whose turn it is.

        Raises:
            UsageError: All have had their turns, or it is called from elsewhere.
        """
        run = _running.redirect()
        if run is None:
            raise UsageError(f"activations that take turns at {self.path} act in the forward of their module only")
        turn = run.turns.get(self.path, 0)
        if turn >= len(self):
            raise UsageError(
                f"an activation is called {turn + 1} times here, but was called {len(self)} times at the swap"
            )
        run.turns[self.path] = turn + 1
        result: Tensor = self[turn](x)
        return result


class Experts(nn.ModuleList):
    """Activations of a mixture of experts, one for each."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply that of the expert at work.

        Raises:
            UsageError: The experts do not run one by one.
        """
        run = _running.redirect()
        if run is None or run.expert is None:
            raise UsageError(NOT_ONE_BY_ONE)
        result: Tensor = self[int(run.expert)](*inputs)
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
        skipped: Names of the activations that make the results of calls superfluous.
        values: Names of activations with a second input, and the argument that it is.
        most: How often functions were called in a run at the swap.
        rest: Of functions of which all calls are replaced, the name of the activation for further calls; empty if there
            is none, for each call has its own.
        in_place: Names of activations whose result must also overwrite their input.
        by_expert: Whether calls are counted for each expert from the beginning.
        eager_only: Whether compilers would miss a call.
        functions: Those that matter, with their names.
    """

    def __init__(self) -> None:
        self.ends: dict[tuple[str, int], str] = {}
        self.sources: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self.skipped: dict[tuple[str, int], str] = {}
        self.values: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.rest: dict[str, str] = {}
        self.in_place: set[str] = set()
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
        self.skipped.update(dict.fromkeys(place.inner, name))
        self.by_expert = self.by_expert or place.experts > 0
        self.eager_only = self.eager_only or place.eager_only
        self.most.update((one, max(count, self.most.get(one, 0))) for one, count in place.calls)
        if place.in_place:
            self.in_place.add(name)
        if place.value >= 0:
            self.values[name] = place.value
        self._look_up()

    def close(self, owner: nn.Module, shared: Collection[nn.Module]) -> None:
        """See to further calls of functions of which all are replaced: none may stay as it was and nobody know.

        Args:
            owner: The module with the activations.
            shared: Those that serve several places, and so may serve more.
        """
        for function, count in self.most.items():
            calls = [(function, occurrence) for occurrence in range(count)]
            if function not in self.rest and all(call in self.ends or call in self.skipped for call in calls):
                names = [self.ends.get(call, "") for call in calls]
                found = {owner._modules.get(name) for name in names}
                self.rest[function] = names[0] if len(found) == 1 and found <= set(shared) else ""

    def follow_experts(self) -> None:
        """Have activations of experts told which expert is at work."""
        self.by_expert = True
        self._look_up()

    def _look_up(self) -> None:
        """Look up the functions that matter."""
        names = {name for name, _ in (*self.ends, *self.sources, *self.skipped)}
        names |= {"getitem"} if self.by_expert else set()
        self.functions = functions(names)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "functions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look_up()


class Redirect(TorchFunctionMode):
    """One run of a module: looks at the functions that it calls, and replaces some.

    Args:
        owner: The module.
        plan: Its plan.
    """

    def __init__(self, owner: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.owner = owner
        self.plan = plan
        self.counts: dict[str, int] = {}
        self.turns: dict[str, int] = {}
        self.inputs: dict[str, Tensor] = {}
        self.expert: int | Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, or the activation in its place."""
        args, kwargs = positional(args, kwargs or {})
        if _running.stack[-1] is self and args and isinstance(args[0], Tensor):
            # One by one, for a compiler cannot look functions up.
            for function, name in self.plan.functions:
                if func is function:
                    return self._call(name, func, args, kwargs)
        return func(*args, **kwargs)

    def _call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "getitem":
            if takes_expert(self.owner, args) and args[1] is not self.expert:
                self.expert = args[1]
                self.counts.clear()
        elif args[0].is_floating_point():
            call = (name, self.counts.get(name, 0))
            self.counts[name] = call[1] + 1
            for activation, argument in self.plan.sources.get(call, ()):
                self.inputs[activation] = args[argument]
            if call in self.plan.ends:
                return self._instead(self.plan.ends[call], args, kwargs)
            if call in self.plan.skipped:
                # Itself, by which the next call of the same expression is known.
                return self._input(self.plan.skipped[call], args, kwargs)
            if name in self.plan.rest and call[1] >= self.plan.most[name]:
                self.inputs[self._further(name)] = args[0]
                return self._instead(self._further(name), args, kwargs)
        return func(*args, **kwargs)

    def _further(self, name: str) -> str:
        """Return the activation for more calls of a function than there were at the swap.

        Raises:
            UsageError: There is none.
        """
        if not self.plan.rest[name]:
            raise UsageError(
                f"{type(self.owner).__name__} calls {name} more often than at the swap "
                f"({self.plan.most[name]} in a run); swap with an example in which it does, or, if it is a "
                "function by itself, with shared=True: then one activation serves all calls"
            )
        return self.plan.rest[name]

    def _input(self, activation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return the input of an activation, which those of its calls that are replaced must have.

        Raises:
            UsageError: A call has another one.
        """
        x = self.inputs.get(activation)
        if x is not None and any(one is x for one in (*args, *kwargs.values())):
            return x
        raise UsageError(
            f"{type(self.owner).__name__} does not call the functions that it called at the swap; "
            "swap with an example in the same mode and of the same kind"
        )

    def _instead(self, activation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        x = self._input(activation, args, kwargs)
        del self.inputs[activation]
        module = self.owner.get_submodule(activation)
        if activation in self.plan.in_place:
            # A copy, for what is computed must not change under its own gradient.
            return x.copy_(module(x.clone()))
        result: Tensor = module(x, args[self.plan.values[activation]]) if activation in self.plan.values else module(x)
        return result


def enter(module: nn.Module, _: Any) -> None:
    """Note that a module runs inside one that redirects calls; a hook."""
    if _running.stack:
        _running.stack.append(module)


def leave(module: nn.Module, _: Any, __: Any) -> None:
    """Note that it has run; a hook."""
    if _running.stack and _running.stack[-1] is module:
        _running.stack.pop()


class _Quiet:
    """Keeps classes from being told of a subclass that their author did not write."""

    def __init_subclass__(cls) -> None:
        """Tell nobody."""


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def redirecting(base: type[nn.Module]) -> type[nn.Module]:
    """Return a class whose instances are those of another, but call what their plan says, the same one each time."""
    if base not in _classes:
        _classes[base] = _make_class(base)
    return _classes[base]


def _make_class(base: type[nn.Module]) -> type[nn.Module]:
    # What reads the graph of a module instead of running it, as torch.export does, would see nothing of a plan.
    above: type[nn.Module] = nn.Module if issubclass(base, torch.fx.GraphModule) else base

    class Redirecting(_Quiet, above):  # type: ignore[valid-type, misc]
        _softknee_base = base

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            plan: Plan = getattr(self, PLAN)
            if plan.eager_only and torch.compiler.is_dynamo_compiling():
                raise UsageError(_EAGER_ONLY)
            # A tracer that begins here gives one for all arguments.
            if isinstance(args, torch.fx.Proxy) or any(isinstance(one, torch.fx.Proxy) for one in args):
                raise UsageError(_TRACED)
            depth = len(_running.stack)
            last = _running.stack[-1] if depth else None
            if isinstance(last, Redirect) and last.owner is self:
                # It calls its own forward, without hooks: still the same run.
                return base.forward(self, *args, **kwargs)
            redirect = Redirect(self, plan)
            _running.stack.append(redirect)
            try:
                if not plan.functions:
                    return base.forward(self, *args, **kwargs)
                with redirect:
                    return base.forward(self, *args, **kwargs)
            finally:
                while len(_running.stack) > depth:
                    _running.stack.pop()

        def __reduce_ex__(self, _: Any) -> Any:
            state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
            return _bare, (base,), state

    Redirecting.__name__, Redirecting.__qualname__ = base.__name__, base.__qualname__
    Redirecting.__module__, Redirecting.__doc__ = base.__module__, base.__doc__
    return Redirecting


def _bare(base: type[nn.Module]) -> nn.Module:
    """Return an instance of a redirecting class without its state, as pickle and copies need it."""
    made: nn.Module = object.__new__(redirecting(base))
    return made


def base_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of a module that redirects calls as its author wrote it, None if it has another class by now."""
    base: type[nn.Module] | None = type(module).__dict__.get("_softknee_base")
    return base
