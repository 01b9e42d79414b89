"""Which engine evaluates an activation, and on which tensors one may."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd import forward_ad

from softknee._engine.build import DTYPES, warn_once
from softknee._engine.differentiable import Call, differentiable
from softknee._engine.distributed import along_of, by_parts, is_distributed
from softknee._engine.fused import fused_engine
from softknee._engine.layout import PLAIN, as_tuple
from softknee._engine.operators import apply_operator
from softknee._engine.plan import Plan
from softknee._engine.table import REACH, Tabulated, pays_off, table_of, table_or_kernels
from softknee._errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from softknee._engine.differentiable import Engine, Reach
    from softknee._engine.layout import Input
    from softknee._engine.plan import Value

ENGINES = ("auto", "eager", "fused", "table")
# From this many elements on a kernel of our own pays off for functions that torch evaluates in a few operations.
LARGE = 4096
# Likewise for pairs, whose gate and value torch finds for nothing.
LARGE_PAIRS = 2**17
# Vector instructions for an element, forward and backward, from which on a table beats what a compiler makes of them.
EXPENSIVE_COMPILED = 250
# Dimensions from which on a tensor can be channels_last. There torch's own functions fall off a cliff on a CPU where
# the incoming gradient is in the other layout; kernels, as fast otherwise, do not.
SPATIAL = 4
DEVICES = ("cpu", "cuda")
# Older versions of PyTorch cannot tell.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
_forced: ContextVar[str | None] = ContextVar("softknee_engine", default=None)


def check_engine(name: str) -> str:
    """Return the name of an engine.

    Raises:
        OptionError: There is no such engine.
    """
    if name not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    return name


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Evaluate all activations by one engine, whatever they ask for, within a `with` block.

    Args:
        name: `"auto"`, `"eager"`, `"fused"` or `"table"`.

    Yields:
        Nothing.

    Raises:
        OptionError: There is no such engine.
    """
    token = _forced.set(check_engine(name))
    try:
        yield
    finally:
        _forced.reset(token)


def evaluate(
    plan: Plan,
    inputs: Input,
    values: Sequence[Value],
    channel_dim: int | None = None,
    wanted: str = "auto",
    reach: Reach = REACH,
) -> Tensor:
    """Evaluate an activation by the engine that suits it.

    Args:
        plan: The activation.
        inputs: Any shape, any floating dtype; gate and value of pairs, where they are two tensors, have the same.
        values: Parameters in their stored shapes, or numbers.
        channel_dim: Of the input, not negative; None where all elements share their parameters. The dimension that
            holds both halves of pairs in one tensor.
        wanted: One of `ENGINES`; `with softknee.engine(...)` comes before it.
        reach: The range that tables cover.

    Returns:
        Same dtype as the input, and shape but for pairs in one tensor, of which one comes out for two.
    """
    inputs = as_tuple(inputs)
    x = inputs[0]
    # Noise is drawn by the operations of DTensor, which know how parts of it belong together.
    if type(x) not in PLAIN and all(map(is_distributed, inputs)) and not plan.random:

        def local(part: Input, parts: Sequence[Value]) -> Tensor:
            return evaluate(plan, part, parts, channel_dim, wanted, reach)

        return by_parts(local, inputs, values, along_of(plan, inputs, channel_dim))
    if torch.compiler.is_compiling():
        # Plain operations, so that the compiler fuses them with their neighbours, unless they are very many.
        if _takes_operator(plan, x, values, wanted):
            return apply_operator(plan, x, values, channel_dim, reach)
        return plan.eager(inputs, values, channel_dim)
    prepared = prepare(plan, inputs, channel_dim, wanted, reach) if isinstance(x, Tensor) else None
    if prepared is None or not plan.takes(values, x):
        return plan.eager(inputs, values, channel_dim)
    laid, call = prepared
    if plan.random:
        call = call._replace(seed=int(torch.randint(2**62, (), device="cpu")))
    return differentiable(call, laid, values)


