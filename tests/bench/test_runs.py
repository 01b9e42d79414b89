from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from softknee._bench.protocol import Recipe
from softknee._bench.protocols import PROTOCOLS, expand_groups, get_protocol
from softknee._bench.runs import Job, RunSpec, finished_status, read_result, write_failure, write_result
from softknee._errors import UnknownProtocol

SPEC = RunSpec(
    protocol="fashion-mlp",
    recipe=Recipe(),
    activation="relu",
    definition="max(x, 0)",
    seed=0,
    initialization="default",
    learning_rate=1e-3,
    epochs=15,
    split="test",
    data="0" * 64,
)
OTHER = {
    "protocol": "fashion-mlp-fair",
    "recipe": Recipe(momentum=0.8),
    "activation": "gelu",
    "definition": "max(0, x)",
    "seed": 1,
    "initialization": "matched",
    "learning_rate": 1e-2,
    "epochs": 14,
    "split": "validation",
    "data": "1" * 64,
    "threads": 2,
    "kernels": "AVX2",
    "revision": 5,
    "device": "cuda",
    "precision": "tf32",
    "compiled": True,
}


def test_the_key_is_stable():
    """A changed key orphans every result a user has; change it only together with `revision`."""
    assert SPEC.key == "afbda20bcdbbf58b"


@pytest.mark.parametrize("field", OTHER)
def test_every_field_is_in_the_key(field):
    assert SPEC.model_copy(update={field: OTHER[field]}).key != SPEC.key
    assert set(OTHER) | {"engine", "save_epochs"} == set(RunSpec.model_fields)


def test_weights_to_keep_decide_no_number_and_are_not_in_the_key():
    assert SPEC.model_copy(update={"save_epochs": (1,)}).key == SPEC.key


def test_specs_survive_json_and_refuse_unknown_fields():
    job = Job(spec=SPEC, source="mini", folder="somewhere")
    assert Job.model_validate_json(job.model_dump_json()) == job
    with pytest.raises(ValidationError, match="momentun"):
        Recipe(momentun=0.9)


def test_results_are_read_back_and_only_finished_ones_count(tmp_path):
    assert read_result(tmp_path) is None
    write_failure(tmp_path, SPEC, "lost", kind="ProcessDied", message="gone")
    job = Job(spec=SPEC, source="mini", folder=tmp_path)
    assert finished_status(job) is None
    assert read_result(tmp_path)["error"]["message"] == "gone"
    write_result(tmp_path, SPEC, "diverged", test_accuracy=[])
    assert finished_status(job) == "diverged"
    result = json.loads((tmp_path / "result.json").read_text())
    promised = {"key", "status", "protocol", "activation", "seed", "test_accuracy", "test_loss", "best_test_accuracy"}
    assert promised | {"seconds", "learning_rate"} <= set(result)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_json_lacks_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, SPEC, "done", test_loss=[float("nan")])
    assert read_result(tmp_path) is None


def test_unknown_protocol_gets_suggestions():
    with pytest.raises(
        UnknownProtocol, match="no protocol named 'fashion-mpl'; did you mean .*'fashion-mlp'.*there are"
    ):
        get_protocol("fashion-mpl")


def test_the_published_thirteen_expand_in_place():
    expanded = expand_groups(["identity", "chapter"])
    assert len(expanded) == 14
    assert expanded[0] == "identity"


def test_protocols_are_the_published_ones():
    chapter, text, fair = (PROTOCOLS[f"fashion-mlp{suffix}"] for suffix in ("-chapter", "", "-fair"))
    assert (chapter.recipe.momentum, chapter.recipe.shared_activation) == (0.8, True)
    assert (text.recipe.momentum, text.recipe.shared_activation) == (0.9, False)
    for protocol in (chapter, text, fair):
        assert (protocol.learning_rate, protocol.epochs, protocol.recipe.batch_size) == (1e-3, 15, 128)
    assert {(cell.initialization, cell.rate) for cell in fair.cells} == {
        (initialization, rate) for initialization in ("default", "matched") for rate in ("given", "tuned")
    }
    assert not set(fair.tuning.seeds) & set(range(1000))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 0, "status": "done"}'])
def test_a_result_that_cannot_be_read_is_no_result(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    assert read_result(tmp_path) is None
    assert finished_status(Job(spec=SPEC, source="mini", folder=tmp_path)) is None


def test_a_run_without_the_weights_to_keep_is_not_finished(tmp_path):
    job = Job(spec=SPEC.model_copy(update={"save_epochs": (1,)}), source="mini", folder=tmp_path)
    write_result(tmp_path, SPEC, "done")
    assert finished_status(job) is None
    (tmp_path / "epoch-001.pt").write_bytes(b"")
    assert finished_status(job) == "done"
