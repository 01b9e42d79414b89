"""Which classes give the values of the formula that our catalogue has under their name, and which agree.

Formulas are evaluated to a hundred digits by `softknee.testing`, from their text alone, not by softknee's functions.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from peers_checks import GRID, OTHER
from peers_libraries import CHANNELS, SYNONYMS, attempt

from softknee.functional import SPECS
from softknee.testing._subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from softknee._spec import Spec

    Values = Mapping[str, Any]
    Numbers = Sequence[float | None]

# Relative to 1 + |f|: constants that were written down with four digits are not called different.
TOLERANCE = 1e-4
# Between libraries, on [-4, 4].
AGREEMENT = 1e-3
# Assignments of a class's own numbers to a formula's parameters that are tried at once.
MOST = 20_000
# Numbers that a class may have written into its code.
FIXED = (0.5, 1.0, 2.0, math.pi)
# Suffixes that libraries append to the name of a function.
SUFFIX = re.compile(r"(activation|me)$")

EQUAL, OWN, ANOTHER, DIFFERENT, OPEN = "equal", "own parameters", "another entry", "different", "not compared"


@dataclass(frozen=True)
class Verdict:
    """How a class compares with the formula of its name.

    Attributes:
        entry: Our name for the formula.
        kind: One of the constants above.
        detail: The parameters, the other entry, or the reason for not comparing.
        x: Where it differs most, relative to `1 + |f|`.
        theirs: Value there.
        formula: Value of the formula there.
        untrained: Whether the source trains parameters and the class, as it comes, has none that is trained.
    """

    entry: str
    kind: str
    detail: str = ""
    x: float = math.nan
    theirs: float = math.nan
    formula: float = math.nan
    untrained: bool = False


@dataclass
class Reference:
    """A catalogued formula on the grid."""

    spec: Spec
    subject: Subject = field(init=False)

    def __post_init__(self) -> None:
        given = {param.name: 0.0 for param in self.spec.parameters if getattr(param, "given", False)}
        self.subject = Subject(self.spec, given)

    def at(self, values: Values, *, channel: int = 0, grid: Iterable[float] = tuple(GRID)) -> list[float | None]:
        """Return the formula's values at the grid; None where it has none."""
        exact = (self.subject.oracle.value(x, values, channel=channel) for x in grid)
        return [None if value is None else float(value) for value in exact]

    def gated(self, gate: Sequence[float], other: Sequence[float]) -> list[float | None]:
        """Return the values of a gate at its defaults."""
        name = next(param.name for param in self.spec.parameters if param.given)
        pairs = zip(gate, other, strict=True)
        exact = (self.subject.oracle.value(x, {**self.subject.defaults, name: value}) for x, value in pairs)
        return [None if value is None else float(value) for value in exact]


@cache
def reference(name: str) -> Reference:
    """Return the reference of a catalogued entry."""
    return Reference(next(spec for spec in SPECS if spec.name == name))


@cache
def at_defaults(name: str, channel: int = 0) -> list[float | None]:
    """Return a catalogued formula's values on the grid at its defaults."""
    found = reference(name)
    return found.at(found.subject.defaults, channel=channel if found.spec.channelwise else 0)


def plain(name: str) -> str:
    """Return a name without case and punctuation, and without what stands in brackets."""
    return re.sub(r"[^a-z0-9]", "", name.partition("[")[0].lower())


@cache
def names() -> dict[str, Spec]:
    """Return our entries by the plain forms of their names, titles and aliases."""
    found: dict[str, Spec] = {}
    for spec in SPECS:
        found.setdefault(plain(spec.name), spec)
    for spec in SPECS:
        for name in (spec.title, *spec.aliases):
            found.setdefault(plain(name), spec)
    return found


def entry_of(result: Mapping[str, Any]) -> Spec | None:
    """Return our entry with a class's name, one of its aliases, a synonym, or one without a customary suffix."""
    known = [plain(name) for name in (result["name"], *result["aliases"])]
    candidates = [*known, *(SYNONYMS.get(name, "") for name in known), *(SUFFIX.sub("", name) for name in known)]
    candidates = [plain(name) for name in candidates]
    return next((names()[name] for name in candidates if name in names()), None)


