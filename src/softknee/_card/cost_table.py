"""What `softknee cost` shows and writes."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from softknee._card.cost import Cost, cost
from softknee._engine.build import level
from softknee._engine.select import ENGINES
from softknee._errors import UsageError
from softknee._report.files import write_atomic
from softknee._report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS = (
    Column("Activation", numeric=False),
    Column("Engine", numeric=False),
    Column("Forward / copy"),
    Column("Forward / ReLU"),
    Column("Forward + backward / ReLU"),
    Column("Saved B / element"),
    Column("ms"),
)


@dataclass(frozen=True)
class CostReport:
    """Costs with where they were measured.

    Attributes:
        costs: One entry for each activation and engine.
        machine: Tensor, device, threads, instruction set and versions.
    """

    costs: Sequence[Cost]
    machine: dict[str, str | int | list[int]]

    @property
    def table(self) -> Table:
        """The costs as a table."""
        where = ", ".join(f"{name} {_shown(value)}" for name, value in self.machine.items())
        return Table(f"Medians, interleaved in one run; {where}", COLUMNS, [_row(entry) for entry in self.costs])

    def write(self, path: Path) -> None:
        """Write the figures as JSON.

        Args:
            path: The file; replaced as a whole.
        """
        plain = {"machine": self.machine, "costs": [asdict(entry) for entry in self.costs]}
        write_atomic(path, json.dumps(plain, indent=1) + "\n")


def cost_report(
    activations: Sequence[str],
    shape: tuple[int, ...],
    *,
    device: str,
    repeats: int,
    threads: int | None = None,
    engines: Sequence[str] = ENGINES,
) -> CostReport:
    """Measure activations.

    Args:
        activations: As `cost` takes them.
        shape: Of the tensor.
        device: Likewise.
        repeats: Likewise.
        threads: Of the processor, torch's present number by default.
        engines: As `cost` takes them.

    Returns:
        The costs, and where they were measured.

    Raises:
        UsageError: Or a subclass, where an argument is not as it should be.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        costs = cost(*activations, shape=shape, device=device, repeats=repeats, engines=engines)
        machine: dict[str, str | int | list[int]] = {
            "shape": [*shape],
            "device": _device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    finally:
        torch.set_num_threads(before)
    return CostReport(costs, machine)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()} ({level()})"


def _row(entry: Cost) -> list[Cell]:
    engine = entry.used if entry.engine == entry.used else f"{entry.engine}: {entry.used}"
    ratios = (entry.forward, entry.forward_to_relu, entry.both)
    numbers = [*(f"{value:.2f}" for value in ratios), f"{entry.saved_bytes:.1f}", f"{entry.milliseconds:.3g}"]
    return [Cell(entry.activation, kind="name"), Cell(engine), *map(Cell, numbers)]


def _shown(value: str | int | list[int]) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
