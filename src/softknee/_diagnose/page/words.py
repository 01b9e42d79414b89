"""Numbers and names as a diagnosis's page writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.svg import tick_text
from softknee._report.table import ABSENT, Cell

if TYPE_CHECKING:
    from collections.abc import Mapping

# A sign beside each severity: never colour alone.
SIGNS = {"critical": "■", "warn": "▲", "info": "○"}


def short(value: float | None, digits: int = 3) -> str:
    """Return a number with few digits and a true minus, or a dash for None."""
    if value is None:
        return ABSENT
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}".replace("-", "−")
    return tick_text(float(f"{value:.{digits}g}"))


def rough(value: float) -> str:
    """Return a number in at most six characters, for where it stands large."""
    if value and not 0.01 <= abs(value) < 1000:
        digits, _, power = f"{value:.0e}".partition("e")
        return f"{digits}e{int(power)}".replace("-", "−")
    return short(value, 2)


def between(value: float | None, low: float | None, high: float | None) -> str:
    """Return a number with its interval, if it has one."""
    if value is None:
        return ABSENT
    return short(value) if low is None or high is None else f"{short(value)} ({short(low)} to {short(high)})"


def interval(found: Mapping[str, Any] | None) -> str:
    """Return an interval of the schema."""
    return ABSENT if not found else between(found.get("value"), found.get("low"), found.get("high"))


def number_cell(value: float | None, *, kind: str = "", hint: str = "", digits: int = 3) -> Cell:
    """Return a cell with a number by which a table can be sorted."""
    return Cell(short(value, digits), kind=kind, hint=hint, value=value)


def share_cell(value: float | None, *, warn: float = 2.0, hint: str = "") -> Cell:
    """Return a cell with a share in percent, marked from `warn` on."""
    if value is None:
        return Cell(ABSENT, kind="quiet", hint=hint, value=-1.0)
    text = "0" if not value else f"{100 * value:.1f}" if value < 0.995 else "100"
    return Cell(text, kind="warning" if value >= warn else "" if value else "quiet", hint=hint, value=value)


def name_cell(name: str) -> Cell:
    """Return a cell with a name of the model, which is untrusted text."""
    return Cell(name or "(model)", kind="name")
