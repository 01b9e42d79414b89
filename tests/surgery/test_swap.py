from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, X, block, gradients, kinds, linear, network, numbers, same, state, title

import softknee as sk
from softknee import UsageError


@pytest.mark.parametrize(
    ("where", "changed", "wanted"),
    [
        ("relu", ["blocks.0#0", "blocks.1#0"], {"first": F.softplus}),
        ("gelu", ["blocks.0#1", "blocks.1#1"], {"second": F.softplus}),
        ("silu", ["act"], {"act": nn.Softplus}),
        ("act", ["act"], {"act": nn.Softplus}),
        (nn.SiLU, ["act"], {"act": nn.Softplus}),
        (["relu", "gelu"], ["blocks.0#0", "blocks.0#2", "blocks.1#0", "blocks.1#2"], None),
        ("gate", ["blocks.0#1", "blocks.1#1"], {"gate": F.softplus}),
        (lambda site: site.kind == "relu", ["blocks.0#0", "blocks.1#0"], {"first": F.softplus}),
        ([nn.SiLU, lambda site: site.kind == "relu"], ["blocks.0#0", "blocks.1#0", "act"], None),
    ],
)
def test_where(where, changed, wanted):
    model = network()
    chosen = [change.site.name for change in sk.swap(model, "softplus", where=where, example_inputs=X)[1].changed]
    kind = [name.rpartition("#")[0] or name for name in changed]
    assert [name.rpartition("#")[0] or name for name in chosen] == kind
    if wanted is not None:
        same(model, network(**wanted))


def test_a_pattern_of_paths_and_a_name_with_its_number():
    model = network()
    _, report = sk.swap(model, "softplus", where="blocks.*.act", example_inputs=X)
    assert [change.site.name for change in report.changed] == ["blocks.0.act", "blocks.1.act"]
    model = network()
    _, report = sk.swap(model, "softplus", where="blocks.1#0", example_inputs=X)
    assert [(change.site.kind, change.path) for change in report.changed] == [("relu", "blocks.1.softknee_0")]
    model = network()
    # All functions that a module calls, gates included.
    _, report = sk.swap(model, "softplus", where="blocks.1", example_inputs=X)
    assert [change.site.kind for change in report.changed] == ["relu", "sigmoid", "gelu"]


def test_by_default_gates_outputs_and_softmaxes_stay():
    model = network()
    _, report = sk.swap(model, "softplus", example_inputs=X)
    assert [change.site.kind for change in report.changed] == ["relu", "tanh", "gelu"] * 2 + ["silu"]
    assert [(site.kind, site.role) for site in report.left] == [
        *[("sigmoid", "gate")] * 2,
        ("softmax", "normaliser"),
        ("sigmoid", "output"),
    ]
    wanted = network(act=nn.Softplus, first=F.softplus, second=F.softplus)
    for one in wanted.blocks:
        one.act = nn.Softplus()
    same(model, wanted)


class Cubed(nn.Module):
    def forward(self, x):
        return x**3


PROTOTYPE = nn.PReLU(init=0.4)


@pytest.mark.parametrize(
    ("to", "function"),
    [
        ("softplus", F.softplus),
        ("leaky_relu[negative_slope=0.3]", lambda x: F.leaky_relu(x, 0.3)),
        ("x * sigmoid(x)", F.silu),
        ("x * sigmoid(b*x)[b=1.702]", lambda x: x * torch.sigmoid(1.702 * x)),
        (sk.nn.Mish, F.mish),
        (sk.create("elu"), F.elu),
        (nn.Softsign, F.softsign),
        (Cubed, lambda x: x**3),
        (PROTOTYPE, lambda x: F.leaky_relu(x, 0.4)),
        (lambda: nn.CELU(0.5), lambda x: F.celu(x, 0.5)),
        (lambda: "tanh", torch.tanh),
        (lambda site: {"relu": "tanh", "silu": nn.Tanh()}[site.kind], torch.tanh),
    ],
    ids=title,
)
def test_what_is_put_in_acts_as_if_it_had_been_written(to, function):
    class Act(nn.Module):
        def forward(self, x):
            return function(x)

    model = network()
    sk.swap(model, to, where=["relu", "silu"], example_inputs=X)
    got = gradients(model, X)
    wanted = network(act=Act, first=function)
    right = gradients(wanted, X)
    torch.testing.assert_close(got[:2], right[:2], rtol=1e-5, atol=1e-6)
    names = [name for name, _ in model.named_parameters()]
    of = dict(zip(names, got[2:], strict=True))
    for (name, _), other in zip(wanted.named_parameters(), right[2:], strict=True):
        torch.testing.assert_close(of[name], other, rtol=1e-5, atol=1e-6)


