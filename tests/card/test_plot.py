"""Figures for papers show the numbers of the card."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from softknee import MissingExtra, card

figure = pytest.importorskip("matplotlib.figure")


def lines(ax):
    return {line.get_label(): np.array(line.get_data(), dtype=float) for line in ax.get_lines()}


def test_value_slope_and_bend_are_drawn():
    drawn = lines(card("tanh").plot())
    x, value = drawn["φ"]
    np.testing.assert_allclose(value, np.tanh(x), atol=1e-12)
    np.testing.assert_allclose(drawn["φ′"][1], 1 - np.tanh(x) ** 2, atol=1e-12)
    np.testing.assert_allclose(drawn["φ″"][1], -2 * np.tanh(x) * (1 - np.tanh(x) ** 2), atol=1e-12)


def test_slopes_have_gaps_where_they_jump():
    _, slope = lines(card("relu").plot())["φ′"]
    assert np.isnan(slope).any()
    assert set(slope[~np.isnan(slope)]) == {0.0, 1.0}


def test_axes_that_are_given_are_drawn_into_and_written(tmp_path):
    ax = figure.Figure().subplots()
    assert card(torch.nn.GELU()).plot(ax) is ax
    ax.figure.savefig(tmp_path / "gelu.png")
    assert (tmp_path / "gelu.png").stat().st_size > 1000


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'softknee\[plot\]'"):
        card("relu").plot()
