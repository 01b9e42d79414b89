"""The result of diagnosing a model: plain data that can be kept, read again and drawn without torch."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.verdict import summary, verdict
from softknee._diagnose.rules.rules import worst
from softknee._diagnose.schema import checked, compact
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.plain import plain

if TYPE_CHECKING:
    import os

PAGE, DATA = "report.html", "report.json"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What was measured of a model on its data, and what the rules make of it.

    Attributes:
        data: All of it, by the schema in `docs/diagnostics.md`; not to be changed.
    """

    data: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Diagnosis:
        """Read a stored diagnosis; needs no torch.

        Args:
            path: The JSON file, or the folder that holds `report.json`.

        Returns:
            The diagnosis; parts that an older version did not have are None.

        Raises:
            UsageError: The file holds no diagnosis, or one of a newer schema.
            OSError: It cannot be read.
        """
        place = Path(path)
        place = place / DATA if place.is_dir() else place
        try:
            data = json.loads(place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{place}: this is no JSON ({error})") from error
        return cls(checked(data, str(place)))

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What the rules found, worst first."""
        return copy.deepcopy(self.data["findings"])

    @property
    def verdict(self) -> str:
        """What came out, in a sentence."""
        return verdict(self.data)

    @property
    def worst(self) -> str | None:
        """The worst severity found: `"critical"`, `"warn"`, `"info"` or None."""
        return worst(self.data["findings"])

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of all of it, plain JSON data: finite numbers or None."""
        return copy.deepcopy(self.data)

    def to_json(self) -> str:
        """Return it as JSON text, as it is saved."""
        return json.dumps(self.data, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"

    def summary(self) -> str:
        """Return it in at most ten lines: verdict, model, data, what was not seen, the worst findings."""
        return summary(self.data)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return it as one HTML page that loads nothing.

        Args:
            path: Also write it there, as a whole or not at all.

        Returns:
            The document.

        Raises:
            MissingExtra: Jinja2 is not installed.
        """
        from softknee._diagnose.page.page import page

        text = page(self.data)
        if path is not None:
            write_atomic(path, text)
        return text

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `report.json` and `report.html`.

        Args:
            folder: Made where missing.

        Returns:
            The path of the page.

        Raises:
            MissingExtra: Jinja2 is not installed.
            OSError: The folder cannot be written.
        """
        target = Path(folder)
        write_atomic(target / DATA, self.to_json())
        self.to_html(target / PAGE)
        return target / PAGE

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from softknee._diagnose.page.page import fragment

        return fragment(self.data)


def diagnosed(data: dict[str, Any]) -> Diagnosis:
    """Return measurements as a diagnosis, with numbers of few digits.

    Args:
        data: Plain data of the schema.

    Returns:
        The diagnosis.
    """
    return Diagnosis(checked(compact(plain(data)), "the measurements"))
