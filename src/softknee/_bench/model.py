"""The models of the small protocols, and their two initializations."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import inf, isqrt, prod
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import nn

from softknee._bench.activations import build_activation, has_curve, units_before
from softknee._bench.networks import NETWORKS, SHAPE, build_network
from softknee._bench.recurrent import build_gru
from softknee._bench.resnet import build_resnet
from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._bench.submission import Submission
from softknee._bench.submission_module import build_lazy
from softknee._bench.transformer import build_gpt, build_vit
from softknee._card.propagation import gain
from softknee._errors import UsageError
from softknee.nn.evaluated import Evaluated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from softknee._bench.protocol import Recipe
    from softknee._bench.submission import Entry
    from softknee._card.propagation import Gain

# Layers whose multiply-adds are counted.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def build_model(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the model of a recipe with its default initialization.

    Weights and activation parameters are drawn from streams of their own, so two activations start from the same
    weights at the same seed, as far as they have the same layers: the layer before an activation that changes the
    width is as wide as it takes. The caller's random state is left alone.

    Args:
        recipe: Kind of model, widths, and whether one activation instance serves all layers.
        choice: The activation.
        seed: Of the run.

    Returns:
        `(batch, *example_shape(recipe))` in, `(batch, widths[-1])` out, or as much for each number in. Each
        `activation_i` stands behind its `linear_i` or `convolution_i`, some of them in blocks, and a linear layer is
        the last.

    Raises:
        UsageError: The activation does not fit.
    """
    model = BUILDERS[recipe.model](recipe, choice, seed=seed)
    if isinstance(choice, Submission):
        build_lazy(model, shape=example_shape(recipe), seed=seed)
    return model


def example_shape(recipe: Recipe) -> tuple[int, ...]:
    """Return the shape of an example as the model of a recipe takes it."""
    return SHAPE if recipe.model in NETWORKS else recipe.widths[:1]


