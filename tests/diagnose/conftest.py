from __future__ import annotations

import pytest
import torch


@pytest.fixture
def _seeded():
    torch.manual_seed(0)


# All values, and few that are summed together.
@pytest.fixture(params=[None, 10**6], ids=["all", "few"])
def values(request):
    return request.param
