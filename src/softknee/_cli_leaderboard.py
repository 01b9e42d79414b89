"""The command `leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softknee._cli_print import console, print_path


def leaderboard(
    folder: Annotated[list[Path], typer.Argument(help="output folders of `softknee bench`, or folders that hold such")],
    out: Annotated[Path, typer.Option(help="folder of the page and the tables")] = Path("leaderboard"),
) -> None:
    """Put the runs of any number of studies on one page, with tables of its rows and of its runs; needs no torch."""
    from softknee._bench.leaderboard import read_leaderboard
    from softknee._bench.leaderboard_files import PAGE, write_leaderboard

    found = read_leaderboard(folder)
    for note in found.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    write_leaderboard(found, out)
    print_path("leaderboard", out / PAGE)
