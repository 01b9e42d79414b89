"""Each rule speaks where it should, and is quiet where it should not: on made-up numbers, and on tiny models."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from fabricate_diagnosis import changed, diagnosis, site, state
from torch import nn

from softknee import UsageError
from softknee._diagnose.rules.explain import RULES, explain
from softknee._diagnose.rules.rules import findings, worst
from softknee._diagnose.run import diagnose
from softknee._diagnose.schema import SEVERITIES


@pytest.fixture(scope="module")
def quiet():
    """A diagnosis in which no rule finds anything."""
    data = diagnosis(2)
    data["sites"] = [site(f"layers.{2 * i + 1}", random.Random(0)) for i in range(2)]
    data["model"]["optimizer"] = None
    data["signal"] |= {"chi_product": 1.0, "cosine_last": 0.5}
    for layer in data["signal"]["layers"]:
        layer |= {"ratio": 1.0}
    data |= {"coverage": [], "trainable": []}
    assert findings(data) == []
    return data


def with_site(data, **states):
    """The first site with other shares of units in states."""
    data["sites"][0]["states"] |= {name: state(share) for name, share in states.items()}


def with_moments(data, **moments):
    data["sites"][0]["moments"] |= moments


def with_trainable(data, **flags):
    row = {"site": "act", "path": "act", "parameter": "slope", "count": 1, "value": 0.2, "start": 0.25, "trained": True}
    clean = {"shared": False, "optimised": True, "decayed": False, "at_bound": 0, "nonfinite": 0, "gradient": None}
    data["trainable"] = [{**row, **clean, **flags}]


def with_gradient(data, **gradient):
    data["gradients"]["layers"][0]["gradient"] |= gradient


def precision(data, beyond, **others):
    data["sites"][0]["precision"] = {"dtype": "float32", "beyond": beyond, "low": None, "high": None, "others": others}


def rate(data, lr, momentum=0.0, kind="sgd"):
    data["model"]["optimizer"] = {"kind": kind, "lr": lr, "momentum": momentum}


# For each rule: what makes it speak, at which severity, and the same a little weaker, where it is quiet.
CASES = {
    "dead-units": (lambda d: with_site(d, dead=0.2, silent=0.2), "warn", lambda d: with_site(d, dead=0.009)),
    "dead-layer": (lambda d: with_site(d, dead=1.0, silent=1.0), "critical", lambda d: with_site(d, dead=0.99)),
    "silent-units": (lambda d: with_site(d, silent=0.2), "warn", lambda d: with_site(d, silent=0.09)),
    "constant-units": (lambda d: with_site(d, constant=0.2), "warn", lambda d: with_site(d, constant=0.2, dead=0.15)),
    "saturated-units": (
        lambda d: with_site(d, saturated=0.6),
        "critical",
        lambda d: with_site(d, saturated=0.6, dead=0.55),
    ),
    "dormant-units": (lambda d: with_site(d, dormant=0.3), "info", lambda d: with_site(d, dormant=0.2)),
    "gradient-dormant-units": (
        lambda d: with_site(d, gradient_dormant=0.3),
        "info",
        lambda d: with_site(d, gradient_dormant=0.2),
    ),
    "nearly-linear": (
        lambda d: with_moments(d, linear_r2=0.995),
        "warn",
        lambda d: with_moments(d, linear_r2=0.985),
    ),
    "no-activation": (
        lambda d: d["structure"].update(sites=0),
        "warn",
        lambda d: d["structure"].update(sites=0, layers=1),
    ),
    "fresh-statistics": (
        lambda d: d["structure"].update(fresh_norms=1),
        "warn",
        lambda d: d["structure"].update(fresh_norms=0),
    ),
    "activations-in-a-row": (
        lambda d: d["structure"].update(in_a_row=[["a", "b"]]),
        "warn",
        lambda d: d["structure"].update(in_a_row=[]),
    ),
    "activation-before-loss": (
        lambda d: d["structure"].update(at_output=[["softmax", "last"]]),
        "critical",
        lambda d: (d["structure"].update(at_output=[["softmax", "last"]]), d["data"].update(loss="nll")),
    ),
    "dtype-risk": (
        lambda d: precision(d, 0.0, bfloat16=0.05, float16=0.0),
        "info",
        lambda d: precision(d, 0.5, bfloat16=0.505, float16=0.5),
    ),
    "non-finite": (
        lambda d: d["structure"].update(outputs_nonfinite=0.1),
        "critical",
        lambda d: d["structure"].update(outputs_nonfinite=0.0),
    ),
    "chi-product": (
        lambda d: d["signal"].update(chi_product=0.009),
        "warn",
        lambda d: d["signal"].update(chi_product=0.011),
    ),
    "collapse": (
        lambda d: d["signal"].update(cosine_last=0.991),
        "warn",
        lambda d: d["signal"].update(cosine_last=0.989),
    ),
    "gain-mismatch": (
        lambda d: d["signal"]["layers"][0].update(ratio=0.79),
        "warn",
        lambda d: d["signal"]["layers"][0].update(ratio=0.81),
    ),
    "gradient-spread": (
        lambda d: with_gradient(d, scale=1e-8),
        "warn",
        lambda d: with_gradient(d, scale=5e-4),
    ),
    "no-gradient": (
        lambda d: d["gradients"]["layers"][0].update(gradient=None),
        "warn",
        lambda d: with_gradient(d, zero=0.99),
    ),
    "outlier-ratio": (
        lambda d: with_moments(d, outlier_ratio=130.0),
        "warn",
        lambda d: with_moments(d, outlier_ratio=31.0),
    ),
    "shared-parameters": (lambda d: with_trainable(d, shared=True), "warn", with_trainable),
    "not-optimised": (
        lambda d: with_trainable(d, optimised=False),
        "critical",
        lambda d: with_trainable(d, optimised=False, trained=False),
    ),
    "activation-decay": (lambda d: with_trainable(d, decayed=True), "warn", lambda d: with_trainable(d, decayed=None)),
    "parameter-at-bound": (lambda d: with_trainable(d, at_bound=1), "warn", with_trainable),
    "parameter-not-finite": (lambda d: with_trainable(d, nonfinite=1), "critical", with_trainable),
    # The largest eigenvalue is 9.5: stable below 0.2105, with momentum 0.9 below 0.4.
    "sharpness": (lambda d: rate(d, 0.22), "warn", lambda d: rate(d, 0.21)),
    "nondeterministic": (
        lambda d: d["structure"].update(deterministic=False),
        "warn",
        lambda d: d["structure"].update(deterministic=True),
    ),
    "not-seen": (lambda d: d.update(coverage=[{"path": "rnn", "reason": "fused"}]), "info", lambda d: None),
    "not-measured": (
        lambda d: d["method"].update(not_measured={"curvature": "no second derivative"}),
        "info",
        lambda d: None,
    ),
}


def test_every_rule_has_a_case():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_where_it_should_and_only_there(quiet, name):
    speaks, severity, silent = CASES[name]
    loud = copy.deepcopy(quiet)
    speaks(loud)
    found = findings(loud)
    assert [(one["id"], one["severity"]) for one in found if one["id"] == name] == [(name, severity)]
    assert all(one["text"] and one["why"] and one["fix"] and one["check"] for one in found)
    still = copy.deepcopy(quiet)
    silent(still)
    assert name not in {one["id"] for one in findings(still)}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_can_be_silenced_and_explained(quiet, name):
    loud = copy.deepcopy(quiet)
    CASES[name][0](loud)
    assert name not in {one["id"] for one in findings(loud, silence=[name])}
    text = explain(name)
    assert text.startswith(f"{name}: ")
    assert RULES[name].fix in text
    assert "\n  check  " in text


def test_severities_go_with_the_limits(quiet):
    for share, severity in ((0.02, "info"), (0.11, "warn"), (0.51, "critical")):
        data = copy.deepcopy(quiet)
        with_site(data, dead=share)
        assert worst(findings(data)) == severity


def test_few_values_of_a_unit_are_a_note_only(quiet):
    for states, n, severity in (
        ({"dead": 0.6}, 28, "info"),
        ({"dead": 0.6}, 29, "critical"),
        ({"silent": 0.6}, 28, "info"),
        ({"silent": 0.6}, 29, "warn"),
        # All units of a layer together are many values.
        ({"dead": 1.0}, 1, "critical"),
    ):
        data = copy.deepcopy(quiet)
        with_site(data, **states)
        for name in states:
            data["sites"][0]["states"][name]["n"] = n
        assert [one["severity"] for one in findings(data)] == [severity]


def test_units_that_are_0_but_for_a_few_values_are_told_from_those_that_are_flat(quiet):
    data = copy.deepcopy(quiet)
    with_site(data, saturated=0.25)
    said = "They are 0 there"
    for rare, units in ((True, 64), (False, 63)):
        data["sites"][0]["firing"] = [units, *([0] * 18), 256 - units]
        (found,) = findings(data)
        assert (said in found["text"]) == rare


def test_frozen_parameters_are_not_missed_a_gradient(quiet):
    data = copy.deepcopy(quiet)
    data["gradients"]["layers"][0] |= {"gradient": None, "trained": False}
    assert findings(data) == []


def test_layers_off_the_gain_are_counted_in_a_sentence(quiet):
    data = copy.deepcopy(quiet)
    data["signal"]["layers"][0] |= {"ratio": 0.4}
    (found,) = findings(data)
    assert found["text"].startswith("1 of 2 layers is off the forward gain: σ_w = ")
    data["signal"]["layers"][1] |= {"ratio": 0.3}
    (found,) = findings(data)
    assert found["site"] == data["signal"]["layers"][1]["layer"]
    assert found["text"].startswith("2 of 2 layers are off the forward gain, here most: σ_w = ")


def test_worst_comes_first_and_sites_stay_in_order():
    found = findings(diagnosis(6))
    ranks = [SEVERITIES.index(one["severity"]) for one in found]
    assert ranks == sorted(ranks)
    dead = [one["site"] for one in found if one["id"] == "dead-units" and one["severity"] == "warn"]
    assert dead == sorted(dead)
    assert worst([]) is None


def test_the_learning_rate_has_an_interval_and_momentum_its_own_limit(quiet):
    data = copy.deepcopy(quiet)
    rate(data, 0.5)
    (found,) = findings(data)
    assert found["value"] == pytest.approx(0.5 * 9.5 / 2)
    assert found["low"] < found["value"] < found["high"]
    rate(data, 0.39, momentum=0.9)
    assert findings(data) == []
    # The limit is that of gradient descent, and says nothing of Adam.
    rate(data, 10.0, kind="adam")
    assert findings(data) == []


def test_trained_weights_may_have_any_gain(quiet):
    data = copy.deepcopy(quiet)
    CASES["gain-mismatch"][0](data)
    data["model"]["trained"] = True
    assert [one["severity"] for one in findings(data)] == ["info"]


def test_unknown_rules_are_refused_with_the_list():
    with pytest.raises(
        UsageError, match=r"no rule named 'dead-unit'; there are .*dead-units, .*; did you mean 'dead-units'"
    ):
        findings(diagnosis(1), silence=["dead-unit"])
    with pytest.raises(UsageError, match="no rule named 'nonsense'"):
        explain("nonsense")


def test_parts_that_were_not_measured_find_nothing(quiet):
    parts = ("structure", "signal", "gradients", "trainable", "curvature")
    assert findings(changed(quiet, **dict.fromkeys(parts))) == []


# Tiny models.


def ids(model, data, loss=None, **options):
    return {(one["id"], one["site"]) for one in diagnose(model, data, loss, **options).findings}


def batches(*shape, classes=3):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(32, *shape, generator=generator), torch.randint(classes, (32,), generator=generator))
        for _ in range(2)
    ]


@pytest.fixture
def _seed():
    torch.manual_seed(0)


@pytest.mark.usefixtures("_seed")
def test_two_activations_in_a_row_are_found_through_a_reshape():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Flatten(), nn.Tanh(), nn.Linear(16, 3))
    assert ("activations-in-a-row", "3") in ids(model, batches(8))
    apart = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    assert "activations-in-a-row" not in {name for name, _ in ids(apart, batches(8))}


@pytest.mark.usefixtures("_seed")
@pytest.mark.parametrize(("last", "severity"), [(nn.Softmax(-1), "critical"), (nn.ReLU(), "warn"), (None, None)])
def test_an_activation_before_a_loss_that_takes_logits(last, severity):
    layers = [nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3), *([last] if last else [])]
    found = diagnose(nn.Sequential(*layers), batches(8), "cross_entropy").findings
    said = [one["severity"] for one in found if one["id"] == "activation-before-loss"]
    assert said == ([severity] if severity else [])


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.noise = noise

    def forward(self, x):
        y = self.inner(x)
        return y + self.noise * torch.randn_like(y)


@pytest.mark.usefixtures("_seed")
@pytest.mark.parametrize("noise", [0.1, 0.0])
def test_a_model_with_noise_in_eval_mode(noise):
    assert ("nondeterministic" in {name for name, _ in ids(Noisy(noise), batches(8))}) == bool(noise)


@pytest.mark.usefixtures("_seed")
def test_a_born_dead_layer_and_nan():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].bias.fill_(-1e4)
    assert ("dead-layer", "1") in ids(model, batches(8))
    with torch.no_grad():
        model[2].bias.fill_(float("nan"))
    assert ("non-finite", "") in ids(model, batches(8))


@pytest.mark.usefixtures("_seed")
def test_parameters_that_the_optimizer_lacks_decays_or_shares():
    act = nn.PReLU()
    model = nn.Sequential(nn.Linear(8, 16), act, nn.Linear(16, 16), act, nn.Linear(16, 3))
    lacking = torch.optim.SGD(model[0].parameters(), lr=0.1)
    names = {name for name, _ in ids(model, batches(8), optimizer=lacking)}
    assert {"not-optimised", "shared-parameters"} <= names
    assert "activation-decay" not in names
    decaying = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4)
    names = {name for name, _ in ids(model, batches(8), optimizer=decaying)}
    assert "activation-decay" in names
    assert "not-optimised" not in names


@pytest.mark.usefixtures("_seed")
def test_a_batch_norm_that_has_seen_no_data():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    assert ("fresh-statistics", "") in ids(model, batches(8))
    with torch.no_grad():
        model.train()(batches(8)[0][0])
    assert "fresh-statistics" not in {name for name, _ in ids(model, batches(8))}
    model[1] = nn.BatchNorm1d(16, track_running_stats=False)
    assert "fresh-statistics" not in {name for name, _ in ids(model, batches(8))}


@pytest.mark.usefixtures("_seed")
def test_a_stack_without_an_activation():
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3))
    assert ("no-activation", "") in ids(model, batches(8))
    barely = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        barely[0].weight.mul_(0.01)
    assert ("nearly-linear", "1") in ids(barely, batches(8))
