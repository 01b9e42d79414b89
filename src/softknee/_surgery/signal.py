"""What the theory of wide networks says of the tensors in a model: their mean squares."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._card.propagation import moments
from softknee._errors import UsageError
from softknee._surgery.compose import Composer, replay
from softknee._surgery.operations import ARITHMETIC, JOINING, MOVING, PRODUCTS, RESHAPING, SUMS
from softknee._surgery.probe import acts_on_elements
from softknee._surgery.trace import Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from softknee._surgery.compose import Acting
    from softknee._surgery.layers import Follower, Node

_DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"})
# Functions that leave the mean square as it is, or are taken to.
_CARRYING = RESHAPING | MOVING | {"pad", "interpolate", "upsample", "chunk", "split", "unbind", "mean"}
_POOLING = frozenset(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3))
_OPERANDS = (Ref, int, float, Tensor)
# Functions that make the mean square 1, and the positions of their factors; shifts come next.
_NORMS = {"batch_norm": 3, "instance_norm": 3, "layer_norm": 2, "group_norm": 2, "rms_norm": 2}
# What expressions that do the same multiply with or divide by.
_ROOTS = {"mul": {"rsqrt"}, "multiply": {"rsqrt"}, "div": {"sqrt", "std"}, "true_divide": {"sqrt", "std"}}
# How many normal numbers a function of several elements is tried with, and in how many runs at most.
_FEWEST, _MOST, _RUNS = 2**18, 2**20, 256
# Of a variance to integrate over.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Signal:
    """What is expected of a tensor.

    Attributes:
        mean: Of its elements.
        square: Mean of their squares.
        name: What made it: an activation, a norm, a sum.
        follows: Whether it depends on a layer whose weights are to be drawn.
    """

    mean: float
    square: float
    name: str
    follows: bool = True

    @property
    def variance(self) -> float:
        """Of the elements."""
        return max(self.square - self.mean**2, 0.0)


class Theory:
    """Follows moments through a model of which some layers are drawn so that their outputs have mean square 1.

    What depends on none of them is taken as measured. Inputs of activations are taken as normal, as they are in wide
    networks; terms of sums and factors of products as independent; pooling as if it changed nothing; what is unknown,
    such as attention, as if its result had mean 0 and mean square 1.

    Args:
        seen: A run of the model.
        drawn: Weights of the layers to be drawn.

    Raises:
        UsageError: An activation has no finite mean square.
    """

    def __init__(self, seen: Follower, drawn: Iterable[nn.Parameter]) -> None:
        self._seen = seen
        self._drawn = {number for weight in drawn for number in seen.layers[weight].outputs}
        self._acting = {one.last.output: one for one in Composer(seen.trace).compose()}
        self._known: dict[int, Signal] = {}
        self._makers: dict[int, str] = {}
        for node in seen.nodes:
            self._makers[node.output] = node.name
            self._known[node.output] = self._made(node)

    def signal(self, number: int) -> Signal:
        """Return what is expected of a tensor."""
        if number not in self._known:
            # No function made it: an activation that is a module, or the model was called with it.
            acts = number in self._acting
            self._known[number] = self._act(self._acting[number]) if acts else self._measured(number, "input")
        return self._known[number]

    def _measured(self, number: int, name: str) -> Signal:
        mean, square = map(float, self._seen.moments.get(number, (0.0, 1.0)))
        return Signal(mean, square, name, follows=False)

    def _act(self, acting: Acting) -> Signal:
        before = self.signal(acting.source)
        if not before.follows:
            return self._measured(acting.last.output, acting.kind)
        if not math.isfinite(before.mean + before.square):
            # Scores of which some are masked by the lowest number.
            return Signal(0.0, 1.0, acting.kind)
        shape, like = self._seen.trace.shapes[acting.source], self._seen.likes[acting.source]
        return Signal(*_moments(acting, before, shape, like), acting.kind)

    def _made(self, node: Node) -> Signal:
        if node.output in self._drawn:
            return Signal(0.0, 1.0, node.name)
        if node.output in self._acting:
            return self._act(self._acting[node.output])
        inputs = [self.signal(number) for number in node.inputs]
        known = self._followed(node, inputs)
        return known if any(one.follows for one in inputs) else self._measured(node.output, known.name)

    def _followed(self, node: Node, inputs: list[Signal]) -> Signal:
        """Return what a function makes of its inputs."""
        if node.name in _NORMS:
            return self._norm(node)
        if node.name in JOINING and inputs:
            sizes = [math.prod(self._seen.trace.shapes[number]) for number in node.inputs]
            mean, square = (
                sum(value * size for value, size in zip(values, sizes, strict=True)) / max(sum(sizes), 1)
                for values in ([one.mean for one in inputs], [one.square for one in inputs])
            )
            return Signal(mean, square, " and ".join(dict.fromkeys(self._names(node))))
        if node.name in _CARRYING | _POOLING and inputs:
            return replace(inputs[0], square=inputs[0].square / _kept(node))
        if node.name == "neg":
            return replace(inputs[0], mean=-inputs[0].mean)
        values = [*node.arguments, *(value for name, value in node.keywords.items() if name == "other")][:2]
        if node.name in ARITHMETIC and len(values) == 2 and all(isinstance(one, _OPERANDS) for one in values):
            return self._arithmetic(node, *values)
        return Signal(0.0, 1.0, node.name)

    def _arithmetic(self, node: Node, first: Any, second: Any) -> Signal:
        """Return what becomes of two operands, one of which may be a number."""
        names, one, other = self._names(node), self._term(first), self._term(second)
        if node.name in SUMS:
            mean = one.mean + other.mean * (1 if node.name == "add" else -1)
            name = names[0] if len(names) == 1 else "sum"
            return Signal(mean, one.variance + other.variance + mean**2, name)
        if any(self._makers.get(number) in _ROOTS.get(node.name, ()) for number in node.inputs):
            return Signal(0.0, 1.0, "norm")
        if node.name in {"mul", "multiply"}:
            return Signal(one.mean * other.mean, one.square * other.square, " * ".join(names))
        if node.name in PRODUCTS and not isinstance(second, Ref) and second:
            return Signal(one.mean / float(second), one.square / float(second) ** 2, names[0])
        return Signal(0.0, 1.0, node.name)

    def _norm(self, node: Node) -> Signal:
        """Return what is left of normalized elements after their factors and shifts."""
        position = _NORMS[node.name]
        factor, shift = (
            node.keywords.get(name, next(iter(node.arguments[place : place + 1]), None))
            for name, place in (("weight", position), ("bias", position + 1))
        )
        scale = 1.0 if factor is None else self._term(factor).square
        moved = self._term(shift) if isinstance(shift, Ref) else self._term(0.0)
        return Signal(moved.mean, scale + moved.square, node.name)

    def _term(self, value: Any) -> Signal:
        """Return what is expected of an argument."""
        return self.signal(value.number) if isinstance(value, Ref) else Signal(float(value), float(value) ** 2, "")

    def _names(self, node: Node) -> list[str]:
        """Return the names of what a function is called with but for parameters, which are not worth a word."""
        varying = [number for number in node.inputs if number not in self._seen.trace.fixed]
        return [self.signal(number).name for number in varying] or [node.name]


def _kept(node: Node) -> float:
    """Return the share of the elements that dropout keeps; it divides them by that."""
    if node.name not in _DROPOUTS:
        return 1.0
    p, training = (
        node.keywords.get(name, node.arguments[place] if place < len(node.arguments) else default)
        for name, place, default in (("p", 1, 0.5), ("training", 2, True))
    )
    return max(1.0 - float(p), 1e-9) if training else 1.0


def _moments(acting: Acting, before: Signal, shape: Sequence[int], like: Tensor) -> tuple[float, float]:
    """Return mean and mean square of an activation's outputs for normal inputs.

    Raises:
        UsageError: The mean square is zero, infinite or no number.
    """
    module = acting.last.module
    function: Callable[[Tensor], Tensor] = module or partial(replay, acting.calls, acting.source)
    exact = function if module is None else copy.deepcopy(module).cpu().double()
    if _is_elementwise(exact):
        found = moments(exact, q=max(before.variance, _SMALLEST), mean=before.mean)
        mean, square = found.mean, found.square
    else:
        mean, square = _sampled(copy.deepcopy(module) if module else function, before, shape, like)
    if not 0 < square < math.inf:
        raise UsageError(
            f"{acting.kind} in {acting.last.run.path or 'the model'} has no forward gain: for normal inputs of mean "
            f"square {before.square:.3g} the mean square of its outputs is {square:g}"
        )
    return mean, square


def _is_elementwise(function: Callable[[Tensor], Tensor]) -> bool:
    """Return whether a function treats all elements alike and each by itself."""
    x = torch.linspace(-3, 3, 64, dtype=torch.float64)[:, None]
    try:
        y = function(x.clone())
        alike = y.shape == x.shape and y.dtype == x.dtype and acts_on_elements(function, x, y)
        return alike and torch.allclose(function(x[:32].clone()), y[:32])
    except Exception:  # anybody's module may raise anything at an input it was not made for
        return False


def _sampled(
    function: Callable[[Tensor], Tensor], before: Signal, shape: Sequence[int], like: Tensor
) -> tuple[float, float]:
    """Return mean and mean square of a function's outputs where channels differ or elements depend on one another."""
    rows = max(1, min(shape[0], _MOST * shape[0] // math.prod(shape)))
    count = rows * math.prod(shape[1:])
    runs = min(_RUNS, -(-_FEWEST // count))
    # Quantiles in any order: their mean square is exact, which that of as many random numbers is not.
    quantiles = torch.special.ndtri((torch.arange(count * runs, dtype=torch.float64) + 0.5) / (count * runs))
    order = torch.randperm(len(quantiles), generator=torch.Generator().manual_seed(0))
    inputs = (before.mean + math.sqrt(before.variance) * quantiles[order]).view(runs, rows, *shape[1:])
    outputs = [function(x.to(like)).double() for x in inputs]
    return sum(float(y.mean()) for y in outputs) / runs, sum(float(y.square().mean()) for y in outputs) / runs
