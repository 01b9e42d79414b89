"""Runs a model once and writes down, in order, what could be part of an activation."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from softknee._surgery.axes import axis_after, usual_axis
from softknee._surgery.callers import hidden, outermost
from softknee._surgery.operations import (
    ACTIVATIONS,
    CONVOLUTIONS,
    FUSED,
    PRODUCTS_OF_MATRICES,
    RESHAPING,
    WATCHED,
    called,
    is_in_place,
    name_of,
    positional,
    shown_by_compilers,
    takes_expert,
)
from softknee._surgery.probe import kind_by_class, kind_by_test, may_be_activation
from softknee._surgery.redirect import PLAN
from softknee._surgery.trace import Call, Run, Tensors, Trace, tensors_in, unwrapped, version
from softknee._surgery.untouched import gradients_on_demand, untouched
from softknee.nn.gated import Gated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softknee._surgery.redirect import Plan


class Observer(TorchFunctionMode):
    """Sees the functions of torch and, through hooks, the modules that a model calls in this thread.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trace = Trace()
        self._paths = {module: path for path, module in model.named_modules()}
        self._originals: dict[nn.Module, nn.Module] = {}
        self._tensors = Tensors(self.trace, (*model.parameters(), *model.buffers()))
        self._thread = threading.get_ident()
        self._runs: list[Run] = []
        # Activation modules that are running, and what is inside them, which is no activation of the model.
        self._open: list[Opened | None] = []
        self._kinds: dict[nn.Module, str | None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and write it down if it may be part of an activation."""
        args, kwargs = positional(args, kwargs or {})
        name = name_of(func)
        if self._open or not self._runs:
            return func(*args, **kwargs)
        run = self._runs[-1]
        self._tensors.notice((args, kwargs))
        if name in FUSED:
            self.trace.unseen[run.path, FUSED[name]] = None
        if name not in WATCHED or not (args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            self._look_for_experts(run, name, args)
            result = func(*args, **kwargs)
            # Who asks for a shape or a dtype does not use the elements.
            if result is None or tensors_in(result):
                self._tensors.use(args, kwargs)
            self._follow(name, args, kwargs, result)
            return result
        call = Call(
            name, run, occurrence(run, name), self._refs(args), self._refs(kwargs), function=func, hidden=hidden()
        )
        run.counts[name] += 1
        fixed = self._tensors.are_fixed((args, kwargs))
        self._measure(args[0])
        call.in_place = is_in_place(called(func), kwargs)
        call.eager_only = not shown_by_compilers(outermost(func))
        original = args[0]
        if call.in_place and name in ACTIVATIONS:
            # Work on a copy shows whether the overwritten tensor is used again, maybe under another name.
            args = (original.clone(), *args[1:])
        result = func(*args, **kwargs)
        if args[0] is not original:
            self._tensors.overwrite(original, call)
        self._finish(call, result, fixed=fixed)
        return result

    def _number(self, tensor: Tensor) -> int:
        return self._tensors.number(tensor)

    def _refs(self, values: Any) -> Any:
        return self._tensors.refs(values)

    def _measure(self, x: Tensor) -> None:
        number = self._number(x)
        if number not in self.trace.ranges and x.numel() and not x.is_meta:
            self.trace.ranges[number] = torch.aminmax(unwrapped(x.detach()))

    def _finish(self, call: Call, result: Any, *, fixed: bool = False) -> None:
        """Give the result of a call a number, and write the call down."""
        if isinstance(result, Tensor):
            alike = (number for number in call.inputs if len(self.trace.shapes[number]) == result.dim())
            axis = next((self.trace.axes[number] for number in alike if number in self.trace.axes), None)
            call.output = self._tensors.new(result, fixed=fixed)
            if axis is not None:
                self.trace.axes[call.output] = axis
            self.trace.calls.append(call)

    def _follow(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note the dimension of the units of results, and that some have the elements of an argument."""
        given = tensors_in((args, kwargs))
        if not given:
            return
        before = self._number(given[0])
        shape, fixed = self.trace.shapes[before], self._tensors.are_fixed(given)
        left = name in PRODUCTS_OF_MATRICES and not fixed and self._tensors.are_fixed(given[0])
        for one in tensors_in(result):
            after = self._tensors.new(one, fixed=fixed)
            axis = one.dim() - 2 if left else axis_after(name, given[0], shape, one, self.trace.axes.get(before))
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

    @contextlib.contextmanager
    def told_apart(self) -> Iterator[None]:
        """Have each path lead to a module of its own, so that a call shows by which path a shared one was called."""
        shared = [
            (parent, name, module)
            for parent in self.model.modules()
            if not isinstance(parent, torch.jit.ScriptModule)
            for name, module in parent._modules.items()
            if module is not None and may_be_activation(module)
        ]
        first: set[nn.Module] = set()
        stand_ins: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            for parent, name, module in shared:
                if module in first:
                    # With the same parameters and buffers.
                    stand_in = module.__new__(type(module))
                    stand_in.__dict__ = dict(module.__dict__)
                    self._originals[stand_in] = module
                    self._paths[stand_in] = f"{self._paths[parent]}.{name}".lstrip(".")
                    parent._modules[name] = stand_in
                    stand_ins.append((parent, name, module))
                first.add(module)
            yield
        finally:
            for parent, name, module in stand_ins:
                parent._modules[name] = module

    def begin(self, *inputs: Any) -> None:
        """Note what the model is called with."""
        for one in tensors_in(inputs):
            self._tensors.new(one)

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Note that a module begins to run."""
        # What is done here is nobody's call, also where a module redirects its functions.
        with torch._C.DisableTorchFunction():
            return self._before(module, args)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._sees(module):
            return None
        path, module = self._paths[module], self._originals.get(module, module)
        self.trace.ran.add(module)
        if self._open:
            self._open.append(None)
            return None
        # A gated pair may have its value beside it.
        alone = len(args) == 1 or isinstance(module, Gated)
        x = args[0] if args and alone and isinstance(args[0], Tensor) else None
        kind = None if x is None else self._kind(module, x)
        if x is None or kind is None or not self._runs:
            self._runs.append(Run(module, path))
            self._tensors.use(args)
            return None
        run = self._runs[-1]
        self._tensors.notice(args)
        call = Call(
            *(kind, run, run.turns[path], self._refs(args), {}),
            module=module,
            path=path,
            hidden=hidden(by_hook=True),
        )
        run.turns[path] += 1
        self._measure(x)
        # As above: it may overwrite what it is called with.
        copy = x.clone()
        self._open.append(Opened(call, x, copy))
        return (copy, *args[1:])

    def after(self, module: nn.Module, _: Any, output: Any) -> None:
        """Note that a module has run, maybe into an error."""
        if not self._sees(module):
            return
        if not self._open:
            run = self._runs.pop()
            self.trace.counts[run.module] = self.trace.counts.get(run.module, Counter()) | run.counts
            self._tensors.use(output)
            return
        opened = self._open.pop()
        if opened is not None:
            with torch._C.DisableTorchFunction():
                if version(opened.copy):
                    opened.call.in_place = True
                    self._tensors.overwrite(opened.x, opened.call)
                self._finish(opened.call, output, fixed=self._tensors.are_fixed(opened.x))

    def _sees(self, module: nn.Module) -> bool:
        return module in self._paths and threading.get_ident() == self._thread

    def _kind(self, module: nn.Module, x: Tensor) -> str | None:
        if module not in self._kinds:
            kind = kind_by_class(module)
            if kind is None and module is not self.model and may_be_activation(module):
                self._open.append(None)
                kind = kind_by_test(module, x, self.trace.axes.get(self._number(x), usual_axis(x.shape)))
                self._open.pop()
            self._kinds[module] = kind
        return self._kinds[module]

    def finish(self, outputs: Any) -> None:
        """Note what the model returned."""
        self._tensors.notice(tensors_of(outputs))
        self.trace.outputs = set(map(self._number, tensors_of(outputs)))
        self._tensors.use_held()


@dataclass(frozen=True)
class Opened:
    """An activation module that is running.

    Attributes:
        call: Of it.
        x: What it was called with.
        copy: What it works on.
    """

    call: Call
    x: Tensor
    copy: Tensor


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors in what a model returned."""
    values = outputs
    if isinstance(outputs, Mapping):
        values = list(outputs.values())
    elif is_dataclass(outputs):
        values = list(vars(outputs).values())
    return [one for one in tree_flatten(values)[0] if isinstance(one, Tensor) and one.is_floating_point()]


def observe(
    model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any], *, observer: Observer | None = None
) -> tuple[Trace, Any]:
    """Run a model and write down what could be part of an activation.

    The model, its buffers, gradients and modes and the random states are afterwards as before, also after an error.

    Args:
        model: In the mode in which it is to be looked at.
        inputs: What it is called with.
        keywords: What it is called with by name.
        observer: Of the model, None for one that writes down nothing else.

    Returns:
        What was seen, and what the model returned.
    """
    observer = observer or Observer(model)
    # What it returns replaces the input, which the annotation of torch's function forgets.
    before: Any = observer.before
    with untouched(model), visible(), observer.told_apart():
        observer.begin(inputs, keywords)
        hooks = [
            register_module_forward_pre_hook(before),
            register_module_forward_hook(observer.after, always_call=True),
        ]
        try:
            with gradients_on_demand(inputs, keywords), observer:
                outputs = model(*inputs, **keywords)
        finally:
            for hook in hooks:
                hook.remove()
        observer.finish(outputs)
    return observer.trace, outputs


@contextlib.contextmanager
def visible() -> Iterator[None]:
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


def occurrence(run: Run, name: str) -> int:
    """Return which call of a function comes next in a run; calls that are redirected already are not seen."""
    plan: Plan | None = run.module.__dict__.get(PLAN)
    redirected = {*plan.ends, *plan.skipped} if plan else ()
    while (name, run.counts[name]) in redirected:
        run.counts[name] += 1
    return run.counts[name]
