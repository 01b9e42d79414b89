"""A suite's folder as data: `suite.json`, and a folder for each study."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._bench.study_files import MANIFEST, SCHEMA, read_checked
from softknee._errors import StudyMismatch, UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from softknee._bench.suite import Suite

SUITE = "suite.json"


@dataclass(frozen=True)
class SuiteFiles:
    """What a suite's folder says.

    Attributes:
        folder: Where it lies.
        manifest: The content of `suite.json`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def studies(self) -> list[Path]:
        """The folders of those of its studies that have begun, in order."""
        return [self.folder / name for name in self.manifest["studies"] if name not in self.waiting]

    @property
    def waiting(self) -> list[str]:
        """The names of the others."""
        return [name for name in self.manifest["studies"] if not (self.folder / name / MANIFEST).is_file()]


def is_suite(folder: Path) -> bool:
    """Return whether a folder is a suite's."""
    return (folder / SUITE).is_file()


def read_suite(folder: Path) -> SuiteFiles:
    """Read a suite's folder.

    Args:
        folder: The output folder of a suite.

    Returns:
        Its content.

    Raises:
        UsageError: There is none, it is damaged or was written by another version.
    """
    if not is_suite(folder):
        raise UsageError(
            f"no suite in {str(folder)!r}: it holds no {SUITE}; give the output folder of `softknee bench`"
        )
    manifest = read_checked(folder / SUITE)
    if not {"suite", "studies"} <= manifest.keys():
        raise UsageError(f"{str(folder / SUITE)!r} is damaged: it lacks its suite or its studies")
    return SuiteFiles(folder, manifest)


def write_suite(folder: Path, suite: Suite, studies: Sequence[str]) -> None:
    """Write `suite.json`; studies that were there before stay.

    Args:
        folder: Of the suite.
        suite: What it is.
        studies: Names of the folders of its studies.

    Raises:
        StudyMismatch: The folder holds another suite, or a single study, whose report a suite's would replace.
    """
    before: list[str] = []
    if (folder / MANIFEST).is_file():
        raise StudyMismatch(
            f"{folder} holds a single study, asked for the suite {suite.name}; give another folder as out"
        )
    if is_suite(folder):
        held = read_suite(folder).manifest
        if held["suite"]["name"] != suite.name:
            raise StudyMismatch(
                f"{folder} holds another suite: {held['suite']['name']}, asked for {suite.name}; give another folder "
                "as out"
            )
        before = held["studies"]
    names = [name for name in suite.members(final=True) if name in {*before, *studies}]
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "suite": suite.model_dump(mode="json"), "studies": names}
    write_atomic(folder / SUITE, json.dumps(content))
