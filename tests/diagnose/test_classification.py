"""Class by class: counted batch by batch as all at once, and nothing made up where there is nothing to divide by."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from softknee._diagnose.flow.classification import Confusion, classification_report
from softknee._errors import DataError


def counted(outputs, targets):
    found = Confusion()
    found.add(outputs, targets)
    return found.report()


def test_t28_streamed_counts_are_those_of_one_shot():
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(200, 7, generator=generator), torch.randint(0, 7, (200,), generator=generator)
    streamed = Confusion()
    for part, target in zip(scores.split(33), targets.split(33), strict=True):
        streamed.add(part, target)
    found = streamed.report()
    assert found == counted(scores, targets)
    predicted = scores.argmax(1)
    for true in range(7):
        for guess in range(7):
            assert found.confusion[true][guess] == int(((targets == true) & (predicted == guess)).sum())
    assert found.accuracy == pytest.approx((predicted == targets).double().mean().item())
    assert found.support == tuple(torch.bincount(targets, minlength=7).tolist())


def test_scores_by_hand():
    found = counted(torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert found.confusion == ((2, 1), (1, 2))
    assert found.precision == found.recall == found.f1 == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_t28_nothing_is_said_where_there_is_nothing_to_divide_by():
    # Class 1 never occurs, 2 is never predicted, 3 is neither.
    scores = torch.eye(4)[[0, 1, 0]]
    found = counted(scores, torch.tensor([0, 0, 2]))
    assert found.precision == (0.5, 0.0, None, None)
    assert found.recall == (0.5, None, 0.0, None)
    assert found.f1 == (0.5, 0.0, 0.0, None)
    assert found.to_dict()["support"] == [2, 0, 1, 0]
    assert Confusion().report().accuracy is None
    assert "<td>-</td>" in found._repr_html_()


def test_two_classes_by_one_score():
    expected = ((1, 1), (0, 1))
    scores, targets = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0, 0, 1])
    assert counted(scores, targets).confusion == expected
    assert counted(scores[:, None], targets.float()[:, None]).confusion == expected


def test_images_texts_and_soft_targets():
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = scores.argmax(1)
    targets[0, 0, 0] = -100
    found = counted(scores, targets)
    assert sum(found.support) == 39
    assert found.accuracy == 1
    # Models of language have the classes last.
    assert counted(scores.movedim(1, -1), targets) == found
    assert counted(scores[:, :, 0, 0], scores[:, :, 0, 0].softmax(1)).accuracy == 1


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.randn(2, 3), torch.tensor([0, 3]), "a target is 3, but there are 3 classes; the targets of"),
        (torch.randn(2, 3), torch.tensor([0, -1]), "a target is -1, but there are 3 classes"),
        (torch.randn(2, 3), torch.tensor([0.0, 0.5]), "a target is 0.5; the targets of a classifier are whole numbers"),
        (torch.randn(2, 3), torch.tensor([0]), "there are 1 targets for 2 predictions"),
        (torch.randn(2, 3), None, "a batch has no tensor of targets"),
        ({"loss": 1}, torch.tensor([0]), "the model returns no tensor of scores"),
        (torch.randn(2, 1001), torch.tensor([0, 1]), "there are 1001 classes, too many for a confusion matrix; 1000"),
    ],
)
def test_refuses_what_does_not_fit(outputs, targets, message):
    with pytest.raises(DataError, match=message):
        counted(outputs, targets)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.9)

    def forward(self, x):
        return {"features": x, "logits": self.layer(self.drop(x))}


def test_a_model_is_run_in_eval_mode_on_all_of_its_data_and_stays_as_it_is():
    torch.manual_seed(0)
    model = Named().train()
    batches = [{"x": torch.randn(8, 4), "labels": torch.randint(0, 3, (8,))} for _ in range(300)]
    state = torch.get_rng_state()
    found = classification_report(model, batches)
    x, targets = (torch.cat([one[name] for one in batches]) for name in ("x", "labels"))
    assert found == counted(model.layer(x), targets)
    assert sum(found.support) == 2400
    assert sum(classification_report(model, batches, samples=20).support) == 20
    assert model.drop.training
    assert torch.equal(torch.get_rng_state(), state)
    json.dumps(found.to_dict(), allow_nan=False)
