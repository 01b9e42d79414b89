"""The command `search`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from softknee._cli_print import console, print_facts, print_path, terminal_table

if TYPE_CHECKING:
    from softknee._search.result import Result


class Space(str, Enum):
    """What functions are made of."""

    one_core = "one-core"
    grafs = "grafs"


class Scope(str, Enum):
    """How many functions are looked for."""

    all = "all"
    site = "site"


def search(
    protocol: Annotated[
        str, typer.Argument(help="digits-cnn, fashion-resnet8, fashion-vit, text-char or any other that `bench` takes")
    ],
    budget: Annotated[
        float, typer.Option(help="in training runs; those of baselines and of the verification count")
    ] = 20.0,
    method: Annotated[str, typer.Option(help="auto, grafs, enumerate, halving, evolve or random")] = "auto",
    space: Annotated[Space, typer.Option(help="what functions are made of")] = Space.one_core,
    scope: Annotated[Scope, typer.Option(help="one function for all places, or one for each")] = Scope.all,
    seeds: Annotated[int, typer.Option(help="paired runs of the verification, 2 at least")] = 3,
    seed: Annotated[int, typer.Option(help="of everything that is drawn")] = 0,
    epochs: Annotated[int | None, typer.Option(help="of a full run; the protocol's own by default")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="of Fashion-MNIST: mini (default), full, or a folder that holds it; of text-char: a folder of texts"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="results/PROTOCOL-search by default")] = None,
) -> None:
    """Look for an activation that does better than the usual ones under a protocol, and prove it or say it did not."""
    from softknee._search.protocol import arguments
    from softknee._search.search import search as run

    folder = Path("results", f"{protocol}-search") if out is None else out
    task = arguments(protocol, data=data, epochs=epochs)
    with console.status("") if sys.stdout.isatty() else nullcontext() as status:
        result = run(
            **task,
            space=space.value,
            scope=scope.value,
            method=method,
            budget=budget,
            seeds=seeds,
            seed=seed,
            out=folder,
            progress=None if status is None else lambda text: status.update(Text(text)),
        )
    _print(result)
    print_path("report", folder / "report.html")
    print_path("code", folder / "best.py")


def _print(result: Result) -> None:
    """Print the tables, what the search rests on, and the verdict."""
    from softknee._search.page_verdict import difference_table, finals_table

    data = result.to_json()
    for table in (finals_table(data), difference_table(data)):
        if table.rows:
            shown = terminal_table(table)
            # Where there is no room, formulas are broken, and nothing else.
            shown.columns[0].width = None
            console.print(shown, "")
    cost, best = result.cost, result.best
    print_facts(
        {
            "verdict": result.verdict,
            "returned": best.name,
            **({"formula": best.formula} if best.formula != best.name else {}),
            **({"notes": "\n".join(result.notes)} if result.notes else {}),
            "cost": f"{cost.spent:.1f} of {cost.budget:g} training runs, {cost.seconds:.0f} s",
        }
    )
