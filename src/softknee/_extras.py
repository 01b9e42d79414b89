"""One helper for optional dependencies, so that a missing one always names the extra that brings it."""

from __future__ import annotations

import importlib
from typing import Any

from softknee._errors import MissingExtra


def require(module: str, *, extra: str) -> Any:
    """Import `module`, or raise `MissingExtra` naming the extra to install.

    Args:
        module: Dotted name, for example `"scipy.stats"`.
        extra: The extra of softknee that depends on it, for example `"bench"`.

    Returns:
        The imported module.

    Raises:
        MissingExtra: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{module.partition('.')[0]} is not installed; `pip install 'softknee[{extra}]'` brings it"
        ) from error
