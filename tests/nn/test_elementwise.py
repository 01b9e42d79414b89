from __future__ import annotations

import pytest
import torch

from softknee import nn
from softknee._catalogue import CATALOGUE, create
from softknee._engine.select import engine
from softknee._errors import OptionError, UsageError

ELEMENTWISE = [spec for spec in CATALOGUE if spec.kind == "elementwise"]


@pytest.mark.parametrize("spec", ELEMENTWISE, ids=lambda spec: spec.name)
def test_every_entry_has_a_module(spec):
    module = getattr(nn, spec.title)()
    assert type(module).__name__ == spec.title
    assert spec.title in dir(nn)
    assert type(module) is getattr(nn, spec.title)
    assert type(module).__doc__
    for shape in ((), (5,), (3, 4), (2, 3, 4, 5)):
        x = torch.linspace(-2, 2, 120)[: torch.Size(shape).numel()].view(shape)
        if shape or not spec.channelwise:
            # As it is written: kernels, which take longer to make, are tried in every layout by `softknee.testing`.
            with engine("eager"):
                assert module(x).shape == shape


def test_unknown_attributes_are_unknown():
    with pytest.raises(AttributeError, match="module 'softknee.nn' has no attribute 'ReLLU'"):
        nn.ReLLU  # noqa: B018


@pytest.mark.parametrize(("shape", "dim"), [((4,), 1), ((2, 4), 1), ((2, 4, 3, 3), 1), ((2, 3, 4), -1), ((4, 2), 0)])
def test_per_channel_parameters_reach_their_channels(shape, dim):
    slopes = torch.tensor([0.0, 0.1, 0.2, 0.3])
    module = nn.PReLU(per_channel=4, slope=slopes, channel_dim=dim)
    got = module(-torch.ones(shape))
    axis = 0 if len(shape) == 1 else dim
    for channel, slope in enumerate(slopes):
        assert (got.select(axis, channel) == -slope).all()


def test_vectors_per_channel():
    amplitude = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    ones, zeros = torch.ones(2), torch.zeros(2)
    module = nn.STAF(per_channel=2, amplitude=amplitude, frequency=ones, phase=zeros)
    x = torch.linspace(-2, 2, 10).view(5, 2)
    assert module.amplitude.shape == (2, 2)
    assert torch.allclose(module(x), torch.tensor([1.0, 2.0]) * x.sin())
    images = x.view(5, 2, 1, 1).expand(5, 2, 3, 3)
    assert torch.allclose(module(images), torch.tensor([1.0, 2.0]).view(2, 1, 1) * images.sin())


def test_channels_alternate_in_brelu():
    x = torch.tensor([[-1.0, -1.0, 2.0, 2.0]])
    assert nn.BReLU()(x).tolist() == [[0.0, -1.0, 2.0, 0.0]]
    assert nn.BReLU(channel_dim=0)(x).tolist() == [[0.0, 0.0, 2.0, 2.0]]


def test_stored_shapes():
    assert nn.Swish().beta.shape == (1,)
    assert nn.Swish(per_channel=3).beta.shape == (3,)
    assert nn.STAF(terms=4).amplitude.shape == (4,)
    assert nn.STAF(terms=4, per_channel=3).amplitude.shape == (4, 3)
    assert nn.ELU().alpha == 1.0
    assert not nn.ELU().state_dict()
    assert nn.ELU(per_channel=2).state_dict()["alpha"].shape == (2,)


def test_what_is_trained():
    def trained(**options):
        return [name for name, _ in nn.SReLU(**options).named_parameters()]

    every = ["left_threshold", "left_slope", "right_threshold", "right_slope"]
    assert trained() == every
    assert trained(trainable=True) == every
    assert trained(trainable=False) == []
    assert trained(trainable=["left_slope"]) == ["left_slope"]
    assert [name for name, _ in nn.ELU(trainable=True).named_parameters()] == ["alpha"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_move_between_dtypes(dtype):
    module = nn.Swish(per_channel=3).to(dtype)
    assert module.beta.dtype == dtype
    assert module(torch.ones(2, 3, dtype=dtype)).dtype == dtype
    assert nn.Swish()(torch.ones(2, 3, dtype=dtype)).dtype == dtype
    assert nn.Swish().half().double()(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


def test_named_values_and_repr():
    module = nn.SReLU(left_slope=0.25, trainable=["left_slope"])
    assert module.named_values()["left_slope"].tolist() == [0.25]
    assert not module.named_values()["left_slope"].requires_grad
    assert module.named_values()["right_slope"] == 1.0
    assert repr(module) == (
        "SReLU(left_threshold=0, left_slope=0.25, right_threshold=1, right_slope=1, trainable=(left_slope), "
        "engine=fused)"
    )
    assert repr(nn.Swish(per_channel=3)) == "Swish(beta=<3>, trainable=(beta), per_channel=3, engine=fused)"
    assert repr(nn.ReLU()) == "ReLU(engine=eager)"


def test_random_activations_sample_in_training_only():
    module = nn.RReLU()
    x = -torch.ones(200)
    assert module(x).unique().numel() > 100
    assert module.eval()(x).unique().numel() == 1


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (lambda: nn.PReLU(per_channel=4), (2, 3), r"PReLU has parameters for 4 channels, got .*\(2, 3\) with 3 in"),
        (lambda: nn.PReLU(per_channel=4), (3,), r"PReLU has parameters for 4 channels, got .* 3 in dimension 0"),
        (lambda: nn.PReLU(per_channel=4, channel_dim=2), (2, 4), "PReLU expects channels in dimension 2, got an input"),
        (lambda: nn.BReLU(), (), r"BReLU expects channels in dimension 1, got an input of shape \(\)"),
    ],
)
def test_other_shapes_are_refused(module, shape, message):
    with pytest.raises(UsageError, match=message):
        module()(torch.ones(shape))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("swish", {"bta": 1.0}, r"swish has no parameter 'bta'; did you mean 'beta'\? it has beta"),
        ("relu", {"a": 1.0}, "relu has no parameter 'a'; it has none"),
        ("swish", {"trainable": ["gamma"]}, "swish has no parameter 'gamma'"),
        ("relu", {"trainable": True}, "relu has no parameters that could be trained"),
        ("swish", {"per_channel": 0}, "per_channel of swish must be an integer of at least 1, got 0"),
        ("swish", {"per_channel": True}, "per_channel of swish must be an integer of at least 1, got True"),
        ("staf", {"terms": 0}, "terms of staf must be an integer of at least 1, got 0"),
        ("bspline", {"terms": 3}, "terms of bspline must be an integer of at least 4, got 3"),
        ("swish", {"terms": 3}, "swish has no terms; it takes neither terms nor initialization"),
        ("staf", {"initialization": "mine"}, "must be one of theorem, code, normal, got 'mine'"),
        ("celu", {"alpha": 0.0}, "alpha of celu must be above 0, got 0"),
        ("swish", {"beta": float("inf")}, "beta of swish must be finite, got inf"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(OptionError, match=message):
        create(name, **options)


def test_vectors_are_reproducible():
    first, again = (nn.STAF(generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.frequency, again.frequency)
