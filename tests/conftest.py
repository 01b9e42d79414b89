from __future__ import annotations

import os
import shutil

import pytest
import torch
from hypothesis import settings

from softknee._bench import data

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

# Kernels for GPUs run in Triton's interpreter here; torch.compile imports Triton, which asks for this only then.
os.environ.setdefault("TRITON_INTERPRET", "1")

NEEDS = {
    "browser": (lambda: shutil.which("chromium") is not None, "needs Debian's chromium"),
    "full_data": (lambda: data.DEBIAN.is_dir(), "needs Debian's dataset-fashion-mnist"),
}


def pytest_collection_modifyitems(items):
    """Leave out, with the reason, what needs a system package that is not there; in CI that is an error instead."""
    if os.environ.get("CI"):
        return
    for marker, (is_there, reason) in NEEDS.items():
        if not is_there():
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser():
    """One for all tests of a process: the driver cannot be started twice."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def open_page(browser):
    """Opens a file or address, with options of the context: the page, what it complained about, what it asked for."""

    def opened(path, **options):
        page = browser.new_context(**options).new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path if isinstance(path, str) else path.as_uri())
        return page, complaints, requests

    return opened
