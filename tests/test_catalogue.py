from __future__ import annotations

import pytest

from softknee._catalogue import CATALOGUE
from softknee.testing import check_compiled, check_onnx, checks_for

# One activation of every structure; the others go through the slow compilers in `make test-all`.
STRUCTURES = {"relu", "rrelu", "brelu", "soft_exponential", "staf", "linear_spline"}
CASES = [
    pytest.param(spec, check, id=f"{spec.name}-{check.__name__}") for spec in CATALOGUE for check in checks_for(spec)
]


@pytest.mark.parametrize(("spec", "check"), CASES)
def test_every_activation_is_what_its_spec_says(spec, check):
    check(spec)


def by_structure(spec):
    return pytest.param(spec, id=spec.name, marks=() if spec.name in STRUCTURES else pytest.mark.slow)


@pytest.mark.parametrize("spec", [by_structure(spec) for spec in CATALOGUE])
def test_every_activation_survives_inductor(spec):
    check_compiled(spec, backend="inductor")


@pytest.mark.parametrize("spec", [by_structure(spec) for spec in CATALOGUE])
def test_every_activation_survives_onnx(spec):
    check_onnx(spec)
