from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, X, gradients, linear, network, state, title

import softknee as sk
from softknee import UsageError

WHERE = [None, "relu", "act", "blocks.*.act", lambda site: True, ["gate", "normaliser", "output"]]


@pytest.mark.parametrize("where", WHERE, ids=title)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_model_is_afterwards_as_before_to_the_byte(where, per_channel):
    model = network(act=nn.PReLU)
    gradients(model, X)
    before, output, text = state(model), gradients(model, X), repr(model)
    if where is not None and not isinstance(where, str):
        per_channel = False
    _, report = sk.swap(model, "swish", where=where, example_inputs=X, per_channel=per_channel)
    assert report.changed
    assert state(model) != before
    assert sk.unswap(model) is model
    assert state(model) == before
    assert repr(model) == text
    assert all(torch.equal(one, other) for one, other in zip(gradients(model, X), output, strict=True))
    with pytest.raises(UsageError, match="^Written was not swapped, so there is nothing to undo$"):
        sk.unswap(model)


def test_several_swaps_are_undone_in_order():
    model = network(act=nn.PReLU)
    states, outputs = [state(model)], [model(X)]
    for to, where in [("swish", "relu"), ("tanh", "prelu"), ("mish", "gelu"), ("softplus", "swish"), ("elu", "tanh")]:
        sk.swap(model, to, where=where, example_inputs=X)
        states.append(state(model))
        outputs.append(model(X))
    for wanted, output in zip(reversed(states[:-1]), reversed(outputs[:-1]), strict=True):
        sk.unswap(model)
        assert torch.equal(model(X), output)
        # The list of swaps itself is another one.
        assert state(model) == wanted


def test_a_part_that_was_swapped_is_undone_by_itself():
    model = network()
    before = state(model)
    sk.swap(model, "tanh", where="relu", example_inputs=X)
    inner = state(model)
    sk.swap(model.blocks[0], "swish", where="gelu", example_inputs=X)
    sk.unswap(model.blocks[0])
    assert state(model) == inner
    sk.unswap(model)
    assert state(model) == before


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_a_copy_is_undone_by_itself(how):
    model = network(act=nn.PReLU)
    output = model(X)
    sk.swap(model, "swish[beta=2]", where=["relu", "prelu"], example_inputs=X)
    changed = model(X)
    double = twin(model, how)
    assert torch.equal(double(X), changed)
    assert type(double.blocks[0]).__name__ == "Written"
    with torch.no_grad():
        model.blocks[0].softknee_0.beta.fill_(5)
    assert torch.equal(double(X), changed)
    restored = sk.unswap(double)
    assert torch.equal(restored(X), output)
    assert type(restored.blocks[0]) is Written
    assert list(restored.state_dict()) == list(network(act=nn.PReLU).state_dict())
    # The original is still swapped.
    assert not torch.equal(model(X), output)
    assert torch.equal(sk.unswap(model)(X), output)


def first(s, x):
    for one in s.blocks:
        x = one(x)
    return torch.softmax(s.head(s.act(x)), -1).sigmoid()


def inner(s, x):
    h = F.relu(s.layer(x))
    return s.act(s.out(h)) * torch.sigmoid(s.gate(x)) + F.gelu(h)


def twin(model, how):
    if how == "deepcopy":
        return copy.deepcopy(model)
    # Pickle takes functions by their names only.
    model.function = first
    for one in model.blocks:
        one.function = inner
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_what_comes_back_follows_the_model():
    act = nn.PReLU(4, init=0.3)
    model = nn.Sequential(
        linear(4, 4), act, nn.RReLU(), Written(lambda s, x: F.relu(s.a(x)), a=linear(4, 4)), linear(4, 1)
    )
    sk.swap(model, "swish", example_inputs=X)
    model.double().eval()
    sk.unswap(model)
    assert act.weight.dtype == torch.float64
    assert not model[2].training
    torch.testing.assert_close(model(X.double()).float(), copy.deepcopy(model).float()(X))


