"""What is diagnosed: batches of every structure, and clear refusals of everything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.task import LOSSES, task
from softknee._errors import DataError, UsageError


class Named(nn.Module):
    """Takes named inputs and returns its own loss, as the models of transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, labels=None):
        outputs = self.layer(x)
        return {"logits": outputs} if labels is None else {"logits": outputs, "loss": F.cross_entropy(outputs, labels)}


@pytest.fixture
def model():
    return nn.Linear(3, 2)


def batches(count=3, size=8):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 3, generator=generator), torch.randint(0, 2, (size,), generator=generator))
        for _ in range(count)
    ]


def test_takes_as_many_samples_as_asked_for_from_the_beginning(model):
    given = batches()
    found = task(model, given, "cross_entropy", samples=20)
    assert [batch.size for batch in found.batches] == [8, 8, 4]
    assert found.samples == 20
    assert torch.equal(found.batches[2].inputs[0], given[2][0][:4])
    assert torch.equal(found.batches[2].target, given[2][1][:4])


def test_reads_no_more_of_the_loader_than_it_needs(model):
    def loader():
        yield from batches(2)
        raise AssertionError("one batch too many was read")

    assert task(model, loader(), samples=16).samples == 16


def test_a_batch_may_be_inputs_alone(model):
    found = task(model, [x for x, _ in batches()])
    assert found.batches[0].target is None
    assert found.run(found.batches[0]).shape == (8, 2)


def test_several_inputs_stand_in_a_tuple():
    bilinear = nn.Bilinear(3, 3, 2)
    found = task(bilinear, [((x, x), y) for x, y in batches()], "cross_entropy")
    assert found.run(found.batches[0]).shape == (8, 2)
    assert found.loss(found.batches[0], found.run(found.batches[0])).shape == ()


def test_a_model_may_return_its_own_loss():
    found = task(Named(), [{"x": x, "labels": y} for x, y in batches()])
    batch = found.batches[0]
    outputs = found.run(batch)
    assert found.loss(batch, outputs) == outputs["loss"]


def test_named_targets_are_taken_out_for_a_loss_that_is_given():
    found = task(
        Named(), [{"x": x, "labels": y} for x, y in batches()], lambda out, y: F.cross_entropy(out["logits"], y)
    )
    batch = found.batches[0]
    assert set(batch.keywords) == {"x"}
    assert found.loss(batch, found.run(batch)).shape == ()


def test_the_fingerprint_depends_on_the_sample_alone(model):
    assert task(model, batches()).fingerprint == task(nn.Linear(3, 2), batches()).fingerprint
    assert task(model, batches()).fingerprint != task(model, batches(2)).fingerprint
    assert task(model, [(x.flip(0), y) for x, y in batches()]).fingerprint != task(model, batches()).fingerprint


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        ([], "the loader is empty: it yielded no batch"),
        (torch.zeros(4, 3), r"the loader must be an iterable of batches, got a tensor of shape \(4, 3\)"),
        (3, "the loader must be an iterable of batches, got 3"),
        ([(1, 2, 3)], r"the loader yields a tuple of 3; a batch is inputs, \(inputs, target\) or a dictionary"),
        ([("words", "more")], "the loader yields a tuple of 2, without a tensor"),
        ([torch.zeros(0, 3)], "the loader yields a batch without samples"),
    ],
)
def test_refuses_loaders_that_yield_something_else(model, loader, sentence):
    with pytest.raises(DataError, match=sentence):
        task(model, loader)


def test_says_when_the_loader_fails(model):
    def loader():
        yield from batches(2)
        raise OSError("disk gone")

    with pytest.raises(DataError, match="the loader failed after 2 batches: OSError: disk gone"):
        task(model, loader(), samples=100)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "cross_entropi"}, "no loss named 'cross_entropi'; .*did you mean 'cross_entropy'"),
        ({"loss": 3}, "the loss must be a function of outputs and target or a name, got 3"),
        ({"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        ({"samples": True}, "samples must be a whole number of at least 1, got True"),
    ],
)
def test_refuses_options_that_are_none(model, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        task(model, batches(), **options)


def test_refuses_a_loss_that_is_no_number(model):
    found = task(model, batches(), lambda outputs, target: F.cross_entropy(outputs, target, reduction="none"))
    with pytest.raises(UsageError, match=r"one number, a mean over the batch; it is a tensor of shape \(8,\)"):
        found.loss(found.batches[0], found.run(found.batches[0]))


def test_refuses_to_compare_with_a_target_that_is_not_there(model):
    found = task(model, [x for x, _ in batches()], "mse")
    with pytest.raises(UsageError, match="the loss needs a target, but the batch has none"):
        found.loss(found.batches[0], found.run(found.batches[0]))


def test_refuses_to_make_up_a_loss(model):
    found = task(model, batches())
    with pytest.raises(UsageError, match="the model returned no loss; give one"):
        found.loss(found.batches[0], found.run(found.batches[0]))


def test_refuses_models_without_elements_or_compiled_in_place(model):
    with pytest.raises(UsageError, match="the model is on the meta device and has no elements"):
        task(nn.Linear(3, 2, device="meta"), batches())
    model.compile(backend="eager")
    with pytest.raises(UsageError, match=r"compiled in place, and hooks do not fire in it; diagnose it before compile"):
        task(model, batches())


def test_looks_at_the_original_of_a_compiled_model(model):
    assert task(torch.compile(model, backend="eager"), batches()).model is model


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_that_go_by_a_name_are_means(name):
    """Doubling the data leaves a mean as it is."""
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    target = torch.arange(6) % 4 if name in {"cross_entropy", "nll"} else outputs.exp().round()
    once = LOSSES[name](outputs, target)
    assert torch.allclose(LOSSES[name](outputs.repeat(2, 1), torch.cat([target, target])), once)
