"""What a leaderboard writes: the page, a table of its rows and one of its runs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from softknee._bench.leaderboard import CIRCUMSTANCES
from softknee._bench.leaderboard_page import board_titles, engines, leaderboard_page, relative
from softknee._bench.study_evidence import cell_evidence
from softknee._bench.study_files import RESULT, RUNS
from softknee._report.files import write_atomic
from softknee._report.page import render_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from softknee._bench.leaderboard import Board, Leaderboard
    from softknee._bench.study_evidence import Evidence
    from softknee._bench.study_files import Run

PAGE, ROW_TABLE, RUN_TABLE = "index.html", "leaderboard.csv", "runs.csv"

_BOARD = (
    *("board", "title", "protocol", "condition", "data", "data_sha256", "epochs", *CIRCUMSTANCES),
    *("metric", "reference", "margin", "paired"),
)
_ACTIVATION = ("activation", "definition", "learning_rate")
# Fields that a row of a study's table has under the same name.
_MEASURED = (
    *("rank", "done", "diverged", "failed", "missing", "mean", "sd", "low", "high", "best_mean", "pairs"),
    *("difference", "difference_low", "difference_high", "p", "p_equivalence", "verdict", "seconds", "step_seconds"),
    *("parameters", "activation_parameters", "multiply_adds", "activation_inputs", "activation_price"),
)
_EVIDENCE = ("improvement", "improvement_low", "improvement_high", "seeds_needed", "seeds_needed_cautious", "first")
_ROW = (*_BOARD, *_ACTIVATION, "asked", *_MEASURED, *_EVIDENCE, "engines", "studies")
_RUN = ("board", "title", "protocol", *_ACTIVATION, "seed", "status", "last", "best", "seconds", "key", "result")


def write_leaderboard(leaderboard: Leaderboard, out: Path) -> None:
    """Write `index.html`, `leaderboard.csv` (one row an activation and board) and `runs.csv` (one row a run).

    Args:
        leaderboard: It.
        out: The folder; made where it is missing, the three files are replaced as a whole.

    Raises:
        MissingExtra: Jinja2 is not installed.
        OSError: The folder cannot be written.
    """
    page = render_page(leaderboard_page(leaderboard, out))
    named = [
        (board, {"board": place, "title": title, "protocol": board.protocol["name"]})
        for place, (board, title) in enumerate(zip(leaderboard.boards, board_titles(leaderboard.boards), strict=True))
    ]
    write_atomic(out / ROW_TABLE, _table(_ROW, ({**its, **row} for board, its in named for row in _rows(board, out))))
    write_atomic(out / RUN_TABLE, _table(_RUN, ({**its, **row} for board, its in named for row in _runs(board, out))))
    write_atomic(out / PAGE, page)


def _table(fields: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(board: Board, out: Path) -> Iterator[dict[str, Any]]:
    manifest, cell = board.files.manifest, board.table.cell
    about = {
        "condition": cell.name,
        "data": manifest["data"]["name"],
        "data_sha256": manifest["data"]["fingerprint"],
        "epochs": manifest["epochs"],
        **board.circumstances,
        "metric": board.files.metric.name,
        "reference": board.files.reference,
        "margin": board.files.margin,
        "paired": board.files.paired,
    }
    evidence = {row.activation: _evidence(row) for row in cell_evidence(board.files, board.table, resampled=False).rows}
    for row in board.table.rows:
        runs = board.files.of(cell.name, row.activation)
        yield {
            **about,
            **{field: getattr(row, field) for field in _MEASURED},
            **_activation(board, row.activation, row.learning_rates[0]),
            **evidence[row.activation],
            "asked": len(runs),
            "engines": engines(runs),
            "studies": "; ".join(dict.fromkeys(relative(run.study, out) for run in runs)),
        }


def _evidence(row: Evidence) -> dict[str, Any]:
    better, needed = row.improvement, row.needed
    values = (
        *((better.probability, better.low, better.high) if better else (None, None, None)),
        *((needed.seeds, needed.cautious) if needed else (None, None)),
        row.first,
    )
    return dict(zip(_EVIDENCE, values, strict=True))


def _runs(board: Board, out: Path) -> Iterator[dict[str, Any]]:
    metric, folders = board.files.metric, {folder: relative(folder, out) for folder in board.studies}
    for run in board.files.runs:
        yield {
            **_activation(board, run.activation, run.learning_rate),
            "seed": run.seed,
            "status": run.status,
            "last": run.last(metric.test),
            "best": run.get(metric.best),
            "seconds": run.get("seconds"),
            "key": run.key,
            "result": _result(run, folders[run.study]),
        }


def _activation(board: Board, label: str, learning_rate: float) -> dict[str, Any]:
    activation, definition = board.contenders[label]
    return dict(zip(_ACTIVATION, (activation, definition, learning_rate), strict=True))


def _result(run: Run, study: str) -> str:
    """Return where the result lies, seen from the table; empty where there is none."""
    return "" if run.result is None else f"{study}/{RUNS}/{run.key}/{RESULT}"
