"""The callback in real trainings by `Trainer`."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

import softknee as sk
from softknee import integrations
from softknee.integrations import JsonLines

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

ActivationMonitor = integrations.transformers.ActivationMonitor
integrations.transformers.register()
ACTIVATION = "transformer.h.0.mlp.act"


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, number):
        tokens = torch.randint(40, (6,), generator=torch.Generator().manual_seed(number))
        return {"input_ids": tokens, "labels": tokens}


def small_model(**options):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2, activation_function="softknee:swish", **options
    )
    return transformers.GPT2LMHeadModel(config)


def trainer_of(model, folder, *, first=(), last=(), **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **{
            "report_to": "none",
            "per_device_train_batch_size": 4,
            "logging_steps": 2,
            "max_steps": 4,
            "learning_rate": 1e-2,
            **options,
        },
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Tokens(), callbacks=list(last))
    for callback in first:
        trainer.callback_handler.callbacks.insert(0, callback)
    return trainer


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_numbers_reach_the_logs_and_ones_own_logger(tmp_path):
    model = small_model()
    monitor = ActivationMonitor(every=2, logger=JsonLines(tmp_path / "log.jsonl"))
    trainer = trainer_of(model, tmp_path, last=[monitor])
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if f"activations/{ACTIVATION}/beta" in entry]
    assert [entry["step"] for entry in logs] == [2, 4]
    assert all("loss" in entry for entry in logs)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # Each step is recorded as it begins, with as many updates behind it as its number says.
    assert [line["step"] for line in lines] == [0, 2]
    betas = [line[f"activations/{ACTIVATION}/beta"] for line in lines]
    assert betas[0] == 1.0
    assert betas[1] != 1.0
    assert_close([entry[f"activations/{ACTIVATION}/beta"] for entry in logs], betas, rtol=0, atol=0)
    # 4 samples of 6 tokens.
    assert lines[0][f"activations/{ACTIVATION}/samples"] == 24
    assert sum(lines[0][f"activations/{ACTIVATION}/inputs"]["counts"]) == 24 * 64
    assert hooks_of(model) == 0


def test_batches_whose_gradients_are_added_up_are_one_step(tmp_path):
    monitor = ActivationMonitor(every=1, logger=JsonLines(tmp_path / "log.jsonl"))
    trainer = trainer_of(
        small_model(),
        tmp_path,
        last=[monitor],
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        max_steps=2,
    )
    # Checkpointing runs activations once more for the backward pass.
    model = trainer.model
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line[f"activations/{ACTIVATION}/samples"] for line in lines] == [24, 24]
    assert not any("#" in tag for tag in lines[0])


def test_gradients_are_clipped_ones(tmp_path):
    found = {}
    for limit in (1e-4, 1e4):
        monitor = ActivationMonitor(every=1, logger=JsonLines(tmp_path / f"{limit}.jsonl"))
        trainer_of(small_model(), tmp_path, last=[monitor], max_grad_norm=limit, max_steps=1).train()
        (line,) = (tmp_path / f"{limit}.jsonl").read_text().splitlines()
        found[limit] = json.loads(line)[f"activations/{ACTIVATION}/beta_gradient"]
    assert 0 < 1000 * found[1e-4] < found[1e4]


def test_reporters_behind_the_monitor_get_the_numbers(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = trainer_of(
        small_model(), tmp_path, first=[ActivationMonitor(every=2)], report_to="tensorboard", logging_steps=1
    )
    trainer.train()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.step for event in events.Scalars(f"train/activations/{ACTIVATION}/beta")] == [1, 3]


def test_the_training_is_the_same_with_and_without(tmp_path):
    states = []
    for callbacks in ([], [ActivationMonitor(every=1)]):
        model = small_model()
        trainer_of(model, tmp_path, last=callbacks).train()
        states.append(list(model.state_dict().values()))
    assert all(torch.equal(mine, its) for mine, its in zip(*states, strict=True))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_exception_leaves_no_hooks(where, tmp_path):
    model = small_model()

    def fail(*_):
        raise ArithmeticError("this batch fails")

    if where == "forward":
        model.lm_head.forward = fail
    else:
        model.transformer.ln_f.weight.register_hook(fail)
    with pytest.raises(ArithmeticError, match="this batch fails"):
        trainer_of(model, tmp_path, last=[ActivationMonitor()]).train()
    assert hooks_of(model) == 0


def test_the_librarys_own_activations_are_recorded(tmp_path):
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=40
    )
    model = transformers.BertForMaskedLM(config)
    trainer = trainer_of(model, tmp_path, last=[ActivationMonitor()])
    trainer.train()
    tag = "activations/bert.encoder.layer.0.intermediate.intermediate_act_fn"
    (entry,) = (entry for entry in trainer.state.log_history if f"{tag}/mean" in entry)
    assert entry[f"{tag}/dead"] == 0.0


def test_what_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(sk.UsageError, match="every must be an integer of at least 1, got 0"):
        ActivationMonitor(every=0)
    trainer = trainer_of(small_model(), tmp_path, last=[ActivationMonitor()])
    trainer.args.torch_compile = True
    with pytest.raises(sk.UsageError, match="activations of compiled models cannot be recorded"):
        trainer.train()
