from __future__ import annotations

import pytest

from softknee._catalogue import CATALOGUE, create, get
from softknee._collisions import COLLISIONS
from softknee._errors import AmbiguousActivation
from softknee.functional import SPECS

KNOWN = {name for spec in SPECS for name in (spec.name, *spec.aliases)}


@pytest.mark.parametrize("name", COLLISIONS)
def test_meanings_are_in_the_catalogue_where_they_say_so(name):
    named = [meaning.activation for meaning in COLLISIONS[name] if meaning.activation]
    assert named
    assert all(get(one).name == one for one in named)


@pytest.mark.parametrize("name", [name for name in COLLISIONS if name in KNOWN])
def test_a_name_with_one_documented_meaning_has_the_first(name):
    assert get(name).name == COLLISIONS[name][0].activation


def test_a_name_that_no_meaning_deserves_is_refused_with_the_choices():
    assert [name for name in COLLISIONS if name not in KNOWN] == ["drelu"]
    with pytest.raises(
        AmbiguousActivation, match=r"'drelu' stands for several functions; say which: displaced_relu is"
    ):
        create("drelu")


def test_every_family_is_there():
    assert {spec.family for spec in CATALOGUE} >= {
        *("rectifier", "exponential", "sigmoidal", "gated", "oscillating", "polynomial", "rational", "spline", "glu"),
        *("vector", "contextual", "stochastic", "surrogate", "mixture"),
    }
    assert len(CATALOGUE) >= 170
