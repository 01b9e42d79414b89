"""The command `bench`."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from softknee._bench.suite_study import SuiteStudy
from softknee._cli_study import conclude, print_checks, progress_listener
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BROKEN, EXIT_USAGE = 1, 2


class Split(str, Enum):
    """What runs are evaluated on."""

    test = "test"
    dev = "dev"


def bench(
    protocol: Annotated[
        str,
        typer.Argument(
            help="fashion-mlp, fashion-mlp-chapter, fashion-mlp-fair, fashion-cnn, fashion-resnet8, fashion-resnet20, "
            "fashion-vit, digits-cnn, rnn-digits, mnist1d, mnist1d-cnn, tabular-mlp, text-char, gmm-2d, regression-1d, "
            "regression-2d, pinn-poisson, mls-resnet20-cifar10, mls-vgg16bn-cifar100, mls-mobilenetv2-fmnist, "
            "fast-resnet20-cifar10, fast-vgg16bn-cifar100, fast-mobilenetv2-fmnist; the suites mls (MLS-Bench) and "
            "transfer; or a file of your own that ends in .toml"
        ),
    ],
    activation: Annotated[
        list[str] | None,
        typer.Option(
            "--activation",
            "-a",
            help="a name, name[options], an expression, submission:FILE.py, or the groups chapter and mls-baselines; "
            "repeat",
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            help="a file that defines a class CustomActivation, compared with the baselines (mls) or ReLU unless "
            "--activation says otherwise; its code runs in child processes, with your rights"
        ),
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="check the submission, train nothing")] = False,
    time_limit: Annotated[
        float | None, typer.Option(help="minutes an epoch of the submission may take; 60 by default")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="gigabytes the submission may take; half of the memory by default")
    ] = None,
    seeds: Annotated[int, typer.Option(help="how many; 0 ... N-1, or the protocol's own first")] = 3,
    epochs: Annotated[int | None, typer.Option(help="of each run; the protocol's own by default")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="of images: mini (a part of Fashion-MNIST that ships with softknee), full (found here or downloaded; "
            "the default of mls, fast and fashion-resnet20), or a folder with the sets; of text-char: a folder of "
            "texts (default: Python's own library); no other task takes it"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="results/PROTOCOL by default")] = None,
    executor: Annotated[str, typer.Option(help="who does the runs: local, here, ray or slurm")] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="processes at the same time; by default one a core, one on a GPU, what a Ray cluster takes; for slurm "
            "it must be given"
        ),
    ] = None,
    pack: Annotated[int, typer.Option(help="runs that a process trains side by side, if perceptrons are small")] = 1,
    reference: Annotated[str | None, typer.Option(help="ReLU where it takes part, else the first activation")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="what counts as equivalent: 0.5 percentage points, 0.01 of R² or 0.02 bits by default"),
    ] = None,
    save_epochs: Annotated[str, typer.Option(help="epochs to keep weights of, such as 1,5,15")] = "",
    split: Annotated[Split, typer.Option(help="evaluated on; dev is held out of the training data")] = Split.test,
    final: Annotated[bool, typer.Option("--final", help="evaluate under a suite's hidden protocols, too")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="an open point of the protocol as name=value: of mls normalization, shortcut, expand_first and "
            "head_dropout, of rnn-digits place; repeat"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="where runs compute: cpu or cuda")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="a tier, never pooled with others: float32, tf32 (on cuda) or bfloat16")
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="compile the steps of training")] = False,
) -> None:
    """Compare activations under a frozen protocol and write report.html, results.csv and results.md."""
    from softknee._bench.compare import bench as compare

    if check_only:
        if submission is None:
            raise UsageError("--check-only checks a submission; give its file as --submission")
        if not print_checks(protocol, submission, _named(option or ()), memory_limit):
            raise typer.Exit(EXIT_USAGE)
        return
    with ExitStack() as shown:
        study = compare(
            protocol,
            _compared(protocol, activation or [], submission),
            seeds=seeds,
            epochs=epochs,
            data=data,
            out=out,
            executor=executor,
            jobs=jobs,
            pack=pack,
            reference=reference,
            margin=margin,
            save_epochs=_epoch_list(save_epochs),
            split=split.value,
            final=final,
            options=_named(option or ()),
            time_limit=time_limit,
            memory_limit=memory_limit,
            device=cast("Any", device),
            precision=cast("Any", precision),
            compiled=compiled,
            progress=progress_listener(shown),
        )
    conclude(study)
    studies = study.studies if isinstance(study, SuiteStudy) else (study,)
    if any(run.status in {"failed", "lost"} for one in studies for run in one.files.runs):
        raise typer.Exit(EXIT_BROKEN)


def _compared(protocol: str, activations: list[str], submission: Path | None) -> list[str]:
    """Return the activations to compare, the submission first, since it is what one waits for."""
    from softknee._bench.suite import SUITES

    if submission is None:
        if not activations:
            raise UsageError("Missing option '--activation' / '-a' or '--submission': there is nothing to compare")
        return activations
    baselines = SUITES[protocol].baselines if protocol in SUITES else ("relu",)
    return [f"submission:{submission}", *(activations or baselines)]


def _named(items: Sequence[str]) -> dict[str, str]:
    parts = [item.partition("=") for item in items]
    for item, (name, sign, value) in zip(items, parts, strict=True):
        if not (name and sign and value):
            raise UsageError(f"--option takes name=value, got {item!r}")
    return {name.strip(): value.strip() for name, _, value in parts}


def _epoch_list(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--save-epochs takes whole numbers with commas between, got {text!r}") from None
