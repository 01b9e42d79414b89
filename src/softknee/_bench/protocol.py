"""Frozen recipes. A protocol fixes everything about a comparison except the activations and the seeds."""

from __future__ import annotations

from itertools import chain, count, islice
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

InitializationName = Literal["default", "matched"]
TaskName = Literal[
    "fashion-mnist",
    "digits",
    "text",
    "gmm-2d",
    "regression-1d",
    "regression-2d",
    "cifar10",
    "cifar100",
    "fashion-rgb",
    "mnist1d",
    "breast-cancer",
    "poisson",
]
ModelName = Literal[
    "mlp", "normed-mlp", "cnn", "cnn-1d", "resnet", "vit", "gpt", "gru", "resnet20", "vgg16-bn", "mobilenetv2"
]
OptimizerName = Literal["sgd", "adam"]
PlaceName = Literal["candidate", "gates"]
RateSource = Literal["given", "tuned"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """Base of the configuration models: immutable, hashable, unknown fields and infinite numbers refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Fields that came later than runs did; at their defaults they are left out, so that those runs keep their keys.
_LATER = (
    *("task", "model", "optimizer", "steps", "weight_decay", "schedule", "augmented"),
    *("normalization", "shortcut", "expand_first", "head_dropout", "dropout", "place"),
)


class Recipe(Frozen):
    """The task, the model and how it is trained.

    Attributes:
        task: What is learned, one of `softknee._bench.tasks.TASKS`.
        model: `"mlp"`, or `"normed-mlp"` with a batch norm before and dropout behind each activation; on square grey
            images `"cnn"` (3 x 3 convolutions with pooling behind each), `"resnet"` (residual blocks, each but the
            first at half the size), `"vit"` (a transformer of patches) and `"gru"` (a gated cell that reads rows);
            `"cnn-1d"` on series (convolutions, each at half the length); `"gpt"`, a transformer of bytes; on images in
            colour of 32 x 32 the public protocol's `"resnet20"`, `"vgg16-bn"` and `"mobilenetv2"`.
        widths: Inputs, what each hidden layer hands on (units, or channels of a convolution or block; hidden units of a
            transformer's block, which has a fourth as many features), and outputs. Networks of the public protocol have
            inputs and outputs alone.
        shared_activation: One activation instance for all hidden layers of `"mlp"` and `"cnn"` instead of one each.
        batch_size: Examples a step; where an epoch goes through a fixed set, the last, smaller batch is kept.
        steps: Of an epoch, where a task draws new examples for every step.
        optimizer: `"sgd"`, or `"adam"` with its usual constants.
        momentum: Of SGD.
        weight_decay: Of all parameters, those of activations too.
        schedule: Of the learning rate: `"constant"`, or `"cosine"` to 0 at the end, a step each epoch.
        augmented: Whether images in colour are cropped and flipped.
        normalization: Constants of CIFAR-10: `"exact"`, or the `"common"` smaller deviations.
        shortcut: Of `"resnet20"` where the shape changes: `"projection"` or `"padding"`.
        expand_first: Whether the first block of `"mobilenetv2"` has the convolution that widens by 1.
        head_dropout: Before the classifier of `"mobilenetv2"`.
        dropout: Behind each activation of `"normed-mlp"`.
        place: Where the activation stands in `"gru"`: at the `"candidate"` for the next state, which is usually a tanh,
            or at the `"gates"`, usually sigmoids; the other place keeps its usual function.
    """

    task: TaskName = "fashion-mnist"
    model: ModelName = "mlp"
    widths: tuple[PositiveInt, ...] = (784, 256, 192, 128, 64, 10)
    shared_activation: bool = False
    batch_size: PositiveInt = 128
    steps: NonNegativeInt = 0
    optimizer: OptimizerName = "sgd"
    momentum: Share = 0.9
    weight_decay: NonNegativeFloat = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    augmented: bool = False
    normalization: Literal["exact", "common"] = "exact"
    shortcut: Literal["projection", "padding"] = "projection"
    expand_first: bool = False
    head_dropout: Share = 0.0
    dropout: Share = 0.0
    place: PlaceName = "candidate"

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

    grid: tuple[PositiveFloat, ...] = (0.001, 0.0032, 0.01, 0.032, 0.1)
    trials: PositiveInt = 7
    seeds: tuple[NonNegativeInt, ...] = (1_000_000,)
    epochs_fraction: PositiveFloat = 1 / 3

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
        seeds: Those that come first; all others from 0 on come behind.
        budget: How many parameters a model may have, as a multiple of those of the largest among the protocol's
            baselines, which have no parameters of their own; None for any number.
        options: Fields of the recipe that a study may set otherwise, open points of what was published.
    """

    name: str
    title: str
    description: str
    recipe: Recipe
    learning_rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 15
    cells: tuple[Cell, ...] = (Cell(name="default-given", title="default initialization, given rate"),)
    tuning: Tuning | None = None
    seeds: tuple[NonNegativeInt, ...] = ()
    budget: PositiveFloat | None = None
    options: tuple[str, ...] = ()

    def first_seeds(self, number: int) -> tuple[int, ...]:
        """Return so many seeds."""
        others = (seed for seed in count() if seed not in self.seeds)
        return tuple(islice(chain(self.seeds, others), number))
