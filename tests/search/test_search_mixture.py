"""The relaxed cell as an activation: exact where it must be, sampled as GRAFS says, shared as it promises."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee._engine.interpolated import PARTS, SHARPEST
from softknee._errors import OptionError, UsageError
from softknee._search.cell import relaxed
from softknee._search.mixture import Mixture
from softknee._search.space import Space

FEW = Space(unary=("identity", "square", "max0", "mul_beta"), binary=("add", "mul", "mix"), cores=2)


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(mixture, x, sample=0):
    """The cell of the specification, written out for one sample."""
    space, weights = mixture.space, mixture._drawn.weights
    unary, binary = weights.unary[sample], weights.binary[sample]

    def mixed(kind, place, *inputs):
        total, column = 0, 0
        for one, share in zip(getattr(space, kind), (unary if kind == "unary" else binary)[place], strict=True):
            beta = ()
            if one.beta is not None:
                betas = weights.unary_betas if kind == "unary" else weights.binary_betas
                beta, column = (betas[sample, place, column],), column + 1
            total = total + share * one.function(*inputs, *beta, bound=space.bound)
        return total

    out = mixed("binary", 0, mixed("unary", 0, x), mixed("unary", 1, x))
    for core in range(1, space.cores):
        out = mixed("binary", core, mixed("unary", 2 * core, out), mixed("unary", 2 * core + 1, x))
    return out


@pytest.mark.parametrize("space", ["one-core", "grafs", FEW, Space(cores=3)], ids=["one", "grafs", "few", "three"])
def test_it_is_the_cell_of_the_specification(space):
    mixture = Mixture(space).double()
    x = points(64).double() * 3
    with sk.engine("eager"):
        assert_close(mixture(x), by_hand(mixture, x))


def test_tables_are_as_the_cell_itself():
    mixture = Mixture("grafs", seed=3)
    sites = [mixture.site() for _ in range(3)]
    x = points(3, 4000) * 2

    def gradients(engine):
        mixture.draws, mixture._drawn = 0, None
        inputs = x.clone().requires_grad_()
        with sk.engine(engine):
            y = torch.stack([site(row) for site, row in zip(sites, inputs, strict=True)])
        return y, torch.autograd.grad(y, mixture.architecture_parameters(), torch.cos(x))

    ours, exact = gradients("table"), gradients("eager")
    assert (ours[0] - exact[0]).square().mean().sqrt() < 1e-3 * exact[0].std()
    flat = [torch.cat([one.flatten() for one in found[1]]) for found in (ours, exact)]
    assert (flat[0] - flat[1]).norm() < 5e-3 * flat[1].norm()


def test_every_site_and_every_call_has_a_sample_of_its_own():
    mixture = Mixture("one-core")
    first, second = mixture.site(), mixture.site()
    x = points(50)
    ys = [first(x), second(x), first(x), second(x)]
    assert mixture.draws == 2
    assert all(not torch.equal(ys[i], ys[j]) for i in range(4) for j in range(i))


def test_all_tables_of_a_step_are_built_at_once(monkeypatch):
    shapes = []
    monkeypatch.setattr(
        "softknee._search.mixture.relaxed", lambda *given: shapes.append(relaxed(*given).shape) or relaxed(*given)
    )
    mixture = Mixture("grafs")
    sites = [mixture.site() for _ in range(7)]
    x = points(10)
    for site in sites:
        x = site(x)
    assert shapes == [(7, mixture._grid.bins + 1), (7, SHARPEST * (PARTS - 1))]


def test_softmax_weights_are_the_same_everywhere():
    mixture = Mixture("one-core", relaxation="darts")
    first, second = mixture.site(), mixture.site()
    x = points(50)
    assert_close(first(x), second(x), atol=0, rtol=0)


def test_starts_are_as_published():
    mixture = Mixture("grafs", functions=200)
    assert 0 <= mixture.unary_alpha.min() < mixture.unary_alpha.max() < 1e-6
    assert mixture.unary_alpha.shape == (200, 4, 23)
    assert_close(mixture.unary_beta.mean(), torch.tensor(1.0), atol=0.02, rtol=0)
    assert_close(mixture.unary_beta.std(), torch.tensor(0.25), atol=0.02, rtol=0)
    assert (mixture.binary_beta == 0).all()


def test_weights_begin_uniform_on_the_simplex():
    mixture = Mixture("grafs")
    for _ in range(20):
        mixture.site()
    drawn = [mixture.sample() for _ in range(200)]
    unary = torch.cat([one.unary for one in drawn]).detach()
    assert_close(unary.sum(-1), torch.ones(unary.shape[:2]))
    assert_close(unary.mean((0, 1)), torch.full((23,), 1 / 23), atol=2e-3, rtol=0)
    assert_close(unary.var((0, 1)), torch.full((23,), 22 / (23**2 * 24)), atol=2e-4, rtol=0)


def test_without_a_signal_weights_go_back_to_uniform():
    mixture = Mixture("one-core")
    with torch.no_grad():
        mixture.unary_alpha.copy_(points(*mixture.unary_alpha.shape))
    far = mixture.unary_alpha.abs().max()
    optimizer = torch.optim.Adam(mixture.architecture_parameters(), 0.02, betas=(0.5, 0.999), weight_decay=1e-3)
    for _ in range(400):
        for one in mixture.architecture_parameters():
            one.grad = torch.zeros_like(one)
        optimizer.step()
    assert mixture.unary_alpha.abs().max() < 0.02 * far
    assert_close(torch.tensor(mixture.shares()["U0"]), torch.full((23,), 1 / 23), atol=2e-3, rtol=0)


def test_shrinking_goes_round_the_largest_edges_and_takes_the_least_likely():
    mixture = Mixture("grafs")
    with torch.no_grad():
        mixture.unary_alpha.copy_(torch.arange(23.0).expand(1, 4, 23))
        mixture.binary_alpha.copy_(torch.arange(9.0).expand(1, 2, 9))
    drops = mixture.shrink(104)
    assert [drop.group for drop in drops[:8]] == ["U0", "U1", "U2", "U3"] * 2
    assert {drop.group for drop in drops[:56]} == {"U0", "U1", "U2", "U3"}
    assert [drop.group for drop in drops[56:62]] == ["U0", "U1", "B0", "U2", "U3", "B1"]
    assert [drop.operation for drop in drops[:4]] == ["identity"] * 4
    assert mixture.operations_left() == 6
    assert mixture.shrink(1) == []
    assert mixture.genotype().unary == (mixture.space.unary[-1].name,) * 4
    assert mixture.genotype().binary == (mixture.space.binary[-1].name,) * 2


def test_shrinking_changes_no_weight_of_the_others():
    mixture = Mixture("grafs")
    before = [one.clone() for one in mixture.architecture_parameters()]
    mixture.shrink(40)
    assert_close(before, list(mixture.architecture_parameters()), atol=0, rtol=0)
    weights = mixture.sample()
    assert (weights.unary[:, ~mixture.unary_live[0]] == 0).all()
    assert_close(weights.unary.sum(-1), torch.ones(weights.unary.shape[:2]))


def test_evaluation_is_the_most_likely_function():
    mixture = Mixture("grafs", seed=5)
    with torch.no_grad():
        mixture.unary_alpha.copy_(points(*mixture.unary_alpha.shape, seed=8))
        mixture.binary_alpha.copy_(points(*mixture.binary_alpha.shape, seed=9))
    mixture.eval()
    x = points(400)
    activation = sk.create(mixture.formula())
    exact = activation(x)
    assert (mixture(x) - exact).abs().mean() < 1e-3 * exact.abs().mean()
    assert_close(mixture(x), mixture(x), atol=0, rtol=0)


def test_several_functions_shrink_alike_and_stay_their_own():
    mixture = Mixture("one-core", functions=3)
    with torch.no_grad():
        mixture.unary_alpha.copy_(points(*mixture.unary_alpha.shape))
    drops = mixture.shrink(52)
    assert [drop.function for drop in drops[:3]] == [0, 1, 2]
    assert len({mixture.genotype(one) for one in range(3)}) > 1
    assert [mixture.operations_left(one) for one in range(3)] == [3, 3, 3]
    sites = [mixture.site(one) for one in range(3)]
    mixture.eval()
    x = points(100)
    for number, site in enumerate(sites):
        assert_close(site(x), sk.create(mixture.formula(number))(x), atol=1e-3, rtol=1e-3)


def net(mixture):
    return nn.Sequential(nn.Linear(4, 8), mixture.site(), nn.Linear(8, 8), mixture.site(), nn.Linear(8, 1))


def test_gradients_add_up_over_several_forwards():
    mixture = Mixture("one-core")
    model, x = net(mixture), points(30, 4)
    for _ in range(2):
        model(x).square().mean().backward()
    together = mixture.unary_alpha.grad.clone()
    mixture.zero_grad()
    mixture.draws, mixture._drawn = 0, None
    (model(x).square().mean() + model(x).square().mean()).backward()
    assert_close(together, mixture.unary_alpha.grad)


def test_it_is_trained_under_autocast():
    mixture = Mixture("one-core")
    model, x = net(mixture), points(30, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
        loss = y.float().square().mean()
    loss.backward()
    assert y.dtype == torch.bfloat16
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())


def test_copies_and_state_dicts():
    mixture = Mixture("one-core", seed=4)
    model, x = net(mixture), points(30, 4)
    model(x).sum().backward()
    mixture.shrink(10)
    other = copy.deepcopy(model)
    assert other[1].mixture is other[3].mixture
    assert other[1].mixture is not mixture
    fresh = net(Mixture("one-core", seed=77))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert fresh[1].mixture.operations_left() == mixture.operations_left()
    model.eval(), fresh.eval(), other.eval()
    assert_close(model(x), fresh(x))
    assert_close(model(x), other(x))


def test_a_change_of_its_parameters_is_seen_by_the_next_forward():
    mixture = Mixture("one-core", relaxation="darts")
    first, second = mixture.site(), mixture.site()
    x = points(50)
    before = first(x)
    with torch.no_grad():
        mixture.unary_alpha.add_(points(*mixture.unary_alpha.shape))
    assert not torch.equal(before, second(x))


def test_no_gradient_is_prepared_while_its_parameters_ask_for_none():
    mixture = Mixture("one-core").requires_grad_(False)
    x = points(50).requires_grad_()
    mixture(x).sum().backward()
    assert all(one.grad is None for one in mixture.parameters())
    assert x.grad is not None


def test_transforms_get_the_cell_itself():
    mixture = Mixture("one-core")
    x = points(10)
    slope = torch.func.grad(lambda x: mixture(x).sum())(x)
    mixture.draws -= 1
    exact = x.clone().requires_grad_()
    with sk.engine("eager"):
        mixture.sample()
        mixture.draws -= 1
        (wanted,) = torch.autograd.grad(mixture(exact).sum(), exact)
    assert_close(slope, wanted)


def test_what_stands_in_acts_while_it_is_warm():
    mixture = Mixture("one-core")
    site, bare = mixture.site(stand_in=nn.ReLU()), mixture.site()
    mixture.warm = True
    x = points(20)
    assert_close(site(x), torch.relu(x))
    with pytest.raises(UsageError, match="the mixture is warm, and this site was made without stand_in"):
        bare(x)


def test_swap_puts_it_everywhere():
    mixture = Mixture("one-core")
    model, report = sk.swap(nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2)), lambda: mixture.site())
    assert len(report.changed) == 1
    assert model[1].mixture is mixture
    ours = set(map(id, mixture.architecture_parameters()))
    assert ours <= set(map(id, model.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": "gdas"}, "relaxation must be one of drnas, darts, got 'gdas'"),
        ({"functions": 0}, "functions must be a whole number from 1 on, got 0"),
        ({"space": "graffs"}, "no space named 'graffs'"),
    ],
    ids=["relaxation", "functions", "space"],
)
def test_bad_options(options, message):
    with pytest.raises((OptionError, UsageError), match=message):
        Mixture(**options)


def test_bad_requests():
    mixture = Mixture("one-core")
    with pytest.raises(OptionError, match="function must be a whole number from 0 to 0, got 1"):
        mixture.site(1)
    with pytest.raises(OptionError, match="function must be a whole number from 0 to 0, got 0.0"):
        mixture.site(0.0)
    with pytest.raises(OptionError, match="count must be a whole number from 0 on, got -1"):
        mixture.shrink(-1)


def test_repr_says_how_far_it_has_come():
    mixture = Mixture("grafs")
    mixture.site()
    mixture.shrink(10)
    assert "23 unary and 9 binary operations, cores=2, relaxation='drnas', 100 of 110 slots left, 1 sites" in repr(
        mixture
    )
