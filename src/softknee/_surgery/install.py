"""Puts activations into the places of a model, and takes them out again."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from softknee._errors import UsageError
from softknee._surgery.redirect import PLAN, Experts, Plan, Turns, base_of, enter, leave, redirecting

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from softknee._surgery.places import Place

# Attribute of a model that says how to undo its swaps.
SWAPS = "_softknee_swaps"
# What activations in the place of functions are called in the module that calls them.
NAME = "softknee_{}"
# Layers that run as one kernel, with the activation they were made with, unless a part of them has hooks.
_KERNELS = (nn.TransformerEncoderLayer,)


@dataclass(eq=False)
class Changes:
    """What a swap has changed in a model, in words and with the modules that were there before.

    Attributes:
        replaced: Modules that were replaced, by their paths. In tuples, for modules register what they are given.
        added: Paths of modules that were added.
        plans: Plans that modules had before, by their paths.
        hooked: Paths of modules that were given hooks.
        padded: Paths of encoders that no longer cut off padding, which only their one kernel can do.
        paths: Of the activations that were put in, by their places.
        there: Activations and plans that the swap has left, by their paths, to see whether they were changed since.
        modes: Whether what replaced modules was in training mode, by their paths.
        like: Dtype and device of the model.
    """

    replaced: dict[str, tuple[nn.Module]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    plans: dict[str, Plan | None] = field(default_factory=dict)
    hooked: list[str] = field(default_factory=list)
    padded: list[str] = field(default_factory=list)
    paths: dict[Place, str] = field(default_factory=dict)
    there: dict[str, tuple[nn.Module, Plan | None]] = field(default_factory=dict)
    modes: dict[str, bool] = field(default_factory=dict)
    like: tuple[torch.dtype, torch.device] | None = None


class Installer:
    """Puts activations into a model.

    Args:
        model: The model.

    Attributes:
        model: The model, another one if it was itself replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = model.__dict__.get(SWAPS, [])
        self.changes = Changes()

    def install(self, activations: Mapping[Place, nn.Module]) -> dict[Place, str]:
        """Put activations into their places.

        Args:
            activations: By place; `Experts` where each expert has its own.

        Returns:
            The path of each activation.

        Raises:
            UsageError: A module would have to be replaced that is outside of the module that calls it. Nothing is
                changed then.
        """
        try:
            self.changes.paths = self._install(activations)
            self._hook()
            self._note()
        except BaseException:
            self.undo()
            raise
        return self.changes.paths

    def _note(self) -> None:
        """Note in the model how to undo the changes."""
        changed = {path: self.model.get_submodule(path) for path in (*self.changes.plans, *self.changes.paths.values())}
        self.changes.there = {path: (module, module.__dict__.get(PLAN)) for path, module in changed.items()}
        self.changes.like = _like(self.model)
        self.model.__dict__[SWAPS] = [*self.before, self.changes]

    def _install(self, activations: Mapping[Place, nn.Module]) -> dict[Place, str]:
        paths: dict[Place, str] = {}
        by_module: dict[str, dict[Place, nn.Module]] = {}
        for place in activations:
            if not place.operation:
                by_module.setdefault(place.module, {})[place] = activations[place]
        for path, there in by_module.items():
            paths.update(self._install_modules(path, there))
        for place, activation in activations.items():
            if place.operation:
                paths[place] = self._install_function(place, activation)
        shared = [module for module, count in Counter(activations.values()).items() if count > 1]
        for path in self.changes.plans:
            self._plan(path).close(self.model.get_submodule(path), shared)
        return paths

    def undo(self) -> None:
        """Take out what was put in, if anything was."""
        self.model = _undo(self.model, self.changes)
        self.changes = Changes()
        self.model.__dict__.pop(SWAPS, None)
        if self.before:
            self.model.__dict__[SWAPS] = self.before

    def _install_modules(self, path: str, there: Mapping[Place, nn.Module]) -> dict[Place, str]:
        """Replace a module by the activations for its places."""
        place, first = next(iter(there.items()))
        own = {one.turn: module for one, module in there.items() if one.owner == place.owner}
        if place.turns == 1 or (len(own) == place.turns and len(set(map(id, own.values()))) == 1):
            self._replace(path, first)
            if isinstance(first, Experts):
                self._plan(place.owner).follow_experts()
            return dict.fromkeys(there, path)
        old, inside = self.model.get_submodule(path), _inside(path, place.owner)
        self._plan(place.owner)
        self._replace(path, Turns([own.get(turn, old) for turn in range(place.turns)], inside))
        return {one: f"{path}.{one.turn}" for one in there}

    def _install_function(self, place: Place, activation: nn.Module) -> str:
        """Have a module call an activation in the place of a function."""
        owner = self.model.get_submodule(place.owner)
        name = next(name for name in map(NAME.format, range(len(owner._modules) + 1)) if not hasattr(owner, name))
        self.changes.added.append(f"{place.owner}.{name}".lstrip("."))
        owner.add_module(name, activation)
        if place.passing:
            self._replace(place.passing, nn.Identity())
        plan = self._plan(place.owner)
        plan.add(name, place)
        if isinstance(activation, Experts):
            plan.follow_experts()
        return self.changes.added[-1]

    def _replace(self, path: str, module: nn.Module) -> None:
        self.changes.replaced[path] = (self.model.get_submodule(path),)
        self.changes.modes[path] = module.training
        if path:
            _set(self.model, path, module)
        else:
            self.model = module

    def _plan(self, path: str) -> Plan:
        """Return the plan of a module that redirects calls from now on."""
        module = self.model.get_submodule(path)
        if path not in self.changes.plans:
            before = module.__dict__.get(PLAN)
            self.changes.plans[path] = before
            module.__dict__[PLAN] = Plan() if before is None else copy.deepcopy(before)
            if before is None:
                module.__class__ = redirecting(type(module))
        plan: Plan = module.__dict__[PLAN]
        return plan

    def _hook(self) -> None:
        """Have the modules that redirect functions, and those inside them, take note of their runs.

        Otherwise the functions that they call would be taken for those of the module around them.
        """
        modules = dict(self.model.named_modules())
        owners = [module for module in modules.values() if PLAN in module.__dict__]
        wanted = {part for owner in owners for part in owner.modules()}
        parents = ((path.rpartition(".")[0], module) for path, module in modules.items())
        wanted |= {module for parent, module in parents if isinstance(modules.get(parent), _KERNELS)}
        for path, module in modules.items():
            if module in wanted and enter not in module._forward_pre_hooks.values():
                self.changes.hooked.append(path)
                module.register_forward_pre_hook(enter)
                module.register_forward_hook(leave, always_call=True)
        for path, module in modules.items():
            cuts = isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor
            if cuts and not wanted.isdisjoint(module.layers.modules()):
                self.changes.padded.append(path)
                module.use_nested_tensor = False


