"""Draws the weights of a model anew, each layer with the gain of the activation that feeds it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from softknee._engine.distributed import is_distributed
from softknee._errors import UsageError, did_you_mean
from softknee._surgery.calibration import CalibratedLayer, Calibration
from softknee._surgery.example import arguments, check_unwrapped
from softknee._surgery.find import checked
from softknee._surgery.layers import Follower, Scaler
from softknee._surgery.left import left_out, reasons
from softknee._surgery.observe import observe
from softknee._surgery.signal import Theory
from softknee._surgery.untouched import untouched
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softknee._surgery.layers import Layer

Where = str | type[nn.Module] | Callable[[str], bool]
# Around the model by what trains on several devices.


def calibrate(
    model: nn.Module,
    example: Any,
    *,
    where: Where | list[Where] | None = None,
    lsuv: bool = False,
    tolerance: float = 0.01,
    generator: torch.Generator | None = None,
) -> Calibration:
    r"""Draw the weights of a model anew, in place, so that the signal keeps its size through all layers.

    For models that are trained from scratch. Every linear layer and convolution gets normal weights of variance
    $1 / (n\,q)$ and a bias of zero. Here $n$ is the number of inputs that an output is a sum of (zeros of padding not
    counted), and $q$ the mean square of these inputs, by theory: $E[\varphi(z)^2]$ behind an activation, where $z$ is
    normal with mean square 1, so that the standard deviation is the activation's forward gain (`gain`) over
    $\sqrt n$. The outputs of layers then have mean square 1, at any depth (He et al. 2015, for ReLU).

    What theory knows: activations at their present parameters, as modules, functions or expressions; gated pairs;
    norms with their present factors and shifts; dropout in training; sums and concatenations; and everything that
    depends on no drawn layer (inputs, embeddings, frozen parts), as measured. Mean and mean square are followed from
    layer to layer, terms and factors being taken as independent. What it does not know: pooling counts as if it changed
    nothing, attention and other functions as if their results had mean square 1. The example shows what comes of all
    this, and `lsuv` corrects it.

    The stream of a residual network grows by 1 with every branch. A layer that reads it is drawn with as much smaller
    weights; the branches themselves are not scaled down with depth, as Fixup or GPT-2 do, and weights that are meant to
    start at zero do not: leave them out by `where`, or set them afterwards.

    Layers before a norm are drawn like all others, although their scale matters little there; so is the last layer,
    whose outputs get standard deviation 1 too. Left as they are, and listed: frozen, quantized and parametrized
    weights, embeddings and what is tied to them, the projections of `nn.MultiheadAttention`, recurrent networks, and
    what did not run. A weight that several layers share is drawn once, for the mean of its $q$.

    Args:
        model: Any module, in the mode in which its signal is to be measured: best in training mode, where batch norm
            normalizes. Nothing of it is changed if an error is raised; its buffers and modes never are.
        example: What the model is called with, a typical batch: a tensor, a tuple, or a dictionary of named inputs.
        where: Which layers: None for all; a path or a pattern of paths (`"blocks.*.mlp.*"`), a class (`nn.Conv2d`), a
            function of a path; or a list of these.
        lsuv: Whether to scale each layer's weights, in the order of calls, until the standard deviation of its outputs
            in the example is 1 (Mishkin & Matas 2016, without their orthonormal start); for a layer that runs several
            times, its first outputs.
        tolerance: How far from 1 `lsuv` lets a standard deviation be.
        generator: Source of the weights, torch's global one by default. They are drawn on its device, in the order of
            calls.

    Returns:
        What was changed, layer by layer, and what was left.

    Raises:
        UsageError: There is nothing to draw, or an activation or a layer that `where` names does not allow it, or the
            model is wrapped, or its outputs cannot be scaled.
    """
    model = _checked(model, tolerance, generator)
    inputs, keywords = arguments(example)
    if not (inputs or keywords):
        raise UsageError("calibrate needs an example of the model's inputs, which shows what its layers are fed by")
    before = Follower(model)
    observe(model, inputs, keywords, observer=before)
    obstacles = reasons(model, before)
    asked = _select(where, model, before)
    _check_all(asked, obstacles, named=where is not None)
    chosen = [layer for layer in asked if layer.weight not in obstacles]
    with untouched(model):
        theory = Theory(before, [layer.weight for layer in chosen])
        gains = {layer.weight: _gain(theory, layer) for layer in chosen}
    stds = {layer.weight: _std(layer.weight) for layer in chosen}
    after = Follower(model)
    with _all_or_nothing(chosen):
        _draw(chosen, gains, generator)
        factors = _scale(model, inputs, keywords, set(gains), tolerance) if lsuv else {}
        observe(model, inputs, keywords, observer=after)
    rows = tuple(
        CalibratedLayer(
            path=layer.path,
            fed_by=", ".join(dict.fromkeys(theory.signal(number).name for number in layer.inputs)),
            gain=gains[layer.weight],
            fan_in=layer.fan_in,
            weight_before=stds[layer.weight],
            weight_after=_std(layer.weight),
            output_before=layer.spread.std,
            output_after=after.layers[layer.weight].spread.std if layer.weight in after.layers else math.nan,
            factor=factors.get(layer.weight, 1.0),
        )
        for layer in chosen
    )
    return Calibration(rows, left_out(model, before, gains, obstacles))


def _checked(model: Any, tolerance: Any, generator: Any) -> nn.Module:
    """Return the module to calibrate.

    Raises:
        UsageError: It cannot be.
    """
    found: nn.Module = checked(model)
    check_unwrapped(found, "calibrate")
    for name, parameter in found.named_parameters():
        if is_lazy(parameter):
            raise UsageError(f"{name} has no shape yet; run the model once, then calibrate")
        if parameter.is_meta:
            raise UsageError(f"{name} has no elements, as it is on the meta device; materialize the model first")
        if is_distributed(parameter):
            raise UsageError(f"{name} lies on several devices in parts; calibrate first, then shard")
    if not (isinstance(tolerance, int | float) and 0 <= tolerance < 1):
        raise UsageError(f"tolerance must be at least 0 and below 1, got {excerpt(tolerance)}")
    if not isinstance(generator, torch.Generator | None):
        raise UsageError(f"generator must be a torch.Generator, got {excerpt(generator)}")
    return found


def _select(where: Any, model: nn.Module, seen: Follower) -> list[Layer]:
    """Return the layers meant, in the order of calls.

    Raises:
        UsageError: Nothing is meant, or `where` is nothing that means layers.
    """
    layers = list(seen.layers.values())
    if where is None:
        return layers
    wanted = where if isinstance(where, list | tuple) else [where]
    modules: dict[str, nn.Module] = dict(model.named_modules())
    meant = [{id(layer) for layer in layers if _matches(one, layer, modules)} for one in wanted]
    for one, found in zip(wanted, meant, strict=True):
        if isinstance(one, str) and not found:
            paths = [layer.path for layer in layers]
            hint = did_you_mean(one, paths) or f"; there are {excerpt(', '.join(paths)) if paths else 'none'}"
            raise UsageError(f"where={one!r} matches no layer with weights that ran in the example{hint}")
    return [layer for layer in layers if any(id(layer) in found for found in meant)]


def _matches(where: Any, layer: Layer, modules: Mapping[str, nn.Module]) -> bool:
    if isinstance(where, str):
        return fnmatchcase(layer.path, where)
    if isinstance(where, type):
        return isinstance(modules.get(layer.path), where)
    if not callable(where):
        raise UsageError(f"where must be a path pattern, a class or a function of a path, got {excerpt(where)}")
    return bool(where(layer.path))


def _check_all(asked: list[Layer], obstacles: Mapping[nn.Parameter, str], *, named: bool) -> None:
    """Refuse to change nothing, or less than was named.

    Raises:
        UsageError: Saying why.
    """
    stuck = [layer for layer in asked if layer.weight in obstacles]
    if not asked:
        raise UsageError("no linear layer or convolution that was asked for ran in the example: nothing to draw")
    if stuck and (named or len(stuck) == len(asked)):
        raise UsageError(
            f"{len(stuck)} of {len(asked)} layers cannot be drawn, first {stuck[0].path}: {obstacles[stuck[0].weight]}"
        )


def _gain(theory: Theory, layer: Layer) -> float:
    """Return the factor that inputs of a layer need for mean square 1.

    Raises:
        UsageError: They are zero, or not finite.
    """
    squares = [theory.signal(number).square for number in layer.inputs]
    square = sum(squares) / len(squares)
    if not 0 < square < math.inf:
        raise UsageError(f"the inputs of {layer.path} have mean square {square:g} in the example; give a typical batch")
    return 1 / math.sqrt(square)


@contextlib.contextmanager
def _all_or_nothing(layers: list[Layer]) -> Iterator[None]:
    """Put weights and biases back if an error is raised."""
    changed = [one for layer in layers for one in (layer.weight, layer.bias) if one is not None]
    saved = [(one, one.detach().clone()) for one in changed]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)
        raise


def _scale(
    model: nn.Module,
    inputs: tuple[Any, ...],
    keywords: Mapping[str, Any],
    weights: set[nn.Parameter],
    tolerance: float,
) -> dict[nn.Parameter, float]:
    """Scale weights to outputs of standard deviation 1 in one run, and return by what."""
    scaler = Scaler(model, weights, tolerance)
    observe(model, inputs, keywords, observer=scaler)
    return scaler.factors


def _draw(layers: list[Layer], gains: Mapping[nn.Parameter, float], generator: torch.Generator | None) -> None:
    """Draw weights, and set biases to zero."""
    device = torch.device("cpu") if generator is None else generator.device
    with torch.no_grad():
        for layer in layers:
            std = gains[layer.weight] / math.sqrt(layer.fan_in)
            # In float32 on the generator's device, so that one seed gives the same weights everywhere.
            drawn = torch.empty(layer.weight.shape, dtype=torch.float32, device=device)
            layer.weight.copy_(drawn.normal_(std=std, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()


def _std(weight: nn.Parameter) -> float:
    return float(weight.detach().float().std(correction=0))
