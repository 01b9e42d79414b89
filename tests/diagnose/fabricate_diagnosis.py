"""Diagnoses made up by hand: every part of the schema, for as many sites as are asked for."""

from __future__ import annotations

import copy
import math
import random

from softknee._diagnose.rules.rules import THRESHOLDS, findings
from softknee._diagnose.schema import SCHEMA, checked, compact
from softknee._report.plain import plain

HOSTILE = "layers.</script><img src=x onerror=alert(1)>"
STATES = ("silent", "dead", "constant", "linear", "saturated", "dormant", "gradient_dormant")
N = 2048


def distribution(draw, scale=1.0, **more):
    edges = [0.1 * math.sinh((i - 20) / 20 * math.asinh(300)) for i in range(41)]
    counts = [int(1000 * math.exp(-(edge**2) / 2) * abs(edge) + draw.random() * 20) for edge in (*edges, 99.0)]
    found = {"count": sum(counts), "mean": 0.0, "std": scale, "min": -3 * scale, "max": 3 * scale}
    return {**found, "zero": 0.0, "nonfinite": 0.0, "scale": scale, "edges": edges, "counts": counts, **more}


def state(share, units=256):
    return {"count": round(share * units), "share": share, "n": N, "bound": 1 - 0.05 ** (1 / N)}


def site(name, draw, kind="relu", **states):
    x = [-4 + 0.1 * i for i in range(81)]
    edges = [-4 + 8 * i / 126 for i in range(127)]
    relu = [max(value, 0.0) for value in x]
    moments = {
        "z": {"mean": 0.1, "std": 1.0, "q": 1.01, "kurtosis": 3.1, "min": -4.0, "max": 4.0},
        "h": {"mean": 0.4, "std": 0.6, "q": 0.5, "max": 4.0},
        "linear_r2": 0.73,
        "outlier_ratio": 5.6,
        "zero": 0.5,
        "nonfinite": 0.0,
    }
    return {
        "path": name,
        "call": 0,
        "name": name,
        "kind": kind,
        "role": "activation",
        "how": "module",
        "units": 256,
        "shape": [128, 256],
        "times": 1,
        "shared": False,
        "samples": N,
        "slopes": N,
        "states": {one: state(states.get(one, 0.0)) for one in STATES},
        "flagged": [
            {"unit": i, "states": ["dead"], "firing": 0.0, "mean": -1.0, "std": 0.3, "min": -2.0, "max": -0.1}
            for i in range(20 if states.get("dead") else 0)
        ],
        "firing": [draw.randrange(20) for _ in range(20)],
        "moments": moments,
        "hist": {"edges": edges, "counts": [0, *(int(900 * math.exp(-(e**2) / 2)) for e in edges[1:]), 0]},
        "gradient": {"rms": 1e-3, "mean_abs": 7e-4, "zero": 0.5},
        "precision": {"dtype": "float32", "low": None, "high": None, "beyond": 0.5, "others": {"bfloat16": 0.5}},
        "curve": {"x": x, "y": relu},
        "notes": [],
    }


def layer(index, site_name, draw):
    return {
        "layer": f"layers.{2 * index}",
        "site": site_name,
        "q": 0.4**index,
        "q_theory": 0.38**index,
        "cosine": 1 - 0.5**index,
        "cosine_theory": 1 - 0.52**index,
        "sw2": 1 / 3,
        "sb2": 0.001,
        "gain": 0.5774,
        "matched": 1.4142,
        "ratio": 0.408,
        "chi": 1 / 6,
        "backward": 0.17,
        "kurtosis": 3 + draw.random(),
        "note": "",
    }


