"""What is drawn for one forward pass of a relaxed cell, and whether it may still be used."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from softknee._engine.interpolated import Inner
    from softknee._search.cell import Weights


class Tabulated(NamedTuple):
    """The table of a site, as `interpolated` takes it.

    Attributes:
        values: At the nodes.
        rows: Of the table.
        inner: Values inside the sharpest bins, None where no gradient will be asked for.
    """

    values: Tensor
    rows: Tensor
    inner: Inner | None


class Versions:
    """Tensors as they are now, to see later whether they still are.

    Changes in place are counted by torch. The tensors are kept, so that others in their place are told apart.

    Args:
        tensors: Any.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._seen = [(one, one._version) for one in tensors]

    def are(self, tensors: Iterable[Tensor]) -> bool:
        """Whether these are the same ones, unchanged."""
        now = [*tensors]
        return len(now) == len(self._seen) and all(
            one is seen and one._version == version for one, (seen, version) in zip(now, self._seen, strict=True)
        )


class Sampled:
    """Weights for all sites, and the tables made of them.

    Args:
        weights: Of each site.
        modes: What else they depend on.
        sources: Tensors that they were computed from.
        number: Of the draw.

    Attributes:
        weights: The same.
        number: The same.
        used: Sites that were evaluated with them.
        tables: Of each site, None until they are made.
    """

    def __init__(self, weights: Weights, modes: tuple[Any, ...], sources: Iterable[Tensor], number: int) -> None:
        self.weights = weights
        self.number = number
        self.used: set[int] = set()
        self._several: set[int] = set()
        self._repeated = False
        self._graded = torch.is_grad_enabled()
        self.tables: list[Tabulated] | None = None
        self._modes = modes
        self._sources = Versions(sources)
        self._spent = False
        # The graph holds the hook, and this holds the graph: a reference back would keep both alive for good.
        own = weakref.ref(self)
        for part in weights:
            if part.requires_grad:
                part.register_hook(lambda _: _spend(own()))

    def holds(self, modes: tuple[Any, ...], sources: Iterable[Tensor]) -> bool:
        """Whether they are still what would be made: of the same, with a graph that no gradient went through."""
        return not self._spent and self._modes == modes and self._sources.are(sources)

    @property
    def passed(self) -> bool:
        """Whether a backward pass is known to have gone through what they were used for."""
        return self._spent or self._repeated

    def use(self, site: int, before: Sampled | None) -> None:
        """Note that a site is evaluated with them, and what it was evaluated with before."""
        self.used.add(site)
        if before is not None and before is not self and not before.passed and before._graded == self._graded:
            self._several.add(site)

    def repeat(self, site: int, *, alike: bool) -> None:
        """Note that a backward pass has a site evaluated once more.

        Args:
            site: Its number.
            alike: Whether all draws are the same.

        Raises:
            UsageError: It was evaluated with other draws too, and nobody knows which is meant.
        """
        self._repeated = True
        if site in self._several and not alike:
            raise UsageError(
                "a mixture was called several times at one place before a backward pass, and a checkpoint cannot say "
                "which call it repeats; use checkpoints with use_reentrant=False"
            )


def _spend(sampled: Sampled | None) -> None:
    """Note that a gradient went through the weights: their graph is gone."""
    if sampled is not None:
        sampled._spent = True


def is_checkpointed() -> bool:
    """Whether what is evaluated now will be evaluated once more by a checkpoint that is not reentrant."""
    autograd: Any = torch._C._autograd
    hooks = autograd._top_saved_tensors_default_hooks(False) if autograd._saved_tensors_hooks_is_enabled() else None
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


def kept_as_it_is() -> AbstractContextManager[Any]:
    """Keep hooks of the caller from what is saved for a backward pass.

    They are for its own part of the graph: a checkpoint would find that less is saved when it evaluates that part once
    more, for what all parts share is there already.
    """
    autograd: Any = torch._C._autograd
    # A transform is at work, which has none; or there is none, and hooks on every tensor cost more than the cell.
    if not autograd._saved_tensors_hooks_is_enabled() or autograd._top_saved_tensors_default_hooks(False) is None:
        return nullcontext()
    return saved_tensors_hooks(_itself, _itself)


def _itself(kept: Tensor) -> Tensor:
    return kept