def judge(result: Mapping[str, Any]) -> Verdict | None:
    """Return how a class compares with our entry of its name; None where there is no such entry."""
    spec = entry_of(result)
    if spec is None:
        return None
    trains = any(param.trainable and not getattr(param, "given", False) for param in spec.parameters)
    verdict, reason = attempt(lambda: _judged(result, spec))
    verdict = verdict or Verdict(spec.name, OPEN, reason)
    return Verdict(**{**asdict(verdict), "untrained": trains and not result["runs"] and not result["trained"]})


def _judged(result: Mapping[str, Any], spec: Spec) -> Verdict:
    kind = getattr(spec, "kind", "elementwise")
    if kind == "gated":
        return _judged_gate(result, spec)
    if result["runs"]:
        return Verdict(spec.name, OPEN, f"does not run by default: {result['runs']}")
    if kind == "vector":
        return _judged_row(result, spec)
    if kind == "contextual":
        return Verdict(spec.name, OPEN, "depends on a network of its own")
    if result["values"] is None:
        return Verdict(spec.name, OPEN, result["why_no_values"])
    return _judged_elementwise(result, spec)


def _judged_elementwise(result: Mapping[str, Any], spec: Spec) -> Verdict:
    theirs, second = result["values"]["first"], result["values"]["second"]
    pairs = [(theirs, at_defaults(spec.name))]
    pairs += [(second, at_defaults(spec.name, 1))] if spec.channelwise else []
    if all(agree(got, wanted) for got, wanted in pairs):
        return Verdict(spec.name, EQUAL)
    own = {} if spec.channelwise else own_parameters(reference(spec.name), theirs, result["numbers"])
    if own:
        scalars = [f"{name}={value:.4g}" for name, value in own.items() if not isinstance(value, tuple)]
        return Verdict(spec.name, OWN, ", ".join([*scalars, *(["coefficients"] if len(scalars) < len(own) else [])]))
    x, got, wanted = max((_worst(*pair) for pair in pairs), key=lambda found: _distance(found[1], found[2]))
    other = next(_equal_entries(theirs, but=spec.name), "")
    if any(param.vector for param in spec.parameters):
        return Verdict(
            spec.name, OPEN, f"another start{f', {other},' if other else ''} with coefficients not identified"
        )
    return Verdict(spec.name, ANOTHER if other else DIFFERENT, other, x, got, wanted)


def _judged_gate(result: Mapping[str, Any], spec: Spec) -> Verdict:
    if result.get("pair") is None:
        return Verdict(spec.name, OPEN, "takes neither one input of two halves nor two inputs")
    ways = [reference(spec.name).gated(*halves) for halves in ((GRID, OTHER), (OTHER, GRID))]
    if any(agree(result["pair"], way) for way in ways):
        return Verdict(spec.name, EQUAL)
    return Verdict(spec.name, DIFFERENT, "", *_worst(result["pair"], ways[0]))


def _judged_row(result: Mapping[str, Any], spec: Spec) -> Verdict:
    if result["row"] is None or spec.statement is None:
        return Verdict(spec.name, OPEN, "does not map one row of numbers")
    if any(param.vector for param in spec.parameters):
        return Verdict(spec.name, OPEN, "has coefficients for each entry")
    x = [GRID[23 * i % 64] for i in range(CHANNELS)]
    defaults = reference(spec.name).subject.defaults
    wanted = [float(value) for value in spec.statement(x, *(defaults[param.name] for param in spec.parameters))]
    if len(wanted) != len(result["row"]):
        return Verdict(spec.name, OPEN, f"maps {len(x)} entries to {len(result['row'])}")
    if agree(result["row"], wanted):
        return Verdict(spec.name, EQUAL)
    _, got, exact = _worst(result["row"], wanted)
    return Verdict(spec.name, DIFFERENT, "in one row of numbers", math.nan, got, exact)


def agree(got: Numbers, wanted: Numbers, tolerance: float = TOLERANCE) -> bool:
    """Return whether values agree wherever the formula has a value."""
    return len(got) == len(wanted) and all(
        _distance(one, other) <= tolerance for one, other in zip(got, wanted, strict=True)
    )


def _distance(got: float | None, wanted: float | None) -> float:
    if wanted is None or not math.isfinite(wanted):
        return 0.0
    if got is None or not math.isfinite(got):
        return math.inf
    return abs(got - wanted) / (1 + abs(wanted))


