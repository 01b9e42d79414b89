"""Runs a model with gradients and keeps, at each activation, what its second derivative needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from softknee._surgery.compose import Composer
from softknee._surgery.find import look
from softknee._surgery.observe import Observer, observe
from softknee._surgery.trace import Tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import nn
    from torch.autograd.graph import GradientEdge

    from softknee._diagnose.task import Batch, Task
    from softknee._surgery.compose import Acting
    from softknee._surgery.places import Site

_NOT_ALONE = "its outputs depend on several inputs each, and count as products"
_NO_SECOND = "its second derivative could not be computed"


@dataclass(frozen=True)
class Bent:
    """One call of an activation h = phi(z).

    Attributes:
        number: Of it, in the order of `Seen.sites`.
        name: Of its site.
        z: A copy of its input, in the graph.
        edge: Where the gradient by its output is found in the graph.
        bend: phi''(z), in the shape of z, float64.
    """

    number: int
    name: str
    z: Tensor
    edge: GradientEdge
    bend: Tensor


@dataclass(frozen=True)
class Seen:
    """A run of a model.

    Attributes:
        outputs: What it returned, in the graph.
        sites: Its activations of single elements.
        unseen: Names of other sites and paths of what may hide some, with the reason.
    """

    outputs: Any
    sites: tuple[Bent, ...]
    unseen: Mapping[str, str]


def see(task: Task, batch: Batch) -> Seen:
    """Run a model with a batch, with gradients.

    Args:
        task: Of the model.
        batch: Of its sample.

    Returns:
        What is needed of the run.
    """
    looked = look(task.model, batch.inputs, batch.keywords)
    names = {
        _key_of_site(site): site for site in (*looked.sites, *(one.site for one in looked.sites.unseen if one.site))
    }
    trace, _ = observe(task.model, batch.inputs, batch.keywords)
    found = Composer(trace).compose()
    # The tensors of a second run have the same numbers.
    graph = _Graph(task.model, {one.source for one in found}, {one.last.output for one in found})
    _, outputs = observe(task.model, batch.inputs, batch.keywords, observer=graph)
    sites: list[Bent] = []
    unseen = {one.path or "model": one.reason for one in looked.sites.unseen if one.site is None}
    for acting in found:
        site = names.get(_key(acting))
        if site is None or acting.source not in graph.inputs or acting.last.output not in graph.edges:
            continue
        z = graph.inputs[acting.source]
        bend = _NOT_ALONE if site.role == "normaliser" else second_derivative(looked.functions[site.place], z.detach())
        if isinstance(bend, str):
            unseen[site.name] = bend
        else:
            sites.append(Bent(len(sites), site.name, z, graph.edges[acting.last.output], bend))
    return Seen(outputs, tuple(sites), unseen)


def second_derivative(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor | str:
    """Return the second derivative of a function of single elements.

    Args:
        function: Maps a tensor to one of the same shape.
        z: Where.

    Returns:
        The same shape, float64; a reason where it is no such function or has none.
    """
    z = z.clone().requires_grad_()
    # Fixed, but no pattern that a function could share.
    mix = torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype, device=z.device).view_as(z)
    try:
        y = function(z.clone())
        if not isinstance(y, Tensor) or y.shape != z.shape:
            return _NOT_ALONE
        if not y.requires_grad:
            return torch.zeros_like(z, dtype=torch.float64)
        (slope,) = torch.autograd.grad(y.sum(), z, create_graph=True)
        (mixed,) = torch.autograd.grad((y * mix).sum(), z, retain_graph=True)
        if not torch.allclose(mixed, slope.detach() * mix, rtol=1e-4, atol=1e-6):
            return _NOT_ALONE
        if not slope.requires_grad:
            return torch.zeros_like(z, dtype=torch.float64)
        (bend,) = torch.autograd.grad(slope.sum(), z, allow_unused=True)
    except Exception:  # anybody's module may raise anything
        return _NO_SECOND
    return torch.zeros_like(z, dtype=torch.float64) if bend is None else bend.double()


class _Graph(Observer):
    """Keeps tensors of some numbers in the graph of a run.

    Args:
        model: The model.
        inputs: Numbers of the inputs of activations.
        outputs: Numbers of their outputs.
    """

    def __init__(self, model: nn.Module, inputs: Collection[int], outputs: Collection[int]) -> None:
        super().__init__(model)
        self.inputs: dict[int, Tensor] = {}
        self.edges: dict[int, GradientEdge] = {}
        self._wanted = set(inputs), set(outputs)
        self._tensors = _Keeping(self, (*model.parameters(), *model.buffers()))

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Note that a module begins to run, with gradients."""
        # Whoever observes has turned them off, and restores that.
        torch.set_grad_enabled(True)
        return super().before(module, args)

    def keep(self, number: int, tensor: Tensor) -> None:
        """Keep a tensor if it is wanted; as it is now, for it may be overwritten."""
        inputs, outputs = self._wanted
        if number in inputs and tensor.requires_grad:
            with torch._C.DisableTorchFunction():
                self.inputs[number] = tensor.clone()
        if number in outputs and tensor.requires_grad:
            self.edges[number] = get_gradient_edge(tensor)


class _Keeping(Tensors):
    def __init__(self, graph: _Graph, weights: Collection[Tensor]) -> None:
        self._graph = graph
        super().__init__(graph.trace, weights)

    def new(self, tensor: Tensor, *, fixed: bool = False) -> int:
        """Return a new number for a tensor, and keep it if it is wanted."""
        number = super().new(tensor, fixed=fixed)
        self._graph.keep(number, tensor)
        return number


def _key(acting: Acting) -> tuple[str, str, str, int]:
    last = acting.last
    turn = 0 if last.run.experts and last.module is not None else last.occurrence
    return last.run.path, last.path, "" if last.module is not None else last.name, turn


def _key_of_site(site: Site) -> tuple[str, str, str, int]:
    place = site.place
    return place.owner, place.module, place.operation, place.occurrence if place.operation else place.turn
