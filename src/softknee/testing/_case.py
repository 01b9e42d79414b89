"""A module under test with an input: made from a spec, or anybody's own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from softknee._spec import Promises, Spec
from softknee.testing._subject import CHANNELS, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Activation = Spec | str | nn.Module
NONE = Promises()
# Values may differ by this much, relatively to the largest, where the order of operations may differ.
NEAR = 1e-5


@dataclass(frozen=True)
class Case:
    """A module under test.

    Attributes:
        name: Of the activation.
        options: How the module was made, in words.
        module: In eval mode.
        x: Its input.
        kind: As in a spec; `""` where nothing is known.
        promises: Those of the spec.
    """

    name: str
    options: str
    module: nn.Module
    x: Tensor
    kind: str = ""
    promises: Promises = NONE

    def fail(self, check: str, got: object, expected: object) -> NoReturn:
        """Report a failed check.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError(f"{self.name} fails {check}, {self.options}: got {got}, expected {expected}")

    @contextmanager
    def must(self, check: str) -> Iterator[None]:
        """Have whatever is raised inside count as a failed check.

        Args:
            check: Its name.

        Yields:
            Nothing.

        Raises:
            AssertionError: Something was raised.
        """
        try:
            yield
        except AssertionError:
            raise
        except Exception as error:  # compilers, exporters and copies raise errors of all kinds
            self.fail(check, f"{type(error).__name__}: {error}", "no error")

    def same(self, check: str, got: Any, expected: Any) -> None:
        """Check for equality."""
        equal = _equal(got, expected) if isinstance(expected, Tensor) else got == expected
        if not equal:
            self.fail(check, got, expected)

    def near(self, check: str, got: Tensor, expected: Tensor, *, roundings: float = 0.0) -> None:
        """Check for equality up to rounding; `roundings` is the relative spacing of a lower precision."""
        scale = expected.detach().abs().nan_to_num(posinf=0.0).max().item() if expected.numel() else 0.0
        slack = (NEAR + 16 * roundings) * max(1.0, scale)
        if got.shape != expected.shape or not torch.allclose(got, expected, rtol=0.0, atol=slack, equal_nan=True):
            self.fail(check, got, expected)


def cases(activation: Activation, example: Tensor | None, values: Mapping[str, Any]) -> list[Case]:
    """Return the modules to try.

    Args:
        activation: A spec, a name of the catalogue, or any module.
        example: An input for a module.
        values: Parameter values of a spec.

    Returns:
        For a spec, the module as it comes and with its parameters trained in each channel; for a module, itself.
    """
    if isinstance(activation, nn.Module):
        x = torch.linspace(-4, 4, 4 * CHANNELS).view(4, CHANNELS) if example is None else example
        return [Case(type(activation).__name__, "as it is", activation, x)]
    subject = Subject(activation, values)
    x = subject.example() if example is None else example
    spec = subject.spec
    return [Case(spec.name, how, module, x, spec.kind, spec.promises) for how, module in subject.modules()]


def _equal(got: Tensor, expected: Tensor) -> bool:
    return got.shape == expected.shape and torch.equal(got.nan_to_num(nan=0.125), expected.nan_to_num(nan=0.125))