def undo(model: nn.Module, changes: Changes) -> nn.Module:
    """Take out what a swap has put in; what was there before takes on the dtype, device and mode that are there now.

    Args:
        model: The model.
        changes: What it changed.

    Returns:
        The model; another one if it was itself an activation.

    Raises:
        UsageError: The model has other modules or classes since. Nothing is changed then.
    """
    paths = dict(model.named_modules(remove_duplicate=False))
    for path in (*changes.hooked, *changes.padded, *changes.plans, *changes.added, *changes.replaced):
        if path not in paths or (path in changes.plans and base_of(paths[path]) is None):
            what = "is gone" if path not in paths else f"is now a {type(paths[path]).__name__}"
            raise UsageError(f"{path or 'the model'} {what} since the swap; undo first what was done after it")
    for path, (module, plan) in changes.there.items():
        if paths[path] is not module or module.__dict__.get(PLAN) is not plan:
            raise UsageError(f"{path or 'the model'} was changed since the swap; undo first what was done after it")
    now = _like(model)
    for path, (module,) in changes.replaced.items():
        if now and now != changes.like:
            module.to(dtype=now[0], device=now[1])
        if paths[path].training != changes.modes[path]:
            module.train(paths[path].training)
    return _undo(model, changes)


def _undo(model: nn.Module, changes: Changes) -> nn.Module:
    for path in changes.hooked:
        module = model.get_submodule(path)
        for hooks, hook in ((module._forward_pre_hooks, enter), (module._forward_hooks, leave)):
            for key in [key for key, one in hooks.items() if one is hook]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
    for path in changes.padded:
        model.get_submodule(path).__dict__["use_nested_tensor"] = True
    for path, plan in changes.plans.items():
        module = model.get_submodule(path)
        if plan is None:
            module.__class__ = base_of(module) or type(module)
            module.__dict__.pop(PLAN, None)
        else:
            module.__dict__[PLAN] = plan
    for path in changes.added:
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules.pop(name, None)
    for path, (module,) in reversed(changes.replaced.items()):
        if not path:
            return module
        _set(model, path, module)
    return model


def _like(model: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """Return the dtype and device of a model, None if it has no parameters."""
    return next(((one.dtype, one.device) for one in model.parameters() if one.is_floating_point()), None)


def _set(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module


def _inside(path: str, owner: str) -> str:
    """Return the path of a module as seen from another, which it must be inside of.

    Raises:
        UsageError: It is not.
    """
    if owner and not path.startswith(f"{owner}."):
        raise UsageError(
            f"{path} is called by {owner}, but is not inside it; give each module an activation of its own"
        )
    return path[len(owner) + 1 :] if owner else path
