"""What a recipe says beyond the small protocols': schedules, weight decay, and the open points of the public one."""

from __future__ import annotations

import math

import pytest
import torch

from softknee._bench.model import activation_sites, build_model, count_costs, example_shape, site_width
from softknee._bench.protocol import Recipe
from softknee._bench.train import make_optimizer, set_rate
from softknee._catalogue import parse_choice
from softknee._errors import UsageError

PUBLIC = {
    "resnet20": Recipe(task="cifar10", model="resnet20", widths=(3072, 10)),
    "vgg16-bn": Recipe(task="cifar100", model="vgg16-bn", widths=(3072, 100)),
    "mobilenetv2": Recipe(task="fashion-rgb", model="mobilenetv2", widths=(3072, 10)),
}


def model_of(recipe: Recipe, activation: str = "relu", seed: int = 0) -> torch.nn.Sequential:
    return build_model(recipe, parse_choice(activation), seed=seed)


@pytest.mark.parametrize(
    ("name", "changes", "parameters", "sites"),
    [
        ("resnet20", {}, 272_474, 19),
        ("resnet20", {"shortcut": "padding"}, 269_722, 19),
        ("vgg16-bn", {}, 15_032_868, 14),
        ("mobilenetv2", {}, 2_236_682, 35),
        ("mobilenetv2", {"expand_first": True}, 2_237_770, 36),
        ("mobilenetv2", {"head_dropout": 0.2}, 2_236_682, 35),
    ],
)
def test_open_points_have_the_published_counts(name, changes, parameters, sites):
    recipe = PUBLIC[name].model_copy(update=changes)
    model = model_of(recipe)
    assert count_costs(model, shape=example_shape(recipe))["parameters"] == parameters
    assert len(activation_sites(model)) == sites
    assert model(torch.zeros(2, *example_shape(recipe))).shape == (2, recipe.widths[-1])


@pytest.mark.parametrize(("name", "channels"), [("resnet20", 688), ("vgg16-bn", 4736), ("mobilenetv2", 15_552)])
def test_sites_know_their_channels(name, channels):
    model = model_of(PUBLIC[name], "prelu[per_channel]")
    widths = [site_width(model, path) for path in activation_sites(model)]
    assert sum(widths) == channels
    assert [sum(p.numel() for p in site.parameters()) for site in activation_sites(model).values()] == widths


def test_weights_are_the_same_for_all_activations_of_a_seed():
    plain, other = (model_of(PUBLIC["resnet20"], name).state_dict() for name in ("relu", "swish"))
    assert all(torch.equal(value, other[name]) for name, value in plain.items())
    assert not torch.equal(plain["convolution.weight"], model_of(PUBLIC["resnet20"], seed=1).convolution.weight)


def test_a_padded_shortcut_is_the_image_at_every_second_pixel_and_zeros():
    model = model_of(PUBLIC["resnet20"].model_copy(update={"shortcut": "padding"}))
    x = torch.randn(2, 16, 8, 8)
    shortcut = model.block_1_0.shortcut(x)
    assert torch.equal(shortcut[:, :16], x[:, :, ::2, ::2])
    assert shortcut[:, 16:].count_nonzero() == 0
    assert shortcut.shape == (2, 32, 4, 4)


def test_activations_that_change_the_number_of_channels_are_refused():
    with pytest.raises(UsageError, match="it changes the number of channels, and the widths of this network are fixed"):
        model_of(PUBLIC["vgg16-bn"], "swiglu")


def test_cosine_falls_from_the_given_rate_to_0_in_steps_of_epochs():
    recipe, epochs = Recipe(schedule="cosine"), 200
    weight = torch.nn.Parameter(torch.zeros(1))
    ours = make_optimizer([weight], recipe, 0.1)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=epochs)
    for epoch in range(1, epochs + 1):
        set_rate(ours, recipe, 0.1, done=(epoch - 1) / epochs)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        theirs.step()
        schedule.step()


def test_a_constant_rate_stays():
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], Recipe(), 0.1)
    set_rate(optimizer, Recipe(), 0.1, done=0.7)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_weight_decay_is_of_all_parameters(kind):
    parameters = [torch.nn.Parameter(torch.full((2,), value)) for value in (1.0, -3.0)]
    optimizer = make_optimizer(parameters, Recipe(optimizer=kind, weight_decay=0.5), 0.1)
    for one in parameters:
        one.grad = torch.zeros_like(one)
    optimizer.step()
    # SGD: w - rate decay w; Adam takes the decay as a gradient, so that its first step is the rate.
    for one, value in zip(parameters, (1.0, -3.0), strict=True):
        expected = value * (1 - 0.1 * 0.5) if kind == "sgd" else value - math.copysign(0.1, value)
        assert one.tolist() == pytest.approx([expected] * 2, rel=1e-5)


def test_what_a_recipe_says_by_default_is_not_in_its_key():
    assert set(Recipe().model_dump()) == {"widths", "shared_activation", "batch_size", "momentum"}
    assert Recipe(schedule="cosine").model_dump()["schedule"] == "cosine"