def test_a_module_that_is_given_is_copied():
    model = network()
    sk.swap(model, PROTOTYPE, where="relu", example_inputs=X)
    first, second = (one.softknee_0 for one in model.blocks)
    assert first is not second
    assert PROTOTYPE not in (first, second)


def test_instances_are_separate_or_shared():
    act = nn.ReLU()
    for shared, count in ((False, 3), (True, 1)):
        model = nn.Sequential(
            linear(4, 4), act, linear(4, 4), act, Written(lambda s, x: F.relu(s.a(x)), a=linear(4, 4))
        )
        model.append(linear(4, 1))
        _, report = sk.swap(model, "swish", example_inputs=X, shared=shared)
        assert [change.path for change in report.changed] == ["1", "3", "4.softknee_0"]
        assert len({model[1], model[3], model[4].softknee_0}) == count
        assert report.added_parameters == count
        sk.unswap(model)
        assert model[1] is model[3] is act


def test_an_instance_that_is_called_twice_becomes_two_that_take_turns():
    def build(first, second):
        def forward(s, x):
            return s.out(second(s.layer(first(s.layer(x)))))

        return Written(forward, layer=linear(4, 4), out=linear(4, 2))

    model = build(lambda x: model.act(x), lambda x: model.act(x))
    model.act = nn.ReLU()
    _, report = sk.swap(model, lambda site: ["softplus", "tanh"][site.call], example_inputs=X)
    assert [change.path for change in report.changed] == ["act.0", "act.1"]
    same(model, build(F.softplus, torch.tanh))
    for _ in range(3):
        model(X)
    same(model, build(F.softplus, torch.tanh))
    sk.unswap(model)
    # One of them only.
    _, report = sk.swap(model, "tanh", where="act#1", example_inputs=X)
    same(model, build(F.relu, torch.tanh))
    sk.unswap(model)
    # One for both.
    _, report = sk.swap(model, "tanh", shared=True, example_inputs=X)
    assert isinstance(model.act, sk.nn.Tanh)
    same(model, build(torch.tanh, torch.tanh))


def test_more_calls_than_at_the_swap_are_an_error():
    def forward(s, x, times=2):
        for _ in range(times):
            x = s.act(s.layer(x))
        return x + 1

    model = Written(forward, layer=linear(4, 4), act=nn.ReLU())
    sk.swap(model, "silu", example_inputs=X)
    with pytest.raises(UsageError, match="^an activation is called 3 times here, but was called 2 times at the swap$"):
        model(X, 3)
    assert model(X, 1).shape == X.shape
    with pytest.raises(
        UsageError, match="^activations that take turns at act act in the forward of their module only$"
    ):
        model.act(X)


