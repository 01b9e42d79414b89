from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softknee._errors import UsageError
from softknee._statistics.decisions import holm, verdict

P_VALUES = st.lists(st.floats(0, 1), max_size=6)


def by_closed_testing(p):
    """Holm is closed testing with Bonferroni's test: the worst over all sets of hypotheses that hold this one."""
    indices = range(len(p))
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(indices, size)]
    return [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if index in s) for index in indices]


@given(P_VALUES)
def test_holm_is_closed_testing_with_bonferroni(p):
    assert holm(p).tolist() == pytest.approx(by_closed_testing(p))


@given(P_VALUES, st.randoms())
def test_holm_does_not_depend_on_the_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]).tolist() == pytest.approx([holm(p)[i] for i in order])


@given(P_VALUES)
def test_holm_lies_between_no_adjustment_and_bonferroni(p):
    adjusted = holm(p)
    assert np.all(adjusted >= np.array(p))
    assert np.all(adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-15)


def test_holm_of_a_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("p", [[1.2], [-0.1], [float("nan")]])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(UsageError, match=r"each must be in \[0, 1\]"):
        holm(p)


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalence", "seeds", "expected"),
    [
        (1.0, 0.01, 0.9, 3, "better"),
        (-1.0, 0.01, 0.9, 3, "worse"),
        (0.1, 0.4, 0.01, 3, "equivalent"),
        (0.1, 0.4, 0.4, 3, "undecided"),
        (0.1, 0.99, 0.05, 3, "undecided"),
        (0.1, 0.04, 0.01, 3, "better"),
        (5.0, 1e-9, 1e-9, 2, "too few seeds"),
    ],
)
def test_verdicts(difference, p, p_equivalence, seeds, expected):
    assert verdict(difference, p=p, p_equivalence=p_equivalence, seeds=seeds) == expected
