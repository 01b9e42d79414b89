"""A leaderboard: the runs of any number of studies, side by side where only activation and seed differ. Needs no torch.

Runs share a board where everything in their specifications is the same but the activation, what its text stands for,
its tuned learning rate and the seed. Threads, engine and kernels are among what must be the same. They only round
differently, but pooled a seed could count twice, and pairs would not be pairs.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from softknee._bench.study_files import MANIFEST, StudyFiles, read_study
from softknee._bench.tables import CellTable, build_tables
from softknee._errors import UsageError
from softknee._report.table import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from softknee._bench.study_files import Cell, Run

# Of a run's specification, what its result says and its study does not; at defaults that came later it is None.
CIRCUMSTANCES = ("split", "device", "precision", "compiled", "engine", "kernels", "threads", "revision")
# Results of a study that notes name, where it has many that cannot be read.
NAMED = 3
# Where studies lie in a folder: in the folders in it, and where one of these is a suite's, in those in it.
_INSIDE = (f"*/{MANIFEST}", f"*/*/{MANIFEST}")
# Where studies share a run: the result that counts comes first.
_ENDINGS = ("done", "diverged", "failed", "lost", "missing")

# An activation as a row has it: label, definition, learning rate.
_Contender = tuple[str, str, float]


@dataclass(frozen=True)
class Board:
    """What may be compared: the runs of one protocol under one condition, made in the same circumstances.

    Attributes:
        files: Its runs as if they were one study's. A label that stands for several activations says which is meant.
        table: Ranks, differences to the reference and verdicts.
        circumstances: The values of `CIRCUMSTANCES`.
        studies: The folders its runs come from.
        contenders: Activation and definition by label.
    """

    files: StudyFiles
    table: CellTable
    circumstances: Mapping[str, Any]
    studies: tuple[Path, ...]
    contenders: Mapping[str, tuple[str, str]]

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What is said of the protocol."""
        protocol: Mapping[str, Any] = self.files.manifest["protocol"]
        return protocol


@dataclass(frozen=True)
class Leaderboard:
    """Boards, and what could not be put on one.

    Attributes:
        boards: Those of a protocol stand together.
        studies: The folders that were read.
        notes: A sentence on each study and result that was left out, or is not there yet.
    """

    boards: tuple[Board, ...]
    studies: tuple[Path, ...]
    notes: tuple[str, ...]


def read_leaderboard(places: Sequence[Path]) -> Leaderboard:
    """Read studies, finished or not, and set up their boards.

    A run that several studies share counts once. Studies that cannot be read are left out and named in the notes;
    single results that cannot be read count as missing, and are named too.

    Args:
        places: Output folders of studies, or folders that hold such.

    Returns:
        The leaderboard.

    Raises:
        UsageError: No study can be read.
        MissingExtra: SciPy is not installed.
    """
    folders = {folder.resolve(): folder for place in places for folder in _study_folders(place)}
    reasons: list[str] = []
    studies = [files for folder in folders.values() if (files := _readable(folder, reasons)) is not None]
    if not studies:
        raise UsageError(f"no study could be read: {'; '.join(reasons) or 'no folder was given'}")
    notes = [f"Left out: {reason}." for reason in reasons]
    for files in studies:
        notes += _study_notes(files)
    pools = _pooled(studies)
    notes += [note for pool in pools if (note := pool.doubles_note())]
    protocols = list(dict.fromkeys(pool.protocol for pool in pools))
    boards = sorted((pool.board() for pool in pools), key=lambda board: protocols.index(board.protocol["name"]))
    return Leaderboard(tuple(boards), tuple(files.folder for files in studies), tuple(notes))


