from __future__ import annotations

import pytest
import torch
from curved import dense, drawn, flat, function_of_parameters, normal, of_two_batches, perceptron, sample
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.curvature.gauss_newton import along
from softknee._diagnose.curvature.hessian import hessian
from softknee._diagnose.curvature.spectra import hessian_split
from softknee._errors import UsageError

X, Y = sample()


def second(function, z):
    """phi'' by differences of first derivatives."""
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = (z + sign * step).requires_grad_()
        ends.append(torch.autograd.grad(function(moved.clone()).sum(), moved)[0])
    return (ends[0] - ends[1]) / (2 * step)


def gauss_newton(model, x, y):
    """J' L'' J, dense."""
    outputs = function_of_parameters(model, x)
    jacobian = torch.func.jacrev(outputs)(flat(model)).flatten(0, 1)
    logits = outputs(flat(model)).detach()
    bend = torch.func.hessian(lambda one: F.cross_entropy(one.view_as(logits), y))(logits.reshape(-1))
    return jacobian.T @ bend @ jacobian


def written_out(model, x, y, v):
    """All three parts along v of a network of one hidden layer, by hand."""
    first, activation, last = model
    parts = v.split([one.numel() for one in model.parameters()])
    w1, b1, w2, b2 = (part.view(one.shape) for part, one in zip(parts, model.parameters(), strict=True))
    z = F.linear(x, first.weight, first.bias).detach()
    h, dz = activation(z.clone()), F.linear(x, w1, b1)
    zr = z.clone().requires_grad_()
    slope = torch.autograd.grad(activation(zr.clone()).sum(), zr)[0]
    logits = F.linear(h, last.weight, last.bias).detach()
    p = logits.softmax(-1)
    df = F.linear(h, w2, b2) + F.linear(slope * dz, last.weight)
    by_loss = ((p * df**2).sum(-1) - (p * df).sum(-1) ** 2).sum() / len(x)
    dl_df = (p - F.one_hot(y, p.shape[1])) / len(x)
    by_products = 2 * (dl_df * F.linear(slope * dz, w2)).sum()
    by_phi = ((dl_df @ last.weight) * second(activation, z) * dz**2).sum()
    return by_loss.item(), by_products.item(), by_phi.item()


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.Tanh(), nn.SiLU(inplace=True), nn.ReLU(), sk.create("mish")], ids=repr
)
def test_parts_of_one_hidden_layer_are_those_written_out(activation):
    model = perceptron(activation)
    with hessian(of_two_batches(model, X, Y)) as operator:
        directions = [normal(operator.size, seed=seed) for seed in range(3)]
        parts, unseen = along(operator, directions)
        for v, found in zip(directions, parts, strict=True):
            by_loss, by_products, by_phi = written_out(model, X, Y, v)
            assert found.gauss_newton == pytest.approx(by_loss, abs=1e-12)
            assert found.by_site == {"1": pytest.approx(by_phi, abs=1e-8)}
            # Sum of the parts is the whole.
            whole = float(v @ operator(v))
            assert found.gauss_newton + by_products + found.by_site["1"] == pytest.approx(whole, abs=1e-8)
    assert unseen == {}


class Deep(nn.Module):
    """Activations as module in place, function, expression and shared module, with a sum of two streams."""

    def __init__(self, checked=False):
        super().__init__()
        self.first, self.second, self.third, self.last = (
            *(nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 5)),
            nn.Linear(5, 2),
        )
        self.act = nn.SiLU(inplace=True)
        self.shared = nn.Softplus()
        self.checked = checked

    def forward(self, x):
        x = self.act(self.first(x))
        shortcut = torch.tanh(x)
        x = self.shared(self.second(x))
        x += shortcut
        x = checkpoint(self.third, x, use_reentrant=False) if self.checked else self.third(x)
        x = x * torch.sigmoid(x)
        return self.shared(self.last(x))


@pytest.mark.parametrize("checked", [False, True])
def test_parts_of_a_deep_network_sum_to_the_hessian(checked):
    model = drawn(Deep(checked))
    g, h = gauss_newton(drawn(Deep()), X, Y), dense(drawn(Deep()), X, Y)
    with hessian(of_two_batches(model, X, Y)) as operator:
        v = normal(operator.size)
        parts, unseen = along(operator, [v])
    assert parts[0].gauss_newton == pytest.approx(float(v @ g @ v), abs=1e-12)
    expected = rest_by_phi(drawn(Deep()), v)
    assert parts[0].by_site == {name: pytest.approx(value, abs=1e-7) for name, value in expected.items()}
    assert unseen == {}
    # What is left is of products of layers.
    assert abs(float(v @ h @ v) - parts[0].gauss_newton - sum(expected.values())) > 1e-3


