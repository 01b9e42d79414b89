"""How a study was measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.page import Facts, Section
from softknee._report.table import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._bench.study_files import StudyFiles

DATA = "{name}: {train:,} training and {test:,} test examples; SHA-256 of pixels and labels {fingerprint}."
RUNS = """
Each activation is trained for {epochs} with the seeds {seeds}. Runs with the same seed share the random streams of
weights, activation parameters and data order, so they are compared in pairs.
"""
RANKING = """
By the test {title} after the last epoch. The {title} of the best epoch stands beside it; it was chosen on
{evaluated_on} and is therefore optimistic.
"""
TUNED = """
Tuned rates are chosen for each activation and initialization on a sixth of the training set, held out, by runs of
{epochs} with {seeds}, never an evaluated one; every activation gets {trials}.
"""
MATCHED = """
The matched initialization scales weights by the forward gain of the activation. There is no valid match where the
gradient would then grow or shrink by more than a factor of two a layer; spreads are given with and without those, and
always without the linear network (`identity`).
"""
INTERVALS = """
95 % intervals for the mean over new seeds and new test examples together. Their variance is the one to which
resampling seeds and examples together converges (pigeonhole bootstrap), freed of its known biases; the part that
comes from seeds is multiplied by Student's t with one degree of freedom less than there are seeds, the part that comes
from examples by the normal quantile, and the first is at least what the noise of single predictions makes it.
"""
SEED_INTERVALS = """
95 % intervals for the mean over new seeds: Student's t with one degree of freedom less than there are seeds. All runs
are evaluated on {evaluated_on}, so that only seeds vary.
"""
VERDICTS = """
Against {reference}. Better or worse: the paired difference is significant (p < 0.05, adjusted by Holm's method over
the activations of a condition). Equivalent: two one-sided tests show that the difference is smaller than
{margin} (p < 0.05, adjusted likewise). Otherwise undecided: a missing significance shows nothing. No verdict is given
under three pairs.
"""


def method_section(files: StudyFiles) -> Section:
    """Return the last section of the report: protocol, data, statistics, environment.

    Args:
        files: The study.

    Returns:
        The section.
    """
    manifest, metric = files.manifest, files.metric
    protocol, seeds = manifest["protocol"], ", ".join(map(str, manifest["seeds"]))
    entries = [
        ("Protocol", f"{protocol['name']}. {protocol['description']}"),
        ("Data", _data(manifest["data"])),
        ("Runs", RUNS.format(epochs=plural(manifest["epochs"], "epoch"), seeds=seeds)),
        ("Ranking", RANKING.format(title=metric.title, evaluated_on=metric.evaluated_on)),
        *([("Matched gain", MATCHED)] if len(files.cells) > 1 else []),
        *([("Tuned rate", _tuned(manifest))] if protocol["tuning"] else []),
        ("Intervals", INTERVALS if metric.sampled else SEED_INTERVALS.format(evaluated_on=metric.evaluated_on)),
        ("Verdicts", VERDICTS.format(reference=files.reference, margin=metric.amount(files.margin, exact=True))),
        ("Engines", _engines(files)),
        ("Environment", ", ".join(f"{name} {value}" for name, value in manifest["environment"].items())),
    ]
    lead = "What the numbers above mean, and how to get them again."
    return Section("method", "Method", lead, [Facts(entries)])


def _data(data: Mapping[str, Any]) -> str:
    """Return what the data are; studies from before there were others are on images."""
    return (
        f"{data['about']} SHA-256 of their definition {data['fingerprint']}."
        if data.get("about")
        else DATA.format_map(data)
    )


def _engines(files: StudyFiles) -> str:
    """Return how each activation was evaluated, as its first finished run says."""
    found: dict[str, str] = {}
    for run in files.runs:
        engines = dict.fromkeys((run.result or {}).get("engines", {}).values())
        if engines:
            found.setdefault(run.activation, " and ".join(engines))
    return ", ".join(f"{activation}: {engines}" for activation, engines in found.items()) or "not recorded"


def _tuned(manifest: Mapping[str, Any]) -> str:
    tuning = manifest["protocol"]["tuning"]
    epochs = max(1, round(manifest["epochs"] * tuning["epochs_fraction"]))
    return TUNED.format(
        epochs=plural(epochs, "epoch"),
        seeds=plural(len(tuning["seeds"]), "seed"),
        trials=plural(tuning["trials"], "trial"),
    )
