from __future__ import annotations

import pytest
from selected import NAMES

from softknee._atlas.site import build


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A small atlas."""
    folder = tmp_path_factory.mktemp("atlas") / "site"
    assert build(folder, NAMES) == folder / "index.html"
    return folder
