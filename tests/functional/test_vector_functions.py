from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from softknee import functional, nn
from softknee._catalogue import CATALOGUE
from softknee._errors import UsageError

VECTORS = [spec for spec in CATALOGUE if spec.kind == "vector"]
SIMPLEX = (functional.softmax, functional.sparsemax, functional.entmax15)
INF, NAN = math.inf, math.nan

every_one = pytest.mark.parametrize("spec", VECTORS, ids=lambda spec: spec.name)


def drawn(*shape, seed=1, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(spec, size):
    """Return parameters for so many entries, moved off their start."""
    if not spec.initializations:
        return [param.default for param in spec.parameters]
    start = next(iter(spec.initializations.values()))(size, None)
    return [start[param.name] + 0.05 * drawn(*start[param.name].shape).abs() for param in spec.parameters]


def plain(values):
    return [value.tolist() if isinstance(value, torch.Tensor) else value for value in values]


@every_one
@pytest.mark.parametrize("size", [2, 4, 18])
def test_vectors_of_other_sizes_agree_with_the_statement(spec, size):
    values = arguments(spec, size)
    for scale in (0.3, 2.0, 30.0):
        x = drawn(size, scale=scale)
        expected = torch.tensor([float(y) for y in spec.statement(x.tolist(), *plain(values))], dtype=torch.float64)
        assert torch.allclose(spec.function(x, *values), expected, rtol=1e-11, atol=1e-12)


@every_one
def test_any_dimension_of_a_tensor(spec):
    x, values = drawn(4, 6, 8, scale=2.0), arguments(spec, 6)
    for dim in (1, -2):
        got = spec.function(x, *values, dim=dim)
        rows = torch.stack([spec.function(row, *values) for row in x.movedim(1, -1).reshape(-1, 6)])
        assert torch.allclose(got, rows.view(4, 8, -1).movedim(-1, 1), rtol=1e-13, atol=1e-15)
    mapped = torch.func.vmap(lambda part: spec.function(part, *values, dim=0))(x)
    assert torch.allclose(mapped, got, rtol=1e-13, atol=1e-15)


@every_one
def test_gradients_of_first_and_second_order(spec):
    x = drawn(3, 4, scale=1.5).requires_grad_()
    values = [value.requires_grad_() if isinstance(value, torch.Tensor) else value for value in arguments(spec, 4)]
    assert gradcheck(lambda x, *v: spec.function(x, *v), (x, *values))
    assert gradgradcheck(lambda x, *v: spec.function(x, *v), (x, *values))


@every_one
def test_huge_and_tiny_numbers_of_float32(spec):
    values = [v.float() if isinstance(v, torch.Tensor) else v for v in arguments(spec, 6)]
    for size in (1e30, 1e-30, 1e-41):
        x = (size * torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -1.0])).requires_grad_()
        y = spec.function(x, *values)
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert y.isfinite().all()
        assert grad.isfinite().all()


@every_one
def test_dimensions_that_are_not_there_are_refused(spec):
    values = arguments(spec, 4)
    if spec.name not in {"crelu", "softmax"}:
        with pytest.raises(UsageError, match=f"{spec.name} works along dimension 2, got an input of shape"):
            spec.function(torch.zeros(4, 4), *values, dim=2)
        with pytest.raises(UsageError, match="works along dimension -1, got an input of shape"):
            spec.function(torch.zeros(()), *values)


@pytest.mark.parametrize("name", ["maxout", "maxmin", "group_sort", "householder", "lwta", "norm_relu"])
def test_odd_numbers_of_channels_are_refused(name):
    function = getattr(functional, name)
    with pytest.raises(UsageError, match=rf"{name} takes groups of 2, got .* \(2, 5\) with 5 in dimension 1"):
        function(torch.zeros(2, 5))


def test_odd_numbers_of_channels_are_refused_when_angles_are_drawn():
    with pytest.raises(UsageError, match="householder takes pairs of channels; channels must be even, got 7"):
        nn.Householder(channels=7)


