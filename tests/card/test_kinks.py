from __future__ import annotations

import math

import pytest
import torch

from softknee._card.function import function_of
from softknee._card.kinks import kinks_of
from softknee._catalogue import CATALOGUE, create

PLAIN = [spec for spec in CATALOGUE if spec.kind == "elementwise"]
# One in five; the others take a while together.
SOME = [pytest.param(spec, marks=[pytest.mark.slow] * bool(i % 5)) for i, spec in enumerate(PLAIN)]


def found(activation):
    return [(one.place, one.kind) for one in kinks_of(function_of(activation))]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.relu, [(0.0, "kink")]),
        (torch.nn.Hardtanh(), [(-1.0, "kink"), (1.0, "kink")]),
        (torch.nn.Hardshrink(0.3), [(-0.3, "jump"), (0.3, "jump")]),
        (torch.nn.Softshrink(0.7), [(-0.7, "kink"), (0.7, "kink")]),
        (torch.nn.ELU(), [(0.0, "bend")]),
        (torch.nn.Softsign(), [(0.0, "bend")]),
        (torch.nn.GELU(), []),
        (torch.sign, [(0.0, "jump")]),
        (torch.nn.Threshold(0.1, 20), [(0.1, "jump")]),
        (lambda x: (x - 123.4).clamp_min(0), [(123.4, "kink")]),
        (lambda x: x.clamp_min(0) + (x - 1e-6).clamp_min(0) - (x - 0.004).clamp_min(0), None),
        (lambda x: x.clamp_min(0.1) + (x - 0.1 - 1e-11).clamp_min(0), None),
    ],
)
def test_kinks_that_nobody_declared_are_found(function, expected):
    got = found(function)
    if expected is None:
        assert len(got) in {2, 3}
        assert {kind for _, kind in got} == {"kink"}
    else:
        assert [kind for _, kind in got] == [kind for _, kind in expected]
        assert [place for place, _ in got] == pytest.approx([place for place, _ in expected], abs=1e-7)


@pytest.mark.parametrize("a", [0.123456, -3.3, 0.5 + 1e-9, 2.000001, 17.25])
def test_places_are_exact_and_sizes_right(a):
    (kink,) = kinks_of(function_of(create(f"max(3 * (x - {a}), 0) + sin(x)")))
    assert kink.place == pytest.approx(a, abs=1e-14 * max(1, abs(a)))
    assert kink.size == pytest.approx(3, rel=1e-9)
    assert not kink.declared


@pytest.mark.parametrize("spec", SOME, ids=lambda spec: spec.name)
def test_found_kinks_agree_with_the_catalogue(spec):
    """Smooth ones have none; declared ones are found where a derivative jumps, and no other kinks of the slope are."""
    function = function_of(spec.name)
    kinks = kinks_of(function)
    if spec.promises.smooth:
        assert not kinks
    if not spec.knots and not spec.surrogate and spec.name not in {"apl", "tropical_rational"}:
        assert all(kink.declared for kink in kinks if kink.kind == "kink")
    for kink in kinks:
        assert math.isinf(kink.size) or kink.size != 0


def test_a_surrogate_adds_its_own_kinks():
    kinks = kinks_of(function_of("step_ste"))
    assert [(one.place, one.kind) for one in kinks] == [(-1.0, "kink"), (0.0, "jump"), (1.0, "kink")]
    assert [(one.place, one.kind) for one in kinks_of(function_of("sugar"))] == [(0.0, "kink")]


def test_declared_kinks_follow_the_present_parameters():
    assert found("hardtanh[min_value=-2,max_value=0.5]") == [(-2.0, "kink"), (0.5, "kink")]
    assert found(create("prelu", slope=1.0)) == []
    both = create("srelu", per_channel=2, left_threshold=torch.tensor([-1.0, -2.0]))
    assert {-1.0, -2.0, 1.0} == {place for place, _ in found(both)} | {1.0}
