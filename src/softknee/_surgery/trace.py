"""What was seen of one run of a model: the calls that could be part of activations, and their tensors by numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Ref:
    """A tensor by its number; each function gives its result a new one."""

    number: int


@dataclass(eq=False)
class Run:
    """One run of the `forward` of a module.

    Attributes:
        module: The module.
        path: Its path in the model.
        counts: How often each function was called in it so far.
        turns: How often activations were called in it so far, by their paths.
        experts: How many experts it goes through, as far as seen.
        expert: Index of the one at work.
    """

    module: nn.Module
    path: str
    counts: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)
    experts: int = 0
    expert: Any = None


@dataclass(eq=False)
class Call:
    """One call of a function or of an activation module.

    Attributes:
        name: Of the function, without underscores; the kind of a module.
        run: In which it was made.
        occurrence: Which call of this function, or of this module, in its run it is.
        arguments: With tensors as `Ref`.
        keywords: With tensors as `Ref`.
        output: Number of the result.
        function: None for a module.
        module: None for a function.
        path: Of the module, as it was called.
        in_place: Whether it overwrites its input.
        eager_only: Whether compilers do not show the function to modes, as they do not `torch.relu_`.
        hidden: Why it cannot be replaced, or a module not by several that take turns.
    """

    name: str
    run: Run
    occurrence: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: int = -1
    function: Callable[..., Any] | None = None
    module: nn.Module | None = None
    path: str = ""
    in_place: bool = False
    eager_only: bool = False
    hidden: str = ""

    @property
    def inputs(self) -> list[int]:
        """Numbers of the tensors it was called with."""
        return [one.number for one in tree_flatten((self.arguments, self.keywords))[0] if isinstance(one, Ref)]


@dataclass
class Trace:
    """What was seen.

    Attributes:
        calls: In order.
        shapes: Of tensors, by their numbers.
        axes: Dimensions of the units, by the numbers of tensors.
        ranges: Smallest and largest element, by the numbers of tensors.
        aliases: Numbers of tensors with the same elements, earlier ones by later ones.
        fixed: Numbers of parameters, of buffers, and of what is made of nothing else.
        weighted: Numbers of the outputs of linear layers and convolutions.
        rewritten: Calls that overwrote a tensor which is used again.
        outputs: Numbers of what the model returned.
        used: Numbers of tensors that were used by something else than the calls written down.
        ran: Modules that ran.
        unseen: Reasons by path.
        counts: How often functions were called in one run of a module, by modules; the most of several runs.
    """

    calls: list[Call] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    axes: dict[int, int] = field(default_factory=dict)
    ranges: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    weighted: set[int] = field(default_factory=set)
    rewritten: set[Call] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    ran: set[nn.Module] = field(default_factory=set)
    unseen: dict[tuple[str, str], None] = field(default_factory=dict)
    counts: dict[nn.Module, Counter[str]] = field(default_factory=dict)


class Tensors:
    """Gives tensors numbers: a new one to each result, and to each tensor whose elements have changed since.

    Args:
        trace: What is told of them.
        weights: The model's parameters and buffers.
    """

    def __init__(self, trace: Trace, weights: Iterable[Tensor]) -> None:
        self.trace = trace
        # Numbers, with the versions of the elements that bear them.
        self._known: Any = WeakIdKeyDictionary()
        self._overwritten: dict[int, tuple[StorageWeakRef, Call]] = {}
        self._count = 0
        for one in weights:
            self.new(one, fixed=True)

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor."""
        return int(self._known[tensor][0]) if self._is_known(tensor) else self.new(tensor)

    def new(self, tensor: Tensor, *, fixed: bool = False) -> int:
        """Return a new number for a tensor.

        Args:
            tensor: The tensor.
            fixed: Whether nothing in it comes from the model's inputs.

        Returns:
            The number.
        """
        self._count += 1
        self._known[tensor] = (self._count, version(tensor))
        self.trace.shapes[self._count] = tuple(tensor.shape)
        if fixed or isinstance(tensor, nn.Parameter):
            self.trace.fixed.add(self._count)
        return self._count

    def refs(self, values: Any) -> Any:
        """Return values with tensors as numbers; single numbers that nothing was computed for stay."""
        return tree_map(
            lambda one: (
                Ref(self.number(one)) if isinstance(one, Tensor) and (one.numel() > 1 or self._is_data(one)) else one
            ),
            values,
        )

    def are_fixed(self, values: Any) -> bool:
        """Return whether nothing in some values comes from the model's inputs."""
        return not any(map(self._is_data, tensors_in(values)))

    def use(self, *values: Any) -> None:
        """Note that something uses tensors."""
        self.trace.used.update(self._known[one][0] for one in tensors_in(values) if one in self._known)

    def use_held(self) -> None:
        """Note that the tensors which are still there after the run must be held by somebody."""
        self.trace.used.update(number for number, _ in self._known.values())

    def overwrite(self, tensor: Tensor, call: Call) -> None:
        """Note that a call overwrites a tensor, which is kept as it was to see whether it is used again."""
        storage = tensor.untyped_storage()
        self._overwritten[storage._cdata] = (StorageWeakRef(storage), call)

    def notice(self, values: Any) -> None:
        """Notice that something overwritten is used again, also where it is seen in another shape."""
        for one in tensors_in(values) if self._overwritten else ():
            key = one.untyped_storage()._cdata if has_storage(one) else None
            if key in self._overwritten:
                self.trace.rewritten.add(self._overwritten[key][1])

    def _is_known(self, tensor: Tensor) -> bool:
        return tensor in self._known and self._known[tensor][1] == version(tensor)

    def _is_data(self, tensor: Tensor) -> bool:
        if self._is_known(tensor):
            return self._known[tensor][0] not in self.trace.fixed
        return tensor.numel() > 1 and not isinstance(tensor, nn.Parameter)


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in tuples, lists and dictionaries."""
    return [one for one in tree_flatten(values)[0] if isinstance(one, Tensor)]


def version(tensor: Tensor) -> int:
    """Return how often the elements of a tensor were overwritten, as far as that is counted."""
    return 0 if tensor.is_inference() else tensor._version


def unwrapped(tensor: Tensor) -> Tensor:
    """Return a tensor with what `torch.func` hides in it: all examples of `vmap`."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def has_storage(tensor: Tensor) -> bool:
    """Return whether the elements of a tensor lie in one block of memory, which sparse ones do not."""
    return tensor.layout is torch.strided and not tensor.is_nested