class _Pool:
    """Collects the runs of a board."""

    def __init__(self, files: StudyFiles, cell: Cell, circumstances: Mapping[str, Any]) -> None:
        self.manifest = files.manifest
        self.cell = cell
        self.circumstances = circumstances
        self.studies: dict[Path, StudyFiles] = {}
        self.runs: dict[_Contender, dict[str, Run]] = {}

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        name: str = self.manifest["protocol"]["name"]
        return name

    def add(self, files: StudyFiles, contender: _Contender, run: Run) -> None:
        """Take a run; of one that is there already, what counts more."""
        self.studies[files.folder] = files
        own = self.runs.setdefault(contender, {})
        own[run.key] = min(own.get(run.key, run), run, key=_standing)

    def board(self) -> Board:
        """Return the board of what was taken."""
        labels = self._labels()
        runs = [
            replace(run, cell=self.cell.name, activation=label)
            for contender, label in labels.items()
            for run in self._by_seed(contender).values()
        ]
        files = StudyFiles(next(iter(self.studies)), self._manifest(labels, len(runs)), tuple(runs), ())
        (table,) = build_tables(files)
        contenders = {label: (activation, definition) for (activation, definition, _), label in labels.items()}
        return Board(files, table, self.circumstances, tuple(self.studies), contenders)

    def doubles_note(self) -> str | None:
        """Say which runs are left out because their seeds stand there already; None without any."""
        kept = {contender: self._by_seed(contender) for contender in self.runs}
        doubles = [run for who, own in self.runs.items() for run in own.values() if kept[who][run.seed] is not run]
        if not doubles:
            return None
        count, first = plural(len(doubles), "run"), doubles[0]
        return (
            f"Left out: {count} of {self.protocol!r} whose activation and seed another run has, though not its key, "
            f"such as {first.activation}, seed {first.seed}, in {str(first.path)!r}."
        )

    def _by_seed(self, contender: _Contender) -> dict[int | None, Run]:
        """Return one run a seed: two would differ in something this version does not know of."""
        found: dict[int | None, Run] = {}
        for run in sorted(self.runs[contender].values(), key=lambda run: (run.seed or 0, _standing(run))):
            found.setdefault(run.seed, run)
        return found

    def _manifest(self, labels: Mapping[_Contender, str], runs: int) -> dict[str, Any]:
        """Return what a study of these runs would say."""
        studies = self.studies.values()
        curves = {label: files.manifest["curves"][label] for files in studies for label in files.manifest["curves"]}
        return {
            **self.manifest,
            "activations": list(labels.values()),
            "seeds": sorted({run.seed for own in self.runs.values() for run in own.values()}),
            "cells": [asdict(self.cell)],
            "reference": self._reference(labels),
            # Differences are called equivalent only where every study would.
            "margin": min(files.margin for files in studies),
            "evaluated_runs": runs,
            "tuning": [],
            "curves": {label: curves[name] for (name, _, _), label in labels.items() if name in curves},
        }

    def _labels(self) -> dict[_Contender, str]:
        """Return a label for each row: the activation's, with what tells it from others of that name."""
        names = Counter(name for name, _, _ in self.runs)
        meanings = Counter({name: len({d for other, d, _ in self.runs if other == name}) for name in names})
        labels = {}
        for name, definition, rate in self.runs:
            parts = [definition] if meanings[name] > 1 else []
            parts += [f"rate {rate:g}"] if names[name] > meanings[name] else []
            labels[name, definition, rate] = f"{name} ({'; '.join(parts)})" if parts else name
        return labels

    def _reference(self, labels: Mapping[_Contender, str]) -> str:
        """Return the label that most studies compare with, of several the one with most runs."""
        wanted, _ = Counter(files.reference for files in self.studies.values()).most_common(1)[0]
        rows = [contender for contender in labels if contender[0] == wanted]
        done = {contender: sum(run.done for run in self.runs[contender].values()) for contender in rows}
        return labels[max(rows, key=done.__getitem__)] if rows else wanted


def _study_folders(place: Path) -> list[Path]:
    """Return the study's folder itself, or those of the studies in it; a folder without any as it is."""
    if (place / MANIFEST).is_file():
        return [place]
    inside = {path.parent for pattern in _INSIDE for path in place.glob(pattern)}
    return sorted(inside) or [place]


def _readable(folder: Path, reasons: list[str]) -> StudyFiles | None:
    """Return a study, or None and a reason more."""
    try:
        return read_study(folder, tolerant=True)
    except UsageError as error:
        reasons.append(str(error))
        return None


def _standing(run: Run) -> int:
    """Return how much a result counts beside another of the same run or seed; the smallest first."""
    return _ENDINGS.index(run.status)


def _study_notes(files: StudyFiles) -> list[str]:
    """Return what a study lacks; of many results that cannot be read, the first are named."""
    notes = [f"Counted as missing: {sentence}." for sentence in files.unreadable[:NAMED]]
    more = len(files.unreadable) - NAMED
    if more > 0:
        notes.append(f"Counted as missing: {plural(more, 'more result')} of {str(files.folder)!r} that cannot be read.")
    if files.pending > 0:
        waiting = plural(files.pending, "run")
        notes.append(f"{str(files.folder)!r} lacks {waiting} that its tuning has yet to give a learning rate.")
    return notes


def _pooled(studies: Sequence[StudyFiles]) -> list[_Pool]:
    pools: dict[tuple[str, ...], _Pool] = {}
    anywhere = _definitions(run for files in studies for run in files.runs)
    for files in studies:
        usual = _usual(files)
        definitions = anywhere | _definitions(files.runs)
        for cell in files.cells:
            condition = _condition(files, cell)
            for run in (run for label in files.activations for run in files.of(cell.name, label)):
                made = _circumstances(run) if run.result else usual
                place = (condition, *map(repr, made))
                pool = pools.get(place)
                if pool is None:
                    pool = pools[place] = _Pool(files, cell, dict(zip(CIRCUMSTANCES, made, strict=True)))
                definition = run.get("definition") or definitions.get(run.activation, "")
                pool.add(files, (run.activation, definition, run.learning_rate), run)
    return list(pools.values())


def _condition(files: StudyFiles, cell: Cell) -> str:
    """Return, as text, everything a study says about runs in a condition but their activations and seeds."""
    manifest, protocol = files.manifest, files.manifest["protocol"]
    parts = {
        "protocol": protocol["name"],
        "recipe": protocol.get("recipe"),
        "initialization": cell.initialization,
        "rate": protocol.get("tuning") if cell.rate == "tuned" else protocol.get("learning_rate"),
        "epochs": manifest["epochs"],
        "data": manifest["data"]["fingerprint"],
        "metric": files.metric.name,
    }
    return json.dumps(parts, sort_keys=True)


def _circumstances(run: Run) -> tuple[Any, ...]:
    return tuple(run.get(field) for field in CIRCUMSTANCES)


def _usual(files: StudyFiles) -> tuple[Any, ...]:
    """Return the circumstances of most runs of a study, for those without a result."""
    counts = Counter(_circumstances(run) for run in files.runs if run.result)
    return counts.most_common(1)[0][0] if counts else (None,) * len(CIRCUMSTANCES)


def _definitions(runs: Iterable[Run]) -> dict[str, str]:
    return {run.activation: run.get("definition") for run in runs if run.get("definition")}
