"""What tests of searches share."""

from __future__ import annotations

import pytest

from softknee._search import export


@pytest.fixture(scope="module")
def measured_quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SHAPE", (2, 4, 4, 4))
        patch.setattr(export, "REPEATS", 2)
        yield
