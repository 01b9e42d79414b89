"""VGG-16 with batch normalization for images of 32 x 32, as the public benchmark's protocol has it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from softknee._bench.layers import convolution, linear
from softknee._bench.streams import Stream, stream_generator

if TYPE_CHECKING:
    from softknee._bench.layers import MakeActivation

# Channels of the convolutions between one pooling and the next: configuration D of Simonyan and Zisserman (2015).
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN = 512


def build_vgg16_bn(make_activation: MakeActivation, *, seed: int, classes: int = 100) -> nn.Sequential:
    """Build the network with its weights, initialized as those of `build_resnet20`.

    Args:
        make_activation: From the number of channels to a new module; called for each of the 14 places in order. Inputs
            have 4 dimensions in the body and 2 in the head.
        seed: Of the run.
        classes: Number of logits.

    Returns:
        Layers from the first convolution to the classifier; `(batch, 3, 32, 32)` in, logits out.
    """
    generator = stream_generator(seed, Stream.WEIGHTS)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for stage, widths in enumerate(STAGES):
        for index, outputs in enumerate(widths):
            layers[f"convolution_{stage}_{index}"] = convolution(inputs, outputs, 3, 1, generator)
            layers[f"norm_{stage}_{index}"] = nn.BatchNorm2d(outputs)
            layers[f"activation_{stage}_{index}"] = make_activation(outputs)
            inputs = outputs
        layers[f"pool_{stage}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = linear(inputs, HIDDEN, generator)
    layers["activation"] = make_activation(HIDDEN)
    layers["dropout"] = nn.Dropout(0.5)
    layers["classifier"] = linear(HIDDEN, classes, generator)
    return nn.Sequential(layers)
