"""What the number of a study's seeds cannot show, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench.tables import compared_seeds
from softknee._statistics.few_seeds import seeds_warning

if TYPE_CHECKING:
    from softknee._bench.study_files import StudyFiles


def few_seeds_sentence(files: StudyFiles) -> str | None:
    """Say that a study has too few seeds for a conclusion that does not rest on a normal distribution.

    Args:
        files: The study.

    Returns:
        Two sentences, or None where there are enough, nothing to compare, or runs still missing.
    """
    others = [label for label in files.activations if label != files.reference]
    if not others or files.pending or any(run.status == "missing" for run in files.runs):
        return None
    seeds = max(compared_seeds(files, cell.name, label) for cell in files.cells for label in others)
    if not seeds:
        return None
    return seeds_warning(seeds, comparisons=len(others), paired=files.paired)
