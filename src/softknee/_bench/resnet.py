"""ResNet-20 for images of 32 x 32, as the public benchmark's protocol has it (He et al. 2016, projection shortcuts)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import Tensor, nn

from softknee._bench.layers import convolution, linear
from softknee._bench.streams import Stream, stream_generator

if TYPE_CHECKING:
    import torch

    from softknee._bench.layers import MakeActivation

WIDTHS = (16, 32, 64)
BLOCKS = 3


def build_resnet20(make_activation: MakeActivation, *, seed: int, classes: int = 10) -> nn.Sequential:
    """Build the network with its weights.

    Convolutions are Kaiming-normal by `fan_out`, the classifier by `fan_in` with zero bias, for any activation alike.
    Weights have a stream of their own, so two activations start from the same ones at the same seed; the global random
    state is neither used nor changed, except by `make_activation` if it does so.

    Args:
        make_activation: From the number of channels to a new module; called for each of the 19 places in order.
        seed: Of the run.
        classes: Number of logits.

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
            layers[f"block_{stage}_{index}"] = BasicBlock(inputs, outputs, stride, make_activation, generator)
            inputs = outputs
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = linear(inputs, classes, generator)
    return nn.Sequential(layers)


class BasicBlock(nn.Module):
    """Two normalized convolutions beside a shortcut, with an activation between them and one behind the sum.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution and of the shortcut, which is projected where the shape changes.
        make_activation: As in `build_resnet20`.
        generator: Source of the weights.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, make_activation: MakeActivation, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.convolution_0 = convolution(inputs, outputs, 3, stride, generator)
        self.norm_0 = nn.BatchNorm2d(outputs)
        self.activation_0 = make_activation(outputs)
        self.convolution_1 = convolution(outputs, outputs, 3, 1, generator)
        self.norm_1 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = convolution(inputs, outputs, 1, stride, generator)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
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
