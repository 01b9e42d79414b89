from __future__ import annotations

import pytest
import torch

from softknee._card.card import card
from softknee._card.precision import DTYPES

# Where gradients end on the left, as measured elsewhere on a grid: float32, bfloat16, float16.
LEFT = {
    "gelu": (-6.16, -6.16, -6.03),
    "gelu_tanh": (-5.07, -5.06, -5.07),
    "silu": (-88.7, -89, -20.3),
    "sigmoid": (-88.7, -89, -17.3),
    "tanh": (-9.02, -3.47, -4.51),
    "mish": (-103, -93, -20.3),
    "softplus": (-104, -93, -17.3),
    "elu": (-104, -93, -17.3),
    "hardswish": (-3, -3, -3),
    "relu": (0, 0, 0),
}


def gradient(function, x):
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("name", LEFT)
def test_gradients_end_where_they_were_measured_to(name):
    found = card(name).thresholds
    for dtype, expected in zip(DTYPES, LEFT[name], strict=True):
        one = found[str(dtype).removeprefix("torch.")]
        assert one.low == pytest.approx(expected, rel=0.01)
        assert (one.high is not None) == (name in {"tanh", "sigmoid"})


@pytest.mark.parametrize("name", ["tanh", "silu", "gelu", "softplus"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_is_a_gradient_just_inside_and_none_beyond(name, dtype):
    one = card(name)
    low = torch.tensor(one.thresholds[str(dtype).removeprefix("torch.")].low, dtype=dtype)
    inside = torch.nextafter(low, torch.zeros_like(low))
    assert gradient(one, inside.reshape(1)) != 0
    beyond = torch.linspace(1, 4, 4001).mul(low.float()).to(dtype)
    assert (gradient(one, beyond) == 0).all()


def test_tanh_is_symmetric_and_softsign_lives_long():
    for one in card("tanh").thresholds.values():
        assert one.high == -one.low
    for name, one in card("softsign").thresholds.items():
        assert abs(one.low) >= {"bfloat16": 500, "float16": 4000, "float32": 1e7}[name]


def test_some_never_end():
    for name in ("identity", "leaky_relu", "sin"):
        assert all((one.low, one.high) == (None, None) for one in card(name).thresholds.values())


def test_relu_ends_at_0_and_a_step_everywhere():
    assert card("relu").thresholds["float32"].low == 0
    flat = card("sign(x)").thresholds["float16"]
    assert (flat.low, flat.high) == (0, 0)
