"""An incoming gradient may be written over only where nobody else holds it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import softknee as sk
from softknee._engine import differentiable


@pytest.fixture
def reused(monkeypatch):
    """Note each decision, True where the incoming gradient's memory is taken."""
    decisions = []

    def noted(found):
        decisions.append(is_unshared(found))
        return decisions[-1]

    is_unshared = differentiable.is_unshared
    monkeypatch.setattr(differentiable, "is_unshared", noted)
    return decisions


def leaves():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(100, generator=generator, requires_grad=True) for _ in range(2)]


ACT = sk.nn.Mish(engine="fused")


def plain(x, w):
    (ACT(x * 1) * w).sum().backward()


def after_a_convolution(x, w):
    nn.functional.conv1d(ACT((x * 1).view(1, 1, -1)), w.detach()[None, None, :3]).square().sum().backward()


def beside_a_shortcut(x, w):
    y = x * 1
    (ACT(y) + y.exp()).exp().sum().backward()


def twice_on_a_graph(x, w):
    loss = ACT(x * 1).exp().sum()
    loss.backward(retain_graph=True)
    loss.backward()


@pytest.mark.parametrize("run", [plain, after_a_convolution, twice_on_a_graph])
def test_unshared_gradients_are_written_over(run, reused):
    run(*leaves())
    assert reused
    assert all(reused)


def kept_by_a_hook(x, w):
    kept = []
    y = ACT(x * 1)
    y.register_hook(kept.append)
    (y * w).sum().backward()
    return kept[0], w


def kept_as_numpy(x, w):
    kept = []
    y = ACT(x * 1)
    y.register_hook(lambda g: kept.append(g.numpy()))
    (y * w).sum().backward()
    return torch.from_numpy(kept[0]), w


def given_by_the_caller(x, w):
    g = torch.ones(100)
    ACT(x * 1).backward(g)
    return g, torch.ones(100)


def asked_for(x, w):
    y = ACT(x * 1)
    return torch.autograd.grad((y * w).sum(), [x, y])[1], w


def shared_between_branches(x, w):
    a, b = ACT(x * 1), ACT(x * 2)
    g = torch.autograd.grad(((a + b) * w).sum(), [x, a, b])
    return g[1], w


@pytest.mark.parametrize(
    "run", [kept_by_a_hook, kept_as_numpy, given_by_the_caller, asked_for, shared_between_branches]
)
def test_gradients_that_others_hold_stay_as_they_are(run, reused):
    held, expected = run(*leaves())
    assert torch.equal(held, expected.detach())
    assert False in reused


@pytest.mark.parametrize("run", [plain, after_a_convolution, beside_a_shortcut, twice_on_a_graph])
@pytest.mark.parametrize("how", ["fused", "table"])
def test_gradients_are_those_of_the_formula(run, how):
    found = []
    for engine in (how, "eager"):
        x, w = leaves()
        with sk.engine(engine):
            run(x, w)
        found.append(x.grad)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-5)


def test_retained_gradients_are_copies():
    x, w = leaves()
    y = ACT(x * 1)
    y.retain_grad()
    (y * w).sum().backward()
    assert torch.equal(y.grad, w.detach())


def test_without_counts_nothing_is_written_over(monkeypatch):
    from softknee._engine import ownership

    unknown = (ownership.UNKNOWN,) * 3
    monkeypatch.setattr(ownership, "counts", lambda _: unknown)
    ownership._unshared.cache_clear()
    assert not ownership.is_unshared(unknown)
    ownership._unshared.cache_clear()


def test_a_torch_without_counts_is_no_error():
    from softknee._engine import ownership

    class Uncounted:
        def untyped_storage(self):
            return torch.ones(1).untyped_storage()

    assert ownership.counts(Uncounted()) == (ownership.UNKNOWN,) * 3
