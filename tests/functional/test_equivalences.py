"""Every equivalence that the atlas lists, in numbers."""

from __future__ import annotations

import pytest

from softknee._atlas.equivalences import EQUIVALENCES, Equivalence, equivalences_of


@pytest.mark.parametrize("equivalence", EQUIVALENCES, ids=lambda found: f"{found.name or found.left} = {found.right}")
def test_both_sides_are_the_same_function(equivalence):
    assert equivalence.difference() <= equivalence.tolerance


def test_what_is_not_equivalent_is_found_out():
    assert Equivalence("swish[beta=2]", "silu", "").difference() > 0.1
    assert Equivalence("group_sort", "maxmin", "").difference() > 0.1


def test_an_activation_knows_its_equivalences_by_any_of_its_names():
    assert {found.left for found in equivalences_of("maxmin")} == {"group_sort", "householder", "maxmin"}
    assert equivalences_of("relu") == ()
