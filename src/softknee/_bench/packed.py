"""An epoch of several perceptrons at once: their matrix products in one call each, the same numbers as one by one.

A product of stacked matrices is that of each, bit by bit, or is done for each by itself where `products_for` finds that
it is not on this machine; so are activations and losses. It decides no number how many models are trained together, and
which.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softknee._bench.train import Trained
from softknee.nn.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from softknee._bench.examples import Examples

# Elements that processors' loops take at once, or a part of as many.
VECTORS = 64
# Numbers between places where torch puts tensors.
ALIGNMENT = 16


class Member(NamedTuple):
    """A model to be trained beside others.

    Attributes:
        model: A sequence of linear layers and activations, as the others'.
        optimizer: Of its parameters.
        examples: To train on.
        order: Draws its batches.
    """

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    examples: Examples
    order: torch.Generator


def train_epoch_packed(members: Sequence[Member], batch_size: int, steps: int = 0) -> list[Trained]:
    """Train an epoch of each, as `train_epoch` does of one.

    Args:
        members: With layers of the same shapes and as many examples.
        batch_size: Examples of a batch.
        steps: Of the epoch, where the examples never run out.

    Returns:
        What each was like.
    """
    number = taken = 0
    totals, tallies = torch.zeros(2, len(members), dtype=torch.float64)
    ones = [torch.ones(())] * len(members)
    for member in members:
        member.model.train()
    models, optimizers, examples, orders = zip(*members, strict=True)
    with _stacked(models) as layers, _joined(optimizers) as optimizer:
        streams = (own.batches(order, batch_size, steps) for own, order in zip(examples, orders, strict=True))
        for batches in zip(*streams, strict=True):
            outputs = torch.stack([inputs for inputs, _ in batches])
            for layer in layers:
                outputs = layer(outputs)
            each = list(zip(examples, outputs.unbind(), (targets for _, targets in batches), strict=True))
            losses = [own.loss(output, targets) for own, output, targets in each]
            torch.autograd.backward(losses, ones)
            for layer in layers:
                layer.hand_out()
            optimizer.step()
            optimizer.zero_grad()
            size = len(batches[0][1])
            totals += torch.stack(losses).detach() * size
            tallies += torch.stack([own.tally(output.detach(), targets).sum() for own, output, targets in each])
            number, taken = number + size, taken + 1
    means = zip(examples, totals / number, tallies / number, strict=True)
    return [Trained(loss.item(), own.score(tally.item()), taken) for own, loss, tally in means]


def shape_of(model: nn.Sequential) -> tuple[tuple[int, int] | None, ...] | None:
    """Return what models must have in common to be trained side by side; None for one that cannot be.

    That is one of linear layers and of activations of single elements, which draw nothing.

    Args:
        model: Any.
    """
    if not all(
        isinstance(layer, nn.Linear) or (isinstance(layer, Elementwise) and not layer.spec.sampled) for layer in model
    ):
        return None
    return tuple((layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else None for layer in model)


@contextmanager
def _stacked(models: Sequence[nn.Sequential]) -> Iterator[list[_Linear | _Activations]]:
    """Hold the weights of models in stacks, which their parameters are views of for so long.

    Yields:
        Their layers, as one.
    """
    layers = [_layer(places) for places in zip(*models, strict=True)]
    try:
        yield layers
    finally:
        for layer in layers:
            layer.leave()


@contextmanager
def _joined(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[torch.optim.Optimizer]:
    """Step all optimizers in one call for each learning rate, on their own states.

    Yields:
        An optimizer of all parameters.
    """
    groups: dict[float, dict[str, Any]] = {}
    for one in optimizers:
        (own,) = one.param_groups
        groups.setdefault(own["lr"], {**own, "params": []})["params"] += own["params"]
    kind: Any = type(optimizers[0])
    joint: torch.optim.Optimizer = kind(list(groups.values()))
    for one in optimizers:
        joint.state.update(one.state)
    try:
        yield joint
    finally:
        for one in optimizers:
            one.state.update(
                {value: joint.state[value] for value in one.param_groups[0]["params"] if value in joint.state}
            )


def _layer(places: tuple[nn.Module, ...]) -> _Linear | _Activations:
    if isinstance(places[0], nn.Linear):
        return _Linear(cast("Sequence[nn.Linear]", places))
    return _Activations(cast("Sequence[Elementwise]", places))


class _Linear:
    """A linear layer of each model."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._values = [tuple(layer.get_parameter(name) for layer in layers) for name in ("weight", "bias")]
        self._stacks = [_aligned([value.detach() for value in values]) for values in self._values]
        for values, stack in zip(self._values, self._stacks, strict=True):
            for value, part in zip(values, stack.unbind(), strict=True):
                value.data = part
            stack.requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        return cast("Tensor", _Product.apply(x, *self._stacks))

    def hand_out(self) -> None:
        """Give each parameter its gradient."""
        for values, stack in zip(self._values, self._stacks, strict=True):
            gradients = cast("Tensor", stack.grad)
            for value, gradient in zip(values, gradients.unbind(), strict=True):
                value.grad = gradient
            stack.grad = None

    def leave(self) -> None:
        """Give each parameter memory of its own."""
        for values in self._values:
            for value in values:
                value.data = value.data.clone()


