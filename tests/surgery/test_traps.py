"""Hooks, checkpoints, compilers, kernels, threads: what hides an activation, or runs it otherwise than once."""

from __future__ import annotations

import copy
import sys
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from written import Written, gradients, kinds, linear, numbers, state

import softknee as sk
from softknee import UsageError


def test_a_full_backward_hook_still_works():
    model, x = nn.Sequential(linear(4, 4), nn.ReLU(), linear(4, 1)), numbers(5, 4)
    seen_gradients = []
    model[1].register_full_backward_hook(lambda *_: seen_gradients.append("old"))
    model[0].register_full_backward_hook(lambda *_: seen_gradients.append("layer"))
    sk.sites(model, x)
    assert seen_gradients == []
    sk.swap(model, "silu", example_inputs=x)
    model(x).sum().backward()
    assert seen_gradients == ["layer"]
    sk.unswap(model)(x).sum().backward()
    assert seen_gradients == ["layer", "old", "layer"]


def test_hooks_of_the_user_see_what_they_saw():
    log = []
    model = nn.Sequential(Written(lambda s, x: F.gelu(s.layer(x)), layer=linear(4, 4)), nn.ReLU(), linear(4, 1))
    model[0].register_forward_hook(lambda module, args, output: log.append(("after", output.detach())))
    model[0].layer.register_forward_pre_hook(lambda module, args: log.append(("before", args[0].detach())))
    x = numbers(5, 4)
    sk.swap(model, "softplus", where="gelu", example_inputs=x)
    log.clear()
    model(x)
    assert [name for name, _ in log] == ["before", "after"]
    torch.testing.assert_close(log[0][1], x)
    torch.testing.assert_close(log[1][1], F.softplus(model[0].layer(x)).detach())


