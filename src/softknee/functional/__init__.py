"""Activations as pure functions, one file a family, each with its spec beside it."""

from __future__ import annotations

from softknee.functional import exponential, gated, oscillating, rectifiers, sigmoidal
from softknee.functional.exponential import celu, elu, selu, soft_exponential, softplus, trainable_elu
from softknee.functional.gated import gelu, gelu_tanh, hardswish, mish, silu, swigelu, swish, telu
from softknee.functional.oscillating import staf
from softknee.functional.rectifiers import brelu, identity, leaky_relu, prelu, relu, relu6, rrelu, rrelu_sampled, srelu
from softknee.functional.sigmoidal import adaptive_sigmoid, hardsigmoid, hardtanh, isru, sgt, sigmoid, softsign, tanh

SPECS = (*rectifiers.SPECS, *exponential.SPECS, *sigmoidal.SPECS, *gated.SPECS, *oscillating.SPECS)

__all__ = [
    "SPECS",
    "adaptive_sigmoid",
    "brelu",
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
    "mish",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "rrelu_sampled",
    "selu",
    "sgt",
    "sigmoid",
    "silu",
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
