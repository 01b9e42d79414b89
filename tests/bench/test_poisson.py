"""A loss with second derivatives: against autograd in float64, closed forms, and every engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import softknee as sk
from softknee._bench.poisson import BOUNDARY, forcing, laplacian, solution
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import DataError


@pytest.fixture(scope="module")
def equation():
    return load_tensors("generated", "test", "poisson")


def points_of(number=20, dtype=torch.float64):
    return torch.rand(number, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))


def perceptron(activation, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), activation, nn.Linear(16, 1)).to(dtype)


class Exact(nn.Module):
    def forward(self, points):
        return solution(points)


def test_the_forcing_belongs_to_the_solution_and_edges_are_zero(equation):
    points = points_of().requires_grad_()
    torch.testing.assert_close(-laplacian(solution(points), points), forcing(points))
    assert equation.edges.shape == (100, 2)
    assert solution(equation.edges.double()).abs().max() < 1e-6
    on_edge = (equation.edges == 0) | (equation.edges == 1)
    assert on_edge.any(1).all()
    assert on_edge.sum(0).tolist() == [2 * 25 + 2 * 2] * 2


def test_the_laplacian_is_the_trace_of_the_hessian():
    model, points = perceptron(nn.Tanh(), torch.float64), points_of().requires_grad_()
    hessians = torch.func.vmap(torch.func.hessian(lambda point: model(point)[0]))(points.detach())
    expected = hessians.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    torch.testing.assert_close(laplacian(model(points), points), expected)


def test_the_solution_has_no_loss_and_the_best_score(equation):
    points = points_of(200, torch.float32)
    loss, outputs = equation.objective(Exact(), points, equation.function(points))
    assert loss.item() < 1e-3  # of squares of up to 19,000
    score = equation.score(equation.tally(outputs, equation.function(points)).double().mean().item())
    assert score == 1
    assert equation.loss(solution(equation.test_inputs.double()), equation.test_targets) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64])
def test_the_loss_is_that_of_the_equation_and_its_edges_and_knows_no_solution(equation, dtype):
    """A model that is a paraboloid: its Laplacian is 2, and its square on the edges is known."""

    class Paraboloid(nn.Module):
        def forward(self, points):
            return points.square().sum(1, keepdim=True) / 2

    points = points_of(50, torch.float32)
    loss, outputs = equation.objective(Paraboloid(), points, torch.full((50, 1), float("nan")))
    along = torch.linspace(0, 1, 25, dtype=dtype).square() / 2
    edges = torch.cat([along, along, along + 0.5, along + 0.5]).square().mean()
    expected = (2 + forcing(points.to(dtype))).square().mean() + BOUNDARY * edges
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(outputs, points.square().sum(1, keepdim=True) / 2)


@pytest.mark.parametrize("mode", ["auto", "fused", "table", "eager"])
def test_every_engine_gives_the_gradients_of_plain_torch(equation, mode):
    """Third derivatives of the activation: engines step aside."""
    points = points_of(64, torch.float32)
    gradients = []
    for activation in (sk.create("tanh"), nn.Tanh()):
        model = perceptron(activation)
        with sk.engine(mode):
            equation.objective(model, points, points)[0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_trained_numbers_of_an_activation_get_their_gradients(equation):
    """Swish with a trained beta against the same in plain torch."""
    points, beta = points_of(64, torch.float32), nn.Parameter(torch.tensor([1.5]))

    class Written(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(beta * x)

    swish = sk.create("swish", beta=1.5)
    for activation in (swish, Written()):
        equation.objective(perceptron(activation), points, points)[0].backward()
    torch.testing.assert_close(swish.beta.grad, beta.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", ["relu", "identity", "prelu"])
def test_what_is_piecewise_linear_has_no_laplacian_and_no_error(equation, text):
    points = points_of(64, torch.float32).requires_grad_()
    model = perceptron(sk.create(text))
    assert laplacian(model(points), points).abs().max() == 0
    equation.objective(model, points, points)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_evaluation_without_gradients_still_has_a_loss(equation):
    points = points_of(64, torch.float32)
    model = perceptron(nn.Tanh())
    with torch.no_grad():
        loss, _ = equation.objective(model, points, points)
    assert loss.item() == equation.objective(model, points, points)[0].item()


def test_nothing_can_be_held_out_and_the_definition_is_what_results_are_keyed_by():
    with pytest.raises(DataError, match="poisson has no part to hold out"):
        TASKS["poisson"].load("generated", "validation")
    assert TASKS["poisson"].facts("generated").fingerprint[:8] == "fc8dd74d"


@pytest.mark.slow
def test_smooth_activations_learn_the_solution_and_relu_does_not(tmp_path):
    study = sk.bench("pinn-poisson", ["tanh", "gelu", "relu"], seeds=1, out=tmp_path, executor="here")
    scores = {row.activation: row.mean for row in study.table[0].rows}
    assert scores["tanh"] > 0.95
    assert scores["gelu"] > 0.5
    assert scores["relu"] < 0
