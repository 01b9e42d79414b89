"""`softknee` and `python -m softknee`: the command line, or which extra brings what it needs."""

from __future__ import annotations

import sys

from softknee._errors import MissingExtra
from softknee._extras import require


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        require("typer", extra="bench")
    except MissingExtra as error:
        sys.exit(f"softknee: {error}")
    from softknee._cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
