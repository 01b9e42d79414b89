"""What was swapped in a model, as a file: a model built anew becomes the same again, and takes the saved weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from softknee import nn as activations
from softknee._catalogue import create
from softknee._errors import UsageError
from softknee._surgery.build import join
from softknee._surgery.install import SWAPS, Installer
from softknee._surgery.places import Place
from softknee._surgery.redirect import PLAN, Experts
from softknee.nn.activation import Activation
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import Formula
from softknee.nn.gated import Gated
from softknee.nn.gated_by import GatedBy
from softknee.nn.options import stored
from softknee.nn.vector import Vector

if TYPE_CHECKING:
    import os

# Of the file, raised when older versions could not read it.
SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One activation of a swap.

    Attributes:
        place: Where it acts.
        activation: Its name or formula.
        options: It was made with, so that its state dict fits.
        instance: Number of the instance; one that serves several places has the same number at each.
        experts: How many of them there are, one for each expert; 0 for a single one.
    """

    place: Place
    activation: str
    options: dict[str, Any]
    instance: int
    experts: int = 0


@dataclass(frozen=True)
class Recipe:
    """The swaps of a model, without the values of trained parameters, which its state dict has.

    Attributes:
        swaps: The entries of each swap, in order.
    """

    swaps: tuple[tuple[Entry, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Recipe:
        """Return what was swapped in a model.

        Args:
            model: Swapped, or a copy of one that was.

        Returns:
            The recipe.

        Raises:
            UsageError: Nothing was, or an activation is not one of softknee's that can be made from its options.
        """
        changes = model.__dict__.get(SWAPS, [])
        if not changes:
            raise UsageError(f"{type(model).__name__} was not swapped, so there is nothing to write down")
        instances: dict[nn.Module, int] = {}
        return cls(
            tuple(
                tuple(_entry(model.get_submodule(path), place, instances) for place, path in one.paths.items())
                for one in changes
            )
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe from a file.

        Args:
            path: As given to `save`.

        Returns:
            The recipe.

        Raises:
            UsageError: It is no such file, or one of a later version.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            schema, swaps = read["schema"], read["swaps"]
            if schema == SCHEMA:
                return cls(tuple(tuple(_read(entry) for entry in swap) for swap in swaps))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path} is no recipe of softknee: {error}") from error
        raise UsageError(f"{path} has schema {schema}, and this version of softknee reads {SCHEMA}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe to a file of JSON, whole or not at all.

        Args:
            path: Of the file, such as `softknee.json` beside a checkpoint.
        """
        content = {"schema": SCHEMA, "swaps": [[asdict(entry) for entry in swap] for swap in self.swaps]}
        partial = Path(f"{path}.partial")
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(path)

    def apply(self, model: nn.Module) -> nn.Module:
        """Swap the activations of a model as written, in place; load its state dict afterwards.

        Args:
            model: Of the architecture that the recipe was made for, without swaps.

        Returns:
            The model, another one only if it was itself replaced.

        Raises:
            UsageError: The model has no such place, or is swapped already.
        """
        swapped = next(
            (path for path, one in model.named_modules() if SWAPS in one.__dict__ or PLAN in one.__dict__), None
        )
        if swapped is not None:
            raise UsageError(f"{swapped or 'the model'} is swapped already; a recipe is for a model built anew")
        for swap in self.swaps:
            _check_places(model, swap)
            made = _make(model, swap)
            installer = Installer(model)
            installer.install(made)
            model = installer.model
        return model


def _entry(module: nn.Module, place: Place, instances: dict[nn.Module, int]) -> Entry:
    first = module[0] if isinstance(module, Experts) else module
    activation, options = _written(first, place)
    number = instances.setdefault(module, len(instances))
    return Entry(place, activation, options, number, len(module) if isinstance(module, Experts) else 0)


def _written(module: nn.Module, place: Place) -> tuple[str, dict[str, Any]]:
    """Return the name of an activation, or its formula, and the options that make it.

    Raises:
        UsageError: It is not made from options alone.
    """
    catalogued = isinstance(module, Elementwise | Gated | Vector) and type(module) is getattr(
        activations, module.spec.title, None
    )
    if not isinstance(module, Activation) or not (catalogued or isinstance(module, Formula | GatedBy)):
        raise UsageError(
            f"{type(module).__name__} at {place.module or place.owner} cannot be written into a recipe, which holds "
            "names and formulas; save what makes it beside the checkpoint"
        )
    names = [name for name, _ in module.named_parameters(recurse=False)]
    options: dict[str, Any] = {"trainable": names} if names else {"trainable": False} if stored(module.spec) else {}
    for name in ("per_channel", "channels"):
        if getattr(module, name, None) is not None:
            options[name] = getattr(module, name)
    for name, option in (("_terms", "terms"), ("_initialization", "initialization")):
        if getattr(module, name) is not None and option not in options and "channels" not in options:
            options[option] = getattr(module, name)
    usual = {"channel_dim": 1, "wanted_engine": "auto", "dim": None, "gate_first": None, "interleaved": False}
    for name, default in usual.items():
        if getattr(module, name, default) != default:
            options["engine" if name == "wanted_engine" else name] = getattr(module, name)
    options.update(_numbers(module))
    if isinstance(module, GatedBy):
        return module.gate, {**options, "gated": True}
    return module.spec.name, options


def _numbers(module: Activation) -> dict[str, float]:
    """Return the values that the state dict does not have, or that have no default."""
    numbers: dict[str, float] = {}
    for param in stored(module.spec):
        value = getattr(module, param.name)
        if not isinstance(value, Tensor):
            numbers[param.name] = value
        elif param.default is None and not param.vector:
            numbers[param.name] = float(value.detach().reshape(-1)[0])
    return numbers


def _read(entry: dict[str, Any]) -> Entry:
    place = dict(entry["place"])
    # JSON has lists where places have tuples.
    for name in ("source", "product"):
        place[name] = None if place[name] is None else tuple(place[name])
    for name in ("inner", "calls"):
        place[name] = tuple((str(function), int(number)) for function, number in place.get(name, ()))
    return Entry(**{**entry, "place": Place(**place)})


def _check_places(model: nn.Module, swap: tuple[Entry, ...]) -> None:
    """Refuse a model of another architecture.

    Raises:
        UsageError: Naming the first place that it has not.
    """
    paths = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for entry in swap:
        for path in (entry.place.owner, entry.place.module):
            if path not in paths:
                raise UsageError(f"the model has no module {path!r}, at which the recipe puts {entry.activation}")


def _make(model: nn.Module, swap: tuple[Entry, ...]) -> dict[Place, nn.Module]:
    instances: dict[int, nn.Module] = {}
    for entry in swap:
        if entry.instance not in instances:
            made = [_create(entry) for _ in range(max(1, entry.experts))]
            for one in made:
                join(one, model, entry.place.owner)
            instances[entry.instance] = Experts(made) if entry.experts else made[0]
    return {entry.place: instances[entry.instance] for entry in swap}


def _create(entry: Entry) -> nn.Module:
    options = dict(entry.options)
    return GatedBy(entry.activation, **options) if options.pop("gated", False) else create(entry.activation, **options)
