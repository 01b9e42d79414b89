"""The activations of the small atlas that tests build: one of each kind."""

from __future__ import annotations

NAMES = (
    "relu",
    "gelu",
    "swish",
    "staf",
    "rrelu",
    "step_ste",
    "swiglu",
    "dynamic_relu",
    "maxmin",
    "linear_spline",
    "prelu",
)
