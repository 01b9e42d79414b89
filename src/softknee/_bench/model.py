"""The model of the small protocols, and its two initializations."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._card.propagation import gain
from softknee._errors import UsageError

if TYPE_CHECKING:
    from softknee._bench.protocol import Recipe
    from softknee._card.propagation import Gain
    from softknee._catalogue import Choice
    from softknee.nn.elementwise import Elementwise


def build_mlp(recipe: Recipe, choice: Choice, *, seed: int) -> nn.Sequential:
    """Build the perceptron with PyTorch's default initialization.

    Weights and activation parameters are drawn from streams of their own, so two activations start from the same
    weights at the same seed. The caller's random state is left alone.

    Args:
        recipe: Widths, and whether one activation instance serves all layers.
        choice: The activation.
        seed: Of the run.

    Returns:
        Layers `linear_0, activation_0, linear_1, ...`, a linear one last; `(batch, widths[0])` in, logits out.
    """
    generator = stream_generator(seed, Stream.ACTIVATION)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    shared: nn.Module | None = None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, Stream.WEIGHTS))
        for index, (inputs, outputs) in enumerate(pairwise(recipe.widths)):
            layers[f"linear_{index}"] = nn.Linear(inputs, outputs)
            if index == len(recipe.widths) - 2:
                break
            activation = shared or choice.build(channels=outputs, generator=generator)
            shared = activation if recipe.shared_activation else None
            layers[f"activation_{index}"] = activation
    return nn.Sequential(layers)


def activation_sites(model: nn.Sequential) -> dict[str, nn.Module]:
    """Return the distinct activation instances by the name of their first place."""
    return {name: module for name, module in model.named_children() if name.startswith("activation_")}


def site_gains(model: nn.Sequential) -> dict[str, Gain]:
    """Return the gains of every activation instance at its present parameters, for unit-variance input."""
    return {name: gain(module, channels=site_width(model, name)) for name, module in activation_sites(model).items()}


def site_engines(model: nn.Sequential, *, batch_size: int) -> dict[str, str]:
    """Return how the activation at each site evaluates a batch: `"eager"`, `"fused"` or `"table"`."""
    return {
        name: cast("Elementwise", site).engine_for(torch.empty(batch_size, site_width(model, name)))
        for name, site in activation_sites(model).items()
    }


def match_gains(model: nn.Sequential, *, input_square: float, seed: int) -> None:
    """Initialize in place so that every pre-activation has variance one at the start.

    Weights are normal. The first layer has variance `1 / (fan_in E[x^2])`; a layer behind an activation `phi` has
    `g^2 / fan_in` with the forward gain `g = E[phi(z)^2]^(-1/2)`, `z ~ N(0, 1)`; biases are zero.

    Args:
        model: From `build_mlp`.
        input_square: Mean square of the model's input.
        seed: Of the run; the weights come from its stream of weights.

    Raises:
        UsageError: An activation has no forward gain, because `E[phi(z)^2]` is zero or infinite.
    """
    generator = stream_generator(seed, Stream.WEIGHTS)
    gains = {id(module): site.forward for module, site in zip(_sites(model), site_gains(model).values(), strict=True)}
    if not all(0 < factor < inf for factor in gains.values()):
        raise UsageError("the activation has no forward gain: its mean square is zero or infinite")
    factor = input_square**-0.5
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=factor * layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        else:
            factor = gains[id(layer)]


def count_parameters(model: nn.Sequential) -> dict[str, int]:
    """Count parameters, those of the activations among them, and multiply-adds for one example."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "activation_parameters": sum(p.numel() for site in _sites(model) for p in site.parameters()),
        "multiply_adds": sum(layer.in_features * layer.out_features for layer in linear),
    }


def _sites(model: nn.Sequential) -> list[nn.Module]:
    return list(activation_sites(model).values())


def site_width(model: nn.Sequential, site: str) -> int:
    """Return the number of units an activation, named as in `activation_sites`, acts on at its first place."""
    linear = cast("nn.Linear", model.get_submodule(site.replace("activation", "linear")))
    return linear.out_features
