from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, kinds, linear, numbers, seen

import softknee as sk
from softknee import UsageError

TABLE = {"relu": F.relu, "gelu": F.gelu}
FORMS = {
    "F.relu": (lambda s, x: F.relu(x), "relu"),
    "F.relu by name": (lambda s, x: F.relu(input=x), "relu"),
    "F.relu in place": (lambda s, x: F.relu(x * 1, inplace=True), "relu"),
    "torch.relu": (lambda s, x: torch.relu(x), "relu"),
    "torch.relu_": (lambda s, x: torch.relu_(x * 1), "relu"),
    "torch.sigmoid by name": (lambda s, x: torch.sigmoid(input=x), "sigmoid"),
    "x.relu()": (lambda s, x: x.relu(), "relu"),
    "x.relu_()": (lambda s, x: (x * 1).relu_(), "relu"),
    "clamp as ReLU6": (lambda s, x: x.clamp(0, 6), "relu6"),
    "clamp as ReLU": (lambda s, x: torch.clamp(x, min=0.0), "relu"),
    "clamp_min as ReLU": (lambda s, x: x.clamp_min(0), "relu"),
    "F.relu6": (lambda s, x: F.relu6(x), "relu6"),
    "hardtanh as ReLU6": (lambda s, x: F.hardtanh(x, 0, 6), "relu6"),
    "gelu": (lambda s, x: F.gelu(x), "gelu"),
    "gelu, tanh": (lambda s, x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
    "silu": (lambda s, x: F.silu(x), "silu"),
    "mish": (lambda s, x: F.mish(x), "mish"),
    "elu": (lambda s, x: F.elu(x), "elu"),
    "leaky_relu": (lambda s, x: F.leaky_relu(x, 0.2), "leaky_relu"),
    "softplus": (lambda s, x: F.softplus(x), "softplus"),
    "hardswish": (lambda s, x: F.hardswish(x), "hardswish"),
    "logsigmoid": (lambda s, x: F.logsigmoid(x), "log_sigmoid"),
    "expit": (lambda s, x: torch.special.expit(x), "sigmoid"),
    "tanh": (lambda s, x: x.tanh(), "tanh"),
    "glu": (lambda s, x: F.glu(x), "glu"),
    "rrelu": (lambda s, x: F.rrelu(x, training=s.training), "rrelu"),
    "attribute": (lambda s, x: s.act(x), "relu"),
    "dictionary": (lambda s, x: TABLE["gelu"](x), "gelu"),
    "sin of a layer": (lambda s, x: torch.sin(30 * x), "sin"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_function_is_seen_however_it_is_called(form):
    function, kind = FORMS[form]
    model = Written(lambda s, x: function(s, s.layer(x)) + 1, layer=linear(4, 4))
    model.act = F.relu
    x = numbers(3, 4)
    (site,) = sk.sites(model, x)
    assert (site.path, site.call, site.kind, site.role, site.how) == ("", 0, kind, "activation", "function")
    assert (site.shape, site.unit_axis, site.units) == ((3, 4), 1, 4)
    assert site.result == ((3, 2) if kind == "glu" else (3, 4))
    assert (site.times, site.shared, site.name) == (1, False, "model#0")
    inner = model.layer(x).detach() * (30 if kind == "sin" else 1)
    assert (site.low, site.high) == (float(inner.min()), float(inner.max()))


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: x.clamp(-1, 5),
        lambda s, x: x.clamp(min=1e-6),
        lambda s, x: x / x.square().mean(-1, keepdim=True).sqrt(),
        lambda s, x: x + torch.sin(torch.arange(4) * 1.0),
        lambda s, x: F.dropout(x, 0.5, training=False),
        lambda s, x: x * s.scale,
        lambda s, x: x.abs().log1p(),
        lambda s, x: (x > 0).float(),
        lambda s, x: torch.relu(torch.arange(4)) + x,
    ],
)
def test_what_is_no_activation_is_none(function):
    model = Written(lambda s, x: function(s, s.layer(x)) + 1, layer=linear(4, 4), scale=nn.Parameter(torch.ones(4)))
    assert seen(sk.sites(model, numbers(3, 4))) == []


@pytest.mark.parametrize("size", [1, 4])
def test_a_function_of_weights_alone_is_none(size):
    def forward(s, x):
        return torch.relu(s.layer(x) * F.softplus(s.weight) + torch.tanh(s.buffer.exp())) + 1

    model = Written(forward, layer=linear(3, 4), weight=nn.Parameter(torch.zeros(size)))
    model.register_buffer("buffer", torch.zeros(size))
    assert kinds(sk.sites(model, numbers(5, 3))) == ["relu"]


class Swoosh(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(3 * x)


class PerChannel(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.1, 0.9, channels))

    def forward(self, x):
        slope = self.slope.view(-1, *[1] * (x.dim() - 2))
        return torch.where(x > 0, x, slope * x)


class Half(nn.Module):
    def forward(self, x):
        gate, value = x.chunk(2, dim=-1)
        return F.relu(gate) * value


class Louder(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x).square()


class Wide(nn.Hardtanh):
    pass


class Norm(nn.Module):
    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class Scale(nn.Module):
    def forward(self, x):
        return 2 * x + 1


class Mix(nn.Module):
    def forward(self, x):
        return x + x.roll(1, -1).tanh()


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU6(), "relu6"),
        (nn.GELU(), "gelu"),
        (nn.GELU("tanh"), "gelu_tanh"),
        (nn.PReLU(8), "prelu"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.Hardtanh(0, 6), "relu6"),
        (nn.Threshold(0, 0), "relu"),
        (nn.LogSigmoid(), "log_sigmoid"),
        (nn.Hardshrink(), "magnitude_threshold"),
        (nn.GLU(), "glu"),
        (nn.Softmax(-1), "softmax"),
        (sk.nn.Mish(), "mish"),
        (sk.create("swish", beta=1.5), "swish"),
        (sk.create("swiglu"), "swiglu"),
        (sk.create("x * sigmoid(b*x)", b=2.0), None),
        (Swoosh(), "Swoosh"),
        (PerChannel(8), "PerChannel"),
        (Half(), "Half"),
        (Louder(), "Louder"),
        (Wide(-3, 3), "hardtanh"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_module_is_seen_by_what_it_does(module, kind):
    model = nn.Sequential(linear(5, 8), module, nn.LayerNorm([8 if module(numbers(2, 8)).shape[-1] == 8 else 4]))
    (site,) = sk.sites(model, numbers(3, 5))
    assert (site.path, site.call, site.how, site.name) == ("1", 0, "module", "1")
    assert site.kind == (kind or site.kind)
    if not isinstance(module, Half | PerChannel):
        # And so without an example, if it needs no certain number of channels.
        assert [one.path for one in sk.sites(model)] == ["1"]


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(), nn.LayerNorm(8), Norm(), Scale(), Mix(), nn.Flatten()])
def test_a_module_that_is_no_activation_is_none(module):
    model = nn.Sequential(linear(5, 8), module, linear(8, 2))
    assert (
        kinds(sk.sites(model.train(), numbers(3, 5)))
        == kinds(sk.sites(model.eval(), numbers(3, 5)))
        == (
            # An activation among others is one.
            ["tanh"] if isinstance(module, Mix) else []
        )
    )