class Checkpointed(nn.Module):
    def __init__(self, activation, reentrant, how):
        super().__init__()
        self.first, self.block = linear(4, 4), Written(lambda s, x: activation(s.layer(x)), layer=linear(4, 4, 2))
        self.act, self.activation = nn.Tanh(), activation
        self.reentrant, self.how = reentrant, how

    def forward(self, x):
        x = self.activation(self.first(x))
        return checkpoint(getattr(self, self.how), x, use_reentrant=self.reentrant).sum(-1, keepdim=True)

    def part(self, x):
        return self.activation(self.first(x))

    def part_with_module(self, x):
        return self.act(self.first(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_module_runs_its_new_activation_again(reentrant):
    x = numbers(5, 4)
    model = Checkpointed(F.relu, reentrant, "block")
    assert [site.times for site in sk.sites(model, x) if site.times] == [1, 1]
    sk.swap(model, "softplus", where="relu", example_inputs=x)
    calls = []
    model.block.softknee_0.register_forward_pre_hook(lambda *_: calls.append(1))
    for one, other in zip(gradients(model, x), gradients(Checkpointed(F.softplus, reentrant, "block"), x), strict=True):
        torch.testing.assert_close(one, other)
    assert len(calls) == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_function_in_a_checkpointed_function_is_refused(reentrant):
    x = numbers(5, 4)
    model = Checkpointed(F.relu, reentrant, "part")
    before = state(model)
    reason = (
        "relu: it is called inside a checkpointed function, which runs again without its module; "
        "put it into a module of its own"
    )
    assert [one.reason for one in sk.sites(model, x).unseen if one.site] == [reason]
    with pytest.raises(
        UsageError, match="1 of 2 activations cannot be changed, first model#1: relu: it is called insid"
    ):
        sk.swap(model, "softplus", where="relu", example_inputs=x)
    assert state(model) == before
    _, report = sk.swap(model, "softplus", where="relu", example_inputs=x, strict=False)
    assert [change.site.name for change in report.changed] == ["model#0"]
    assert reason in [one.reason for one in report.missed]
    plain = Written(lambda s, x: F.relu(s.a(F.softplus(s.a(x)))).sum(-1, keepdim=True), a=linear(4, 4))
    for one, other in zip(gradients(model, x)[:4], gradients(plain, x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_module_in_a_checkpointed_function_is_replaced_if_it_is_called_once(reentrant):
    x = numbers(5, 4)
    model = Checkpointed(F.relu, reentrant, "part_with_module")
    sk.swap(model, "softplus", where="tanh", example_inputs=x)
    plain = Written(lambda s, x: F.softplus(s.a(F.relu(s.a(x)))).sum(-1, keepdim=True), a=linear(4, 4))
    for one, other in zip(gradients(model, x)[:4], gradients(plain, x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reentrant", [False, True])
def test_and_refused_if_several_would_take_turns(reentrant):
    def forward(s, x):
        return checkpoint(lambda h: s.act(s.layer(h)), s.act(s.layer(x)), use_reentrant=reentrant) + 1

    model, x = Written(forward, layer=linear(4, 4), act=nn.ReLU()), numbers(5, 4)
    with pytest.raises(
        UsageError, match="2 of 2 activations cannot be changed, first act: relu: it is called inside a c"
    ):
        sk.swap(model, "swish", example_inputs=x)


def test_a_compiled_model_is_looked_at_as_written_but_not_changed():
    model, x = nn.Sequential(linear(4, 4), nn.ReLU(), linear(4, 1)), numbers(5, 4)
    compiled = torch.compile(model, backend="eager")
    before = compiled(x)
    found = sk.sites(compiled, x)
    assert kinds(found) == ["relu"]
    assert torch.equal(compiled(x), before)
    for one, name in ((compiled, "the model"), (nn.Sequential(compiled), "0")):
        with pytest.raises(UsageError, match=f"^{name} is compiled already; swap first, then compile$"):
            sk.swap(one, "silu", example_inputs=x)
    inner = nn.Sequential(compiled, nn.Tanh())
    assert [(one.path, one.reason) for one in sk.sites(inner, x).unseen] == [
        ("0", "it is compiled; it was looked at as it runs without the compiler")
    ]
    model.compile(backend="eager")
    with pytest.raises(UsageError, match="^the model is compiled already; swap first, then compile$"):
        sk.swap(model, "silu", example_inputs=x)


def test_a_function_in_a_compiled_function_is_refused():
    inner = torch.compile(lambda h: F.relu(h) + 1, backend="eager")
    model, x = Written(lambda s, x: inner(s.layer(x)), layer=linear(4, 4)), numbers(5, 4)
    model(x)
    with pytest.raises(UsageError, match="it is called inside a compiled function; swap before compiling"):
        sk.swap(model, "softplus", example_inputs=x)


def test_a_scripted_part_is_named_and_the_rest_is_found():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    model, x = nn.Sequential(scripted, nn.Tanh(), linear(4, 1)), numbers(5, 4)
    found = sk.sites(model, x)
    assert kinds(found) == ["tanh"]
    assert [(one.path, one.reason) for one in found.unseen] == [
        ("0", "it is scripted, and its code cannot be looked into; use the module it was made from")
    ]
    _, report = sk.swap(model, "relu", example_inputs=x)
    assert len(report.missed) == 1
    torch.testing.assert_close(model(x), model[2](F.relu(scripted(x))))


ENCODERS = {
    "function": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "module": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation=nn.ReLU()),
    "gelu": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu"),
    "norm first": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True),
}


def softplus(layer):
    """The same layer as if it had been made with another activation."""
    layer = copy.deepcopy(layer)
    layer.activation_relu_or_gelu = 0
    layer.activation = nn.Softplus() if isinstance(layer.activation, nn.Module) else F.softplus
    return layer


@pytest.mark.parametrize("name", ENCODERS)
def test_the_fast_path_of_an_encoder_layer_hides_no_activation(name):
    torch.manual_seed(0)
    layer = ENCODERS[name]().eval()
    x = numbers(2, 5, 8)
    with torch.no_grad():
        fast = layer(x)
        found = sk.sites(layer, x)
        assert torch.equal(layer(x), fast)
    assert kinds(found) == ["gelu" if name == "gelu" else "relu"]
    assert torch.backends.mha.get_fastpath_enabled()
    wanted = softplus(layer)(x)
    sk.swap(layer, "softplus", example_inputs=x)
    torch.testing.assert_close(layer(x), wanted)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), wanted)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), wanted)
    sk.unswap(layer)
    with torch.no_grad():
        assert torch.equal(layer(x), fast)


