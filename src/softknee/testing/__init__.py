"""One checker for any activation, catalogued or your own.

`check_activation` runs every check; each can be used alone. A check raises an AssertionError that names the activation,
the check, the point, what came out and what was expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee.testing._modules import check_compiles, check_copies, check_vmap
from softknee.testing._precision import check_accuracy, check_finite
from softknee.testing._promises import check_bounds, check_idempotent, check_monotonic, check_smooth
from softknee.testing._values import check_derivatives, check_gradients, check_values

if TYPE_CHECKING:
    from softknee._spec import Spec

CHECKS = (
    check_values,
    check_derivatives,
    check_gradients,
    check_finite,
    check_accuracy,
    check_monotonic,
    check_bounds,
    check_idempotent,
    check_smooth,
    check_copies,
    check_vmap,
    check_compiles,
)

__all__ = ["CHECKS", "check_activation", *(check.__name__ for check in CHECKS)]


def check_activation(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check that an activation is what its spec says, against its formula text evaluated to a hundred digits.

    Args:
        activation: A spec, or a name of the catalogue.
        **values: Parameter values in place of the defaults: numbers, or tuples for vectors. Needed for parameters
            without a default and without an initialization.

    Raises:
        AssertionError: A check fails.
        UnknownActivation: No activation has that name.
    """
    for check in CHECKS:
        check(activation, **values)