def build_mlp(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the perceptron; see `build_model`."""
    linear, activations = _drawn(recipe, choice, seed, hidden=nn.Linear, inputs=recipe.widths[0])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, activation in enumerate(activations):
        layers[f"linear_{index}"] = linear[index]
        layers[f"activation_{index}"] = activation
    layers[f"linear_{len(activations)}"] = linear[-1]
    return nn.Sequential(layers)


def build_normed_mlp(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the perceptron with a batch norm before each activation and dropout behind it; see `build_model`."""
    linear, activations = _drawn(recipe, choice, seed, hidden=nn.Linear, inputs=recipe.widths[0])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, activation in enumerate(activations):
        layers[f"linear_{index}"] = linear[index]
        layers[f"norm_{index}"] = nn.BatchNorm1d(len(linear[index].get_parameter("weight")))
        layers[f"activation_{index}"] = activation
        layers[f"dropout_{index}"] = nn.Dropout(recipe.dropout)
    layers[f"linear_{len(activations)}"] = linear[-1]
    return nn.Sequential(layers)


def build_cnn(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the network of 3 x 3 convolutions on square grey images, 2 x 2 maxima behind each; see `build_model`."""
    convolution = partial(nn.Conv2d, kernel_size=3, padding=1)
    side = isqrt(recipe.widths[0])
    places = (side // 2 ** (len(recipe.widths) - 2)) ** 2
    weighted, activations = _drawn(recipe, choice, seed, hidden=convolution, inputs=1, places=places)
    layers: OrderedDict[str, nn.Module] = OrderedDict(image=nn.Unflatten(1, (1, side, side)))
    for index, activation in enumerate(activations):
        layers[f"convolution_{index}"] = weighted[index]
        layers[f"activation_{index}"] = activation
        layers[f"pool_{index}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers[f"linear_{len(activations)}"] = weighted[-1]
    return nn.Sequential(layers)


def build_cnn_1d(recipe: Recipe, choice: Entry, *, seed: int) -> nn.Sequential:
    """Build the network of convolutions on series, of 5 numbers and then of 3, in steps of 2; see `build_model`."""

    def convolution(channels: int, outputs: int) -> nn.Conv1d:
        return nn.Conv1d(channels, outputs, 5 if channels == 1 else 3, stride=2, padding=1)

    length = (recipe.widths[0] - 1) // 2
    for _ in recipe.widths[2:-1]:
        length = (length + 1) // 2
    weighted, activations = _drawn(recipe, choice, seed, hidden=convolution, inputs=1, places=length)
    layers: OrderedDict[str, nn.Module] = OrderedDict(series=nn.Unflatten(1, (1, -1)))
    for index, activation in enumerate(activations):
        layers[f"convolution_{index}"] = weighted[index]
        layers[f"activation_{index}"] = activation
    layers["flatten"] = nn.Flatten()
    layers[f"linear_{len(activations)}"] = weighted[-1]
    return nn.Sequential(layers)


BUILDERS: Mapping[str, Callable[..., nn.Sequential]] = MappingProxyType(
    {
        "mlp": build_mlp,
        "normed-mlp": build_normed_mlp,
        "cnn": build_cnn,
        "cnn-1d": build_cnn_1d,
        "resnet": build_resnet,
        "vit": build_vit,
        "gpt": build_gpt,
        "gru": build_gru,
        **dict.fromkeys(NETWORKS, build_network),
    }
)


def _drawn(
    recipe: Recipe, choice: Entry, seed: int, *, hidden: Callable[[int, int], nn.Module], inputs: int, places: int = 1
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the layers with weights, a linear one last, and the activations behind all but that one.

    Args:
        recipe: As in `build_model`.
        choice: Likewise.
        seed: Likewise.
        hidden: From the numbers of inputs and outputs to a layer with weights.
        inputs: Of the first.
        places: How many numbers the last layer gets of each channel.

    Returns:
        Both, in order.
    """
    widths = recipe.widths[1:-1]
    generator = stream_generator(seed, Stream.ACTIVATION)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, Stream.WEIGHTS))
        before = [units_before(choice, width) for width in widths]
        weighted = [hidden(inputs, units) for inputs, units in zip((inputs, *widths), before, strict=False)]
        weighted.append(nn.Linear(places * recipe.widths[-2], recipe.widths[-1]))
        # For networks inside of activations.
        torch.default_generator.manual_seed(stream_seed(seed, Stream.ACTIVATION))
        number = 1 if recipe.shared_activation else len(widths)
        made = [build_activation(choice, width, generator=generator) for width in widths[:number]]
    return weighted, made * (len(widths) // number)


def activation_sites(model: nn.Sequential) -> dict[str, nn.Module]:
    """Return the distinct activation instances by the path of their first place; what is inside of one is none."""
    sites: dict[str, nn.Module] = {}
    last = None
    for path, module in model.named_modules():  # what is inside of a module follows it
        name = path.split(".")[-1]
        if (name == "activation" or name.startswith("activation_")) and not (last and path.startswith(last)):
            sites[path], last = module, f"{path}."
    return sites


def site_gains(model: nn.Sequential) -> dict[str, Gain]:
    """Return the gains of activations of single elements at their present parameters, for unit-variance input."""
    return {
        name: gain(module, channels=site_width(model, name))
        for name, module in activation_sites(model).items()
        if has_curve(module)
    }


def site_engines(model: nn.Sequential, *, batch_size: int, shape: Sequence[int]) -> dict[str, str]:
    """Return how the activation at each site evaluates a batch: `"eager"`, `"fused"` or `"table"`."""
    first = {meeting.site: meeting.shape for meeting in reversed(_meetings(model, shape)[0])}
    device = next(model.parameters()).device
    return {
        name: site.engine_for(torch.empty(batch_size * first[site][0], *first[site][1:], device=device))
        if isinstance(site, Evaluated)
        else "eager"
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
        UsageError: An activation has no forward gain: it is no function of single elements, or `E[phi(z)^2]` is zero or
            infinite.
    """
    generator = stream_generator(seed, Stream.WEIGHTS)
    sites, gains = activation_sites(model), {name: site.forward for name, site in site_gains(model).items()}
    if gains.keys() != sites.keys():
        raise UsageError("the activation has no forward gain: it is no function of single elements")
    if not all(0 < factor < inf for factor in gains.values()):
        raise UsageError("the activation has no forward gain: its mean square is zero or infinite")
    by_module = {id(site): gains[name] for name, site in sites.items()}
    factor = input_square**-0.5
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=factor * layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        else:
            factor = by_module[id(layer)]


def count_costs(model: nn.Sequential, *, shape: Sequence[int]) -> dict[str, int | None]:
    """Count parameters, those of the activations among them, and what one example costs.

    Args:
        model: From `build_model`.
        shape: Of an example.

    Returns:
        `parameters` and `activation_parameters`; `multiply_adds` of linear layers and convolutions;
        `activation_inputs`, elements that go through activations, and their `activation_price`: vector instructions for
        all of them, forward and backward, as their formulas are written, None where nobody counts them.
    """
    met, multiply_adds = _meetings(model, shape)
    prices = [price for meeting in met if (price := meeting.price) is not None]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "activation_parameters": sum(p.numel() for site in activation_sites(model).values() for p in site.parameters()),
        "multiply_adds": multiply_adds,
        "activation_inputs": sum(prod(meeting.shape) for meeting in met),
        "activation_price": sum(prices) if len(prices) == len(met) else None,
    }


def site_width(model: nn.Sequential, site: str) -> int:
    """Return the number of units, or channels, an activation named as in `activation_sites` gets at its first place."""
    path, _, name = site.rpartition(".")
    owner = model.get_submodule(path)
    layers = (name.replace("activation", kind) for kind in ("linear", "convolution"))
    return next(len(owner.get_parameter(f"{layer}.weight")) for layer in layers if hasattr(owner, layer))


class _Meeting(NamedTuple):
    """An activation that an example meets.

    Attributes:
        site: It.
        shape: Of its input; the first dimension counts rows of the example, mostly one.
        made: Elements of its output.
    """

    site: nn.Module
    shape: tuple[int, ...]
    made: int

    @property
    def price(self) -> int | None:
        """Vector instructions for all of its output, forward and backward; None where they are not counted."""
        price = self.site._plans[0].price if isinstance(self.site, Evaluated) else None
        return None if price is None else price * self.made


@torch.no_grad()
def _meetings(model: nn.Sequential, shape: Sequence[int]) -> tuple[list[_Meeting], int]:
    """Return the activations an example meets on its way, and the number of multiply-adds."""
    met: list[_Meeting] = []
    products: list[int] = []

    def note(site: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        met.append(_Meeting(site, tuple(given[0].shape), made.numel()))

    def count(layer: nn.Module, _: tuple[Tensor, ...], made: Tensor) -> None:
        weight = cast("Tensor", layer.weight)
        products.append(weight.numel() * made.numel() // len(weight))

    hooks = [site.register_forward_hook(note) for site in activation_sites(model).values()]
    hooks += [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, WEIGHTED)]
    mode = model.training
    model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
    model.train(mode)
    for hook in hooks:
        hook.remove()
    return met, sum(products)
