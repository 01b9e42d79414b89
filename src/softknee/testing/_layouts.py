"""Shapes and memory layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee.nn.options import can_be_trained
from softknee.testing._case import cases
from softknee.testing._subject import CHANNELS, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._spec import Spec
    from softknee.testing._case import Activation

# Orders of the dimensions of a contiguous (N, C, L, M) tensor in memory.
ORDERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 3),
}


def check_layouts(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check that neither emptiness nor the layout in memory matters, and that the input is left alone.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A value or a gradient differs, or the input has changed.
    """
    for case in cases(activation, example, values):
        before = case.x.clone()
        expected = case.module(case.x)
        case.same("unchanged input", case.x, before)
        with case.must("empty input"):
            empty = case.module(case.x[:0])
        case.same("shape of an empty output", empty.shape, (0, *expected.shape[1:]))
        x = case.x if case.x.dim() == 4 else case.x.reshape(*case.x.shape, 1, 1).expand(-1, -1, 2, 3).contiguous()
        if case.x.dim() != 4 and (case.kind not in {"elementwise", "vector"} or _dim_of(case.module) not in {0, 1}):
            continue  # whose channels lie in the last dimension
        for name, order in ORDERS.items():
            laid = order(x)
            with case.must(name):
                got = _value_and_gradient(case.module, laid)
            for one, wanted in zip(got, _value_and_gradient(case.module, laid.contiguous()), strict=True):
                case.near(name, one, wanted)


def check_channels(activation: Spec | str, **values: Any) -> None:
    """Check parameters for each channel in (N, C), (N, C, L), (N, C, H, W), channels last, (C,) and single numbers.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A channel gets another channel's parameters, or a shape is changed.
    """
    subject = Subject(activation, values)
    names = [param.name for param in subject.spec.parameters if can_be_trained(param)]
    plain = subject.module()
    case = cases(subject.spec, None, values)[0]
    if not subject.spec.channelwise:
        for shape in ((), (1,), (2, 3)):
            got = plain(torch.full(shape, 0.7))
            case.same(f"shape {shape}", got.shape, shape)
            case.near(f"shape {shape}", got, plain(torch.full((5,), 0.7))[0].expand(shape))
    if not names:
        return
    x = torch.linspace(-3, 3, 2 * CHANNELS * 6).view(2, CHANNELS, 2, 3)
    for dim, at in ((1, x), (1, x.flatten(2)), (1, x[..., 0, 0]), (-1, x.movedim(1, -1)), (1, x[0, :, 0, 0])):
        module = subject.module(trainable=names, per_channel=CHANNELS, channel_dim=dim)
        with torch.no_grad():
            for parameter in module.parameters():
                # Small steps up keep every allowed value allowed.
                parameter.add_(0.01 * torch.arange(CHANNELS) * parameter.abs())
        channels = at.movedim(0 if at.dim() == 1 else dim, 0)
        got = module(at).movedim(0 if at.dim() == 1 else dim, 0)
        for i, (one, channel) in enumerate(zip(got, channels, strict=True)):
            # By itself, with the channel's parameters.
            numbers = [parameter[..., i] for parameter in module._values()]
            index = {"channel": torch.tensor(i)} if subject.spec.channelwise else {}
            case.near(f"channel {i} of {tuple(at.shape)}", one, subject.spec.function(channel, *numbers, **index))


def _dim_of(module: Any) -> int:
    return int(getattr(module, "dim", 1))


def _value_and_gradient(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = module(x)
    return y.detach(), torch.autograd.grad(y.square().sum(), x)[0].contiguous()
