"""Activations as pure functions, one file a family, each with its spec beside it."""

from __future__ import annotations

from softknee.functional import exponential, gated, oscillating, rationals, rectifiers, sigmoidal, splines
from softknee.functional.exponential import celu, elu, pelu, selu, soft_exponential, softplus, trainable_elu
from softknee.functional.gated import gelu, gelu_tanh, hardswish, mish, silu, swigelu, swish, telu
from softknee.functional.oscillating import snake, staf
from softknee.functional.rationals import rational
from softknee.functional.rectifiers import brelu, identity, leaky_relu, prelu, relu, relu6, rrelu, rrelu_sampled, srelu
from softknee.functional.sigmoidal import adaptive_sigmoid, hardsigmoid, hardtanh, isru, sgt, sigmoid, softsign, tanh
from softknee.functional.splines import bspline, linear_spline

SPECS = (
    *rectifiers.SPECS,
    *exponential.SPECS,
    *sigmoidal.SPECS,
    *gated.SPECS,
    *oscillating.SPECS,
    *rationals.SPECS,
    *splines.SPECS,
)

__all__ = [
    "SPECS",
    "adaptive_sigmoid",
    "brelu",
    "bspline",
    "celu",
    "elu",
    "gelu",
    "gelu_tanh",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "isru",
    "leaky_relu",
    "linear_spline",
    "mish",
    "pelu",
    "prelu",
    "rational",
    "relu",
    "relu6",
    "rrelu",
    "rrelu_sampled",
    "selu",
    "sgt",
    "sigmoid",
    "silu",
    "snake",
    "soft_exponential",
    "softplus",
    "softsign",
    "srelu",
    "staf",
    "swigelu",
    "swish",
    "tanh",
    "telu",
    "trainable_elu",
]
