"""Activations that overwrite their input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, gradients, kinds, linear, numbers, seen, state

import softknee as sk
from softknee import UsageError

IN_PLACE_RESULT_USED = {
    "function": lambda s, h: F.relu(h, inplace=True),
    "method": lambda s, h: h.relu_(),
    "torch.relu_": lambda s, h: torch.relu_(h),
    "module": lambda s, h: s.act(h),
}


def _statement(call):
    def forward(s, h):
        call(s, h)
        return h

    return forward


def _through_a_view(s, h):
    flat = h.view(-1)
    F.relu_(h)
    return flat.view(h.shape)


def _of_a_view(s, h):
    F.relu_(h.view(-1))
    return h


def _of_a_part(s, h):
    F.relu(h[:, :2], inplace=True)
    return h


IN_PLACE_RESULT_IGNORED = {name: _statement(call) for name, call in IN_PLACE_RESULT_USED.items() if name != "module"}


IN_PLACE_RESULT_IGNORED |= {"seen through a view": _through_a_view, "of a view": _of_a_view, "of a part": _of_a_part}


def in_place(function, act=None):
    return Written(
        lambda s, x: s.out(function(s, s.layer(x))),
        layer=linear(4, 6),
        out=linear(6, 3),
        act=act or nn.ReLU(inplace=True),
    )


@pytest.mark.parametrize("name", [*IN_PLACE_RESULT_USED, *(f"{name}, ignored" for name in IN_PLACE_RESULT_IGNORED)])
def test_in_place_functions_are_seen_before_and_replaced_with_the_same_effect(name):
    function = {**IN_PLACE_RESULT_USED, **{f"{key}, ignored": one for key, one in IN_PLACE_RESULT_IGNORED.items()}}[
        name
    ]
    model, x = in_place(function), numbers(5, 4)
    before = model(x)
    (site,) = (site for site in sk.sites(model, x) if site.times)
    inner = model.layer(x).detach()
    inner = inner[:, :2] if name.startswith("of a part") else inner
    # The range of what goes in: overwritten, it would have no negative numbers.
    assert (site.low, site.high) == (float(inner.min()), float(inner.max()))
    assert site.low < 0
    torch.testing.assert_close(model(x), before)

    def act(s, h):
        return torch.cat([F.softplus(h[:, :2]), h[:, 2:]], 1) if name.startswith("of a part") else F.softplus(h)

    wanted = in_place(act, nn.Softplus())
    sk.swap(model, "softplus", where="relu", example_inputs=x)
    for one, other in zip(gradients(model, x), gradients(wanted, x), strict=True):
        torch.testing.assert_close(one, other)


class Overwriting(nn.Module):
    """Overwrites its input without saying so in an attribute."""

    def forward(self, x):
        return x.relu_()


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), Overwriting()], ids=["says so", "does not say so"])
@pytest.mark.parametrize("name", ["statement", "view"])
def test_an_in_place_module_whose_input_is_used_again_is_refused(act, name):
    def forward(s, h):
        flat = h.view(-1)
        s.act(h)
        return h if name == "statement" else flat.view(h.shape)

    model, x = in_place(forward, act), numbers(5, 4)
    found = sk.sites(model, x)
    assert kinds(found) == []
    (unseen,) = found.unseen
    assert (unseen.path, unseen.site.path) == ("act", "act")
    assert unseen.reason == (
        "relu: its input is overwritten in place and used again; write `x = act(x)` without inplace"
    )
    before = state(model)
    with pytest.raises(
        UsageError, match="^1 of 1 activations cannot be changed, first act: relu: its input is overwrit"
    ):
        sk.swap(model, "softplus", example_inputs=x)
    assert state(model) == before


def test_an_in_place_module_that_does_not_say_so_is_replaced_where_its_result_is_used():
    model, x = in_place(lambda s, h: s.act(h), Overwriting()), numbers(5, 4)
    sk.swap(model, "softplus", example_inputs=x)
    torch.testing.assert_close(model(x), in_place(lambda s, h: F.softplus(h))(x))


def test_an_in_place_sum_after_an_activation_is_no_trouble():
    def build(relu):
        def forward(s, x):
            out = relu(s.layer(x))
            shortcut = out
            out = s.layer(out)
            out += shortcut
            return s.layer(relu(out))

        return Written(forward, layer=linear(4, 4))

    x = numbers(5, 4)
    model = build(lambda h: F.relu(h, inplace=True))
    with torch.no_grad():
        before = model(x)
    assert kinds(sk.sites(model, x)) == ["relu", "relu"]
    assert torch.equal(model(x).detach(), before)
    sk.swap(model, "softplus", example_inputs=x)
    for one, other in zip(gradients(model, x), gradients(build(F.softplus), x), strict=True):
        torch.testing.assert_close(one, other)


def test_an_expression_that_overwrites_its_input_still_does():
    def build(swish):
        def forward(s, x):
            h = s.layer(x)
            swish(h)
            return s.layer(h)

        return Written(forward, layer=linear(4, 4))

    x = numbers(5, 4)
    model = build(lambda h: h.mul_(torch.sigmoid(h)))
    assert seen(sk.sites(model, x)) == [("", 0, "silu", "activation", "expression")]
    sk.swap(model, "softplus", example_inputs=x)
    wanted = Written(lambda s, x: s.layer(F.softplus(s.layer(x))), layer=linear(4, 4))
    for one, other in zip(gradients(model, x), gradients(wanted, x), strict=True):
        torch.testing.assert_close(one, other)
