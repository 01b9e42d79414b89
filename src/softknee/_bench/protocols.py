"""The protocols that come with softknee, protocols of one's own, and groups of activations."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from softknee._bench.own import SUFFIX, check_protocol, read_protocol
from softknee._bench.protocol import Cell, Protocol, Recipe, Tuning
from softknee._bench.suite import SUITES
from softknee._errors import OptionError, UnknownProtocol, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_REGRESSION: Mapping[str, Any] = MappingProxyType({"batch_size": 98, "steps": 500, "optimizer": "adam"})
_PUBLIC: Mapping[str, Any] = MappingProxyType({"weight_decay": 5e-4, "schedule": "cosine", "augmented": True})
_PUBLIC_TEXT = (
    "SGD, batch 128, learning rate 0.1 with a cosine to 0, momentum 0.9, weight decay 5e-4 on all parameters, crops "
    "and flips, Kaiming-normal weights, a new activation at each of"
)
_PUBLIC_RUN: Mapping[str, Any] = MappingProxyType(
    {"learning_rate": 0.1, "epochs": 200, "seeds": (42, 123, 456), "budget": 1.05}
)
_FAST: Mapping[str, Any] = MappingProxyType({**_PUBLIC, "batch_size": 512})
_FAST_TEXT = (
    "with a short recipe of its own, whose numbers do not compare with the public protocol's: SGD, batch 512, learning "
    "rate 0.2 with a cosine to 0, momentum 0.9, weight decay 5e-4, crops and flips, Kaiming-normal weights."
)
_FAST_RUN: Mapping[str, Any] = MappingProxyType({"learning_rate": 0.2, "epochs": 30})
_SETTING = "A 784-256-192-128-64-10 perceptron on Fashion-MNIST, SGD, batch 128, learning rate 0.001"

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="fashion-mlp",
                title="MLP on Fashion-MNIST",
                description=f"{_SETTING}, momentum 0.9, PyTorch's default initialization, one activation a layer.",
                recipe=Recipe(),
            ),
            Protocol(
                name="fashion-mlp-chapter",
                title="MLP on Fashion-MNIST, as the chapter's code runs it",
                description=f"{_SETTING}, momentum 0.8, PyTorch's default initialization, one activation instance "
                "shared by all layers.",
                recipe=Recipe(momentum=0.8, shared_activation=True),
            ),
            Protocol(
                name="fashion-mlp-fair",
                title="MLP on Fashion-MNIST, with matched gain and tuned rate",
                description=f"{_SETTING} unless tuned, momentum 0.9, one activation a layer. Two initializations "
                "(PyTorch's default; matched to the activation's gain) times two learning rates (the given one; one "
                "tuned per activation on held-out training data), so that the cause of a difference can be told.",
                recipe=Recipe(),
                cells=(
                    Cell(name="default-given", title="default init, given rate"),
                    Cell(name="matched-given", title="matched gain, given rate", initialization="matched"),
                    Cell(name="default-tuned", title="default init, tuned rate", rate="tuned"),
                    Cell(
                        name="matched-tuned",
                        title="matched gain, tuned rate",
                        initialization="matched",
                        rate="tuned",
                    ),
                ),
                tuning=Tuning(),
            ),
            Protocol(
                name="fashion-cnn",
                title="CNN on Fashion-MNIST",
                description="Three 3 x 3 convolutions of 16, 32 and 64 channels with 2 x 2 maxima behind each, and a "
                "linear layer, on Fashion-MNIST; SGD, batch 128, learning rate 0.05, momentum 0.9, PyTorch's default "
                "initialization, one activation a layer.",
                recipe=Recipe(model="cnn", widths=(784, 16, 32, 64, 10)),
                learning_rate=0.05,
                epochs=10,
            ),
            Protocol(
                name="fashion-resnet8",
                title="Small residual network on Fashion-MNIST",
                description="A 3 x 3 convolution of 16 channels with stride 2 and three residual blocks of 16, 32 and "
                "64 channels, batch norm before each activation, on Fashion-MNIST; SGD, batch 128, learning rate 0.1, "
                "momentum 0.9, Kaiming-normal weights, one activation a place.",
                recipe=Recipe(model="resnet", widths=(784, 16, 32, 64, 10)),
                learning_rate=0.1,
                epochs=8,
            ),
            Protocol(
                name="fashion-vit",
                title="Small vision transformer on Fashion-MNIST",
                description="Two blocks of 32 features and 128 hidden units on patches of 4 x 4 pixels of "
                "Fashion-MNIST; Adam, batch 128, learning rate 0.003, PyTorch's default initialization, one activation "
                "a block.",
                recipe=Recipe(model="vit", widths=(784, 128, 128, 10), optimizer="adam"),
                learning_rate=3e-3,
                epochs=8,
            ),
            Protocol(
                name="digits-cnn",
                title="CNN on handwritten digits",
                description="Two 3 x 3 convolutions of 16 and 32 channels with 2 x 2 maxima behind each, and a linear "
                "layer, on 8 x 8 digits; SGD, batch 64, learning rate 0.05, momentum 0.9, PyTorch's default "
                "initialization, one activation a layer.",
                recipe=Recipe(task="digits", model="cnn", widths=(64, 16, 32, 10), batch_size=64),
                learning_rate=0.05,
                epochs=20,
            ),
            Protocol(
                name="mnist1d",
                title="MLP on MNIST-1D",
                description="A 40-100-100-10 perceptron on series made from templates of digits; Adam, batch 100, "
                "learning rate 0.01, 6,000 steps, PyTorch's default initialization, one activation a layer. Published: "
                "68 % with ReLU (and a shortcut, which is left out here), 32 % for a linear model (`identity`).",
                recipe=Recipe(task="mnist1d", widths=(40, 100, 100, 10), batch_size=100, optimizer="adam"),
                learning_rate=0.01,
                epochs=150,
            ),
            Protocol(
                name="mnist1d-cnn",
                title="CNN on MNIST-1D",
                description="Three convolutions of 25 channels in steps of 2, and a linear layer, on series made from "
                "templates of digits; Adam, batch 100, learning rate 0.01, 6,000 steps, PyTorch's default "
                "initialization, one activation a layer. Published: 94 % with ReLU.",
                recipe=Recipe(
                    task="mnist1d", model="cnn-1d", widths=(40, 25, 25, 25, 10), batch_size=100, optimizer="adam"
                ),
                learning_rate=0.01,
                epochs=150,
            ),
            Protocol(
                name="rnn-digits",
                title="Recurrent network on handwritten digits",
                description="A gated recurrent unit of 32 units reads the rows of 8 x 8 digits, and a linear layer its "
                "last state; Adam, batch 64, learning rate 0.005, PyTorch's default initialization. The activation "
                "stands at the candidate for the next state, where a tanh is usual, or at the gates, where sigmoids "
                "are (`place=gates`).",
                recipe=Recipe(task="digits", model="gru", widths=(64, 32, 10), batch_size=64, optimizer="adam"),
                learning_rate=5e-3,
                epochs=30,
                options=("place",),
            ),
            Protocol(
                name="tabular-mlp",
                title="MLP on a table of breast masses",
                description="A 30-64-32-16-2 perceptron tells malignant from benign, with a batch norm before each "
                "activation and dropout of 0.4 behind it; Adam, batch 32, learning rate 0.002, PyTorch's default "
                "initialization, one activation a layer.",
                recipe=Recipe(
                    task="breast-cancer",
                    model="normed-mlp",
                    widths=(30, 64, 32, 16, 2),
                    batch_size=32,
                    optimizer="adam",
                    dropout=0.4,
                ),
                learning_rate=2e-3,
                epochs=60,
            ),
            Protocol(
                name="text-char",
                title="GPT on bytes of Python's own library",
                description="A transformer of two blocks with 64 features and 256 hidden units tells the next byte of "
                "sources of the running Python's library from 64 before it; Adam, 32 windows a step, 100 steps an "
                "epoch, learning rate 0.002, one activation a block. Scored by the saving on files that were not "
                "trained on: 8 less the cross entropy in bits per byte.",
                recipe=Recipe(
                    task="text", model="gpt", widths=(64, 256, 256, 256), batch_size=32, steps=100, optimizer="adam"
                ),
                learning_rate=2e-3,
                epochs=6,
            ),
            Protocol(
                name="mls-resnet20-cifar10",
                title="ResNet-20 on CIFAR-10",
                description=f"MLS-Bench's first setting: {_PUBLIC_TEXT} 19 places.",
                recipe=Recipe(task="cifar10", model="resnet20", widths=(3072, 10), **_PUBLIC),
                options=("normalization", "shortcut"),
                **_PUBLIC_RUN,
            ),
            Protocol(
                name="mls-vgg16bn-cifar100",
                title="VGG-16-BN on CIFAR-100",
                description=f"MLS-Bench's second setting: {_PUBLIC_TEXT} 14 places.",
                recipe=Recipe(task="cifar100", model="vgg16-bn", widths=(3072, 100), **_PUBLIC),
                **_PUBLIC_RUN,
            ),
            Protocol(
                name="mls-mobilenetv2-fmnist",
                title="MobileNetV2 on Fashion-MNIST",
                description=f"MLS-Bench's hidden setting: {_PUBLIC_TEXT} 35 places.",
                recipe=Recipe(task="fashion-rgb", model="mobilenetv2", widths=(3072, 10), **_PUBLIC),
                options=("expand_first", "head_dropout"),
                **_PUBLIC_RUN,
            ),
            Protocol(
                name="fast-resnet20-cifar10",
                title="ResNet-20 on CIFAR-10, fast",
                description=f"MLS-Bench's ResNet-20 on CIFAR-10 {_FAST_TEXT}",
                recipe=Recipe(task="cifar10", model="resnet20", widths=(3072, 10), **_FAST),
                **_FAST_RUN,
            ),
            Protocol(
                name="fast-vgg16bn-cifar100",
                title="VGG-16-BN on CIFAR-100, fast",
                description=f"MLS-Bench's VGG-16-BN on CIFAR-100 {_FAST_TEXT}",
                recipe=Recipe(task="cifar100", model="vgg16-bn", widths=(3072, 100), **_FAST),
                **_FAST_RUN,
            ),
            Protocol(
                name="fast-mobilenetv2-fmnist",
                title="MobileNetV2 on Fashion-MNIST, fast",
                description=f"MLS-Bench's MobileNetV2 on Fashion-MNIST {_FAST_TEXT}",
                recipe=Recipe(task="fashion-rgb", model="mobilenetv2", widths=(3072, 10), **_FAST),
                **_FAST_RUN,
            ),
            Protocol(
                name="fashion-resnet20",
                title="ResNet-20 on Fashion-MNIST",
                description="The public protocol's ResNet-20 on Fashion-MNIST in 32 x 32, a short schedule: SGD, batch "
                "128, learning rate 0.1 with a cosine to 0, momentum 0.9, weight decay 5e-4, crops and flips, "
                "Kaiming-normal weights, one activation at each of 19 places.",
                recipe=Recipe(task="fashion-rgb", model="resnet20", widths=(3072, 10), **_PUBLIC),
                learning_rate=0.1,
                epochs=8,
            ),
            Protocol(
                name="gmm-2d",
                title="Gaussian mixture in the plane",
                description="A 2-12-12-5 perceptron on points of ten Gaussians in five classes; Adam, batch 100, "
                "learning rate 0.005, PyTorch's default initialization, one activation a layer.",
                recipe=Recipe(task="gmm-2d", widths=(2, 12, 12, 5), batch_size=100, optimizer="adam"),
                learning_rate=5e-3,
                epochs=100,
            ),
            Protocol(
                name="regression-1d",
                title="Regression of a function on an interval",
                description="A 1-50-1 perceptron on 98 new points a step, 500 steps an epoch; Adam, learning rate "
                "0.005, PyTorch's default initialization.",
                recipe=Recipe(task="regression-1d", widths=(1, 50, 1), **_REGRESSION),
                learning_rate=5e-3,
                epochs=20,
            ),
            Protocol(
                name="regression-2d",
                title="Regression of a function on a square",
                description="A 2-50-1 perceptron on 98 new points a step, 500 steps an epoch; Adam, learning rate "
                "0.005, PyTorch's default initialization: the published regression of DiTAC.",
                recipe=Recipe(task="regression-2d", widths=(2, 50, 1), **_REGRESSION),
                learning_rate=5e-3,
                epochs=20,
            ),
            Protocol(
                name="pinn-poisson",
                title="A perceptron that solves Poisson's equation",
                description="A 2-32-32-1 perceptron learns a function on a square from its Laplacian and its zeros on "
                "the edges; Adam, 64 new points a step, 200 steps an epoch, learning rate 0.005 with a cosine to 0, "
                "PyTorch's default initialization, one activation a layer. The loss takes two derivatives by the "
                "inputs: piecewise linear activations, whose second derivative is zero, cannot learn it.",
                recipe=Recipe(
                    task="poisson",
                    widths=(2, 32, 32, 1),
                    batch_size=64,
                    steps=200,
                    optimizer="adam",
                    schedule="cosine",
                ),
                learning_rate=5e-3,
                epochs=15,
            ),
        )
    }
)

# The published comparison's thirteen. Its Swish has a fixed beta; its STAF draws 25 terms from a standard normal.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "chapter": (
            "sigmoid",
            "tanh",
            "relu",
            "gelu",
            "mish",
            "leaky_relu",
            "silu",
            "hardswish",
            "swish[fixed]",
            "prelu",
            "rrelu",
            "trainable_elu",
            "staf[terms=25,initialization=normal]",
        ),
        # Those of the public benchmark, and the rectifiers that its table lacks.
        "mls-baselines": ("gelu", "silu", "mish", "relu", "leaky_relu", "prelu"),
    }
)


def get_protocol(asked: str | Path | Protocol) -> Protocol:
    """Return a protocol by its name, one from a file, or one of one's own after a check.

    Args:
        asked: Name of a protocol of softknee's, path of a file that ends in `.toml`, or a protocol.

    Returns:
        The protocol.

    Raises:
        UnknownProtocol: None goes by the name; the message suggests close matches and lists all.
        UsageError: It is the name of a suite, or one's own protocol cannot be read, or cannot be run as it is.
    """
    taken = (*PROTOCOLS, *SUITES)
    if isinstance(asked, Protocol):
        if asked == PROTOCOLS.get(asked.name):
            return asked
        return check_protocol(asked, taken=taken, where=f"protocol {asked.name!r}")
    name = str(asked)
    if name.endswith(SUFFIX):
        return check_protocol(read_protocol(Path(name)), taken=taken, where=name)
    if name in SUITES:
        raise UsageError(f"{name} is a suite, name one of its protocols: {', '.join(SUITES[name].members(final=True))}")
    if name not in PROTOCOLS:
        hint = did_you_mean(name, taken) or ";"
        raise UnknownProtocol(
            f"no protocol named {name!r}{hint} there are {', '.join(PROTOCOLS)}, the suites {', '.join(SUITES)}, and "
            f"files of one's own that end in {SUFFIX}"
        )
    return PROTOCOLS[name]


def with_options(protocol: Protocol, options: Mapping[str, Any]) -> Protocol:
    """Return a protocol whose recipe has some of its open points settled otherwise.

    Args:
        protocol: It.
        options: Fields of its recipe with their values, as such or as text.

    Returns:
        The protocol; runs under other options have other keys.

    Raises:
        OptionError: A field is no open point of the protocol, or takes no such value.
        UsageError: A value does not go with the others of the recipe.
    """
    for name in options:
        if name not in protocol.options:
            there = f"it has {', '.join(protocol.options)}" if protocol.options else "it has none"
            raise OptionError(f"{name!r} is no option of {protocol.name}; {there}")
    try:
        recipe = Recipe.model_validate({**protocol.recipe.model_dump(), **options})
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"option {first['loc'][0]!r} got {first['input']!r}: {first['msg']}") from None
    if recipe == protocol.recipe:
        return protocol
    where = f"{protocol.name} with {', '.join(f'{name}={value}' for name, value in options.items())}"
    return check_protocol(protocol.model_copy(update={"recipe": recipe}), taken=(), where=where)


def expand_groups(activations: Iterable[str]) -> list[str]:
    """Replace names of groups, such as `chapter`, by their members; everything else stays as it is."""
    return [member for text in activations for member in GROUPS.get(text, (text,))]
