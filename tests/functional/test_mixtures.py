from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch.nn import functional as F

from softknee import functional, nn
from softknee._catalogue import get
from softknee._errors import UsageError
from softknee._spec import Param, Spec
from softknee.functional import vaf
from softknee.functional.mixtures import affine_mix_spec, blend_spec, convex_mix_spec, linear_mix_spec, taaf_spec
from softknee.functional.subnetworks import BIAS, initialize_near_relu
from softknee.testing import (
    check_bounds,
    check_derivatives,
    check_finite,
    check_gradients,
    check_lipschitz,
    check_monotonic,
    check_smooth,
    check_symmetric,
    check_values,
)

X = torch.linspace(-6, 6, 241, dtype=torch.float64)
CHECKS = (
    *(check_values, check_derivatives, check_gradients, check_finite),
    *(check_monotonic, check_bounds, check_lipschitz, check_symmetric, check_smooth),
)


def specs(*names):
    return [get(name) for name in names]


def test_the_defaults_are_those_of_the_papers():
    relu, elu, tanh, swish = X.relu(), F.elu(X), X.tanh(), F.silu(X)
    assert torch.allclose(functional.linear_mix(X), (relu + elu + tanh + swish + X) / 5, atol=1e-15)
    for function in (functional.convex_mix, functional.affine_mix):
        assert torch.allclose(function(X), (X + relu + tanh) / 3, atol=1e-15)
    assert torch.equal(functional.taaf(X), tanh)
    assert torch.equal(functional.blend(X), relu)
    assert torch.allclose(functional.blend(X, t=1.0), F.gelu(X), atol=1e-15)


def test_convex_weights_are_a_softmax():
    scores = torch.tensor([0.5, -1.0, 300.0], dtype=torch.float64)
    weights = scores.softmax(0)
    expected = weights @ torch.stack([X, X.relu(), X.tanh()])
    assert torch.allclose(functional.convex_mix(X, *scores), expected, atol=1e-15)
    assert torch.allclose(functional.convex_mix(X, *scores.tolist()), expected, atol=1e-15)


def test_affine_weights_have_sum_one_whatever_their_scale():
    for weights in ((2.0, -0.5, 1.0), (4.0, -1.0, 2.0)):
        expected = (2 * X - 0.5 * X.relu() + X.tanh()) / 2.5
        assert torch.allclose(functional.affine_mix(X, *weights), expected, atol=1e-15)


@pytest.mark.parametrize(
    "spec",
    [
        linear_mix_spec(specs("sigmoid", "prelu", "mish")),
        convex_mix_spec(specs("celu", "celu", "snake")),
        affine_mix_spec(specs("srelu", "tanh")),
        taaf_spec(get("srelu")),
        taaf_spec(get("swish")),
        taaf_spec(get("hardsigmoid")),
        blend_spec(get("tanh"), get("softsign")),
        blend_spec(get("prelu"), get("elu")),
        taaf_spec(linear_mix_spec(specs("relu", "tanh"))),
    ],
    ids=lambda spec: f"{spec.name}({', '.join(param.name for param in spec.parameters)})",
)
def test_mixtures_of_anything_are_what_their_specs_say(spec):
    for check in CHECKS:
        check(spec)


def test_parameters_begin_with_the_names_of_their_functions():
    spec = convex_mix_spec(specs("prelu", "prelu", "hardtanh"))
    own = ["prelu_score", "prelu_2_score", "hardtanh_score"]
    assert [param.name for param in spec.parameters] == [
        *own,
        *("prelu_slope", "prelu_2_slope", "hardtanh_min_value", "hardtanh_max_value"),
    ]
    last = spec.parameters[-1]
    assert (last.not_below, last.default, last.trainable) == ("hardtanh_min_value", 1.0, False)
    assert spec.parameters[3].trainable
    assert spec.kinks == ("0", "hardtanh_min_value", "hardtanh_max_value")
    assert taaf_spec(get("hardtanh")).kinks == (
        "(hardtanh_min_value - gamma) / beta",
        "(hardtanh_max_value - gamma) / beta",
    )


