"""Pickled dictionaries with tables of bytes, read without running anything that a pickle asks for.

A pickle is a program: it names functions and calls them. The published files of CIFAR name three, all of numpy's. Here
these three names are let through, nothing is imported or called, and what comes out is a record of what was asked for;
an array is made of such a record only if it describes a table of bytes and nothing else.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ALLOWED = frozenset({"numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"})


def read_pickled(stream: bytes, path: Path) -> dict[Any, Any]:
    """Decode a pickled dictionary, as Python 2 and numpy wrote them.

    Args:
        stream: The file.
        path: Where it is from, for messages.

    Returns:
        The dictionary: Python 2's strings as bytes, tables as `(rows, columns)` uint8 arrays.

    Raises:
        DataError: It asks for anything but an array, holds an array of something else than bytes or not of two
            dimensions, or is no pickled dictionary.
    """
    try:
        content = _Unpickler(stream, path).load()
    except DataError:
        raise
    # Damaged pickles raise almost anything.
    except Exception as error:
        raise DataError(f"{path}: expected a pickled dictionary, got something unreadable ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a pickled dictionary, got {type(content).__name__}")
    return {key: _table(value, path) if isinstance(value, _Call) else value for key, value in content.items()}


@dataclass(frozen=True)
class _Name:
    """A name a pickle asks for, in place of what goes by it; calls are written down."""

    name: str

    def __call__(self, *arguments: object) -> _Call:
        return _Call(self.name, arguments)


@dataclass
class _Call:
    """A call a pickle asks for, and the state it gives to the outcome."""

    name: str
    arguments: tuple[object, ...]
    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):  # noqa: S301 - it finds nothing to run
    def __init__(self, stream: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(stream), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> _Name:
        asked = f"{module}.{name}"
        if asked not in ALLOWED:
            raise DataError(f"{self._path}: asks to run {asked}, which published data never do; nothing was run")
        return _Name(asked)


def _table(call: _Call, path: Path) -> NDArray[np.uint8]:
    match call:
        case _Call(
            name="numpy.core.multiarray._reconstruct",
            state=(_, (int() as rows, int() as columns), _Call("numpy.dtype", (b"u1", *_)), fortran, bytes() as values),
        ) if min(rows, columns) >= 0 and rows * columns == len(values):
            table = np.frombuffer(values, np.uint8)
            return table.reshape((rows, columns), order="F" if fortran else "C")
    raise DataError(f"{path}: expected arrays of two dimensions and unsigned bytes, got another object of {call.name}")
