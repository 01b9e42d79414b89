"""What a search has found out so far, in a folder that survives the death of its process, or in memory."""

from __future__ import annotations

import json
import math
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from softknee._bench.lock import only_process
from softknee._bench.study_files import RUNS
from softknee._errors import DataError, UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

SETTINGS = "settings"
STATES = "checkpoints"
# A setting that is a measured number is taken for the same up to what another machine makes of it.
TOLERANCE = 1e-3
# May be raised when a search goes on.
BUDGET = "budget"
_DAMAGED = "{} is damaged; delete it, and what it held is found out again"


class Ledger:
    """Records by key, and the states of runs that are not finished.

    Args:
        folder: Where they lie, each in a file of its own; None keeps them in memory.

    Attributes:
        folder: The same, as a path.

    Raises:
        UsageError: A file is there.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        for path in () if self.folder is None else (self.folder, *self.folder.parents):
            if path.is_file():
                raise UsageError(f"out must be a folder, {path} is a file")
        self._records: dict[str, str] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder; may be nested.

        Yields:
            Nothing.

        Raises:
            UsageError: Another process works there.
        """
        if self.folder is None or self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        with only_process(self.folder):
            for part in (RUNS, STATES):
                # What a process left that died while it wrote.
                for leftover in (self.folder / part).glob(".*.part"):
                    leftover.unlink()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Write down what the search is, or see that it is the one that was written down.

        Args:
            settings: Plain data by name. The budget may be larger than before; all else must be the same.

        Raises:
            UsageError: The folder holds another search; the message says what differs.
        """
        now: dict[str, Any] = json.loads(json.dumps(settings))
        before = self.read(SETTINGS)
        if before is not None:
            names = [name for name in {**before, **now} if not _same(name, before.get(name), now.get(name))]
            if names:
                name = names[0]
                others = f" ({', '.join(names[1:])} differ too)" if names[1:] else ""
                raise UsageError(
                    f"the search in {self.folder} has {name}={_short(before.get(name))}, now it is "
                    f"{_short(now.get(name))}{others}; give the same arguments to go on, or another folder as out"
                )
        if before is None or before.get(BUDGET) != now.get(BUDGET):
            self.write(SETTINGS, now)

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a record, or None if there is none.

        Raises:
            DataError: The file is damaged.
        """
        if self.folder is None:
            text = self._records.get(key)
            return None if text is None else cast("dict[str, Any]", json.loads(text))
        path = self._path(key)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(_DAMAGED.format(path)) from error
        if not isinstance(record, dict):
            raise DataError(_DAMAGED.format(path))
        return record

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Write a record, whole or not at all.

        Args:
            key: Letters, digits and hyphens.
            record: Plain data, without NaN.

        Raises:
            OSError: The folder cannot be written to.
        """
        text = json.dumps(record, allow_nan=False)
        if self.folder is None:
            self._records[key] = text
        else:
            write_atomic(self._path(key), text)

    def state(self, key: str) -> dict[str, Any] | None:
        """Return the state of an unfinished run, None without one; a damaged one is as good as none."""
        if self.folder is None:
            state = self._states.get(key)
            return None if state is None else _copied(state)
        path = self._state_path(key)
        try:
            return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            return None
        except Exception:  # torch raises all kinds
            path.unlink()
            return None

    def keep_state(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep the state of an unfinished run, in place of an earlier one.

        Args:
            key: Of the run.
            state: Tensors, numbers and texts in dictionaries and lists.

        Raises:
            OSError: The folder cannot be written to; the earlier state is still there.
        """
        if self.folder is None:
            self._states[key] = _copied(dict(state))
            return
        path = self._state_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
        try:
            torch.save(dict(state), partial)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def drop_state(self, key: str) -> None:
        """Forget the state of a run, if there is one."""
        if self.folder is None:
            self._states.pop(key, None)
        else:
            self._state_path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return cast("Path", self.folder) / (f"{key}.json" if key == SETTINGS else f"{RUNS}/{key}.json")

    def _state_path(self, key: str) -> Path:
        return cast("Path", self.folder) / STATES / f"{key}.pt"


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy, its tensors in the memory of the CPU, of which there is more."""
    copied: dict[str, Any] = tree_map_only(Tensor, lambda one: one.detach().to("cpu", copy=True), state)
    return copied


def _same(name: str, before: Any, now: Any) -> bool:
    if name == BUDGET and before is not None and now is not None:
        return bool(now >= before)
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=TOLERANCE)
    return bool(before == now)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
