"""Runs a model once and writes down, in order, what could be part of an activation."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from softknee._surgery.axes import axis_after, usual_axis
from softknee._surgery.operations import (
    ACTIVATIONS,
    CONVOLUTIONS,
    FUSED,
    RESHAPING,
    WATCHED,
    is_in_place,
    name_of,
    takes_expert,
)
from softknee._surgery.probe import kind_by_class, kind_by_test, may_be_activation
from softknee._surgery.redirect import PLAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from softknee._surgery.redirect import Plan

# Why what is called in some way cannot be replaced, by the module whose code stands between.
_BETWEEN = {
    "torch.utils.checkpoint": "it is called inside a checkpointed function, which runs again without its module; "
    "put it into a module of its own",
    "torch._dynamo.eval_frame": "it is called inside a compiled function; swap before compiling",
}
# Where the code of a module is entered.
_ENTRY = "torch.nn.modules.module"


@dataclass(frozen=True)
class Ref:
    """A tensor by its number; each function gives its result a new one."""

    number: int


@dataclass(eq=False)
class Run:
    """One run of the `forward` of a module.

    Attributes:
        module: The module.
        path: Its path in the model.
        counts: How often each function was called in it so far, and each module.
        experts: How many experts it goes through, as far as seen.
        expert: Index of the one at work.
    """

    module: nn.Module
    path: str
    counts: Counter[Any] = field(default_factory=Counter)
    experts: int = 0
    expert: Any = None


@dataclass(eq=False)
class Call:
    """One call of a function or of an activation module.

    Attributes:
        name: Of the function, without underscores; the kind of a module.
        run: In which it was made.
        occurrence: Which call of this function, or of this module, in its run it is.
        arguments: With tensors as `Ref`.
        keywords: With tensors as `Ref`.
        output: Number of the result.
        function: None for a module.
        module: None for a function.
        in_place: Whether it overwrites its input.
        eager_only: Whether compilers do not show the function to modes, as they do not `torch.relu_`.
        hidden: Why it cannot be replaced.
    """

    name: str
    run: Run
    occurrence: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: int = -1
    function: Callable[..., Any] | None = None
    module: nn.Module | None = None
    in_place: bool = False
    eager_only: bool = False
    hidden: str = ""

    @property
    def inputs(self) -> list[int]:
        """Numbers of the tensors it was called with."""
        return [one.number for one in tree_flatten((self.arguments, self.keywords))[0] if isinstance(one, Ref)]


@dataclass
class Trace:
    """What was seen.

    Attributes:
        calls: In order.
        shapes: Of tensors, by their numbers.
        axes: Dimensions of the units, by the numbers of tensors.
        ranges: Smallest and largest element, by the numbers of tensors.
        aliases: Numbers of tensors with the same elements, earlier ones by later ones.
        parameters: Numbers of parameters.
        weighted: Numbers of the outputs of linear layers and convolutions.
        rewritten: Calls that overwrote a tensor which is used again.
        outputs: Numbers of what the model returned.
        used: Numbers of tensors that were used by something else than the calls written down.
        ran: Modules that ran.
        unseen: Reasons by path.
    """

    calls: list[Call] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    axes: dict[int, int] = field(default_factory=dict)
    ranges: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    parameters: set[int] = field(default_factory=set)
    weighted: set[int] = field(default_factory=set)
    rewritten: set[Call] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    ran: set[nn.Module] = field(default_factory=set)
    unseen: dict[tuple[str, str], None] = field(default_factory=dict)


class Observer(TorchFunctionMode):
    """Sees the functions of torch and, through hooks, the modules that a model calls.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trace = Trace()
        self._paths = {module: path for path, module in model.named_modules()}
        self._numbers: Any = WeakIdKeyDictionary()
        self._overwritten: Any = WeakIdKeyDictionary()
        self._count = 0
        self._runs: list[Run] = []
        # Activation modules that are running, with what they were called with.
        self._open: list[tuple[nn.Module, Call | None]] = []
        self._kinds: dict[nn.Module, str | None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and write it down if it may be part of an activation."""
        kwargs = kwargs or {}
        called = getattr(func, "__name__", "")
        name = name_of(func)
        if self._open or not self._runs:
            return func(*args, **kwargs)
        run = self._runs[-1]
        self._notice(args, kwargs)
        if name in FUSED:
            self.trace.unseen[run.path, FUSED[name]] = None
        if name not in WATCHED or not (args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            self._look_for_experts(run, name, args)
            result = func(*args, **kwargs)
            # Who asks for a shape or a dtype does not use the elements.
            if result is None or any(isinstance(one, Tensor) for one in tree_flatten(result)[0]):
                self._use(args, kwargs)
            self._follow(name, args, result)
            return result
        call = Call(
            name, run, _occurrence(run, name), self._refs(args), self._refs(kwargs), function=func, hidden=_hidden()
        )
        run.counts[name] += 1
        self._measure(args[0])
        call.in_place = is_in_place(called, kwargs)
        call.eager_only = called.endswith("_") and func is not getattr(Tensor, called, None)
        original = args[0]
        if call.in_place and name in ACTIVATIONS:
            # Work on a copy shows whether the overwritten tensor is used again under another name.
            args = (original.clone(), *args[1:])
        result = func(*args, **kwargs)
        if args[0] is not original:
            self._overwritten[original] = call
            if original._is_view():
                self.trace.rewritten.add(call)
        self._finish(call, result)
        return result

    def _number(self, tensor: Tensor) -> int:
        if tensor not in self._numbers:
            self._new(tensor)
        return int(self._numbers[tensor])

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        self.trace.shapes[self._count] = tuple(tensor.shape)
        if isinstance(tensor, nn.Parameter):
            self.trace.parameters.add(self._count)
        return self._count

    def _refs(self, values: Any) -> Any:
        """Return values with tensors of more than one element as numbers."""
        return tree_map(
            lambda one: Ref(self._number(one)) if isinstance(one, Tensor) and one.numel() > 1 else one, values
        )

    def _measure(self, x: Tensor) -> None:
        number = self._number(x)
        if number not in self.trace.ranges and x.numel():
            self.trace.ranges[number] = torch.aminmax(x.detach())

    def _finish(self, call: Call, result: Any) -> None:
        """Give the result of a call a number, and write the call down."""
        if isinstance(result, Tensor):
            axis = self.trace.axes.get(call.inputs[0]) if call.inputs else None
            call.output = self._new(result)
            if axis is not None and axis < result.dim():
                self.trace.axes[call.output] = axis
            self.trace.calls.append(call)

    def _use(self, *values: Any) -> None:
        """Note that something uses tensors."""
        tensors = (one for one in tree_flatten(values)[0] if isinstance(one, Tensor) and one in self._numbers)
        self.trace.used.update(self._numbers[one] for one in tensors)

    def _notice(self, args: Any, kwargs: Any) -> None:
        """Notice that something overwritten is used again."""
        if self._overwritten:
            for one in tree_flatten((args, kwargs))[0]:
                if isinstance(one, Tensor) and one in self._overwritten:
                    self.trace.rewritten.add(self._overwritten[one])

    def _follow(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Note the dimension of the units of results, and that some have the elements of an argument."""
        for one in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(one, Tensor) or not args or not isinstance(args[0], Tensor):
                continue
            before = self._number(args[0])
            after = self._new(one)
            axis = axis_after(name, args, one, self.trace.axes.get(before))
            if axis is not None:
                self.trace.axes[after] = axis
            if name == "linear" or name in CONVOLUTIONS:
                self.trace.weighted.add(after)
            if name in RESHAPING:
                self.trace.aliases[after] = before

    def _look_for_experts(self, run: Run, name: str, args: tuple[Any, ...]) -> None:
        """Notice that a module turns to the next of its experts, for which its calls are counted from the beginning."""
        if name == "getitem" and takes_expert(run.module, args) and args[1] is not run.expert:
            run.experts, run.expert = len(args[0]), args[1]
            run.counts.clear()

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Note that a module begins to run."""
        # What is done here is nobody's call, also where a module redirects its functions.
        with torch._C.DisableTorchFunction():
            return self._before(module, args)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if module not in self._paths:
            return None
        self.trace.ran.add(module)
        if self._open:
            self._open.append((module, None))
            return None
        x = args[0] if len(args) == 1 and isinstance(args[0], Tensor) else None
        kind = None if x is None else self._kind(module, x)
        if x is None or kind is None or not self._runs:
            self._runs.append(Run(module, self._paths[module]))
            self._use(args)
            return None
        run = self._runs[-1]
        self._notice(args, {})
        call = Call(kind, run, run.counts[module], self._refs(args), {}, module=module, hidden=_hidden())
        run.counts[module] += 1
        self._measure(x)
        self._open.append((module, call))
        if getattr(module, "inplace", False) is True:
            self._overwritten[x] = call
            call.in_place = True
            return (x.clone(),)
        return None

    def after(self, module: nn.Module, _: Any, output: Any) -> None:
        """Note that a module has run."""
        if module not in self._paths:
            return
        if not self._open:
            self._runs.pop()
            self._use(output)
            return
        _, call = self._open.pop()
        if call is not None:
            with torch._C.DisableTorchFunction():
                self._finish(call, output)

    def _kind(self, module: nn.Module, x: Tensor) -> str | None:
        if module not in self._kinds:
            kind = kind_by_class(module)
            if kind is None and module is not self.model and may_be_activation(module):
                self._open.append((module, None))
                kind = kind_by_test(module, x, self.trace.axes.get(self._number(x), usual_axis(x.shape)))
                # A part that raised an error has not taken leave.
                self._open.clear()
            self._kinds[module] = kind
        return self._kinds[module]

    def finish(self, outputs: Any) -> None:
        """Note what the model returned."""
        self._notice(tensors_of(outputs), {})
        self.trace.outputs = set(map(self._number, tensors_of(outputs)))


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors in what a model returned."""
    values = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    return [one for one in tree_flatten(values)[0] if isinstance(one, Tensor) and one.is_floating_point()]


def observe(model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Trace, Any]:
    """Run a model and write down what could be part of an activation.

    The model, its buffers, gradients and modes and the random states are afterwards as before, also after an error.

    Args:
        model: In the mode in which it is to be looked at.
        inputs: What it is called with.
        keywords: What it is called with by name.

    Returns:
        What was seen, and what the model returned.
    """
    observer = Observer(model)
    # What it returns replaces the input, which the annotation of torch's function forgets.
    before: Any = observer.before
    with untouched(model), _visible():
        hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(observer.after)]
        try:
            with observer:
                outputs = model(*inputs, **keywords)
        finally:
            for hook in hooks:
                hook.remove()
        observer.finish(outputs)
    return observer.trace, outputs


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run a model without gradients; its buffers and the random states are afterwards as before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    try:
        with torch.no_grad(), torch.random.fork_rng([device.index or 0 for device in devices]):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextlib.contextmanager
def _visible() -> Iterator[None]:
    """Have compiled regions run as written, and encoder layers without the kernel that hides their activations."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # Who has compiled something has loaded what can hold it back.
    set_stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo" in sys.modules else None
    stance = set_stance("force_eager") if set_stance else contextlib.nullcontext()
    try:
        with stance:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _occurrence(run: Run, name: str) -> int:
    """Return which call of a function comes next in a run; calls that are redirected already are not seen."""
    plan: Plan | None = run.module.__dict__.get(PLAN)
    redirected = {*plan.ends, *plan.skipped} if plan else ()
    while (name, run.counts[name]) in redirected:
        run.counts[name] += 1
    return run.counts[name]


def _hidden() -> str:
    """Return what stands between the running module and the function it calls and keeps it from being replaced."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        where = frame.f_globals.get("__name__", "")
        if where == _ENTRY:
            return ""
        if where in _BETWEEN:
            return _BETWEEN[where]
        frame = frame.f_back
    return ""
