"""Results of searches that never ran, as plain data; numbers are drawn, what depends on them is computed from them."""

from __future__ import annotations

from functools import cache

import numpy as np

from softknee._search import operations
from softknee._search.candidate import Function
from softknee._search.export import describe, sketch

HOSTILE = "x</script><b onclick=alert(1)>&\"'"
UNARY, BINARY = [*operations.UNARY], [*operations.BINARY]
BASELINES = ("relu", "gelu", "silu", "mish", "prelu", "swish")
WINNER = "sigmoid(softplus(x)) * gelu(x)"
TRIED = (
    "max(tanh(x), silu(x))",
    "min(max(x, -3.1622776601683795), 3.1622776601683795)**2 - gelu(x)",
    "atan(x) * sigmoid(x) + elu(x)",
    "exp(min(x, 2.302585092994046)) - silu(x)",
    "0.5 * gelu(x) + 0.5 * abs(x)",
    "sin(x) + relu(x)",
    "silu(1.702 * x)",
)


@cache
def described(text, group="all"):
    found = describe(
        Function(text), group=group, sites=("body.0.act", "body.1.act", "head.act"), class_name="Found", measured=False
    )
    costs = [
        {
            "activation": name,
            "engine": engine,
            "used": used,
            "forward_to_relu": ratio,
            "both": ratio + 0.2,
            "forward": ratio,
            "saved_bytes": 4.0,
            "milliseconds": 1.3 * ratio,
        }
        for name, engine, used, ratio in (
            (text, "auto", "fused", 1.21),
            (text, "eager", "eager", 4.7),
            ("relu", "auto", "eager", 1.0),
            ("gelu", "auto", "eager", 1.4),
            ("silu", "auto", "eager", 1.3),
        )
    ]
    machine = {"shape": [32, 64, 16, 16], "device": "x86_64 (avx512)", "threads": 1, "torch": "2.13.0"}
    return {**found, "cost": {"machine": machine, "costs": costs}}


