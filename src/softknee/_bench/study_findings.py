"""What came out of a study, in sentences; nothing is claimed that the numbers do not say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from softknee._report.table import listed, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.study_files import StudyFiles
    from softknee._bench.tables import CellTable

MOST = 0.5
VERDICTS = ("better", "equivalent", "undecided", "worse", "too few seeds")


def findings(files: StudyFiles, tables: Sequence[CellTable]) -> list[str]:
    """Return the result of the study in a few plain sentences.

    Args:
        files: The study.
        tables: Its tables.

    Returns:
        Sentences, the most important first; never empty.
    """
    if not any(row.mean is not None for table in tables for row in table.rows):
        return ["No run has finished yet, so there is nothing to compare."]
    if len(tables) == 1:
        return [_ranking(tables[0]), _comparison(files, tables[0])]
    compared = [f"With {table.cell.title}: {_comparison(files, table)}" for table in tables]
    return [*spread_sentences(tables, margin=files.margin), *compared]


def warnings(files: StudyFiles) -> list[str]:
    """Return what limits the findings: runs that are missing, diverged or failed, and rates at the edge.

    Args:
        files: The study.

    Returns:
        Sentences; none where nothing limits them.
    """
    unique = {run.key: run.status for run in (*files.runs, *files.tuning_runs)}
    counts = Counter(unique.values())
    sentences = []
    if counts["missing"]:
        sentences.append(f"The study is unfinished: {counts['missing']} of {plural(len(unique), 'run')} are missing.")
    evaluated = Counter({run.key: run.status for run in files.runs}.values())
    if evaluated["diverged"]:
        runs = plural(evaluated["diverged"], "run")
        sentences.append(f"{runs} diverged; they are listed below and left out of every mean.")
    broken = evaluated["failed"] + evaluated["lost"]
    if broken:
        sentences.append(f"{plural(broken, 'run')} failed; they are listed below and left out of every mean.")
    at_edge = sorted({search["activation"] for search in files.manifest["tuning"] if search["at_edge"]})
    if at_edge:
        sentences.append(
            f"The best learning rate of {listed(at_edge)} is the smallest or largest tried, so a better one may exist."
        )
    return sentences


def spread_sentences(tables: Sequence[CellTable], *, margin: float) -> list[str]:
    """Say how much of the gap between activations is left under the other conditions, from the measured spreads.

    Args:
        tables: At least two; the first is the condition the others are compared with.
        margin: Gaps up to this are not worth explaining, in percentage points.

    Returns:
        One or two sentences; one if no gap can be computed.
    """
    first = tables[0]
    whole = first.spread_matched or first.spread
    if whole is None:
        return ["Fewer than two activations finished under every condition, so their spreads cannot be compared."]
    leaving = _left_out(first)
    gap = (
        f"With {first.cell.title}, accuracies lie {whole.points:.1f} points apart, from {whole.lowest} to "
        f"{whole.highest}{leaving}."
    )
    if whole.points <= margin:
        return [f"{gap} This is within the margin of {margin:g}: there is hardly a gap to explain."]
    others = [(table, table.spread_matched or table.spread) for table in tables[1:]]
    left = [(table.cell.title, spread.points) for table, spread in others if spread is not None]
    small = [f"{title} ({points:.1f} left)" for title, points in left if 1 - points / whole.points > MOST]
    large = [f"{title} ({points:.1f} left)" for title, points in left if 1 - points / whole.points <= MOST]
    if not large:
        return [gap, f"Most of this gap goes away with {listed(small)}."]
    if not small:
        return [gap, f"At least half of this gap remains with {listed(large)}."]
    return [gap, f"Most of this gap goes away with {listed(small)}; at least half remains with {listed(large)}."]


def _left_out(table: CellTable) -> str:
    """Return a clause that names how many activations the matched spread leaves out, or nothing."""
    if table.spread is None or table.spread_matched is None or table.spread.count == table.spread_matched.count:
        return ""
    count = table.spread.count - table.spread_matched.count
    who = plural(count, "activation")
    return f", leaving out {who} that no single weight scale fits ({table.spread.points:.1f} points with them)"


def _ranking(table: CellTable) -> str:
    best = table.rows[0]
    inside = "" if best.low is None else f" (95 % interval {best.low:.1f} to {best.high:.1f})"
    return f"{best.activation} has the highest mean test accuracy, {best.mean:.2f} %{inside}."


def _comparison(files: StudyFiles, table: CellTable) -> str:
    """Count the verdicts against the reference and name who is better or worse."""
    others = [row for row in table.rows if row.verdict != "reference"]
    if not others:
        return f"{files.reference} is the only activation, so there is nothing to compare it with."
    texts = {"equivalent": f"equivalent within {files.margin:g} points", "too few seeds": "with too few seeds to tell"}
    said = []
    for kind in VERDICTS:
        names = [row.activation for row in others if row.verdict == kind]
        named = f" ({listed(names)})" if kind in {"better", "worse"} else ""
        if names:
            said.append(f"{len(names)} {texts.get(kind, kind)}{named}")
    return f"Against {files.reference}, of {plural(len(others), 'activation')}: {', '.join(said)}."