def test_modes_that_were_not_changed_since_stay():
    model = nn.Sequential(linear(4, 4), nn.RReLU().eval(), linear(4, 1)).train()
    before = state(model)
    sk.swap(model, "swish", example_inputs=X)
    sk.unswap(model)
    assert state(model) == before


def test_weights_trained_meanwhile_stay():
    model = network()
    sk.swap(model, "swish", where="relu", example_inputs=X)
    torch.optim.SGD(model.parameters(), 0.1).zero_grad()
    model(X).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    weight = model.blocks[0].layer.weight.clone()
    sk.unswap(model)
    assert torch.equal(model.blocks[0].layer.weight, weight)


def test_only_our_hooks_are_removed():
    calls = []
    model = network()
    model.blocks[0].layer.register_forward_hook(lambda *_: calls.append("before"))
    sk.swap(model, "swish", where="relu", example_inputs=X)
    model.blocks[0].layer.register_forward_hook(lambda *_: calls.append("after"))
    sk.unswap(model)
    calls.clear()
    model(X)
    assert calls == ["before", "after"]
    count = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    assert count == 2
    assert not any(module._forward_hooks_always_called for module in model.modules())


def test_what_cannot_be_undone_is_refused():
    for model in (3, network(), nn.DataParallel(network())):
        with pytest.raises(UsageError, match=f"^{type(model).__name__} was not swapped, so there is nothing to undo$"):
            sk.unswap(model)


def test_a_model_that_lost_a_part_since_is_refused():
    model = network()
    sk.swap(model, "swish", example_inputs=X)
    removed, model.blocks[1].act = model.blocks[1].act, None
    before = state(model)
    with pytest.raises(UsageError, match=r"^blocks\.1\.act is gone since the swap; undo first what was done after it$"):
        sk.unswap(model)
    assert state(model) == before
    model.blocks[1].act = removed
    sk.unswap(model)


def test_a_module_that_got_another_class_since_is_refused():
    model = Written(lambda s, x: F.relu(x @ s.weight) + 1, weight=nn.Parameter(torch.eye(4)))
    sk.swap(model, "softplus", example_inputs=X)
    torch.nn.utils.parametrize.register_parametrization(model, "weight", nn.Identity())
    torch.testing.assert_close(model(X), F.softplus(X) + 1)
    with pytest.raises(
        UsageError, match="^the model is now a ParametrizedWritten since the swap; undo first what was done after it$"
    ):
        sk.unswap(model)
    torch.nn.utils.parametrize.remove_parametrizations(model, "weight")
    assert type(sk.unswap(model)) is Written


def test_a_parametrization_from_before_stays():
    model = Written(lambda s, x: F.relu(x @ s.weight) + 1, weight=nn.Parameter(torch.eye(4)))
    torch.nn.utils.parametrize.register_parametrization(model, "weight", nn.Softplus())
    # What acts on the weight alone is no activation of the model.
    assert [site.kind for site in sk.sites(model, X) if site.times] == ["relu"]
    kind, wanted = type(model), X @ F.softplus(torch.eye(4))
    sk.swap(model, "tanh", where="relu", example_inputs=X)
    torch.testing.assert_close(model(X), wanted.tanh() + 1)
    assert type(sk.unswap(model)) is kind
    torch.testing.assert_close(model(X), wanted.relu() + 1)


def test_a_failed_swap_leaves_earlier_ones():
    model = network()
    sk.swap(model, "tanh", where="relu", example_inputs=X)
    before, output = state(model), model(X)
    with pytest.raises(UsageError):
        sk.swap(model, nn.Linear(5, 5), where="gelu", example_inputs=X)
    assert state(model) == before
    assert torch.equal(model(X), output)
    sk.unswap(model)
    torch.testing.assert_close(model(X), network()(X))