def test_crelu_keeps_all_of_its_input():
    x = drawn(5, 6)
    positive, negative = functional.crelu(x, dim=1).chunk(2, 1)
    assert torch.equal(positive - negative, x)
    assert torch.equal(positive + negative, x.abs())


def test_groups_are_neighbours():
    x = torch.tensor([3.0, 1.0, 5.0, 2.0, 0.0, 4.0])
    assert functional.maxout(x).tolist() == [3, 5, 4]
    assert functional.maxout(x, 3).tolist() == [5, 4]
    assert functional.maxmin(x).tolist() == [3, 1, 5, 2, 4, 0]
    assert functional.group_sort(x).tolist() == [1, 3, 2, 5, 0, 4]
    assert functional.group_sort(x, 3).tolist() == [1, 3, 5, 0, 2, 4]
    assert functional.group_sort(x, 6).tolist() == sorted(x.tolist())
    assert functional.lwta(x, 3).tolist() == [0, 0, 5, 0, 0, 4]
    assert functional.lwta(-x).tolist() == [0, -1, 0, -2, -0.0, 0]


def test_names_of_one_function():
    x = drawn(50, 8)
    swapped = functional.group_sort(x).view(50, 4, 2).flip(2).flatten(1)
    assert torch.equal(swapped, functional.maxmin(x))
    assert torch.allclose(functional.householder(x), functional.maxmin(x), atol=1e-15)
    assert torch.allclose(nn.Householder(channels=8).double()(x), functional.maxmin(x), atol=1e-6)
    assert torch.equal(functional.maxout(x), functional.maxmin(x)[:, ::2])


@pytest.mark.parametrize("theta", [-2.0, 0.0, 0.7, math.pi, 5.0])
def test_householder_reflects_pairs_on_the_far_side_of_a_mirror(theta):
    z = drawn(200, 2)
    v = torch.tensor([math.sin(theta / 2), -math.cos(theta / 2)], dtype=torch.float64)
    side = z @ v
    expected = torch.where(side[:, None] > 0, z, z - 2 * side[:, None] * v)
    assert torch.allclose(functional.householder(z, theta), expected, atol=1e-14)
    # The authors' code: the other side is reflected, and matrices of theta do it.
    x, y = z.unbind(1)
    away = math.sin(theta / 2) * x - math.cos(theta / 2) * y > 0
    a = torch.where(away, x * math.cos(theta) + y * math.sin(theta), x)
    b = torch.where(away, x * math.sin(theta) - y * math.cos(theta), y)
    assert torch.allclose(functional.householder(z, theta + 2 * math.pi), torch.stack([a, b], 1), atol=1e-13)


