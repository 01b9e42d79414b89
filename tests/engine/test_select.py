from __future__ import annotations

import copy
import io
import math
import pickle
import threading

import pytest
import torch
from subjects import CHANNELS, DEFAULTS, SUBJECTS, exact, normal, run, subject
from torch.autograd import forward_ad, grad
from torch.func import functional_call, hessian, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from softknee import nn
from softknee._card.cost import saved_bytes
from softknee._engine.select import ENGINES, LARGE, engine
from softknee._errors import OptionError, UsageError

# But for those of torch about itself.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
]

SHARED = {
    "swish": lambda how="auto": nn.Swish(beta=1.3, engine=how),
    "mish": lambda how="auto": nn.Mish(engine=how),
    "bspline": lambda how="auto": nn.BSpline(generator=torch.Generator().manual_seed(1), engine=how),
}


def staf(terms: int, **options):
    return nn.STAF(terms=terms, generator=torch.Generator().manual_seed(1), **options)


# What `auto` takes.

CHOICES = [
    (lambda: nn.ReLU(), (2**16,), "eager"),
    (lambda: nn.ReLU(), (16, 4, 32, 32), "fused"),
    (lambda: nn.GELU(), (2**16,), "eager"),
    (lambda: nn.Swish(), (100,), "eager"),
    (lambda: nn.Swish(), (LARGE,), "fused"),
    (lambda: nn.Swish(per_channel=4), (2**12, 4), "fused"),
    (lambda: nn.Mish(), (2**16,), "fused"),
    (lambda: nn.Mish(), (100,), "eager"),
    (lambda: nn.Rational(), (100,), "fused"),
    (lambda: staf(25), (100,), "fused"),
    (lambda: staf(25), (2**20,), "table"),
    (lambda: nn.BSpline(generator=torch.Generator().manual_seed(1)), (2**20,), "table"),
    (lambda: nn.BSpline(generator=torch.Generator().manual_seed(1)), (100,), "fused"),
    (lambda: staf(25, per_channel=4), (2**20, 4), "table"),
    (lambda: staf(25, per_channel=2**14), (2**6, 2**14), "fused"),
    (lambda: nn.LinearSpline(per_channel=4), (2**17, 4), "table"),
    (lambda: nn.RReLU(), (2**16,), "fused"),
    (lambda: nn.RReLU().eval(), (2**16,), "fused"),
]


@pytest.mark.parametrize(("make", "shape", "wanted"), CHOICES)
def test_auto_takes_what_suits_formula_and_tensor(make, shape, wanted):
    module = make()
    assert module.engine_for(torch.empty(shape)) == wanted
    assert module.engine_for(torch.empty(shape, dtype=torch.float64)) == "eager"


def test_auto_takes_no_table_that_is_not_fine_enough():
    steep = nn.Formula("tanh(a * x) + sin(b * x) + exp(-x**2) + atan(x) * erf(x) + log1p(exp(x))", a=1e6, b=3.0)
    gentle = nn.Formula("tanh(a * x) + sin(b * x) + exp(-x**2) + atan(x) * erf(x) + log1p(exp(x))", a=1.0, b=3.0)
    x = torch.empty(2**20)
    assert gentle.engine_for(x) == "table"
    assert steep.engine_for(x) == "fused"
    with engine("table"):
        assert steep.engine_for(x) == "table"


@pytest.mark.parametrize("how", ["eager", "fused", "table"])
@pytest.mark.parametrize("name", SHARED)
def test_engines_are_forced_by_argument_and_by_context(name, how):
    x = normal(50)
    forced, free = SHARED[name](how), SHARED[name]()
    assert forced.engine_for(x) == how
    with engine(how):
        assert free.engine_for(x) == how
        inside = free(x)
    assert torch.equal(forced(x), inside)


def test_contexts_win_nest_and_end():
    module, x = nn.Swish(engine="fused"), normal(50)
    with engine("table"):
        assert module.engine_for(x) == "table"
        with engine("eager"):
            assert module.engine_for(x) == "eager"
            with engine("auto"):
                assert module.engine_for(torch.empty(LARGE)) == "fused"
        assert module.engine_for(x) == "table"
    assert module.engine_for(x) == "fused"
    with pytest.raises(KeyError), engine("eager"):
        raise KeyError
    assert module.engine_for(x) == "fused"


