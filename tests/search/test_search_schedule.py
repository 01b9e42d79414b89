"""The published schedule of shrinking."""

from __future__ import annotations

from itertools import accumulate

from softknee._search.schedule import TICKS, drops


def test_the_numbers_that_were_published():
    counts = drops(104)
    assert sum(counts) == 104
    assert counts[:11] == (0, 0, 19, 11, 7, 6, 5, 4, 4, 3, 3)
    left = [110 - dropped for dropped in accumulate(counts)]
    assert (left[6], left[16]) == (62, 36)
    # By rounding, the last one is just before or at 10 ** log10(48).
    assert left.index(6) in {48, TICKS - 1}
    assert max(counts[22:]) == 1


def test_a_search_over_iterations():
    counts = drops(104, first=200, ticks=1000)
    assert counts[200] == 11
    assert sum(counts[:225]) < 52 <= sum(counts[:246])  # half of them
    assert sum(counts) == 104
    assert counts[999] == 1


def test_small_spaces_lose_all_but_one_of_each():
    assert sum(drops(3)) == 3
    assert drops(0) == (0,) * TICKS
