"""Everything the atlas says about one activation, computed from its spec."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee import nn
from softknee._atlas.ranges import reached
from softknee._card.curves import curves_of
from softknee._card.propagation import gain
from softknee._card.properties import properties
from softknee._card.subject import CHANNELS, SEED, Subject
from softknee._engine.table import EXPENSIVE, table_or_kernels
from softknee.nn.elementwise import Elementwise
from softknee.nn.options import needs_channels, stored

if TYPE_CHECKING:
    from softknee._atlas.citations import Citation
    from softknee._card.curves import Curves
    from softknee._card.propagation import Gain
    from softknee._card.properties import Properties
    from softknee._spec import Spec

# Vector instructions for an element, forward and backward, up to which an activation costs what moving its tensor does,
# and beyond which tables are cheaper. benchmarks/README.md: 1.2 of ReLU's time, 1.35 in between, 1.4 to 1.7 beyond.
CHEAP, DEAR = 50, EXPENSIVE
COSTS = ("cheap", "moderate", "expensive", "not counted")
# What every docstring may say and no reader of the atlas needs.
_ASIDE = "Half precision is computed in float32."


@dataclass(frozen=True)
class Entry:
    """An activation with all that is known about it.

    Attributes:
        subject: The spec with the values it is shown at.
        module: A module of it, evaluated as by default.
        citation: Its source.
        curves: Value and derivatives; None for a function of vectors.
        seen: Properties by evaluation, likewise.
        reached: Whether the ends of its range are.
        gain: Weight scales, likewise, and None for pairs and functions with a network.
        engine: How large tensors are evaluated, by name.
        price: Vector instructions for an element, forward and backward; None where they are not counted.
    """

    subject: Subject
    module: nn.Activation
    citation: Citation
    curves: Curves | None
    seen: Properties | None
    reached: tuple[bool, bool]
    gain: Gain | None
    engine: str
    price: int | None

    @property
    def spec(self) -> Spec:
        """The spec."""
        return self.subject.spec

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self.spec.name

    @property
    def description(self) -> str:
        """What the function's docstring begins with, one paragraph, formulas between dollar signs."""
        paragraph = " ".join((inspect.getdoc(self.spec.function) or "").split("\n\n")[0].split())
        return paragraph.replace(_ASIDE, "").strip()

    @property
    def cost(self) -> str:
        """One of COSTS."""
        return cost_class(self.price)

    @property
    def built_in(self) -> bool:
        """Whether torch has it as one operation that nothing beats."""
        return self.engine == "eager" and self.spec.builtin == "always"

    @property
    def adaptation(self) -> str:
        """How the function changes: one of the keys of ADAPTATIONS."""
        return adaptation(self.spec)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that its source trains."""
        return tuple(param.name for param in stored(self.spec) if param.trainable)

    @property
    def tags(self) -> tuple[str, ...]:
        """What the index filters by: promises, each of them tested."""
        promises = self.spec.promises
        bounded = promises.lower_bound is not None and promises.upper_bound is not None
        flags = {
            "monotonic": promises.monotonic,
            "smooth": promises.smooth,
            "bounded": bounded,
            "odd": promises.odd,
            "even": promises.even,
            "zero at zero": promises.zero_at_zero,
            "trainable": bool(self.trained),
        }
        return tuple(name for name, holds in flags.items() if holds)


ADAPTATIONS = {
    "fixed": "nothing in it is trained",
    "parametric": "single numbers in it are trained",
    "structural": "its whole shape is trained, as the entries of a vector",
    "input-based": "a small network computes its parameters from the input",
    "stochastic": "it is random in training",
}


def adaptation(spec: Spec) -> str:
    """Return how a function changes: one of the keys of ADAPTATIONS, derived from its spec."""
    if spec.sampled is not None:
        return "stochastic"
    if spec.kind == "contextual":
        return "input-based"
    trained = [param for param in stored(spec) if param.trainable]
    # Vectors of a vector function have an entry for each channel, not for each term.
    if spec.kind != "vector" and any(param.vector for param in trained):
        return "structural"
    return "parametric" if trained else "fixed"


def cost_class(price: int | None) -> str:
    """Return one of COSTS for a number of vector instructions."""
    if price is None:
        return COSTS[3]
    return COSTS[0] if price <= CHEAP else COSTS[1] if price <= DEAR else COSTS[2]


def entry_of(spec: Spec, citation: Citation) -> Entry:
    """Find out everything about an activation.

    Args:
        spec: Of the catalogue.
        citation: Its source.

    Returns:
        The facts; kernels are compiled for them only where the choice of the engine asks for a table.
    """
    subject = Subject.of(spec)
    module = _module(spec)
    engine, price = _engine(module)
    plain = spec.kind == "elementwise"
    seen = properties(subject) if subject.elementwise else None
    return Entry(
        subject=subject,
        module=module,
        citation=citation,
        curves=curves_of(subject) if subject.elementwise else None,
        seen=seen,
        reached=(False, False) if seen is None else reached(subject, seen),
        gain=gain(module, channels=2 if spec.channelwise else 1) if plain else None,
        engine=engine,
        price=price,
    )


def _module(spec: Spec) -> nn.Activation:
    options: dict[str, Any] = {"channels": CHANNELS} if needs_channels(spec) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module: nn.Activation = getattr(nn, spec.title)(**options)
    return module.eval()


def _engine(module: nn.Activation) -> tuple[str, int | None]:
    """Return how large float32 tensors are evaluated, and the price; `module.engine` would compile kernels for it."""
    if not isinstance(module, Elementwise):
        return "eager", None
    plan = module._plans[0]
    if plan.price is None:
        return "eager", None
    if plan.builtin or not plan.price:
        return "eager", plan.price
    if plan.price <= EXPENSIVE or not plan.has_tables:
        return "fused", plan.price
    device = torch.device("cpu")
    with torch.no_grad():
        leaves = plan.leaves(module._values(), 1, device)
        return table_or_kernels(plan, leaves, device, module.reach).name, plan.price
