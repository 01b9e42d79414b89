"""Vector functions against their statements, evaluated to a hundred digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._extras import require
from softknee.testing._oracle import DIGITS
from softknee.testing._subject import CHANNELS, SEED, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softknee._spec import Spec

TOLERANCE = 1e-12
# Of differences; the digits lost by them are no more than twice as many.
STEP = "1e-30"
# Entries of the vectors of extreme numbers.
EXTREMES = (0.0, 1e-6, 1.0, 80.0, 700.0, 1e4)


def check_statement(activation: Spec | str, **values: Any) -> None:
    """Check the values of a vector function in float64 against its statement, on random vectors, ties and extremes.

    Args:
        activation: A spec, or a name of the catalogue.
        **values: Parameter values in place of the defaults.

    Raises:
        AssertionError: A value differs by more than 1e-12 relatively to the largest entry, or depends on the dimension.
    """
    subject = Subject(activation, values)
    arguments = _arguments(subject)
    stated = _statement(subject)
    for row in _rows():
        got = subject.spec.function(row, *arguments, dim=-1)
        _compare(subject, "its statement", row, got, [float(value) for value in stated(row.tolist())])
    table = torch.stack([*_rows()])
    got, turned = (subject.spec.function(x, *arguments, dim=dim) for x, dim in ((table, -1), (table.T, 0)))
    if not torch.allclose(got, turned.T, rtol=TOLERANCE, atol=TOLERANCE):
        subject.fail("dimension", table, turned.T, got)


def check_jacobian(activation: Spec | str, **values: Any) -> None:
    """Check the derivatives of a vector function by entries and parameters against differences of its statement.

    The differences are taken in so many digits that they are derivatives up to 1e-25.

    Args:
        activation: As in `check_statement`.
        **values: As in `check_statement`.

    Raises:
        AssertionError: A derivative differs by more than 1e-12 relatively to the largest.
    """
    subject = Subject(activation, values)
    for row in [*_rows()][:4]:
        inputs = (row, *(one for one in _arguments(subject) if isinstance(one, Tensor)))
        got = torch.autograd.functional.jacobian(_of_tensors(subject), inputs, vectorize=False)
        for i, (one, tensor) in enumerate(zip(got, inputs, strict=True)):
            columns = [_difference(subject, inputs, i, j) for j in range(tensor.numel())]
            wanted = torch.tensor(columns, dtype=torch.float64).T
            _compare(subject, f"derivatives by argument {i}", row, one.reshape(wanted.shape), wanted.tolist())


def check_vectors(activation: Spec | str, **values: Any) -> None:
    """Check what a vector function promises, and that nothing is NaN in any dtype, gradients included.

    Args:
        activation: As in `check_statement`.
        **values: As in `check_statement`.

    Raises:
        AssertionError: A promise does not hold, a dtype is not kept, or a number is not finite though the exact one is.
    """
    subject = Subject(activation, values)
    promises, arguments = subject.spec.promises, _arguments(subject)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        cast = [one.to(dtype) if isinstance(one, Tensor) else one for one in arguments]
        for row in _rows():
            x = row.to(dtype).requires_grad_()
            y = subject.spec.function(x, *cast, dim=-1)
            (grad,) = torch.autograd.grad(y.sum(), x)
            exact = [float(value) for value in _statement(subject)(x.tolist())]
            fits = max(map(abs, exact)) < torch.finfo(dtype).max / 2
            if y.dtype != dtype or y.isnan().any() or (fits and not y.isfinite().all()):
                subject.fail(f"finite values in {dtype}", row.tolist(), y.tolist(), exact)
            if not grad.isfinite().all():
                subject.fail(f"finite gradients in {dtype}", row.tolist(), grad.tolist(), "finite ones")
    zero = subject.spec.function(torch.zeros(CHANNELS, dtype=torch.float64), *arguments, dim=-1)
    if promises.zero_at_zero and zero.any():
        subject.fail("zero_at_zero", 0, zero.tolist(), 0)
    for row in _rows():
        y, mirrored = (subject.spec.function(x, *arguments, dim=-1) for x in (row, -row))
        if promises.odd and not torch.allclose(mirrored, -y, rtol=TOLERANCE, atol=TOLERANCE):
            subject.fail("odd", row.tolist(), mirrored.tolist(), (-y).tolist())
        if promises.same_shape != (y.shape == row.shape):
            subject.fail("same_shape", tuple(row.shape), tuple(y.shape), f"same_shape={promises.same_shape}")
        if promises.lipschitz is not None:
            _check_norm(subject, row, promises.lipschitz)


def _check_norm(subject: Subject, row: Tensor, constant: float) -> None:
    arguments = _arguments(subject)
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: subject.spec.function(x, *arguments, dim=-1), row)
    norm = torch.linalg.matrix_norm(jacobian, 2).item()
    if norm > constant * (1 + TOLERANCE):
        subject.fail("lipschitz", row.tolist(), norm, f"at most {constant}")


def _rows() -> Iterator[Tensor]:
    """Yield vectors: random ones first, then ties, zeros and extremes."""
    generator = torch.Generator().manual_seed(SEED)
    for scale in (1.0, 1.0, 0.1, 3.0, 100.0):
        yield scale * torch.randn(CHANNELS, generator=generator, dtype=torch.float64)
    yield torch.tensor([1.0, 1.0, -2.0, -2.0, 0.5, 0.5], dtype=torch.float64)
    yield torch.zeros(CHANNELS, dtype=torch.float64)
    yield torch.tensor(EXTREMES, dtype=torch.float64)
    yield -torch.tensor(EXTREMES, dtype=torch.float64)


def _arguments(subject: Subject) -> list[Any]:
    """Return the parameters: whole numbers as such, reals as tensors."""
    values = [(param, subject.defaults[param.name]) for param in subject.spec.parameters]
    return [int(v) if p.integer else torch.tensor(v, dtype=torch.float64) for p, v in values]  # type: ignore[arg-type]


def _of_tensors(subject: Subject) -> Callable[..., Tensor]:
    """Return the function of a vector and of its real parameters alone."""
    arguments = _arguments(subject)

    def function(row: Tensor, *reals: Tensor) -> Tensor:
        rest = iter(reals)
        return subject.spec.function(
            row, *[next(rest) if isinstance(one, Tensor) else one for one in arguments], dim=-1
        )

    return function


def _statement(subject: Subject) -> Callable[..., list[Any]]:
    """Return the statement at exact numbers: of the entries, and of the real parameters in place of the defaults."""
    mp = require("mpmath", extra="dev").mp.clone()
    mp.dps = DIGITS
    statement: Callable[..., list[Any]] | None = subject.spec.statement
    if statement is None:
        subject.fail("its statement", "any vector", "none", "a statement in the spec")
    arguments = _arguments(subject)

    def stated(entries: list[Any], *reals: Any) -> list[Any]:
        rest = iter(reals or [one.tolist() for one in arguments if isinstance(one, Tensor)])
        given = [_exactly(mp, next(rest)) if isinstance(one, Tensor) else one for one in arguments]
        return statement(_exactly(mp, entries), *given)

    return stated


def _exactly(mp: Any, value: Any) -> Any:
    return [_exactly(mp, one) for one in value] if isinstance(value, list | tuple) else mp.mpf(value)


def _difference(subject: Subject, inputs: tuple[Tensor, ...], i: int, j: int) -> list[float]:
    """Return the derivatives of the statement by entry `j` of input `i`."""
    mp = require("mpmath", extra="dev").mp.clone()
    mp.dps = DIGITS
    stated, step = _statement(subject), mp.mpf(STEP)

    def moved(by: Any) -> list[Any]:
        lists = [_exactly(mp, one.tolist()) for one in inputs]
        lists[i] = _nudged(lists[i], j, by)
        return stated(*lists)

    return [float((right - left) / (2 * step)) for left, right in zip(moved(-step), moved(step), strict=True)]


def _nudged(value: Any, j: int, by: Any) -> Any:
    """Return nested lists with their `j`-th number moved."""
    if not isinstance(value, list):
        return value + by
    width = _count(value[0])
    return [_nudged(one, j % width, by) if k == j // width else one for k, one in enumerate(value)]


def _count(value: Any) -> int:
    return sum(map(_count, value)) if isinstance(value, list) else 1


def _compare(subject: Subject, check: str, row: Tensor, got: Tensor, wanted: list[Any]) -> None:
    expected = torch.tensor(wanted, dtype=torch.float64)
    scale = 1 + expected.abs().max() + row.abs().max()
    if got.shape != expected.shape or not ((got - expected).abs() <= TOLERANCE * scale).all():
        subject.fail(check, row.tolist(), got.tolist(), wanted)
