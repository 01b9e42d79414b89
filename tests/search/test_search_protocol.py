"""Protocols of the bench as tasks of a search."""

from __future__ import annotations

import pytest
import torch

import softknee._search.protocol as bridge
from softknee._bench.model import activation_sites
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import UnknownProtocol, UsageError
from softknee._search.task import Task

# As they are trained on: 10,000 images, 1,297 digits, 2,000 points, less a sixth, or a tenth; or batches of an epoch.
STEPS = {
    "fashion": (66, 14, 16),
    "fashion-resnet20": (71, 8, 16),
    "digits": (17, 8, 8),
    "gmm": (17, 8, 50),
    "text": (100, 16, 16),
}


def arguments_of(name):
    return bridge.arguments(name, data="mini" if name.startswith("fashion") else None)


# Data of the public protocol have to be brought.
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if not name.startswith(("mls-", "fast-"))])
def test_every_protocol_is_a_task_with_all_activations_of_its_model(name):
    task = Task(**arguments_of(name))
    model = arguments_of(name)["make_model"]()
    (group,) = task.groups
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    places = {path for path in paths if path.split(".")[-1].startswith("activation")}
    assert {site.path for site in group.sites} == places >= set(activation_sites(model))
    assert {site.kind for site in group.sites} == {"relu"}
    assert task.epochs == PROTOCOLS[name].epochs
    steps = STEPS.get(name) or STEPS.get(name.split("-")[0])
    if steps is not None:
        assert (task.steps, task.val_steps, task.test_steps) == steps


@pytest.mark.parametrize("name", ["digits-cnn", "gmm-2d"])
def test_an_epoch_goes_through_all_that_is_not_held_out_in_an_order_of_its_own(name):
    made = arguments_of(name)
    recipe = PROTOCOLS[name].recipe
    source = TASKS[recipe.task].source(None)
    held = load_tensors(source, "validation", recipe.task)

    def epoch(seed):
        torch.manual_seed(seed)
        return torch.cat([inputs for inputs, _ in made["train_batches"]])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert sorted(epoch(0).tolist()) == sorted(held.train_inputs.tolist())
    test = load_tensors(source, "test", recipe.task)
    for batches, examples in ((made["val_batches"], held), (made["test_batches"], test)):
        assert torch.equal(torch.cat([inputs for inputs, _ in batches]), examples.test_inputs)
        assert torch.equal(torch.cat([targets for _, targets in batches]), examples.test_targets)
        sizes = {len(targets) for _, targets in batches}
        assert max(sizes) - min(sizes) <= 1


def test_points_that_never_run_out_are_held_out_by_drawing_others():
    made = arguments_of("regression-1d")
    again = arguments_of("regression-1d")
    held = torch.cat([x for x, _ in made["val_batches"]])
    assert torch.equal(held, torch.cat([x for x, _ in again["val_batches"]]))
    assert len(made["val_batches"]) == 20
    torch.manual_seed(0)
    seen = torch.cat([x for x, _ in made["train_batches"]])
    assert len(seen) == 98 * 500
    assert not torch.isin(held, seen).all()
    assert {y.dtype for _, y in made["test_batches"]} == {torch.float32}


def test_models_and_their_training_are_the_protocols():
    made = arguments_of("digits-cnn")
    torch.manual_seed(0)
    first, second = made["make_model"](), made["make_model"]()
    torch.manual_seed(0)
    again = made["make_model"]()
    assert torch.equal(first.convolution_0.weight, again.convolution_0.weight)
    assert not torch.equal(first.convolution_0.weight, second.convolution_0.weight)
    optimizer = made["optimizer"](list(first.parameters()))
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.05, 0.9)
    inputs, targets = batch = made["val_batches"][0]
    expected = torch.nn.functional.cross_entropy(first(inputs), targets)
    assert made["train_step"](first, batch).item() == pytest.approx(expected.item())
    assert isinstance(arguments_of("text-char")["optimizer"](list(first.parameters())), torch.optim.Adam)


def test_epochs_and_data_can_be_given_and_are_checked(tmp_path):
    assert bridge.arguments("digits-cnn", epochs=3)["epochs"] == 3
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text("abcdefgh" * 20)
    batches = bridge.arguments("text-char", data=tmp_path)["test_batches"]
    assert set(torch.cat([inputs for inputs, _ in batches]).flatten().tolist()) == set(b"abcdefgh")
    with pytest.raises(UnknownProtocol, match="no protocol named 'digits'; did you mean .*'digits-cnn'"):
        bridge.arguments("digits")
    with pytest.raises(UsageError, match="digits ships with softknee"):
        bridge.arguments("digits-cnn", data="full")
