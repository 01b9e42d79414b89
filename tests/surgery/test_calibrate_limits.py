from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from written import Written

from softknee._errors import UsageError
from softknee._surgery.calibrate import calibrate

WIDTH, DEPTH = 1000, 10


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed))


def perceptron(make, *, width=64, depth=3, outputs=10):
    layers = [one for _ in range(depth) for one in (nn.Linear(width, width), make())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def reasons(calibration):
    return {one.path: one.reason for one in calibration.left}


def test_one_seed_gives_one_draw_and_the_global_state_is_used_only_without_a_generator():
    x = normal(8, 64)
    model, twin = perceptron(nn.ReLU), perceptron(nn.ReLU)
    state = torch.get_rng_state()
    calibrate(model, x, generator=seeded(5))
    calibrate(twin, x, generator=seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert unchanged(twin, snapshot(model))
    torch.manual_seed(3)
    calibrate(model, x)
    torch.manual_seed(3)
    calibrate(twin, x)
    assert unchanged(twin, snapshot(model))
    calibrate(twin, x)
    assert not torch.equal(twin[0].weight, model[0].weight)


def test_nothing_but_weights_and_biases_changes():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(), nn.Dropout(), nn.Flatten(), nn.LazyLinear(2)
    )
    x = normal(4, 3, 8, 8)
    model(x)
    model[3].eval()
    before, modes = snapshot(model), [module.training for module in model.modules()]
    calibrate(model, x, lsuv=True, generator=seeded())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias", "5.weight", "5.bias"}
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_where_limits_it_by_pattern_class_function_or_several():
    x = normal(16, 64)
    for where, expected in [
        ("2", ["2"]),
        ("[02]", ["0", "2"]),
        (nn.Linear, ["0", "2", "4", "6"]),
        (lambda path: int(path) > 2, ["4", "6"]),
        (["0", "6"], ["0", "6"]),
    ]:
        model = perceptron(nn.ReLU)
        before = snapshot(model)
        calibration = calibrate(model, x, where=where)
        assert [layer.path for layer in calibration.layers] == expected
        assert reasons(calibration) == {
            path: "it was not asked for" for path in ("0", "2", "4", "6") if path not in expected
        }
        assert all(torch.equal(model[int(path)].bias, before[f"{path}.bias"]) for path in reasons(calibration))


class Doubling(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Left(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)
        self.doubled = nn.Linear(16, 16)
        parametrize.register_parametrization(self.doubled, "weight", Doubling())
        self.used, self.asleep, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.scores = nn.Parameter(torch.randn(16, 16))

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = self.recurrent(self.attention(x, x, x)[0])[0]
        return self.head(self.used(self.doubled(x)) @ self.scores.softmax(0))


def test_what_is_left_is_listed_with_the_reason():
    model = Left()
    before = snapshot(model)
    calibration = calibrate(model, torch.arange(20).view(2, 10))
    assert [layer.path for layer in calibration.layers] == ["used"]
    assert reasons(calibration) == {
        "embedding": "it is an embedding, whose scale the layers that follow are drawn for",
        "attention": "the projections of torch's attention are inside one function",
        "recurrent": "the layers of a recurrent network are inside one kernel",
        "doubled": "its weights are computed from others (parametrized); calibrate first, then parametrize",
        "asleep": "it did not run in the example",
        "head": "it is tied to an embedding, whose scale the layers that follow are drawn for",
        "scores": "it was not seen as the weight of a linear layer or a convolution",
    }
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"used.weight", "used.bias"}


def test_the_report_reads_well():
    calibration = calibrate(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), normal(64, 4), where="2")
    heading, line, note, left = repr(calibration).splitlines()
    assert heading.split("  ")[0] == "layer"
    assert line.split()[:2] == ["2", "relu"]
    assert note.startswith("1 layer drawn; standard deviations of outputs: ")
    assert left == "left: 0: it was not asked for"
    assert "<th>fed by</th>" in calibration._repr_html_()
    assert "scaled by" not in heading
    assert "scaled by" in repr(calibrate(perceptron(nn.ReLU), normal(8, 64), lsuv=True))


