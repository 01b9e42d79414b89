"""What a search has found: the verdict, the function to take away, and all that was tried."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from softknee._catalogue import parse_choice
from softknee._errors import DataError, UsageError
from softknee._report.files import write_atomic
from softknee._report.plain import plain
from softknee._search.export import describe, latex_of, module_source, to_onnx
from softknee._search.export_source import class_names
from softknee._search.page_words import brief
from softknee._search.rows import Row
from softknee._search.verdict import Against
from softknee._surgery.places import aligned
from softknee._surgery.swap import swap

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import nn

    from softknee._catalogue import Choice
    from softknee._search.candidate import Candidate, Function
    from softknee._surgery.places import Site
    from softknee._surgery.swap import Report

SCHEMA = 1
# Rows of the table that are shown where nobody asked for all.
SHOWN = 8
# Characters of a formula there, so that a row is a line.
LONGEST = 60
HEADINGS = ("function", "from", "loss of run 0", "final validation loss", "final test loss")


@dataclass(frozen=True)
class Phase:
    """What a part of a search has cost.

    Attributes:
        name: `"baselines"`, a method, or `"verify"`.
        runs: In training runs.
        seconds: Of training and evaluation.
    """

    name: str
    runs: float
    seconds: float


@dataclass(frozen=True)
class Spent:
    """What a search has cost, in training runs: verification and failed runs count.

    Attributes:
        budget: What might be spent.
        spent: What was.
        phases: Where, in the order of time.
        seconds: Of training and evaluation.
        failed: Trainings that failed.
        failed_runs: What they cost, from their first step.
        steps: Of a full run.
        epochs: Of a full run.
    """

    budget: float
    spent: float
    phases: tuple[Phase, ...]
    seconds: float
    failed: int
    failed_runs: float
    steps: int
    epochs: int


@dataclass(frozen=True)
class Finalist:
    """A function for each group of sites, to look at and to take away.

    Attributes:
        candidate: What was trained.
        is_baseline: Whether it is one of those that others had to beat.
        sites: Names of the sites by group.
        everywhere: Whether these are the usual activations of the model, not some that were asked for.
    """

    candidate: Candidate
    is_baseline: bool
    sites: Mapping[str, tuple[str, ...]]
    everywhere: bool = True

    @property
    def name(self) -> str:
        """Short text, with which `softknee.swap` and the command line make it where there is one group."""
        return self.candidate.name

    @property
    def functions(self) -> dict[str, Function]:
        """The function of each group."""
        return dict(zip(self.sites, self.candidate.functions, strict=True))

    @property
    def formula(self) -> str:
        """As a formula in `x`; with the names of the groups where there are several."""
        return self._joined({group: choice.spec.formula for group, choice in self._choices().items()})

    @property
    def latex(self) -> str:
        """The formula as LaTeX, empty where it is only described."""
        return self._joined({group: latex_of(choice) for group, choice in self._choices().items()})

    @property
    def constants(self) -> dict[str, float]:
        """Values of the names in the formula, as they are before training; `"group.name"` where there are several."""
        several = len(self.sites) > 1
        return {
            f"{group}.{name}" if several else name: value
            for group, function in self.functions.items()
            for name, value in function.constants
        }

    def module(self, group: str | None = None) -> nn.Module:
        """Make a new module.

        Args:
            group: Of which group; not needed if there is one.

        Returns:
            A module of softknee.

        Raises:
            UsageError: There is no such group, or several and none is named.
        """
        return self.functions[self._group(group)].make()

    def source(self) -> str:
        """Return a Python file with a self-contained class for each group, which needs torch alone.

        Raises:
            UsageError: A function computes something that its source does not tell.
        """
        return module_source(self.functions)

    def to_onnx(self, path: str | os.PathLike[str], group: str | None = None) -> float:
        """Write the function as an ONNX model, and check its numbers.

        Args:
            path: The file.
            group: Of which group; not needed if there is one.

        Returns:
            The largest difference from torch, relative where values are large.

        Raises:
            MissingExtra: onnx, onnxscript or onnxruntime is not installed.
            UsageError: There is no such group, or the model gives other numbers.
        """
        return to_onnx(self.functions[self._group(group)], path)

    def apply(self, model: nn.Module, *, example_inputs: Any = None, where: Any = None) -> tuple[nn.Module, Report]:
        """Put the functions into a model, in place, by `softknee.swap`.

        Args:
            model: The one that was searched for or, with one group, any other.
            example_inputs: What the model is called with, so that activations that are functions are found.
            where: With one group, which activations, as `softknee.swap` takes it. By default the function goes where
                it was searched for: to the usual activations, or to the sites that were asked for. With several
                groups, each site gets the function of its group.

        Returns:
            The model and what was changed.

        Raises:
            UsageError: Sites of a group are not in the model, or what `softknee.swap` raises.
        """
        functions = self.functions
        if len(functions) == 1 and (self.everywhere or where is not None):
            (function,) = functions.values()
            return swap(model, function.label, where=where, example_inputs=example_inputs)
        if where is not None:
            raise UsageError("where is for results of one group; these functions go to the sites they were found for")
        owners = {site: group for group, sites in self.sites.items() for site in sites}
        missing = dict.fromkeys(owners)

        def chosen(site: Site) -> bool:
            missing.pop(site.name, None)
            return site.name in owners

        def made(site: Site) -> nn.Module:
            if missing:
                hint = "; say where it goes" if len(functions) == 1 else ""
                raise UsageError(f"the function of {next(iter(missing))} has no such place in this model{hint}")
            return functions[owners[site.name]].make(site)

        return swap(model, made, where=chosen, example_inputs=example_inputs)

    def _group(self, group: str | None) -> str:
        if group is None and len(self.sites) == 1:
            return next(iter(self.sites))
        if group is None or group not in self.sites:
            raise UsageError(f"group must be one of {', '.join(self.sites)}, got {group!r}")
        return group

    def _choices(self) -> dict[str, Choice]:
        return {group: parse_choice(function.label) for group, function in self.functions.items()}

    def _joined(self, texts: Mapping[str, str]) -> str:
        if len(texts) == 1:
            return next(iter(texts.values()))
        return "; ".join(f"{group}: {text}" for group, text in texts.items())


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome of a search.

    Attributes:
        best: What to use: what was found where it beats every baseline, else the best baseline.
        verdict: In one sentence.
        outcome: `"better"`, or `"baseline"` where nothing beat it.
        measured_on: What the claim was measured on, `"test"` or `"validation"` losses.
        candidate: Key of what was found and compared with the baselines, None if nothing was.
        reference: Key of the best baseline by validation.
        differences: Of the candidate from each baseline of the finals, the smallest gain first.
        notes: What limits the claim.
        table: Everything that was trained by itself, best first.
        cost: In training runs, and in seconds.
        trajectory: How the weights of operations went, where a method that has such was used; plain data.
        settings: What was searched for, and how; plain data.
    """

    best: Finalist
    verdict: str
    outcome: Literal["better", "baseline"]
    measured_on: Literal["test", "validation"]
    candidate: str | None
    reference: str
    differences: tuple[Against, ...]
    notes: tuple[str, ...]
    table: tuple[Row, ...]
    cost: Spent
    trajectory: Mapping[str, Any] | None
    settings: Mapping[str, Any]

    @property
    def difference(self) -> Against | None:
        """The smallest gain over a baseline, with its interval and p values; None if nothing was compared."""
        return self.differences[0] if self.differences else None

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a page says about the functions, their cost measured on this machine at the first use; plain data."""
        found = next((row.candidate for row in self.table if row.candidate.key == self.candidate), None)
        best = self.best.candidate
        return {
            "functions": self._describe(best),
            **({} if found is None or found.key == best.key else {"found": self._describe(found)}),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, from which `from_json` makes it again."""
        names = ("verdict", "outcome", "measured_on", "candidate", "reference", "notes", "cost", "differences")
        return {
            "schema": SCHEMA,
            "best": self.best.candidate.key,
            **plain({name: getattr(self, name) for name in names}),
            "table": [row.to_json([*self.best.sites]) for row in self.table],
            **self.described,
            "trajectory": self.trajectory,
            "settings": self.settings,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """Return what `to_json` was called of.

        Args:
            data: Plain data.

        Raises:
            DataError: It is of another version.
        """
        if data.get("schema") != SCHEMA:
            raise DataError(f"the result has schema {data.get('schema')!r}; this version of softknee reads {SCHEMA}")
        table = tuple(Row.from_json(row) for row in data["table"])
        row = next(row for row in table if row.candidate.key == data["best"])
        sites = {group["name"]: tuple(group["sites"]) for group in data["settings"]["groups"]}
        cost = {**data["cost"], "phases": tuple(Phase(**phase) for phase in data["cost"]["phases"])}
        names = ("verdict", "outcome", "measured_on", "candidate", "reference", "trajectory", "settings")
        result = cls(
            best=Finalist(row.candidate, row.is_baseline, sites, everywhere=is_everywhere(data["settings"])),
            differences=tuple(map(Against.from_json, data["differences"])),
            notes=tuple(data["notes"]),
            table=table,
            cost=Spent(**cost),
            **{name: data[name] for name in names},
        )
        # The cost of a function was measured when it was found.
        result.__dict__["described"] = {name: data[name] for name in ("functions", "found") if name in data}
        return result

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write everything as one self-contained page.

        Args:
            path: The file; replaced as a whole.

        Raises:
            MissingExtra: Jinja2 is not installed.
        """
        from softknee._search.page import result_page

        write_atomic(path, result_page(self.to_json()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to a file, replaced as a whole.

        Args:
            path: The file.
        """
        write_atomic(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    def __repr__(self) -> str:
        lines = [self.verdict, *self.notes, "", *aligned([HEADINGS, *map(_cells, self.table[:SHOWN])])]
        return "\n".join([*lines, *self._foot()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{one}</th>" for one in HEADINGS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in self.table[:SHOWN]
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in [*self.notes, *self._foot()])
        return f"<p><b>{escape(self.verdict)}</b></p><table><tr>{head}</tr>{rows}</table>{notes}"

    def _foot(self) -> list[str]:
        more = len(self.table) - SHOWN
        cost = f"{self.cost.spent:.1f} of {self.cost.budget:g} training runs, {self.cost.seconds:.0f} s"
        return [*([f"and {more} more in .table"] if more > 0 else []), cost]

    def _describe(self, candidate: Candidate) -> list[dict[str, Any]]:
        names = class_names([*self.best.sites])
        return [
            describe(function, group=group, sites=sites, class_name=names[group])
            for (group, sites), function in zip(self.best.sites.items(), candidate.functions, strict=True)
        ]


def is_everywhere(settings: Mapping[str, Any]) -> bool:
    """Whether a search was for the usual activations of a model, not for some that were asked for."""
    return settings["scope"] == "all" and "where" not in settings


def _cells(row: Row) -> tuple[str, ...]:
    final = row.final
    first = "failed" if row.loss is None else f"{row.loss:.4g}"
    at = f" at {row.part:.2g} of a run" if row.part < 1 and row.loss is not None else ""
    means = (None, None) if final is None else (final.validation_mean, final.test_mean)
    name = brief(row.name)
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
    return short, row.candidate.origin, first + at, *("-" if mean is None else f"{mean:.4g}" for mean in means)
