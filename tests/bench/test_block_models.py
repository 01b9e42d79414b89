"""Models with blocks: places of activations, independent references, and what is counted of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._bench.model import activation_sites, build_model, count_costs, example_shape, site_engines, site_width
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.transformer import Block
from softknee._catalogue import parse_choice

PLACES = {
    "fashion-resnet8": ["activation_0", *(f"block_{i}.activation_{j}" for i in range(3) for j in range(2))],
    "fashion-vit": ["block_0.activation_0", "block_1.activation_0"],
    "text-char": ["block_0.activation_0", "block_1.activation_0"],
}
WIDTHS = {
    "fashion-resnet8": [16, 16, 16, 32, 32, 64, 64],
    "fashion-vit": [128, 128],
    "text-char": [256, 256],
}


def recipe_of(name):
    return PROTOCOLS[name].recipe


def built(name, text="relu", seed=0):
    return build_model(recipe_of(name), parse_choice(text), seed=seed)


def example(name, number=3):
    inputs = recipe_of(name).widths[0]
    if name == "text-char":
        return torch.randint(256, (number, inputs), generator=torch.Generator().manual_seed(0))
    return torch.randn(number, inputs, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PLACES)
def test_activations_stand_where_they_are_named_and_find_their_channels(name):
    model = built(name, "prelu[per_channel]")
    sites = activation_sites(model)
    assert list(sites) == PLACES[name]
    assert [site_width(model, site) for site in sites] == WIDTHS[name]
    assert [site.per_channel for site in sites.values()] == WIDTHS[name]
    outputs = model(example(name))
    assert outputs.shape == ((3, 64, 256) if name == "text-char" else (3, 10))
    outputs.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("text", ["glu", "maxout", "crelu"])
def test_activations_may_change_the_width(name, text):
    assert built(name, text)(example(name)).shape == built(name)(example(name)).shape


@pytest.mark.parametrize("name", PLACES)
def test_weights_depend_on_the_seed_alone_and_the_callers_random_state_on_nothing(name):
    state = torch.get_rng_state()
    plain, other, again = built(name, "relu", 3), built(name, "staf", 3), built(name, "relu", 4)
    assert torch.equal(state, torch.get_rng_state())
    names = [one for one, _ in plain.named_parameters() if one.endswith("weight") and "norm" not in one]
    drawn = [one for one in names if plain.get_parameter(one).dim() > 1]
    assert drawn
    for one in drawn:
        assert torch.equal(plain.get_parameter(one), other.get_parameter(one))
        assert not torch.equal(plain.get_parameter(one), again.get_parameter(one))
    amplitudes = [site.amplitude for site in activation_sites(other).values()]
    assert not torch.equal(amplitudes[0], amplitudes[1])


@pytest.mark.parametrize("name", PLACES)
def test_costs_are_counted_for_one_example_whole(name):
    """By the sizes of the layers, written out."""
    costs = count_costs(built(name), shape=example_shape(recipe_of(name)))
    image = 14 * 14
    expected = {
        "fashion-resnet8": (
            9 * 16 * image * (1 + 16 * 2)
            + (image // 4) * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
            + 16 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
            + 640,
            image * 16 * 3 + (image // 4) * 32 * 2 + 16 * 64 * 2,
        ),
        "fashion-vit": (49 * (16 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 128)) + 320, 49 * 128 * 2),
        "text-char": (64 * (2 * (4 * 64 * 64 + 2 * 64 * 256) + 64 * 256), 64 * 256 * 2),
    }[name]
    assert (costs["multiply_adds"], costs["activation_inputs"]) == expected


def test_the_engine_is_that_of_whole_batches():
    model = built("fashion-vit", "gelu")
    site = model.block_0.activation_0
    assert set(site_engines(model, batch_size=128, shape=(784,)).values()) == {
        site.engine_for(torch.empty(128 * 49, 128))
    }


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_the_textbooks(causal):
    """`nn.TransformerEncoderLayer` with the same weights."""
    block = Block(32, 128, 128, causal=causal)
    block.activation_0 = nn.GELU()
    layer = nn.TransformerEncoderLayer(
        32, block.heads, 128, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
    )
    pairs = {
        "norm1": block.norm_0, "norm2": block.norm_1, "linear1": block.linear_0, "linear2": block.linear_1,
        "self_attn.out_proj": block.out,
    }  # fmt: skip
    with torch.no_grad():
        for path, module in pairs.items():
            for name, parameter in module.named_parameters():
                layer.get_parameter(f"{path}.{name}").copy_(parameter)
        layer.self_attn.in_proj_weight.copy_(block.mix.weight)
        layer.self_attn.in_proj_bias.copy_(block.mix.bias)
    x = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(0))
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    torch.testing.assert_close(block(x), layer(x, src_mask=mask, is_causal=causal), atol=1e-5, rtol=1e-5)


def test_no_byte_sees_those_after_it():
    model, x = built("text-char").eval(), example("text-char", 2)
    changed = x.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    with torch.no_grad():
        before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert (before[:, 40:] - after[:, 40:]).abs().amax(-1).min() > 1e-4


def test_images_are_cut_into_the_patches_they_have():
    """A pixel changes the token of its own patch, and no other."""
    model = built("fashion-vit").eval()
    x = example("fashion-vit", 1)
    changed = x.clone().view(1, 28, 28)
    changed[0, 9, 14] += 1  # of row 2 and column 3 of patches
    with torch.no_grad():
        tokens, after = (model[:2](one.reshape(1, -1)) for one in (x, changed))
    assert (tokens != after).any(-1)[0].nonzero().flatten().tolist() == [2 * 7 + 3]