@pytest.mark.parametrize("name", ["function", "module"])
def test_nor_does_that_of_a_stack_of_them_with_padding(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.TransformerEncoder(ENCODERS[name](), 2).eval()
        x = numbers(2, 5, 8)
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        call = {"src": x, "src_key_padding_mask": padding}
        wanted = copy.deepcopy(model)
        wanted.layers, wanted.use_nested_tensor = nn.ModuleList(map(softplus, model.layers)), False
        assert kinds(sk.sites(model, **call)) == ["relu", "relu"]
        sk.swap(model, "softplus", example_inputs=call)
        for context in (torch.enable_grad(), torch.no_grad()):
            with context:
                got, right = model(**call), wanted(**call)
            torch.testing.assert_close(got[~padding], right[~padding])
        sk.unswap(model)
        assert model.use_nested_tensor


def test_other_threads_do_not_mix_with_a_look():
    model, x = nn.Sequential(linear(4, 4), nn.ReLU(), linear(4, 1)), numbers(5, 4)
    halt = threading.Event()

    def run():
        while not halt.is_set():
            model(x)

    other = threading.Thread(target=run)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other.start()
    try:
        for _ in range(20):
            found = sk.sites(model, x)
            assert [(site.path, site.times) for site in found] == [("1", 1)]
    finally:
        halt.set()
        other.join()
        sys.setswitchinterval(interval)


def test_a_swapped_model_may_run_in_several_threads():
    def forward(s, x):
        return s.act(s.layer(s.act(F.gelu(s.layer(x))))) + 1

    model, x = Written(forward, layer=linear(4, 4), act=nn.ReLU()), numbers(5, 4)
    sk.swap(
        model, lambda site: {"relu": ["softplus", "tanh"], "gelu": ["silu"]}[site.kind][site.call], example_inputs=x
    )
    wanted = model(x)
    wrong = []

    def run():
        try:
            wrong.extend(1 for _ in range(100) if not torch.equal(model(x), wanted))
        except Exception as error:  # shown below
            wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert wrong == []


def test_replicas_as_data_parallel_makes_them_work():
    def forward(s, x):
        return s.act(s.layer(s.act(F.gelu(s.layer(x))))) + 1

    model, x = Written(forward, layer=linear(4, 4), act=nn.ReLU()), numbers(5, 4)
    sk.swap(model, "swish", example_inputs=x)
    replica = model._replicate_for_data_parallel()
    for name, child in model._modules.items():
        replica._modules[name] = child
    assert torch.equal(replica(x), model(x))
    wrapped = nn.DataParallel(model)
    assert torch.equal(wrapped(x), model(x))
    with pytest.raises(UsageError, match="wrapped in DataParallel; swap first, then wrap$"):
        sk.swap(wrapped, "silu", example_inputs=x)


def test_classes_that_register_their_subclasses_are_not_told():
    names = []

    class Base(nn.Module):
        def __init_subclass__(cls, *, needed, **rest):
            names.append(cls.__name__)

    class First(Base, needed=True):
        def forward(self, x):
            return F.relu(x) + 1

    model = First()
    sk.swap(model, "softplus", example_inputs=numbers(3, 4))
    assert names == ["First"]
    assert isinstance(model, First)
    assert type(model).__name__ == "First"


class Lazy(nn.Sequential):
    """Calls a function, and all its parts, which must not become more."""

    def forward(self, x):
        return F.relu(super().forward(x)) + 1


def test_a_function_that_a_container_calls_is_refused():
    model, x = nn.Sequential(Lazy(linear(4, 4), nn.Tanh()), linear(4, 1)), numbers(5, 4)
    reason = "relu: its module is a container, whose parts may all be run; call it in another module"
    assert [(one.path, one.reason) for one in sk.sites(model, x).unseen] == [("0", reason)]
    _, report = sk.swap(model, "softplus", example_inputs=x, strict=False)
    assert [change.path for change in report.changed] == ["0.1"]
    torch.testing.assert_close(model(x), model[1](F.relu(F.softplus(model[0][0](x))) + 1))


def test_lazy_layers_must_have_run():
    model, x = nn.Sequential(nn.LazyLinear(4), nn.ReLU()), numbers(5, 4)
    for call in (lambda: sk.sites(model, x), lambda: sk.swap(model, "silu", example_inputs=x)):
        with pytest.raises(
            UsageError, match="^0.weight has no shape yet; run the model once, so that its lazy layers are"
        ):
            call()
    model(x)
    assert kinds(sk.sites(model, x)) == ["relu"]


def _noise_before(s, x):
    if s.training:
        x = x * (1 + 0.1 * torch.ones_like(x))
    return x * torch.sigmoid(x) + 1


def _noise_between(s, x):
    gate, noise = torch.sigmoid(x), 1
    if s.training:
        noise = s.layer(x) * torch.ones_like(x)
    return x * gate + noise


@pytest.mark.parametrize("function", [_noise_before, _noise_between])
def test_an_expression_is_not_mistaken_where_the_code_takes_another_way(function):
    model, x = Written(lambda s, x: function(s, s.layer(x)), layer=linear(4, 4)).eval(), numbers(5, 4)
    sk.swap(model, "softplus", example_inputs=x)
    torch.testing.assert_close(model(x), F.softplus(model.layer(x)) + 1)
    with pytest.raises(
        UsageError,
        match="^Written does not call the functions that it called at the swap; swap with an example in the same mode",
    ):
        model.train()(x)