def _worst(got: Numbers, wanted: Numbers) -> tuple[float, float, float]:
    _, i = max((_distance(one, other), i) for i, (one, other) in enumerate(zip(got, wanted, strict=True)))
    return GRID[i % len(GRID)], math.nan if got[i] is None else got[i], wanted[i] or 0.0  # type: ignore[return-value]


def own_parameters(found: Reference, theirs: Sequence[float], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with which the formula gives a class's values, made of the numbers that the class holds.

    Also tried are their reciprocals (`x / a` for `a * x`), and for what a class has no parameter for our defaults and a
    few numbers that are often written into the code.
    """
    defaults, params = found.subject.defaults, found.spec.parameters
    if not params:
        return {}
    scalars = [value for value in numbers.values() if isinstance(value, float)]
    # Those of the first channel.
    scalars += [value[0] for value in numbers.values() if isinstance(value, list) and len(value) == CHANNELS]
    scalars += [*(1 / value for value in scalars if value), *FIXED]
    vectors = [tuple(value) for value in numbers.values() if isinstance(value, list)]
    # Those of the first of several channels, whichever way a matrix lies.
    many = [value for value in vectors if len(value) % CHANNELS == 0 and len(value) > CHANNELS]
    vectors += [part for value in many for part in (value[::CHANNELS], value[: len(value) // CHANNELS])]
    choices = [_unique([defaults[param.name], *(vectors if param.vector else scalars)]) for param in params]
    while math.prod(map(len, choices)) > MOST:
        max(choices, key=len).pop()
    for values in _fitting(found, theirs, choices):
        named = dict(zip((param.name for param in params), values, strict=True))
        lengths = [len(value) for value in named.values() if isinstance(value, tuple)]
        subject = found.subject if not lengths else Subject(found.spec, named)
        exact = [subject.oracle.value(x, named) for x in GRID]
        if agree(theirs, [None if value is None else float(value) for value in exact]):
            return named
    return {}


def _fitting(found: Reference, theirs: Sequence[float], choices: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield the assignments that fit by the quick way, our function in float64; the formula has the last word."""
    x, wanted = torch.tensor(GRID, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
    if any(isinstance(value, tuple) for choice in choices for value in choice):
        for values in itertools.product(*choices):
            arguments = [torch.tensor(v, dtype=torch.float64) if isinstance(v, tuple) else v for v in values]
            y, reason = attempt(lambda arguments=arguments: found.spec.function(x, *arguments))
            if not reason and y.shape == x.shape and torch.allclose(y, wanted, rtol=TOLERANCE, atol=TOLERANCE):
                yield values
        return
    combinations = list(itertools.product(*choices))
    columns = [torch.tensor(column, dtype=torch.float64)[:, None] for column in zip(*combinations, strict=True)]
    y = found.spec.function(x[None], *columns)
    fits = ((y - wanted).abs() <= TOLERANCE * (1 + wanted.abs())).all(1)
    yield from (combinations[i] for i in fits.nonzero().flatten().tolist())


def _unique(values: Iterable[Any]) -> list[Any]:
    return [*dict.fromkeys(value for value in values if isinstance(value, tuple) or math.isfinite(value))]


def _equal_entries(theirs: Sequence[float], *, but: str) -> Iterator[str]:
    for spec in SPECS:
        if getattr(spec, "kind", "elementwise") == "elementwise" and not spec.channelwise and spec.name != but:
            wanted, reason = attempt(lambda name=spec.name: at_defaults(name))
            if not reason and agree(theirs, wanted):
                yield spec.name


def agreement(results: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, bool]:
    """Return, for each name in two or more libraries, whether they all give the same values as they come."""
    inside = [i for i, x in enumerate(GRID) if abs(x) <= 4]
    curves: dict[str, dict[str, list[float]]] = {}
    for library, entries in results.items():
        ordered = sorted(entries, key=lambda result: not result.get("exported"))  # what the front page gives out first
        for result in ordered:
            if not result["runs"] and result["values"]:
                curve = [result["values"]["first"][i] for i in inside]
                curves.setdefault(plain(result["name"]), {}).setdefault(library, curve)
    return {
        name: all(agree(one, other, AGREEMENT) for one, other in itertools.combinations(found.values(), 2))
        for name, found in sorted(curves.items())
        if len(found) > 1
    }
