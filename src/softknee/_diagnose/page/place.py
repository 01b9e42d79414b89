"""How a place in the model is called in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Characters of a name; of a longer one the beginning and the end are shown.
_LONGEST = 64


def place(data: Mapping[str, Any], name: str) -> str:
    """Return a name with what it is, for those of layers in a row are mere numbers.

    Args:
        data: A diagnosis.
        name: Of a site, a layer or a parameter.

    Returns:
        Such as `5 (relu)`, `layer 4` or, of other places, the name.
    """
    shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"
    kind = next((site.get("kind") for site in data["sites"] if site.get("name") == name), None)
    if kind:
        return f"{shown} ({kind})"
    layers = (data.get("signal") or {}).get("layers") or ()
    return f"layer {shown}" if any(one.get("layer") == name for one in layers) else shown
