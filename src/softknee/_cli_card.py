"""The command `card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softknee._cli_print import console, print_facts, print_path, terminal_table
from softknee._report.terminal import braille_plot


def card(
    activation: Annotated[
        list[str], typer.Argument(help="names, names with [options], expressions, the group `chapter`, or `all`")
    ],
    out: Annotated[Path | None, typer.Option(help="write the page, with all plots, to this HTML file")] = None,
    json: Annotated[Path | None, typer.Option(help="write the numbers to this JSON file")] = None,
) -> None:
    """Say what theory knows of activations: gains, edge of chaos, where gradients vanish; write a page of plots."""
    from softknee._bench.protocols import expand_groups
    from softknee._card.card_page import card_page, cards_data, comparison
    from softknee._report.files import write_atomic
    from softknee._report.page import embedded_json
    from softknee._show import cards_of, describe_card

    cards = cards_of(expand_groups(activation))
    if len(cards) == 1:
        description = describe_card(cards[0])
        print_facts(description.facts)
        console.print(braille_plot(description.x, description.y, width=64, height=16), markup=False, highlight=False)
    else:
        console.print(terminal_table(comparison(cards)))
    if out is not None:
        write_atomic(out, card_page(cards))
        print_path("page", out)
    if json is not None:
        write_atomic(json, embedded_json(cards_data(cards)) + "\n")
        print_path("numbers", json)
