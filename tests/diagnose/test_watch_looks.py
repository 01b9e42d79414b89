"""Looks at a model that is watched: they are no steps of its training, and none of their values is kept."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee as sk
from softknee._diagnose.units.watch import watch
from softknee._surgery.untouched import LOOKS, restored

STEPS, LOOKED_AT = 10, 5
GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [torch.randn(16, 8, generator=GENERATOR) for _ in range(STEPS)]
OTHER = 3 * torch.randn(16, 8, generator=GENERATOR) + 1


class Network(nn.Module):
    """An activation of each kind: a module, and a function."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.last = nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, x):
        return self.last(F.gelu(self.act(self.first(x)) + 0.1))


def watched(action, *, every, model=None):
    """Train for some steps, with something else in the middle, and return what the watch has seen."""
    model = model or Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with watch(model, every=every) as seen:
        for step, x in enumerate(BATCHES):
            if step == LOOKED_AT:
                action(model)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    return seen


LOOKED = {
    "sites": lambda model: sk.sites(model, OTHER),
    "diagnose": lambda model: sk.diagnose(model, [OTHER]),
    "watch": lambda model: watch(model, every=1).__enter__(),
}
CHANGED = {
    "swap": lambda model: sk.swap(model, "tanh", example_inputs=OTHER),
    "calibrate": lambda model: sk.calibrate(model, OTHER),
}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("action", LOOKED)
def test_a_look_leaves_no_trace_in_what_was_seen(action, every):
    alone = watched(lambda _: None, every=every)
    assert [site.name for site in alone.sites()] == ["act", "model#0"]
    assert watched(LOOKED[action], every=every).to_dict() == alone.to_dict()


@pytest.mark.parametrize("action", CHANGED)
def test_a_change_that_looks_at_the_model_counts_no_steps(action):
    seen = watched(CHANGED[action], every=1)
    assert (seen.steps, seen.observed) == (STEPS, STEPS)


def test_looks_are_those_of_one_thread_and_an_error_ends_them():
    depths = []

    def note():
        depths.append(LOOKS.depth)

    def failing():
        with restored(nn.Identity()), restored(nn.Identity()):
            note()
            thread = threading.Thread(target=note)
            thread.start()
            thread.join()
            raise RuntimeError("ended")

    with pytest.raises(RuntimeError, match="ended"):
        failing()
    note()
    assert depths == [2, 0, 0]
