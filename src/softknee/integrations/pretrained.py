"""Saves and loads swapped models of transformers: the recipe of the swaps stands beside the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._errors import UsageError
from softknee._extras import require
from softknee._surgery.recipe import Recipe

if TYPE_CHECKING:
    import os

    from torch import Tensor, nn

# Of the recipe, in the folder of a checkpoint.
RECIPE = "softknee.json"
_WEIGHTS = "model.safetensors"


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """Save a swapped model as transformers does, with the recipe of its swaps as `softknee.json`.

    Args:
        model: A model of transformers, swapped by `softknee.swap`.
        folder: Where to.
        **options: Of the model's own `save_pretrained`.

    Raises:
        UsageError: Nothing was swapped in the model, or it cannot be written into a recipe.
    """
    recipe = Recipe.of(model)
    model.save_pretrained(folder, **options)
    recipe.save(Path(folder) / RECIPE)


def from_pretrained(kind: Any, folder: str | os.PathLike[str], **options: Any) -> Any:
    """Load a model saved by `save_pretrained`, with its activations.

    Transformers notes, while it loads, that it does not know the parameters of the activations; they are loaded after.

    Args:
        kind: A class of transformers, such as `AutoModelForCausalLM`.
        folder: Where from.
        **options: Of the class's own `from_pretrained`.

    Returns:
        The model in eval mode, as transformers returns it.

    Raises:
        UsageError: There is no recipe in the folder, or the checkpoint lacks a parameter of an activation.
        MissingExtra: safetensors is not installed.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {RECIPE}; save the model with softknee.integrations.pretrained.save_pretrained"
        )
    recipe = Recipe.load(path)
    model: nn.Module = kind.from_pretrained(folder, **options)
    known = set(model.state_dict())
    model = recipe.apply(model)
    wanted = set(model.state_dict()) - known
    saved = _read(Path(folder), wanted)
    missing = sorted(wanted - set(saved))
    if missing:
        raise UsageError(f"the checkpoint in {folder} lacks {missing[0]} and {len(missing) - 1} other parameters")
    model.load_state_dict(saved, strict=False)
    return model


def _read(folder: Path, names: set[str]) -> dict[str, Tensor]:
    """Return tensors of a checkpoint by their names, from whichever of its files they are in."""
    safetensors = require("safetensors.torch", extra="transformers")
    index = folder / f"{_WEIGHTS}.index.json"
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else {}
    files = {shards.get(name, _WEIGHTS) for name in names}
    found: dict[str, Tensor] = {}
    for file in sorted(files):
        found.update({name: one for name, one in safetensors.load_file(folder / file).items() if name in names})
    return found