def test_contexts_belong_to_their_thread():
    module, x, seen = nn.Swish(engine="fused"), normal(50), []
    with engine("table"):
        other = threading.Thread(target=lambda: seen.append(module.engine_for(x)))
        other.start()
        other.join()
    assert seen == ["fused"]


@pytest.mark.parametrize("name", ["", "Fused", "jit", "cuda"])
def test_engines_that_do_not_exist(name):
    message = f"engine must be one of auto, eager, fused, table, got {name!r}"
    with pytest.raises(OptionError) as one:
        nn.Swish(engine=name)
    with pytest.raises(OptionError) as other, engine(name):
        pass
    assert str(one.value) == str(other.value) == message


@pytest.mark.parametrize("how", ENGINES)
def test_the_engine_is_shown(how):
    wanted = {"auto": "fused"}.get(how, how)
    assert repr(nn.Swish(engine=how)) == f"Swish(beta=1, trainable=(beta), engine={wanted})"
    assert nn.Swish(engine=how).engine == wanted


@pytest.mark.parametrize("dim", [-2, -1, 0, 1, 2, 3])
def test_the_engine_is_shown_wherever_channels_are(dim):
    assert repr(nn.Swish(per_channel=700, channel_dim=dim)).endswith("per_channel=700, engine=fused)")


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


@pytest.mark.slow
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


@pytest.mark.parametrize("how", ["auto", "fused", "table"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_other_dtypes(dtype, how):
    module = SHARED["swish"](how).to(dtype)
    x = normal(LARGE, seed=3).to(dtype)
    y = module(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact(module, x).value, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert (module.engine_for(x) == "eager") == (dtype == torch.float64)


@pytest.mark.parametrize("how", ["fused", "table"])
def test_inputs_and_parameters_of_different_dtypes(how):
    x = normal(50).double()
    assert SHARED["swish"](how)(x).dtype == torch.float64
    wide = SHARED["swish"](how).double()
    y = wide(x.float())
    assert y.dtype == torch.float32
    y.sum().backward()
    assert wide.beta.grad.dtype == torch.float64
    by = exact(SHARED["swish"](), x.float()).by_parameters["beta"].sum()
    torch.testing.assert_close(wide.beta.grad[0], by, rtol=1e-5, atol=1e-5)


def test_complex_and_whole_numbers_fail_as_in_torch():
    for x in (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)):
        torch.testing.assert_close(nn.Swish(engine="fused")(x).float(), x * torch.sigmoid(x.float()), rtol=1, atol=1)


@pytest.mark.parametrize("how", ENGINES)
def test_wrong_channels_are_refused_by_every_engine(how):
    module = nn.Swish(per_channel=4, engine=how)
    with pytest.raises(UsageError, match="has parameters for 4 channels"):
        module(torch.ones(2, 3))


# Memory.

IMAGES = (32, 64, 8, 8)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)])
@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_no_more_than_the_input_is_kept(case, dtype, most):
    module = case.module(engine="auto", channels=64)
    assert saved_bytes(module, normal(*IMAGES).to(dtype)) <= most


@pytest.mark.parametrize("how", ["fused", "table"])
def test_random_activations_keep_no_noise(how):
    module = nn.RReLU(engine=how)
    assert saved_bytes(module, normal(*IMAGES)) <= 4


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_idempotent_functions_keep_what_the_next_layer_keeps(name):
    module = subject(name).module(engine="auto")
    layer = torch.nn.Conv2d(64, 8, 1)
    x = normal(*IMAGES)
    both = saved_bytes(lambda x: layer(module(x)), x, "auto")
    assert both == saved_bytes(layer, x) == 4


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_auto_is_right_on_images(case):
    """Whatever it takes: against float64, in the forgiving way of tables."""
    module = case.module(engine="auto", channels=64)
    x = normal(8, 64, 8, 9).contiguous(memory_format=torch.channels_last)
    wanted = exact(module, x)
    y, by_x, _ = run(module, x, torch.ones_like(x))
    scale, slope = (float(one.abs().max()) for one in (wanted.value, wanted.slope))
    assert math.isfinite(scale)
    torch.testing.assert_close(y.double(), wanted.value, rtol=0, atol=1e-5 * scale + 1e-4 * (case.spec.name == "staf"))
    torch.testing.assert_close(by_x.double(), wanted.slope, rtol=0, atol=1e-4 * slope)
    assert y.is_contiguous(memory_format=torch.channels_last)
