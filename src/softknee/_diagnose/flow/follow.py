"""What mean-field theory says of the layers of a model, from the first one on: mean squares, and cosines of samples."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._card.function import function_of
from softknee._card.hermite import Hermite
from softknee._card.quadrature import integrate
from softknee._diagnose.flow.layer_sums import SMALLEST
from softknee._surgery.compose import Composer, replay
from softknee._surgery.operations import ARITHMETIC, JOINING, MOVING, PRODUCTS, RESHAPING, SUMS
from softknee._surgery.trace import Ref

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._card.function import Function
    from softknee._card.quadrature import Quadrature
    from softknee._diagnose.flow.layer_sums import Key, SampleFollower
    from softknee._surgery.compose import Acting
    from softknee._surgery.layers import Layer, Node

# Functions that leave mean squares and cosines as they are; dropout does outside of training.
_CARRYING = RESHAPING | MOVING | {"chunk", "split", "unbind"}
# Norms that look at one sample at a time, with the positions of their factors; shifts come next.
_CENTRED = {"layer_norm": 2, "group_norm": 2, "instance_norm": 3}
_BATCH_NORM, _RMS_NORM = {"batch_norm": 3}, {"rms_norm": 2}
_NORMS = _CENTRED | _BATCH_NORM | _RMS_NORM
# What expressions that do the same multiply with or divide by.
_SIZES = frozenset({"rsqrt", "sqrt"})
_ROOTS = {"mul": {"rsqrt"}, "multiply": {"rsqrt"}, "div": {"sqrt"}, "true_divide": {"sqrt"}}


@dataclass(frozen=True)
class Expected:
    """What is expected of a tensor.

    Attributes:
        mean: Of its elements.
        square: Mean of their squares.
        cross: Mean of the products of the same element in two samples; not a number where samples are not told apart.
        follows: Whether it comes from theory, through at least one layer; otherwise all of it was measured.
        note: What else was measured on the way.
    """

    mean: float
    square: float
    cross: float
    follows: bool = True
    note: str = ""

    @property
    def variance(self) -> float:
        """Of the elements."""
        return max(self.square - self.mean**2, 0.0)

    @property
    def covariance(self) -> float:
        """Of the same element in two samples."""
        return self.cross - self.mean**2


@dataclass(frozen=True)
class Step:
    """One call of a layer.

    Attributes:
        layer: The layer.
        turn: Which of its calls, from 0.
        expected: Of its outputs.
        starts: Whether theory begins with it.
        acting: The activation that feeds it alone, None if something else does.
        before: Place in the list of the layer that feeds that activation, and nothing else, by nothing else; None if
            there is none.
        weights: `sw2`: mean square of the weights times the number of inputs of an output.
        biases: `sb2`: mean square of the biases.
    """

    layer: Layer
    turn: int
    expected: Expected
    starts: bool
    acting: Acting | None
    before: int | None
    weights: float
    biases: float


class Propagation:
    """Follows means, mean squares and cross moments of samples through a model with weights as if drawn at random.

    Inputs of activations are taken as jointly normal, terms of sums and factors of products as independent, and what
    comes before the first layer as measured. After a function that theory does not know (attention, pooling) all is
    taken as measured, and theory starts again.

    Args:
        seen: A run of the model.
        measured: Mean square and cosine of the outputs of each call of a layer, by weight and turn.
    """

    def __init__(self, seen: SampleFollower, measured: Mapping[Key, tuple[float, float]]) -> None:
        self.seen = seen
        self.steps: list[Step] = []
        self.residual = False
        self.normed = False
        self._measures = measured
        self._acting = {one.last.output: one for one in Composer(seen.trace).compose()}
        self._nodes: dict[int, Node] = {node.output: node for node in seen.nodes}
        calls = [one.inputs for one in seen.trace.calls if one.module is not None]
        self._users = Counter(number for one in (*(node.inputs for node in seen.nodes), *calls) for number in one)
        self._layers = {
            number: (layer, turn) for layer in seen.layers.values() for turn, number in enumerate(layer.outputs)
        }
        self._known: dict[int, Expected] = {}
        self._step_of: dict[int, int] = {}
        inner = {call.output for one in self._acting.values() for call in one.calls[:-1]}
        for node in seen.nodes:
            # What an activation consists of is nobody else's.
            if node.output not in inner:
                self._known[node.output] = self._made(node)

    def expected(self, number: int) -> Expected:
        """Return what is expected of a tensor."""
        if number not in self._known:
            acting = self._acting.get(number)
            self._known[number] = self._act(acting) if acting else self._measured(number)
        return self._known[number]

    def source(self, acting: Acting) -> tuple[int | None, float]:
        """Return the step whose outputs an activation acts on, if it is one, and their mean square as measured."""
        origin = self._origin(acting.source)
        step = self._step_of.get(origin)
        if step is not None:
            one = self.steps[step]
            return step, self._measures[one.layer.weight, one.turn][0]
        return None, float(self.seen.moments[acting.source][1]) if acting.source in self.seen.moments else math.nan

    def fed(self, step: Step) -> Acting | None:
        """Return the first activation that acts on the outputs of a layer, maybe after a norm or a sum."""
        start = step.layer.outputs[step.turn]
        by_source: dict[int, Acting] = {}
        for one in self._acting.values():
            by_source.setdefault(one.source, one)
        if start in by_source:
            return by_source[start]
        reached = {start}
        for node in self.seen.nodes:
            if reached & set(node.inputs) and node.output not in self._layers:
                reached.add(node.output)
                if node.output in by_source:
                    return by_source[node.output]
        return None

    def rescaled(self, step: Step) -> bool:
        """Return whether the outputs of a layer go into a norm or a sum before anything else acts on them."""
        reached = {step.layer.outputs[step.turn]}
        for node in self.seen.nodes:
            if reached & set(node.inputs):
                if node.name in _NORMS or (node.name in SUMS and len(set(node.inputs) - self.seen.trace.fixed) > 1):
                    return True
                if node.name in _CARRYING:
                    reached.add(node.output)
        return False

    def _measured(self, number: int, why: str = "") -> Expected:
        mean, square = map(float, self.seen.moments.get(number, (math.nan, math.nan)))
        both = self.seen.crosses.get(number, square if number in self.seen.trace.fixed else math.nan)
        return Expected(mean, square, both, follows=False, note=why)

    def _made(self, node: Node) -> Expected:
        if node.output in self._layers:
            return self._layer(node)
        if node.output in self._acting:
            return self._act(self._acting[node.output])
        inputs = [self.expected(number) for number in node.inputs]
        if not any(one.follows for one in inputs):
            # What starts again keeps the reason until a layer.
            return self._measured(node.output, next((one.note for one in inputs if one.note), ""))
        found = self._followed(node, inputs)
        if found is None:
            return self._measured(node.output, f"{node.name} before it")
        # What divides a tensor by its own size is part of a norm.
        own = {number for number in node.inputs if number in self._nodes and self._nodes[number].name in _SIZES}
        paired = zip(node.inputs, inputs, strict=True)
        notes = dict.fromkeys(one.note for number, one in paired if one.note and number not in own)
        return replace(found, note=", ".join(notes))

    def _layer(self, node: Node) -> Expected:
        """Return what comes out of a layer, and write it down as a step."""
        layer, turn = self._layers[node.output]
        before = self.expected(layer.inputs[turn])
        weights = layer.fan_in * float(layer.weight.detach().double().square().mean())
        biases = 0.0 if layer.bias is None else float(layer.bias.detach().double().square().mean())
        if before.follows:
            found = Expected(0.0, weights * before.square + biases, weights * before.cross + biases, note=before.note)
        else:
            q, cosine = self._measures.get((layer.weight, turn), (math.nan, math.nan))
            found = Expected(0.0, q, cosine * q, note=before.note)
        acting = self._acting.get(self._origin(layer.inputs[turn]))
        self._step_of[node.output] = len(self.steps)
        step = Step(layer, turn, found, not before.follows, acting, self._before(layer, turn), weights, biases)
        self.steps.append(step)
        # A start is explained once.
        return found if before.follows else replace(found, note="")

    def _origin(self, number: int, *, alone: bool = False) -> int:
        """Return the tensor that another has its elements of, at most reordered; -1 if others use some on the way."""
        while number not in self._acting and number not in self._layers:
            node = self._nodes.get(number)
            if alone and self._users[number] != 1:
                return -1
            if node is None or node.name not in _CARRYING or not node.inputs:
                break
            number = node.inputs[0]
        return -1 if alone and self._users[number] != 1 else number

    def _before(self, layer: Layer, turn: int) -> int | None:
        """Return the step that leads to a layer through one activation and to nothing else."""
        acting = self._acting.get(self._origin(layer.inputs[turn], alone=True))
        inner = len(acting.calls) if acting else 0
        if acting is None:
            return None
        # An expression uses its input several times.
        source = self._origin(acting.source, alone=inner == 1)
        return self._step_of.get(source)

    def _act(self, acting: Acting) -> Expected:
        """Return what an activation makes of what is expected of its input."""
        before = self.expected(acting.source)
        if not before.follows:
            return self._measured(acting.last.output, before.note)
        function = function_for(acting)
        if function is None or not math.isfinite(before.mean + before.square):
            return self._measured(acting.last.output, f"{acting.kind} before it")
        rule = integrate(function, max(before.variance, SMALLEST), before.mean)
        correlation = before.covariance / max(before.variance, SMALLEST)
        both = joint(rule, min(max(correlation, -1.0), 1.0)) if math.isfinite(correlation) else math.nan
        return Expected(rule.first, rule.square, both, note=before.note)

    def _followed(self, node: Node, inputs: Sequence[Expected]) -> Expected | None:
        """Return what a function makes of its inputs, None if theory does not know it."""
        first = inputs[0]
        if node.name in _NORMS:
            return self._norm(node, first)
        if node.name in _CARRYING:
            return first
        if node.name in JOINING:
            sizes = [math.prod(self.seen.trace.shapes[number]) for number in node.inputs]
            mean, square, both = (_mean(values, sizes) for values in zip(*map(_three, inputs), strict=True))
            return Expected(mean, square, both)
        if node.name == "pad":
            share = math.prod(self.seen.trace.shapes[node.inputs[0]]) / math.prod(self.seen.trace.shapes[node.output])
            zeros = not any(node.keywords.values()) and node.arguments[2:] in {(), ("constant",), ("constant", 0)}
            return Expected(first.mean * share, first.square * share, first.cross * share) if zeros else None
        if node.name == "neg":
            return replace(first, mean=-first.mean)
        values = [*node.arguments, *(value for name, value in node.keywords.items() if name == "other")][:2]
        if node.name in ARITHMETIC and len(values) == 2 and not ({"alpha", "rounding_mode"} & node.keywords.keys()):
            return self._arithmetic(node, *values)
        return None

    def _arithmetic(self, node: Node, first: Any, second: Any) -> Expected | None:
        """Return what becomes of two operands, one of which may be a number."""
        one, other = self._operand(first), self._operand(second)
        if one is None or other is None:
            return None
        if node.name in SUMS:
            mean = one.mean + other.mean * (1 if node.name == "add" else -1)
            fixed = self.seen.trace.fixed
            branches = all(isinstance(value, Ref) and value.number not in fixed for value in (first, second))
            self.residual = self.residual or branches
            return Expected(mean, one.variance + other.variance + mean**2, one.covariance + other.covariance + mean**2)
        makers = {self._nodes[number].name for number in node.inputs if number in self._nodes}
        if makers & _ROOTS.get(node.name, set()):
            self.normed = True
            main = next((value for value in (one, other) if value.follows), one)
            return Expected(0.0, 1.0, main.cross / main.square if main.square else math.nan)
        if node.name in {"mul", "multiply"}:
            return Expected(one.mean * other.mean, one.square * other.square, one.cross * other.cross)
        if node.name in PRODUCTS and isinstance(second, int | float) and second:
            return Expected(one.mean / second, one.square / second**2, one.cross / second**2)
        return None

    def _operand(self, value: Any) -> Expected | None:
        if isinstance(value, Ref):
            return self.expected(value.number)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        return Expected(value, value**2, value**2, follows=False) if isinstance(value, int | float) else None

    def _norm(self, node: Node, before: Expected) -> Expected | None:
        """Return what is left of normalized elements after their factors and shifts."""
        self.normed = True
        place = _NORMS[node.name]
        factor, shift = (
            self._operand(node.keywords.get(name, next(iter(node.arguments[index : index + 1]), None)))
            for name, index in (("weight", place), ("bias", place + 1))
        )
        scale = 1.0 if factor is None else factor.square
        mean, square = (0.0, 0.0) if shift is None else (shift.mean, shift.square)
        if node.name in _RMS_NORM:
            alike = before.cross / before.square if before.square else math.nan
        elif node.name in _BATCH_NORM:
            training = node.keywords.get("training", next(iter(node.arguments[5:6]), False))
            if not training:
                return None
            # What samples have in common is what it takes away.
            alike = 0.0
        else:
            alike = before.covariance / before.variance if before.variance else math.nan
        return Expected(mean, scale + square, scale * alike + square)


def function_for(acting: Acting) -> Function | None:
    """Return an activation as a function of one number, None if it does not act on single elements."""
    module = acting.last.module
    acts = module or partial(replay, acting.calls, acting.source)
    try:
        return function_of(acts, channels=getattr(module, "num_parameters", None))
    except Exception:  # anybody's module may raise anything at an input it was not made for
        return None


def joint(rule: Quadrature, correlation: float) -> float:
    """Return `E[phi(u) phi(v)]` for jointly normal `u` and `v` of the mean and variance of a rule.

    Args:
        rule: Of the function.
        correlation: Between -1 and 1.

    Returns:
        The expectation, averaged over channels.
    """
    if correlation == 1:
        return rule.square
    return float(Hermite.of(rule).product(torch.tensor(correlation, dtype=torch.float64)))


def _three(one: Expected) -> tuple[float, float, float]:
    return one.mean, one.square, one.cross


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / max(sum(sizes), 1)
