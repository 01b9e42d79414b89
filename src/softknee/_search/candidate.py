"""What is tried: a function for each group of sites, as text and numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from softknee._catalogue import create, parse_choice
from softknee._surgery.build import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from softknee._surgery.places import Site


@dataclass(frozen=True)
class Function:
    """What acts at the sites of one group.

    Attributes:
        text: A choice of the catalogue as a command line names it (`"prelu"`, `"swish[beta=1.5]"`), or a formula.
        constants: Starting values of the names in a formula.
        trained: Whether these are trained with the network. What is in the catalogue keeps its own default.
    """

    text: str
    constants: tuple[tuple[str, float], ...] = ()
    trained: bool = False

    @property
    def label(self) -> str:
        """The text with its constants, as `softknee.swap` and the command line take it."""
        if not self.constants:
            return self.text
        options = [f"{name}={value!r}" for name, value in self.constants]
        return f"{self.text}[{','.join(options if self.trained else [*options, 'fixed'])}]"

    def make(self, site: Site | None = None) -> nn.Module:
        """Make a module.

        Args:
            site: That it is for; needed by activations that must know the number of channels.

        Returns:
            A new one.

        Raises:
            UsageError: The text is no activation, a constant is missing, or the number of channels is not known.
        """
        if site is not None:
            return build(self.label, site, per_channel=False)
        choice = parse_choice(self.label)
        options: dict[str, Any] = dict(choice.options)
        return create(choice.what, **options)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"text": self.text, "constants": [list(pair) for pair in self.constants], "trained": self.trained}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Function:
        """Return what `to_json` was called of."""
        constants = tuple((str(name), float(value)) for name, value in data["constants"])
        return cls(data["text"], constants, data["trained"])


@dataclass(frozen=True)
class Candidate:
    """A function for each group of sites.

    Attributes:
        functions: In the order of the groups.
        origin: Who came up with it: `"baseline"`, a method's name, or `"asked"`.
    """

    functions: tuple[Function, ...]
    origin: str

    @property
    def name(self) -> str:
        """Short text for tables."""
        labels = [function.label for function in self.functions]
        return labels[0] if len(set(labels)) == 1 else " | ".join(labels)

    @cached_property
    def key(self) -> str:
        """Hash of the functions, whoever came up with them: 16 hexadecimal digits."""
        return hash_of([function.to_json() for function in self.functions])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"functions": [function.to_json() for function in self.functions], "origin": self.origin}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Return what `to_json` was called of."""
        return cls(tuple(map(Function.from_json, data["functions"])), data["origin"])


def hash_of(data: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of plain data as canonical JSON."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
