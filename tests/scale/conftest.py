from __future__ import annotations

import pytest
from pair import Pair
from torch import distributed


@pytest.fixture(scope="session")
def pair():
    """Two processes, for as long as the tests take."""
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("needs a PyTorch with gloo")
    both = Pair()
    yield both
    both.stop()
