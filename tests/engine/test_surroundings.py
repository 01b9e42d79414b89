from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from subjects import CHANNELS, DEFAULTS, SHARED, SUBJECTS, normal, run, subject
from torch.autograd import forward_ad, grad
from torch.func import functional_call, hessian, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from softknee import nn

# But for those of torch about itself.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
]


# What surrounds an evaluation. Each gets a module and an input, and gives tensors to compare with those of eager.


def plainly(module, x):
    return module(x)


def gradients(module, x):
    results = run(module, x, torch.ones_like(x))
    return [results[0], results[1], *results[2].values()]


def vectorized(module, x):
    return vmap(module)(x)


def vectorized_per_sample(module, x):
    """Gradients of every sample by the parameters."""
    parameters = dict(module.named_parameters())

    def loss(parameters, sample):
        return functional_call(module, parameters, (sample,)).square().sum()

    return [*vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x).values()]


def functional_gradient(module, x):
    return torch.func.grad(lambda x: module(x).square().sum())(x)


def jacobian(module, x):
    return jacrev(module)(x[0])


def second_matrix(module, x):
    return hessian(lambda x: module(x).sum())(x[0])


def forward_mode(module, x):
    return list(jvp(module, (x,), (torch.ones_like(x),)))


def dual_numbers(module, x):
    with forward_ad.dual_level():
        return list(forward_ad.unpack_dual(module(forward_ad.make_dual(x, torch.ones_like(x)))))


def dual_parameters(module, x):
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(value.detach(), torch.ones_like(value))
            for name, value in module.named_parameters()
        }
        primal, tangent = forward_ad.unpack_dual(functional_call(module, duals, (x,)))
        return [primal, torch.zeros(()) if tangent is None else tangent]


def other_parameters(module, x):
    """Tensors in place of parameters, with gradients that flow on."""
    scale = torch.tensor(1.5, requires_grad=True)
    values = {name: scale * value.detach() for name, value in module.named_parameters()}
    y = functional_call(module, values, (x,))
    return [y, *(grad(y.sum(), scale) if values else ())]


def traced(module, x):
    graph = make_fx(module)(x)
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets
    assert all(target.startswith("aten.") for target in targets)
    return graph(x)


def traced_by_jit(module, x):
    return torch.jit.trace(module, x, check_trace=False)(x)


