"""A study's results: tables, a finding in words, and files for people and programs. Needs no torch."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._bench.page import study_page
from softknee._bench.page_costs import cost_table
from softknee._bench.page_tables import cell_table, spread_table
from softknee._bench.study_evidence import CellEvidence, build_evidence, evidence_sentence
from softknee._bench.study_files import StudyFiles, read_study
from softknee._bench.study_findings import findings, warnings
from softknee._bench.tables import CellTable, build_tables
from softknee._report.files import write_atomic
from softknee._report.page import render_fragment, render_page
from softknee._report.table import markdown_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from softknee._bench.metric import Metric
    from softknee._bench.study_files import Run

COUNTS = ("parameters", "activation_parameters", "multiply_adds", "activation_inputs", "activation_price")


@dataclass(frozen=True)
class Study:
    """The results of a study, finished or not.

    Attributes:
        files: What its folder says.
    """

    files: StudyFiles

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """Read the output folder of a study.

        Args:
            path: The folder that holds `study.json`.

        Returns:
            The study, with the runs it has so far.

        Raises:
            UsageError: There is no study, it was written by another version, or a file in it is damaged.
        """
        return cls(read_study(Path(path)))

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.files.folder

    @property
    def name(self) -> str:
        """Of its protocol."""
        return str(self.files.manifest["protocol"]["name"])

    @property
    def title(self) -> str:
        """Of its protocol, for people."""
        return str(self.files.manifest["protocol"]["title"])

    @cached_property
    def table(self) -> tuple[CellTable, ...]:
        """One table a condition: scores, differences to the reference and verdicts."""
        return build_tables(self.files)

    @cached_property
    def evidence(self) -> tuple[CellEvidence, ...]:
        """What the seeds can bear, for each condition: improvement over the reference, seeds needed, stable ranks."""
        return build_evidence(self.files, self.table)

    def findings(self) -> list[str]:
        """Return the finding, and how far its ranking can be trusted, in sentences."""
        sure = evidence_sentence(self.files, self.evidence)
        return [*findings(self.files, self.table), *([sure] if sure else [])]

    def summary(self) -> str:
        """Return the finding and what limits it, in one paragraph."""
        return " ".join([*self.findings(), *warnings(self.files)])

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one self-contained page.

        Args:
            path: The file; replaced as a whole.

        Raises:
            MissingExtra: SciPy or Jinja2 is not installed.
        """
        write_atomic(path, render_page(study_page(self.files, self.table, self.evidence)))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a run; a run that serves two conditions has a row in each, tuning runs have none in `cell`.

        Args:
            path: The file; replaced as a whole.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, _csv_fields(self.files.metric), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.csv_rows())
        write_atomic(path, text.getvalue())

    def csv_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the file that `to_csv` writes, by the names of its columns."""
        for run in (*self.files.runs, *self.files.tuning_runs):
            yield _csv_row(run, self.files)

    def to_markdown(self, path: str | os.PathLike[str]) -> None:
        """Write the finding and the tables as Markdown.

        Args:
            path: The file; replaced as a whole.

        Raises:
            MissingExtra: SciPy is not installed.
        """
        write_atomic(path, "\n\n".join(self.markdown_parts()) + "\n")

    def markdown_parts(self) -> list[str]:
        """Return the paragraphs and tables of the file that `to_markdown` writes."""
        parts = [f"# {self.title}", *self.findings(), *warnings(self.files)]
        if len(self.table) > 1:
            summary = spread_table(self.files, self.table)
            parts += [f"## {summary.caption}", markdown_table(summary)]
        for table in self.table:
            ranked = cell_table(self.files, table)
            parts += [f"## {ranked.caption}", markdown_table(ranked)]
        costs = cost_table(self.files, self.table[0])
        return [*parts, f"## {costs.caption}", markdown_table(costs)]

    def _repr_html_(self) -> str:
        """Return the finding and the tables for a notebook."""
        tables = [cell_table(self.files, table) for table in self.table]
        return render_fragment([*self.findings(), *warnings(self.files)], tables)


def _csv_fields(metric: Metric) -> list[str]:
    said = ("cell", "activation", "seed", "split", "status", "learning_rate", "epochs")
    scores = (metric.test, "test_loss", metric.train, "train_loss", metric.best, "best_epoch")
    return [*said, *scores, "seconds", "step_seconds", *COUNTS, "key", "error"]


def _csv_row(run: Run, files: StudyFiles) -> dict[str, Any]:
    metric, counts = files.metric, run.get("counts") or {}
    row = {
        **{field: run.get(field) for field in _csv_fields(metric)},
        **{field: run.last(field) for field in (metric.test, "test_loss", metric.train, "train_loss")},
        **{field: counts.get(field) for field in COUNTS},
        "cell": run.cell,
        "activation": run.activation,
        "seed": run.seed,
        "split": files.manifest.get("split", "test") if run.cell else "validation",
        "status": run.status,
        "learning_rate": run.learning_rate,
        "key": run.key,
    }
    error = run.get("error")
    return row | {"error": f"{error['type']}: {error['message']}" if error else None}
