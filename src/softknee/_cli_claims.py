"""The command `claims`."""

from __future__ import annotations

from typing import Annotated

import typer


def claims(
    claim: Annotated[str | None, typer.Argument(help="the id of one; all of them are listed by default")] = None,
) -> None:
    """List wrong claims that are often written about activations, or measure what the verdict on one rests on."""
    from softknee._diagnose.claims.ledger import claims as ledger

    typer.echo(repr(ledger()) if claim is None else ledger()[claim].text())
