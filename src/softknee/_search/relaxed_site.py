"""A mixture at one place of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from softknee._errors import UsageError

if TYPE_CHECKING:
    from softknee._search.mixture import Mixture


class RelaxedSite(nn.Module):
    """A mixture at one place of a model.

    Args:
        mixture: Whose parameters it shares.
        number: Of the site.
        stand_in: What acts while the mixture is `warm`.
    """

    def __init__(self, mixture: Mixture, number: int, stand_in: nn.Module | None = None) -> None:
        super().__init__()
        self.mixture = mixture
        self.number = number
        self.stand_in = stand_in

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mixture.

        Args:
            x: Any shape, any floating dtype.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The mixture is warm and nothing stands in here.
        """
        if not self.mixture.warm:
            return self.mixture.at(self.number, x)
        if self.stand_in is None:
            raise UsageError("the mixture is warm, and this site was made without stand_in")
        result: Tensor = self.stand_in(x)
        return result

    def extra_repr(self) -> str:
        """Return the number of the site."""
        return f"site={self.number}"
