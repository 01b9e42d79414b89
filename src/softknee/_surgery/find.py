"""Finds every place in a model where an activation acts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from softknee._errors import UsageError
from softknee._surgery.axes import usual_axis
from softknee._surgery.compose import Acting, Composer, groups, replay
from softknee._surgery.observe import observe
from softknee._surgery.operations import ACTIVATIONS
from softknee._surgery.places import Place, Site, Sites, Unseen
from softknee._surgery.probe import kind_by_class, kind_by_test, may_be_activation
from softknee._surgery.trace import Ref
from softknee._surgery.untouched import untouched
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from softknee._surgery.trace import Trace

_SCRIPTED = "it is scripted, and its code cannot be looked into; use the module it was made from"
_COMPILED = "it is compiled; it was looked at as it runs without the compiler"
_REWRITTEN = "its input is overwritten in place and used again; write `x = act(x)` without inplace"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CONTAINED = "its module is a container, whose parts may all be run; call it in another module"
_NOT_RUN = "it did not run in the example"
_NO_EXAMPLE = "functions are only seen with an example of the model's inputs"
# An input for modules of unknown class where there is no example.
_TEST_SHAPE = (4, 6)


def sites(model: nn.Module, *inputs: Any, **keywords: Any) -> Sites:
    """Find every place where an activation acts: modules, functions, and expressions that the code writes out.

    The model runs once with the inputs, without gradients; its buffers, modes and the random states are afterwards as
    before. Without inputs only modules are found.

    Args:
        model: Any module.
        *inputs: What it is called with.
        **keywords: What it is called with by name.

    Returns:
        The places in the order of their calls, and what could not be seen.

    Raises:
        UsageError: It is no module, or it is scripted.
    """
    return look(model, inputs, keywords).sites


@dataclass(frozen=True)
class Look:
    """What a look at a model has shown.

    Attributes:
        sites: The places.
        outputs: What the model returned, None without inputs.
        functions: What acts at each place, to be called with other inputs.
        in_a_row: Pairs of activations of which the second acts on the output of the first.
        returned: Activations whose output the model returns.
    """

    sites: Sites
    outputs: Any = None
    functions: Mapping[Place, Callable[..., Any]] = field(default_factory=dict)
    in_a_row: tuple[tuple[Site, Site], ...] = ()
    returned: tuple[Site, ...] = ()


def look(model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Look:
    """Find the places, and keep what the model returned and what acts there.

    Args:
        model: As in `sites`.
        inputs: As in `sites`.
        keywords: As in `sites`.

    Returns:
        All of it.

    Raises:
        UsageError: It is no module, or it is scripted.
    """
    model = checked(model)
    # Modules and functions are also tried with other inputs.
    with untouched(model):
        return _look(model, inputs, keywords)


def _look(model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Look:
    by_class = _by_class(model)
    if not inputs and not keywords:
        return Look(by_class, functions={site.place: model.get_submodule(site.path) for site in by_class})
    trace, outputs = observe(model, inputs, keywords)
    aliases = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    found = Composer(trace).compose()
    placed: list[Site] = []
    unseen = [Unseen(path, reason) for path, reason in trace.unseen]
    functions: dict[Place, Callable[..., Any]] = {}
    by_acting: dict[Acting, Site] = {}
    for acting in groups(found):
        site = _site(acting, trace, found, aliases)
        by_acting.update(dict.fromkeys(acting, site))
        functions[site.place] = acting[0].last.module or partial(replay, acting[0].calls, acting[0].source)
        reason = _unchangeable(acting[0], trace)
        if reason:
            unseen.append(Unseen(site.path, f"{site.kind}: {reason}", site))
        else:
            placed.append(site)
    asleep = [site for site in by_class if _sleeps(model, site, trace)]
    functions.update({site.place: model.get_submodule(site.path) for site in asleep})
    notes = (Unseen(site.path, _NOT_RUN) for site in asleep)
    every = Sites((*placed, *asleep), (*unseen, *_closed(model), *notes))
    pairs = [(by_acting[one.after], site) for one, site in by_acting.items() if one.after in by_acting]
    returned = [site for one, site in by_acting.items() if one.returned]
    return Look(every, outputs, functions, tuple(dict.fromkeys(pairs)), tuple(dict.fromkeys(returned)))


def checked(model: Any) -> nn.Module:
    """Return the module that is to be looked at.

    Raises:
        UsageError: It is no module, it is scripted, or has lazy layers that never ran.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model must be a torch.nn.Module, got {excerpt(model)}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "the model is scripted or frozen, and its code cannot be looked into; use the one it was made of"
        )
    tensors = (*model.named_parameters(), *model.named_buffers())
    lazy = next((name for name, one in tensors if nn.parameter.is_lazy(one)), None)
    if lazy is not None:
        raise UsageError(f"{lazy} has no shape yet; run the model once, so that its lazy layers are made")
    return getattr(model, "_orig_mod", model) if is_compiled(model) else model


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module is what `torch.compile` returns, or was compiled in place."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    wrapped = dynamo is not None and isinstance(module, dynamo.OptimizedModule)
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


