"""Saves and loads swapped models of transformers: the recipe of the swaps stands beside the checkpoint."""

from __future__ import annotations

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
# How transformers calls the files of a checkpoint, but for `.safetensors`.
_WEIGHTS = "model"


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
        kind: The class that was saved, or one that makes it, such as `AutoModelForCausalLM`.
        folder: Where from.
        **options: Of the class's own `from_pretrained`.

    Returns:
        The model in eval mode, as transformers returns it.

    Raises:
        UsageError: There is no recipe in the folder, the model is another one, or the checkpoint lacks a parameter of
            an activation.
        MissingExtra: safetensors is not installed.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {RECIPE}; save the model with softknee.integrations.pretrained.save_pretrained"
        )
    recipe = Recipe.load(path)
    model: nn.Module = kind.from_pretrained(folder, **options)
    loaded = model.state_dict(keep_vars=True)
    model = recipe.apply(model)
    # What is new, also under a name that was there before.
    wanted = {name for name, one in model.state_dict(keep_vars=True).items() if loaded.get(name) is not one}
    saved = _read(Path(folder), wanted, options.get("variant"))
    missing = sorted(wanted - set(saved))
    if missing:
        raise UsageError(
            f"the checkpoint in {folder} lacks {', '.join(missing)} of the activations that {RECIPE} puts in; "
            "save both by softknee.integrations.pretrained.save_pretrained"
        )
    model.load_state_dict(saved, strict=False)
    return model


def _read(folder: Path, names: set[str], variant: str | None) -> dict[str, Tensor]:
    """Return tensors of a checkpoint by their names, from whichever of its files they are in."""
    safe_open = require("safetensors", extra="transformers").safe_open
    stem = f"{_WEIGHTS}.{variant}" if variant else _WEIGHTS
    found: dict[str, Tensor] = {}
    for path in [*folder.glob(f"{stem}.safetensors"), *folder.glob(f"{stem}-*.safetensors")]:
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in names.intersection(file.keys())}
    return found
