"""The command line. A bad request exits with 2 and one line before any work; after Ctrl-C or SIGTERM it goes on."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from softknee._bench.study import Study
from softknee._bench.suite_files import is_suite
from softknee._bench.suite_study import SuiteStudy
from softknee._cli_bench import bench
from softknee._cli_card import card
from softknee._cli_claims import claims
from softknee._cli_diagnose import diagnose
from softknee._cli_leaderboard import leaderboard
from softknee._cli_print import console, print_facts, print_path, terminal_table
from softknee._cli_search import search
from softknee._cli_study import conclude, progress_listener
from softknee._errors import ExpressionError, SoftkneeError, UsageError
from softknee._report.terminal import braille_plot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_USAGE = 2
# Exit status after each signal: the shell's own for Ctrl-C and a closed terminal, "try again" for SIGTERM.
STOPS = {signal.SIGINT: 130, signal.SIGTERM: 75}
if hasattr(signal, "SIGHUP"):  # not on every system
    STOPS[signal.SIGHUP] = 129

# Commands that keep what they did.
_RESUMED = {"bench", "design", "search"}


app = typer.Typer(
    name="softknee",
    help="Activation functions for PyTorch: know them, compare them honestly.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status.

    Args:
        arguments: Without the program's name.

    Returns:
        0; 1 where runs failed; 2 for a bad request; 75 after SIGTERM (try again: it goes on where it was), 130 after
        Ctrl-C.
    """
    try:
        with _stoppable():
            return app(args=list(arguments) or ["--help"], standalone_mode=False) or 0
    except TyperException as error:
        return _complain(error.format_message(), EXIT_USAGE)
    except (SoftkneeError, OSError) as error:
        return _complain(error.one_line if isinstance(error, ExpressionError) else str(error), EXIT_USAGE)
    except _Stopped as stop:
        again = "; the same command goes on where this one stopped" if set(arguments[:1]) & _RESUMED else ""
        return _complain(f"stopped{again}", STOPS[stop.signal])


class _Stopped(BaseException):
    """A signal asked for the end."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an exception that cleans up on its way."""

    def stop(number: int, _: object) -> NoReturn:
        for other in STOPS:  # one is enough; a second must not disturb the cleaning up
            signal.signal(other, signal.SIG_IGN)
        raise _Stopped(signal.Signals(number))

    before = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(message: str, status: int) -> int:
    print(f"softknee: {' '.join(message.split())}", file=sys.stderr)
    return status


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the output folder of `softknee bench`")],
) -> None:
    """Render the report of a study or suite again, finished or not; needs no torch."""
    conclude(SuiteStudy.load(folder) if is_suite(folder) else Study.load(folder))


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Option(help="only this family")] = None,
) -> None:
    """List the catalogue."""
    from softknee import _catalogue

    table = Table("name", "family", "formula", "source", box=None, pad_edge=False, header_style="bold")
    for name in _catalogue.list(family):
        spec = _catalogue.get(name)
        table.add_row(*map(Text, (spec.name, spec.family, spec.formula, spec.source)))
    console.print(table)


@app.command()
def show(
    activation: Annotated[str, typer.Argument(help="a name, name[options] or an expression")],
    plot: Annotated[Path | None, typer.Option(help="write the curve to this SVG file instead of the terminal")] = None,
) -> None:
    """Show an activation's formula, parameters, gain, source and curve."""
    from softknee._show import describe

    description = describe(activation)
    print_facts(description.facts)
    if plot is None and description.x:
        console.print(braille_plot(description.x, description.y, width=64, height=16), markup=False, highlight=False)
    elif plot is not None:
        description.write_svg(plot)
        console.print(f"[bold]{'plot':>12}[/]  {plot}")


@app.command()
def source(
    activation: Annotated[str, typer.Argument(help="a name or an expression")],
    out: Annotated[Path | None, typer.Option(help="write it to this file instead")] = None,
) -> None:
    """Print an activation as a module that needs torch alone."""
    from softknee._card.source import source as print_source
    from softknee._report.files import write_atomic

    text = print_source(activation)
    if out is None:
        console.print(text, end="", soft_wrap=True, highlight=False, markup=False)
    else:
        write_atomic(out, text)


@app.command()
def cite(
    activation: Annotated[list[str], typer.Argument(help="names from the catalogue")],
) -> None:
    """Print the BibTeX entries of activations' sources."""
    from softknee._catalogue import cite as entries

    console.print(entries(*activation), soft_wrap=True, highlight=False, markup=False)


@app.command()
def design(
    activation: Annotated[str, typer.Argument(help="an expression, or a name with [options]")],
    out: Annotated[Path, typer.Option(help="folder for the page, the code and the comparison")] = Path("design"),
    control: Annotated[list[str] | None, typer.Option("--control", "-c", help="to compare with; repeat")] = None,
    protocol: Annotated[str, typer.Option(help="of the comparison, or `none`")] = "fashion-mlp-fair",
    seeds: Annotated[int, typer.Option(help="of the comparison")] = 3,
    epochs: Annotated[int | None, typer.Option(help="of each run; the protocol's own by default")] = None,
) -> None:
    """Walk a new activation through properties, checks, cost and a fair comparison, and write its code."""
    from softknee._design import CONTROLS
    from softknee._design import design as walk

    with ExitStack() as shown:
        found = walk(
            activation,
            out=out,
            controls=control or CONTROLS,
            protocol=None if protocol == "none" else protocol,
            seeds=seeds,
            epochs=epochs,
            progress=progress_listener(shown),
        )
    print_facts({**found.description.facts, "checks": found.verdict})
    console.print("", terminal_table(found.costs.table))
    if found.study is not None:
        conclude(found.study)
    console.print(
        f"page: {out / 'design.md'}\ncode: {out / 'activation.py'}", soft_wrap=True, highlight=False, markup=False
    )


@app.command()
def atlas(
    out: Annotated[Path, typer.Option(help="folder of the site")] = Path("site"),
) -> None:
    """Write the atlas of activations: a static site, one page each."""
    from softknee._atlas.site import build

    print_path("atlas", build(out))


@app.command()
def cost(
    activation: Annotated[list[str], typer.Argument(help="names, names with [options], or expressions")],
    shape: Annotated[str, typer.Option(help="of the tensor, channels second")] = "128x64x32x32",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    repeats: Annotated[int, typer.Option(help="how often each is timed")] = 9,
    threads: Annotated[int | None, typer.Option(help="of the processor; torch's own number by default")] = None,
    json: Annotated[Path | None, typer.Option(help="also write the figures to this file")] = None,
) -> None:
    """Measure what activations cost here, by each engine that can evaluate them, against ReLU and one copy."""
    from softknee._card.cost_table import cost_report

    report = cost_report(activation, _sizes(shape), device=device, repeats=repeats, threads=threads)
    console.print(terminal_table(report.table))
    if json is not None:
        report.write(json)
        print_path("figures", json)


app.command()(bench)
app.command()(card)
app.command()(claims)
app.command()(diagnose)
app.command()(leaderboard)
app.command()(search)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--shape takes whole numbers with x between, such as 128x64x32x32, got {text!r}") from None
