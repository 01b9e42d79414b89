from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from softknee._diagnose.curvature.directions import (
    filter_normalised,
    given_direction,
    orthogonal_to,
    random_direction,
    towards,
)
from softknee._diagnose.curvature.landscape import landscape
from softknee._errors import DataError, UsageError


def bytes_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def data(inputs=5, outputs=3, samples=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, inputs, generator=generator, dtype=torch.float64)
    y = torch.randn(samples, outputs, generator=generator, dtype=torch.float64)
    return list(zip(x.split(16), y.split(16), strict=True))


def conv_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(6 * 64, 3),
    )


def test_t24_landscape_of_a_quadratic_through_its_minimum():
    # Least squares over a linear layer is a quadratic; at its solution the loss is L0 + |X (a d + b e)|^2 / (n k).
    batches = data()
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    model = nn.Linear(5, 3, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    before, state = bytes_of(model), torch.get_rng_state()
    found = landscape(model, batches, "mse", points=9, span=0.5, seed=3)
    generator = torch.Generator().manual_seed(3)
    d = random_direction(model, generator)
    e = orthogonal_to(random_direction(model, generator), d)
    least = nn.functional.mse_loss(model(x), y).item()
    assert found.centre == pytest.approx(least, rel=1e-14)
    assert found.one == pytest.approx(found.one[::-1], rel=1e-12)
    assert found.a[4] == 0
    assert found.a[0] == -0.5
    assert min(min(row) for row in found.two) == found.centre
    for i, a in enumerate(found.a):
        for j, b in enumerate(found.a):
            step = x @ (a * d["weight"] + b * e["weight"]).T
            assert found.two[i][j] == pytest.approx(least + float(step.square().mean()), rel=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def filters(weight, module):
    """Every filter by itself, written out."""
    if not isinstance(module, nn.ConvTranspose2d):
        return list(weight)
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    return [
        weight[group * inputs : (group + 1) * inputs, one] for group in range(module.groups) for one in range(outputs)
    ]


def test_t24_each_filter_of_the_direction_has_the_norm_of_the_same_filter_of_the_weights():
    model = conv_net()
    drawn = random_direction(model, torch.Generator().manual_seed(0))
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            direction = drawn[f"{path}.{name}"]
            if weight.dim() < 2:
                assert not direction.any()
                continue
            for own, wanted in zip(filters(direction, module), filters(weight, module), strict=True):
                assert float(own.norm()) == pytest.approx(float(wanted.detach().norm()), rel=1e-5)
    with_vectors = random_direction(model, torch.Generator().manual_seed(0), vectors=True)
    assert float(with_vectors["6.bias"].norm()) == pytest.approx(float(model[6].bias.detach().norm()), rel=1e-5)
    assert float(with_vectors["4.weight"].abs()) == pytest.approx(0.25)


def test_directions_are_normal_not_uniform_and_orthogonal_after_normalisation():
    model = conv_net()
    generator = torch.Generator().manual_seed(5)
    d = random_direction(model, generator)
    e = orthogonal_to(random_direction(model, generator), d)
    flat = [torch.cat([value.flatten() for value in one.values()]).double() for one in (d, e)]
    assert abs(float(flat[0] @ flat[1])) < 1e-6 * float(flat[0].norm() * flat[1].norm())
    assert abs(float(flat[0].sum())) < 0.1 * float(flat[0].norm()) * len(flat[0]) ** 0.5


def test_landscape_leaves_the_model_and_its_statistics_as_they_were():
    model = conv_net().train()
    x, y = torch.randn(8, 2, 8, 8), torch.randint(3, (8,))
    model(x).sum().backward()
    before = bytes_of(model)
    gradients = [one.grad.clone() for one in model.parameters()]
    own = nn.functional.cross_entropy(copy.deepcopy(model).eval()(x), y).item()
    found = landscape(model, [(x, y)], "cross_entropy", points=3)
    assert found.centre == pytest.approx(own, rel=1e-6)
    assert found == landscape(model, [(x, y)], "cross_entropy", points=3)
    assert found.two != landscape(model, [(x, y)], "cross_entropy", points=3, seed=1).two
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(one.grad, gradient) for one, gradient in zip(model.parameters(), gradients, strict=True))
    with pytest.raises(DataError, match="loader failed"):
        landscape(model, (1 / 0 for _ in range(1)), "cross_entropy")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_interpolation_ends_at_the_other_checkpoint():
    batches = data()
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double() for _ in range(2))
    found = landscape(start, batches, "mse", points=5, directions=[towards(start, end.state_dict())])
    own = landscape(end, batches, "mse", points=3, two=False)
    assert found.two is None
    assert found.normalisation == "none"
    assert found.one[-1] == pytest.approx(own.centre, rel=1e-12)
    with pytest.raises(UsageError, match=r"needs 0.weight of shape \(4, 5\), it has none"):
        towards(start, {})


def test_eigenvectors_are_directions():
    # On a quadratic with Hessian H, the loss along an eigenvector of length 1 is L0 + lambda a^2 / 2.
    batches = data(samples=16)
    x, y = batches[0]
    model = nn.Linear(5, 3, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    hessian = torch.kron(torch.eye(3), 2 * x.T @ x / y.numel())
    values, vectors = torch.linalg.eigh(hessian.double())
    found = landscape(model, batches, "mse", points=3, span=0.1, directions=[vectors[:, -1], vectors[:, 0]])
    assert found.one[0] - found.centre == pytest.approx(float(values[-1]) * 0.005, rel=1e-9)
    assert found.two[1][0] - found.centre == pytest.approx(float(values[0]) * 0.005, rel=1e-7)


@pytest.mark.parametrize(
    ("direction", "sentence"),
    [
        (torch.zeros(7), r"shape \(7,\), but the model moves 15 elements"),
        ({"other": torch.zeros(1)}, "'other', which is no parameter"),
        ([torch.zeros(15), torch.zeros(1)], "does not fit the 1 parameters"),
        (3, "no direction: 3"),
    ],
)
def test_directions_that_do_not_fit_are_refused(direction, sentence):
    model = nn.Linear(5, 3, bias=False).double()
    with pytest.raises(UsageError, match=sentence):
        landscape(model, data(), "mse", directions=[direction])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"points": 4}, "odd number of at least 3, got 4"),
        ({"span": -1.0}, "positive number, got -1.0"),
        ({"directions": []}, "a list of one or two"),
    ],
)
def test_options_are_checked_first(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        landscape(nn.Linear(5, 3).double(), data(), "mse", **options)


def test_losses_that_are_not_finite_are_none_and_json_is_plain():
    model = nn.Linear(5, 3).double()
    found = landscape(model, data(), lambda y, t: (y - t).square().mean() * 1e308, points=3, span=1e4, two=False)
    assert found.one[0] is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["one"]["loss"][0] is None


def test_frozen_parameters_stay_and_shared_ones_move_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    moved = given_direction(model, {})
    assert list(moved) == ["0.weight", "2.bias"]
    assert filter_normalised(model, moved)["0.weight"].eq(0).all()
    x = torch.randn(6, 4)
    found = landscape(model, [(x, x)], "mse", points=3, two=False, seed=2)
    d = random_direction(model, torch.Generator().manual_seed(2))["0.weight"]
    changed = copy.deepcopy(model)
    changed[0].weight.data += d
    assert found.one[-1] == pytest.approx(nn.functional.mse_loss(changed(x), x).item(), rel=1e-5)
    assert found.parameters == 16