class _Activations:
    """An activation of each model; neighbours that are alike act in one call where that decides no bit."""

    def __init__(self, sites: Sequence[Elementwise]) -> None:
        self._sites = sites
        self._runs = [list(run) for _, run in groupby(sites, _function)]

    def __call__(self, x: Tensor) -> Tensor:
        if len(self._runs) == len(self._sites):
            return _one_by_one(self._sites, x)
        parts = x.split([len(run) for run in self._runs])
        return torch.cat([_acted(run, part) for run, part in zip(self._runs, parts, strict=True)])

    def hand_out(self) -> None:
        """Do nothing: parameters of activations are not stacked."""

    def leave(self) -> None:
        """Do nothing, likewise."""


def _function(site: Elementwise) -> Hashable:
    """Return what is equal for activations that are the same function and stay so."""
    if site.spec.channelwise or [*site.parameters(), *site.buffers()]:
        return id(site)
    return repr(site), *site.named_values().values()  # the text has six digits of its numbers


def _acted(sites: Sequence[Elementwise], x: Tensor) -> Tensor:
    """Apply activations that are alike."""
    first, size = sites[0], x[0].numel()
    # Elements that fill no vector are computed otherwise than those that do, threads part them anywhere, and engines
    # are chosen by size.
    whole = size % VECTORS == 0 and torch.get_num_threads() == 1
    if len(sites) > 1 and whole and first.engine_for(x[0]) == first.engine_for(x):
        return cast("Tensor", first(x))
    return _one_by_one(sites, x)


def _one_by_one(sites: Sequence[Elementwise], x: Tensor) -> Tensor:
    return torch.stack([site(part) for site, part in zip(sites, x.unbind(), strict=True)])


class Products(NamedTuple):
    """The products of a linear layer, forward and backward.

    Attributes:
        outputs: From inputs, weights and biases.
        into_inputs: From incoming gradients and weights.
        into_weights: From incoming gradients and inputs.
        into_biases: From incoming gradients.
    """

    outputs: Callable[[Tensor, Tensor, Tensor], Tensor]
    into_inputs: Callable[[Tensor, Tensor], Tensor]
    into_weights: Callable[[Tensor, Tensor], Tensor]
    into_biases: Callable[[Tensor], Tensor]


# As autograd has them for one model, and for a stack in one call each.
ONE = Products(F.linear, lambda g, weight: g @ weight, lambda g, x: g.T @ x, lambda g: g.sum(0))
STACKED = Products(
    lambda x, weight, bias: torch.baddbmm(bias[:, None], x, weight.mT),
    lambda g, weight: g @ weight,
    lambda g, x: g.mT @ x,
    lambda g: g.sum(1),
)


def _each(product: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """Do a product for one model after the other, on copies: those begin where tensors usually do."""
    return torch.stack([product(*(part.clone() for part in parts)) for parts in zip(*stacks, strict=True)])


def _aligned(values: Sequence[Tensor]) -> Tensor:
    """Return a stack in which each begins where tensors usually do: some products have other bits elsewhere."""
    shape, size = values[0].shape, values[0].numel()
    stack = values[0].new_empty(len(values), -(-size // ALIGNMENT) * ALIGNMENT)[:, :size].unflatten(1, shape)
    return torch.stack(list(values), out=stack)


@lru_cache
def products_for(models: int, batch: int, inputs: int, outputs: int, threads: int) -> Products:
    """Return the products that have the bits of each model alone: in one call where this machine's agree.

    Args:
        models: Matrices in a stack.
        batch: Rows of a batch.
        inputs: Of a layer.
        outputs: Of the layer.
        threads: Of torch now; they decide how a product is divided.
    """
    del threads
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(models, batch, width, generator=generator) for width in (inputs, outputs))
    weight, bias = (
        _aligned(list(torch.randn(models, *shape, generator=generator))) for shape in ((outputs, inputs), (outputs,))
    )
    tried = ((x, weight, bias), (g, weight), (g, x), (g,))
    tries: Any = zip(STACKED, ONE, tried, strict=True)
    found = [
        together if torch.equal(together(*given), _each(one, *given)) else partial(_each, one)
        for together, one, given in tries
    ]
    return Products(*found)


class _Product(Function):
    """A linear layer of each model, whose gradients are multiplied as those of one are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.products = products_for(*x.shape, weight.shape[1], torch.get_num_threads())
        return cast("Tensor", ctx.products.outputs(x, weight, bias))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        into_inputs = ctx.products.into_inputs(g, weight) if ctx.needs_input_grad[0] else None
        return into_inputs, ctx.products.into_weights(g, x), ctx.products.into_biases(g)
