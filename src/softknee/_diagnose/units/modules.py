"""Which modules of a model are activations by their class, and whose outputs have slopes."""

from __future__ import annotations

from torch import nn

from softknee._errors import OptionError, UsageError
from softknee._surgery.find import is_compiled
from softknee._surgery.probe import TORCH
from softknee.nn.activation import Activation
from softknee.nn.elementwise import Elementwise
from softknee.nn.values import excerpt

# Those of torch that look at more than single elements.
_OTHERS = (nn.GLU, nn.LogSoftmax, nn.Softmax, nn.Softmax2d, nn.Softmin)
# Where other libraries keep their own, all of single elements.
_LIBRARIES = ("transformers.activations", "timm.layers.activations")


def activations_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the activations of a model by their names in it, without those that are part of another.

    Args:
        model: Any module; one that is itself an activation goes by the name of its class.

    Returns:
        Activations of softknee, torch, transformers and timm.
    """
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if _is_activation(module) and not name.startswith(inside):
            found[name or type(module).__name__] = module
            inside += (f"{name}." if name else "",)
    return found


def has_slope(activation: nn.Module) -> bool:
    """Whether each output now depends on one element of the input, and on no chance."""
    if isinstance(activation, Activation):
        return isinstance(activation, Elementwise) and not (activation.training and activation.spec.sampled is not None)
    return not (isinstance(activation, _OTHERS) or (isinstance(activation, nn.RReLU) and activation.training))


def check_not_compiled(model: nn.Module, use: str) -> None:
    """Refuse a model whose hooks would not fire.

    Args:
        model: It.
        use: What the uncompiled one is to be used for, as in "record".

    Raises:
        UsageError: It is compiled, or a part of it is.
    """
    if any(map(is_compiled, model.modules())):
        raise UsageError(
            "the model is compiled, and hooks that are added later do not fire in compiled models; "
            f"{use} the original, uncompiled model"
        )


def check_every(every: int) -> None:
    """Refuse a number of steps that is none.

    Raises:
        OptionError: It is no positive whole number.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise OptionError(f"every must be an integer of at least 1, got {excerpt(every)}")


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, (Activation, *TORCH, *_OTHERS)) or type(module).__module__ in _LIBRARIES
