from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import softknee as sk
from softknee._errors import UsageError


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), sk.nn.STAF(), nn.Dropout(0.5), sk.nn.Swish())


def test_reach_is_what_was_seen_and_a_margin():
    model = nn.Sequential(sk.nn.Identity(), sk.nn.Tanh())
    x = torch.tensor([-3.0, 1.0, 5.0])
    assert sk.calibrate_reach(model, x, margin=0.5) == {"0": (-7.0, 9.0), "1": (-7.0, 9.0)}
    assert model[1].reach == (-7.0, 9.0)


def test_shared_activations_see_all_their_inputs():
    act = sk.nn.Tanh()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = act

        def forward(self, x):
            return self.act(x) + self.act(10 * x)

    assert sk.calibrate_reach(Twice(), torch.tensor([-1.0, 2.0]), margin=0.0) == {"act": (-10.0, 20.0)}


def test_nothing_else_of_the_model_changes():
    model = network()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    sk.calibrate_reach(model, torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_it_is_saved_and_loaded_by_models_that_have_none():
    model, fresh = network(), network()
    sk.calibrate_reach(model, torch.randn(8, 4))
    fresh.load_state_dict(model.state_dict())
    assert fresh[2].reach == model[2].reach
    assert copy.deepcopy(model)[2].reach == model[2].reach
    with pytest.raises(RuntimeError, match="table_reach"):
        model.load_state_dict(network().state_dict())


def test_tables_cover_it():
    x = torch.linspace(-30, 30, 4001)
    wide = sk.nn.Tanh(engine="table", reach=(-40, 40))
    assert torch.allclose(wide(x), x.tanh(), atol=2e-6)
    from softknee._engine.table import table_of

    grid = table_of(wide._plans[0], None, x.device, wide.reach).grid
    assert (grid.low, grid.high) == (-40, 40)


def test_narrow_ranges_are_covered_and_stay_with_the_parameters():
    act = sk.nn.Swish(reach=(0.0, 1e-9))
    assert act.reach[0] <= 0.0 < 1e-9 <= act.reach[1]
    x = torch.linspace(-1, 1, 5000)
    with sk.engine("table"):
        assert torch.allclose(act(x), torch.nn.functional.silu(x), atol=2e-6)
    meta = sk.nn.Swish().to("meta")
    meta.set_reach(-1.0, 1.0)
    assert meta.table_reach.is_meta


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: sk.calibrate_reach(nn.Linear(2, 2), torch.ones(1, 2)), "the model has no activation of softknee"),
        (lambda: sk.calibrate_reach(sk.nn.Tanh(), torch.ones(3)), "must be two finite numbers in order, got 1, 1"),
        (lambda: sk.nn.Tanh(reach=(2.0, 1.0)), "reach of Tanh must be two finite numbers in order, got 2, 1"),
        (lambda: sk.nn.Tanh(reach=(0.0, float("inf"))), "got 0, inf"),
    ],
)
def test_bad_input_is_refused(run, message):
    with pytest.raises(UsageError, match=message):
        run()
