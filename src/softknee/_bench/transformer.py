"""Small transformers: of square grey images cut into patches, and of bytes."""

from __future__ import annotations

from collections import OrderedDict
from math import isqrt
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from softknee._bench.activations import build_activation, units_before
from softknee._bench.streams import Stream, stream_generator, stream_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softknee._bench.protocol import Recipe
    from softknee._bench.submission import Entry

# Hidden units of a block for each of its features, and features of a head.
EXPANSION, HEAD = 4, 16
# Pixels along a patch.
PATCH = 4
BYTES = 256
# Deviation of the places' embedding, and of the bytes'.
SCALE = 0.02


def build_vit(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the vision transformer: patches of 4 x 4, blocks, the mean over patches; see `build_model`.

    Args:
        recipe: Its widths are pixels, hidden units of each block, classes.
        choice: The activation.
        seed: Of the run.

    Returns:
        `(batch, pixels)` in, logits out.
    """
    side = isqrt(recipe.widths[0])

    def first(features: int) -> OrderedDict[str, nn.Module]:
        patches = Patches(features, (side // PATCH) ** 2)
        return OrderedDict(image=nn.Unflatten(1, (1, side, side)), patches=patches)

    def last(features: int) -> OrderedDict[str, nn.Module]:
        return OrderedDict(norm=nn.LayerNorm(features), mean=Mean())

    return _built(recipe, choice, seed, first, last, causal=False)


def build_gpt(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the transformer that tells each next byte from those before it; see `build_model`.

    Args:
        recipe: Its widths are bytes of a window, hidden units of each block, values of a byte.
        choice: The activation.
        seed: Of the run.

    Returns:
        `(batch, window)` in, bytes as integers; logits `(batch, window, 256)` out.
    """

    def first(features: int) -> OrderedDict[str, nn.Module]:
        return OrderedDict(bytes=Bytes(features, recipe.widths[0]))

    def last(features: int) -> OrderedDict[str, nn.Module]:
        return OrderedDict(norm=nn.LayerNorm(features))

    return _built(recipe, choice, seed, first, last, causal=True)


def _built(
    recipe: Recipe,
    choice: Entry,
    seed: int,
    first: Callable[[int], OrderedDict[str, nn.Module]],
    last: Callable[[int], OrderedDict[str, nn.Module]],
    *,
    causal: bool,
) -> nn.Sequential:
    hidden = recipe.widths[1:-1]
    features = hidden[0] // EXPANSION
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, Stream.WEIGHTS))
        layers = first(features)
        for index, units in enumerate(hidden):
            layers[f"block_{index}"] = Block(features, units_before(choice, units), units, causal=causal)
        layers.update(last(features))
        layers[f"linear_{len(hidden)}"] = nn.Linear(features, recipe.widths[-1])
        # For networks inside of activations.
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION))
        generator = stream_generator(seed, Stream.ACTIVATION)
        for index, units in enumerate(hidden):
            layers[f"block_{index}"].activation_0 = build_activation(choice, units, generator=generator)
    return nn.Sequential(layers)


class Block(nn.Module):
    """Attention and a perceptron with one hidden layer, each normalized before and added to its input.

    Args:
        features: Of a token.
        before: Units that the activation gets.
        hidden: Units that it hands on.
        causal: Whether tokens see only those before them.
    """

    def __init__(self, features: int, before: int, hidden: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = features // HEAD
        self.causal = causal
        self.norm_0 = nn.LayerNorm(features)
        self.mix = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.norm_1 = nn.LayerNorm(features)
        self.linear_0 = nn.Linear(features, before)
        self.activation_0: nn.Module = nn.Identity()
        self.linear_1 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: `(batch, tokens, features)`.

        Returns:
            The same shape.
        """
        batch, tokens, features = x.shape
        heads = self.mix(self.norm_0(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind()
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, features))
        # Activations have their units in dimension 1, so that tokens become rows.
        rows: Tensor = self.linear_1(self.activation_0(self.linear_0(self.norm_1(x).flatten(0, 1))))
        return x + rows.view_as(x)


class Patches(nn.Module):
    """Cuts images into patches, each a token that knows its place.

    Args:
        features: Of a token.
        number: Patches of an image.
    """

    def __init__(self, features: int, number: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, features, PATCH, stride=PATCH)
        self.places = nn.Parameter(SCALE * torch.randn(number, features))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, patches, features)` of images `(batch, 1, side, side)`."""
        tokens: Tensor = self.convolution(x).flatten(2).transpose(1, 2)
        return tokens + self.places


class Bytes(nn.Module):
    """Embeds bytes and their places.

    Args:
        features: Of a token.
        context: Bytes of a window.
    """

    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        self.values = nn.Embedding(BYTES, features)
        self.places = nn.Parameter(SCALE * torch.randn(context, features))
        nn.init.normal_(self.values.weight, std=SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, bytes, features)` of bytes `(batch, bytes)`, as numbers of any dtype."""
        embedded: Tensor = self.values(x.long())
        return embedded + self.places[: x.shape[1]]


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, features)` of `(batch, tokens, features)`."""
        return x.mean(1)
