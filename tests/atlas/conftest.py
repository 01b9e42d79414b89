from __future__ import annotations

import shutil

import pytest
from selected import NAMES

from softknee._atlas.site import build


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A small atlas."""
    folder = tmp_path_factory.mktemp("atlas") / "site"
    assert build(folder, NAMES) == folder / "index.html"
    return folder


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()
