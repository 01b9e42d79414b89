"""Generated Python as a module: Triton compiles functions from the lines of a file, never from a string."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from softknee._engine.build import cache_folder

if TYPE_CHECKING:
    from types import ModuleType


@cache
def import_source(source: str) -> ModuleType:
    """Return the module made from a source, kept in the user's cache folder under a name that hashes it.

    Args:
        source: Python that only imports and defines.

    Returns:
        The module; the same one for the same source.

    Raises:
        ImportError: The module cannot be made.
    """
    name = f"softknee_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    spec = importlib.util.spec_from_file_location(name, _written(source, cache_folder() / f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be imported from {cache_folder()}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _written(source: str, path: Path) -> Path:
    """Return where the source is; it is moved in as a whole, for two processes may write it at once."""
    if _text_of(path) == source:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, made = tempfile.mkstemp(dir=path.parent, suffix=".py")
    except OSError:
        # A cache that cannot be written to costs time, nothing else.
        folder = tempfile.mkdtemp(prefix="softknee-")
        path = Path(folder) / path.name
        handle, made = tempfile.mkstemp(dir=folder, suffix=".py")
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(source)
    Path(made).replace(path)
    return path


def _text_of(path: Path) -> str | None:
    """Return what is in a file, None where there is none that could be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
