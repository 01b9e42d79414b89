"""How a study was measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._bench.page_tables import pairing
from softknee._report.page import Facts, Section
from softknee._report.table import listed, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._bench.study_files import StudyFiles

DATA = "{name}: {train:,} training and {test:,} test examples; SHA-256 of pixels and labels {fingerprint}."
HELD_OUT = """ A part of the training examples is held out: models are trained on the others and evaluated on it."""
RUNS = """
Each activation is trained for {epochs} with the seeds {seeds}. Runs with the same seed share the random streams of
weights, activation parameters and data order{pairs}.
"""
PAIRED = ", so they are compared in pairs"
UNPAIRED = """. Runs on {devices} do not repeat exactly, so the same seed makes no pairs: differences are unpaired by
seed, and rest on all runs done"""
RANKING = """
By the {part} {title} after the last epoch. The {title} of the best epoch stands beside it; it was chosen on
{evaluated_on} and is therefore optimistic.
"""
TUNED = """
Tuned rates are chosen for each activation and initialization on a part of the training set, held out, by runs of
{epochs} with {seeds}, never an evaluated one; every activation gets {trials}.
"""
TUNED_ON = " It is the part that runs are evaluated on here, which favours tuned rates."
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
WELCH = """
For unpaired differences, t has the degrees of freedom of Welch and Satterthwaite.
"""
VERDICTS = """
Against {reference}. Better or worse: the {pairing} difference is significant (p < 0.05, adjusted by Holm's method over
the activations of a condition). Equivalent: two one-sided tests show that the difference is smaller than
{margin} (p < 0.05, adjusted likewise). Otherwise undecided: a missing significance shows nothing. No verdict is given
under three {units}.
"""
TOGETHER = ", the same ones for all activations,"
EVIDENCE = """
Probability of improvement (Agarwal et al. 2021): the share of pairs of one run of each activation in which it scores
higher than {reference}; its interval resamples runs. Seeds needed: from the power of the same test at the level 0.05,
not adjusted, with the measured spread over seeds; the error that comes from test examples stays however many seeds
there are. The ranking is drawn anew by resampling seeds{together} (bootstrap), which makes one of a few seeds seem more
stable than it is. In both, a run that diverged loses against every other. The resampled difference has a bootstrap-t
interval (Owen 2007; Efron and Tibshirani 1993); it is shown up to ten seeds.
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
        ("Data", f"{_data(manifest['data'])}{HELD_OUT * (files.part == 'dev')}"),
        ("Runs", RUNS.format(epochs=plural(manifest["epochs"], "epoch"), seeds=seeds, pairs=_pairs(files))),
        ("Ranking", RANKING.format(part=files.part, title=metric.title, evaluated_on=files.evaluated_on)),
        *([("Matched gain", MATCHED)] if len(files.cells) > 1 else []),
        *([("Tuned rate", f"{_tuned(manifest)}{TUNED_ON * (files.part == 'dev')}")] if protocol["tuning"] else []),
        ("Intervals", _intervals(files)),
        ("Verdicts", _verdicts(files)),
        ("Other seeds", EVIDENCE.format(reference=files.reference, together=TOGETHER * files.paired)),
        ("Engines", _engines(files)),
        *_computed(manifest),
        ("Environment", ", ".join(f"{name} {value}" for name, value in manifest["environment"].items())),
    ]
    lead = "What the numbers above mean, and how to get them again."
    return Section("method", "Method", lead, [Facts(entries)])


def _computed(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was declared beyond the usual, if anything was."""
    usual = {"device": "cpu", "precision": "float32", "compiled": False}
    declared = {name: manifest.get(name, value) for name, value in usual.items()}
    if declared == usual:
        return []
    steps = ", steps of training compiled" if declared["compiled"] else ""
    return [("Computed", f"On {declared['device']}, in {declared['precision']}{steps}.")]


def _pairs(files: StudyFiles) -> str:
    return PAIRED if files.paired else UNPAIRED.format(devices=listed([d for d in files.devices if d != "cpu"]))


def _intervals(files: StudyFiles) -> str:
    metric = files.metric
    text = INTERVALS if metric.sampled else SEED_INTERVALS.format(evaluated_on=files.evaluated_on)
    return text if files.paired else text + WELCH


def _verdicts(files: StudyFiles) -> str:
    return VERDICTS.format(
        reference=files.reference,
        pairing=pairing(files),
        margin=files.metric.amount(files.margin, exact=True),
        units="pairs" if files.paired else "runs of each activation",
    )


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
