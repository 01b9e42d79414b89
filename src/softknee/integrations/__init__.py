"""softknee beside other libraries. Each is an optional extra, imported only where it is used.

`softknee.integrations.transformers`, `.lightning`, `.tensorboard` and `.wandb` hold what belongs to one of them,
`.pretrained` saves and loads swapped models of transformers. `ActivationRecorder` records the activations of any
training loop, and `JsonLines` writes that to a file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softknee._diagnose.units.histogram import Histogram
    from softknee.integrations import lightning, pretrained, tensorboard, transformers, wandb
    from softknee.integrations._loggers import JsonLines, Logger
    from softknee.integrations._recorder import ActivationRecorder

_HOMES = {
    "ActivationRecorder": "softknee.integrations._recorder",
    "Histogram": "softknee._diagnose.units.histogram",
    "JsonLines": "softknee.integrations._loggers",
    "Logger": "softknee.integrations._loggers",
}
_NAMESPACES = ("lightning", "pretrained", "tensorboard", "transformers", "wandb")

__all__ = [
    "ActivationRecorder",
    "Histogram",
    "JsonLines",
    "Logger",
    "lightning",
    "pretrained",
    "tensorboard",
    "transformers",
    "wandb",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return import_module(f"softknee.integrations.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'softknee.integrations' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
