from __future__ import annotations

import pytest

from softknee._catalogue import CATALOGUE
from softknee.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_activation_is_what_its_spec_says(spec, check):
    check(spec)
