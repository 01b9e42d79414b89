"""The command `diagnose`."""

from __future__ import annotations

import importlib
import signal
import sys
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softknee._cli_print import console, print_path
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softknee._diagnose.diagnosis import Diagnosis

EXIT_FOUND = 1


class Level(str, Enum):
    """How much is measured."""

    quick = "quick"
    full = "full"
    trial = "trial"


class FailOn(str, Enum):
    """From which severity on the exit status is 1."""

    warn = "warn"
    critical = "critical"
    never = "never"


def diagnose(
    model: Annotated[
        str | None, typer.Argument(help="package.module:name of a model or of a function that makes one")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="package.module:name of a loader or of a function that makes one")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, mse, ... or package.module:function")] = None,
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")] = Path("report"),
    level: Annotated[
        Level, typer.Option(help="quick: one look; full: also curvature and more; trial: also training")
    ] = Level.quick,
    samples: Annotated[int, typer.Option(help="how many to take from the beginning of the loader")] = 2048,
    seed: Annotated[int, typer.Option(help="of all random choices, and of the weights of a model that is made")] = 0,
    lr: Annotated[float | None, typer.Option(help="learning rate of SGD, for its stability and for trials")] = None,
    momentum: Annotated[float | None, typer.Option(help="of SGD")] = None,
    history: Annotated[Path | None, typer.Option(help="what softknee.watch saved of the training")] = None,
    budget: Annotated[str | None, typer.Option(help="time for trials, such as 90s or 5m")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="exit with 1 if a finding is this bad")] = FailOn.never,
    silence: Annotated[list[str] | None, typer.Option(help="id of a rule to leave out; repeat")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the JSON instead of the summary")] = False,
    explain: Annotated[str | None, typer.Option(help="say what a rule means, and do nothing else")] = None,
) -> None:
    """Measure how the activations of a model do on its data, say what to do about it, and write a report."""
    if explain is not None:
        from softknee._diagnose.rules.explain import explain as rule_text

        console.print(rule_text(explain), markup=False, highlight=False, soft_wrap=True)
        return
    chosen = {"out": out, "level": level.value, "samples": samples, "seed": seed, "lr": lr, "momentum": momentum}
    found = _diagnosed(model, data, loss, {**chosen, "history": history, "budget": budget, "silence": silence or ()})
    if json:
        typer.echo(found.to_json(), nl=False)
    else:
        console.print(found.summary(), markup=False, highlight=False, soft_wrap=True)
        print_path("report", out / "report.html")
    _leave(found.worst, fail_on.value)


def _leave(worst: str | None, limit: str) -> None:
    """Exit with 1 if findings are bad enough.

    Args:
        worst: The worst severity found.
        limit: `"warn"`, `"critical"` or `"never"`.

    Raises:
        Exit: They are.
    """
    if worst in {"warn": {"warn", "critical"}, "critical": {"critical"}, "never": set[str]()}[limit]:
        raise typer.Exit(EXIT_FOUND)


def _diagnosed(model: str | None, data: str | None, loss: str | None, options: dict[str, Any]) -> Diagnosis:
    """Diagnose what is named.

    Raises:
        UsageError: A name is missing or names nothing, or anything that `softknee.diagnose` raises.
    """
    if model is None or data is None:
        raise UsageError("diagnose takes a model and --data, each as package.module:name")
    made = named(model, "the model")
    loader = named(data, "--data")
    own_loss = named(loss, "--loss") if loss is not None and ":" in loss else loss
    # A function that makes data is called before anything else draws random numbers.
    if callable(loader) and not hasattr(loader, "__iter__"):
        loader = _called(loader, data, options["seed"])
    from softknee._diagnose.run import diagnose as run

    shown = console.status("") if sys.stdout.isatty() else nullcontext()
    with shown as status, _interruptible():
        progress = None if status is None else lambda text: status.update(f"measuring: {text}")
        return run(made, loader, own_loss, progress=progress, **options)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C end trials, which keep what they found; elsewhere it does what it did before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGINT)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _called(factory: Callable[[], Any], name: str, seed: int) -> Any:
    """Call a function that makes a loader, with the random numbers of the seed.

    Raises:
        UsageError: It fails.
    """
    import torch

    try:
        torch.manual_seed(seed)
        return factory()
    except Exception as error:
        raise UsageError(f"--data: {name} failed: {type(error).__name__}: {error}") from error


def named(text: str, what: str) -> Any:
    """Import what a text names; modules in the current folder are found.

    Args:
        text: `package.module:name`; the name may have dots.
        what: Asks for it, for the sentence.

    Returns:
        The object.

    Raises:
        UsageError: There is no such thing, or its module fails.
    """
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise UsageError(f"{what} must be given as package.module:name, got {text!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise UsageError(f"{what}: importing {module} failed: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{what}: {module} has no {name!r}")
        found = getattr(found, part)
    return found