def diagnosis(sites=5, *, seed=0, hostile=False):
    """A whole diagnosis with its findings; `hostile` gives a site a name that tries to be markup."""
    draw = random.Random(seed)
    names = [f"layers.{2 * i + 1}" for i in range(sites)]
    if hostile:
        names[0] = HOSTILE
    shares = [0.6 * i / max(sites - 1, 1) for i in range(sites)]
    found = [site(name, draw, dead=share, silent=share) for name, share in zip(names, shares, strict=True)]
    grid = [0.1 * i - 1 for i in range(21)]
    spectrum = [-0.5 + 0.1 * i for i in range(101)]
    density = [math.exp(-abs(x)) for x in spectrum]
    part = {"value": 3.0, "low": 2.5, "high": 3.5}
    data = {
        "schema": SCHEMA,
        "tool": {"name": "softknee", "version": "0.5.0"},
        "level": "trial",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "platform": "Linux x86_64"},
        "model": {
            "class": "Sequential",
            "parameters": 283_000,
            "trained": None,
            "activation_parameters": 4,
            "dtype": "float32",
            "device": "cpu",
            "training_mode": "eval",
            "optimizer": {"kind": "sgd", "lr": 0.5, "momentum": 0.0},
        },
        "data": {"samples": N, "batches": 16, "seed": seed, "hash": "ab" * 32, "loss": "cross_entropy"},
        "structure": {
            "in_a_row": [],
            "at_output": [],
            "deterministic": True,
            "sites": sites,
            "layers": sites + 1,
            "outputs_nonfinite": 0.0,
        },
        "coverage": [{"path": "rnn", "reason": "its gates are fused into one call"}],
        "sites": found,
        "signal": {
            "layers": [layer(index, name, draw) for index, name in enumerate(names)],
            "chi_product": 1e-5,
            "cosine_last": 0.995,
            "residual": False,
            "refused": None,
            "edges": [{"kind": "relu", "sw2": [2.0, 2.0], "sb2": [0.0, 0.002]}],
        },
        "gradients": {
            "loss": 2.3,
            "layers": [
                {
                    "path": f"layers.{2 * i}.weight",
                    "kind": "Linear",
                    "shape": [256, 256],
                    "weight": distribution(draw, 0.03),
                    "gradient": distribution(draw, 1e-3 * 0.4**i),
                    "output": distribution(draw),
                    "weight_norm": 8.0,
                    "gradient_norm": 0.2 * 0.4**i,
                }
                for i in range(sites)
            ],
        },
        "trainable": [
            {
                "site": names[0],
                "path": "layers.1",
                "parameter": "slope",
                "count": 1,
                "value": 0.31,
                "start": 0.25,
                "shared": True,
                "optimised": False,
                "decayed": False,
                "at_bound": 0,
                "nonfinite": 0,
                "gradient": 1e-3,
                "trajectory": {"steps": [0, 10, 20], "values": [[0.25], [0.28], [0.31]]},
                "shapes": {
                    "x": [-2.0, 0.0, 2.0],
                    "curves": [{"step": 0, "y": [-0.5, 0.0, 2.0]}, {"step": 20, "y": [-0.62, 0.0, 2.0]}],
                },
            }
        ],
        "curvature": {
            "samples": 512,
            "parameters": 283_000,
            "method": "double backward",
            "loss": 2.3,
            "eigenvalues": {"top": 9.5, "bottom": -0.4, "top_residual": 1e-4, "bottom_residual": 1e-3, "steps": 50},
            "trace": part,
            "frobenius": part,
            "spectrum": {
                "x": spectrum,
                "density": density,
                "low": [0.8 * y for y in density],
                "high": [1.2 * y for y in density],
                "cumulative": [i / 100 for i in range(101)],
                "width": 0.01,
                "probes": 2,
                "steps": 50,
            },
            "split": {
                "gauss_newton": part,
                "residual": part,
                "activation": part,
                "by_site": [{"site": name, **part} for name in names],
            },
            "sharpness": {"lr_limit": 0.21, "lr_limit_momentum": 0.4, "momentum": 0.9},
        },
        "landscape": {
            "one": {"a": grid, "loss": [2.3 + a * a for a in grid]},
            "two": {"a": grid, "b": grid, "loss": [[2.3 + a * a + 0.5 * b * b for b in grid] for a in grid]},
            "normalisation": "filter",
            "seed": 0,
        },
        "kernel": {
            "samples": 64,
            "outputs": 10,
            "eigenvalues": [100 * 0.8**i for i in range(64)],
            "condition": 1.3e6,
            "alignment": 0.2,
            "trace": 500.0,
            "reduction": "sum",
        },
        "rank": [
            {
                "site": name,
                "width": 256,
                "samples": N,
                "dims": 40,
                "saturation": 0.16,
                "participation": 12.0,
                "effective": 25.0,
            }
            for name in names
        ],
        "lipschitz": {"low": 1.2, "high": 8.0, "note": "", "layers": [{"layer": "layers.0", "norm": 2.0}]},
        "classification": {
            "classes": 3,
            "confusion": [[8, 1, 1], [0, 9, 1], [2, 0, 0]],
            "accuracy": 17 / 22,
            "precision": [0.8, 0.9, 0.0],
            "recall": [0.8, 0.9, None],
            "f1": [0.8, 0.9, None],
            "support": [10, 10, 2],
        },
        "history": {
            "sites": [
                {"name": names[0], "steps": [0, 10, 20], "firing": [[0.5, 0.4, 0.3], [0.5, 0.2, 0.1], [0.4, 0.1, 0.0]]}
            ]
        },
        "trials": [
            trial("no change", "no change", None, None),
            trial("same activation, matched gain", "matched gain", 4.2, "better"),
            trial("no change, new seed", "new seed", 0.1, "equivalent"),
            trial("gelu", "candidate", 4.0, "better"),
            trial("silu", "candidate", -0.4, "undecided"),
        ],
        "trials_about": {"metric": "accuracy", "margin": 1.0, "steps": 300, "seeds": 3, "rates": [0.1, 0.3, 0.9]},
        "method": {"thresholds": dict(THRESHOLDS), "definitions": [["dead-units", "No slope."]], "not_measured": {}},
    }
    data = checked(compact(plain(data)), "made up")
    return compact(plain({**data, "findings": findings(data)}))


def trial(activation, kind, difference, verdict):
    low, high = (None, None) if difference is None else (difference - 0.5, difference + 0.5)
    return {
        "activation": activation,
        "kind": kind,
        "lr": 0.3,
        "difference": difference,
        "low": low,
        "high": high,
        "p": None if difference is None else 0.01,
        "verdict": verdict,
        "seeds": 3,
        "score": 88.0,
        "cost": 1.0,
        "at_edge": activation == "silu",
        "over_matched": {"difference": -0.2, "verdict": "undecided"} if kind == "candidate" else None,
        "screen": {"chi_product": 1.1, "zero": 0.0, "linear_r2": 0.8, "cost": "one kernel"}
        if kind == "candidate"
        else None,
    }


def changed(data, **parts):
    """A copy of a diagnosis with other parts."""
    return {**copy.deepcopy(data), **parts}
