from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd import gradcheck

from softknee import create, nn
from softknee._errors import OptionError, UsageError

MODULES = {
    "FReLU": nn.FReLU,
    "DynamicReLU": nn.DynamicReLU,
    "DynamicReLU-A": lambda channels: nn.DynamicReLU(channels, shared=True),
    "MetaACON": nn.MetaACON,
    "MetaACON-BN": lambda channels: nn.MetaACON(channels, batch_norm=True),
    "ATAC": nn.ATAC,
    "GatedMix": nn.GatedMix,
}
everyone = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(20)


def moved(module):
    """Move every weight and statistic away from where it starts, so that a reference has to use all of them."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.3 * torch.rand_like(tensor)
    return module.eval()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@everyone
def test_images_in_evaluation_and_training(make):
    module = make(6)
    for x in (drawn(3, 6, 5, 4), drawn(1, 6, 5, 4)):
        single_with_norm = x.shape[0] == 1 and getattr(module, "batch_norm", False)
        for training in (False, True):
            module.train(training)
            if training and single_with_norm:
                with pytest.raises(UsageError, match="batch_norm=True needs two samples or more in training, got one"):
                    module(x)
                continue
            assert module(x).shape == x.shape


@everyone
def test_gradients(make):
    module = moved(make(4)).double()
    x = drawn(2, 4, 3, 2).double().requires_grad_()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}

    def function(x, *values):
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    assert gradcheck(function, (x, *parameters.values()))


@everyone
def test_all_weights_are_trained_and_come_back_from_the_state_dict(make):
    module, other = make(6), make(6)
    module(drawn(4, 6, 3, 3)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    trained = moved(copy.deepcopy(module))
    other.load_state_dict(trained.state_dict())
    x = drawn(2, 6, 5, 5)
    assert torch.equal(other.eval()(x), trained(x))


@everyone
def test_other_channels_are_refused(make):
    module = make(6)
    for shape in ((2, 5, 4, 4), (6,), ()):
        with pytest.raises(UsageError, match=r"has a network for 6 channels in dimension 1, got an input of shape \("):
            module(torch.zeros(shape))


@pytest.mark.parametrize("make", [make for name, make in MODULES.items() if name != "FReLU"])
@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 7), (3, 6, 2, 3, 2)])
def test_inputs_with_any_dimensions_behind_the_channels(make, shape):
    module, x = moved(make(6)), drawn(*shape)
    got = module(x)
    if len(shape) == 2:
        assert torch.allclose(got, module(x[:, :, None])[:, :, 0], atol=1e-6)
    else:
        assert torch.allclose(got.flatten(2), module(x.flatten(2)), atol=1e-6)


def test_frelu_is_the_maximum_with_a_filtered_image():
    module, x = moved(nn.FReLU(3)), drawn(2, 3, 5, 4)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    norm, y = module.norm, module(x)
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        filtered = (padded[n, c, i : i + 3, j : j + 3] * module.conv.weight[c, 0]).sum()
        scaled = (filtered - norm.running_mean[c]) / (norm.running_var[c] + norm.eps).sqrt()
        condition = scaled * norm.weight[c] + norm.bias[c]
        assert y[n, c, i, j].item() == pytest.approx(max(x[n, c, i, j].item(), condition.item()), abs=1e-5)


def test_frelu_of_other_dimensions():
    assert nn.FReLU(4, spatial=1)(drawn(2, 4, 9)).shape == (2, 4, 9)
    assert nn.FReLU(4, kernel=5, spatial=3)(drawn(2, 4, 5, 6, 7)).shape == (2, 4, 5, 6, 7)
    with pytest.raises(UsageError, match=r"FReLU with spatial=2 takes inputs of 4 dimensions, got .* \(2, 4, 9\)"):
        nn.FReLU(4)(drawn(2, 4, 9))
    # A window and a normalization for each channel.
    assert count(nn.FReLU(10)) == 10 * (9 + 2)


@pytest.mark.parametrize("shared", [True, False])
def test_dynamic_relu_takes_its_lines_from_the_means(shared):
    module, x = moved(nn.DynamicReLU(8, shared=shared)), drawn(2, 8, 3, 4)
    hidden = torch.relu(x.mean((2, 3)) @ module.fc1.weight.T + module.fc1.bias)
    theta = 2 / (1 + torch.exp(-(hidden @ module.fc2.weight.T + module.fc2.bias))) - 1
    y = module(x)
    for n in range(2):
        for c in range(8):
            a1, a2, b1, b2 = theta[n, :4] if shared else theta[n, 4 * c : 4 * c + 4]
            expected = torch.maximum((1 + a1) * x[n, c] + 0.5 * b1, a2 * x[n, c] + 0.5 * b2)
            assert torch.allclose(y[n, c], expected, atol=1e-6)


def test_dynamic_relu_without_an_answer_of_its_network_is_relu():
    module, x = nn.DynamicReLU(16), drawn(2, 16, 3, 3)
    torch.nn.init.zeros_(module.fc2.weight)
    torch.nn.init.zeros_(module.fc2.bias)
    assert torch.equal(module(x), torch.relu(x))
    # Two layers, the second with four numbers a channel, or four in all.
    assert count(nn.DynamicReLU(16)) == 16 * 2 + 2 + 2 * 64 + 64
    assert count(nn.DynamicReLU(16, shared=True)) == 16 * 2 + 2 + 2 * 4 + 4
    assert nn.DynamicReLU(4).fc1.weight.shape == (1, 4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_meta_acon_chooses_beta_by_the_means(batch_norm):
    module, x = moved(nn.MetaACON(5, reduction=2, batch_norm=batch_norm)), drawn(3, 5, 4, 2)
    hidden = module.bn1(x.mean((2, 3)) @ module.fc1.weight.T + module.fc1.bias)
    beta = torch.sigmoid(module.bn2(hidden @ module.fc2.weight.T + module.fc2.bias))[:, :, None, None]
    p1, p2 = module.p1[:, None, None], module.p2[:, None, None]
    expected = (p1 - p2) * x * torch.sigmoid(beta * (p1 - p2) * x) + p2 * x
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_meta_acon_starts_as_published_or_as_swish():
    first, again = (nn.MetaACON(64, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.p1, again.p1)
    assert not torch.equal(first.p1, first.p2)
    assert 0.7 < first.p1.std() < 1.3
    # Two layers of no less than `reduction` hidden channels, and a pair of slopes.
    assert count(first) == (64 * 16 + 16) + (16 * 64 + 64) + 2 * 64
    assert nn.MetaACON(512).fc1.weight.shape == (32, 512)
    swish, x = nn.MetaACON(4, initialization="swish"), drawn(2, 4, 3, 3)
    torch.nn.init.zeros_(swish.fc2.weight)
    torch.nn.init.zeros_(swish.fc2.bias)
    assert torch.allclose(swish(x), x * torch.sigmoid(0.5 * x))
    assert create("meta_acon", channels=4, p1=1.5, trainable=False).p1.tolist() == [1.5] * 4


def test_atac_gates_each_place_by_its_channels():
    module, x = moved(nn.ATAC(8, reduction=2)), drawn(2, 8, 3, 4)

    def norm(layer, z):
        return (z - layer.running_mean) / (layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias

    y = module(x)
    for n, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        z = x[n, :, i, j]
        hidden = torch.relu(norm(module.bn1, module.conv1.weight[..., 0] @ z))
        gate = torch.sigmoid(norm(module.bn2, module.conv2.weight[..., 0] @ hidden))
        assert torch.allclose(y[n, :, i, j], z * gate, atol=1e-6)
    # Two matrices and two normalizations.
    assert count(nn.ATAC(8, reduction=2)) == 2 * 8 * 4 + 2 * 4 + 2 * 8
    with pytest.raises(UsageError, match="ATAC needs two places or more in training"):
        nn.ATAC(8)(drawn(1, 8))


def test_a_mixture_starts_with_equal_parts():
    x = drawn(3, 8, 4, 4)
    functions = [torch.relu, torch.nn.functional.gelu, torch.nn.functional.silu, torch.tanh]
    assert torch.allclose(nn.GatedMix(8)(x), sum(function(x) for function in functions) / 4, atol=1e-6)
    assert count(nn.GatedMix(8)) == (8 * 2 + 2) + (2 * 4 + 4)


def test_a_mixture_of_any_functions_weighted_for_each_sample():
    module, x = moved(nn.GatedMix(8, candidates=("telu", "leakyrelu", "swish"))), drawn(3, 8, 4, 4)
    logits = torch.relu(x.mean((2, 3)) @ module.fc1.weight.T + module.fc1.bias) @ module.fc2.weight.T + module.fc2.bias
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    assert (weights[0] != weights[1]).any()
    parts = torch.stack([x * torch.tanh(x.exp()), torch.nn.functional.leaky_relu(x), torch.nn.functional.silu(x)], 1)
    assert torch.allclose(module(x), (weights[:, :, None, None, None] * parts).sum(1), atol=1e-6)
    assert "candidates=(telu, leaky_relu, swish)" in repr(module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.FReLU(0), "channels of frelu must be an integer of at least 1, got 0"),
        (lambda: nn.FReLU(4, kernel=2), "kernel of frelu must be odd, got 2"),
        (lambda: nn.FReLU(4, spatial=4), "spatial of frelu must be 1, 2 or 3, got 4"),
        (lambda: nn.DynamicReLU(4, reduction=0.5), "reduction of dynamic_relu must be an integer"),
        (lambda: nn.MetaACON(4, initialization="mine"), "initialization of meta_acon must be normal or swish, got"),
        (lambda: nn.MetaACON(4, p3=1.0), "meta_acon has no parameter 'p3'; it has p1, p2"),
        (lambda: nn.MetaACON(4, beta=1.0), "meta_acon has no parameter 'beta'"),
        (lambda: nn.ATAC(True), "channels of atac must be an integer"),
        (lambda: nn.GatedMix(4, candidates=()), "gated_mix needs at least one candidate"),
        (lambda: nn.GatedMix(4, candidates=("gelo",)), "no activation named 'gelo' for gated_mix; did you mean 'gelu'"),
        (lambda: nn.GatedMix(4, candidates=("maxout",)), "maxout cannot be mixed; gated_mix takes functions of one"),
        (lambda: nn.GatedMix(4, candidates=("rrelu",)), "rrelu cannot be mixed"),
        (lambda: nn.GatedMix(4, candidates=("rational",)), "rational cannot be mixed"),
        (lambda: nn.GatedMix(4, candidates=("brelu",)), "brelu cannot be mixed"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


@everyone
def test_training_steps_are_compiled_without_breaks(make):
    module = make(6)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    x = drawn(3, 6, 4, 4)
    for one in (module, compiled):
        one(x).square().sum().backward()
    for expected, got in zip(module.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(got.grad, expected.grad, atol=1e-5)
    torch._dynamo.reset()
