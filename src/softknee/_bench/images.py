"""Colour images that stay bytes until they are used, with the augmentation of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from softknee._bench.examples import Tensors
from softknee._errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from softknee._bench.protocol import Recipe

    Pixels = tuple[float, ...]

# Of the public protocol: zeros around the raw image, from which a window of its size is taken.
PADDING = 4
COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Images(Tensors):
    """Images with labels. Grey ones are stored once and handed out three times.

    The distribution is that of the usual pipeline image by image (a crop of the padded image, then a flip, each drawn
    anew for every image and epoch), at some percent of its cost.

    Attributes:
        train_inputs: `(n, 1 or 3, height, width)` uint8; so are `test_inputs`.
        constants: Mean and standard deviation of the pixels of each channel, from 0 to 1, by name.
        normalization: Which of them are used.
        augmented: Whether images that are trained on are cropped and flipped.
    """

    constants: Mapping[str, tuple[Pixels, Pixels]]
    normalization: str = "exact"
    augmented: bool = False

    def under(self, recipe: Recipe) -> Images:
        """Return the images as a recipe has them.

        Args:
            recipe: Says how they are normalized, and whether they are augmented.

        Returns:
            The same images.

        Raises:
            OptionError: The set has no such constants.
        """
        if recipe.normalization not in self.constants:
            raise OptionError(
                f"normalization must be one of {', '.join(self.constants)} for these images, got "
                f"{recipe.normalization!r}"
            )
        return replace(self, normalization=recipe.normalization, augmented=recipe.augmented)

    @property
    def input_square(self) -> float:
        """Mean square of the prepared inputs, without padding."""
        square = sum(self.prepare(part).double().square().sum().item() for part in self.train_inputs.split(1000))
        return square / (COLOURS * self.train_inputs[:, 0].numel())

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return images as a model takes them: `(n, 3, height, width)` float32, normalized, in channels last."""
        shift, scale = self._scaling
        normalized = (inputs.contiguous(memory_format=torch.channels_last) - shift) / scale
        return normalized.expand(-1, COLOURS, -1, -1).contiguous(memory_format=torch.channels_last)

    def batches(self, order: torch.Generator, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole set in a drawn order; the last batch may be smaller."""
        del steps
        number, device = len(self.train_labels), self.device
        drawn = torch.randperm(number, generator=order).to(device)
        # Drawn in any case, so that the generator's later numbers do not hang on it.
        offsets = torch.randint(2 * PADDING + 1, (2, number), generator=order).to(device)
        flipped = torch.rand(number, generator=order).to(device) < 0.5
        for batch, at, flip in zip(*(one.split(batch_size, -1) for one in (drawn, offsets, flipped)), strict=True):
            yield self.prepare(self._taken(batch, at, flip)), self.train_labels[batch]

    def _taken(self, batch: Tensor, at: Tensor, flip: Tensor) -> Tensor:
        if not self.augmented:
            return self.train_inputs[batch]
        cropped = self._windows[batch, :, at[0], at[1]]
        return torch.where(flip[:, None, None, None], cropped.flip(-1), cropped)

    @cached_property
    def _scaling(self) -> tuple[Tensor, Tensor]:
        """What is subtracted of each channel, and what it is divided by: `(channels, 1, 1)` float32."""
        mean, deviation = (
            torch.tensor(one, dtype=torch.float32, device=self.device).mul_(255)[:, None, None]
            for one in self.constants[self.normalization]
        )
        return mean, deviation

    @cached_property
    def _windows(self) -> Tensor:
        """Every crop of every image, as a view: `(n, channels, 9, 9, height, width)`."""
        padded = F.pad(self.train_inputs, (PADDING,) * 4)
        height, width = self.train_inputs.shape[-2:]
        return padded.unfold(2, height, 1).unfold(3, width, 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Return images resized as Pillow's bilinear filter does it, to whole numbers.

    Args:
        images: `(n, height, width)` uint8.
        side: Of the new ones.

    Returns:
        `(n, 1, side, side)` uint8.
    """
    return F.interpolate(images[:, None], size=(side, side), mode="bilinear", antialias=True)