def test_an_instance_that_two_modules_call_is_replaced_once_for_both():
    class Caller(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.layer = linear(4, 4)
            # Not registered here, as in code that passes activations around.
            self.__dict__["act"] = act

        def forward(self, x):
            return self.act(self.layer(x))

    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.one, self.two = Caller(self.act), Caller(self.act)

        def forward(self, x):
            return self.two(self.one(x)) + 1

    model = Parent()
    assert [(site.path, site.place.owner, site.shared) for site in sk.sites(model, X)] == [
        ("act", "one", True),
        ("act", "two", True),
    ]
    before = state(model)
    # It is called by a reference that no swap can change.
    with pytest.raises(
        UsageError, match=r"^what was put in the place of act \(relu\) does not run; nothing was changed$"
    ):
        sk.swap(model, "silu", example_inputs=X)
    assert state(model) == before


def test_per_channel():
    model = nn.Sequential(
        nn.Conv1d(4, 6, 1), nn.ReLU(), nn.Conv1d(6, 3, 1), Written(lambda s, x: F.relu(x.mT) + 1, a=nn.Linear(1, 1))
    )
    x = numbers(2, 4, 5)
    _, report = sk.swap(model, "prelu", example_inputs=x, per_channel=True)
    assert [model.get_submodule(change.path).slope.shape for change in report.changed] == [(6,), (3,)]
    assert report.added_parameters == 9
    with torch.no_grad():
        model[1].slope.copy_(torch.linspace(0, 1, 6))
        model[3].softknee_0.slope.copy_(torch.linspace(0, 1, 3))
    wanted = F.prelu(model[0](x), torch.linspace(0, 1, 6))
    wanted = F.prelu(model[2](wanted).mT.flatten(0, 1), torch.linspace(0, 1, 3)).view(2, 5, 3) + 1
    torch.testing.assert_close(model(x), wanted)


def test_a_gated_pair_by_a_gated_pair():
    model = nn.Sequential(linear(4, 8), nn.GLU(), Written(lambda s, x: F.glu(s.a(x)) + 1, a=linear(4, 8)))
    sk.swap(model, "swiglu", where="glu", example_inputs=X)
    a, b = model[0](X).chunk(2, -1)
    h = sk.create("swiglu")(torch.cat([a, b], -1))
    torch.testing.assert_close(model(X), sk.create("swiglu")(model[2].a(h)) + 1)


def test_a_swap_can_be_swapped():
    model = network()
    sk.swap(model, "tanh", where="relu", example_inputs=X)
    assert [site.path for site in sk.sites(model, X) if site.kind == "tanh"] == [
        "blocks.0.softknee_0",
        "blocks.0.act",
        "blocks.1.softknee_0",
        "blocks.1.act",
    ]
    sk.swap(model, "softplus", where="blocks.*.softknee_0", example_inputs=X)
    # And what the module still calls itself is counted as before.
    sk.swap(model, "mish", where="gelu", example_inputs=X)
    same(model, network(first=F.softplus, second=F.mish))


def test_without_an_example_modules_are_replaced():
    model = network()
    _, report = sk.swap(model, "softplus")
    assert [change.path for change in report.changed] == ["blocks.0.act", "blocks.1.act", "act"]
    assert report.difference is None
    assert [one.reason for one in report.missed] == ["functions are only seen with an example of the model's inputs"]


def test_a_model_that_is_an_activation_is_returned_anew():
    for example in (None, X):
        model, _ = sk.swap(nn.ReLU(), "silu", where=lambda site: True, example_inputs=example)
        torch.testing.assert_close(model(X), F.silu(X))
        restored = sk.unswap(model)
        assert type(restored) is nn.ReLU
        assert torch.equal(restored(X), F.relu(X))


@pytest.mark.parametrize(
    "example", [X, (X,), [X], {"x": X}], ids=["a tensor", "a tuple", "a list", "a dictionary of names"]
)
def test_examples(example):
    class Model(nn.Module):
        def forward(self, x):
            return F.relu(x) + 1

    model = Model()
    sk.swap(model, "silu", example_inputs=example)
    torch.testing.assert_close(model(X), F.silu(X) + 1)


def test_the_report():
    model = network()
    before = model(X)
    _, report = sk.swap(model, "swish[beta=2]", where=["relu", "silu"], example_inputs=X)
    assert report.difference == float((model(X) - before).abs().max())
    assert report.added_parameters == 3
    lines = repr(report).splitlines()
    assert lines[0].split() == ["place", "was", "is", "now", "at", "error"]
    assert lines[1].split()[:2] == ["blocks.0#0", "relu"]
    assert lines[4] == "3 changed, 8 left, 0 not seen or not changed; +3 parameters"
    assert lines[5] == f"largest difference of the outputs: {report.difference:.3g}"
    assert lines[6] == "left: blocks.0.act: tanh (pair)"
    page = report._repr_html_()
    assert page.startswith("<table><tr><th>place</th>")
    assert "<p>left: blocks.0.act: tanh (pair)</p>" in page
    # Every site is somewhere.
    assert len(report.changed) + len(report.left) == len(sk.sites(network(), X))


def test_names_in_the_state_dict_of_what_is_not_replaced_stay():
    model = network(act=nn.PReLU)
    before = list(model.state_dict())
    _, report = sk.swap(model, "swish", example_inputs=X)
    after = list(model.state_dict())
    assert [name for name in before if name not in after] == ["act.weight"]
    assert {name for name in after if name not in before} == {f"{change.path}.beta" for change in report.changed}
    assert report.added_parameters == len(report.changed) - 1


def test_new_activations_take_on_dtype_and_mode():
    model = network().double().eval()
    _, report = sk.swap(model, "swish", example_inputs=X.double())
    for change in report.changed:
        new = model.get_submodule(change.path)
        assert new.beta.dtype == torch.float64
        assert not new.training
    assert model(X.double()).dtype == torch.float64


def test_a_module_of_which_functions_are_replaced_keeps_what_it_is():
    model = network()
    sk.swap(model, "silu", where="relu", example_inputs=X)
    one = model.blocks[0]
    assert isinstance(one, Written)
    assert type(one).__name__ == "Written"
    assert type(one).__module__ == Written.__module__
    assert repr(one).startswith("Written(")
    assert kinds(sk.sites(one, X))[0] == "silu"
    # Another model of the class is as it was.
    assert type(block()) is Written
    assert kinds(sk.sites(block(), X))[0] == "relu"
