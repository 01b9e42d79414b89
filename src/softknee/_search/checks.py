"""Checks of what a search is asked for, before anything is trained."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from torch import nn

from softknee._errors import DataError, UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def swap_example(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]] | None) -> Any:
    """Return arguments and named arguments as `swap` takes an example: one or the other."""
    if example is None:
        return None
    inputs, names = example
    if not (inputs and names):
        return names or inputs
    bound = inspect.signature(model.forward).bind(*inputs, **names)
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        gathers = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found.update(value if gathers else {name: value})
    return found


def check_callable(**given: Any) -> None:
    """Refuse what is no function, by the names of the arguments.

    Raises:
        UsageError: One is none.
    """
    for name, one in given.items():
        if not callable(one) or isinstance(one, nn.Module):
            hint = "; give what makes it, as in lambda: Net()" if isinstance(one, nn.Module) else ""
            raise UsageError(f"{name} must be a function, got {excerpt(one)}{hint}")


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number.

    Raises:
        UsageError: It is none, or smaller than the least allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {excerpt(value)}")
    return value


def check_fresh(model: nn.Module, other: nn.Module) -> None:
    """Refuse a factory that gives out the same weights twice.

    Raises:
        UsageError: It does.
    """
    if not {id(one) for one in model.parameters()}.isdisjoint(id(one) for one in other.parameters()):
        raise UsageError("make_model returned the same parameters twice; it must make a new model at each call")


def check_gradient(model: nn.Module, loss: Tensor) -> None:
    """Refuse a loss that does not train a model; the model's gradients are filled.

    Raises:
        UsageError: It has no gradient, or the step has called `backward` itself.
    """
    if any(one.grad is not None for one in model.parameters()):
        raise UsageError("train_step calls backward itself; it must return the loss only")
    if loss.requires_grad:
        loss.backward()
    if all(one.grad is None for one in model.parameters()):
        raise UsageError("the loss that train_step returns does not depend on the model's parameters")


def check_finite(name: str, loss: float) -> None:
    """Refuse a loss that is not finite from the start.

    Raises:
        DataError: It is not.
    """
    if not math.isfinite(loss):
        raise DataError(f"train_step returned {loss} on the first batch of {name}, with the model as it was made")


def described(optimizer: torch.optim.Optimizer) -> str:
    """Return an optimizer's class and settings as text."""
    plain = {name: value for name, value in optimizer.defaults.items() if isinstance(value, bool | int | float | tuple)}
    return f"{type(optimizer).__name__}({', '.join(f'{name}={value}' for name, value in plain.items())})"