def _site(acting: Sequence[Acting], trace: Trace, found: Sequence[Acting], aliases: Any) -> Site:
    first = acting[0]
    last = first.last
    owner = last.run.path
    path = last.path or owner
    ranges = [trace.ranges[one.source] for one in acting if one.source in trace.ranges]
    shape = trace.shapes[first.source]
    axis = trace.axes.get(first.source, usual_axis(shape))
    own = [one for one in found if one.last.run is last.run and one.last.path == last.path]
    users = {one.last.run.path for one in found if one.last.module is last.module}
    return Site(
        path=path,
        call=0 if last.run.experts and last.module is not None else own.index(first),
        kind=first.kind,
        role=first.role,
        how=first.how,
        shape=shape,
        result=trace.shapes[last.output],
        unit_axis=axis if axis < len(shape) else None,
        low=min((float(low) for low, _ in ranges), default=math.inf),
        high=max((float(high) for _, high in ranges), default=-math.inf),
        times=len(acting),
        shared=last.module is not None and (aliases[last.module] > 1 or len(own) > 1 or len(users) > 1),
        place=_place(first, trace, path),
    )


def _place(acting: Acting, trace: Trace, path: str) -> Place:
    last = acting.last
    experts = last.run.experts
    if last.module is not None:
        turns = 1 if experts else last.run.turns[last.path]
        turn = 0 if experts else last.occurrence
        return Place(last.run.path, path, turn, turns, experts=experts, product=_product(acting))
    calls = [(call.name, call.occurrence, call.arguments) for call in acting.calls]
    source = next(
        (name, occurrence, index)
        for name, occurrence, arguments in calls
        for index, one in enumerate(arguments)
        if getattr(one, "number", None) == acting.source
    )
    return Place(
        last.run.path,
        operation=last.name,
        occurrence=last.occurrence,
        source=source,
        inner=tuple(call[:2] for call in calls[:-1]),
        in_place=last in trace.rewritten or (acting.how == "expression" and last.in_place),
        eager_only=any(call.eager_only for call in acting.calls),
        experts=experts,
        product=_product(acting),
        calls=() if experts else _counts(acting, trace.counts[last.run.module]),
    )


def _counts(acting: Acting, counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    names = sorted({call.name for call in acting.calls} & ACTIVATIONS)
    return tuple((name, counts[name]) for name in names)


def _product(acting: Acting) -> tuple[int, int] | None:
    """Return occurrence of the product that makes a pair of an activation, and the argument that is activated."""
    call = acting.product
    return None if call is None else (call.occurrence, call.arguments.index(Ref(acting.last.output)))


def _unchangeable(acting: Acting, trace: Trace) -> str:
    last = acting.last
    calls = acting.calls
    if last.module is not None:
        # Several that take turns count all calls; one alone acts wherever it is called.
        calls = [one for one in trace.calls if one.path == last.path and one.run is last.run]
        calls = calls if len(calls) > 1 and not last.run.experts else []
    hidden = next((call.hidden for call in calls if call.hidden), "")
    if last.module is None and isinstance(last.run.module, _CONTAINERS):
        hidden = hidden or _CONTAINED
    rewritten = acting.last in trace.rewritten and acting.how != "function"
    return hidden or (_REWRITTEN if rewritten else "")


def _closed(model: nn.Module) -> Iterator[Unseen]:
    """Yield the parts of a model that cannot be looked into, or not as they run."""
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            if module not in inside:
                yield Unseen(path, _SCRIPTED)
            inside.update(module.children())
        elif is_compiled(module):
            yield Unseen(path, _COMPILED)


def _sleeps(model: nn.Module, site: Site, trace: Trace) -> bool:
    """Return whether an activation did not run in the example, neither did what it is part of."""
    modules = [
        model.get_submodule(".".join(site.path.split(".")[:depth])) for depth in range(1, 1 + len(site.path.split(".")))
    ]
    return modules[-1] not in trace.ran and not any(module in trace.ran and _kind(module) for module in modules)


def _kind(module: nn.Module) -> str | None:
    """Return the kind of a module without an example of its inputs."""
    kind = kind_by_class(module)
    if kind is None and may_be_activation(module):
        kind = kind_by_test(module, torch.zeros(_TEST_SHAPE), len(_TEST_SHAPE) - 1)
    return kind


def _by_class(model: nn.Module) -> Sites:
    """Find the activations that are modules, in the order of their registration."""
    paths: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    kinds = {module: _kind(module) for module in dict.fromkeys(paths.values()) if module is not model or not paths}
    kinds[model] = kind_by_class(model)
    count = Counter(paths.values())
    inside = {part for module, kind in kinds.items() if kind for part in module.modules() if part is not module}
    found = [
        Site(
            *(path, 0, kinds[module] or "", _role(kinds[module] or ""), "module", (), (), None, math.inf, -math.inf, 0),
            shared=count[module] > 1,
            place=Place(path.rpartition(".")[0], path),
        )
        for path, module in paths.items()
        if kinds[module] and module not in inside
    ]
    return Sites(tuple(found), (*_closed(model), Unseen("", _NO_EXAMPLE)))


def _role(kind: str) -> str:
    return "normaliser" if kind == "softmax" else "activation"
