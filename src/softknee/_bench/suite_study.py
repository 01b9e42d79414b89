"""The results of a suite: its studies side by side, and what they say together. Needs no torch."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from softknee._bench.study import Study
from softknee._bench.suite_files import SuiteFiles, read_suite
from softknee._bench.suite_page import overview_table, published_beside, suite_page, suite_warnings
from softknee._bench.suite_published import TITLE
from softknee._bench.suite_together import Together, together
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.page import render_fragment, render_page
from softknee._report.table import markdown_table

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class SuiteStudy:
    """The results of a suite, finished or not.

    Attributes:
        files: What its folder says.
        studies: One a protocol.
    """

    files: SuiteFiles
    studies: tuple[Study, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SuiteStudy:
        """Read the output folder of a suite.

        Args:
            path: The folder that holds `suite.json`.

        Returns:
            The suite, with the studies it has so far.

        Raises:
            UsageError: There is none, none of its studies has begun, it was written by another version, or a file in it
                is damaged.
        """
        files = read_suite(Path(path))
        if not files.studies:
            raise UsageError(f"no study of the suite in {str(files.folder)!r} has begun")
        return cls(files, tuple(Study.load(folder) for folder in files.studies))

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.files.folder

    @cached_property
    def together(self) -> Together:
        """What the studies say together."""
        return together(self.studies)

    def summary(self) -> str:
        """Return the findings of all studies and what limits them, in one paragraph."""
        parts = [f"{study.title}: {' '.join(study.findings())}" for study in self.studies]
        return " ".join([*self.together.sentences, *parts, *suite_warnings(self.files, self.studies)])

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one self-contained page, and those of the studies into their folders.

        Args:
            path: The file; replaced as a whole.

        Raises:
            MissingExtra: SciPy or Jinja2 is not installed.
        """
        for study in self.studies:
            study.to_html(study.folder / "report.html")
        write_atomic(path, render_page(suite_page(self.files, self.studies, self.together)))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a run, those of all studies with the protocol before them.

        Args:
            path: The file; replaced as a whole.
        """
        text = io.StringIO()
        tables = [(study.name, list(study.csv_rows())) for study in self.studies]
        fields = dict.fromkeys(field for _, rows in tables for row in rows for field in row)
        writer = csv.DictWriter(text, ["protocol", *fields], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"protocol": name, **row} for name, rows in tables for row in rows)
        write_atomic(path, text.getvalue())

    def to_markdown(self, path: str | os.PathLike[str]) -> None:
        """Write the findings and the tables as Markdown.

        Args:
            path: The file; replaced as a whole.

        Raises:
            MissingExtra: SciPy is not installed.
        """
        suite = self.files.manifest["suite"]
        parts = [f"# {suite['title']}", *self.together.sentences, markdown_table(overview_table(self.studies))]
        parts += [
            f"#{part}" if part.startswith("#") else part for study in self.studies for part in study.markdown_parts()
        ]
        published = published_beside(self.files, self.studies)
        if published is not None:
            parts += [f"## {TITLE}", published.lead, markdown_table(published.table())]
        write_atomic(path, "\n\n".join(parts) + "\n")

    def _repr_html_(self) -> str:
        """Return the findings and the table for a notebook."""
        return render_fragment(list(self.together.sentences), [overview_table(self.studies)])
