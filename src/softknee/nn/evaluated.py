"""What activations that an engine evaluates have in common: plans, and the choice of the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.distributed import is_distributed
from softknee._errors import OptionError
from softknee.nn.activation import Activation
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from softknee._engine.plan import Plan

# Elements of a channel in the tensor that `engine` speaks of.
LARGE_EXAMPLE = 2**17
# Of which no more than this many for all channels together.
MOST_ELEMENTS = 2**24
_OPERATION = re.compile(r"[-+/(]|\*\*?")


class Evaluated(Activation):
    """An activation that an engine evaluates by plans, which are made from its spec and the kinds of its parameters.

    Attributes:
        engines: Those that it may be asked to use.
        wanted_engine: The one that it was asked to use.
    """

    engines: tuple[str, ...]
    wanted_engine: str
    _plans: tuple[Plan, ...]

    def _want(self, engine: Any) -> None:
        """Keep the engine asked for; called before anything is stored.

        Raises:
            OptionError: There is none of that name.
        """
        if not isinstance(engine, str) or engine not in self.engines:
            raise OptionError(f"engine must be one of {', '.join(self.engines)}, got {excerpt(engine)}")
        self.wanted_engine = engine

    @property
    def engine(self) -> str:
        """How large float32 tensors are evaluated here: `"eager"`, `"fused"` or `"table"`.

        What was asked for (`"auto"`) while parameters are DTensors, whose values no single process knows.
        """
        if any(map(is_distributed, self._values())):
            return self.wanted_engine
        return self.engine_for(self._large_example())

    def engine_for(self, x: Tensor) -> str:
        """Return how `x`, or the part of a DTensor that is here, is evaluated: `"eager"`, `"fused"` or `"table"`."""
        raise NotImplementedError

    def _large_example(self) -> Tensor:
        """Return a large input, which is never looked into: memory that is not touched is not taken."""
        raise NotImplementedError

    def _large(self, dim: int, size: int) -> Tensor:
        """Return a large tensor with a dimension of some size."""
        shape = [1] * max(2, dim + 1, -dim)
        shape[dim] = size
        shape[0 if dim % len(shape) else 1] = max(1, min(LARGE_EXAMPLE, MOST_ELEMENTS // size))
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    @property
    def _operations(self) -> int:
        """How many operations the text of the formula has."""
        return len(_OPERATION.findall(self.spec.formula))

    def _make_plans(self) -> tuple[Plan, ...]:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what is made again from it."""
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        super().__setstate__(state)
        self._plans = self._make_plans()

    def extra_repr(self) -> str:
        """Return parameter values, which are trained, and the engine."""
        return ", ".join(filter(None, [super().extra_repr(), *self._layout(), f"engine={self.engine}"]))

    def _layout(self) -> tuple[str, ...]:
        """Return where in the input things are, for `extra_repr`."""
        return ()
