"""A study's report: the verdict first, then what it rests on, then how it was measured."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from softknee._bench.page_costs import cost_table
from softknee._bench.page_evidence import evidence_blocks
from softknee._bench.page_figures import (
    condition_slopes,
    confusion_gallery,
    difference_gallery,
    learning_galleries,
    tuning_gallery,
)
from softknee._bench.page_method import method_section
from softknee._bench.page_pictures import picture_galleries
from softknee._bench.page_shapes import shape_gallery, trajectory_gallery
from softknee._bench.page_tables import (
    SIGNS,
    cell_table,
    class_tables,
    drawn_note,
    gains_table,
    kind_of,
    pairing,
    spread_table,
    troubles_table,
    tuning_table,
)
from softknee._bench.study_findings import VERDICTS, findings, warnings
from softknee._report.page import Block, Fold, Group, Measure, Note, Page, Section
from softknee._report.table import number, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.study_evidence import CellEvidence
    from softknee._bench.study_files import StudyFiles
    from softknee._bench.tables import CellTable

_COST = (
    "Of the model with each activation, for one example; operations of activations are counted on their formulas. "
    "Times, where there are any, are those of the runs of this study, as they came; the command `cost` measures "
    "activations alone and interleaved."
)


def study_page(files: StudyFiles, tables: Sequence[CellTable], evidence: Sequence[CellEvidence]) -> Page:
    """Return the page of a study, finished or not.

    Args:
        files: The study.
        tables: Its tables.
        evidence: What its seeds can bear, in the order of the tables.

    Returns:
        The page.
    """
    manifest = files.manifest
    data, seeds = manifest["data"], manifest["seeds"]
    kicker = (
        f"{manifest['protocol']['name']} · {data['name']} data · {plural(len(files.activations), 'activation')} · "
        f"{plural(len(seeds), 'seed')} · {plural(manifest['epochs'], 'epoch')}"
    )
    sections = [
        _ranking(files, tables),
        *(_conditions(files, tables) if len(tables) > 1 else []),
        *(_tuning(files) if manifest["tuning"] else []),
        _differences(files, tables),
        _evidence(files, tables, evidence),
        Section("cost", "What it costs", _COST, [cost_table(files, tables[0])]),
        _pictures(files, tables),
        _learning(files, tables),
        _shapes(files, tables),
        _errors(files, tables),
        *_troubles(files),
        method_section(files),
    ]
    return Page(
        kicker=kicker,
        title=manifest["protocol"]["title"],
        finding=findings(files, tables, brief=True),
        groups=_groups(tables[0]) if len(tables) == 1 else (),
        measures=_measures(tables, files.metric) if len(tables) > 1 else (),
        warnings=warnings(files),
        sections=[section for section in sections if section.blocks],
        data={
            "study": manifest["protocol"]["name"],
            "tables": [asdict(table) for table in tables],
            "evidence": [_finite(asdict(found)) for found in evidence],
        },
    )


def _finite(value: Any) -> Any:
    """Return plain data with None for infinite numbers, the ends of intervals that have none."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _groups(table: CellTable) -> list[Group]:
    """Return who is better, equivalent, undecided or worse than the reference."""
    groups = [
        Group(kind_of(kind), f"{SIGNS[kind]} {kind}", [row.activation for row in table.rows if row.verdict == kind])
        for kind in VERDICTS
    ]
    return [group for group in groups if group.names]


def _measures(tables: Sequence[CellTable], metric: Metric) -> list[Measure]:
    """Return the spread left under each condition."""
    spreads = [(table.cell.title, table.spread_matched or table.spread) for table in tables]
    unit = f"{metric.noun}s apart" if metric.noun else "apart"
    return [
        Measure(number(spread.points, metric.coarse), unit, title) for title, spread in spreads if spread is not None
    ]


