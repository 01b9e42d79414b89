"""The tangent kernel and the Lipschitz interval of models with broken numbers, and of ones run by checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from softknee._diagnose.curvature.ntk import ntk
from softknee._diagnose.flow.lipschitz import lipschitz
from softknee._errors import UsageError

MEASURES = ((ntk, "tangent kernel"), (lipschitz, "Lipschitz constant"))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("measure", "what"), MEASURES)
def test_weights_that_are_not_finite_are_refused_in_a_sentence(measure, what, value):
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = value
    with pytest.raises(UsageError) as caught:
        measure(model, [torch.randn(6, 4)])
    assert str(caught.value) == f"the weights of the model are not finite (2.weight), so it has no {what}"
    assert model.training


@pytest.mark.parametrize(("measure", "what"), MEASURES)
def test_outputs_that_are_not_finite_are_refused_in_a_sentence(measure, what):
    batches = [torch.randn(6, 4), torch.full((1, 4), math.nan)]
    with pytest.raises(UsageError) as caught:
        measure(network(), batches)
    assert str(caught.value) == f"the outputs of the model are not finite, so it has no {what}"


class Root(nn.Module):
    """`sqrt(w x)`: finite at 0, with an infinite slope."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (self.weight * x).sqrt()


def test_a_gradient_may_be_infinite_where_outputs_are_not():
    # 0 / (2 sqrt(0)) for the first sample, sqrt(x) / 2 for the others.
    values = ntk(Root(), [torch.tensor([[0.0], [4.0], [16.0]])]).values
    assert values[0].isnan().all()
    assert values[1:, 1:].tolist() == [[1.0, 2.0], [2.0, 4.0]]


class Checkpointed(nn.Module):
    def __init__(self, inner, *, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_have_the_interval_of_the_model_they_run(reentrant):
    data = [torch.randn(6, 4, generator=torch.Generator().manual_seed(1))]
    expected = lipschitz(network(), data)
    model = Checkpointed(network(), reentrant=reentrant)
    model.inner[0].bias.requires_grad_(requires_grad=False)
    found = lipschitz(model, data)
    assert (found.low, found.high) == (expected.low, expected.high)
    # By the definition, in float64.
    inner = model.inner.double()
    jacobians = [torch.autograd.functional.jacobian(inner, one) for one in data[0].double()]
    assert found.low == pytest.approx(max(float(torch.linalg.matrix_norm(one, 2)) for one in jacobians), rel=1e-3)
    assert [one.requires_grad for one in model.parameters()] == [True, False, True, True]
    assert all(one.grad is None for one in model.parameters())
