"""Reads somebody's batches so that they come again the same, whatever else draws random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from softknee._errors import DataError, UsageError
from softknee.nn.values import excerpt

# Parts of a DataLoader that may have a generator of their own.
_PARTS = ("", "sampler", "batch_sampler", "batch_sampler.sampler")
_END = object()


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Have torch's global random states begin from a seed; they are afterwards as before.

    Args:
        seed: For the CPU and all devices.

    Yields:
        Nothing.
    """
    # Devices that nobody uses yet have no state to keep.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(list(devices)):
        reseed(seed)
        yield


def reseed(seed: int) -> None:
    """Seed torch's global random states.

    Args:
        seed: For the CPU, and for all devices if some are in use: `torch.manual_seed` takes a while to remember the
            seed for devices that may be used one day, which matters before each epoch of a small model.
    """
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class RandomState:
    """Torch's global random state, as it is now.

    Args:
        devices: CUDA devices that it is also about.
    """

    def __init__(self, devices: tuple[int, ...] = ()) -> None:
        self.devices = devices
        self.tensors = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]

    def restore(self) -> None:
        """Make it the state again."""
        torch.set_rng_state(self.tensors[0])
        for device, state in zip(self.devices, self.tensors[1:], strict=True):
            torch.cuda.set_rng_state(state, device)


def apart(batches: Iterable[Any], seed: int, devices: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield batches that draw from a random state of their own, so that what is done with them does not change them.

    Args:
        batches: Any that can be read again.
        seed: Of torch's global random state, and of generators that a DataLoader has.
        devices: CUDA devices with states that they may draw from.

    Yields:
        Its batches.
    """
    if isinstance(batches, list | tuple):
        yield from batches
        return
    iterator: Iterator[Any] | None = None
    inside: RandomState | None = None
    while True:
        # Never left to the generator's end, which comes whenever it is collected.
        outside = RandomState(devices)
        try:
            if inside is None or iterator is None:
                reseed(seed)
                for generator in _generators(batches):
                    generator.manual_seed(seed)
                iterator = iter(batches)
            else:
                inside.restore()
            batch = next(iterator, _END)
            inside = RandomState(devices)
        finally:
            outside.restore()
        if batch is _END:
            return
        yield batch


def count(name: str, batches: Any) -> int:
    """Return how many batches there are; without a length they are read once.

    Args:
        name: Of the argument.
        batches: What was given.

    Returns:
        At least 1.

    Raises:
        UsageError: It is nothing that batches can be read from again and again.
        DataError: It is empty.
    """
    if not isinstance(batches, Iterable) or isinstance(batches, str | bytes | Mapping):
        raise UsageError(f"{name} must be a list of batches, a DataLoader or the like, got {excerpt(batches)}")
    if isinstance(batches, Iterator):
        raise UsageError(f"{name} can be read only once ({type(batches).__name__}); give a list or a DataLoader")
    with drawing(0):
        number = _length(batches)
        if number is None:
            number = sum(1 for _ in batches)
        elif number:
            number *= sum(1 for _ in islice(batches, 1))
    if not number:
        raise DataError(f"{name} is empty: it yields no batch")
    return number


def _length(batches: Iterable[Any]) -> int | None:
    if not isinstance(batches, Sized):
        return None
    try:
        return len(batches)
    except TypeError:  # a DataLoader of a stream has a length that cannot be asked for
        return None


def _generators(batches: Any) -> set[torch.Generator]:
    found = set()
    for path in _PARTS:
        part = batches
        for name in filter(None, path.split(".")):
            part = getattr(part, name, None)
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            found.add(generator)
    return found
