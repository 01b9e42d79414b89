from __future__ import annotations

import pytest
import torch
from curved import dense, drawn, flat, matrix, normal, of_two_batches, perceptron, sample
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.curvature.hessian import hessian
from softknee._diagnose.task import task
from softknee._errors import UsageError

X, Y = sample()
# All of torch's activations of single elements.
ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.PReLU(5), nn.RReLU(), nn.ELU(), nn.SELU(), nn.CELU()),
    *(nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Hardswish()),
    *(nn.Hardtanh(), nn.Softplus(), nn.Softsign(), nn.LogSigmoid(), nn.Softshrink(), nn.Hardshrink(), nn.Tanhshrink()),
    *(nn.Threshold(0.1, 0.2), nn.Softmax(-1), nn.Hardsigmoid(inplace=True), nn.SiLU(inplace=True)),
]
OWN = ("rational", "srelu", "swish", "pelu", "telu", "mish", "snake")


def differences(model, x, y, loss):
    """The Hessian by central differences of gradients, one column after another, with the weights moved by hand."""
    parameters, step = list(model.parameters()), 1e-5
    columns = []
    for parameter in parameters:
        for place in range(parameter.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * step
                gradient = torch.autograd.grad(loss(model(x), y), parameters)
                with torch.no_grad():
                    parameter.view(-1)[place] -= sign * step
                ends.append(torch.cat([one.reshape(-1) for one in gradient]))
            columns.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(columns)


def test_t19_products_equal_the_hessian_of_torch_func():
    model = perceptron(nn.Tanh())
    with hessian(of_two_batches(model, X, Y)) as operator:
        assert operator.method == "double backward, graph kept"
        torch.testing.assert_close(matrix(operator), dense(model, X, Y), rtol=0, atol=1e-14)
        assert operator.loss == pytest.approx(F.cross_entropy(model(X), Y).item(), abs=1e-14)


def test_t19_products_equal_it_in_single_precision():
    exact = dense(perceptron(nn.Tanh()), X, Y)
    model = perceptron(nn.Tanh()).float()
    with hessian(of_two_batches(model, X.float(), Y)) as operator:
        found = torch.stack([operator(unit) for unit in torch.eye(operator.size)])
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=4e-7)


