"""What came out of a study, in sentences; nothing is claimed that the numbers do not say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from softknee._bench.study_seeds import few_seeds_sentence
from softknee._bench.tables import LINEAR
from softknee._report.table import listed, number, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.study_files import StudyFiles
    from softknee._bench.tables import CellTable, Spread

# A condition explains most of a gap when less than this part of the gap is left under it.
MOST = 0.5
VERDICTS = ("better", "equivalent", "undecided", "worse", "too few seeds")


def findings(files: StudyFiles, tables: Sequence[CellTable], *, brief: bool = False) -> list[str]:
    """Return the result of the study in a few plain sentences.

    Args:
        files: The study.
        tables: Its tables.
        brief: Leave out what a page shows beside them: names, and the verdicts under each of several conditions.

    Returns:
        Sentences, the most important first; never empty.
    """
    if not any(row.mean is not None for table in tables for row in table.rows):
        return ["No run has finished yet, so there is nothing to compare."]
    if len(tables) == 1:
        return [f"{_comparison(files, tables[0], named=not brief)}.", _ranking(files, tables[0])]
    compared = [f"With {table.cell.title}, {_lowered(_comparison(files, table))}." for table in tables]
    return [*spread_sentences(files, tables), *([] if brief else compared)]


def warnings(files: StudyFiles) -> list[str]:
    """Return what limits the findings: runs that are missing, diverged or failed, too few seeds, rates at the edge.

    Args:
        files: The study.

    Returns:
        Sentences; none where nothing limits them.
    """
    everything = {run.key: run.status for run in (*files.runs, *files.tuning_runs)}
    missing = Counter(everything.values())["missing"] + files.pending
    counts = Counter({run.key: run.status for run in files.runs}.values())
    broken = counts["failed"] + counts["lost"]
    sentences = []
    if missing:
        sentences.append(
            f"The study is unfinished: {missing:,} of {plural(len(everything) + files.pending, 'run')} still missing."
        )
    if counts["diverged"]:
        sentences.append(f"{plural(counts['diverged'], 'run')} diverged: recorded, and left out of every mean.")
    if broken:
        sentences.append(f"{plural(broken, 'run')} failed: recorded, and left out of every mean.")
    few = few_seeds_sentence(files)
    if few:
        sentences.append(few)
    at_edge = list(dict.fromkeys(search["activation"] for search in files.manifest["tuning"] if search["at_edge"]))
    if at_edge:
        sentences.append(
            f"The best learning rate of {listed(at_edge)} is the smallest or largest tried, so a better one may exist."
        )
    return sentences


def reads_sentence(studies: Sequence[StudyFiles]) -> str:
    """Say how often test sets were read, which is how often something could have been chosen by them.

    Args:
        studies: Any number.

    Returns:
        A sentence.
    """
    reads = sum(map(_test_reads, studies))
    if not reads:
        return "No test set was read."
    return (
        f"Test sets were read {plural(reads, 'time')}, after each epoch of every run that ended well or diverged; to "
        "choose, use --split dev."
    )


def _test_reads(files: StudyFiles) -> int:
    if files.manifest.get("split", "test") != "test":
        return 0
    return sum(len(run.get(files.metric.test) or ()) for run in {run.key: run for run in files.runs}.values())


def spread_sentences(files: StudyFiles, tables: Sequence[CellTable]) -> list[str]:
    """Say how much of the gap between activations is left under the other conditions, from the measured spreads.

    Args:
        files: The study.
        tables: At least two; the first is the condition the others are compared with.

    Returns:
        One or two sentences; one if no gap can be computed.
    """
    metric, first, whole = files.metric, tables[0], _gap(tables[0])
    if whole is None:
        return ["Fewer than two activations finished under every condition, so their spreads cannot be compared."]
    if whole.points == 0:
        return [f"With {first.cell.title}, all activations have the same mean {metric.title}."]
    where = (
        f"With {first.cell.title}, mean {metric.plural} reach from {whole.lowest} to {whole.highest}, "
        f"{metric.amount(whole.points)} apart{_left_out(files, first)}."
    )
    if whole.points <= files.margin:
        return ["There is hardly a gap between the activations to explain.", where]
    judged = [row for row in first.rows if row.activation not in {*files.unmatched, LINEAR}]
    if not any(row.verdict in {"better", "worse"} for row in judged):
        return [f"The gap between activations may be chance: none differs significantly from {files.reference}.", where]
    left = [(table.cell.title, gap.points) for table in tables[1:] if (gap := _gap(table)) is not None]
    small = [
        f"{title} ({number(points, metric.coarse)} left)" for title, points in left if points < MOST * whole.points
    ]
    large = [
        f"{title} ({number(points, metric.coarse)} left)" for title, points in left if points >= MOST * whole.points
    ]
    gap_text = f"the gap of {metric.amount(whole.points)} between activations"
    claims = [
        *([f"most of {gap_text} goes away with {_choice(small)}"] if small else []),
        *([f"at least half of {'it' if small else gap_text} remains with {_choice(large)}"] if large else []),
    ]
    claim = "; ".join(claims)
    return [f"{claim[0].upper()}{claim[1:]}.", where]


def _gap(table: CellTable) -> Spread | None:
    """Return the spread to speak of: without activations that no weight scale fits, where two others remain."""
    return table.spread_matched or table.spread


def _choice(texts: Sequence[str]) -> str:
    """Return the texts as a list; semicolons, because they hold commas."""
    return texts[0] if len(texts) == 1 else f"{'; '.join(texts[:-1])}; and {texts[-1]}"


def _left_out(files: StudyFiles, table: CellTable) -> str:
    """Return a clause that names the activations the matched spread leaves out, or nothing."""
    if table.spread is None or table.spread_matched is None or table.spread.count == table.spread_matched.count:
        return ""
    names = [row.activation for row in table.rows if row.activation in files.unmatched and row.mean is not None]
    otherwise = files.metric.amount(table.spread.points)
    return f"; {listed(names)}, which no single weight scale fits, left out ({otherwise} otherwise)"


def _ranking(files: StudyFiles, table: CellTable) -> str:
    metric, best, inside = files.metric, table.rows[0], ""
    if best.low is not None and best.high is not None:
        ends = [number(min(max(end, metric.low), metric.high), metric.coarse) for end in (best.low, best.high)]
        inside = f" (95 % interval {' to '.join(ends)})"
    mean = f"{metric.value(best.mean)} {metric.sign}".strip()
    return f"{best.activation} has the highest mean {files.part} {metric.title}, {mean}{inside}."


def _comparison(files: StudyFiles, table: CellTable, *, named: bool = True) -> str:
    """Count the verdicts against the reference and, if `named`, say who is better or worse."""
    others = [row for row in table.rows if row.verdict != "reference"]
    if not others:
        return f"{files.reference} is the only activation, so there is nothing to compare it with"
    texts = {
        "equivalent": f"equivalent within {files.metric.amount(files.margin, exact=True)}",
        "too few seeds": "with too few seeds to tell",
    }
    said = []
    for kind in VERDICTS:
        names = [row.activation for row in others if row.verdict == kind]
        if names:
            who = f" ({listed(names)})" if named and kind in {"better", "worse"} else ""
            said.append(f"{len(names)} {texts.get(kind, kind)}{who}")
    return f"Of {plural(len(others), 'activation')} compared with {files.reference}: {', '.join(said)}"


def _lowered(text: str) -> str:
    return text.replace("Of ", "of ", 1) if text.startswith("Of ") else text
