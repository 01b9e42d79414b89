"""A swapped model is a model: it trains, moves, saves, loads, copies, compiles, is exported, mapped, differentiated."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, gradients, linear, numbers

import softknee as sk

X = numbers(6, 4, seed=9)


def network(relu=F.relu, silu=None, act=nn.ReLU, last=nn.SiLU):
    """Functions, an expression, an instance that is called twice, one at two paths, and modules."""
    silu = silu or (lambda x: x * torch.sigmoid(x))

    def inner(s, x):
        h = relu(s.a(x))
        h = silu(s.b(h)) + h
        return s.act(s.b(s.act(s.a(h))))

    shared = act()
    return nn.Sequential(
        Written(inner, a=linear(4, 4), b=linear(4, 4, 3), act=act()),
        *(linear(4, 4, 5), shared, linear(4, 4, 7), shared, last(), linear(4, 3, 9)),
    )


def swapped(to="swish[beta=1.5]", **options):
    model = network()
    sk.swap(model, to, example_inputs=X, **options)
    return model


def reference():
    """The same, written by hand, with a trained number at each place."""

    class Swish(nn.Module):
        def __init__(self):
            super().__init__()
            self.beta = nn.Parameter(torch.tensor([1.5]))

        def forward(self, x):
            return x * torch.sigmoid(self.beta * x)

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = linear(4, 4), linear(4, 4, 3)
            self.act = nn.ModuleList([Swish(), Swish()])
            self.softknee_0, self.softknee_1 = Swish(), Swish()

        def forward(self, x):
            h = self.softknee_0(self.a(x))
            h = self.softknee_1(self.b(h)) + h
            return self.act[1](self.b(self.act[0](self.a(h))))

    return nn.Sequential(Inner(), *(linear(4, 4, 5), Swish(), linear(4, 4, 7), Swish(), Swish(), linear(4, 3, 9)))


def close(model, wanted, x=X):
    got, right = gradients(model, x), gradients(wanted, x)
    names = ["output", "input", *(name for name, _ in model.named_parameters())]
    others = dict(zip(["output", "input", *(name for name, _ in wanted.named_parameters())], right, strict=True))
    assert set(names) == set(others)
    for name, one in zip(names, got, strict=True):
        torch.testing.assert_close(
            one, others[name], rtol=2e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_values_and_all_gradients_are_those_of_a_model_written_by_hand():
    close(swapped(), reference())


def test_it_trains_as_one_written_by_hand():
    models = [swapped(), reference()]
    target = numbers(6, 3, seed=2)
    losses = []
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = (model(X) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    assert all(float(one) != 1.5 for name, one in models[0].named_parameters() if name.endswith("beta"))


def test_to_another_dtype():
    model = swapped().to(torch.float64)
    wanted = reference().to(torch.float64)
    assert {one.dtype for one in model.parameters()} == {torch.float64}
    close(model, wanted, X.double())


def test_to_another_device():
    model = swapped().to("meta")
    assert model(X.to("meta")).device.type == "meta"


def test_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        got, right = swapped()(X), reference()(X)
    torch.testing.assert_close(got, right, rtol=2e-2, atol=2e-2)


def test_eval_and_inference_mode():
    model, wanted = swapped().eval(), reference().eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(X), wanted(X))
    with torch.no_grad():
        torch.testing.assert_close(model(X), wanted(X))


def test_a_state_dict_fits_a_model_that_is_swapped_afresh():
    model = swapped()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    fresh = swapped()
    fresh.load_state_dict(loaded)
    assert torch.equal(fresh(X), model(X))
    # And one that is written by hand, but for the names of what takes turns.
    wanted = reference()
    wanted.load_state_dict(loaded)
    close(fresh, wanted)


def test_functional_call_and_vmap_over_models():
    model, wanted = swapped(), reference()
    stacked = {
        name: torch.stack([one.detach(), one.detach() + 0.1, one.detach() - 0.2])
        for name, one in model.named_parameters()
    }

    def call(one, parameters, x):
        return torch.func.functional_call(one, parameters, (x,))

    for index in range(3):
        parameters = {name: one[index] for name, one in stacked.items()}
        torch.testing.assert_close(call(model, parameters, X), call(wanted, parameters, X))
    got = torch.vmap(lambda parameters: call(model, parameters, X))(stacked)
    right = torch.stack([call(wanted, {name: one[index] for name, one in stacked.items()}, X) for index in range(3)])
    torch.testing.assert_close(got, right)


def test_gradients_of_each_example():
    model, wanted = swapped(), reference()

    def loss(one):
        parameters = {name: value.detach() for name, value in one.named_parameters()}

        def function(parameters, x):
            return torch.func.functional_call(one, parameters, (x[None],)).square().sum()

        return torch.vmap(torch.func.grad(function), (None, 0))(parameters, X)

    got, right = loss(model), loss(wanted)
    for name, one in right.items():
        torch.testing.assert_close(got[name], one, rtol=1e-4, atol=1e-5)


def test_second_derivatives():
    model = swapped("mish").double()
    x = X.double()[:2].requires_grad_()
    assert torch.autograd.gradgradcheck(model, x)


@pytest.mark.parametrize("training", [True, False])
def test_compiled_in_one_graph(training):
    torch._dynamo.reset()
    model = swapped().train(training)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for x in (X, X + 1, X):
        wanted = gradients(model, x)
        for one, other in zip(gradients(compiled, x), wanted, strict=True):
            torch.testing.assert_close(one, other)
    close(model, reference())


def test_a_part_compiled_in_place():
    torch._dynamo.reset()
    model = swapped()
    model[0].compile(backend="aot_eager", fullgraph=True)
    close(model, reference())


def test_a_compiled_model_is_compiled_once():
    torch._dynamo.reset()
    model = swapped()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(3):
        compiled(X)
    assert counter.frame_count == 1


def test_a_function_that_compilers_hide_is_an_error_where_they_run_it():
    torch._dynamo.reset()
    model = Written(lambda s, x: torch.relu_(s.a(x)) + 1, a=linear(4, 4))
    sk.swap(model, "softplus", example_inputs=X)
    torch.testing.assert_close(model(X), F.softplus(model.a(X)) + 1)
    with pytest.raises(
        Exception,
        match=r"torch.relu_, F.tanh, F.hardswish and functions like them cannot be replaced where a compiler runs",
    ):
        torch.compile(model, backend="eager", fullgraph=True)(X)


@pytest.mark.parametrize("strict", [True, False])
def test_export(strict):
    model = swapped().eval()
    program = torch.export.export(model, (X,), strict=strict)
    torch.testing.assert_close(program.module()(X), reference()(X))
    assert {name for name in program.state_dict if name.endswith("beta")} == {
        name for name in model.state_dict() if name.endswith("beta")
    }


@pytest.mark.slow
def test_onnx():
    onnxruntime = pytest.importorskip("onnxruntime")
    model = swapped().eval()
    file = io.BytesIO()
    torch.onnx.export(model, (X,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    (output,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), reference()(X).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_for_the_machine(dynamic):
    torch._dynamo.reset()
    model = swapped()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for rows in (6, 5):
        for one, other in zip(gradients(compiled, X[:rows]), gradients(model, X[:rows]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_replaced_in_place_functions_compile():
    def build(act):
        def forward(s, x):
            h = s.a(x)
            act(h)
            return s.a(h)

        return Written(forward, a=linear(4, 4))

    for act in (lambda h: F.relu(h, inplace=True), lambda h: h.relu_(), lambda h: h.mul_(h.sigmoid())):
        torch._dynamo.reset()
        model = build(act)
        sk.swap(model, "softplus", example_inputs=X)
        wanted = Written(lambda s, x: s.a(F.softplus(s.a(x))), a=linear(4, 4))
        close(model, wanted)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for one, other in zip(gradients(compiled, X), gradients(wanted, X), strict=True):
            torch.testing.assert_close(one, other)


def test_a_traced_graph_of_a_model_is_a_model_too():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act = linear(4, 4), nn.Tanh()

        def forward(self, x):
            return self.a(self.act(F.relu(self.a(x))).relu())

    model = torch.fx.symbolic_trace(Plain())
    sk.swap(model, "softplus", where="relu", example_inputs=X)
    a = model.a
    torch.testing.assert_close(model(X), a(F.softplus(torch.tanh(F.softplus(a(X))))))