class Quadratic(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix
        self.w = nn.Parameter(normal(len(matrix), seed=3))

    def forward(self, x):
        return (self.w @ self.matrix @ self.w / 2).expand(len(x))


def test_t19_hessian_of_a_quadratic_is_its_matrix():
    a = normal(6, 6)
    a = a + a.T
    with hessian(of_two_batches(Quadratic(a), X, Y, lambda outputs, _: outputs.mean())) as operator:
        torch.testing.assert_close(matrix(operator), a, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cuts", [(20,), (10, 10), (3, 9, 8), (1,) * 20])
def test_does_not_depend_on_how_the_sample_is_cut_into_batches(cuts):
    model = perceptron(nn.Tanh())
    parts = list(zip(X.split(list(cuts)), Y.split(list(cuts)), strict=True))
    v = normal(len(flat(model)))
    with hessian(task(model, parts, "cross_entropy")) as operator:
        torch.testing.assert_close(operator(v), dense(model, X, Y) @ v, rtol=1e-12, atol=1e-13)


def test_graphs_that_do_not_fit_are_made_anew_for_each_product():
    model = perceptron(nn.Tanh())
    v = normal(len(flat(model)))
    parts = list(zip(X.split(5), Y.split(5), strict=True))
    with hessian(task(model, parts, "cross_entropy")) as operator:
        kept, each = operator(v), operator._bytes(operator.task.batches[0])
    assert each > 0
    for limit, count in ((0, 4), (int(2.5 * each), 2)):
        with hessian(task(model, parts, "cross_entropy"), limit=limit) as operator:
            assert f"anew for {count} of 4 batches" in operator.method
            torch.testing.assert_close(operator(v), kept, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(operator(v), kept, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_every_activation_of_torch_has_products(activation):
    model = perceptron(activation).eval()
    x = X[:6]
    with hessian(task(model, [(x, Y[:6])], "cross_entropy")) as operator:
        assert operator.method.startswith("double backward")
        torch.testing.assert_close(
            matrix(operator), differences(model, x, Y[:6], F.cross_entropy), rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("name", OWN)
def test_every_engine_of_ours_has_products(name):
    model = perceptron(sk.create(name))
    with hessian(task(model, [(X[:6], Y[:6])], "cross_entropy")) as operator:
        assert operator.method.startswith("double backward")
        torch.testing.assert_close(
            matrix(operator), differences(model, X[:6], Y[:6], F.cross_entropy), rtol=1e-5, atol=1e-7
        )


def test_large_tensors_of_ours_which_engines_take_have_products():
    model = perceptron(sk.create("rational"), width=16).float()
    x = normal(600, 3).float()
    y = torch.zeros(600, dtype=torch.long)
    v = normal(len(flat(model)))
    with hessian(task(model, [(x, y)], "cross_entropy")) as operator:
        found = operator(v)
    with hessian(task(model.double(), [(x.double(), y)], "cross_entropy")) as operator:
        torch.testing.assert_close(found.double(), operator(v), rtol=1e-3, atol=1e-5)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True, activation="gelu")
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        q = self.layer(x)
        return self.last(q + F.scaled_dot_product_attention(q, q, q)).mean(1)


class Recurrent(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.layer = nn.LSTM(4, 3, batch_first=True)
        self.middle = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.last = nn.Linear(3, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.layer(x)[0][:, -1]
        if self.reentrant is None:
            return self.last(self.middle(x))
        return self.last(checkpoint(self.middle, x, use_reentrant=self.reentrant))


def normed():
    model = nn.Sequential(nn.Conv1d(3, 2, 2), nn.BatchNorm1d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6, 2))
    model = drawn(model)
    model[1].running_var.fill_(2.0)
    return model


@pytest.mark.parametrize("make", [lambda: drawn(Attention()), lambda: drawn(Recurrent()), normed])
def test_attention_recurrence_and_norms_have_products(make):
    model, x, y = make().eval(), normal(4, 3, 4), Y[:4]
    with hessian(task(model, [(x, y)], "cross_entropy")) as operator:
        assert operator.method.startswith("double backward")
        v = normal(operator.size)
        found = operator(v)
    # The fused kernels have first derivatives, and recurrent layers no forward mode.
    expected = along(model, x, y, v)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def along(model, x, y, v):
    """`H v` by central differences with the weights moved by hand."""
    parameters, step = list(model.parameters()), 1e-5
    parts = [
        part.view(one.shape) for part, one in zip(v.split([p.numel() for p in parameters]), parameters, strict=True)
    ]
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for one, part in zip(parameters, parts, strict=True):
                one.add_(part, alpha=sign * step)
        gradient = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for one, part in zip(parameters, parts, strict=True):
                one.sub_(part, alpha=sign * step)
        ends.append(torch.cat([one.reshape(-1) for one in gradient]))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_have_products_too_by_differences_where_they_must(reentrant):
    model, plain = drawn(Recurrent(reentrant)), drawn(Recurrent())
    x, y = normal(4, 3, 4), Y[:4]
    with hessian(task(plain, [(x, y)], "cross_entropy")) as operator:
        v = normal(operator.size)
        expected = operator(v)
    with hessian(task(model, [(x, y)], "cross_entropy")) as operator:
        assert operator.differences is reentrant
        if reentrant:
            assert operator.method.startswith("central differences of gradients (When use_reentrant=True")
        torch.testing.assert_close(operator(v), expected, rtol=1e-6, atol=1e-9)
        assert not operator(torch.zeros(operator.size)).any()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0] ** 2


class Cube(nn.Module):
    def forward(self, x):
        return Once.apply(x)


class PlainCube(nn.Module):
    def forward(self, x):
        return x**3


def test_functions_without_second_derivative_go_by_differences_and_it_says_so():
    with hessian(of_two_batches(perceptron(Cube()), X, Y)) as operator:
        assert operator.method.startswith("central differences of gradients (trying to differentiate twice")
        expected = dense(perceptron(PlainCube()), X, Y)
        torch.testing.assert_close(matrix(operator), expected, rtol=1e-5, atol=1e-6)


def test_frozen_parameters_are_left_out_and_blocks_may_be_chosen():
    model = perceptron(nn.Tanh())
    whole = dense(model, X, Y)
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.numel()
    with hessian(of_two_batches(model, X, Y)) as operator:
        torch.testing.assert_close(matrix(operator), whole[frozen:, frozen:], rtol=0, atol=1e-14)
        operator.differences = True
        torch.testing.assert_close(matrix(operator), whole[frozen:, frozen:], rtol=0, atol=1e-8)
    with hessian(of_two_batches(model, X, Y), list(model[2].parameters())) as operator:
        torch.testing.assert_close(matrix(operator), whole[-operator.size :, -operator.size :], rtol=0, atol=1e-14)


def test_tied_and_unused_parameters_count_once_and_as_flat():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.idle = nn.Linear(2, 2)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    model = drawn(Tied())
    with hessian(of_two_batches(model, X, Y)) as operator:
        found = matrix(operator)
        operator.differences = True
        torch.testing.assert_close(found, matrix(operator), rtol=0, atol=1e-8)
    assert len(found) == 9 + 3 + 3 + 6
    assert not found[-6:].any()
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-14)


def test_the_model_is_as_before_also_after_an_error():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2)).double()
    model(X).sum().backward()
    model[3].weight.requires_grad_(False)
    gradients = [None if one.grad is None else one.grad.clone() for one in model.parameters()]
    values = {name: one.clone() for name, one in model.state_dict().items()}
    state = torch.get_rng_state()

    def use():
        with hessian(of_two_batches(model, X, Y)) as operator:
            operator(normal(operator.size))
            operator.differences = True
            operator(normal(operator.size))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert model.training
    assert model[2].training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, values[name]) for name, one in model.state_dict().items())
    assert [one.requires_grad for one in model.parameters()] == [True, True, True, True, False, True]
    for one, before in zip(model.parameters(), gradients, strict=True):
        assert before is None or (torch.equal(one.grad, before) and not one.grad.requires_grad)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_loss_that_is_linear_has_no_curvature():
    model = drawn(nn.Linear(3, 2))
    with hessian(of_two_batches(model, X, Y, lambda outputs, _: outputs.mean())) as operator:
        assert not matrix(operator).any()


def test_errors_are_told():
    model = perceptron(nn.Tanh())
    with (
        pytest.raises(UsageError, match="the loss depends on no trainable parameter"),
        hessian(of_two_batches(model, X, Y, lambda outputs, _: outputs.detach().mean())),
    ):
        pass
    with (
        pytest.raises(UsageError, match="not finite"),
        hessian(of_two_batches(model, X, Y, lambda outputs, _: outputs.mean() / 0)),
    ):
        pass
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter is trainable"), hessian(of_two_batches(model, X, Y)):
        pass
