"""The public namespace: complete, and loaded only when used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

from softknee import diagnostics


def test_names_imports_and_homes_are_the_same():
    tree = ast.parse(inspect.getsource(diagnostics))
    imported = {
        one.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("softknee.")
        for one in node.names
    }
    assert imported == diagnostics._HOMES
    assert diagnostics.__all__ == sorted(imported)
    assert set(diagnostics.__all__) <= set(dir(diagnostics))


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_every_name_is_documented_where_it_is_made(name):
    found = getattr(diagnostics, name)
    assert (found.__name__, found.__module__) == (name, diagnostics._HOMES[name])
    assert found.__doc__


def test_nothing_loads_before_it_is_used():
    code = "import sys, softknee.diagnostics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_names_are_missed():
    with pytest.raises(AttributeError, match=r"module 'softknee.diagnostics' has no attribute 'spectra'"):
        _ = diagnostics.spectra
