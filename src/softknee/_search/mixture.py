"""The relaxed cell as a plain activation: every site has its own sample of the weights, all share their distribution.

Dirichlet samples, their anchor at Dir(1) and the progressive shrinking are GRAFS's (arXiv:2408.06820, after DrNAS,
arXiv:2006.10355). The cell is evaluated at the nodes of a table, for all sites at once; each tensor is then looked up,
which costs the same whatever is mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softknee._engine.interpolated import Inner, grid_within, inside, interpolated, nodes, quadratics, sharpest
from softknee._engine.select import takes_tables
from softknee._errors import OptionError
from softknee._search.cell import Weights, relaxed
from softknee._search.dirichlet import draw
from softknee._search.relaxed_site import RelaxedSite
from softknee._search.sampled import Sampled, Tabulated, Versions, is_checkpointed, kept_as_it_is
from softknee._search.space import Genotype, space_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._search.candidate import Function
    from softknee._search.cell import Left
    from softknee._search.space import Group, Space

Relaxation = Literal["drnas", "darts"]
RELAXATIONS = ("drnas", "darts")
# Where weights of operations begin: uniform up to there, so that none is the first of equals.
START = 1e-6
# Tables reach so far from 0: few inputs lie outside, where the cell itself is evaluated.
REACH = 12.5
# Of scalars in formulas: what is retrained and kept is the formula.
DIGITS = 4
# What is kept between forwards and never copied or saved.
_FLEETING = ("_drawn", "_again", "_left")


@dataclass(frozen=True)
class Drop:
    """An operation that was taken out.

    Attributes:
        function: Of which function.
        group: `"U0"`, `"B1"`: the edge or vertex.
        operation: Its name.
    """

    function: int
    group: str
    operation: str


class Mixture(nn.Module):
    """A weighted mixture of all functions of a space, to be trained by gradient.

    In training mode every call of a site takes weights of its own, drawn anew; in evaluation mode all sites are the
    most likely function. Put `mixture.site()` at every place, or the mixture itself at all of them. Train its
    `architecture_parameters()` on validation data, all others on training data.

    Activation checkpointing evaluates sites again with the weights of their calls; several calls of a site before the
    backward pass share them then. With `use_reentrant=True` they cannot, and are refused.

    Args:
        space: Of the functions: `"grafs"`, `"one-core"` or a `softknee.Space`.
        functions: How many different functions are looked for; each site belongs to one.
        relaxation: `"drnas"`, weights from a Dirichlet distribution; `"darts"`, a softmax, the same at all sites.
        seed: Of first values and samples.

    Raises:
        OptionError: An option is none of these.
        UsageError: There is no such space.
    """

    def __init__(
        self,
        space: str | Space = "grafs",
        *,
        functions: int = 1,
        relaxation: Relaxation = "drnas",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if relaxation not in RELAXATIONS:
            raise OptionError(f"relaxation must be one of {', '.join(RELAXATIONS)}, got {relaxation!r}")
        if not isinstance(functions, int) or functions < 1:
            raise OptionError(f"functions must be a whole number from 1 on, got {functions!r}")
        self.space = space_of(space)
        self.relaxation = relaxation
        self.seed = seed
        self.draws = 0
        self.warm = False
        self._functions: list[int] = []
        self._own: int | None = None
        self._drawn: Sampled | None = None
        self._again: Sampled | None = None
        self._last: dict[int, Sampled] = {}
        self._left: tuple[Versions, Left, Left] | None = None
        self._grid = grid_within(REACH)
        self._start(functions)

    def _start(self, functions: int) -> None:
        space, generator = self.space, torch.Generator().manual_seed(self._seed(-1))
        for kind, places in (("unary", space.edges), ("binary", space.vertices)):
            operations = getattr(space, kind)
            shape = (functions, places, len(operations))
            alpha = START * torch.rand(shape, generator=generator)
            betas = [one.beta for one in operations if one.beta is not None]
            mean, deviation = torch.tensor(betas).reshape(-1, 2).T
            noise = torch.randn(functions, places, len(betas), generator=generator)
            self.register_parameter(f"{kind}_alpha", nn.Parameter(alpha))
            self.register_parameter(f"{kind}_beta", nn.Parameter(mean + deviation * noise))
            self.register_buffer(f"{kind}_live", torch.ones(shape, dtype=torch.bool))

    unary_alpha: nn.Parameter
    binary_alpha: nn.Parameter
    unary_beta: nn.Parameter
    binary_beta: nn.Parameter
    unary_live: Tensor
    binary_live: Tensor

    def site(self, function: int = 0, stand_in: nn.Module | None = None) -> RelaxedSite:
        """Return the activation for one place, with samples of its own.

        Args:
            function: Which of the functions it is, from 0.
            stand_in: What acts in its place while `warm` is true.

        Returns:
            A module that shares the parameters.

        Raises:
            OptionError: There is no such function.
        """
        return RelaxedSite(self, self._place(function), stand_in)

    def _place(self, function: int) -> int:
        count = len(self.unary_alpha)
        if not isinstance(function, int) or not 0 <= function < count:
            raise OptionError(f"function must be a whole number from 0 to {count - 1}, got {function!r}")
        self._functions.append(function)
        return len(self._functions) - 1

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mixture itself, as one site; every call has a sample of its own.

        Args:
            x: Any shape, any floating dtype.

        Returns:
            Same shape and dtype as `x`.
        """
        if self._own is None:
            self._own = self._place(0)
        return self.at(self._own, x)

    def at(self, site: int, x: Tensor) -> Tensor:
        """Apply the mixture at a site.

        Args:
            site: Its number.
            x: Any shape, any floating dtype.

        Returns:
            Same shape and dtype as `x`.
        """
        # No graph can hold what is drawn anew, and looked up, at each call.
        return (torch.compiler.disable(self._at) if torch.compiler.is_compiling() else self._at)(site, x)

    def _at(self, site: int, x: Tensor) -> Tensor:
        drawn = self._drawn_for(site)
        weights = drawn.weights.of(site)
        if not takes_tables(x):
            return self._exact(x, *weights)
        if drawn.tables is None:
            drawn.tables = self._tabulated(drawn, x.device)
        values, rows, inner = drawn.tables[site]
        return interpolated(x, values, rows, self._grid, self._exact, weights, inner)

    def _exact(self, x: Tensor, *weights: Tensor) -> Tensor:
        """Evaluate the cell itself, with one sample of the weights."""
        dtype = x.dtype if x.dtype in {torch.float32, torch.float64} else torch.float32
        sample = Weights(*(part.to(dtype) for part in weights))
        with torch.autocast(x.device.type, enabled=False):
            return relaxed(self.space, x.to(dtype).flatten(), sample, *self.left).view(x.shape).to(x.dtype)

    def _tabulated(self, drawn: Sampled, device: torch.device) -> list[Tabulated]:
        """Return the table of each site, with what its gradient is spread over."""
        with torch.autocast(device.type, enabled=False), kept_as_it_is():
            weights = Weights(*(part.float() for part in drawn.weights))
            values = relaxed(self.space, nodes(self._grid, device), weights, *self.left)
            inner: list[Inner | None] = [None] * len(values)
            if values.requires_grad:
                bins = sharpest(values)
                places = inside(self._grid, bins)
                between = relaxed(self.space, places.flatten(1), weights, *self.left).view(places.shape)
                inner = [Inner(*pair) for pair in zip(bins, between.unbind(), strict=True)]
        return [Tabulated(*one) for one in zip(values.unbind(), quadratics(values), inner, strict=True)]

    def _drawn_for(self, site: int) -> Sampled:
        """Return the weights for a site's next call."""
        needs_gradient = torch.is_grad_enabled() and any(one.requires_grad for one in self.parameters())
        device, inference = self.unary_alpha.device, torch.is_inference_mode_enabled()
        modes = (self.training, needs_gradient, inference, device, len(self._functions))
        sources = [*self.parameters(), *self.buffers()]
        # Within a backward pass, a checkpoint evaluates once more what it did not keep, which must be the same.
        if self.training and torch._C._current_graph_task_id() >= 0 and site in self._last:
            return self._drawn_again(site, modes, sources)
        drawn = self._drawn
        # Of several calls, it cannot say which it repeats.
        shared = not self.training or (drawn is not None and is_checkpointed() and not drawn.passed)
        if drawn is None or (site in drawn.used and not shared) or not drawn.holds(modes, sources):
            drawn = self._drawn = self._sampled(self.draws, modes, sources)
            self.draws += 1
        drawn.use(site, self._last.get(site))
        if self.training:
            self._last[site] = drawn
        return drawn

    def _drawn_again(self, site: int, modes: tuple[Any, ...], sources: Sequence[Tensor]) -> Sampled:
        """Return the weights that a site was evaluated with."""
        before = self._last[site]
        before.repeat(site, alike=self.relaxation == "darts")
        if before.holds(modes, sources):
            return before
        again = self._again
        if again is None or again.number != before.number or not again.holds(modes, sources):
            again = self._again = self._sampled(before.number, modes, sources)
        return again

    def _sampled(self, number: int, modes: tuple[Any, ...], sources: Sequence[Tensor]) -> Sampled:
        with kept_as_it_is():
            return Sampled(self._weights(number), modes, sources, number)

    def sample(self) -> Weights:
        """Draw new weights for all sites now; otherwise that happens when a site is called again.

        Returns:
            They, `(sites, edges or vertices, operations)`.
        """
        self._drawn = None
        if self._own is None and not self._functions:
            self._own = self._place(0)
        drawn = self._drawn_for(0)
        drawn.used.clear()
        return drawn.weights

    def _weights(self, number: int) -> Weights:
        function = torch.tensor(self._functions, device=self.unary_alpha.device)
        unary, binary = (self._shares(kind, function, number) for kind in ("unary", "binary"))
        return Weights(unary, binary, self.unary_beta[function], self.binary_beta[function])

    def _shares(self, kind: str, function: Tensor, number: int) -> Tensor:
        """Return the weights of operations, of a draw, for sites that belong to functions."""
        live: Tensor = getattr(self, f"{kind}_live")[function]
        alpha: Tensor = getattr(self, f"{kind}_alpha")[function].float()
        if not self.training:
            best = alpha.masked_fill(~live, -torch.inf).argmax(-1)
            return F.one_hot(best, alpha.shape[-1]).float()
        if self.relaxation == "darts":
            return alpha.masked_fill(~live, -torch.inf).softmax(-1)
        generator = torch.Generator(alpha.device).manual_seed(self._seed(number, kind == "binary"))
        return draw(F.elu(alpha) + 1, live, generator)

    def _seed(self, *numbers: int) -> int:
        words = np.random.SeedSequence([self.seed % 2**64, *(number % 2**64 for number in numbers)])
        return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return what decides about the function: weights of operations, and their learnable scalars."""
        return [self.unary_alpha, self.binary_alpha, self.unary_beta, self.binary_beta]

    @property
    def left(self) -> tuple[Left, Left]:
        """Numbers of the operations that are left in some function, on each edge and of each vertex."""
        sources = (self.unary_live, self.binary_live)
        if self._left is None or not self._left[0].are(sources):
            unary, binary = (tuple(tuple(one.nonzero()[:, 0].tolist()) for one in live.any(0)) for live in sources)
            self._left = (Versions(sources), unary, binary)
        return self._left[1], self._left[2]

    def operations_left(self, function: int = 0) -> int:
        """Return how many operations a function has left, one on each edge and vertex at the end."""
        return int(self.unary_live[function].sum() + self.binary_live[function].sum())

    @torch.no_grad()
    def shrink(self, count: int = 1) -> list[Drop]:
        """Take out operations, each the least likely on the edge or vertex that has most; of equals, the first one.

        Args:
            count: How many, in each function; the last operation of an edge stays.

        Returns:
            Those taken out, in order.

        Raises:
            OptionError: The number is negative.
        """
        if not isinstance(count, int) or count < 0:
            raise OptionError(f"count must be a whole number from 0 on, got {count!r}")
        dropped = []
        for _ in range(count):
            sizes = [int(self._part("live", group)[0].sum()) for group in self.space.groups]
            if max(sizes) == 1:
                break
            group = self.space.groups[sizes.index(max(sizes))]
            live, alpha = self._part("live", group), self._part("alpha", group)
            least = alpha.masked_fill(~live, torch.inf).argmin(-1).tolist()
            for function, one in enumerate(least):
                live[function, one] = False
                dropped.append(Drop(function, group.name, group.operations[one].name))
        return dropped

    def _part(self, what: str, group: Group) -> Tensor:
        part: Tensor = getattr(self, f"{group.kind}_{what}")
        return part[:, group.place]

    @torch.no_grad()
    def shares(self, function: int = 0) -> dict[str, list[float | None]]:
        """Return the mean weight of each operation on each edge and vertex, None for those taken out.

        Args:
            function: Of which function.

        Returns:
            By the name of the edge or vertex, in the order of the space's operations.
        """
        found = {}
        for group in self.space.groups:
            live, alpha = (self._part(what, group)[function] for what in ("live", "alpha"))
            if self.relaxation == "darts":
                means = alpha.masked_fill(~live, -torch.inf).softmax(-1)
            else:
                means = (F.elu(alpha) + 1) * live
                means = means / means.sum()
            found[group.name] = [
                mean if left else None for mean, left in zip(means.tolist(), live.tolist(), strict=True)
            ]
        return found

    @torch.no_grad()
    def genotype(self, function: int = 0) -> Genotype:
        """Return the most likely operation of each edge and vertex of a function."""
        chosen = {kind: self._best(kind, function) for kind in ("unary", "binary")}
        names = (tuple(getattr(self.space, kind)[one].name for one in chosen[kind]) for kind in ("unary", "binary"))
        return Genotype(*names)

    @torch.no_grad()
    def betas(self, function: int = 0) -> dict[tuple[str, int], float]:
        """Return the learnable scalars of the genotype's operations, by kind and place of their edge or vertex."""
        found = {}
        for kind in ("unary", "binary"):
            operations = getattr(self.space, kind)
            for place, one in enumerate(self._best(kind, function)):
                if operations[one].beta is not None:
                    column = sum(other.beta is not None for other in operations[:one])
                    value = float(getattr(self, f"{kind}_beta")[function, place, column])
                    found[kind, place] = float(f"{value:.{DIGITS}g}")
        return found

    def function(self, function: int = 0) -> Function:
        """Return the genotype as a candidate of a search, its scalars as numbers in the formula."""
        return self.space.function(self.genotype(function), self.betas(function))

    def formula(self, function: int = 0) -> str:
        """Return the genotype as a formula, with its scalars as numbers; `softknee.create` makes the activation."""
        return self.function(function).text

    def _best(self, kind: str, function: int) -> list[int]:
        live, alpha = (getattr(self, f"{kind}_{what}")[function] for what in ("live", "alpha"))
        best: list[int] = alpha.masked_fill(~live, -torch.inf).argmax(-1).tolist()
        return best

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what belongs to one forward pass."""
        return {**self.__dict__, **dict.fromkeys(_FLEETING), "_last": {}}

    def extra_repr(self) -> str:
        """Return the space, and how far it has shrunk."""
        space, functions = self.space, len(self.unary_alpha)
        several = f", functions={functions}" if functions > 1 else ""
        return (
            f"{len(space.unary)} unary and {len(space.binary)} binary operations, cores={space.cores}, "
            f"relaxation={self.relaxation!r}{several}, {self.operations_left()} of {space.slots} slots left, "
            f"{len(self._functions)} sites"
        )