def test_calls_come_in_order_with_their_paths_and_numbers():
    def block(s, x):
        x = s.act(F.gelu(s.layer(x)))
        return F.gelu(x) + F.relu(x)

    blocks = [Written(block, layer=linear(4, 4, seed), act=nn.Tanh()) for seed in range(2)]
    model = nn.Sequential(*blocks, linear(4, 2), nn.Sigmoid())
    wanted = [
        (path, call, kind, "activation", how)
        for block in "01"
        for path, call, kind, how in [
            (block, 0, "gelu", "function"),
            (f"{block}.act", 0, "tanh", "module"),
            (block, 1, "gelu", "function"),
            (block, 2, "relu", "function"),
        ]
    ]
    assert seen(sk.sites(model, numbers(3, 4))) == [*wanted, ("3", 0, "sigmoid", "output", "module")]


@pytest.mark.parametrize(
    ("forward", "roles"),
    [
        (lambda s, x: F.silu(s.a(x)) * s.b(x) + 1, ["pair"]),
        (lambda s, x: s.b(x) * F.relu(s.a(x)) + 1, ["pair"]),
        (lambda s, x: torch.sigmoid(s.a(x)) * s.b(x) + 1, ["gate"]),
        (lambda s, x: x * torch.sigmoid(s.a(x).mean(-1, keepdim=True)) + 1, ["gate"]),
        (lambda s, x: x * F.hardsigmoid(s.a(x)).unsqueeze(0)[0] + 1, ["gate"]),
        (lambda s, x: s.a(F.relu(x) * s.scale), ["activation"]),
        (lambda s, x: F.relu(x) * x.mean() + 1, ["activation"]),
        (lambda s, x: torch.tanh(s.a(F.relu(x))), ["activation", "output"]),
        (lambda s, x: {"logits": torch.sigmoid(s.a(x)).flatten()}, ["output"]),
        (lambda s, x: torch.softmax(s.a(x), -1), ["normaliser"]),
        (lambda s, x: torch.softmax(s.a(x), -1) @ x.T, ["normaliser"]),
    ],
)
def test_roles(forward, roles):
    model = Written(forward, a=linear(4, 4), b=linear(4, 4, 1), scale=nn.Parameter(torch.ones(4)))
    assert [site.role for site in sk.sites(model, numbers(3, 4))] == roles


