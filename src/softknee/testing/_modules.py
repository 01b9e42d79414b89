"""What a module must survive: saving, copying, compiling, vectorizing."""

from __future__ import annotations

import copy
import io
import pickle
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.select import engine
from softknee.testing._subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._spec import Spec

INPUT = torch.linspace(-4, 4, 24).view(4, 6)


def check_copies(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check that pickling, deep copies and the state dict bring the same module back.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: One fails or changes the outputs.
    """
    subject = Subject(activation, values)
    for options in _options(subject):
        module = subject.module(**options)
        expected = module(INPUT)
        for check, way in _COPIES.items():
            try:
                got = way(module)(INPUT)
            except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
                subject.fail(check, f"input with {options}", error, "a copy")
            if not torch.equal(got, expected):
                subject.fail(check, f"input with {options}", got, expected)


def check_compiles(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check `torch.compile(fullgraph=True, backend="aot_eager")`, forward and backward, where it is promised.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It breaks the graph, or changes values or gradients.
    """
    subject = Subject(activation, values)
    if not subject.spec.promises.compiles:
        return
    module = subject.module(**_options(subject)[-1])
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    # What is compiled are the formula's own operations, unless they are very many.
    with engine("eager"):
        expected = _with_gradients(module)
    try:
        got = _with_gradients(compiled)
    except Exception as error:  # the compiler raises errors of many kinds
        subject.fail("compiles", "input", error, "a graph without breaks")
    for one, other in zip(got, expected, strict=True):
        if not torch.allclose(one, other, rtol=0.0, atol=1e-5 * max(1.0, other.abs().max().item())):
            subject.fail("compiles", "input", one, other)


def check_vmap(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check `torch.func.vmap` of the function and of its derivative where it is promised.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It fails or changes values.
    """
    subject = Subject(activation, values)
    if not subject.spec.promises.vmap:
        return

    def function(x: Tensor) -> Tensor:
        return subject(x, subject.defaults)

    x = INPUT.flatten().double()
    expected, (slope,) = function(x), _slopes(function, x)
    for wanted, mapped in ((expected, function), (slope, torch.func.grad(function))):
        try:
            got = torch.func.vmap(mapped)(x)
        except RuntimeError as error:
            subject.fail("vmap", x.tolist(), error, "no error")
        if not torch.allclose(got, wanted, rtol=1e-12, atol=1e-12):
            subject.fail("vmap", x.tolist(), got, wanted)


def _options(subject: Subject) -> list[dict[str, Any]]:
    """Return the module options to try: as it comes, and all trained and per channel where it has parameters."""
    return [{}, {"trainable": True, "per_channel": INPUT.shape[1]}] if subject.spec.parameters else [{}]


def _pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))  # type: ignore[no-any-return]  # noqa: S301 (our own bytes)


def _reloaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.fill_(0.125)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


_COPIES: Mapping[str, Callable[[nn.Module], nn.Module]] = MappingProxyType(
    {"pickle": _pickled, "deepcopy": copy.deepcopy, "state_dict": _reloaded}
)


def _with_gradients(module: Any) -> list[Tensor]:
    x = INPUT.clone().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]


def _slopes(function: Any, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)
