"""The names of the catalogue, aliases among them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._errors import EXCERPT, did_you_mean
from softknee.functional import SPECS
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._spec import Spec

BY_NAME: Mapping[str, Spec] = MappingProxyType({name: spec for spec in SPECS for name in (spec.name, *spec.aliases)})


def unknown(name: str, where: str = "") -> str:
    """Return the message about a name that no activation has.

    Args:
        name: It.
        where: What it was for.

    Returns:
        A sentence with close matches.
    """
    # No name is as long as what is cut off.
    hint = did_you_mean(name[:EXCERPT], BY_NAME)
    return f"no activation named {excerpt(name)}{where}{hint or ';'} `softknee list` shows all {len(SPECS)}"