def test_a_module_that_runs_several_times_is_one_site():
    block = Written(lambda s, x: F.relu(s.layer(x)), layer=linear(4, 4))
    model = Written(lambda s, x: s.block(s.block(s.block(x))) + 1, block=block)
    x = numbers(3, 4)
    (site,) = sk.sites(model, x)
    inputs = []
    handle = block.layer.register_forward_hook(lambda _, __, output: inputs.append(output))
    model(x)
    handle.remove()
    assert (site.path, site.times) == ("block", 3)
    assert site.low == min(float(one.min()) for one in inputs)
    assert site.high == max(float(one.max()) for one in inputs)


def test_an_instance_that_is_called_twice_is_two_sites():
    model = Written(lambda s, x: s.act(s.layer(s.act(s.layer(x)))) + 1, layer=linear(4, 4), act=nn.ReLU())
    found = sk.sites(model, numbers(3, 4))
    assert [(site.path, site.call, site.name, site.shared) for site in found] == [
        ("act", 0, "act", True),
        ("act", 1, "act#1", True),
    ]


def test_an_instance_at_several_paths_is_known_by_each():
    act = nn.ReLU()
    model = nn.Sequential(linear(4, 4), act, linear(4, 4), act, nn.Sequential(linear(4, 4), act), linear(4, 1))
    found = sk.sites(model, numbers(3, 4))
    assert [(site.path, site.call, site.shared) for site in found] == [("1", 0, True), ("3", 0, True), ("4.1", 0, True)]
    # And they are one instance again.
    assert model[1] is model[3] is model[4][1] is act
    assert [(site.path, site.shared) for site in sk.sites(model)] == [("1", True), ("3", True), ("4.1", True)]


def test_what_did_not_run_is_listed_with_the_reason():
    model = nn.ModuleDict({"used": nn.ReLU(), "unused": nn.Tanh()})
    model.forward = lambda x: model["used"](x) + 1
    found = sk.sites(model, numbers(3, 4))
    assert [(site.path, site.times) for site in found] == [("used", 1), ("unused", 0)]
    assert [(one.path, one.reason) for one in found.unseen] == [("unused", "it did not run in the example")]


