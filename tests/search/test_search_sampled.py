"""What a mixture keeps between forwards: never too long, never stale, and the same where it must be evaluated again."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._engine.interpolated import nodes
from softknee._errors import UsageError
from softknee._search.mixture import Mixture
from softknee._search.space import Space


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(mixture):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), mixture.site(), nn.Linear(8, 8), mixture.site(), nn.Linear(8, 1))


def gradients(model, x, forward=None):
    model.zero_grad()
    (forward or model)(x).square().sum().backward()
    return [one.grad.clone() for one in model.parameters()]


@pytest.mark.parametrize("engine", ["table", "eager"])
def test_nothing_is_kept_of_steps_that_are_over(engine):
    mixture = Mixture("one-core")
    model, x = net(mixture), points(30, 4)
    kept = []
    with sk.engine(engine):
        for _ in range(5):
            model(x).sum().backward()
            kept += [weakref.ref(mixture._drawn), weakref.ref(mixture._drawn.weights.unary)]
    gc.collect()
    assert [one() is not None for one in kept] == [False] * 8 + [True] * 2


def test_sites_may_have_a_backward_pass_each():
    mixture = Mixture("one-core")
    first, second = mixture.site(), mixture.site()
    x = points(50)
    for engine in ("table", "eager"):
        with sk.engine(engine):
            for site in (first, second, second, first):
                site(x).sum().backward()
    assert mixture.unary_alpha.grad.isfinite().all()


@pytest.mark.parametrize("engine", ["table", "eager"])
def test_a_look_in_inference_mode_spoils_nothing(engine):
    nodes.cache_clear()
    mixture = Mixture("one-core").requires_grad_(False)
    model, x = net(mixture), 9 * points(30, 4)
    with sk.engine(engine):
        for mode in (False, True):
            model.train(mode)
            with torch.inference_mode():
                model(x)
            model(x).sum().backward()
        mixture.requires_grad_(True)
        model(x).sum().backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_other_parameters_in_their_place_are_seen():
    mixture, other = Mixture("one-core", seed=1).eval(), Mixture("one-core", seed=2).eval()
    x = points(50)
    before = mixture(x)
    state = other.state_dict()
    assert_close(torch.func.functional_call(mixture, state, (x,)), other(x), atol=0, rtol=0)
    assert_close(mixture(x), before, atol=0, rtol=0)
    mixture.load_state_dict(state, assign=True)
    assert_close(mixture(x), other(x), atol=0, rtol=0)
    assert not torch.equal(before, other(x))


def test_gradients_of_transforms_by_its_parameters():
    mixture, x = Mixture("one-core"), points(50)
    parameters = {name: one.detach() for name, one in mixture.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(mixture, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    mixture.draws = 0
    with sk.engine("eager"):
        mixture(x).square().sum().backward()
    for name, one in mixture.named_parameters():
        assert_close(found[name], one.grad)


def test_it_is_mapped_over_inputs_and_over_parameters():
    mixture, x = Mixture("one-core"), points(5, 20)
    mapped = torch.vmap(mixture)(x)
    mixture.draws, mixture._drawn = 0, None
    with sk.engine("eager"):
        assert_close(mapped, mixture(x))
    ensemble = {name: torch.stack([one.detach()] * 3) for name, one in mixture.named_parameters()}

    def apply(parameters):
        return torch.func.functional_call(mixture, parameters, (x,))

    first, second, third = torch.vmap(apply)(ensemble)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    mixture.eval()
    with sk.engine("eager"):
        assert_close(torch.vmap(apply)(ensemble), mixture(x).expand(3, 5, 20))
    mixture.train()
    mixture(x).sum().backward()


def test_copies_have_nothing_of_a_forward_pass():
    mixture = Mixture("one-core")
    mixture(points(10))
    mixture.shrink(5)
    assert sum(map(len, mixture.left[0] + mixture.left[1])) == 50
    other = copy.deepcopy(mixture)
    assert other._drawn is None
    assert other._left is None
    assert other.left == mixture.left


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpoints_evaluate_the_same_again(reentrant):
    mixture = Mixture("one-core", seed=1)
    model, x = net(mixture), points(30, 4).requires_grad_()

    def in_parts(x):
        for part in (model[:2], model[2:4]):
            x = checkpoint(part, x, use_reentrant=reentrant)
        return model[4](x)

    wanted = [gradients(model, x) for _ in range(2)]
    assert not torch.equal(wanted[0][-1], wanted[1][-1])
    mixture.draws, mixture._drawn = 0, None
    found = [gradients(model, x, in_parts) for _ in range(2)]
    assert mixture.draws == 2
    assert_close(found, wanted)


def test_compiled_models_look_up_what_is_drawn_anew():
    mixture = Mixture("one-core", seed=1)
    model, x = net(mixture), points(30, 4)
    wanted = [gradients(model, x) for _ in range(2)]
    mixture.draws, mixture._drawn = 0, None
    compiled = torch.compile(model, backend="eager")
    found = [gradients(model, x, compiled) for _ in range(2)]
    assert mixture._drawn.tables is not None
    assert_close(found, wanted)


@pytest.mark.parametrize("bound", [0.5, 10.0, 1e5])
def test_tables_reach_where_inputs_are_whatever_the_bound(bound):
    mixture = Mixture(Space(cores=1, bound=bound))
    assert (mixture._grid.low, mixture._grid.high, mixture._grid.bins) == (-12.5, 12.5, 1600)


class Twice(nn.Module):
    """A block whose activation acts at two places, as those of a residual network do."""

    def __init__(self, mixture):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), mixture.site()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


def twice(relaxation="drnas", *, frozen=False):
    torch.manual_seed(2)
    mixture = Mixture("one-core", relaxation=relaxation, seed=3)
    for one in mixture.architecture_parameters():
        one.requires_grad_(not frozen)
    return mixture, nn.Sequential(Twice(mixture), Twice(mixture))


def gradients_of(model, x, forwards, run):
    """Return the gradients of the loss of several forward passes."""
    model.zero_grad()
    sum(run(model, (scale * x).requires_grad_()).square().sum() for scale in range(1, forwards + 1)).backward()
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


def in_checkpoints(model, y, *, reentrant=False):
    for block in model:
        y = checkpoint(block, y, use_reentrant=reentrant)
    return y


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("engine", ["table", "eager"])
def test_checkpoints_repeat_activations_that_act_several_times(engine, frozen):
    x, numbers = 0.3 * points(40, 4), []
    mixture, model = twice(frozen=frozen)
    with sk.engine(engine):
        for forwards in (2, 1, 1):
            found = gradients_of(model, x, forwards, in_checkpoints)
            numbers.append(mixture._last[0].number)
            # The same sample at all of these calls, and nothing evaluated once more.
            reference, plain = twice(frozen=frozen)
            sampled = reference._sampled(numbers[-1], (), ())
            reference._drawn_for = lambda _, sampled=sampled: sampled
            wanted = gradients_of(plain, x, forwards, lambda model, y: model(y))
            assert_close(found, wanted)
    assert numbers == sorted(set(numbers))


def test_reentrant_checkpoints_repeat_one_call_or_refuse():
    x = 0.3 * points(40, 4)
    mixture = Mixture("one-core", seed=3)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), mixture.site(), nn.Linear(4, 4)) for _ in range(2)))
    for step in range(2):
        found = gradients_of(model, x, 1, lambda model, y: in_checkpoints(model, y, reentrant=True))
        mixture.draws, mixture._drawn = step, None
        assert_close(found, gradients_of(model, x, 1, lambda model, y: model(y)))
    mixture, model = twice()
    with pytest.raises(UsageError, match="called several times at one place before a backward pass"):
        gradients_of(model, x, 1, lambda model, y: in_checkpoints(model, y, reentrant=True))
    _, model = twice("darts")
    found = gradients_of(model, x, 1, lambda model, y: in_checkpoints(model, y, reentrant=True))
    assert_close(found, gradients_of(model, x, 1, lambda model, y: model(y)))


def test_another_default_dtype_makes_no_difference(monkeypatch):
    nodes.cache_clear()
    mixture = Mixture("one-core").eval()
    x = points(50)
    torch.set_default_dtype(torch.float64)
    try:
        y = mixture(x)
    finally:
        torch.set_default_dtype(torch.float32)
    nodes.cache_clear()
    assert y.dtype == torch.float32
    assert_close(mixture(x), y, atol=0, rtol=0)


def test_short_products_of_the_network_are_not_those_of_tables(monkeypatch):
    """As on a GPU that rounds factors of float32 products to ten digits, where that is allowed."""
    mixture, x = Mixture("grafs", seed=2), points(4000).requires_grad_()
    mixture.site()

    def slopes():
        mixture.draws, mixture._drawn = 0, None
        return torch.autograd.grad(mixture(x).sum(), x)[0]

    wanted, exact = slopes(), torch.matmul

    def rounded(one):
        return (one.view(torch.int32) + 2**12 & -(2**13)).view(torch.float32) if one.dtype == torch.float32 else one

    monkeypatch.setattr(torch, "matmul", lambda a, b: exact(rounded(a), rounded(b)))
    assert_close(slopes(), wanted)
