"""Residual networks with projection shortcuts (He et al. 2016): the public protocol's ResNet-20, and smaller ones."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softknee._bench.activations import build_activation, units_before
from softknee._bench.layers import convolution, linear
from softknee._bench.streams import Stream, stream_generator, stream_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._bench.layers import MakeActivation
    from softknee._bench.protocol import Recipe
    from softknee._bench.submission import Entry

    Shortcut = Literal["projection", "padding"]

WIDTHS = (16, 32, 64)
BLOCKS = 3


def build_resnet20(
    make_activation: MakeActivation, *, seed: int, classes: int = 10, shortcut: Shortcut = "projection"
) -> nn.Sequential:
    """Build the network with its weights.

    Convolutions are Kaiming-normal by `fan_out`, the classifier by `fan_in` with zero bias, for any activation alike.
    Weights have a stream of their own, so two activations start from the same ones at the same seed; the global random
    state is neither used nor changed, except by `make_activation` if it does so.

    Args:
        make_activation: From the number of channels to a new module; called for each of the 19 places in order.
        seed: Of the run.
        classes: Number of logits.
        shortcut: Where the shape changes: `"projection"`, or `"padding"` by zeros, without parameters.

    Returns:
        Layers from the stem to the classifier; `(batch, 3, 32, 32)` in, logits out.
    """
    generator = stream_generator(seed, Stream.WEIGHTS)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["convolution"] = convolution(3, WIDTHS[0], 3, 1, generator)
    layers["norm"] = nn.BatchNorm2d(WIDTHS[0])
    layers["activation"] = make_activation(WIDTHS[0])
    inputs = WIDTHS[0]
    for stage, outputs in enumerate(WIDTHS):
        for index in range(BLOCKS):
            stride = 2 if stage and not index else 1
            block = BasicBlock(inputs, outputs, stride, make_activation, generator, shortcut=shortcut)
            layers[f"block_{stage}_{index}"] = block
            inputs = outputs
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = linear(inputs, classes, generator)
    return nn.Sequential(layers)


def build_resnet(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the network of one block for each width, on square grey images; see `build_model`.

    The first convolution halves the sides of the image, and so does every block but the first.

    Args:
        recipe: Its widths are pixels, channels of the first convolution and its block, of each further block, classes.
        choice: The activation.
        seed: Of the run.

    Returns:
        `(batch, pixels)` in, logits out.
    """
    side, widths = isqrt(recipe.widths[0]), recipe.widths[1:-1]
    before = partial(units_before, choice)
    weights = stream_generator(seed, Stream.WEIGHTS)
    make = partial(build_activation, choice, generator=stream_generator(seed, Stream.ACTIVATION))
    with torch.random.fork_rng(devices=[]):
        # For networks inside of activations; layers have their weights from their own stream.
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION))
        layers: OrderedDict[str, nn.Module] = OrderedDict(image=nn.Unflatten(1, (1, side, side)))
        layers["convolution_0"] = convolution(1, before(widths[0]), 3, 2, weights)
        layers["norm_0"] = nn.BatchNorm2d(before(widths[0]))
        layers["activation_0"] = make(widths[0])
        for index, (inputs, outputs) in enumerate(zip(widths[:1] + widths, widths, strict=False)):
            stride = 2 if index else 1
            layers[f"block_{index}"] = BasicBlock(inputs, outputs, stride, make, weights, before=before)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers[f"linear_{len(widths)}"] = linear(widths[-1], recipe.widths[-1], weights)
    return nn.Sequential(layers)


def _as_many(outputs: int) -> int:
    return outputs


class BasicBlock(nn.Module):
    """Two normalized convolutions beside a shortcut, with an activation between them and one behind the sum.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution and of the shortcut, which is projected where the shape changes.
        make_activation: As in `build_resnet20`.
        generator: Source of the weights.
        before: From the channels that an activation hands on to those it gets; as many by default.
        shortcut: As in `build_resnet20`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        make_activation: MakeActivation,
        generator: torch.Generator,
        *,
        before: Callable[[int], int] = _as_many,
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        given = before(outputs)
        self.convolution_0 = convolution(inputs, given, 3, stride, generator)
        self.norm_0 = nn.BatchNorm2d(given)
        self.activation_0 = make_activation(outputs)
        self.convolution_1 = convolution(outputs, given, 3, 1, generator)
        self.norm_1 = nn.BatchNorm2d(given)
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "padding" and (stride != 1 or inputs != given):
            self.shortcut = Padded(given - inputs, stride)
        elif stride != 1 or inputs != given:
            projection = convolution(inputs, given, 1, stride, generator)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(given))
        self.activation_1 = make_activation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: `(batch, inputs, height, width)`.

        Returns:
            `(batch, outputs, height / stride, width / stride)`.
        """
        residual = self.activation_0(self.norm_0(self.convolution_0(x)))
        residual = self.norm_1(self.convolution_1(residual))
        result: Tensor = self.activation_1(residual + self.shortcut(x))
        return result


class Padded(nn.Module):
    """A shortcut without parameters: every so many pixels, and channels of zeros behind.

    Args:
        channels: How many are added.
        stride: In both directions.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, inputs + channels, height / stride, width / stride)`."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))
