"""Exceptions. Every message names what was given, what is allowed and what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Characters of a formula shown on either side of a fault.
EXCERPT = 40


class SoftkneeError(Exception):
    """Base of everything softknee raises on purpose."""


class UsageError(SoftkneeError, ValueError):
    """The caller asked for something that cannot be done as asked; the command line exits with 2."""


class UnknownActivation(UsageError):
    """No activation goes by the given name."""


class AmbiguousActivation(UnknownActivation):
    """Several functions go by the given name, and none deserves it; the message lists them."""


class UnknownProtocol(UsageError):
    """No protocol goes by the given name."""


class ExpressionError(UsageError):
    """Something is no formula, or nothing that can be done with one; the message points at the place in its text.

    Args:
        reason: What is wrong.
        text: What was to be read.
        place: Index of the character where it goes wrong.

    Attributes:
        one_line: The same where there is only one line for it.
    """

    def __init__(self, reason: str, text: str = "", place: int = 0) -> None:
        visible = "".join(character if character.isprintable() else " " for character in text)
        before, after = visible[:place], visible[place:]
        before = f"...{before[-EXCERPT:]}" if len(before) > EXCERPT + 3 else before
        after = f"{after[:EXCERPT]}..." if len(after) > EXCERPT + 3 else after
        super().__init__(f"{reason}\n  {before}{after}\n  {' ' * len(before)}^" if text else reason)
        self.one_line = f"{before}>>>{after}: {reason}" if text else reason


class OptionError(UsageError):
    """An option of an activation is unknown, missing or has a value outside its range."""


class DataError(UsageError):
    """A data folder lacks a file, or a file has the wrong size or checksum."""


class StudyMismatch(UsageError):
    """The output folder holds another study."""


class MissingExtra(SoftkneeError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'a' or 'b'?"` for close matches of `name` among `known`, else an empty string."""
    close = get_close_matches(name.lower(), list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
