from __future__ import annotations

import math
import threading

import pytest
import torch
from subjects import DEFAULTS, SHARED, SUBJECTS, exact, normal, run, subject

from softknee import nn
from softknee._card.cost import saved_bytes
from softknee._engine.select import ENGINES, LARGE, engine
from softknee._errors import OptionError, UsageError

# But for those of torch about itself.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
]


def staf(terms: int, **options):
    return nn.STAF(terms=terms, generator=torch.Generator().manual_seed(1), **options)


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
    with engine("table"), pytest.warns(RuntimeWarning, match="cannot be made fine enough: values may err by"):
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


def test_no_table_stands_for_a_function_with_another_one_s_gradient():
    module = nn.SUGAR(engine="table")
    assert module.engine == "fused"


def test_formulas_of_very_many_terms_are_evaluated_as_they_are_written():
    module = nn.STAF(terms=100, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 2 * LARGE)
    assert module.engine == "eager"
    assert torch.equal(module(x), module.spec.function(x, *module._values()))
