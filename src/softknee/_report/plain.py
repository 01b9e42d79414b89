"""Results as plain data, which JSON has: numbers that are finite, texts, lists and dictionaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any


def finite(value: float | None) -> float | None:
    """Return a number that JSON has, None for others."""
    return value if value is not None and math.isfinite(value) else None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return results as plain data, with None for what is not finite.

    Args:
        values: By name: numbers, texts, None; dataclasses, by their fields; mappings and sequences of all these.

    Returns:
        The same as dictionaries and lists.

    Raises:
        TypeError: Something else is among them.
    """
    return {str(name): _plain(one) for name, one in values.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return plain(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain({one.name: getattr(value, one.name) for one in fields(value)})
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    raise TypeError(f"results are plain data, got {type(value).__name__}")