def _ranking(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = (
        f"Mean {files.part} {files.metric.title} after the last epoch, ranked; {_pairs(files)}. Runs that diverged or "
        "failed are counted, never averaged."
    )
    if len(tables) == 1:
        return Section("ranking", "Ranking", lead, [cell_table(files, tables[0])])
    matrix = spread_table(files, tables)
    signs = ", ".join(f"{sign} {kind}" for kind, sign in SIGNS.items())
    folds = [Fold(table.cell.title, [cell_table(files, table)]) for table in tables]
    return Section("ranking", "Ranking under every condition", lead, [matrix, Note(signs), *folds])


def _pairs(files: StudyFiles) -> str:
    """Return a clause on what differences to the reference are paired by."""
    sampled = files.metric.sampled
    if files.paired:
        return f"differences are paired by seed{' and test example' * sampled} against {files.reference}"
    return f"differences against {files.reference} are unpaired by seed{', paired by test example' * sampled}"


def _conditions(files: StudyFiles, tables: Sequence[CellTable]) -> list[Section]:
    lead = (
        "Each line is one activation. Where lines run together, the differences came from the initialization or the "
        "learning rate. The gains below say which weight scale suits each activation: the matched initialization uses "
        "its forward gain."
    )
    return [
        Section("conditions", "Through the conditions", lead, [condition_slopes(files, tables), gains_table(files)])
    ]


def _tuning(files: StudyFiles) -> list[Section]:
    lead = (
        "Every activation got the same number of trials, on data held out of the training set and with seeds that are "
        "never evaluated. The ring marks the chosen rate; crosses at the foot are rates that diverged."
    )
    return [
        Section(
            "tuning", "Learning rates", lead, [tuning_gallery(files), Fold("All chosen rates", [tuning_table(files)])]
        )
    ]


def _differences(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = (
        f"Mean {pairing(files)} difference to {files.reference} with its 95 % interval. Inside the shaded band of "
        f"±{files.metric.amount(files.margin, exact=True)} a difference does not matter. "
        "▲ better, ▼ worse, ■ equivalent, ○ undecided."
    )
    title = f"{pairing(files).capitalize()} differences"
    return Section("differences", title, lead, [difference_gallery(files, tables)])


def _evidence(files: StudyFiles, tables: Sequence[CellTable], evidence: Sequence[CellEvidence]) -> Section:
    lead = "What other seeds might have shown on the same test examples, and how many it takes to find a difference."
    by_cell = {found.cell: found for found in evidence}
    blocks = _by_cell(tables, lambda table: evidence_blocks(files, by_cell[table.cell.name]))
    return Section("evidence", "How sure the ranking is", lead, blocks)


def _learning(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = f"Thin lines are seeds, thick lines their mean; diverged runs end where they diverged.{drawn_note(tables)}"
    return Section(
        "learning", "Learning curves", lead, _by_cell(tables, lambda table: learning_galleries(files, table))
    )


def _pictures(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = "The model's answer over the whole domain after training, by rank, for the first seed of each activation."
    galleries = _by_cell(tables, lambda table: picture_galleries(files, table))
    return Section("pictures", "What was learned", lead, galleries)


def _shapes(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = (
        "Every activation before training; trainable ones also after it, one line a site and seed. Below them, how "
        f"their parameters moved, epoch by epoch.{drawn_note(tables)}"
    )

    def blocks(table: CellTable) -> list[Block]:
        galleries = (shape_gallery(files, table), trajectory_gallery(files, table))
        return [gallery for gallery in galleries if gallery.figures]

    return Section("shapes", "The activations", lead, _by_cell(tables, blocks))


def _errors(files: StudyFiles, tables: Sequence[CellTable]) -> Section:
    lead = (
        "Rows are true classes, columns predicted ones, in percent of the true class and averaged over the runs "
        "done; the tables below give precision, recall and F1 of every class."
    )

    def blocks(table: CellTable) -> list[Block]:
        gallery = confusion_gallery(files, table)
        return [gallery, *class_tables(files, table)] if gallery.figures else []

    return Section("errors", "Right and wrong", lead, _by_cell(tables, blocks))


def _troubles(files: StudyFiles) -> list[Section]:
    table = troubles_table(files)
    missing = sorted({(run.activation, run.key) for run in files.runs if run.status == "missing"})
    blocks: list[Block] = [table] if table.rows else []
    if missing:
        names = sorted({label for label, _ in missing})
        blocks.append(Note(f"{plural(len(missing), 'run')} without a result so far, of {', '.join(names)}."))
    lead = "Diverged and failed runs are part of the result: what they were to measure is missing from the means above."
    return [Section("troubles", "Diverged, failed and missing runs", lead, blocks)]


def _by_cell(tables: Sequence[CellTable], blocks: Callable[[CellTable], Sequence[Block]]) -> Sequence[Block]:
    """Return the blocks of the only condition, or a fold for each of several, the first one open."""
    if len(tables) == 1:
        return blocks(tables[0])
    folds = [(table.cell.title, blocks(table)) for table in tables]
    shown = [(title, found) for title, found in folds if found]
    return [Fold(title, found, opened=index == 0) for index, (title, found) in enumerate(shown)]