def result(*, wins=True, groups=("all",), trajectory=True, hostile=False, many=0, tested=True):
    """A result; `many` adds as many candidates."""
    rng = np.random.default_rng(0)
    table, charged = [], 0.0

    def row(text, origin, loss, *, part=1.0, failure=None, runs=()):
        nonlocal charged
        charged += part * 1.1
        scores = [
            {
                "run": 0,
                "part": part,
                "loss": None if failure else loss,
                "failure": failure,
                "seconds": 3.2,
                "phase": "baselines" if origin == "baseline" else origin,
                "charged": charged,
            }
        ]
        final = None
        if runs:
            values = [loss + 0.01 * float(one) for one in rng.normal(size=len(runs))]
            charged_after = [12.0 + len(table) + 0.5 * index for index in range(len(runs))]
            scores += [
                {
                    "run": run,
                    "part": 1.0,
                    "loss": value,
                    "failure": None,
                    "seconds": 3.2,
                    "phase": "verify",
                    "charged": at,
                }
                for run, value, at in zip(runs, values, charged_after, strict=True)
            ]
            mean = sum(values) / len(values)
            final = {
                "runs": [*runs],
                "validation": values,
                "test": [value + 0.02 for value in values] if tested else None,
                "validation_mean": mean,
                "validation_low": mean - 0.012,
                "validation_high": mean + 0.012,
                "test_mean": mean + 0.02 if tested else None,
                "test_low": mean + 0.01 if tested else None,
                "test_high": mean + 0.03 if tested else None,
            }
        table.append(
            {
                "key": f"{len(table):016x}",
                "name": text,
                "origin": origin,
                "is_baseline": origin == "baseline",
                "functions": [{"group": group, "text": text, "constants": {}, "trained": False} for group in groups],
                "same_as": "gelu" if text == "gelu(x)" else None,
                "scores": scores,
                "part": part,
                "loss": None if failure else loss,
                "failure": failure,
                "final": final,
                "curve": None if text == HOSTILE else [sketch(Function(text))],
            }
        )
        return table[-1]["key"]

    runs = (1, 2, 3)
    baselines = {name: 0.412 + 0.012 * index for index, name in enumerate(("gelu", "silu", "relu", "mish"))}
    keys = {name: row(name, "baseline", loss, runs=runs * (loss < 0.43)) for name, loss in baselines.items()}
    row("prelu", "baseline", 0.47)
    row("swish", "baseline", 0.44)
    chosen = row(WINNER, "grafs", 0.352 if wins else 0.409, runs=runs)
    for index, text in enumerate(TRIED):
        row(
            text,
            ("grafs", "halving", "halving", "random")[index % 4],
            0.40 + 0.02 * index,
            part=(1.0, 0.25, 0.5)[index % 3],
        )
    row("x**3", "halving", 0.0, part=0.25, failure="the loss was not finite at step 41 of 600")
    if hostile:
        row(HOSTILE, "asked", 0.9)
    for index in range(many):
        row(f"x * sigmoid({index + 2}.5 * x)", "enumerate", 0.6 + 0.001 * index)
    table.sort(
        key=lambda one: (
            one["final"] is None,
            one["failure"] is not None,
            one["final"]["validation_mean"] if one["final"] else one["loss"] or 0.0,
        )
    )
    differences = []
    for name in ("gelu", "silu"):
        gains = [baselines[name] - (0.352 if wins else 0.409) + 0.008 * float(one) for one in rng.normal(size=3)]
        mean = sum(gains) / 3
        p = 0.004 if wins else 0.41
        differences.append(
            {
                "baseline": keys[name],
                "gain": mean,
                "low": mean - 0.021,
                "high": mean + 0.021,
                "p": p,
                "seed_gains": gains,
            }
        )
    best = chosen if wins else keys["gelu"]
    measured = "test" if tested else "validation"
    sentence = (
        f"{WINNER} is better than the best baseline, GELU, by 0.060 (0.039 to 0.081) in {measured} loss"
        if wins
        else "nothing beat GELU within the noise; use GELU"
    )
    text = WINNER if wins else "gelu"
    phases = [("baselines", 6.6, 19.5), ("grafs", 3.4, 14.0), ("halving", 2.1, 8.4), ("verify", 6.2, 21.0)]
    return {
        "schema": 1,
        "verdict": sentence,
        "outcome": "better" if wins else "baseline",
        "measured_on": measured,
        "best": best,
        "candidate": chosen,
        "reference": keys["gelu"],
        "notes": []
        if tested
        else ["No test data were given: the claim is on validation data, which the search has seen."],
        "differences": differences,
        "table": table,
        "cost": {
            "budget": 20.0,
            "spent": 18.3,
            "phases": [dict(zip(("name", "runs", "seconds"), one, strict=True)) for one in phases],
            "seconds": 64.2,
            "failed": 1,
            "failed_runs": 0.25,
            "steps": 28,
            "epochs": 20,
        },
        "functions": [described(text, group) for group in groups],
        "found": [] if wins else [described(WINNER, group) for group in groups],
        "trajectory": _trajectory(rng) if trajectory else None,
        "settings": {
            "method": "auto",
            "scope": "all",
            "seeds": 3,
            "seed": 0,
            "baselines": [*BASELINES],
            "parameters": 12_345,
            "space": {"name": "grafs", "unary": UNARY, "binary": BINARY, "cores": 2, "bound": 10.0},
            "groups": [{"name": group, "sites": ["body.0.act", "body.1.act", "head.act"]} for group in groups],
            "validation_batches": 8,
            "test_batches": 16 if tested else None,
            "device": "cpu",
            "threads": 1,
            "versions": {"softknee": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        },
    }


def _trajectory(rng, count=50):
    """Weights that go apart while the smallest one of the fullest slot is dropped, as the method's schedule has it."""
    names = ("U0", "U1", "B0", "U2", "U3", "B1")
    slots = [[name, *(BINARY if name[0] == "B" else UNARY)] for name in names]
    strengths = [rng.normal(size=len(slot) - 1) for slot in slots]
    left = [set(range(len(slot) - 1)) for slot in slots]
    # 104 drops, most of them early.
    times = [1 + int(step) for step in np.floor(np.logspace(0, np.log10(count - 2), 104))]
    ticks, drops = [], []
    for tick in range(count):
        for _ in range(times.count(tick)):
            group = max(range(6), key=lambda one: len(left[one]))
            worst = min(left[group], key=lambda one: strengths[group][one])
            left[group].remove(worst)
            drops.append([tick, names[group], slots[group][1 + worst]])
        weights = []
        for strength, alive in zip(strengths, left, strict=True):
            power = {one: float(np.exp(2.0 * tick / count * strength[one])) for one in alive}
            weights.append([power[one] / sum(power.values()) if one in alive else None for one in range(len(strength))])
        best = [
            slot[1 + int(np.argmax([w or 0.0 for w in weight]))] for slot, weight in zip(slots, weights, strict=True)
        ]
        ticks.append(
            {
                "tick": tick,
                "weights": weights,
                "loss": 2.3 / (1 + 0.2 * tick) + 0.3,
                "formula": f"{best[2]}({best[0]}, {best[1]})",
                "validation": 2.3 / (1 + 0.18 * tick) + 0.33 if tick % 2 == 0 else None,
            }
        )
    return {"slots": slots, "ticks": ticks, "drops": drops}
