"""How a relaxed cell came to its function: weights of the operations, shrinking, losses."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from softknee._report.field import field
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Block, Figure, Fold, Gallery, Key, Section
from softknee._report.table import Cell, Column, Table, plural
from softknee._search.page_words import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIZE = (340.0, 236.0)
# Height of a row, and what stands above and below the rows.
ROW, AROUND = 13.0, 46.0
# Columns of a picture, at most.
MOST = 160
LEAST, LARGEST = 0.01, 1.0
TRAINING, VALIDATION = 0, 1


def trajectory_section(data: Mapping[str, Any]) -> Section | None:
    """Return the way of a relaxed cell; None where there was none.

    Args:
        data: A result.

    Returns:
        The section.
    """
    found = data.get("trajectory")
    if not found or not found["ticks"]:
        return None
    lead = (
        "The relaxed cell mixes all operations of its space. Brighter means a larger mean weight in the mixture; an "
        "operation that was dropped is blank from then on. The candidates are among the functions that the largest "
        "weights gave on the way."
    )
    shown = _thinned(found["ticks"])
    maps = [_weights(slot, index, shown) for index, slot in enumerate(found["slots"])]
    blocks: list[Block] = [Gallery(_lines(found), _keys(found)), Gallery(maps)]
    return Section("trajectory", "From mixture to function", lead, [*blocks, *_formulas(found["ticks"])])


def _thinned(ticks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return evenly chosen ticks, the first and the last among them."""
    if len(ticks) <= MOST:
        return [*ticks]
    return [ticks[round(index * (len(ticks) - 1) / (MOST - 1))] for index in range(MOST)]


def _weights(slot: Sequence[str], index: int, ticks: Sequence[Mapping[str, Any]]) -> Figure:
    name, *operations = slot
    columns = [tick["weights"][index] for tick in ticks]
    rows = [[column[place] for column in columns] for place in reversed(range(len(operations)))]
    last = [operation for operation, weight in zip(operations, columns[-1], strict=True) if weight is not None]
    left = last[0] if len(last) == 1 else plural(len(last), "operation")
    picture = field(
        rows,
        title=f"{name}: weights of its operations",
        description=f"Mean weight of each operation as the search went on; left at the end: {left}.",
        x=(float(ticks[0]["tick"]), float(ticks[-1]["tick"])),
        y=(0.0, float(len(operations) - 1)),
        names=("tick", ""),
        row_names=[*reversed(operations)],
        log=True,
        heights=(LEAST, LARGEST),
        size=(SIZE[0], AROUND + ROW * len(operations)),
    )
    return Figure(picture, f"{name} → {left}", name=False)


def _lines(found: Mapping[str, Any]) -> list[Figure]:
    """Draw how many operations are left, and the losses of the relaxed network."""
    ticks = found["ticks"]
    x = [float(tick["tick"]) for tick in ticks]
    left = [[sum(weight is not None for weight in slot) for slot in tick["weights"]] for tick in ticks]
    shrinking = line_chart(
        [
            Series("all", x, [float(sum(counts)) for counts in left], hue=2),
            *(
                Series(slot[0], x, [float(counts[index]) for counts in left], hue=2, weight="thin")
                for index, slot in enumerate(found["slots"])
            ),
        ],
        title="Operations left",
        description=f"From {sum(left[0])} to {sum(left[-1])} over the search, "
        f"{plural(len(found['drops']), 'drop')} in all; thin lines are single slots.",
        axes=Axes(x="tick", whole=True, y_name="operations left"),
        size=SIZE,
    )
    losses = line_chart(
        [_loss(ticks, "loss", "training", TRAINING), _loss(ticks, "validation", "validation", VALIDATION)],
        title="Losses of the relaxed network",
        description="Training and validation loss of the network with the mixture in it, as the search went on.",
        axes=Axes(x="tick", whole=True, y_name="loss"),
        size=SIZE,
    )
    return [Figure(losses, "loss of the relaxed network", name=False), Figure(shrinking, "shrinking", name=False)]


def _loss(ticks: Sequence[Mapping[str, Any]], kind: str, name: str, hue: int) -> Series:
    """Return a line through the ticks at which a loss was measured."""
    known = [tick for tick in ticks if tick[kind] is not None]
    return Series(name, [float(tick["tick"]) for tick in known], [tick[kind] for tick in known], hue=hue)


def _keys(found: Mapping[str, Any]) -> list[Key]:
    keys = [Key("training", f"main hue-{TRAINING}")]
    if any(tick["validation"] is not None for tick in found["ticks"]):
        keys.append(Key("validation", f"main hue-{VALIDATION}"))
    return [*keys, Key("operations left, in all and of each slot", "main hue-2")]


def _formulas(ticks: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return which function the mixture would have become, whenever that changed."""
    if not ticks[0].get("formula"):
        return []
    changes = [ticks[0], *(after for before, after in pairwise(ticks) if after["formula"] != before["formula"])]
    columns = [Column("From tick on"), Column("Function", numeric=False)]
    rows = [[Cell(str(tick["tick"])), Cell(brief(tick["formula"]), "name")] for tick in changes]
    title = f"The function that it would have become: {plural(len(changes), 'version')}"
    return [Fold(title, [Table("By the largest weights", columns, rows)])]
