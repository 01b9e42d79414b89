"""One checker for any activation, catalogued or your own.

`check_activation` runs every check that applies to a spec, `check` those that apply to any module; each can be used
alone. A check raises an AssertionError that names the activation, the check, the point, what came out and what was
expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._catalogue import get
from softknee._spec import Spec
from softknee.testing._anybodys import check, findings
from softknee.testing._engines import check_engines, check_memory
from softknee.testing._layouts import check_channels, check_layouts
from softknee.testing._modules import (
    check_compiled,
    check_compiles,
    check_copies,
    check_dtypes,
    check_exports,
    check_functional_call,
    check_onnx,
    check_safetensors,
    check_vmap,
)
from softknee.testing._precision import check_accuracy, check_finite
from softknee.testing._promises import (
    check_bounds,
    check_idempotent,
    check_lipschitz,
    check_monotonic,
    check_smooth,
    check_symmetric,
)
from softknee.testing._statement import check_jacobian, check_statement, check_vectors
from softknee.testing._values import check_derivatives, check_gradients, check_second_derivatives, check_values

if TYPE_CHECKING:
    from collections.abc import Callable

# Of functions of single elements, gated pairs and what contexts decide included.
POINTWISE = (
    check_values,
    check_derivatives,
    check_gradients,
    check_second_derivatives,
    check_finite,
    check_accuracy,
    check_monotonic,
    check_bounds,
    check_symmetric,
    check_lipschitz,
    check_idempotent,
    check_smooth,
)
# Of functions of the entries along a dimension.
VECTOR = (check_statement, check_jacobian, check_vectors)
# Of modules.
MODULES = (
    check_copies,
    check_safetensors,
    check_vmap,
    check_compiles,
    check_functional_call,
    check_dtypes,
    check_layouts,
    check_exports,
)
# Of modules of single elements.
ELEMENTWISE = (check_engines, check_memory, check_channels)
# Of modules of gated pairs.
GATED = (check_engines, check_memory)
CHECKS = (*POINTWISE, *VECTOR, *MODULES, *ELEMENTWISE)

__all__ = [
    "CHECKS",
    "check",
    "check_activation",
    "check_compiled",
    "check_onnx",
    "checks_for",
    "findings",
    *(one.__name__ for one in CHECKS),
]


def checks_for(activation: Spec | str) -> tuple[Callable[..., None], ...]:
    """Return the checks that apply to an activation.

    Args:
        activation: A spec, or a name of the catalogue.

    Returns:
        They take it, and parameter values in place of the defaults.

    Raises:
        UnknownActivation: No activation has that name.
    """
    spec = activation if isinstance(activation, Spec) else get(activation)
    functions = VECTOR if spec.kind == "vector" else POINTWISE
    return (*functions, *MODULES, *{"elementwise": ELEMENTWISE, "gated": GATED}.get(spec.kind, ()))


def check_activation(activation: Spec | str, **values: Any) -> None:
    """Check that an activation is what its spec says, against its formula text evaluated to a hundred digits.

    Args:
        activation: A spec, or a name of the catalogue.
        **values: Parameter values in place of the defaults: numbers, or tuples for vectors. Needed for parameters
            without a default and without an initialization.

    Raises:
        AssertionError: A check fails.
        UnknownActivation: No activation has that name.
    """
    for one in checks_for(activation):
        one(activation, **values)