class Stops(nn.Module):
    """Raises an error in its second run."""

    def __init__(self):
        super().__init__()
        self.layer, self.runs = nn.Linear(4, 4), 0

    def forward(self, x):
        self.runs += 1
        x = self.layer(x)
        if self.runs == 2:
            raise RuntimeError("stop")
        return x


def frozen():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4).requires_grad_(False))


def biased():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "example", "options", "sentence"),
    [
        (lambda: 3, normal(2, 4), {}, "model must be a torch.nn.Module"),
        (lambda: nn.Linear(4, 4), None, {}, "calibrate needs an example of the model's inputs"),
        (lambda: nn.Linear(4, 4), (), {}, "calibrate needs an example of the model's inputs"),
        (lambda: nn.Linear(4, 4), normal(2, 4), {"tolerance": -1}, "tolerance must be at least 0 and below 1, got -1"),
        (nn.ReLU, normal(2, 4), {}, "no linear layer or convolution that was asked for ran in the example"),
        (frozen, normal(2, 4), {"where": "2"}, "1 of 1 layers cannot be drawn, first 2: it is frozen"),
        (lambda: frozen().requires_grad_(False), normal(2, 4), {}, "2 of 2 layers cannot be drawn, first 0"),
        (biased, normal(2, 4), {}, "first 0: its bias is frozen"),
        (
            frozen,
            normal(2, 4),
            {"where": "layer"},
            "where='layer' matches no layer with weights that ran in the example",
        ),
        (frozen, normal(2, 4), {"where": 3}, "where must be a path pattern, a class or a function of a path, got 3"),
        (frozen, torch.zeros(2, 4), {}, "the inputs of 0 have mean square 0 in the example; give a typical batch"),
        (lambda: nn.Sequential(nn.LazyLinear(4)), normal(2, 4), {}, "0.weight has no shape yet; run the model once"),
        (
            lambda: nn.Linear(4, 4, device="meta"),
            normal(2, 4),
            {},
            "weight has no elements, as it is on the meta device",
        ),
        (lambda: nn.DataParallel(nn.Linear(4, 4)), normal(2, 4), {}, "the model is wrapped in DataParallel"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Threshold(1e3, 0.0), nn.Linear(4, 4)),
            normal(2, 4),
            {},
            "has no forward gain: for normal inputs of mean square 1 the mean square of its outputs is 0",
        ),
        (lambda: nn.Linear(4, 1), normal(1, 4), {"lsuv": True}, "has standard deviation 0 in the example"),
        (frozen, normal(2, 4), {"tolerance": "a"}, "tolerance must be at least 0 and below 1, got 'a'"),
        (frozen, normal(2, 4), {"generator": 3}, "generator must be a torch.Generator, got 3"),
    ],
)
def test_errors_say_what_is_wrong_and_change_nothing(make, example, options, sentence):
    model = make()
    has_elements = isinstance(model, nn.Module) and "no shape" not in sentence and "no elements" not in sentence
    before = snapshot(model) if has_elements else {}
    with pytest.raises(UsageError) as caught:
        calibrate(model, example, **options)
    assert sentence in str(caught.value)
    assert not has_elements or unchanged(model, before)


@pytest.mark.parametrize("lsuv", [False, True])
def test_an_error_in_the_model_leaves_the_old_weights(lsuv):
    model = Stops()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="stop"):
        calibrate(model, normal(8, 4), lsuv=lsuv)
    assert unchanged(model, before)


def test_masked_scores_do_not_stop_it():
    def forward(s, x):
        scores = s.q(x) @ s.k(x).mT + torch.full((6, 6), torch.finfo(x.dtype).min).triu(1)
        return s.out(scores.softmax(-1) @ s.v(x))

    model = Written(forward, **{name: nn.Linear(8, 8) for name in ("q", "k", "v", "out")})
    report = calibrate(model, normal(6, 8))
    assert [(layer.path, layer.gain) for layer in report.layers] == [
        *((name, pytest.approx(1, abs=0.2)) for name in ("q", "k", "v")),
        ("out", 1.0),
    ]
