from __future__ import annotations

import math

import pytest

from softknee._errors import UsageError
from softknee._report.terminal import braille_plot

X = [-3 + 6 * i / 200 for i in range(201)]


def dots(text):
    """Positions of the dots, column and row from the top left."""
    found = set()
    # Bits 1 2 3 7 are the left column from the top, 4 5 6 8 the right one.
    left, right = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
    offsets = {bit: (x, y) for x, bits in enumerate((left, right)) for y, bit in enumerate(bits)}
    lines = text.splitlines()[:-1]
    start = next(i for i, character in enumerate(lines[0]) if ord(character) >= 0x2800)
    for row, line in enumerate(lines):
        for column, character in enumerate(line[start:]):
            bits = ord(character) - 0x2800
            found |= {(2 * column + dx, 4 * row + dy) for bit, (dx, dy) in offsets.items() if bits & bit}
    return found


def test_relu_runs_along_the_foot_and_climbs_to_the_corner():
    found = dots(braille_plot(X, [max(value, 0) for value in X], width=30, height=8))
    assert all((column, 31) in found for column in range(30))
    assert (59, 0) in found


def test_steep_curves_stay_connected():
    found = dots(braille_plot(X, [1.0 if value > 0.01 else -1.0 for value in X], width=30, height=8))
    assert all(any(row == dot[1] for dot in found if dot[0] in range(29, 33)) for row in range(32))


def test_the_ranges_stand_at_the_edges():
    lines = braille_plot(X, [math.tanh(value) for value in X], width=20, height=5).splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(" 0.995 ")
    assert lines[4].startswith("-0.995 ")
    assert lines[5].split() == ["-3", "3"]
    assert len({len(line) for line in lines}) == 1


def test_what_is_not_finite_leaves_a_gap():
    y = [math.nan if abs(value) < 1 else 5.0 for value in X]
    columns = {column for column, row in dots(braille_plot(X, y, width=30, height=8)) if column not in {29, 30}}
    assert not columns & set(range(22, 38))


def test_a_constant_is_drawn_in_the_middle():
    assert (0, 4) in dots(braille_plot([1.0, 2.0], [3.0, 3.0], width=10, height=2))


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        ([1.0], [1.0], {}, "x has 1 and y 1 values; they must be as many, at least two"),
        ([1.0, 2.0], [1.0], {}, "x has 2 and y 1 values"),
        ([1.0, 2.0], [1.0, 2.0], {"width": 3}, "a plot of 3 x 15 characters is too small; at least 8 x 2"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(x, y, size, message):
    with pytest.raises(UsageError, match=message):
        braille_plot(x, y, **size)
