"""Functions that go by several names, or are special cases of each other. Each line is tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from softknee._card.subject import Subject
from softknee._catalogue import create, get, parse_choice

if TYPE_CHECKING:
    from torch import Tensor

REACH, POINTS = 8.0, 1601
CHANNELS = 8


@dataclass(frozen=True)
class Equivalence:
    """Two ways to the same function.

    Attributes:
        left: An activation as the command line takes it, or a formula.
        right: Another one.
        why: In a sentence.
        name: What the literature calls the left one, where it is a formula.
        exchanged: Whether the entries of each pair come in the opposite order (functions of vectors only).
        tolerance: How far the two may lie apart; more than rounding in float64 where a parameter is kept in float32.
    """

    left: str
    right: str
    why: str
    name: str = ""
    exchanged: bool = False
    tolerance: float = 1e-14

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the catalogue on either side."""
        words = [side.partition("[")[0] for side in (self.left, self.right)]
        return tuple(word for word in words if word.isidentifier())

    def difference(self) -> float:
        """Return the largest difference between the two in float64, relative to the size of the values."""
        left, right = (_values(side) for side in (self.left, self.right))
        if self.exchanged:
            left = left.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return ((left - right).abs() / right.abs().clamp(min=1)).max().item()


EQUIVALENCES = (
    Equivalence("aptx", "swish[beta=2]", "(1 + tanh x) / 2 is the sigmoid of 2 x."),
    Equivalence("x * sigmoid(2 * x)", "aptx", "The same the other way round.", "Swish with β = 2"),
    Equivalence("x * tanh(exp(x))", "telu", "TanhExp (2020) was published again as TeLU (2024).", "TanhExp"),
    Equivalence("x * exp(-exp(-x))", "golu", "ExpExpish is GoLU with its three parameters at 1.", "ExpExpish"),
    Equivalence(
        "x * (atan(x) / pi + 1 / 2)", "atlu", "CaLU and ATLU are gated by the same Cauchy distribution.", "CaLU"
    ),
    Equivalence("quick_gelu", "swish[beta=1.702]", "The logistic approximation of GELU is a Swish."),
    Equivalence("elliott", "softsign(x) / 2 + 1 / 2", "Elliott's function is softsign moved to (0, 1)."),
    Equivalence(
        "where(x > 0, x, 2**(x / log(2)) - 1)", "elu", "2 to the power of x / ln 2 is the exponential.", "FELU"
    ),
    Equivalence(
        "x * max(0, min(1, x / 6 + 1 / 2))",
        "hardswish",
        "The Steklov gate of order 1 is a clipped line.",
        "Steklov SiLU of order 1, α = 6",
    ),
    Equivalence("acon_c[p1=1,p2=0]", "swish", "With one of its lines flat, ACON-C gates x by the sigmoid."),
    Equivalence("acon_b[p=0]", "swish", "The same with the other parametrization."),
    Equivalence("where(x >= 0, x, x / (1 + abs(x)))", "sign_relu", "DLU is SignReLU with α = 1.", "DLU"),
    Equivalence(
        "srelu[left_threshold=0,left_slope=0.25,right_slope=1]",
        "prelu",
        "Without its right hinge, and the left one at 0.",
    ),
    Equivalence(
        "group_sort",
        "maxmin",
        "Sorting pairs is taking their smaller and larger entry; MaxMin has them the other way round.",
        exchanged=True,
    ),
    Equivalence("householder", "maxmin", "At θ = π/2, where it starts, the mirror is the diagonal.", tolerance=2e-7),
    Equivalence("maxmin", "oplu", "OPLU and MaxMin are two names."),
    Equivalence("swish[beta=1]", "silu", "SiLU came first; Swish added β."),
    Equivalence("eswish[beta=1]", "silu", "E-Swish scales SiLU."),
    Equivalence("aria2[alpha=1,beta=1]", "silu", "ARiA-2 raises the gate to a power, here 1."),
    Equivalence("swish_t[alpha=0]", "swish", "Swish-T adds α tanh x."),
    Equivalence("xsilu[alpha=0]", "silu", "An expanded gate that is not expanded."),
    Equivalence("xgelu[alpha=0]", "gelu", "An expanded gate that is not expanded."),
    Equivalence("xatlu[alpha=0]", "atlu", "An expanded gate that is not expanded."),
    Equivalence("tanhsoft2[beta=1,gamma=1]", "telu", "TanhSoft-2 has TeLU inside."),
    Equivalence("pserf[gamma=1,delta=1]", "serf", "Pserf adds two parameters to Serf."),
    Equivalence("tangma[alpha=0,gamma=0]", "lisht", "Tangma starts as LiSHT."),
    Equivalence("celu[alpha=1]", "elu", "CELU and ELU part where α is not 1."),
    Equivalence("mpelu[alpha=1,beta=1]", "elu", "MPELU adds a scale and a rate to ELU."),
    Equivalence("pelu[a=1,b=1]", "elu", "PELU keeps the slope continuous as its parameters move."),
    Equivalence("relun[n=6]", "relu6", "A clipped ReLU whose height is trained starts elsewhere."),
    Equivalence("blu[beta=0.5]", "bent_identity", "The bent identity is one BLU."),
    Equivalence("laaf", "tanh", "The slope n a starts at 1."),
    Equivalence("softplus(x) - softplus(-x)", "identity", "The two softplus functions differ by x."),
)


def equivalences_of(name: str) -> tuple[Equivalence, ...]:
    """Return the equivalences that an activation takes part in."""
    return tuple(found for found in EQUIVALENCES if any(get(one).name == name for one in found.activations))


def _values(side: str) -> Tensor:
    choice = None if _is_vector(side) else parse_choice(side)
    if choice is None:
        options: dict[str, Any] = {"channels": CHANNELS} if get(side).initializations else {}
        x = torch.randn(64, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found: Tensor = create(side, **options).double()(x).detach()
        return found
    subject = Subject.of(choice.spec)
    x = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    chosen: dict[str, Any] = dict(choice.options)
    return replace(subject, values={**subject.values, **chosen})(x)


def _is_vector(side: str) -> bool:
    return side.isidentifier() and side != "x" and get(side).kind == "vector"
