"""What one class of any library is put through. A check returns "" where it passes, else the reason in a few words."""

from __future__ import annotations

import math
import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peers_libraries import CHANNELS, Entry, attempt, describe, seeded
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.autograd.gradcheck import gradcheck as differences

from softknee._card.cost import saved_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES = ((4, CHANNELS, 6, 6), (4, CHANNELS), (4, 6, CHANNELS), (CHANNELS,))
LARGEST = torch.finfo(torch.float32).max
# Seconds that one check may take.
PATIENCE = 20
# Points that are compared with formulas, off the round numbers: a value at a jump is a convention.
GRID = [-6 + 12 * (i + 0.37) / 64 for i in range(64)]
# The other half of a gated pair, in another order, so that the two halves can be told apart.
OTHER = [GRID[(37 * i + 11) % 64] for i in range(64)]


class TooSlow(Exception):
    """A check took too long."""


@dataclass
class Case:
    """A class that runs, and the shape of input that it takes.

    Attributes:
        entry: What makes fresh modules.
        shape: Of the first input that worked.
    """

    entry: Entry
    shape: tuple[int, ...]

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return a fresh module."""
        made = seeded(self.entry)
        return made if dtype is torch.float32 else made.to(dtype)

    def x(self, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = ()) -> Tensor:
        """Return a random input."""
        generator = torch.Generator().manual_seed(1)
        return 1.7 * torch.randn(shape or self.shape, generator=generator, dtype=torch.float64).to(dtype)


def first_case(entry: Entry) -> tuple[Case | None, str]:
    """Return the case with the first shape that runs, or the reason why none does."""
    reason = ""
    for shape in SHAPES:
        case = Case(entry, shape)
        _, found = attempt(partial(_run_once, case))
        if not found:
            return case, ""
        reason = reason or found
    return None, reason


def _run_once(case: Case) -> None:
    with limited(PATIENCE):
        y = case.module()(case.x())
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise TypeError(f"returns {y.dtype if isinstance(y, Tensor) else type(y).__name__}")


def gradients(case: Case) -> str:
    """In training mode, gradients reach the input and every trained parameter, and are finite."""
    module, x = case.module().train(), case.x().requires_grad_()
    y = module(x)
    if not y.requires_grad:
        return "the output carries no gradient"
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3)))
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if x.grad is None or not x.grad.isfinite().all():
        return "no finite gradient of the input"
    for name, p in trained.items():
        if p.grad is None or not p.grad.any():
            return f"parameter without gradient: {name}"
        if not p.grad.isfinite().all():
            return f"gradient not finite: {name}"
    return ""


def finite(case: Case) -> str:
    """No NaN and no needless infinity in float32 on [-1e4, 1e4]: value, input gradient, parameter gradients.

    An infinity is needless where the same module in float64 gives a number that float32 can hold. Gradients are taken
    where the value can be held.
    """
    x = _extremes(case)
    y = case.module()(x)
    # A module that does not run in float64 is another check's finding.
    exact, reason = attempt(lambda: case.module(torch.float64)(x.double()))
    found = _bad("output", y, x, y if reason else exact)
    if found:
        return found
    if not reason and exact.shape == x.shape:
        x = torch.where(exact.detach().abs() < LARGEST, x, torch.zeros_like(x))
    grads = _gradients_at(case.module(), x)
    exacts, _ = attempt(lambda: _gradients_at(case.module(torch.float64), x.double()))
    for name, grad in grads.items():
        what = "input gradient" if name == "x" else f"gradient of {name}"
        found = _bad(what, grad, x, (exacts or grads).get(name, grad))
        if found:
            return found
    return ""


def _extremes(case: Case) -> Tensor:
    sizes = [0.0, 1e-38, 1e-30, *[2.0**k for k in range(-24, 14)], 1e4, *[88.0 + step / 4 for step in range(8)]]
    dense = [*torch.linspace(-1e4, 1e4, 161).tolist(), *torch.linspace(-130, 130, 251).tolist()]
    points = torch.tensor([*sizes, *(-size for size in sizes), *dense])
    per_row = math.prod(case.shape[1:])
    rows = math.ceil(8 * len(points) / per_row)
    shape = (rows, *case.shape[1:]) if len(case.shape) > 1 else case.shape
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(2)) % len(points)
    return points[order].view(shape)


def _gradients_at(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    if not y.requires_grad:
        return {}
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(y.sum(), [x, *trained.values()], allow_unused=True)
    return {name: g for name, g in zip(("x", *trained), grads, strict=True) if g is not None}


def _bad(what: str, got: Tensor, x: Tensor, exact: Tensor) -> str:
    got, kind = got.detach(), "NaN"
    bad = got.isnan()
    if not bad.any() and exact.shape == got.shape:
        bad, kind = got.isinf() & (exact.detach().abs() < LARGEST), "needless infinity"
    if not bad.any():
        return ""
    if bad.shape != x.shape or what.startswith("gradient of"):
        return f"{kind} in {what}"
    return f"{kind} in {what} at x = {x[bad][x[bad].abs().argmin()].item():g}"


def bfloat16(case: Case) -> str:
    """bfloat16 in, bfloat16 out."""
    return _keeps(case, torch.bfloat16)


def float64(case: Case) -> str:
    """float64 in, float64 out."""
    return _keeps(case, torch.float64)


def _keeps(case: Case, dtype: torch.dtype) -> str:
    got = case.module(dtype)(case.x(dtype)).dtype
    return "" if got is dtype else f"returns {got}"


def gradcheck(case: Case) -> str:
    """The input gradient agrees with differences in float64."""
    module = case.module(torch.float64)
    shape = (2, *case.shape[1:-2], 2, 2) if len(case.shape) == 4 else case.shape
    x = case.x(torch.float64, shape).requires_grad_()
    try:
        differences(partial(_called, module), (x,), check_undefined_grad=False)
    except GradcheckError:
        return "gradient differs from differences"
    return ""


def noncontiguous(case: Case) -> str:
    """An input that is not contiguous gives the same values."""
    module, x = case.module(), case.x()
    spaced = torch.stack([x, x], -1)[..., 0] if x.dim() < 3 else x.transpose(1, 2).contiguous().transpose(1, 2)
    return _same(_called(module, spaced), _called(module, x))


def device_move(case: Case) -> str:
    """After `.to(device)`, nothing is left behind on the CPU (seen with PyTorch's meta device)."""
    module = case.module().to("meta")
    try:
        got = module(case.x().to("meta")).device.type
    except (RuntimeError, NotImplementedError) as error:
        # What a device without data cannot do is not the module's fault.
        mixed = any(text in str(error) for text in ("same device", "is not on the expected device", "cpu and meta"))
        return describe(error) if mixed else ""
    return "" if got == "meta" else f"returns a tensor on {got}"


def state_dict(case: Case) -> str:
    """A second module that loads the state of the first gives the same values."""
    first, second, x = case.module(), case.module(), case.x()
    with torch.no_grad():
        for p in second.parameters():
            p.fill_(0.125)
    second.load_state_dict(first.state_dict())
    return _same(_called(second, x), _called(first, x))


def vmap(case: Case) -> str:
    """`torch.func.vmap` gives what one call after another gives."""
    module, x = case.module(), case.x(shape=(3, *case.shape))
    return _same(torch.func.vmap(module)(x), torch.stack([module(part) for part in x]))


def captured(case: Case) -> str:
    """`torch.compile(fullgraph=True)` with the backend `aot_eager`, forward and backward."""
    torch._dynamo.reset()
    module, x = case.module(), case.x().requires_grad_()
    y = _called(torch.compile(module, fullgraph=True, backend="aot_eager"), x)
    if y.requires_grad:
        y.sum().backward()
    return _same(y, _called(case.module(), x))


def exported(case: Case) -> str:
    """`torch.export.export`, and the exported program gives the same values."""
    module, x = case.module(), case.x()
    return _same(_called(torch.export.export(module, (x,)).module(), x), _called(module, x))


def _called(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call with fresh random numbers, the same each time."""
    torch.manual_seed(4)
    return module(x)


def _same(got: Tensor, wanted: Tensor) -> str:
    close = got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    return "" if close else "other values"


# What "clean" asks for; `exported` is sampled and does not count towards it.
CLEAN: tuple[Callable[[Case], str], ...] = (
    *(gradients, finite, float64, bfloat16, gradcheck, noncontiguous, device_move, state_dict, vmap, captured),
)


def verdict(check: Callable[[Case], str], case: Case) -> str:
    """Run one check; what it raises is its reason."""
    try:
        with limited(PATIENCE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(case)
    except (Exception, SystemExit) as error:
        return describe(error)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TooSlow in the block when it takes longer than this."""

    def raise_too_slow(*_: Any) -> None:
        raise TooSlow(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, raise_too_slow)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def saved(case: Case) -> float | None:
    """Return the bytes kept for backward for each element of the input; None where it cannot be told."""
    x = case.x(shape=(64, *case.shape[1:]) if len(case.shape) > 1 else case.shape)
    return attempt(lambda: saved_bytes(case.module(), x))[0]  # type: ignore[no-any-return]