def test_promises_are_those_that_all_functions_make():
    smooth = linear_mix_spec(specs("tanh", "sigmoid"))
    assert smooth.promises.smooth
    assert smooth.promises.monotonic
    assert not linear_mix_spec(specs("tanh", "gelu")).promises.monotonic
    assert not linear_mix_spec(specs("tanh", "relu")).promises.smooth
    assert not blend_spec(get("tanh"), get("relu")).promises.smooth
    assert blend_spec(get("sigmoid"), get("relu")).promises.upper_bound == 1.0
    assert not taaf_spec(get("relu")).promises.idempotent


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "name at least one"),
        (("staf",), "staf cannot be part of linear_mix: it has vector parameters"),
        (("relu", "rrelu"), "it is random in training"),
        (("brelu",), "it depends on the channel"),
        (("geglu",), "it is gated, and only functions of single elements can be"),
    ],
)
def test_other_functions_are_refused(names, reason):
    with pytest.raises(UsageError, match=reason):
        linear_mix_spec(specs(*names))


def test_functions_without_starting_values_and_double_names_are_refused():
    def own(name, *params):
        return Spec(name=name, title=name, family="mine", function=torch.tanh, formula="tanh(x)", parameters=params)

    with pytest.raises(UsageError, match="mine cannot be part of taaf: its parameters have no starting values"):
        taaf_spec(own("mine", Param(name="a")))
    with pytest.raises(UsageError, match="two parameters of linear_mix would be called 'a_b_weight'"):
        linear_mix_spec([own("a", Param(name="b_weight", default=1.0)), own("a_b")])


def test_functions_that_are_made_alike_are_equal():
    first, again = (linear_mix_spec(specs("relu", "tanh")).function for _ in range(2))
    assert first == again
    assert hash(first) == hash(again)
    assert first != linear_mix_spec(specs("tanh", "relu")).function
    assert first != affine_mix_spec(specs("relu", "tanh")).function
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert copied == first
        assert torch.equal(copied(X), first(X))


def test_they_are_called_like_functions():
    signature = inspect.signature(functional.taaf)
    assert str(signature) == "(x, alpha=1.0, beta=1.0, gamma=0.0, delta=0.0)"
    assert functional.taaf.__name__ == "taaf"
    assert inspect.getdoc(functional.taaf).startswith("Transformative adaptive activation function")
    expected = 2 * (0.5 * X + 1).tanh()
    assert torch.equal(functional.taaf(X, 2.0, 0.5, gamma=1.0), expected)
    for wrong in ({"beta": 1.0}, {"zeta": 1.0}):
        with pytest.raises(TypeError, match="taaf takes x and, once each, alpha, beta, gamma, delta"):
            functional.taaf(X, 1.0, 0.5, **wrong)
    with pytest.raises(TypeError, match="once each"):
        functional.taaf(X, 1.0, 1.0, 0.0, 0.0, 0.0)


def test_kernels_are_made_from_the_kernel_forms_of_functions():
    spec = linear_mix_spec(specs("mish", "relu"))
    assert torch.allclose(spec.kernel(X, 0.25, 2.0), spec.function(X, 0.25, 2.0), atol=1e-14)
    assert spec.kernel != spec.function
    assert linear_mix_spec(specs("tanh", "relu")).kernel is None


def test_vaf_starts_near_relu():
    inside = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    for module in (nn.VAF(), nn.VAF(terms=5)):
        error = (module.double()(inside) - inside.relu()).detach()
        assert error.abs().max() < 0.059
        assert error.square().mean().sqrt() < 0.01223


def test_the_start_of_vaf_is_a_least_squares_optimum():
    """The error has no correlation with the change by any parameter, so no small change makes it smaller."""
    inside = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    vectors = (*initialize_near_relu(3).values(), torch.tensor(BIAS, dtype=torch.float64))
    residual = vaf(inside, *vectors) - inside.relu()
    parts = torch.func.jacfwd(vaf, argnums=(1, 2, 3, 4))(inside, *vectors)
    jacobian = torch.cat([part.view(len(inside), -1) for part in parts], dim=1)
    assert (residual @ jacobian / (jacobian.norm(dim=0) * residual.norm())).abs().max() < 1e-6


def test_further_units_of_vaf_differ_and_do_not_count_yet():
    start = initialize_near_relu(6)
    assert start["output"][3:].tolist() == [0, 0, 0]
    assert start["shift"][3:].tolist() == [1.5, 0, -1.5]
