"""What is known of the training of a model, for its diagnosis: trajectories of parameters, firing of units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._diagnose.units.trajectory import trajectories, watched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of each site; `shown` are the indices of the units whose firing was kept.
_FIRING = ("name", "steps", "shown", "firing", "dead", "births", "revivals")


@dataclass(frozen=True)
class Past:
    """What was watched.

    Attributes:
        found: Trajectories and shapes, as `Trajectories.to_dict` has them.
        sites: Firing over the steps, site by site.
    """

    found: Mapping[str, Any]
    sites: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, history: Any) -> Past | None:
        """Read what was watched.

        Args:
            history: A `softknee.watch`, its `to_dict()`, a file that it saved, a folder of one run of a study, or None.

        Returns:
            What it holds; None for None.

        Raises:
            DataError: It is none of these, or cannot be read.
        """
        if history is None:
            return None
        data = watched(history)
        kept = [
            {name: one[name] for name in _FIRING if name in one} for one in data.get("sites") or () if one.get("steps")
        ]
        return cls(trajectories(data).to_dict(), kept)

    def into(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows of trained activations with their trajectories and shapes.

        Args:
            rows: Of the part `trainable`.
        """
        shapes = {one["site"]: {"x": one["x"], "curves": one["curves"]} for one in self.found["shapes"]}
        done: set[str] = set()
        result = []
        for row in rows:
            names = {row["site"], row["path"]}
            trajectory = next(
                (
                    {**one["trajectory"], "summary": one["summary"]}
                    for one in self.found["parameters"]
                    if one["site"] in names and one["parameter"] == row["parameter"]
                ),
                None,
            )
            # One drawing an activation, however many parameters it has.
            name = next((name for name in sorted(names) if name in shapes and name not in done), None)
            done |= names
            result.append({**row, "trajectory": trajectory, "shapes": shapes[name] if name else None})
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the part `history` of a diagnosis."""
        return {"unit": self.found["unit"], "sites": [dict(one) for one in self.sites]}
