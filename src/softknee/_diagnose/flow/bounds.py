"""By how much each function that a model calls can stretch a difference, and all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._card.function import Function
from softknee._card.kinks import kinks_of
from softknee._card.shape import shape_of
from softknee._diagnose.curvature.lanczos import lanczos
from softknee._diagnose.flow.follow import function_for
from softknee._surgery.compose import Composer
from softknee._surgery.layers import Follower
from softknee._surgery.observe import tensors_of
from softknee._surgery.operations import JOINING, MOVING, RESHAPING, SUMS, called, name_of
from softknee._surgery.trace import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._surgery.compose import Acting
    from softknee._surgery.layers import Node

    Arguments = tuple[Any, ...]

# Functions that give elements once, or several times.
_SAME = (RESHAPING | MOVING | {"chunk", "split", "unbind", "neg", "roll", "flip"}) - {"fold", "unfold"}
_PRODUCTS = frozenset({"mul", "multiply"})
_QUOTIENTS = frozenset({"div", "true_divide"})
_OF_MATRICES = frozenset({"matmul", "bmm", "mm", "einsum", "baddbmm"})
_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
# Functions that only ask for a shape.
_CONSTANT = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"})
_FACTORIES = frozenset({"zeros", "ones", "full", "eye", "arange", "linspace", "rand", "randn", "randint", "randperm"})
_CONVERTERS = frozenset({"tensor", "as_tensor", "from_numpy"})
_READING = frozenset({"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__index__"})
# Linear functions whose norm is found as that of layers is.
_LINEAR = frozenset(
    {"mean", "sum", "pad", "interpolate", "fold", "unfold"}
    | {f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)}
)
_MAX_POOLS = {f"max_pool{n}d{ending}": n for n in (1, 2, 3) for ending in ("", "_with_indices")}
# Norms of one sample at a time, with the positions of factor and eps.
_NORMS = {"layer_norm": (2, 4), "group_norm": (2, 4), "rms_norm": (2, 3), "instance_norm": (3, 7)}
_NO_ATTENTION = "dot-product attention is not Lipschitz (Kim et al. 2021)"
_NO_PRODUCT = "a product of two streams is not Lipschitz"
_UNSEEN = "a tensor comes from a function that was not seen"
_DISCRETE = "inputs are whole numbers"
# Of torch's norms, and the slope of softmax, whose Jacobian is that of probabilities.
_EPS, _SOFTMAX = 1e-5, 0.5
# Where the steepest of several channels is looked for.
REACH, POINTS = 20.0, 8001
# Linear layers up to this many weights have their norm by singular values, others by so many steps.
_SMALL, STEPS = 2**22, 40


@dataclass(frozen=True)
class Varying:
    """What stands for an argument that comes from the inputs.

    Attributes:
        like: Zeros of its shape for one sample.
    """

    like: Tensor


class Bounds(Follower):
    """Follows a bound from the inputs of a model to its first output.

    Args:
        model: In eval mode.
        generator: Of the directions that power iterations start from.
    """

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        super().__init__(model)
        self.norms: list[tuple[str, float]] = []
        self.why: dict[str, None] = {}
        self._generator = generator
        # How functions were called whose bound depends on values.
        self._calls: dict[int, tuple[Callable[..., Any], Arguments, dict[str, Any]]] = {}
        self._bounds: dict[int, float] = {}
        self._acting: dict[int, Acting] = {}
        self._layer_of: dict[int, str] = {}
        self._returned = -1
        # Whether the code has read numbers out of tensors, which may come back in new ones.
        self._read = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Arguments = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and keep what it was called with, tensors of data as zeros for one sample."""
        before = len(self.nodes)
        result = super().__torch_function__(func, types, args, kwargs)
        given = tensors_in((args, kwargs))
        self._read = self._read or (called(func) in _READING and not self._tensors.are_fixed(given))
        if name_of(func) in (_CONSTANT if given else _FACTORIES if self._read else _FACTORIES | _CONVERTERS):
            for one in tensors_in(result):
                self._tensors.new(one, fixed=True)
        for node in self.nodes[before:]:
            keywords = {name: self._kept(one) for name, one in (kwargs or {}).items()}
            self._calls[node.output] = (func, tuple(map(self._kept, args)), keywords)
        return result

    def _kept(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or self._tensors.are_fixed(value):
            return value
        return Varying(value.new_zeros(()).expand(1, *value.shape[1:]) if value.dim() else value.new_zeros(()))

    def begin(self, *inputs: Any) -> None:
        """Note what the model is called with."""
        super().begin(*inputs)
        given = tensors_in(inputs)
        continuous = any(one.is_floating_point() for one in given)
        if not continuous:
            self.why[_DISCRETE] = None
        for one in given:
            # Beside numbers, whole ones are masks and the like, which are not varied.
            self._bounds[self._number(one)] = float(one.is_floating_point()) if continuous else math.inf

    def finish(self, outputs: Any) -> None:
        """Note what the model returned."""
        super().finish(outputs)
        found = first_output(outputs)
        self._returned = -1 if found is None else self._number(found)

    def bound(self) -> tuple[float | None, str]:
        """Return the bound for the first output, None with the reason if there is none."""
        self._acting = {one.last.output: one for one in Composer(self.trace).compose()}
        self._layer_of = {number: one.path for one in self.layers.values() for number in one.outputs}
        needed = self._needed()
        for node in self.nodes:
            if node.output in needed:
                self._bounds[node.output] = self._made(node)
        found = self._of(self._returned)
        return (found if math.isfinite(found) else None), "; ".join(self.why)

    def _needed(self) -> set[int]:
        """Return the tensors that the first output is made from."""
        nodes = {node.output: node for node in self.nodes}
        needed: set[int] = set()
        waiting = [self._returned]
        while waiting:
            number = waiting.pop()
            if number in needed or number in self.trace.fixed:
                continue
            needed.add(number)
            if number in self._acting:
                waiting.append(self._acting[number].source)
            elif number in nodes:
                waiting += nodes[number].inputs
        return needed

    def _of(self, number: int) -> float:
        """Return the bound of a tensor: 0 if it does not depend on the inputs."""
        if number not in self._bounds:
            acting = self._acting.get(number)
            if acting:
                self._bounds[number] = self._steepest(acting) * self._of(acting.source)
            else:
                self._bounds[number] = 0.0 if number in self.trace.fixed else self._no(_UNSEEN)
        return self._bounds[number]

    def _no(self, why: str) -> float:
        self.why[why] = None
        return math.inf

    def _made(self, node: Node) -> float:
        if node.output in self._acting:
            acting = self._acting[node.output]
            return self._steepest(acting) * self._of(acting.source)
        inputs = [self._of(number) for number in node.inputs]
        if not any(inputs):
            return 0.0
        if node.output in self._layer_of:
            norm = self._norm_of_map(node)
            self.norms.append((self._layer_of[node.output], norm))
            return norm * max(inputs)
        if math.inf in inputs:
            return math.inf
        return self._stretched(node, inputs)

    def _stretched(self, node: Node, inputs: list[float]) -> float:
        """Return the bound of what a function makes of bounded inputs."""
        shapes = [math.prod(self.trace.shapes[number]) for number in (*node.inputs, node.output)]
        # Elements that are used several times count as often.
        spread = [
            one * math.sqrt(max(shapes[-1] / max(size, 1), 1.0)) for one, size in zip(inputs, shapes, strict=False)
        ]
        several = sum(one > 0 for one in inputs) > 1
        if node.name in SUMS:
            return sum(spread) * max(1.0, abs(float(self._calls[node.output][2].get("alpha", 1.0))))
        if node.name in JOINING:
            return math.hypot(*inputs)
        if node.name == "getitem" and _picks(self._calls[node.output][1][1]):
            return self._no("a list of places may take elements several times")
        if node.name in _SAME:
            return spread[0]
        if node.name in _ATTENTION or (node.name in _OF_MATRICES and several):
            return self._no(_NO_ATTENTION)
        if node.name in _PRODUCTS | _QUOTIENTS and not several:
            return self._scaled(node, max(spread))
        if node.name in _PRODUCTS:
            return self._no(_NO_PRODUCT)
        if node.name in _LINEAR:
            return self._norm_of_map(node) * inputs[0]
        if node.name == "softmax":
            return _SOFTMAX * inputs[0]
        if node.name in _MAX_POOLS:
            return self._max_pool(node) * inputs[0]
        if node.name in _NORMS or node.name == "batch_norm":
            return self._norm(node) * inputs[0]
        return self._no(f"no bound is known for {node.name}")

    def _steepest(self, acting: Acting) -> float:
        """Return the largest slope of an activation."""
        if acting.kind == "softmax":
            return _SOFTMAX
        function = function_for(acting)
        if function is None:
            return self._no(f"no bound is known for {acting.kind}")
        found = steepest(function)
        return found if math.isfinite(found) else self._no(f"{acting.kind} is not Lipschitz")

    def _scaled(self, node: Node, bound: float) -> float:
        """Return the bound after a product with, or a division by, what does not depend on the inputs."""
        _, args, keywords = self._calls[node.output]
        operands = [*args, *keywords.values()][:2]
        varying = [isinstance(one, Varying) for one in operands]
        if all(varying):
            return self._no("a factor comes from an input that is not varied")
        constant = torch.as_tensor(operands[0 if varying[-1] else -1]).detach().double().abs()
        if node.name in _PRODUCTS:
            return bound * float(constant.max())
        if varying[-1]:
            return self._no("a division by a stream is not Lipschitz")
        return bound / float(constant.min()) if constant.min() > 0 else self._no("it divides by zero")

    def _max_pool(self, node: Node) -> float:
        """Return the root of the number of windows that an element may be in."""
        _, args, keywords = self._calls[node.output]
        names = ("input", "kernel_size", "stride", "padding", "dilation")
        given = {"dilation": 1} | dict(zip(names, args, strict=False)) | keywords
        dims = _MAX_POOLS[node.name]
        sizes, strides, dilations = (_each(given.get(name), dims) for name in ("kernel_size", "stride", "dilation"))
        windows = 1
        for size, stride, apart in zip(sizes, strides, dilations, strict=True):
            step = stride or size
            # Windows that begin at multiples of the step meet every so many of the places of a window.
            windows *= -(-size * math.gcd(step, apart) // step)
        return math.sqrt(windows)

    def _norm(self, node: Node) -> float:
        """Return the largest factor of a norm: through the smallest deviation that it divides by."""
        _, args, keywords = self._calls[node.output]

        def given(name: str, place: int, default: Any = None) -> Any:
            return keywords.get(name, args[place] if place < len(args) else default)

        if node.name == "batch_norm":
            if given("training", 5, default=False):
                return self._no("batch norm in training makes samples depend on one another")
            weight, variance = given("weight", 3), given("running_var", 2)
            if isinstance(weight, Varying) or isinstance(variance, Varying):
                return self._no(_NO_PRODUCT)
            variance = variance.double()
            factors = 1.0 if weight is None else weight.detach().double().abs()
            return float((factors / (variance + given("eps", 7, _EPS)).sqrt()).max())
        place, eps_place = _NORMS[node.name]
        weight, eps = given("weight", place), given("eps", eps_place, _EPS)
        if isinstance(weight, Varying):
            return self._no(_NO_PRODUCT)
        self.why[f"{node.name} is only bounded by its eps"] = None
        eps = torch.finfo(self.likes[node.output].dtype).eps if eps is None else eps
        return float(1.0 if weight is None else weight.detach().abs().max()) / math.sqrt(eps)

    def _norm_of_map(self, node: Node) -> float:
        """Return the spectral norm of a linear function as it was called, for one sample."""
        func, args, keywords = self._calls[node.output]
        places = [place for place, one in enumerate(args) if isinstance(one, Varying)]
        if len(places) != 1 or any(isinstance(one, Varying) for one in keywords.values()):
            return self._no(f"no bound is known for {node.name} of several streams")
        if node.name == "linear" and args[1].numel() <= _SMALL:
            return float(torch.linalg.matrix_norm(args[1].detach().double(), 2))
        fixed = [one.detach().double() if _floats(one) else one for one in args]
        named = {name: one.detach().double() if _floats(one) else one for name, one in keywords.items()}

        def function(x: Tensor) -> Tensor:
            result: Tensor = func(*(x if isinstance(one, Varying) else one for one in fixed), **named)
            return result

        return spectral_norm(function, args[places[0]].like.double(), self._generator)


def first_output(outputs: Any) -> Tensor | None:
    """Return the first tensor that a model returned, but for single numbers, such as a loss."""
    return next((one for one in tensors_of(outputs) if one.dim()), None)


def steepest(function: Function) -> float:
    """Return the largest slope of a function, in the channel where that is largest; infinite if there is none."""
    one = function
    if function.channels > 1:
        slopes = function.derivatives(torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64), 1)[1]
        channel = int(slopes.abs().nan_to_num(0.0).amax(0).argmax())

        def build(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
            whole = function.build(dtype)
            return lambda x: whole(x.expand(-1, function.channels))[:, channel : channel + 1]

        one = Function(function.name, build, declared=function.declared)
    return shape_of(one, kinks_of(one)).steepest.slope


def spectral_norm(function: Callable[[Tensor], Tensor], like: Tensor, generator: torch.Generator) -> float:
    """Return the largest factor by which a linear function, but for a constant, stretches a difference.

    By Lanczos' method on the function and its transpose; what is not resolved after 40 steps is added.

    Args:
        function: Of a tensor.
        like: A tensor of the shape and dtype that it takes.
        generator: Of the direction to start from.

    Returns:
        The norm.
    """
    with torch.enable_grad():
        x = torch.zeros_like(like, memory_format=torch.contiguous_format).requires_grad_()
        y = function(x)

        def product(v: Tensor) -> Tensor:
            with torch.no_grad():
                along = function(v.view(x.shape)) - y
            return torch.autograd.grad(y, x, along, retain_graph=True)[0].flatten()

        found = lanczos(product, torch.randn(x.numel(), generator=generator).to(x), steps=STEPS)
    return math.sqrt(max(float(found.nodes[-1] + found.residuals[-1]), 0.0))


def _picks(index: Any) -> bool:
    """Return whether an index lists places, where one may stand twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(one, list | Varying) or (isinstance(one, Tensor) and one.dim() > 0 and one.dtype != torch.bool)
        for one in parts
    )


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _each(value: Any, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value or [0])
    return values * dims if len(values) == 1 else values
