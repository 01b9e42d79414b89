"""What others have published about a suite's settings: cited in reports, and never mixed with what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._report.table import ABSENT, Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

TITLE = "Published figures (not measured here)"


@dataclass(frozen=True)
class Figures:
    """A row of published figures.

    Attributes:
        name: Of the activation, as its source calls it.
        source: What published it: a part of the source that the lead names.
        seeds: Those it was run with.
        scores: Best test accuracies in percent for each setting, of several seeds as mean and sample deviation.
    """

    name: str
    source: str
    seeds: str
    scores: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """All that was published about a suite.

    Attributes:
        lead: Where they are from, what they are and how they can be compared.
        settings: Titles of their columns.
        rows: Them.
    """

    lead: str
    settings: tuple[str, ...]
    rows: tuple[Figures, ...]

    def table(self) -> Table:
        """Return them as a table."""
        columns = [
            Column("Activation", numeric=False),
            *(Column(setting, hint="of the best epoch") for setting in self.settings),
            Column("Seeds", numeric=False),
            Column("Source", numeric=False),
        ]
        rows = [
            [Cell(row.name, "name"), *map(Cell, row.scores), Cell(row.seeds), Cell(row.source)] for row in self.rows
        ]
        return Table("Best test accuracy, percent", columns, rows)


_ALL, _ONE = "42, 123, 456", "42"
_THREE, _FIRST, _CHOSEN = "rows of three seeds", "displayed table", "displayed table; made by a model"

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "mls": Published(
            lead="From the site of MLS-Bench (arXiv:2605.08678; github.com/Imbernoulli/mls-bench-website): the best "
            "accuracy over 200 epochs on the test set, which is optimistic. The tables above rank by the last epoch; "
            "these figures are to be held against their best one. Runs there are not deterministic: the same seed came "
            "out as much as 0.4 points apart, and the deviation between runs is about 0.18, 0.36 and 0.11 points in "
            "the three settings, so a gap of one seed under about 0.5, 1.0 and 0.3 points says nothing. ReLU is not "
            "in the table of this task; its two rows are from tasks about schedules and initialization, which run the "
            "same recipe with ReLU (MobileNetV2 there may have ReLU6). 1.00 is chance: that run diverged. A run took "
            "796, 821 and 2153 seconds with GELU, 607, 612 and 1866 with Mish.",
            settings=("ResNet-20, CIFAR-10", "VGG-16-BN, CIFAR-100", "MobileNetV2, Fashion-MNIST"),
            rows=(
                Figures("gelu", _THREE, _ALL, ("93.32 ± 0.19", "71.46 ± 0.20", "94.85 ± 0.14")),
                Figures("mish", _THREE, _ALL, ("92.75 ± 0.04", "70.81 ± 0.31", "94.73 ± 0.03")),
                Figures("silu", _THREE, _ALL, ("92.65 ± 0.24", "70.43 ± 0.35", "94.58 ± 0.16")),
                Figures("relu", "task dl-lr-schedule, cosine", _ALL, ("92.83 ± 0.18", ABSENT, "94.74 ± 0.03")),
                Figures(
                    "relu",
                    "task dl-weight-initialization, Kaiming-normal",
                    _ALL,
                    (ABSENT, "73.69 ± 0.45", "94.58 ± 0.11"),
                ),
                Figures("gelu", _FIRST, _ONE, ("93.11", "71.38", "94.75")),
                Figures("mish", _FIRST, _ONE, ("92.78", "70.50", "94.70")),
                Figures("silu", _FIRST, _ONE, ("92.72", "70.38", "94.69")),
                Figures("claude-opus-4.6", _CHOSEN, _ONE, ("92.84", "70.88", "94.82")),
                Figures("deepseek-reasoner", _CHOSEN, _ONE, ("93.01", "73.87", "94.74")),
                Figures("gemini-3.1-pro, vanilla", _CHOSEN, _ONE, ("92.37", "1.00", "94.54")),
                Figures("gemini-3.1-pro, agent", _CHOSEN, _ONE, ("92.68", "73.58", "94.91")),
                Figures("gpt-5.4, vanilla", _CHOSEN, _ONE, ("91.14", "68.05", "93.53")),
                Figures("gpt-5.4, agent", _CHOSEN, _ONE, ("92.50", "70.12", "94.35")),
                Figures("qwen3.6-plus", _CHOSEN, _ONE, ("93.10", "72.70", "94.90")),
            ),
        )
    }
)
