"""How the command line shows a study: while it runs, and when it has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from softknee._bench.page_costs import cost_table
from softknee._bench.page_tables import cell_table, spread_table
from softknee._bench.study_findings import reads_sentence
from softknee._bench.suite_page import overview_table
from softknee._bench.suite_study import SuiteStudy
from softknee._cli_print import console, print_path, terminal_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Any

    from softknee._bench.compare import Progress
    from softknee._bench.execute import Event
    from softknee._bench.study import Study


def progress_listener(shown: ExitStack) -> Callable[[Progress], None]:
    """Return what draws the progress bar, from the first event until `shown` is left."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("training", total=None)

    def listen(progress: Progress) -> None:
        if not bar.live.is_started:
            shown.enter_context(bar)
        spec = progress.event.job.spec
        bar.update(task, completed=progress.done, total=progress.total, description=f"{spec.activation} #{spec.seed}")
        for line in _lines(progress.event):
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    return listen


def conclude(study: Study | SuiteStudy) -> None:
    """Print the tables and write the three files."""
    studies = study.studies if isinstance(study, SuiteStudy) else (study,)
    for one in studies:
        if isinstance(study, SuiteStudy):
            console.print(f"[bold]{one.title}[/]")
        _print_tables(one)
    if isinstance(study, SuiteStudy):
        console.print(terminal_table(overview_table(study.studies)), "")
    console.print(study.summary(), highlight=False, markup=False)
    console.print(reads_sentence([one.files for one in studies]), highlight=False, markup=False)
    study.to_csv(study.folder / "results.csv")
    study.to_markdown(study.folder / "results.md")
    study.to_html(study.folder / "report.html")
    print_path("report", study.folder / "report.html")


def print_checks(protocol: str, file: Path, options: Mapping[str, Any], memory_limit: float | None) -> bool:
    """Check a submission, print what came of it, and return whether it passed in every setting."""
    from softknee._bench.submission_check import check_file, checked_table

    checks = check_file(protocol, file, options=options, memory_limit=memory_limit)
    console.print(terminal_table(checked_table(checks)))
    for one in checks:
        if one.problem:
            console.print(f"{one.setting}: {one.problem}", soft_wrap=True, highlight=False, markup=False)
    return not any(one.problem for one in checks)


def _print_tables(study: Study) -> None:
    if len(study.table) > 1:
        console.print(terminal_table(spread_table(study.files, study.table)), "")
    for table in study.table:
        console.print(terminal_table(cell_table(study.files, table)), "")
    console.print(terminal_table(cost_table(study.files, study.table[0])), "")


def _lines(event: Event) -> list[str]:
    """Return what is told of a run: how it went wrong; of a submission, what the public harness prints."""
    from softknee._bench.own import FIRST_TUNING_SEED
    from softknee._bench.runs import read_result
    from softknee._bench.submission import is_submission
    from softknee._bench.submission_run import LOGGED, epoch_line, last_line
    from softknee._bench.tasks import TASKS

    spec = event.job.spec
    metric, submitted = TASKS[spec.recipe.task].metric, is_submission(spec.activation)
    run = f"{spec.activation} under {spec.protocol}, seed {spec.seed}:"
    if event.status is None:
        if not submitted or event.score is None or event.epoch % LOGGED:
            return []
        return [f"{run} {epoch_line(event.epoch, event.score, metric, spec.split)}"]
    # A rate that diverges is an ordinary finding of the tuning.
    ordinary = event.status == "diverged" and spec.seed >= FIRST_TUNING_SEED
    result = None if ordinary or (event.status == "done" and not submitted) else read_result(event.job.folder)
    if result is None:
        return []
    last = last_line(result, metric, spec.split)
    return [run, last] if event.status == "done" else [f"{run} {last}"]
