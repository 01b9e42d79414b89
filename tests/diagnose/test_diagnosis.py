"""One call that measures a model: what it returns, leaves alone, refuses and survives."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate_diagnosis import diagnosis
from torch import nn

from softknee import SoftkneeError, UsageError
from softknee._diagnose.diagnosis import Diagnosis
from softknee._diagnose.options import like
from softknee._diagnose.run import diagnose
from softknee._diagnose.units.watch import watch

OLD = Path(__file__).parent / "example_report.json"


def network(act=nn.ReLU, last=nn.Identity):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.BatchNorm1d(24),
        act(),
        nn.Linear(24, 16),
        act(),
        nn.Dropout(0.5),
        nn.Linear(16, 4),
        last(),
    )


def batches(count=2, size=32):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 12, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def state_of(model):
    """All that a measurement could change, as bytes and counts."""
    hooks = [
        (len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks), one.training)
        for one in model.modules()
    ]
    tensors = {name: one.detach().numpy().tobytes() for name, one in model.state_dict().items()}
    grads = [None if one.grad is None else one.grad.numpy().tobytes() for one in model.parameters()]
    wants = [one.requires_grad for one in model.parameters()]
    return hooks, tensors, grads, wants, sorted(vars(model))


def randomness():
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()


@pytest.fixture(scope="module")
def full():
    return diagnose(network(), batches(), "cross_entropy", level="full", lr=0.1, momentum=0.9)


def test_full_measures_every_part(full):
    data = full.to_dict()
    assert data["method"]["not_measured"] == {}
    parts = ("signal", "gradients", "curvature", "landscape", "kernel", "rank", "lipschitz", "classification")
    assert all(data[part] for part in parts)
    assert [site["name"] for site in data["sites"]] == ["2", "4"]
    assert [site["units"] for site in data["sites"]] == [24, 16]
    assert data["data"] | {"hash": ""} == {"samples": 64, "batches": 2, "seed": 0, "hash": "", "loss": "cross_entropy"}
    assert data["model"]["class"] == "Sequential"
    assert data["model"]["parameters"] == sum(one.numel() for one in network().parameters())
    assert data["model"]["optimizer"] == {"kind": "sgd", "lr": 0.1, "momentum": 0.9}
    assert sum(map(sum, data["classification"]["confusion"])) == 64


def test_quick_needs_no_labels_and_leaves_out_what_does():
    data = diagnose(network(), [inputs for inputs, _ in batches()]).to_dict()
    assert len(data["sites"]) == 2
    assert data["signal"]["layers"]
    assert data["gradients"] is None
    assert data["curvature"] is None
    assert data["data"]["loss"] is None


def test_quick_runs_the_sample_once_and_a_few_samples_again():
    rows = []

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            rows.append(len(x))
            return self.inner(x)

    diagnose(Counts(), batches(32, 64))
    # Two passes less what is done on the way: the whole sample once, 300 samples for the signal, a few to look.
    assert 2048 <= sum(rows) <= 2048 + 2 * 300 + 100


def test_full_without_a_loss_says_what_is_missing():
    missing = diagnose(network(), [inputs for inputs, _ in batches()], level="full").to_dict()["method"]["not_measured"]
    assert set(missing) == {"gradients of the parameters", "curvature", "loss landscape"}
    assert all("the model returned no loss" in reason for reason in missing.values())


def test_it_is_plain_json_and_comes_back_from_disk(full, tmp_path):
    page = full.save(tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}
    assert json.loads((page.parent / "report.json").read_text()) == full.to_dict()
    for place in (page.parent, page.parent / "report.json"):
        again = Diagnosis.load(place)
        assert again == full
        assert again.to_html() == page.read_text()


def test_what_it_returns_cannot_be_changed_from_outside(full):
    before = full.to_json()
    full.to_dict()["sites"].clear()
    full.findings.clear()
    assert full.to_json() == before
    with pytest.raises(AttributeError):
        full.data = {}


def test_the_summary_has_at_most_ten_lines_and_begins_with_the_verdict(full):
    lines = full.summary().splitlines()
    assert lines[0] == full.verdict
    assert len(lines) <= 10
    assert repr(full) == full.summary()
    worst = full.findings[0]
    assert worst["id"] in full.summary()
    assert full.worst == worst["severity"]
    many = Diagnosis(diagnosis(40))
    assert len(many.summary().splitlines()) <= 10
    assert "<table>" in many._repr_html_()


def test_the_verdict_of_a_model_without_findings():
    data = diagnosis(2)
    clean = Diagnosis({**data, "findings": []})
    assert clean.verdict == "Nothing to act on was found on 2 sites and 2,048 samples."


@pytest.mark.parametrize("level", ["quick", "full"])
def test_t30_model_and_random_numbers_stay_as_they_are(level):
    model = network(nn.PReLU)
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    model[1].eval()
    before, numbers = state_of(model), randomness()
    diagnose(model, batches(), "cross_entropy", level=level)
    assert state_of(model) == before
    assert randomness() == numbers


def test_the_same_seed_gives_the_same_numbers(full):
    assert diagnose(network(), batches(), "cross_entropy", level="full", lr=0.1, momentum=0.9) == full


def test_a_part_that_fails_is_a_note_and_not_the_end(monkeypatch):
    from softknee._diagnose.flow import signal

    def broken(*_, **__):
        raise RuntimeError("no signal today")

    monkeypatch.setattr(signal, "signal", broken)
    found = diagnose(network(), batches())
    assert found.to_dict()["signal"] is None
    (note,) = [one for one in found.findings if one["id"] == "not-measured"]
    assert note["severity"] == "info"
    assert "RuntimeError: no signal today" in note["text"]
    assert len(found.to_dict()["sites"]) == 2


def test_units_that_could_not_be_measured_are_not_taken_for_none(monkeypatch):
    from softknee._diagnose.units import health

    def broken(*_, **__):
        raise RuntimeError("no units today")

    monkeypatch.setattr(health, "unit_health", broken)
    found = diagnose(network(), batches())
    assert "The units could not be measured: RuntimeError: no units today." in found.summary()
    assert "no-activation" not in {one["id"] for one in found.findings}


def test_a_loader_is_read_once_and_no_further_than_needed():
    read = []

    def loader():
        for index, batch in enumerate(batches(8, 16)):
            read.append(index)
            yield batch

    data = diagnose(network(), loader(), "cross_entropy", samples=40).to_dict()
    assert read == [0, 1, 2]
    assert data["data"]["samples"] == 40


def test_a_function_makes_the_model_by_the_seed_and_not_by_the_global_state():
    def make():
        return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))

    numbers = randomness()
    first, again, other = (diagnose(make, batches(), seed=seed).to_dict() for seed in (1, 1, 2))
    assert randomness() == numbers
    assert first == again
    assert first["signal"]["layers"] != other["signal"]["layers"]


def test_the_loss_of_the_model_itself_is_used(full):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, labels=None):
            scores = self.inner(x)
            loss = None if labels is None else nn.functional.cross_entropy(scores, labels)
            return {"loss": loss, "logits": scores}

    loader = [{"x": x, "labels": y} for x, y in batches()]
    own = diagnose(Own(), loader, level="full").to_dict()
    assert own["method"]["not_measured"] == {}
    given = full.to_dict()
    assert own["gradients"]["loss"] == pytest.approx(given["gradients"]["loss"], rel=1e-5)
    assert own["curvature"]["trace"]["value"] == pytest.approx(given["curvature"]["trace"]["value"], rel=1e-3)


def test_the_gradients_of_sites_come_with_a_loss_of_the_models_own(full):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, labels=None):
            scores = self.inner(x)
            return {"loss": None if labels is None else nn.functional.cross_entropy(scores, labels), "logits": scores}

    own = diagnose(Own(), [{"x": x, "labels": y} for x, y in batches()], level="full").to_dict()
    assert own["data"]["loss"] == "the model's own"
    for one, given in zip(own["sites"], full.to_dict()["sites"], strict=True):
        assert one["gradient"]["rms"] == pytest.approx(given["gradient"]["rms"], rel=1e-4)
        assert one["states"]["gradient_dormant"] == given["states"]["gradient_dormant"]
    assert own["classification"] == full.to_dict()["classification"]


def test_targets_that_are_no_classes_are_not_counted_as_such():
    rows = batches()
    wanted = {
        "mse": [(x, x[:, :4]) for x, _ in rows],
        "bce_with_logits": [(x, x[:, :4].sigmoid()) for x, _ in rows],
        "l1": [(x, y[:, None].expand(-1, 4).float()) for x, y in rows],
    }
    for loss, loader in wanted.items():
        data = diagnose(network(), loader, loss, level="full").to_dict()
        assert data["classification"] is None
        assert data["method"]["not_measured"] == {}
    soft = [(x, nn.functional.one_hot(y, 4).float()) for x, y in rows]
    assert diagnose(network(), soft, "cross_entropy", level="full").to_dict()["classification"]


def test_tokens_to_predict_are_not_the_classes_of_their_own_places():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.act, self.head = nn.Embedding(7, 8), nn.GELU(), nn.Linear(8, 7)

        def forward(self, ids, labels):
            logits = self.head(self.act(self.embedding(ids)))
            return {"loss": nn.functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:]), "logits": logits}

    ids = torch.randint(7, (8, 5), generator=torch.Generator().manual_seed(0))
    data = diagnose(Language(), [{"ids": ids, "labels": ids}], level="full").to_dict()
    assert data["gradients"]["loss"] > 0
    assert data["classification"] is None


def test_shared_parameters_are_the_same_objects_afterwards():
    act, layer = nn.PReLU(), nn.Linear(12, 12)
    model = nn.Sequential(layer, act, layer, act, nn.Linear(12, 4))
    before = {name: id(one) for name, one in model.named_parameters(remove_duplicate=False)}
    data = diagnose(model, batches(), "cross_entropy", level="full").to_dict()
    assert {name: id(one) for name, one in model.named_parameters(remove_duplicate=False)} == before
    middle = len(data["landscape"]["one"]["loss"]) // 2
    assert data["landscape"]["one"]["loss"][middle] == pytest.approx(data["gradients"]["loss"], rel=1e-4)


def test_of_a_compiled_model_the_original_is_measured():
    compiled = torch.compile(network(), backend="eager")
    data = diagnose(compiled, batches(), "cross_entropy", level="full").to_dict()
    assert data["method"]["not_measured"] == {}
    assert [site["name"] for site in data["sites"]] == ["2", "4"]


def test_a_loader_that_shuffles_yields_the_same_sample_and_leaves_the_random_numbers():
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16, shuffle=True)
    numbers = randomness()
    first, again, other = (diagnose(network(), loader, samples=32, seed=seed).to_dict() for seed in (0, 0, 1))
    assert randomness() == numbers
    assert first["data"]["hash"] == again["data"]["hash"] != other["data"]["hash"]


def test_the_history_of_a_training_gives_trajectories_and_firing(tmp_path):
    model = network(nn.PReLU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, every=1) as watched:
        for inputs, target in batches(48):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
    watched.save(tmp_path / "watch.json")
    live = diagnose(model, batches(), optimizer=optimizer, history=watched).to_dict()
    stored = diagnose(model, batches(), optimizer=optimizer, history=tmp_path / "watch.json").to_dict()
    assert live["trainable"] == stored["trainable"]
    rows = live["trainable"]
    assert [row["site"] for row in rows] == ["2", "4"]
    assert all(len(row["trajectory"]["steps"]) >= 5 for row in rows)
    assert all(row["shapes"]["curves"] for row in rows)
    assert [one["name"] for one in live["history"]["sites"]] == ["2", "4"]
    assert live["model"]["trained"] is True
    page = Diagnosis(live).to_html()
    assert "Parameters over the steps" in page
    assert "Firing of the units over training" in page


def test_trials_train_with_the_optimizer_that_is_given(monkeypatch):
    class Caught(Exception):
        pass

    def caught(*_, **options):
        raise Caught(options)

    monkeypatch.setattr("softknee._diagnose.trial.trial.trial", caught)
    model = network()
    given = torch.optim.RMSprop(model.parameters(), lr=0.1, alpha=0.9, weight_decay=0.01, momentum=0.5)
    options = {"model": model, "loader": batches(), "loss": "cross_entropy", "level": "trial"}
    reason = diagnose(**options, lr=0.1, momentum=0.9).to_dict()["method"]["not_measured"]["trials"]
    assert "'optimizer': 'sgd', 'momentum': 0.9" in reason
    reason = diagnose(**options, optimizer=given).to_dict()["method"]["not_measured"]["trials"]
    assert "'lr': 0.1" in reason
    assert "'momentum': None" in reason
    made = like(given)(list(network().parameters()), 0.3)
    assert type(made) is torch.optim.RMSprop
    (group,) = made.param_groups
    expected = {**given.param_groups[0], "lr": 0.3, "params": group["params"]}
    assert group == expected


# What is refused, in words.


class Fails(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.layer = nn.Linear(12, 4)
        self.error = error

    def forward(self, x):
        if self.error:
            raise self.error
        return self.layer(x)


def half():
    yield batches(1)[0]
    raise OSError("disk gone")


def refused(tmp_path):
    meta = nn.Linear(12, 4, device="meta")
    compiled = network()
    compiled.compile(backend="eager")
    ok, data = network(), batches()
    return {
        "empty": ((ok, []), {}, "the loader is empty: it yielded no batch"),
        "structure": ((ok, ["text"]), {}, "the loader yields 'text'"),
        "not iterable": ((ok, 3), {}, "the loader must be an iterable of batches"),
        "midway": ((ok, half()), {}, "the loader failed after 1 batches: OSError: disk gone"),
        "vector loss": ((ok, data, lambda y, t: y.sum(1)), {}, "the loss must be one number"),
        "broken loss": (
            (ok, data, lambda y, t: y + "a"),
            {},
            "the loss failed on the first batch of the loader: TypeErr",
        ),
        "loss name": ((ok, data, "cross"), {}, "no loss named 'cross'"),
        "meta": ((meta, data), {}, "the model is on the meta device"),
        "compiled": ((compiled, data), {}, "the model was compiled in place"),
        "fails": (
            (Fails(ValueError("no")), data),
            {},
            "the model failed on the first batch of the loader: ValueError: no",
        ),
        "no module": (("relu", data), {}, "model must be a torch.nn.Module, got 'relu'"),
        "factory": ((lambda: 1 / 0, data), {}, "making the model failed: ZeroDivisionError"),
        "made": ((lambda: 3, data), {}, "the function that makes the model returned 3"),
        "level": (
            (ok, data),
            {"level": "ful"},
            "level must be one of quick, full, trial, got 'ful'; did you mean 'full'?",
        ),
        "seed": ((ok, data), {"seed": 0.5}, "seed must be a whole number, got 0.5"),
        "samples": ((ok, data), {"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        "silence": ((ok, data), {"silence": ["dead"]}, "no rule named 'dead'"),
        "lr": ((ok, data), {"lr": 0}, "lr must be over 0, got 0"),
        "both": ((ok, data), {"lr": 0.1, "optimizer": torch.optim.SGD(ok.parameters(), 0.1)}, "not both"),
        "optimizer": ((ok, data), {"optimizer": "sgd"}, "optimizer must be a torch.optim.Optimizer, got 'sgd'"),
        "trial": ((ok, data), {"level": "trial"}, "level 'trial' trains the model and needs its learning rate"),
        "budget": ((ok, data), {"budget": "soon"}, "budget must be a time in seconds"),
        "history": ((ok, data), {"history": tmp_path / "none.json"}, "none.json"),
    }


@pytest.mark.parametrize("case", refused(Path("/nowhere")))
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_changed(case, tmp_path):
    arguments, options, message = refused(tmp_path)[case]
    model = arguments[0]
    measurable = isinstance(model, nn.Module) and case != "meta"
    before, numbers = state_of(model) if measurable else None, randomness()
    with pytest.raises(SoftkneeError) as caught:
        diagnose(*arguments, out=tmp_path / "report", **options)
    assert message in str(caught.value)
    assert randomness() == numbers
    assert not (tmp_path / "report").exists()
    if measurable:
        assert state_of(model) == before


def test_nan_in_outputs_is_a_finding_and_every_level_survives_it():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    for level in ("quick", "full"):
        found = diagnose(model, batches(1), "cross_entropy", level=level)
        sites = {one["site"] for one in found.findings if one["id"] == "non-finite"}
        assert {"", "2"} <= sites
        assert found.worst == "critical"
        json.loads(found.to_json())
        assert "not finite" in found.to_html()


def test_infinities_in_a_few_outputs_only():
    class Rarely(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) / (x[:, :1] < 2.5)

    data = batches()
    for inputs, _ in data:
        inputs.clamp_(max=2.0)
    data[-1][0][0, 0] = 3.0
    (found,) = [one for one in diagnose(Rarely(), data).findings if one["id"] == "non-finite"]
    assert found["value"] == pytest.approx(4 / 256)


# Stored files.


def test_an_old_stored_file_still_loads_and_draws():
    """The file was written by the first version with this schema, and stays as it is."""
    old = Diagnosis.load(OLD)
    assert old.data["schema"] == 1
    assert old.findings
    assert old.verdict in old.to_html()
    assert len(old.summary().splitlines()) >= 5


def test_parts_that_a_stored_file_lacks_count_as_not_measured(tmp_path):
    data = json.loads(OLD.read_text())
    kept = {name: data[name] for name in ("schema", "sites")}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(kept))
    lean = Diagnosis.load(path)
    assert lean.data["curvature"] is None
    assert lean.findings == []
    assert "<h2>Network</h2>" in lean.to_html()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 2}', "schema 2, and this version of softknee reads up to 1; update it"),
        ('{"sites": []}', "this is no diagnosis; it has no schema number"),
        ("[]", "this is no diagnosis"),
        ('{"schema": true}', "this is no diagnosis"),
        ('{"schema": 1, "sites": 3}', "'sites' must be a list of objects"),
        ("not json", "this is no JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Diagnosis.load(path)
    with pytest.raises(OSError, match=r"report\.json"):
        Diagnosis.load(tmp_path / "elsewhere" / "report.json")


def test_a_stored_file_is_drawn_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None; from softknee._diagnose.diagnosis import Diagnosis; "
        f"found = Diagnosis.load({str(OLD)!r}); print(len(found.to_html()), found.summary())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10_000


def test_a_folder_that_cannot_be_made_is_refused_before_the_work():
    told = []
    with pytest.raises(OSError, match="nowhere"):
        diagnose(network(), batches(), out="/proc/nowhere", progress=told.append)
    assert told == []


def test_progress_names_each_part_once():
    told = []
    diagnose(network(), batches(), progress=told.append)
    assert told == ["units of every site", "signal from layer to layer", "parameters of activations"]


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    first = Diagnosis(diagnosis(2))
    first.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        Diagnosis(copy.deepcopy(diagnosis(3))).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
