"""MobileNetV2 for images of 32 x 32, as the public benchmark's protocol has it (Sandler et al. 2018)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import Tensor, nn

from softknee._bench.layers import convolution, linear
from softknee._bench.streams import Stream, stream_generator

if TYPE_CHECKING:
    import torch

    from softknee._bench.layers import MakeActivation

# Expansion, channels, blocks, stride of the first block. The 24-channel stage keeps the size, as is usual at 32 x 32.
STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
STEM, LAST = 32, 1280


def build_mobilenet_v2(
    make_activation: MakeActivation,
    *,
    seed: int,
    classes: int = 10,
    expand_first: bool = False,
    head_dropout: float = 0.0,
) -> nn.Sequential:
    """Build the network with its weights, initialized as those of `build_resnet20`.

    Args:
        make_activation: From the number of channels to a new module; called for each of the 35 places in order.
        seed: Of the run.
        classes: Number of logits.
        expand_first: Whether the first block, which widens by 1, has its 1 x 1 convolution nevertheless.
        head_dropout: Before the classifier.

    Returns:
        Layers from the stem to the classifier; `(batch, 3, 32, 32)` in, logits out.
    """
    generator = stream_generator(seed, Stream.WEIGHTS)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = _normalized(3, STEM, 3, 1, make_activation, generator)
    inputs = STEM
    for stage, (expansion, outputs, blocks, first) in enumerate(STAGES):
        for index in range(blocks):
            stride = 1 if index else first
            layers[f"block_{stage}_{index}"] = Bottleneck(
                inputs, outputs, expansion, stride, make_activation, generator, always=expand_first
            )
            inputs = outputs
    layers["last"] = _normalized(inputs, LAST, 1, 1, make_activation, generator)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if head_dropout:
        layers["dropout"] = nn.Dropout(head_dropout)
    layers["classifier"] = linear(LAST, classes, generator)
    return nn.Sequential(layers)


class Bottleneck(nn.Module):
    """An inverted residual: wide inside, with one convolution for each channel, and linear where it ends.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        expansion: How many times wider it is inside; at 1 the layer that widens is left out, unless `always`.
        stride: Of the convolution inside; a shortcut is added at stride 1 where the channels match.
        make_activation: As in `build_mobilenet_v2`.
        generator: Source of the weights.
        always: Whether the layer that widens is there at 1, too.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        make_activation: MakeActivation,
        generator: torch.Generator,
        *,
        always: bool = False,
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.has_shortcut = stride == 1 and inputs == outputs
        self.expand: nn.Module = nn.Identity()
        if always or expansion != 1:
            self.expand = _normalized(inputs, inner, 1, 1, make_activation, generator)
        self.depthwise = _normalized(inner, inner, 3, stride, make_activation, generator, groups=inner)
        self.project = nn.Sequential(convolution(inner, outputs, 1, 1, generator), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: `(batch, inputs, height, width)`.

        Returns:
            `(batch, outputs, height / stride, width / stride)`.
        """
        result: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + result if self.has_shortcut else result


def _normalized(
    inputs: int,
    outputs: int,
    size: int,
    stride: int,
    make_activation: MakeActivation,
    generator: torch.Generator,
    *,
    groups: int = 1,
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["convolution"] = convolution(inputs, outputs, size, stride, generator, groups=groups)
    layers["norm"] = nn.BatchNorm2d(outputs)
    layers["activation"] = make_activation(outputs)
    return nn.Sequential(layers)
