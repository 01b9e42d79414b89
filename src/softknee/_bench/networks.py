"""The public protocol's networks as models of recipes."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import torch

from softknee._bench.activations import build_activation, units_before
from softknee._bench.mobilenet import build_mobilenet_v2
from softknee._bench.resnet import build_resnet20
from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._bench.vgg import build_vgg16_bn
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from softknee._bench.protocol import Recipe
    from softknee._bench.submission import Entry

# What they take.
SHAPE = (3, 32, 32)
# The fields of a recipe that each goes by, beside its outputs.
NETWORKS: Mapping[str, tuple[Callable[..., nn.Sequential], tuple[str, ...]]] = MappingProxyType(
    {
        "resnet20": (build_resnet20, ("shortcut",)),
        "vgg16-bn": (build_vgg16_bn, ()),
        "mobilenetv2": (build_mobilenet_v2, ("expand_first", "head_dropout")),
    }
)


def build_network(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build a network; see `build_model`.

    Args:
        recipe: Its last width is the number of classes.
        choice: The activation, of any kind that leaves the number of channels as it is.
        seed: Of the run.

    Returns:
        `(batch, 3, 32, 32)` in, logits out, in channels last, which is faster.

    Raises:
        UsageError: The activation changes the number of channels.
    """
    build, fields = NETWORKS[recipe.model]
    if units_before(choice, 2 * SHAPE[-1]) != 2 * SHAPE[-1]:
        raise UsageError("it changes the number of channels, and the widths of this network are fixed")
    make = partial(build_activation, choice, generator=stream_generator(seed, Stream.ACTIVATION))
    options = {name: getattr(recipe, name) for name in fields}
    with torch.random.fork_rng(devices=[]):
        # For networks inside of activations; layers have their weights from their own stream.
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION))
        model = build(make, seed=seed, classes=recipe.widths[-1], **options)
    return cast("nn.Sequential", model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
