"""The next byte of texts: sources of the running Python's own library, or a folder's."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from softknee._bench.examples import Examples
from softknee._bench.task import Facts, Task
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from softknee._bench.runs import Split

LIBRARY = "library"
# Values of a byte, and their bits.
BYTES, BITS = 256, 8
# Of ten files, one is evaluated on and one held out.
SHARES = {"test": (0.0, 0.1), "validation": (0.1, 0.2), "train": (0.2, 1.0)}
# Bytes of a folder that are read at most; texts beyond are left out.
MOST = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Windows(Examples):
    """New windows of a text for every step: cross entropy of the next bytes, and what a code by them would save.

    Attributes:
        text: `(n,)` uint8, to train on.
    """

    text: Tensor

    @property
    def input_square(self) -> float:
        """Mean square of what a layer that embeds bytes makes of them by default."""
        return 1.0

    def batches(self, order: torch.Generator, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield windows from anywhere in the text and the bytes behind each of theirs, `steps` times."""
        context = self.test_inputs.shape[1]
        places = torch.arange(context + 1)
        for _ in range(steps):
            starts = torch.randint(len(self.text) - context, (batch_size, 1), generator=order)
            windows = self.text[starts + places].long()
            yield windows[:, :-1], windows[:, 1:]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits `(n, context, 256)`, in nats per byte."""
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of each window, in nats per byte."""
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(1)

    def score(self, mean: float) -> float:
        """Return the bits that are saved of the eight of a byte."""
        return BITS - mean / log(2)

    def final_fields(self, outputs: Tensor) -> dict[str, Any]:
        """Return how often the likeliest byte is the right one."""
        hits = (outputs.argmax(2) == self.test_targets).double().mean().item()
        return {"next_byte_accuracy": 100 * hits, "test_size": len(outputs)}

    def drawn(self, outputs: Tensor) -> list[Any]:
        """Return the likeliest byte at the end of each window."""
        return outputs[:, -1].argmax(1).tolist()


@dataclass(frozen=True)
class Text(Task):
    """Files of text, told apart by their names into those to train on, to hold out and to evaluate on.

    Attributes:
        context: Bytes of a window.
        windows: How many are evaluated on, at even distances.
    """

    given: ClassVar[bool] = True

    context: int
    windows: int

    def source(self, asked: str | Path | None) -> str:
        """Return where the text comes from: the library by default; folders as full paths."""
        return LIBRARY if asked is None else str(Path(asked).resolve())

    def facts(self, source: str) -> Facts:
        """Return the checksum of all files, and how much they hold."""
        texts = _texts(source)
        whose = f"Python {platform.python_version()}'s library" if source == LIBRARY else Path(source).name
        sizes = {part: len(_joined(texts, part)) for part in SHARES}
        about = (
            f"Bytes of {len(texts):,} files of {whose}, divided by their names: {sizes['train']:,} to train on, "
            f"{sizes['validation']:,} held out, {sizes['test']:,} to evaluate on. Every step draws new windows of "
            f"{self.context}; the saving is taken over {self.windows:,} windows at even distances."
        )
        digest = hashlib.sha256()
        for name, stream in texts:
            digest.update(b"%d %s %d " % (len(name), name.encode(), len(stream)) + stream)
        return Facts("library" if source == LIBRARY else "folder", digest.hexdigest(), None, self.windows, about)

    def load(self, source: str, split: Split) -> Windows:
        """Return the text and the windows.

        Raises:
            DataError: A part of it is shorter than a window.
        """
        texts = _texts(source)
        text, held = (torch.tensor(_joined(texts, part)) for part in ("train", split))
        if min(len(text), len(held)) <= self.context:
            raise DataError(f"{source}: too little text; each part of its files needs {self.context + 1} bytes")
        starts = torch.linspace(0, len(held) - self.context - 1, self.windows).long()[:, None]
        windows = held[starts + torch.arange(self.context + 1)].long()
        return Windows(
            fingerprint=self.facts(source).fingerprint,
            test_inputs=windows[:, :-1],
            test_targets=windows[:, 1:],
            text=text,
        )


@lru_cache(maxsize=2)
def _texts(source: str) -> tuple[tuple[str, bytes], ...]:
    """Return the names and contents of the files, in the order of their names' hashes.

    Raises:
        DataError: There is no such folder, or no text in it.
    """
    library = source == LIBRARY
    folder = Path(sysconfig.get_path("stdlib")) if library else Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --data takes a folder with texts, or nothing for Python's library")
    # Of the library only what is everywhere: no tests, no packages that were installed.
    paths = [path for path in folder.glob("*.py" if library else "**/*") if path.is_file()]
    found: dict[str, bytes] = {}
    size = 0
    # Not in the order of their places, by which the last part would be left out before any other.
    for path in sorted(paths, key=lambda path: _digest(path.relative_to(folder).as_posix())[::-1]):
        if size + path.stat().st_size > MOST:
            continue
        stream = path.read_bytes()
        if stream and _is_text(stream):
            found[path.relative_to(folder).as_posix()] = stream
            size += len(stream)
    if not found:
        raise DataError(f"{folder}: no texts; expected files in UTF-8")
    return tuple((name, found[name]) for name in sorted(found, key=_place))


def _place(name: str) -> float:
    """Return where a file stands between 0 and 1: the same whatever other files there are."""
    return int.from_bytes(_digest(name)[:6], "big") / 2**48


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _is_text(stream: bytes) -> bool:
    try:
        return "\0" not in stream.decode()
    except UnicodeDecodeError:
        return False


def _joined(texts: tuple[tuple[str, bytes], ...], part: str) -> NDArray[np.uint8]:
    low, high = SHARES[part]
    return np.frombuffer(b"".join(stream for name, stream in texts if low <= _place(name) < high), np.uint8)
