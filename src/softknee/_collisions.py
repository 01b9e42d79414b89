"""Names that several published functions bear."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Meaning:
    """One of the functions that a name stands for.

    Attributes:
        text: The function and who called it so.
        activation: Its name in the catalogue, if it is there.
    """

    text: str
    activation: str = ""


# The first meaning is the one that `create` gives the name, where it gives it one: see `softknee.get`.
COLLISIONS: Mapping[str, tuple[Meaning, ...]] = MappingProxyType(
    {
        "telu": (
            Meaning("x tanh(exp(x)) (Fernandez and Mali 2024; before that TanhExp)", "telu"),
            Meaning("x tanh(elu(alpha x)) (Mercioni and Holban 2020)", "telu_2020"),
            Meaning("an ELU whose alpha is trained", "trainable_elu"),
        ),
        "frelu": (
            Meaning("funnel ReLU: max(x, depthwise convolution of x) (Ma, Zhang and Sun 2020)", "frelu"),
            Meaning("flexible ReLU: max(0, x) + b (Qiu, Xu and Cai 2017)", "flexible_relu"),
        ),
        "srelu": (
            Meaning("S-shaped ReLU with two thresholds and two slopes (Jin et al. 2016)", "srelu"),
            Meaning("shifted ReLU: max(-1, x), also called displaced", "displaced_relu"),
            Meaning("smooth forms of ReLU in several libraries"),
        ),
        "brelu": (
            Meaning(
                "bipolar ReLU: alternates max(0, x) and min(0, x) over the channels (Eidnes and Nokland 2017)", "brelu"
            ),
            Meaning("bounded ReLU: min(max(0, x), A), for A = 6 the same as ReLU6", "relun"),
        ),
        "drelu": (
            Meaning("displaced ReLU: max(x, -delta) (Macedo et al. 2019)", "displaced_relu"),
            Meaning("dual ReLU: max(0, a) - max(0, b) of two inputs (Godin et al. 2017)"),
            Meaning("dynamic ReLU (Chen et al. 2020)", "dynamic_relu"),
            Meaning("both halves of a gated pair rectified: max(0, a) max(0, b) (Song et al. 2024)", "dreglu"),
        ),
        "delu": (
            Meaning("x sigmoid(x) left of 0, (n + 1/2) x + |exp(-x) - 1| right of it (Pishchik 2023)", "delu"),
            Meaning("dampened ELU: x exp(-a exp(-b x))"),
        ),
        "eswish": (
            Meaning("E-Swish: beta x sigmoid(x) (Alcaide 2018)", "eswish"),
            Meaning('"exponential Swish": exp(-x) sigmoid(x), in one library'),
        ),
        "hardsigmoid": (
            Meaning("slope 1/6: clamp(x + 3, 0, 6) / 6 (MobileNetV3, PyTorch)", "hardsigmoid"),
            Meaning("slope 0.2: clamp(0.2 x + 0.5, 0, 1) (Theano, older Keras)", "hardsigmoid_keras"),
            Meaning("slope 1/2: clamp((x + 1) / 2, 0, 1) (BinaryConnect, surveys)", "sparse_sigmoid"),
        ),
        "prelu": (
            Meaning("slope a for negative x (He et al. 2015, PyTorch)", "prelu"),
            Meaning("slope 1/a for negative x, in a survey and libraries that copied it"),
        ),
        "leaky_relu": (
            Meaning("slope a for negative x (Maas et al. 2013, PyTorch)", "leaky_relu"),
            Meaning("slope 1/a for negative x, in a survey and libraries that copied it"),
        ),
        "glu": (
            Meaning("value in the first half, gate in the second (Dauphin et al. 2017, PyTorch)", "glu"),
            Meaning("gate in the first half, as most language models' code has it: `gate_first=True`", "glu"),
        ),
    }
)
