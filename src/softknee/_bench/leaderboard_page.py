"""The page of a leaderboard: a sortable table a board, whose numbers open the list of the runs they rest on."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

from softknee._bench.page_tables import SIGNS, kind_of, name_cell, pairing
from softknee._bench.study_files import Outcome
from softknee._report.page import Page, Section
from softknee._report.table import ABSENT, Cell, Column, Table, number, plural, probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from softknee._bench.leaderboard import Board, Leaderboard
    from softknee._bench.study_files import Run, StudyFiles
    from softknee._bench.tables import Row

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# Studies that the words above a board name; the list of each row's runs names all.
NAMED = 3
_RULES = (
    "Runs share a table only where they differ in nothing but activation and seed. Means are of the last epoch; runs "
    "that diverged or failed are counted, never averaged. A number opens the runs it rests on."
)


def leaderboard_page(leaderboard: Leaderboard, out: Path) -> Page:
    """Return the page of a leaderboard.

    Args:
        leaderboard: It.
        out: Folder of the page, from which links to the results start.

    Returns:
        The page.
    """
    boards = leaderboard.boards
    statuses = Counter(run.status for board in boards for run in board.files.runs)
    activations = {name for board in boards for name, _ in board.contenders.values()}
    studies = plural(len(leaderboard.studies), "study", "studies")
    protocols = plural(len({board.protocol["name"] for board in boards}), "protocol")
    runs = f"{plural(statuses.total(), 'run')} of {plural(len(activations), 'activation')} in {studies}"
    return Page(
        kicker=f"{studies} · {protocols}",
        title="Leaderboard",
        finding=[f"{runs}: {_counted(statuses)}.", _RULES],
        warnings=leaderboard.notes,
        sections=[
            _section(board, title, _anchor(place))
            for place, (board, title) in enumerate(zip(boards, board_titles(boards), strict=True))
        ],
        data=_runs_data(leaderboard, out),
        scripts=("leaderboard.js",),
    )


def relative(folder: Path, out: Path) -> str:
    """Return the path from one folder to another, as links spell it."""
    return os.path.relpath(folder, out).replace(os.sep, "/")


def board_titles(boards: Sequence[Board]) -> list[str]:
    """Return the titles of boards; those that would share one name what only some of them have."""
    plain = [": ".join(filter(None, (board.protocol["title"], board.table.cell.title))) for board in boards]
    facts = [[*_facts(board), *_recipe_facts(board)] for board in boards]
    titles = []
    for title, its in zip(plain, facts, strict=True):
        alike = [set(others) for others, other in zip(facts, plain, strict=True) if other == title]
        own = [fact for fact in its if any(fact not in others for others in alike)]
        titles.append(f"{title} ({', '.join(own)})" if own else title)
    return titles


def _anchor(place: int) -> str:
    return f"board-{place}"


def _counted(statuses: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{statuses[outcome]:,} {outcome}" for outcome in OUTCOMES if statuses[outcome])


def _facts(board: Board) -> list[str]:
    """Return what all runs of a board have in common, in words."""
    manifest = board.files.manifest
    data = manifest["data"]
    return [
        board.protocol["name"],
        f"{data['name']} data ({data['fingerprint'][:8]})",
        plural(manifest["epochs"], "epoch"),
        *(f"{name} {value}" for name, value in board.circumstances.items() if value is not None),
    ]


def _recipe_facts(board: Board) -> list[str]:
    """Return how runs are trained, in words: the open points of a protocol can be set otherwise."""
    recipe = {**board.protocol.get("recipe", {}), "learning rate": board.protocol.get("learning_rate")}
    return [f"{name.replace('_', ' ')} {value}" for name, value in recipe.items()]


def _section(board: Board, title: str, anchor: str) -> Section:
    metric = board.files.metric
    how = f"{pairing(board.files)}{' by seed' * board.files.paired}"
    lead = (
        f"{', '.join(_facts(board))}. Differences to {board.files.reference} are {how}; within "
        f"±{metric.amount(board.files.margin, exact=True)} they do not matter. From {_names(board.studies)}."
    )
    return Section(anchor, title, lead, [_table(board)])


def _names(studies: Sequence[Path]) -> str:
    more = len(studies) - NAMED
    names = [study.name or str(study) for study in studies[:NAMED]]
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _table(board: Board) -> Table:
    files, metric, tuned = board.files, board.files.metric, board.table.cell.rate == "tuned"
    columns = [
        Column("#"),
        Column("Activation", numeric=False),
        Column("Verdict", numeric=False),
        Column(metric.head, hint=f"on {board.files.evaluated_on} after the last epoch, mean over seeds"),
        Column("±", hint=f"half its 95 % interval, over new seeds{' and new test examples' * metric.sampled}"),
        Column("Difference", hint=f"mean {pairing(files)} difference to {files.reference}, {metric.unit}"),
        Column("±", hint="half its 95 % interval, not adjusted"),
        Column("p", hint="against no difference, Holm-adjusted over the table"),
        Column("Seeds", hint="done of those asked for"),
        *(Column(name) for name in ("Diverged", "Failed", "Missing")),
        Column(f"Best epoch {metric.sign}".strip(), hint="mean of the best over epochs: optimistic, never ranked"),
        *([Column("Rate", hint="learning rate chosen on held-out training data")] if tuned else []),
        Column("Parameters", hint="of the whole model"),
        Column("s / run", hint="wall time, as the runs came"),
        Column("Engine", numeric=False, hint="how the activation was evaluated"),
    ]
    return Table("Ranking", columns, [_cells(files, row, tuned=tuned) for row in board.table.rows], sortable=True)


def _cells(files: StudyFiles, row: Row, *, tuned: bool) -> list[Cell]:
    metric = files.metric
    runs = files.of(files.cells[0].name, row.activation)
    rates = ", ".join(f"{rate:g}" for rate in row.learning_rates)
    return [
        Cell(ABSENT if row.rank is None else str(row.rank), "quiet"),
        name_cell(files, row.activation),
        Cell(f"{SIGNS[row.verdict]} {row.verdict}", f"verdict {kind_of(row.verdict)}"),
        Cell(metric.value(row.mean), "strong", value=row.mean),
        _half_cell(row.low, row.high, files),
        Cell(metric.change(row.difference), "strong", value=row.difference),
        _half_cell(row.difference_low, row.difference_high, files),
        Cell(probability(row.p), value=row.p),
        Cell(f"{row.done} of {len(runs)}", "" if row.done == len(runs) else "warning", value=row.done),
        *(Cell(str(count), "worse" if count else "quiet") for count in (row.diverged, row.failed, row.missing)),
        Cell(metric.value(row.best_mean), "quiet", value=row.best_mean),
        *([Cell(rates)] if tuned else []),
        Cell(ABSENT if row.parameters is None else f"{row.parameters:,}"),
        Cell(number(row.seconds, 1), value=row.seconds),
        Cell(engines(runs) or ABSENT, "quiet"),
    ]


def engines(runs: Sequence[Run]) -> str:
    """Return how an activation was evaluated, in words."""
    return " and ".join(dict.fromkeys(engine for run in runs for engine in (run.get("engines") or {}).values()))


def _half_cell(low: float | None, high: float | None, files: StudyFiles) -> Cell:
    """Return half the width of an interval, its ends as the tooltip."""
    if low is None or high is None:
        return Cell(ABSENT, "quiet")
    value, metric = (high - low) / 2, files.metric
    return Cell(metric.value(value), "quiet", hint=f"{metric.value(low)} to {metric.value(high)}", value=value)


def _runs_data(leaderboard: Leaderboard, out: Path) -> dict[str, Any]:
    """Return the runs in the order of the rows, short: study, key, seed, last and best score, outcome."""
    studies = {folder: place for place, folder in enumerate(leaderboard.studies)}
    return {
        "studies": [relative(folder, out) for folder in studies],
        "outcomes": OUTCOMES,
        "boards": [
            {
                "anchor": _anchor(place),
                "protocol": board.protocol["name"],
                "facts": ", ".join(_facts(board)),
                "metric": board.files.metric.head,
                "digits": board.files.metric.digits,
                "rows": [
                    [_short(run, studies, board) for run in board.files.of(board.table.cell.name, label)]
                    for label in board.table.order
                ],
            }
            for place, board in enumerate(leaderboard.boards)
        ],
    }


def _short(run: Run, studies: Mapping[Path, int], board: Board) -> list[Any]:
    metric = board.files.metric
    scores = (run.last(metric.test), run.get(metric.best))
    rounded = (None if score is None else round(score, metric.digits + 1) for score in scores)
    return [studies[run.study], run.key, run.seed, *rounded, OUTCOMES.index(run.status)]
