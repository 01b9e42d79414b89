"""A new activation from idea to code: what it is, what it costs, how it compares, and the module to take away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from softknee import _catalogue
from softknee._bench.compare import bench
from softknee._bench.protocols import get_protocol
from softknee._bench.study import Study
from softknee._card.cost_table import cost_report
from softknee._card.source import source
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.table import markdown_table
from softknee._show import describe
from softknee.testing import findings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.compare import Progress
    from softknee._card.cost_table import CostReport
    from softknee._show import Description

# What a new activation has to be better than: none at all, the plainest, and the usual ones.
CONTROLS = ("identity", "relu", "gelu", "silu")
SHAPE = (64, 64, 16, 16)
REPEATS = 5


@dataclass(frozen=True)
class Design:
    """What was found out about a new activation.

    Attributes:
        description: In words and as a curve.
        checks: What each check of `softknee.testing.check` says, empty where it passes.
        costs: Beside ReLU's.
        source: A module that needs torch alone.
        study: Comparison with the controls; None if it was left out.
        folder: Where everything is.
    """

    description: Description
    checks: dict[str, str]
    costs: CostReport
    source: str
    study: Study | None
    folder: Path

    @property
    def verdict(self) -> str:
        """The checks in one sentence."""
        failed = {name: message for name, message in self.checks.items() if message}
        if not failed:
            return f"passes all {len(self.checks)} checks"
        listed = "; ".join(f"{name} ({message})" for name, message in failed.items())
        return f"fails {len(failed)} of {len(self.checks)} checks: {listed}"

    def markdown(self) -> str:
        """Return everything on one page."""
        facts = "\n".join(f"- **{name}**: {' '.join(text.split())}" for name, text in self.description.facts.items())
        parts = [
            f"# {self.description.title}",
            "![curve](curve.svg)",
            facts,
            f"## Checks\n\n{self.verdict[0].upper()}{self.verdict[1:]}.",
            f"## Cost\n\n{markdown_table(self.costs.table)}",
            f"## Code\n\n```python\n{self.source.rstrip()}\n```",
        ]
        if self.study is not None:
            parts.append(f"## Comparison\n\n{self.study.summary()}\n\n[The whole report](comparison/report.html)")
        return "\n\n".join(parts) + "\n"


def design(
    activation: str,
    *,
    out: str | Path,
    controls: Sequence[str] = CONTROLS,
    protocol: str | None = "fashion-mlp-fair",
    seeds: int = 3,
    epochs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Design:
    """Walk a new activation through everything that should be known before anybody uses it.

    Args:
        activation: A formula, or anything else the command line takes for an activation.
        out: Folder for `design.md`, `curve.svg`, `activation.py` and the comparison; made if it is not there.
        controls: What to compare it with.
        protocol: Of the comparison; None leaves it out.
        seeds: Of the comparison.
        epochs: Of its runs; the protocol's own by default.
        progress: As in `softknee.bench`.

    Returns:
        What was found out.

    Raises:
        UsageError: Or a subclass: the text names no activation of single elements, or an option is out of range.
    """
    choice = _catalogue.parse_choice(activation)
    if choice.label in controls:
        raise UsageError(f"{choice.label} is one of the controls ({', '.join(controls)}); choose others")
    if protocol is not None:
        get_protocol(protocol)  # one, and no suite of them
    folder = Path(out)
    description = describe(activation)
    module = choice.build(channels=1)
    checks = findings(module)
    costs = cost_report([choice.label], SHAPE, device="cpu", repeats=REPEATS)
    code = source(module)
    write_atomic(folder / "activation.py", code)
    description.write_svg(folder / "curve.svg")
    study = None
    if protocol is not None:
        compared = [choice.label, *controls]
        place = folder / "comparison"
        bench(protocol, compared, seeds=seeds, epochs=epochs, out=place, progress=progress)
        study = Study.load(place)
        study.to_html(place / "report.html")
    found = Design(description, checks, costs, code, study, folder)
    write_atomic(folder / "design.md", found.markdown())
    return found
