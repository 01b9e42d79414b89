"""Finds the activations in what was seen of a model: single calls, and expressions that several calls write out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_map

from softknee._surgery.operations import ACTIVATIONS, ARITHMETIC, PARTS, POINTWISE, PRODUCTS, SIGMOIDAL
from softknee._surgery.probe import known
from softknee._surgery.trace import Call, Ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from softknee._surgery.trace import Trace

# Functions whose kind depends on their arguments.
_BY_VALUE = frozenset({"gelu", "hardtanh", "clamp", "clamp_min", "threshold"})
# The catalogue's names of functions that torch calls otherwise.
_NAMES = {"logsigmoid": "log_sigmoid", "special_expit": "sigmoid", "hardshrink": "magnitude_threshold"}
# A clamp is an activation where it is one of these, otherwise it keeps numbers in a range.
_CLAMPS = frozenset({"relu", "relu6"})


@dataclass(eq=False)
class Acting:
    """An activation as found in one run of a module.

    Attributes:
        calls: It consists of, in order.
        source: Number of its input.
        kind: What it is.
        role: The part it plays, see `Site`.
        product: The call that multiplies it, and nothing else uses it, with a second stream.
        after: The activation whose output is its input, up to reshaping.
        returned: Whether its output is what the model returns.
    """

    calls: list[Call]
    source: int
    kind: str
    role: str = "activation"
    product: Call | None = None
    after: Acting | None = None
    returned: bool = False

    @property
    def last(self) -> Call:
        """The call whose result is that of the activation."""
        return self.calls[-1]

    @property
    def how(self) -> str:
        """Whether it is a module, a function or an expression."""
        return "expression" if len(self.calls) > 1 else "function" if self.last.module is None else "module"


@dataclass
class Composer:
    """Joins calls to activations.

    Args:
        trace: What was seen.
    """

    trace: Trace
    _made: dict[int, Call] = field(default_factory=dict)
    _ancestors: dict[int, frozenset[int]] = field(default_factory=dict)
    _found: dict[Call, Acting] = field(default_factory=dict)
    # Expressions that are no known activation yet, but may be with a factor or a number added.
    _unfinished: dict[Call, Acting] = field(default_factory=dict)

    def compose(self) -> list[Acting]:
        """Return the activations in the order of their calls."""
        for call in self.trace.calls:
            self._made[call.output] = call
            self._consider(call)
        found = list(dict.fromkeys(self._found.values()))
        returned = set(map(self._resolved, self.trace.outputs))
        makers = {self._resolved(acting.last.output): acting for acting in found}
        for acting in found:
            acting.after = makers.get(self._resolved(acting.source))
            acting.returned = self._resolved(acting.last.output) in returned
            if acting.returned and acting.role == "activation":
                acting.role = "output"
            acting.role = "normaliser" if acting.kind == "softmax" else acting.role
        return found

    def _consider(self, call: Call) -> None:
        if not call.inputs or call.output in self.trace.fixed:
            # It makes a weight of weights.
            return
        if call.module is not None or call.name in ACTIVATIONS or call.name in PARTS:
            kind = self._kind(call)
            squares = self._square(call)
            if squares is not None:
                self._extend(squares, call)
            elif kind is not None:
                self._found[call] = Acting([call], call.inputs[0], kind)
        elif call.name in PRODUCTS and len(call.inputs) == 2:
            self._join(call)
        elif call.name in ARITHMETIC and len(call.inputs) == 1:
            self._scale(call)

    def _kind(self, call: Call) -> str | None:
        """Return what a call is by itself, None if it is no activation."""
        if call.module is not None:
            return call.name
        if call.name in PARTS and call.name not in _BY_VALUE:
            return call.name if call.name == "sin" and self._follows_weights(call.inputs) else None
        kind = _NAMES.get(call.name, call.name)
        if call.name not in _BY_VALUE or len(call.inputs) != 1:
            return None if call.name in PARTS else kind
        by_value = self._known([call], call.inputs[0])
        if call.name in PARTS:
            return by_value if by_value in _CLAMPS and self._is_below_zero(call.inputs[0]) else None
        return by_value or kind

    def _is_below_zero(self, number: int) -> bool:
        """Return whether a tensor has negative elements, or none are known: what clamps others is but a safeguard."""
        return number not in self.trace.ranges or bool(self.trace.ranges[number][0] < 0)

    def _follows_weights(self, numbers: Sequence[int]) -> bool:
        """Return whether a tensor is, up to scale and shift, the output of a layer with weights."""
        if len(numbers) != 1:
            return False
        maker = self._made.get(numbers[0])
        if maker is not None and maker.name in ARITHMETIC:
            return self._follows_weights(maker.inputs)
        return numbers[0] in self.trace.weighted

    def _resolved(self, number: int) -> int:
        while number in self.trace.aliases:
            number = self.trace.aliases[number]
        return number

    def _square(self, call: Call) -> Acting | None:
        """Return the activation that a call squares, if it does."""
        power = (call.name == "square" or (call.name == "pow" and call.arguments[1:] == (2,))) and not call.in_place
        maker = self._made.get(call.inputs[0]) if power and call.inputs else None
        acting = self._found.get(maker) if maker else None
        return acting if acting is not None and self._is_inner(acting, call) else None

    def _is_inner(self, acting: Acting, call: Call) -> bool:
        """Return whether an activation can be part of an expression that ends with a call."""
        free = not any(one.in_place or one.hidden or one.module is not None for one in acting.calls)
        return free and acting.last.run is call.run and self._only_for(call, acting.calls)

    def _extend(self, acting: Acting, call: Call) -> None:
        """Let an activation end with a later call."""
        calls = [*acting.calls, call]
        for one in acting.calls:
            self._found.pop(one, None)
        kind = self._known(calls, acting.source) or "expression"
        self._found[call] = Acting(calls, acting.source, kind)

    def _scale(self, call: Call) -> None:
        """Let a factor or a number added belong to an expression that is a known activation only with it."""
        maker = self._made.get(call.inputs[0])
        acting = maker and (self._found.get(maker) or self._unfinished.get(maker))
        if not acting or call.in_place or not self._is_inner(acting, call):
            return
        before = self._scaled_before(acting)
        # What is known already begins something else only together with what leads to it: relu(x) - 1 is a ReLU.
        alone: list[list[Call]] = [[]] if acting.kind == "expression" else []
        for lead in [before, *alone] if before else alone:
            calls = [*lead, *acting.calls, call]
            source = lead[0].inputs[0] if lead else acting.source
            kind = self._known(calls, source)
            if kind is not None and self._only_for(call, calls[:-1]):
                for one in calls:
                    self._found.pop(one, None)
                self._found[call] = Acting(calls, source, kind)
                return
        self._unfinished[call] = Acting([*acting.calls, call], acting.source, "expression")

    def _scaled_before(self, acting: Acting) -> list[Call]:
        """Return the factors and numbers added that lead to an activation, in order."""
        calls: list[Call] = []
        maker = self._made.get(acting.source)
        while (
            maker is not None and maker.name in ARITHMETIC and len(maker.inputs) == 1 and self._is_free(maker, acting)
        ):
            calls.insert(0, maker)
            maker = self._made.get(maker.inputs[0])
        return calls

    def _is_free(self, maker: Call, acting: Acting) -> bool:
        return maker.run is acting.last.run and not (maker.in_place or maker.hidden or maker.module)

    def _join(self, call: Call) -> None:
        """Make one activation of a product of two functions of the same input, or note the part that one plays."""
        first, second = call.inputs
        common = self._ancestors_of(first, call) & self._ancestors_of(second, call)
        for source in sorted(common, reverse=True):
            if call.in_place and call.arguments[0] != Ref(source):
                # What it overwrites is a part, which a swap does not compute.
                continue
            inner = self._between(source, (first, second), call)
            if inner is not None and self._shape(source) == self._shape(call.output) and self._only_for(call, inner):
                calls = [*inner, call]
                kind = self._known(calls, source)
                acting = Acting(calls, source, kind or "expression")
                if kind or any(one in self._found for one in inner):
                    for one in inner:
                        self._found.pop(one, None)
                    self._found[call] = acting
                    return
                self._unfinished.setdefault(call, acting)
        self._note_product(call, first, second)
        self._note_product(call, second, first)

    def _only_for(self, call: Call, inner: Sequence[Call]) -> bool:
        """Return whether the results of calls are used in nothing but one another and a last call."""
        results = {one.output for one in inner}
        users = {*inner, call}
        elsewhere = (number for one in self.trace.calls if one not in users for number in one.inputs)
        return not results & (self.trace.used | set(elsewhere))

    def _note_product(self, call: Call, number: int, other: int) -> None:
        """Note that an activation is multiplied with something else."""
        maker = self._made.get(self._resolved(number))
        acting = self._found.get(maker) if maker else None
        if acting is None or acting.role != "activation" or other in self.trace.fixed:
            return
        if acting.kind in SIGMOIDAL:
            acting.role = "gate"
        elif self._shape(number) == self._shape(other):
            acting.role = "pair"
            simple = call.name == "mul" and not (call.in_place or call.hidden) and number == acting.last.output
            if simple and call.run is acting.last.run and self._only_for(call, acting.calls):
                acting.product = call

    def _shape(self, number: int) -> tuple[int, ...]:
        return self.trace.shapes[number]

    def _ancestors_of(self, number: int, call: Call) -> frozenset[int]:
        """Return the numbers of the tensors that a tensor is made from, element by element, in the same run."""
        if number not in self._ancestors:
            maker = self._made.get(number)
            near: Iterable[int] = ()
            if maker and maker.run is call.run and maker.name in POINTWISE and maker.module is None:
                near = maker.inputs
            self._ancestors[number] = frozenset({number}).union(*(self._ancestors_of(one, call) for one in near))
        return self._ancestors[number]

    def _between(self, source: int, ends: Sequence[int], call: Call) -> list[Call] | None:
        """Return the calls that lead from a tensor to others, in order; None if they also need something else."""
        calls: dict[Call, None] = {}
        waiting = list(ends)
        while waiting:
            number = waiting.pop()
            if number == source:
                continue
            maker = self._made.get(number)
            if maker is None or maker.run is not call.run or maker.name not in POINTWISE or maker.module is not None:
                return None
            if maker.in_place or maker.hidden:
                return None
            if maker not in calls:
                calls[maker] = None
                waiting += maker.inputs
        curved = any(one.name in ACTIVATIONS or one.name in PARTS for one in calls)
        return sorted(calls, key=lambda one: one.output) if curved else None

    def _known(self, calls: list[Call], source: int) -> str | None:
        return known(partial(replay, calls, source))


def replay(calls: Sequence[Call], source: int, x: Tensor) -> Tensor:
    """Return what calls make of another input."""
    values = {source: x}

    def value(one: Any) -> Any:
        return values[one.number] if isinstance(one, Ref) else one

    for call in calls:
        arguments, keywords = tree_map(value, (call.arguments, call.keywords), is_leaf=lambda one: isinstance(one, Ref))
        called: Any = call.function or call.module
        values[call.output] = called(*arguments, **keywords)
    return values[calls[-1].output]


def groups(found: Sequence[Acting]) -> Iterator[list[Acting]]:
    """Yield activations that are called at the same place of the same module, in the order of first calls."""
    by_place: dict[Any, list[Acting]] = {}
    for acting in found:
        last = acting.last
        # Experts take turns as the data wills.
        turn = 0 if last.run.experts else last.occurrence
        by_place.setdefault((last.run.path, last.path, last.name, turn), []).append(acting)
    yield from by_place.values()
