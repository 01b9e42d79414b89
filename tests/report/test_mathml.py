from __future__ import annotations

from xml.etree import ElementTree

import pytest

from softknee._report.mathml import mathml, prose


def shape(latex):
    """Return a formula as nested names and texts, without spaces."""

    def of(node):
        inside = [of(child) for child in node if child.tag != "mspace"]
        return node.text if not inside and node.text else (node.tag, *inside)

    return of(ElementTree.fromstring(mathml(latex)))[1:]


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x", ("x",)),
        ("0.044715", ("0.044715",)),
        (r"\beta x", ("β", "x")),
        (r"\tfrac12", (("mstyle", ("mfrac", "1", "2")),)),
        (r"\tfrac ab", (("mstyle", ("mfrac", ("mrow", "a"), ("mrow", "b"))),)),
        (r"\frac{x}{1 + x}", (("mfrac", ("mrow", "x"), ("mrow", "1", "+", "x")),)),
        ("x^2", (("msup", "x", "2"),)),
        ("x_i", (("msub", "x", ("mrow", "i")),)),
        ("x_j^2", (("msubsup", "x", ("mrow", "j"), "2"),)),
        ("e^{-x}", (("msup", "e", ("mrow", "−", "x")),)),
        (r"\sqrt x", (("msqrt", ("mrow", "x")),)),
        (r"\sqrt{2/\pi}", (("msqrt", ("mrow", "2", "/", "π")),)),
        (r"\sin^2(a x)", (("msup", "sin", "2"), "(", "a", "x", ")")),
        (r"\mathrm{erf}(x)", ("erf", "(", "x", ")")),
        (
            r"\sum_{i=1}^K a_i",
            (("munderover", "∑", ("mrow", "i", "=", "1"), ("mrow", "K")), ("msub", "a", ("mrow", "i"))),
        ),
        (r"\left(\frac12\right)", (("mrow", "(", ("mfrac", "1", "2"), ")"),)),
        (r"\operatorname{erf}", ("erf",)),
        (r"x \le 0", ("x", "≤", "0")),
        ("a < b", ("a", "<", "b")),
    ],
)
def test_structure(latex, expected):
    assert shape(latex) == expected


def test_cases_are_a_table_behind_a_brace():
    (row,) = shape(r"\begin{cases} x & \text{if } x > 0 \\ \alpha & \text{otherwise} \end{cases}")
    assert row[1] == "{"
    assert row[2] == (
        "mtable",
        ("mtr", ("mtd", ("mrow", "x")), ("mtd", ("mrow", "if\u00a0", "x", ">", "0"))),
        ("mtr", ("mtd", ("mrow", "α")), ("mtd", ("mrow", "otherwise"))),
    )


def test_functions_keep_their_distance():
    assert mathml(r"a \tanh x").count("mspace") == 2
    assert mathml(r"\tanh(x)").count("mspace") == 0
    assert mathml(r"\text{slope} x").count("mspace") == 1


def test_a_minus_behind_a_bracket_or_at_the_start_is_a_sign():
    assert mathml("-x").count('form="prefix"') == 1
    assert mathml("(-x)").count('form="prefix"') == 1
    assert mathml("a - x").count('form="prefix"') == 0


def test_bars_open_and_close():
    assert shape("x |x| / 4") == ("x", "|", "x", "|", "/", "4")


def test_unknown_commands_stay_visible():
    assert shape(r"\nonsense x") == ("nonsense", "x")


def test_prose_is_escaped_and_formulas_and_code_are_markup():
    text = prose("a <b> & $x < 1$ with `code`")
    assert text.startswith("a &lt;b&gt; &amp; <math")
    assert "<code>code</code>" in text
    assert "<mo>&lt;</mo>" in text
