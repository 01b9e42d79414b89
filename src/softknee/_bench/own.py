"""Protocols of one's own: read from a file, and checked before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from softknee._bench.model import build_model, example_shape
from softknee._bench.protocol import Cell, Protocol, Recipe, Tuning
from softknee._catalogue import parse_choice
from softknee._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from softknee._bench.protocol import Frozen, ModelName, TaskName

# Of the files that protocols are read from.
SUFFIX = ".toml"
# Names become folders.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Seeds of tuning runs begin here, so that no study evaluates them.
FIRST_TUNING_SEED = 1_000_000


@dataclass(frozen=True)
class Fit:
    """What a task asks of a recipe.

    Attributes:
        inputs: First of its widths.
        outputs: Last of its widths.
        models: Those that take its examples.
        drawn: Whether every step draws new examples, so that an epoch has as many steps as are said.
        held: Whether a part can be held out to tune rates on.
    """

    inputs: int
    outputs: int
    models: tuple[ModelName, ...]
    drawn: bool = False
    held: bool = True


_ROWS: tuple[ModelName, ...] = ("mlp", "normed-mlp")
_GREY: tuple[ModelName, ...] = (*_ROWS, "cnn", "resnet", "vit", "gru")
_COLOUR: tuple[ModelName, ...] = ("resnet20", "vgg16-bn", "mobilenetv2")
FITS: Mapping[TaskName, Fit] = MappingProxyType(
    {
        "fashion-mnist": Fit(784, 10, _GREY),
        "digits": Fit(64, 10, _GREY),
        "cifar10": Fit(3072, 10, _COLOUR),
        "cifar100": Fit(3072, 100, _COLOUR),
        "fashion-rgb": Fit(3072, 10, _COLOUR),
        "mnist1d": Fit(40, 10, (*_ROWS, "cnn-1d")),
        "breast-cancer": Fit(30, 2, _ROWS),
        "gmm-2d": Fit(2, 5, _ROWS),
        "text": Fit(64, 256, ("gpt",), drawn=True),
        "regression-1d": Fit(1, 1, _ROWS, drawn=True, held=False),
        "regression-2d": Fit(2, 1, _ROWS, drawn=True, held=False),
        # A batch norm would mix the points whose derivatives are taken.
        "poisson": Fit(2, 1, ("mlp",), drawn=True, held=False),
    }
)
# Fields that say nothing elsewhere, with the field and its values that they go with.
GOES_WITH: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "momentum": ("optimizer", ("sgd",)),
        "shared_activation": ("model", ("mlp", "cnn")),
        "augmented": ("model", _COLOUR),
        "normalization": ("task", ("cifar10",)),
        "shortcut": ("model", ("resnet20",)),
        "expand_first": ("model", ("mobilenetv2",)),
        "head_dropout": ("model", ("mobilenetv2",)),
        "dropout": ("model", ("normed-mlp",)),
        "place": ("model", ("gru",)),
    }
)
_PARTS: Mapping[str, type[Frozen]] = MappingProxyType({"recipe": Recipe, "cells": Cell, "tuning": Tuning})
# What TOML calls what pydantic calls otherwise.
_KINDS: Mapping[str, str] = MappingProxyType({"tuple_type": "a list", "model_type": "a table"})


def read_protocol(path: Path) -> Protocol:
    """Read a protocol from a file of TOML, with the fields of `Protocol`; `check_protocol` does the rest.

    Args:
        path: Of the file.

    Returns:
        The protocol.

    Raises:
        UsageError: There is no such file, it is no TOML, or a field is missing, unknown or has a value it cannot have;
            or this Python is 3.10, which reads no TOML.
    """
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path}: protocols are read from files with Python 3.11 or later; make a softknee.Protocol instead"
        ) from error
    if not path.is_file():
        raise UsageError(f"{path}: no such file; a protocol of one's own is a file of TOML, see docs/protocols.md")
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the text, or of its encoding
        raise UsageError(f"{path}: no TOML: {error}") from error
    try:
        return Protocol.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_fault(error)}") from None


def check_protocol(protocol: Protocol, *, taken: Collection[str], where: str) -> Protocol:
    """Return a protocol of one's own if it can be run as it is.

    Args:
        protocol: It.
        taken: Names that are no longer free, in lower case.
        where: What messages begin with: its file, or its name.

    Returns:
        The same.

    Raises:
        UsageError: Naming the field, what it has and what it may have.
    """
    faults = [
        *_name_faults(protocol.name, taken),
        *_recipe_faults(protocol.recipe),
        *_condition_faults(protocol),
        *_tuning_faults(protocol),
    ]
    if faults:
        raise UsageError(f"{where}: {faults[0]}")
    _build(protocol.recipe, where)
    return protocol


def _first_fault(error: ValidationError) -> str:
    """Return the first fault of fields in one line."""
    fault = error.errors()[0]
    *parents, field = (str(part) for part in fault["loc"])
    owner = _PARTS[parents[0]] if parents and parents[0] in _PARTS else Protocol
    path = ".".join((*parents, field))
    if fault["type"] == "extra_forbidden":
        hint = did_you_mean(field, owner.model_fields) or ";"
        return f"{path}: no such field{hint} there are {', '.join(owner.model_fields)}"
    kind = _KINDS.get(fault["type"])
    said = f"input should be {kind}" if kind else f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
    return f"{path}: {said}" if fault["type"] == "missing" else f"{path}: {said}, got {fault['input']!r}"


def _name_faults(name: str, taken: Collection[str]) -> list[str]:
    if not NAME.fullmatch(name):
        return [f"name: up to 64 letters, digits, - and _, since it names a folder; got {name!r}"]
    return [f"name: {name!r} is one of softknee's own; give another"] if name.lower() in taken else []


def _recipe_faults(recipe: Recipe) -> list[str]:
    fit, widths = FITS[recipe.task], recipe.widths
    faults = []
    if recipe.model not in fit.models:
        faults.append(f"recipe.model: {recipe.task} is for {' or '.join(fit.models)}, got {recipe.model!r}")
    if (widths[:1], widths[-1:]) != ((fit.inputs,), (fit.outputs,)):
        ends = f"begins with {fit.inputs} and ends with {fit.outputs}"
        faults.append(f"recipe.widths: for {recipe.task} it {ends}, got {list(widths)}")
    if (len(widths) < 3) != (recipe.model in _COLOUR) or (len(widths) > 3 and recipe.model == "gru"):
        number = {"gru": "three"}.get(recipe.model, "two" if recipe.model in _COLOUR else "three or more")
        faults.append(f"recipe.widths: {number} for {recipe.model}, got {list(widths)}")
    if fit.drawn and not recipe.steps:
        faults.append(f"recipe.steps: {recipe.task} draws new examples for every step; say how many an epoch has")
    if not fit.drawn and recipe.steps:
        faults.append(f"recipe.steps: an epoch of {recipe.task} goes through all examples; leave it out")
    for name, (other, values) in GOES_WITH.items():
        if getattr(recipe, name) != Recipe.model_fields[name].default and getattr(recipe, other) not in values:
            faults.append(f"recipe.{name}: goes with {other} {' or '.join(values)}; leave it out")
    return faults


def _condition_faults(protocol: Protocol) -> list[str]:
    names = [cell.name for cell in protocol.cells]
    faults = []
    if len(set(names)) < max(len(names), 1):
        faults.append(f"cells: at least one, and each with a name of its own; got {names}")
    if any(cell.initialization == "matched" for cell in protocol.cells) and protocol.recipe.model != "mlp":
        faults.append(f"cells: a matched initialization goes with model mlp alone, got {protocol.recipe.model!r}")
    if len(set(protocol.seeds)) < len(protocol.seeds):
        faults.append(f"seeds: each of them once, got {list(protocol.seeds)}")
    if protocol.budget is not None and protocol.budget < 1:
        faults.append(f"budget: at least 1, which is a model without activation parameters; got {protocol.budget:g}")
    unknown = [name for name in protocol.options if name not in Recipe.model_fields]
    if unknown:
        faults.append(f"options: {unknown[0]!r} is no field of a recipe; there are {', '.join(Recipe.model_fields)}")
    return faults


def _tuning_faults(protocol: Protocol) -> list[str]:
    tuned, tuning = any(cell.rate == "tuned" for cell in protocol.cells), protocol.tuning
    faults = []
    if tuned and not FITS[protocol.recipe.task].held:
        faults.append(f"cells: {protocol.recipe.task} has no part to hold out, so that rates cannot be tuned on it")
    if tuned != (tuning is not None):
        faults.append("tuning: goes with a cell whose rate is tuned, and such a cell with it; [tuning] may be empty")
    if tuning is None:
        return faults
    if len(tuning.grid) < 2 or any(low >= high for low, high in pairwise(tuning.grid)):
        faults.append(f"tuning.grid: two rates or more, ascending; got {list(tuning.grid)}")
    if tuning.trials < len(tuning.grid):
        faults.append(f"tuning.trials: at least the {len(tuning.grid)} of the grid, got {tuning.trials}")
    fresh = {seed for seed in tuning.seeds if seed >= FIRST_TUNING_SEED} - {*protocol.seeds}
    if not tuning.seeds or len(fresh) < len(tuning.seeds):
        faults.append(
            f"tuning.seeds: one or more, each once, from {FIRST_TUNING_SEED} on and none that is evaluated; got "
            f"{list(tuning.seeds)}"
        )
    return faults


def _build(recipe: Recipe, where: str) -> None:
    """Build the model once with ReLU, which fits any that can be built.

    Raises:
        UsageError: Its widths do not fit one another.
    """
    try:
        build_model(recipe, parse_choice("relu"), seed=0).eval()(torch.zeros(1, *example_shape(recipe)))
    except Exception as error:  # whatever layers say of sizes that they cannot have
        raise UsageError(
            f"{where}: recipe.widths: no {recipe.model} can be built of {list(recipe.widths)}: {error}"
        ) from error