class Watcher(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def watched(module, x):
    with Watcher() as watcher:
        y = module(x)
    assert watcher.seen
    return y


class Tagged(torch.Tensor):
    """A subclass without memory of its own."""


def of_a_subclass(module, x):
    y = module(x.as_subclass(Tagged))
    assert isinstance(y, Tagged)
    return y.as_subclass(torch.Tensor)


def automatically_cast(module, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    assert y.dtype == x.dtype
    return y


def after_a_cast_layer(module, x):
    layer = torch.nn.Linear(CHANNELS, CHANNELS)
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    x = x.bfloat16().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = layer(x)
        assert hidden.dtype == torch.bfloat16
        return module(hidden).float()


def in_inference(module, x):
    with torch.inference_mode():
        return module(x).clone()


def without_gradients(module, x):
    with torch.no_grad():
        y = module(x)
    assert not y.requires_grad
    return y


def copied(module, x):
    return copy.deepcopy(module)(x)


def pickled(module, x):
    module(x)
    return pickle.loads(pickle.dumps(module))(x)


def saved_and_loaded(module, x):
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = type(module)(engine=module.wanted_engine)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh(x)


def checkpointed(module, x):
    x = x.detach().requires_grad_()
    y = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    return [y, *grad(y.square().sum(), [x, *module.parameters()])]


def with_hooks_on_saved_tensors(module, x):
    x = x.detach().requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        y = module(x)
    return [y, *grad(y.square().sum(), [x, *module.parameters()])]


def under_anomaly_detection(module, x):
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        return gradients(module, x)


def in_another_thread(module, x):
    results = []
    thread = threading.Thread(target=lambda: results.extend(gradients(module, x)))
    thread.start()
    thread.join()
    return results


def with_other_defaults(module, x):
    torch.set_default_dtype(torch.float64)
    try:
        return gradients(module, x)
    finally:
        torch.set_default_dtype(torch.float32)


def with_low_defaults(module, x):
    torch.set_default_dtype(torch.bfloat16)
    try:
        return gradients(module, x)
    finally:
        torch.set_default_dtype(torch.float32)


def on_another_default_device(module, x):
    with torch.device("meta"):
        return gradients(module, x)


SURROUNDINGS = [
    *(
        plainly,
        gradients,
        vectorized,
        vectorized_per_sample,
        functional_gradient,
        jacobian,
        second_matrix,
        forward_mode,
    ),
    *(dual_numbers, dual_parameters, other_parameters, traced, watched, of_a_subclass, automatically_cast),
    *(after_a_cast_layer, in_inference, without_gradients, copied, pickled, saved_and_loaded, checkpointed),
    *(with_hooks_on_saved_tensors, under_anomaly_detection, in_another_thread, with_other_defaults, with_low_defaults),
    on_another_default_device,
]


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("surrounding", SURROUNDINGS, ids=lambda surrounding: surrounding.__name__)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_surroundings(surrounding, name, how):
    x = normal(40, CHANNELS)
    got, wanted = (surrounding(SHARED[name](engine_name), x) for engine_name in (how, "eager"))
    for one, other in zip(*([found] if torch.is_tensor(found) else found for found in (got, wanted)), strict=True):
        tolerance = 1e-2 if surrounding is after_a_cast_layer else 2e-5
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()) + 1e-7
        )


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
@pytest.mark.parametrize("surrounding", [gradients, other_parameters, pickled, copied, watched, vectorized_per_sample])
def test_surroundings_of_parameters_of_channels(surrounding, how):
    x = normal(40, CHANNELS)
    make = subject("swish", per_channel=True).module
    if surrounding is vectorized_per_sample:
        x = x[:, None]
    got, wanted = (surrounding(make(engine=engine_name), x) for engine_name in (how, "eager"))
    for one, other in zip(*([found] if torch.is_tensor(found) else found for found in (got, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5 * float(other.detach().abs().max()))


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
def test_gradients_flow_to_what_replaces_fixed_values(how):
    """Whatever is given in their place by `functional_call`, or by assignment."""
    x = normal(40, CHANNELS)
    module = nn.ELU(per_channel=CHANNELS, engine=how)
    alpha = torch.full((CHANNELS,), 0.7, requires_grad=True)
    (got,) = grad(functional_call(module, {"alpha": alpha}, (x,)).sum(), alpha)
    wanted = torch.where(x > 0, 0.0, torch.expm1(x)).sum(0)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    plain = nn.ELU(engine=how)
    plain.alpha = torch.tensor(0.7, requires_grad=True)
    (got,) = grad(plain(x).sum(), plain.alpha)
    torch.testing.assert_close(got, wanted.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
def test_parametrized_parameters(how):
    module = nn.Swish(beta=0.5, engine=how)
    torch.nn.utils.parametrize.register_parametrization(module, "beta", torch.nn.Softplus())
    x = normal(40)
    y = module(x)
    torch.testing.assert_close(y, x * torch.sigmoid(module.beta * x), rtol=1e-5, atol=1e-5)
    y.sum().backward()
    original = module.parametrizations.beta.original
    assert original.grad.abs() > 0


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
def test_fake_tensors(how):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        module = nn.Swish(per_channel=CHANNELS, engine=how)
        y = module(torch.empty(2**14, CHANNELS))
        assert y.shape == (2**14, CHANNELS)
        y.sum().backward()
        assert module.beta.grad.shape == (CHANNELS,)


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
@pytest.mark.parametrize("case", [case for case in DEFAULTS if case.spec.name != "rrelu"], ids=str)
def test_meta_tensors(case, how):
    module = case.module(engine=how).to("meta")
    y = module(torch.empty(2**14, CHANNELS, device="meta"))
    assert y.shape == (2**14, CHANNELS)
    assert y.device.type == "meta"


@pytest.mark.parametrize("how", ["auto", "table"])
@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_modules_are_made_and_shown_without_data(case, how):
    with torch.device("meta"):
        module = getattr(nn, case.spec.title)(engine=how, per_channel=CHANNELS if case.per_channel else None)
        bounded = nn.Swish(beta=1.5), nn.SReLU(left_threshold=-1.0, right_threshold=torch.ones(1))
    assert case.spec.title in repr(module)
    assert all(value.is_meta for value in module.state_dict().values())
    assert "beta=<1>" in repr(bounded[0])


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.filterwarnings("default")
def test_exported_programs(name):
    module, x = SHARED[name](), normal(40, CHANNELS)
    program = torch.export.export(module, (x,))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert all(target.startswith("aten.") for target in targets)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-5, atol=1e-5)


def test_jit_traces():
    x = normal(40, CHANNELS)
    got = traced_by_jit(SHARED["swish"]("fused"), x)
    torch.testing.assert_close(got, SHARED["swish"]("eager")(x))
