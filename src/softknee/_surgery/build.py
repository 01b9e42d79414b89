"""Makes the activations that a swap puts in, one for each place."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._catalogue import create, parse_choice
from softknee._errors import UsageError
from softknee._surgery.places import Misfit
from softknee._surgery.redirect import Experts
from softknee._surgery.untouched import untouched
from softknee.nn.gated import Gated
from softknee.nn.options import needs_channels
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from softknee._surgery.places import Place, Site

Replacement = str | nn.Module | Callable[..., Any]
# Rows of the input that a replacement is tried with.
ROWS = 2


def build(to: Replacement, site: Site, *, per_channel: bool) -> nn.Module:
    """Make the activation for a place.

    Args:
        to: A name, a formula, either with options in brackets; a module, of which a copy is made; a class or function
            that takes nothing, or the site, and returns one of these.
        site: The place.
        per_channel: Whether it gets parameters of its own for each channel.

    Returns:
        A new module.

    Raises:
        UsageError: It cannot be made.
        Misfit: It needs the number of channels, which is not known.
    """
    if isinstance(to, nn.Module):
        made: Any = copy.deepcopy(to)
    else:
        made = _made_by(to, site) if callable(to) else to
    if isinstance(made, str):
        return _by_text(made, site, per_channel=per_channel)
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"to must be an activation's name, a formula, a module or what returns one; got {excerpt(made)}"
        )
    if per_channel:
        raise UsageError("per_channel is for names and formulas; a module has been made already: make it per channel")
    return made


def _made_by(factory: Callable[..., Any], site: Site) -> Any:
    """Return what a class or function makes.

    Raises:
        UsageError: It raises an error, as a function of a tensor does.
    """
    try:
        return factory(site) if _takes_site(factory) else factory()
    except Exception as error:  # anybody's function may raise anything
        raise UsageError(
            f"to was called to make an activation, and raised {type(error).__name__}: {error}; it takes nothing or a "
            "Site, and returns a module, a name or a formula; a function of a tensor is given by its name or formula"
        ) from error


def _takes_site(factory: Callable[..., Any]) -> bool:
    """Return whether a factory must be given something."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(one.kind in kinds and one.default is one.empty for one in parameters)


def _by_text(text: str, site: Site, *, per_channel: bool) -> nn.Module:
    choice = parse_choice(text)
    options: dict[str, Any] = dict(choice.options)
    spec = choice.spec
    given = options.get("per_channel")
    if (per_channel and given is None) or given is True:
        options["per_channel"] = _units(site, choice.label)
    if needs_channels(spec):
        options["channels"] = _units(site, choice.label)
    axis = None if site.unit_axis is None else site.unit_axis if site.unit_axis < len(site.shape) - 1 else -1
    if spec.kind == "elementwise" and options.get("per_channel") is not None and axis is not None:
        options["channel_dim"] = axis
    elif spec.kind in {"gated", "vector"} and axis is not None:
        options["dim"] = axis
    return create(choice.what, **options)


def _units(site: Site, label: str) -> int:
    """Return the number of channels at a place.

    Raises:
        Misfit: It is not known.
    """
    if site.units is None:
        raise Misfit(
            f"{label} needs to know the number of channels at {site.name}, which only an example shows; "
            "give example_inputs with which it runs"
        )
    return site.units


def join(made: nn.Module, model: nn.Module, path: str) -> Tensor:
    """Give a new activation the device, dtype and mode of the module that calls it.

    Args:
        made: The activation.
        model: The model it is for.
        path: Of the module that calls it.

    Returns:
        A tensor with this device and dtype.
    """
    owner = model.get_submodule(path)
    tensors = (one for module in (owner, model) for one in module.parameters() if one.is_floating_point())
    like: Tensor = next(tensors, torch.empty(0))
    made.to(device=like.device, dtype=like.dtype).train(owner.training)
    return like


def place_of(made: nn.Module, site: Site) -> Place:
    """Return where an activation acts at a site: a gated pair takes in the product with the second stream.

    Args:
        made: The activation, or those of experts.
        site: The site.

    Returns:
        The place.
    """
    one = made[0] if isinstance(made, Experts) else made
    both = site.place.of_both if isinstance(one, Gated) and site.shape == site.result else None
    return both or site.place


def fit_in(made: nn.Module, model: nn.Module, site: Site) -> None:
    """Have a new activation join a model, and try it.

    Args:
        made: The activation.
        model: The model it is for.
        site: The place.

    Raises:
        Misfit: It cannot be called with such inputs, or changes their shape otherwise than what was there.
    """
    like = join(made, model, site.place.owner)
    if not site.shape or like.is_meta:
        return
    rows = site.shape[0] if site.unit_axis == 0 else min(ROWS, site.shape[0])
    x = torch.zeros((rows, *site.shape[1:]), device=like.device, dtype=like.dtype)
    shape, title = tuple(x.shape), type(made).__name__
    wanted = site.result[1:] if len(shape) > 1 else None
    try:
        with untouched(made):
            got = copy.deepcopy(made).eval()(*([x, x] if place_of(made, site).value >= 0 else [x])).shape
    except Exception as error:  # anybody's module may raise anything
        raise Misfit(f"{title} cannot act at {site.name}, on inputs of shape {site.shape}: {error}") from error
    if wanted is not None and tuple(got[1:]) != tuple(wanted):
        raise Misfit(
            f"{title} makes {tuple(got)} of {shape} at {site.name}, where {site.kind} makes {(shape[0], *wanted)}"
        )
