"""How a study was measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._report.page import Facts, Section

if TYPE_CHECKING:
    from softknee._bench.study_files import StudyFiles


def method_section(files: StudyFiles) -> Section:
    """Return the last section: protocol, data, statistics, environment."""
    manifest = files.manifest
    data = manifest["data"]
    entries = [
        ("Protocol", f"{manifest['protocol']['name']}. {manifest['protocol']['description']}"),
        (
            "Data",
            f"{data['name']}: {data['train']:,} training and {data['test']:,} test examples. SHA-256 of the pixels and "
            f"labels: {data['fingerprint']}.",
        ),
        (
            "Runs",
            f"Each activation is trained for {manifest['epochs']} epochs with the seeds "
            f"{', '.join(map(str, manifest['seeds']))}. Runs with the same seed share weights as far as their "
            "initialization allows, the order of the data and every other random choice, so they are compared in pairs.",
        ),
        (
            "Ranking",
            "By the test accuracy after the last epoch. The best epoch's accuracy is shown beside it, but it was chosen "
            "on the test set and is therefore optimistic.",
        ),
        (
            "Intervals",
            "95 % intervals for the mean over new seeds and new test examples together: the variance to which "
            "resampling seeds and examples together (pigeonhole bootstrap) converges, freed of its known biases. The part that comes "
            "from seeds is multiplied by Student's t with one degree of freedom less than there are seeds.",
        ),
        (
            "Verdicts",
            f"Against {files.reference}. Better or worse: the paired difference is significant (p < 0.05, adjusted by "
            f"Holm's method over the activations of a condition). Equivalent: two one-sided tests show that the "
            f"difference is smaller than {files.margin:g} points (p < 0.05, adjusted likewise). Otherwise undecided: "
            "a missing significance shows nothing. Under three pairs no verdict is given.",
        ),
        ("Environment", ", ".join(f"{name} {value}" for name, value in manifest["environment"].items())),
    ]
    if len(files.cells) > 1:
        entries.insert(
            4,
            (
                "Matched gain",
                "Weights are scaled by the activation's forward gain. There is no valid match where the gradient would "
                "then grow or shrink by more than a factor of two a layer; spreads are given with and without those.",
            ),
        )
    lead = "What the numbers above mean, and how to get them again."
    return Section("method", "Method", lead, [Facts(entries)])
