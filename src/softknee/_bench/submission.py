"""A user's file that defines an activation: how it is called and where it is kept. Nothing here runs it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from softknee._catalogue import Choice, parse_choice
from softknee._errors import UsageError
from softknee._report.files import write_atomic

# Before a path, and before the name of a file that a study keeps.
PREFIX = "submission:"
# Digits of the checksum that are shown.
SHOWN = 8
_KEPT = re.compile(rf"(?P<name>[\w.-]+)@(?P<digits>[0-9a-f]{{{SHOWN}}})")


@dataclass(frozen=True)
class Submission:
    """An activation that a file defines as a class `CustomActivation`.

    The file is known by its content, so that an edited one is another activation.

    Attributes:
        name: The file's, without its ending.
        source: Its content.
        path: Where it was read.
    """

    name: str
    source: bytes = field(repr=False)
    path: Path = field(compare=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def label(self) -> str:
        """What it is called in a study; `parse_entry` of it gives the same submission there."""
        return f"{PREFIX}{self.name}@{self.digest[:SHOWN]}"

    @property
    def definition(self) -> str:
        """What the label stands for."""
        return f"sha256:{self.digest}"

    def is_kept(self, folder: Path) -> bool:
        """Return whether the folder of a study keeps the file."""
        return _copy(folder, self.digest[:SHOWN]).is_file()

    def keep(self, folder: Path) -> None:
        """Put a copy into the folder of a study, unless it is there."""
        if not self.is_kept(folder):
            write_atomic(_copy(folder, self.digest[:SHOWN]), self.source)


# What stands in a comparison.
Entry: TypeAlias = Choice | Submission


def is_submission(activation: str) -> bool:
    """Return whether a text names a submission."""
    return activation.startswith(PREFIX)


def parse_entry(text: str, folder: Path) -> Entry:
    """Read an activation, or a submission.

    Args:
        text: As `parse_choice` takes it; or `submission:` and a path, or the label of a submission.
        folder: Of the study, which keeps those with labels.

    Returns:
        It; of a submission nothing but the file has been looked at.

    Raises:
        UsageError: The text is none, or there is no such file.
    """
    if not (isinstance(text, str) and is_submission(text)):
        return parse_choice(text)
    what = text.removeprefix(PREFIX)
    kept = _KEPT.fullmatch(what)
    return read_submission(Path(what)) if kept is None else _kept(text, kept["name"], kept["digits"], folder)


def read_submission(path: Path) -> Submission:
    """Read a file that defines an activation, without running it.

    Args:
        path: Of the file.

    Returns:
        It.

    Raises:
        UsageError: There is no such file, or its name does not end in `.py`.
    """
    if path.suffix != ".py":
        raise UsageError(f"a submission is a file whose name ends in .py, got {str(path)!r}")
    if not path.is_file():
        raise UsageError(f"{path}: no such file; a submission is one that defines CustomActivation, see docs/mls.md")
    name = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII)
    return Submission(name, path.read_bytes(), path)


def _kept(label: str, name: str, digits: str, folder: Path) -> Submission:
    path = _copy(folder, digits)
    if not path.is_file():
        raise UsageError(f"{label} is not in {folder}, which should hold it as {path.name}")
    found = Submission(name, path.read_bytes(), path)
    if found.label != label:
        raise UsageError(f"{path} was changed: its checksum begins with {found.digest[:SHOWN]}, not with {digits}")
    return found


def _copy(folder: Path, digits: str) -> Path:
    return folder / f"submission-{digits}.py"
