"""The class that a submission defines: imported, made, and built to the end. For child processes only."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from softknee._bench.streams import Stream, stream_seed
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from softknee._bench.submission import Submission

CLASS = "CustomActivation"
# Examples of the dry forward pass, and the index of its stream.
DRY_BATCH, DRY = 16, 1


@lru_cache(maxsize=1)
def load_class(path: Path) -> type[nn.Module]:
    """Import a submission and return its class.

    Args:
        path: Of the file.

    Returns:
        The class.

    Raises:
        UsageError: The file defines none, or one of another kind; what its code raises is passed on.
    """
    # Whatever the file is called: dots and hyphens are fine here, and nothing else has this name.
    name = f"submission of {path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - the file ends in .py or is read as if it did
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, CLASS, None)
    if found is None:
        raise UsageError(f"it defines no class {CLASS}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UsageError(f"its {CLASS} is no subclass of torch.nn.Module")
    return found


def make(submission: Submission) -> nn.Module:
    """Make a new instance, as a place of a model gets it; what it draws comes from the global generator."""
    return load_class(submission.path)()


@torch.no_grad()
def build_lazy(model: nn.Module, *, shape: Sequence[int], seed: int) -> None:
    """Let activations build what they build when they first see their input, by a forward pass on noise.

    Without it, such parameters would be missing from every count and from the optimizer. The pass is in training mode;
    statistics of batches are put back behind it.

    Args:
        model: Changed in place.
        shape: Of an example.
        seed: Of the run; what is drawn comes from the stream of its activations.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if not is_lazy(buffer)}
    mode = model.training
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION, DRY))
        # Between 0 and 1, which texts, too, can be embedded from.
        model.train()(torch.rand(DRY_BATCH, *shape))
    model.train(mode)
    for name, buffer in model.named_buffers():
        if name in before and buffer.shape == before[name].shape:
            buffer.copy_(before[name])
