"""The callback in real trainings."""

from __future__ import annotations

import csv
import importlib
import json
import logging
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee import integrations
from softknee.integrations import JsonLines

for needed in ("lightning.pytorch", "pytorch_lightning"):
    pytest.importorskip(needed)
ActivationMonitor = integrations.lightning.ActivationMonitor


def module_of(package, *, fails_at=None):
    pl = importlib.import_module(package)

    class Small(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), sk.nn.Swish(trainable=True), nn.Linear(6, 1)
            )
            with torch.no_grad():
                self.layers[0].bias[:2] = -1e4

        def training_step(self, batch, number):
            x, y = batch
            loss = (self.layers(x) - y).square().mean()
            if number == fails_at:
                raise ArithmeticError("this batch fails")
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, number):
            self.layers(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    return Small()


def fit(model, tmp_path, *callbacks, package="lightning.pytorch", logger="CSVLogger", **options):
    pl = importlib.import_module(package)
    torch.manual_seed(1)
    data = torch.utils.data.TensorDataset(torch.randn(40, 8), torch.randn(40, 1))
    loader = torch.utils.data.DataLoader(data, batch_size=10)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logging.getLogger(package).setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=getattr(importlib.import_module(f"{package}.loggers"), logger)(str(tmp_path)),
        callbacks=list(callbacks),
        log_every_n_steps=1,
        **{"max_epochs": 2, **quiet, **options},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)
    return trainer


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_numbers_reach_the_trainers_logger_and_ones_own(package, tmp_path):
    model = module_of(package)
    trainer = fit(
        model, tmp_path, ActivationMonitor(every=3, logger=JsonLines(tmp_path / "log.jsonl")), package=package
    )
    with Path(trainer.logger.log_dir, "metrics.csv").open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    rows = {int(row["step"]): row for row in entries if row["activations/layers.1/dead"]}
    # Batches of the whole training, counted as Lightning counts for its own values.
    assert sorted(rows) == [0, 3, 6]
    assert [int(row["step"]) for row in entries if row["loss"]] == list(range(8))
    assert float(rows[0]["activations/layers.1/dead"]) == 2 / 6
    assert float(rows[0]["activations/layers.1/samples"]) == 10
    betas = [float(rows[step]["activations/layers.3/beta"]) for step in (0, 3, 6)]
    assert betas[0] == 1.0
    assert len(set(betas)) == 3
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert_close([line["activations/layers.3/beta"] for line in lines], betas, rtol=0, atol=0)
    assert sum(lines[0]["activations/layers.1/inputs"]["counts"]) == 60
    assert hooks_of(model) == 0


def test_gradients_are_those_that_the_optimizer_took(tmp_path):
    fit(module_of("lightning.pytorch"), tmp_path, ActivationMonitor(every=1, logger=JsonLines(tmp_path / "log.jsonl")))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    betas = torch.tensor([line["activations/layers.3/beta"] for line in lines], dtype=torch.float64)
    gradients = torch.tensor([line["activations/layers.3/beta_gradient"] for line in lines], dtype=torch.float64)
    assert_close(betas.diff().abs() / 0.1, gradients[:-1], rtol=1e-4, atol=1e-6)


def test_histograms_reach_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = fit(module_of("lightning.pytorch"), tmp_path, ActivationMonitor(every=4), logger="TensorBoardLogger")
    events = EventAccumulator(trainer.logger.log_dir, size_guidance={"histograms": 0})
    events.Reload()
    histograms = events.Histograms("activations/layers.1/inputs")
    assert [event.step for event in histograms] == [0, 4]
    assert histograms[0].histogram_value.num == 60
    assert [event.step for event in events.Scalars("activations/layers.1/zero")] == [0, 4]


def test_the_training_is_the_same_with_and_without(tmp_path):
    states = []
    for callbacks in ([], [ActivationMonitor(every=1)]):
        model = module_of("lightning.pytorch")
        fit(model, tmp_path, *callbacks)
        states.append(list(model.state_dict().values()))
    assert all(torch.equal(mine, its) for mine, its in zip(*states, strict=True))


def test_an_exception_leaves_no_hooks(tmp_path):
    model = module_of("lightning.pytorch", fails_at=2)
    with pytest.raises(ArithmeticError, match="this batch fails"):
        fit(model, tmp_path, ActivationMonitor(every=2))
    assert hooks_of(model) == 0


def test_a_resumed_training_records_the_same_batches(tmp_path):
    monitor = ActivationMonitor(every=3)
    fit(module_of("lightning.pytorch"), tmp_path, monitor, limit_train_batches=2, max_epochs=1)
    resumed = ActivationMonitor(every=3, logger=JsonLines(tmp_path / "log.jsonl"))
    resumed.load_state_dict(monitor.state_dict())
    fit(module_of("lightning.pytorch"), tmp_path, resumed, max_epochs=1)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    # The second batch of this run is the fourth of all.
    assert [json.loads(line)["step"] for line in lines] == [1]


def test_it_is_a_class_like_others():
    assert pickle.loads(pickle.dumps(ActivationMonitor(every=7))).every == 7
    assert "at every n-th training batch" in ActivationMonitor.__doc__
    with pytest.raises(sk.UsageError, match="every must be an integer of at least 1, got 0"):
        ActivationMonitor(every=0)


def test_a_model_without_activations_is_refused_before_training(tmp_path):
    model = module_of("lightning.pytorch")
    model.layers = nn.Linear(8, 1)
    with pytest.raises(sk.UsageError, match="no activation module of softknee, torch, transformers or timm"):
        fit(model, tmp_path, ActivationMonitor())