def prepare(
    plan: Plan, inputs: Input, channel_dim: int | None, wanted: str, reach: Reach = REACH
) -> tuple[tuple[Tensor, ...], Call] | None:
    """Choose the engine for an activation on a tensor, or on gates and values.

    Args:
        plan: As `evaluate`.
        inputs: As `evaluate`.
        channel_dim: As `evaluate`.
        wanted: As `evaluate`.
        reach: As `evaluate`.

    Returns:
        The tensors as kernels can read them and how to evaluate them; None where the formula is evaluated as it is
        written.
    """
    if torch._C._get_tracing_state() is not None:  # where sizes are no plain numbers
        return None
    wanted = _forced.get() or wanted
    inputs = as_tuple(inputs)
    x = inputs[0]
    size = x.numel() * len(inputs)
    if wanted == "auto" and ((plan.builtin and not _has_layouts(x)) or (plan.light and size < _large(plan))):
        return None
    if wanted == "eager" or not _takes_kernels(x):
        return None
    for other in inputs[1:]:
        if not _takes_kernels(other) or other.device != x.device:
            return None
    # No price: no arithmetic on single elements. A price of zero: nothing to do.
    if not plan.price:
        return None
    tabulates = wanted == "table" and plan.has_tables
    if not tabulates and not plan.compiles(x.device.type):
        return None
    laid, layout = plan.laid(inputs, channel_dim)
    engine_of: Callable[..., Engine] = fused_engine
    if tabulates:
        engine_of = _table_engine
    elif wanted == "auto" and pays_off(plan, size, layout.channels):
        engine_of = table_or_kernels
    return laid, Call(plan, engine_of, layout, channel_dim, reach)


def _large(plan: Plan) -> int:
    return LARGE if plan.halves is None else LARGE_PAIRS


def _has_layouts(x: Tensor) -> bool:
    return x.dim() >= SPATIAL and x.device.type == "cpu"


def _takes_operator(plan: Plan, x: Tensor, values: Sequence[Value], wanted: str) -> bool:
    """Whether the operator stands for an activation in a compiled region."""
    return (
        wanted == "auto"
        and x.dtype in DTYPES
        and not _is_exporting()
        and plan.takes(values, x)
        and _is_expensive(plan.number, x.device.type)
    )


def _is_expensive(number: int, device: str) -> bool:
    """Whether a table is cheaper on large tensors; asked while compiling, when the answer must not be traced."""
    if _forced.get() not in {None, "auto"} or torch._C._are_functorch_transforms_active() or device not in DEVICES:
        return False
    plan = Plan.numbered(number)
    return plan.has_tables and (plan.price or 0) > EXPENSIVE_COMPILED and plan.compiles(device)


# All that `torch.compiler.assume_constant_result` does, which would import the compiler, a second, for everybody.
_is_expensive._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _table_engine(plan: Plan, leaves: Tensor | None, device: torch.device, reach: Reach) -> Engine:
    table = table_of(plan, leaves, device, reach)
    if not table.accurate:
        warn_once(f"a table was asked for that cannot be made fine enough: values may err by {table.value_error:.0e}")
    return Tabulated(table)


def takes_tables(x: Tensor) -> bool:
    """Whether a tensor may be looked up in a table: where it is plain memory, and nothing asks for the formula."""
    return (
        _forced.get() in {None, "auto", "table"}
        and isinstance(x, Tensor)
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and _takes_kernels(x)
    )


def _takes_kernels(x: Tensor) -> bool:
    """Whether a tensor is plain memory, and nobody is watching operations (transforms, tracers, other modes)."""
    return (
        type(x) in PLAIN
        and x.device.type in DEVICES
        and x.dtype in DTYPES
        and x.numel() > 0
        and x.layout == torch.strided
        and not x.is_neg()
        and not x._is_zerotensor()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )
