"""Frozen recipes. A protocol fixes everything about a comparison except the activations and the seeds."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from softknee._errors import UnknownProtocol, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

InitializationName = Literal["default", "matched"]
TaskName = Literal["fashion-mnist", "digits", "text", "gmm-2d", "regression-1d", "regression-2d"]
ModelName = Literal["mlp", "cnn", "resnet", "vit", "gpt"]
OptimizerName = Literal["sgd", "adam"]
RateSource = Literal["given", "tuned"]


class Frozen(BaseModel):
    """Base of the configuration models: immutable, hashable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Fields that came later than runs did; at their defaults they are left out, so that those runs keep their keys.
_LATER = ("task", "model", "optimizer", "steps")


class Recipe(Frozen):
    """The task, the model and how it is trained.

    Attributes:
        task: What is learned, one of `softknee._bench.tasks.TASKS`.
        model: `"mlp"`; on square grey images `"cnn"` (3 x 3 convolutions with pooling behind each), `"resnet"`
            (residual blocks, each but the first at half the size) and `"vit"` (a transformer of patches); `"gpt"`, a
            transformer of bytes.
        widths: Inputs, what each hidden layer hands on (units, or channels of a convolution or block; hidden units of a
            transformer's block, which has a fourth as many features), and outputs.
        shared_activation: One activation instance for all hidden layers of `"mlp"` and `"cnn"` instead of one each.
        batch_size: Examples a step; where an epoch goes through a fixed set, the last, smaller batch is kept.
        steps: Of an epoch, where a task draws new examples for every step.
        optimizer: `"sgd"`, or `"adam"` with its usual constants; without weight decay.
        momentum: Of SGD.
    """

    task: TaskName = "fashion-mnist"
    model: ModelName = "mlp"
    widths: tuple[int, ...] = (784, 256, 192, 128, 64, 10)
    shared_activation: bool = False
    batch_size: int = 128
    steps: int = 0
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in _LATER}
        return {
            name: value
            for name, value in serialize(self).items()
            if name not in defaults or getattr(self, name) != defaults[name]
        }


class Cell(Frozen):
    """One condition of a protocol's design.

    Attributes:
        name: Identifier, unique in the protocol.
        title: For people.
        initialization: `"default"` is PyTorch's own, `"matched"` scales each layer by its activation's forward gain.
        rate: `"given"` takes the protocol's learning rate, `"tuned"` one chosen per activation and initialization.
    """

    name: str
    title: str
    initialization: InitializationName = "default"
    rate: RateSource = "given"


class Tuning(Frozen):
    """How learning rates are chosen; every activation gets the same number of trials.

    Attributes:
        grid: Rates that are always tried, ascending and evenly spaced in the logarithm.
        trials: Rates tried in all; those beyond the grid extend it where the best lies at its edge, and refine it
            around the best elsewhere.
        seeds: Seeds of the tuning runs, never evaluated ones.
        epochs_fraction: Length of a tuning run as a fraction of the study's epochs.
    """

    grid: tuple[float, ...] = (0.001, 0.0032, 0.01, 0.032, 0.1)
    trials: int = 7
    seeds: tuple[int, ...] = (1_000_000,)
    epochs_fraction: float = 1 / 3

    def epochs(self, epochs: int) -> int:
        """Return how many epochs a tuning run takes in a study of `epochs` epochs."""
        return max(1, round(epochs * self.epochs_fraction))


class Protocol(Frozen):
    """A frozen recipe with its conditions.

    Attributes:
        name: What `bench` and the command line take.
        title: For people.
        description: One or two sentences for the report.
        recipe: Model and training.
        learning_rate: The given rate.
        epochs: Default length of a run.
        cells: The conditions, in the order of the report; the first is ranked first.
        tuning: How rates are chosen where a cell wants them tuned.
    """

    name: str
    title: str
    description: str
    recipe: Recipe
    learning_rate: float = 1e-3
    epochs: int = 15
    cells: tuple[Cell, ...] = (Cell(name="default-given", title="default initialization, given rate"),)
    tuning: Tuning | None = None


_REGRESSION: Mapping[str, Any] = MappingProxyType({"batch_size": 98, "steps": 500, "optimizer": "adam"})
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
        )
    }
)


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`.

    Raises:
        UnknownProtocol: There is none; the message suggests close matches and lists all.
    """
    if name not in PROTOCOLS:
        hint = did_you_mean(name, PROTOCOLS) or ";"
        raise UnknownProtocol(f"no protocol named {name!r}{hint} there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def expand_groups(activations: Iterable[str]) -> list[str]:
    """Replace names of groups, such as `chapter`, by their members; everything else stays as it is."""
    return [member for text in activations for member in GROUPS.get(text, (text,))]