def rest_by_phi(model, v):
    """The parts of `Deep` through phi'' along v, each by bending one activation at a time around where it is.

    An activation is replaced by its tangent at the fixed point; what the second derivative of the loss loses is its
    part.
    """

    def loss(vector, straight):
        parts = vector.split([one.numel() for one in model.parameters()])
        values = [part.view(one.shape) for part, one in zip(parts, model.parameters(), strict=True)]
        points = at or [None] * 5
        seen = []

        def act(number, function, z):
            seen.append(z.detach())
            if number != straight:
                return function(z)
            point = points[number]
            _, slope = torch.func.jvp(function, (point,), (torch.ones_like(point),))
            return function(point) + slope * (z - point)

        w1, b1, w2, b2, w3, b3, w4, b4 = values
        x = act(0, F.silu, F.linear(X, w1, b1))
        shortcut = act(1, torch.tanh, x)
        x = act(2, F.softplus, F.linear(x, w2, b2)) + shortcut
        x = act(3, F.silu, F.linear(x, w3, b3))
        return F.cross_entropy(act(4, F.softplus, F.linear(x, w4, b4)), Y), seen

    at: list = []
    at.extend(loss(flat(model), -1)[1])
    w = flat(model)

    def bend(straight):
        point = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(point, straight)[0], point, create_graph=True)
        return float(v @ torch.autograd.grad(g, point, v)[0])

    whole = bend(-1)
    lost = [whole - bend(number) for number in range(5)]
    return {"act": lost[0], "model#0": lost[1], "shared": lost[2], "model#1": lost[3], "shared#1": lost[4]}


def test_traces_are_exact_for_few_parameters_and_sum_up():
    model = perceptron(nn.Tanh())
    found = hessian_split(model, [(X[:7], Y[:7]), (X[7:], Y[7:])], "cross_entropy")
    h, g = dense(model, X, Y), gauss_newton(model, X, Y)
    assert found.gauss_newton.value == pytest.approx(g.trace().item(), abs=1e-12)
    assert found.residual.value == pytest.approx((h - g).trace().item(), abs=1e-10)
    assert found.gauss_newton.value + found.residual.value == pytest.approx(h.trace().item(), abs=1e-10)
    # Products of two layers lie off the diagonal: the trace of the rest is that of phi'' alone.
    assert found.activation.value == pytest.approx(found.residual.value, abs=1e-10)
    assert found.activation.low == found.activation.high


def test_random_traces_cover_the_exact_ones():
    model = perceptron(nn.GELU(), width=40)
    found = hessian_split(model, [(X, Y)], "cross_entropy", probes=60)
    h, g = dense(model, X, Y), gauss_newton(model, X, Y)
    for interval, exact in ((found.gauss_newton, g.trace()), (found.residual, (h - g).trace())):
        assert interval.low < interval.high
        assert abs(interval.value - exact.item()) < 1.8 * (interval.high - interval.value)
    assert found.by_site["1"] == found.activation


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(), nn.Hardsigmoid(), nn.Hardtanh(), nn.PReLU()], ids=repr
)
def test_straight_lines_have_no_second_derivative(activation):
    model = perceptron(activation)
    assert hessian_split(model, [(X, Y)], "cross_entropy").activation.value == 0


def test_softmax_and_pairs_count_as_products_and_are_told():
    for activation, after in ((nn.Softmax(-1), 5), (nn.GLU(), 3)):
        model = perceptron(activation, width=5 if after == 5 else 6, after=after)
        found = hessian_split(model, [(X, Y)], "cross_entropy")
        assert found.by_site == {}
        assert found.unseen["1"].startswith("its outputs depend on several inputs")
        assert found.residual.value != 0


def test_outputs_that_are_made_of_one_another_are_taken_by_themselves():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            middle = torch.tanh(self.first(x))
            return {"logits": self.last(middle), "middle": middle}

    def loss(outputs, target):
        return F.cross_entropy(outputs["logits"], target) + outputs["middle"].pow(4).mean()

    model = drawn(Two())
    found = hessian_split(model, [(X, Y)], loss)
    # The Gauss-Newton part by hand: both outputs are functions of the parameters.
    outputs = function_of_parameters(model, X)
    both = lambda vector: torch.cat(list(outputs(vector).values()), 1)  # noqa: E731
    jacobian = torch.func.jacrev(both)(flat(model)).flatten(0, 1)
    at = both(flat(model)).detach()
    bend = torch.func.hessian(
        lambda one: loss({"logits": one.view_as(at)[:, :2], "middle": one.view_as(at)[:, 2:]}, Y)
    )(at.reshape(-1))
    assert found.gauss_newton.value == pytest.approx((jacobian.T @ bend @ jacobian).trace().item(), abs=1e-12)


def test_what_cannot_be_split_is_told():
    class OwnLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return {"loss": self.layer(x).square().mean()}

    with pytest.raises(UsageError, match="the model returns its own loss, and no logits"):
        hessian_split(drawn(OwnLoss()), [X], None)
