"""A suite's report: all settings side by side, and a link to the report of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench.page_tables import MATRIX_CORNER, SIGNS, cell_table, kind_of
from softknee._bench.study_findings import findings, reads_sentence, warnings
from softknee._bench.suite_published import PUBLISHED, TITLE
from softknee._report.critical import Ranked, critical_diagram
from softknee._report.page import Figure, Fold, Gallery, Note, Page, Section
from softknee._report.table import ABSENT, Cell, Column, Table, listed, p_value, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.study import Study
    from softknee._bench.suite_files import SuiteFiles
    from softknee._bench.suite_published import Published
    from softknee._bench.suite_together import Together


def suite_page(files: SuiteFiles, studies: Sequence[Study], together: Together) -> Page:
    """Return the page of a suite, finished or not.

    Args:
        files: The suite.
        studies: Its studies.
        together: What they say together.

    Returns:
        The page.
    """
    suite = files.manifest["suite"]
    labels = dict.fromkeys(label for study in studies for label in study.files.activations)
    lead = "Mean score after the last epoch with its 95 % interval; verdicts are against each study's reference."
    reads = reads_sentence([study.files for study in studies])
    sections = [
        Section("overview", "All settings", lead, [overview_table(studies), Note(_signs()), Note(reads)]),
        _ranks(studies, together),
        Section("settings", "Setting by setting", "", [_fold(study) for study in studies]),
        _published_section(published_beside(files, studies)),
    ]
    return Page(
        kicker=f"{suite['name']} · {plural(len(studies), 'setting')} · {plural(len(labels), 'activation')}",
        title=suite["title"],
        finding=[*together.sentences, *map(_finding, studies)],
        warnings=suite_warnings(files, studies),
        sections=[section for section in sections if section.blocks],
        data={"suite": suite["name"], "studies": [study.name for study in studies]},
    )


def suite_warnings(files: SuiteFiles, studies: Sequence[Study]) -> list[str]:
    """Return what limits the findings of several studies; what holds for more than one is said once."""
    unfinished = [f"The suite is unfinished: {listed(files.waiting)} not begun."] if files.waiting else []
    titles: dict[str, list[str]] = {}
    for study in studies:
        for text in warnings(study.files):
            titles.setdefault(text, []).append(study.title)
    return [*unfinished, *(f"{listed(names)}: {text}" for text, names in titles.items())]


def _finding(study: Study) -> str:
    return f"{study.title}: {findings(study.files, study.table)[0]}"


def overview_table(studies: Sequence[Study]) -> Table:
    """Return the means of all settings side by side, by the ranking of the first."""
    columns = [
        MATRIX_CORNER,
        *(Column(study.title, hint=f"{study.files.part} {study.files.metric.axis}") for study in studies),
    ]
    labels = dict.fromkeys(row.activation for study in studies for row in study.table[0].rows)
    rows = [[Cell(label, "name"), *(_score(study, label) for study in studies)] for label in labels]
    return Table(f"{studies[0].files.part.capitalize()} scores in all settings", columns, rows)


def _score(study: Study, label: str) -> Cell:
    row = next((row for row in study.table[0].rows if row.activation == label), None)
    if row is None:
        return Cell(ABSENT, "quiet")
    metric = study.files.metric
    reach = "" if row.low is None or row.high is None else f" ± {metric.value((row.high - row.low) / 2)}"
    counts = {"diverged": row.diverged, "failed": row.failed, "missing": row.missing}
    trouble = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    text = f"{SIGNS[row.verdict]} {metric.value(row.mean)}{reach}{f' ({trouble})' if trouble else ''}"
    return Cell(text, kind_of(row.verdict), hint=f"{row.verdict}; {plural(row.done, 'run')} done")


def _ranks(studies: Sequence[Study], together: Together) -> Section:
    ranking = together.ranking
    if ranking is None:
        return Section("ranks", "Average ranks", "", [])
    diagram = critical_diagram(
        [Ranked(label, rank) for label, rank in zip(together.activations, ranking.ranks, strict=True)],
        ranking.groups,
        critical=ranking.critical,
        title="Average ranks",
        description=f"Average ranks of {len(together.activations)} activations over {len(studies)} settings.",
    )
    lead = (
        "Bars join activations that are not told apart (Nemenyi's critical difference at the level 0.05, after "
        f"Friedman's test, {p_value(ranking.p)}). Activations of which a run diverged rank last."
    )
    return Section("ranks", "Average ranks", lead, [Gallery([Figure(diagram)], wide=True)])


def published_beside(files: SuiteFiles, studies: Sequence[Study]) -> Published | None:
    """Return what others have published about a suite, where its studies were evaluated on the same test sets."""
    tested = all(study.files.part == "test" for study in studies)
    return PUBLISHED.get(files.manifest["suite"]["name"]) if tested else None


def _published_section(found: Published | None) -> Section:
    return Section("published", TITLE, found.lead if found else "", [found.table()] if found else [])


def _fold(study: Study) -> Fold:
    link = Note("All about this setting", f"{study.name}/report.html")
    return Fold(study.title, [*(cell_table(study.files, table) for table in study.table), link], opened=True)


def _signs() -> str:
    return ", ".join(f"{sign} {kind}" for kind, sign in SIGNS.items())
