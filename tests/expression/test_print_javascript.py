from __future__ import annotations

import json
import math
import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from trees import any_trees

from softknee._expression.parse import parse
from softknee._expression.primitives import COMPARISONS, PRIMITIVES
from softknee._expression.tree import Expression
from softknee.nn.formula import FUNCTIONS

X = [-700.0, -30.0, -5.9, -2.7, -0.5, -1e-9, 0.0, 1e-9, 0.4, 3.3, 6.1, 30.0, 700.0]
VECTORS = [1.0, -0.5, 2.0], [0.25, 1.5, -1.0]
CASES = [
    *[(f"{name}(x)", []) for name in PRIMITIVES if PRIMITIVES[name].arity == 1 and name != "neg"],
    *[(f"x {name} a", [1.5]) for name in PRIMITIVES if not name.isidentifier() and name not in COMPARISONS],
    *[(f"where(x {name} 0.4, a, -x)", [1.5]) for name in sorted(COMPARISONS)],
    ("max(x, a) - min(1, x)", [0.5]),
    ("-(-x) - -2 - -x**2 - (-x)**2", []),
    ("(x - 1) - (x - a) - 1 / (x / 2) / 3", [0.5]),
    ("2 * where(x < 0, 1, where(x < 1, 2, 3)) + 1", []),
    ("sum(a * sin(b * x)) * 2", VECTORS),
    ("sum(a * index / terms) + index * largest(b + index * x)", [VECTORS[0], 2.0, VECTORS[1]]),
    ("var * x + Math + let", [0.5, 1.0, 2.0]),
    ("swish(x, b) + gelu(x) + mish(x) + elu(1, b)", [1.5]),
    ("softplus(x, 2) + hardtanh(x, -a, a)", [0.5]),
    ("sinh(x) - x", []),
    ("asinh(a * x) + sinh(1)", [0.5]),
]  # fmt: skip


def node():
    """Node, from the system or from playwright, which brings it along."""
    found = shutil.which("node")
    if found is None:
        driver = pytest.importorskip("playwright._impl._driver")
        found = driver.compute_driver_executable()[0]
    return str(found)


@pytest.fixture(scope="module")
def computed():
    """The values of all cases at all points."""
    script = "const results = [];\n"
    for text, values in CASES:
        source = parse(text, FUNCTIONS).to_javascript()
        calls = f"return {json.dumps(X)}.map((x) => f(x, ...{json.dumps(values)}));"
        script += f"results.push((() => {{\n{source}{calls}\n}})());\n"
    script += "console.log(JSON.stringify(results.map((r) => r.map(String))));\n"
    done = subprocess.run([node(), "-"], input=script, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(zip([text for text, _ in CASES], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("text", "values"), CASES)
def test_it_computes_the_same(computed, text, values):
    expected = parse(text, FUNCTIONS)(torch.tensor(X, dtype=torch.float64), *values).tolist()
    for x, mine, theirs in zip(X, map(float, computed[text]), expected, strict=True):
        same = math.isclose(mine, theirs, rel_tol=1e-12, abs_tol=1e-15) or (math.isnan(mine) and math.isnan(theirs))
        assert same, (x, mine, theirs)


def test_source_for_reading():
    assert parse("where(x > 0, x, a * (exp(x) - 1))").to_javascript("elu") == (
        "function elu(x, a) {\n"
        "  const exp = (u) => Math.exp(Math.min(u, 709.782712893384));\n"
        "  return (x > 0 ? x : a * (exp(x) - 1));\n"
        "}\n"
    )


@settings(max_examples=50, deadline=None)
@given(any_trees())
def test_any_tree_prints(tree):
    source = Expression.of(tree).to_javascript()
    assert source.count("(") == source.count(")")
    assert "--" not in source
    assert "**" not in source
