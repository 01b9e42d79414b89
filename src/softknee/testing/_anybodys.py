"""The checks that need to know nothing of a module but an input."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import gradcheck, gradgradcheck

from softknee._errors import UsageError
from softknee.testing import _layouts, _modules
from softknee.testing._case import Case, cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Sizes of inputs at which exponentials and squares overflow in one precision or another.
EXTREMES = (1e-30, 1e-6, 1.0, 12.0, 80.0, 100.0, 700.0, 1e4)


def check(module: nn.Module, example: Tensor | None = None) -> None:
    """Check anybody's activation: gradients, extremes, precisions, layouts, copies, transforms, compiling, exporting.

    Args:
        module: Any module of one tensor; it is put into eval mode, in a copy.
        example: An input; by default of shape (4, 6).

    Raises:
        AssertionError: Listing every check that fails.
        UsageError: It cannot be called with the example.
    """
    failed = {name: message for name, message in findings(module, example).items() if message}
    if failed:
        listed = "\n".join(f"  {name}: {message}" for name, message in failed.items())
        raise AssertionError(f"{type(module).__name__} fails {len(failed)} of {len(_CHECKS)} checks:\n{listed}")


def findings(module: nn.Module, example: Tensor | None = None) -> dict[str, str]:
    """Return what each check of `check` says, the empty string where it passes.

    Args:
        module: As in `check`.
        example: As in `check`.

    Returns:
        Messages by the names of the checks.

    Raises:
        UsageError: The module cannot be called with the example.
    """
    module = copy.deepcopy(module).eval()
    (case,) = cases(module, example, {})
    try:
        module(case.x)
    except Exception as error:  # anybody's module may raise anything
        shape = tuple(case.x.shape)
        raise UsageError(f"{case.name} cannot be called with an input of shape {shape}: {error}") from error
    return {name: _message(one, module, case.x) for name, one in _CHECKS.items()}


def _message(one: Callable[[nn.Module, Tensor], None], module: nn.Module, x: Tensor) -> str:
    try:
        one(module, x)
    except Exception as error:  # anybody's module may raise anything
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _check_gradients(module: nn.Module, x: Tensor) -> None:
    exact = copy.deepcopy(module).double()
    case = Case(type(module).__name__, "as it is", exact, x)
    # Off the round numbers, where kinks like to be.
    inputs = (x.double() + 0.0137).requires_grad_()
    with case.must("gradcheck and gradgradcheck"):
        gradcheck(exact, (inputs,))
        gradgradcheck(exact, (inputs,))


def _check_extremes(module: nn.Module, x: Tensor) -> None:
    case = Case(type(module).__name__, "as it is", module, x)
    sizes = torch.tensor([0.0, *EXTREMES, *[-size for size in EXTREMES]])
    for dtype in (torch.float32, torch.bfloat16):
        cast = copy.deepcopy(module).to(dtype)
        trained = [parameter for parameter in cast.parameters() if parameter.requires_grad]
        for size in sizes.tolist():
            at = torch.full_like(x, size, dtype=dtype).requires_grad_()
            y = cast(at)
            grads = torch.autograd.grad(y.sum(), [at, *trained], allow_unused=True, materialize_grads=True)
            for what, got in {"value": y, "gradient of the input": grads[0]}.items():
                if got.isnan().any():
                    case.fail(f"finite in {dtype}", f"a {what} that is NaN at {size:g}", "never NaN")
            if any(grad.isnan().any() for grad in grads[1:]):
                case.fail(f"finite in {dtype}", f"a gradient of a parameter that is NaN at {size:g}", "never NaN")


def _check_parameters(module: nn.Module, x: Tensor) -> None:
    case = Case(type(module).__name__, "as it is", module, x)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not names:
        return
    y = module(x)
    grads = torch.autograd.grad(
        y.square().sum(), [dict(module.named_parameters())[name] for name in names], allow_unused=True
    )
    unused = [name for name, grad in zip(names, grads, strict=True) if grad is None]
    if unused:
        case.fail("parameters", f"no gradient for {', '.join(unused)}", "that every parameter takes part")


_CHECKS: Mapping[str, Callable[[nn.Module, Tensor], None]] = {
    "gradients": _check_gradients,
    "extremes": _check_extremes,
    "parameters": _check_parameters,
    "copies": _modules.check_copies,
    "vmap": _modules.check_vmap,
    "compile": _modules.check_compiles,
    "functional_call": _modules.check_functional_call,
    "dtypes": _modules.check_dtypes,
    "layouts": _layouts.check_layouts,
    "export": _modules.check_exports,
}