def test_without_an_example_modules_are_found_and_the_rest_is_named():
    model = nn.Sequential(linear(4, 4), nn.ReLU(), Written(lambda s, x: F.gelu(x)))
    found = sk.sites(model)
    assert [(site.path, site.shape, site.unit_axis, site.units, site.times) for site in found] == [
        ("1", (), None, None, 0),
        ("2", (), None, None, 0),
    ]
    assert (found[0].low, found[0].high) == (math.inf, -math.inf)
    assert [(one.path, one.reason) for one in found.unseen] == [
        ("", "functions are only seen with an example of the model's inputs")
    ]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LSTM(4, 4), "the gates of an LSTM are inside one kernel"),
        (nn.GRU(4, 4), "the gates of a GRU are inside one kernel"),
        (nn.RNN(4, 4), "the tanh of a recurrent network is inside one kernel"),
        (nn.RNN(4, 4, nonlinearity="relu"), "the ReLU of a recurrent network is inside one kernel"),
        (nn.LSTMCell(4, 4), "the gates of an LSTM cell are inside one kernel"),
        (nn.GRUCell(4, 4), "the gates of a GRU cell are inside one kernel"),
        (nn.RNNCell(4, 4), "the tanh of a recurrent cell is inside one kernel"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gates_inside_one_kernel_are_listed_as_unseen(module, reason):
    model = Written(lambda s, x: F.relu(s.rnn(x)[0]) + 1, rnn=module)
    found = sk.sites(model, numbers(3, 4))
    assert kinds(found) == ["relu"]
    assert [(one.path, one.reason, one.site) for one in found.unseen] == [("rnn", reason, None)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_precision_will_do(dtype):
    model = nn.Sequential(linear(4, 4), nn.GELU(), Swoosh(), Written(lambda s, x: F.silu(s.a(x)), a=linear(4, 4))).to(
        dtype
    )
    assert kinds(sk.sites(model, numbers(3, 4).to(dtype))) == ["gelu", "Swoosh", "silu"]


def test_meta_tensors_will_do():
    model = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.ReLU(), Written(lambda s, x: F.silu(x) + 1))
    found = sk.sites(model, torch.empty(3, 4, device="meta"))
    assert [(site.kind, site.units, site.low) for site in found] == [("relu", 4, math.inf), ("silu", 4, math.inf)]


@pytest.mark.parametrize("shape", [(1, 1), (1,), (), (0, 1)])
def test_any_number_of_elements_will_do(shape):
    model = Written(lambda s, x: torch.sigmoid(x * 2) + F.relu(x) + 1)
    assert kinds(sk.sites(model, torch.zeros(shape))) == ["sigmoid", "relu"]


def test_inputs_by_name_and_in_containers():
    model = Written(lambda s, x: torch.relu(x["a"] @ x["b"][0]) + 1)
    assert kinds(sk.sites(model, {"a": numbers(3, 4), "b": [numbers(4, 2)]})) == ["relu"]

    class Named(nn.Module):
        def forward(self, ids, *, scale):
            return F.gelu(F.embedding(ids, torch.ones(5, 4)) * scale) + 1

    (site,) = sk.sites(Named(), torch.tensor([[1, 2]]), scale=2.0)
    assert (site.kind, site.unit_axis) == ("gelu", 2)


@dataclass
class Output:
    logits: torch.Tensor
    name: str = "result"


@pytest.mark.parametrize(
    "pack", [lambda y: y, lambda y: (y, 3), lambda y: {"y": [y]}, Output], ids=["tensor", "tuple", "dict", "dataclass"]
)
def test_whatever_a_model_returns_its_last_activation_is_the_output(pack):
    model, x = Written(lambda s, x: pack(torch.tanh(s.a(F.relu(x))).flatten()), a=linear(4, 4)), numbers(3, 4)
    assert [(site.kind, site.role) for site in sk.sites(model, x)] == [("relu", "activation"), ("tanh", "output")]
    assert sk.swap(model, "softplus", example_inputs=x)[1].difference > 0.1


def test_a_module_that_nobody_registered_counts_as_functions_of_its_caller():
    model, x = Written(lambda s, x: s.acts[0](s.layer(x)) + 1, layer=linear(4, 4)), numbers(3, 4)
    model.acts = [nn.ReLU()]
    assert seen(sk.sites(model, x)) == [("", 0, "relu", "activation", "function")]
    sk.swap(model, "softplus", example_inputs=x)
    torch.testing.assert_close(model(x), F.softplus(model.layer(x)) + 1)


def test_bad_models_are_refused():
    with pytest.raises(UsageError, match=r"^model must be a torch.nn.Module, got 3$"):
        sk.sites(3)
    traced = torch.jit.trace(nn.Sequential(linear(4, 4), nn.ReLU()).eval(), numbers(3, 4))
    for model in (traced, torch.jit.freeze(traced)):
        with pytest.raises(UsageError, match="scripted or frozen, and its code cannot be looked into; use the one it"):
            sk.sites(model, numbers(3, 4))


def test_sites_read_well():
    model = nn.Sequential(linear(4, 6), nn.ReLU(), nn.LSTM(6, 2))
    found = sk.sites(model, torch.ones(3, 4))
    lines = repr(found).splitlines()
    assert lines[0].split() == ["path", "call", "kind", "role", "how", "shape", "units", "range", "times", "shared"]
    assert lines[1].split()[:7] == ["1", "0", "relu", "activation", "module", "3x6", "6"]
    assert lines[2:] == ["1 site", "not seen: 2: the gates of an LSTM are inside one kernel"]
    page = found._repr_html_()
    assert page.startswith("<table><tr><th>path</th>")
    assert page.endswith("<p>not seen: 2: the gates of an LSTM are inside one kernel</p>")
    assert found[:1] == found.found[:1]