@pytest.mark.parametrize("function", [functional.maxmin, functional.group_sort, functional.householder])
@pytest.mark.parametrize("x", [drawn(6), torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)])
def test_lengths_of_vectors_and_of_gradients_are_kept(function, x):
    """Also at ties, where maximum and minimum of torch share the derivative."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    assert torch.allclose(jacobian @ jacobian.T, torch.eye(6, dtype=torch.float64), atol=1e-14)
    assert function(x).norm().item() == pytest.approx(x.norm().item())


@pytest.mark.parametrize("spec", [spec for spec in VECTORS if spec.promises.lipschitz], ids=lambda spec: spec.name)
@pytest.mark.parametrize("size", [2, 10])
def test_secants_are_no_steeper_than_promised(spec, size):
    values = arguments(spec, size) if spec.name != "gdn" else [*spec.initializations["diagonal"](size).values()]
    x = drawn(2000, size, scale=2.0)
    for step in (1e-3, 0.3, 3.0):
        y = x + step * drawn(2000, size, seed=2)
        ratio = (spec.function(y, *values) - spec.function(x, *values)).norm(dim=1) / (y - x).norm(dim=1)
        assert ratio.max() <= spec.promises.lipschitz * (1 + 1e-9)


def test_of_equal_entries_the_first_wins_a_group_and_all_win_a_vector():
    x = torch.tensor([2.0, 2.0, -1.0, -1.0], requires_grad=True)
    assert functional.lwta(x).tolist() == [2, 0, -1, 0]
    assert torch.autograd.grad(functional.lwta(x).sum(), x)[0].tolist() == [1, 0, 1, 0]
    assert functional.kwta(x, 0.25).tolist() == [2, 2, 0, 0]
    assert torch.autograd.grad(functional.maxout(x).sum(), x)[0].tolist() == [0.5] * 4


@pytest.mark.parametrize(("size", "ratio", "winners"), [(10, 0.1, 1), (100, 0.29, 29), (5, 0.1, 1), (7, 1.0, 7)])
def test_how_many_winners_there_are(size, ratio, winners):
    y = nn.KWTA(ratio=ratio)(1 + drawn(3, size).abs())
    assert (y > 0).sum(1).tolist() == [winners] * 3


def test_nan_stays_nan():
    x = torch.tensor([1.0, NAN, 3.0, 2.0])
    for function in (functional.maxout, functional.maxmin, functional.group_sort, functional.lwta, functional.kwta):
        assert function(x).isnan().any(), function.__name__


def test_infinite_entries():
    x = torch.tensor([1.0, INF, -INF, -2.0])
    assert functional.maxmin(x).tolist() == [INF, 1, -2, -INF]
    assert functional.group_sort(x, 4).tolist() == [-INF, -2, 1, INF]
    assert functional.maxout(x).tolist() == [INF, -2]
    assert functional.lwta(x).tolist() == [0, INF, 0, -2]
    assert not functional.fta(x).view(4, 20)[1:3].any()


@pytest.mark.parametrize("function", SIMPLEX)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_entries_of_the_simplex(function, size):
    for scale in (0.01, 1.0, 1000.0):
        y = function(drawn(20, size, scale=scale))
        assert y.min() >= 0
        assert torch.allclose(y.sum(1), torch.ones(20, dtype=torch.float64), atol=1e-13)
        # In float32 as well, with digits to spare.
        assert torch.allclose(function(drawn(20, size, scale=scale).float()).double(), y, atol=2e-4)


@pytest.mark.parametrize("function", SIMPLEX)
def test_masked_entries_have_no_part(function):
    x = drawn(6).requires_grad_()
    mask = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)
    y = function(x.masked_fill(mask, -INF))
    assert torch.allclose(y[~mask], function(x[~mask]))
    assert not y[mask].any()
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert grad.isfinite().all()


def test_sparsemax_and_entmax_at_known_points():
    x = torch.tensor([0.5, 0.0, -3.0], dtype=torch.float64)
    assert torch.allclose(functional.sparsemax(x), torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64))
    # Two entries of difference d: roots p of p - q = d / 2 with p^2 + q^2 = 1.
    q = (math.sqrt(2 - 0.25**2) - 0.25) / 2
    assert torch.allclose(functional.entmax15(x), torch.tensor([1 - q**2, q**2, 0.0], dtype=torch.float64))
    # From a difference of 1, and of 2, there is one left.
    assert functional.sparsemax(torch.tensor([1.0, 0.0])).tolist() == [1, 0]
    assert functional.entmax15(torch.tensor([2.0, 0.0])).tolist() == [1, 0]


@pytest.mark.parametrize(("function", "power"), [(functional.softmax, 1), (functional.entmax15, 0.5)])
def test_jacobians_of_entmax(function, power):
    """With s = p^(2 - alpha) it is diag(s) - s s^T / sum(s)."""
    x = drawn(7, scale=0.5)
    s = function(x) ** power
    expected = torch.diag(s) - s[:, None] * s / s.sum()
    assert torch.allclose(torch.autograd.functional.jacobian(function, x), expected, atol=1e-14)


def test_an_entry_just_at_the_threshold_of_sparsemax_has_no_derivative():
    jacobian = torch.autograd.functional.jacobian(functional.sparsemax, torch.tensor([1.0, 0.0, -4.0]))
    assert not jacobian.any()


def test_gdn_survives_negative_parameters_and_trains_zeros():
    x, start = drawn(4, 3), [*nn.GDN(channels=3).spec.initializations["diagonal"](3).values()]
    beta, gamma = (one.requires_grad_() for one in start)
    (grad,) = torch.autograd.grad(functional.gdn(x, beta, gamma).square().sum(), gamma)
    assert (grad < 0).all()
    y = functional.gdn(x, torch.tensor([-1.0, 0.0, -1e-9]).double(), -gamma)
    assert y.isfinite().all()
    assert torch.allclose(y[:, 0], functional.gdn(x, beta, gamma)[:, 0])


def test_poly_norm_has_powers_of_unit_size():
    x = drawn(3, 100, scale=1e3)
    for weights, power in (((1.0, 0.0, 0.0), 3), ((0.0, 1.0, 0.0), 2), ((0.0, 0.0, 1.0), 1)):
        y = functional.poly_norm(x, *weights)
        assert torch.allclose(y.square().mean(1), torch.ones(3, dtype=torch.float64))
        assert torch.allclose(y / x**power, (y / x**power)[:, :1].expand_as(y))


def orthogonal(size, seed):
    return torch.linalg.qr(drawn(size, size, seed=seed))[0]


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("group", [2, 3])
def test_norm_relu_turns_with_its_groups(group, bias):
    x = drawn(50, 6)
    turn = torch.block_diag(*(orthogonal(group, seed) for seed in range(6 // group)))
    turned = functional.norm_relu(x @ turn.T, group, bias)
    assert torch.allclose(turned, functional.norm_relu(x, group, bias) @ turn.T, atol=1e-13)


def test_norm_relu_of_pairs_is_modrelu():
    z = torch.view_as_complex(drawn(50, 4, 2))
    for bias in (-0.8, 0.3):
        expected = torch.view_as_real(torch.relu(z.abs() + bias) * z / z.abs()).flatten(1)
        assert torch.allclose(functional.norm_relu(torch.view_as_real(z).flatten(1), 2, bias), expected, atol=1e-14)


def test_norm_relu_starts_as_the_identity_and_trains_from_there():
    x = drawn(20, 6).float().requires_grad_()
    module = nn.NormReLU()
    assert torch.equal(module(x), x)
    by_x, by_bias = torch.autograd.grad(module(x).sum(), (x, module.bias))
    assert torch.equal(by_x, torch.ones_like(x))
    assert by_bias.item() != 0
    zero = torch.zeros(6, requires_grad=True)
    for bias, slope in ((0.0, 1), (-0.5, 0)):
        assert torch.autograd.grad(functional.norm_relu(zero, 2, bias).sum(), zero)[0].tolist() == [slope] * 6


def test_squash_turns_with_its_vector_and_shortens_it():
    x, turn = drawn(30, 5), orthogonal(5, 3)
    assert torch.allclose(functional.squash(x @ turn.T), functional.squash(x) @ turn.T, atol=1e-14)
    length = x.norm(dim=1)
    assert torch.allclose(functional.squash(x).norm(dim=1), length**2 / (1 + length**2))
    assert functional.squash(torch.full((2,), 1e30)).norm().item() == pytest.approx(1)


def test_fuzzy_tiles():
    """Five tiles of width 2 of [-5, 5]; their edges belong to both."""
    assert functional.fta(torch.tensor([0.5]), 5, 5.0, 0.0).tolist() == [0, 0, 1, 0, 0]
    assert functional.fta(torch.tensor([1.0]), 5, 5.0, 0.0).tolist() == [0, 0, 1, 1, 0]
    assert functional.fta(torch.tensor([0.5]), 5, 5.0, 1.0).tolist() == [0, 0, 1, 0.5, 0]
    got = functional.fta(torch.tensor([[0.5, -4.0]]), 5, 5.0, 2.0)
    assert got.tolist() == [[0, -0.5, 1, 0.5, 0, 1, 0, 0, 0, 0]]
    assert functional.fta(torch.zeros(2, 3, 4), dim=1).shape == (2, 60, 4)
