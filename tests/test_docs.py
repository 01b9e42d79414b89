"""What the pages show is what comes out."""

from __future__ import annotations

from pathlib import Path

import softknee as sk


def test_the_page_on_expressions_is_true():
    idea = sk.expression("x * tanh(softplus(x)) + a*sin(b*x)")
    assert idea.parameters == ("a", "b")
    assert idea.to_latex() == r"x \tanh(\ln(1 + e^{x})) + a \sin(b x)"
    assert str(idea.derivative("x")) == (
        "tanh(softplus(x)) + a * b * cos(b * x) + x * sigmoid(x) * (1 - square(tanh(softplus(x))))"
    )
    assert str(sk.expression("1*x + 0 + x*x*x**2 - (x - x)").simplify()) == "x + x**4"
    assert "class Idea(nn.Module)" in idea.to_module_source("Idea", a=0.1, b=2.0)
    assert str(sk.recognise("x * sigmoid(x)")) == "silu"


def test_the_counts_in_the_readme_are_true():
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    assert f"{len(sk.list())} activations in {len(sk.families())} families" in text
