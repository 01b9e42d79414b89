"""The catalogue: find an activation by name and make a module of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from softknee import nn
from softknee._collisions import COLLISIONS
from softknee._errors import AmbiguousActivation, OptionError, UnknownActivation, UsageError
from softknee.functional import SPECS as CATALOGUE
from softknee.nn.formula import FUNCTIONS, formula_spec
from softknee.nn.names import BY_NAME, unknown
from softknee.nn.options import check_options
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    import torch

    from softknee._spec import Spec
    from softknee.nn.activation import Activation
    from softknee.nn.elementwise import Elementwise

# What formulas may call that is no activation.
_CALLED = frozenset(FUNCTIONS) - frozenset(BY_NAME)
_FLAGS = {"true": True, "false": False}
_PER_SITE = "per_channel"
_GENERAL = {"trainable", _PER_SITE, "terms", "initialization"}
_CHOICE = re.compile(r"(?P<what>.*?)(?:\[(?P<options>[^\[\]]*)\])?\s*", re.DOTALL)


def get(name: str) -> Spec:
    """Return the spec of a catalogued activation.

    Args:
        name: Its name or an alias.

    Returns:
        All that is written down about it.

    Raises:
        UnknownActivation: There is none of that name; the message suggests close matches.
        AmbiguousActivation: Several functions go by that name, and none more than the others.
    """
    if not isinstance(name, str):
        raise UnknownActivation(f"an activation is named by a text, as in 'gelu'; got {excerpt(name)}")
    if name in COLLISIONS and name not in BY_NAME:
        choices = "; ".join(
            f"{meaning.activation} is {meaning.text}"
            if meaning.activation
            else f"{meaning.text} is not in the catalogue"
            for meaning in COLLISIONS[name]
        )
        raise AmbiguousActivation(f"{name!r} stands for several functions; say which: {choices}")
    if name not in BY_NAME:
        raise UnknownActivation(unknown(name))
    return BY_NAME[name]


def families() -> tuple[str, ...]:
    """Return the families of the catalogue, in its order."""
    return tuple(dict.fromkeys(spec.family for spec in CATALOGUE))


def list(family: str | None = None) -> tuple[str, ...]:  # noqa: A001 (its public name is softknee.list)
    """Return the names of the catalogue, or of one family.

    Raises:
        UsageError: There is no such family.
    """
    if family is not None and family not in families():
        raise UsageError(f"family must be one of {', '.join(families())}, got {excerpt(family)}")
    return tuple(spec.name for spec in CATALOGUE if family in {None, spec.family})


def create(activation: str, **options: Any) -> Activation:
    """Make a module of a catalogued activation or of a formula.

    Args:
        activation: A name (`"swish"`) or a formula (`"x * sigmoid(beta * x)"`).
        **options: Parameter values by name (`beta=1.2`), and those of the class: `softknee.nn.Elementwise`,
            `softknee.nn.Gated` or `softknee.nn.Vector`, or what a class written for one activation asks for.

    Returns:
        The module.

    Raises:
        UnknownActivation: The text is a single word and no name of the catalogue.
        ExpressionError: The text is no formula.
        OptionError: An option is unknown, missing or out of range, or in brackets behind a name.
    """
    if not isinstance(activation, str):
        raise UnknownActivation(
            f"an activation is a name or a formula, as in 'gelu' or 'x * sigmoid(x)'; got {excerpt(activation)}"
        )
    # They would meet the arguments of these names of the classes.
    for name in ("self", "text"):
        if name in options:
            raise OptionError(f"{excerpt(activation)} has no parameter {name!r}")
    if _is_name(activation):
        spec = get(activation)
        if spec.kind == "contextual" and "channels" not in options:
            raise OptionError(f"{spec.name} holds a small network; say how many channels there are, as in channels=64")
        return cast("Activation", getattr(nn, spec.title)(**options))
    _check_no_brackets(activation)
    return nn.Formula(activation, **options)


def cite(*names: str) -> str:
    """Return the BibTeX entries of the sources of activations.

    Args:
        *names: Names or aliases.

    Returns:
        One entry for each source, in the order of the names, with empty lines between.

    Raises:
        UnknownActivation: There is no activation of one of the names.
    """
    entries = bibliography()
    return "\n\n".join(entries[source] for source in dict.fromkeys(get(name).source for name in names))


def bibliography() -> dict[str, str]:
    """Return the BibTeX entries of all sources by their keys."""
    text = resources.files("softknee").joinpath("references.bib").read_text(encoding="utf-8")
    entries = [f"@{entry.strip()}" for entry in f"\n{text}".split("\n@")[1:]]
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}


@dataclass(frozen=True)
class Choice:
    """An activation as a command line names it, checked but not built.

    Attributes:
        what: Name in the catalogue, or canonical text of a formula.
        options: Options with their values, sorted by name.
    """

    what: str
    options: tuple[tuple[str, bool | int | float | str], ...] = ()

    @property
    def label(self) -> str:
        """Canonical text; `parse_choice` of it gives an equal choice."""
        return self.what + (f"[{','.join(map(_option_text, self.options))}]" if self.options else "")

    @property
    def definition(self) -> str:
        """What the label stands for: the formula, parameters with their values and which are trained, other options."""
        options = dict(self.options)
        spec = self.spec
        parts = [spec.formula]
        for param in spec.parameters:
            trained = options.get("trainable", param.trainable)
            value = options.get(param.name, "drawn" if param.default is None else param.default)
            parts.append(f"{param.name}={value}{' trained' if trained else ''}")
        drawn = {"terms": spec.terms, "initialization": next(iter(spec.initializations), "")} if spec.terms else {}
        general = {name: value for name, value in options.items() if name in _GENERAL and name != "trainable"}
        parts += [f"{name}={value}" for name, value in sorted({**drawn, **general}.items())]
        return "; ".join(parts)

    @property
    def spec(self) -> Spec:
        """All that is written down about it."""
        return get(self.what) if _is_name(self.what) else formula_spec(self.what, dict(self.options))

    def build(self, *, channels: int, generator: torch.Generator | None = None) -> Elementwise:
        """Make the module.

        Args:
            channels: Number of channels at the place it is for, taken by a bare `per_channel`.
            generator: Source of drawn parameters.

        Returns:
            The module.

        Raises:
            UsageError: The activation acts on more than single elements.
        """
        if self.spec.kind != "elementwise":
            raise UsageError(
                f"{self.what} is of the kind {self.spec.kind}; costs, curves and the small protocols are for "
                "activations of single elements"
            )
        options: dict[str, Any] = dict(self.options)
        if options.get(_PER_SITE) is True:
            options[_PER_SITE] = channels
        if _is_name(self.what):
            options["generator"] = generator
        return cast("Elementwise", create(self.what, **options))


def parse_choice(text: str) -> Choice:
    """Read an activation with options, such as `swish[beta=1.5,trainable=false]` or `x*sigmoid(b*x)[b=1]`.

    Options are parameter values, `trainable` (or `fixed`, its opposite), `per_channel` (a number, or none for as many
    as there are at the place), `terms` and `initialization`.

    Args:
        text: A name or formula, options in square brackets behind it.

    Returns:
        The choice; everything about it has been checked.

    Raises:
        UnknownActivation: No activation has that name.
        ExpressionError: The text is no formula.
        OptionError: An option is unknown, has a bad value or is missing.
    """
    if not isinstance(text, str):
        raise OptionError(f"an activation is a name, name[options] or a formula in x, got {excerpt(text)}")
    parts = _CHOICE.fullmatch(text.strip())
    if parts is None or not parts["what"].strip():
        raise OptionError(f"{excerpt(text)} names no activation; write a name, name[options] or a formula in x")
    options = _read_options(text, parts["options"] or "")
    values = {name: value for name, value in options.items() if name not in _GENERAL}
    what = parts["what"].strip()
    spec = get(what) if _is_name(what) else formula_spec(what, values)
    per_channel = 1 if options.get(_PER_SITE) is True else options.get(_PER_SITE)
    check_options(
        spec, options.get("trainable"), per_channel, options.get("terms"), options.get("initialization"), values
    )
    return Choice(spec.name, tuple(sorted(options.items())))


def _check_no_brackets(text: str) -> None:
    """Refuse a name with options in brackets, as command lines have them.

    Raises:
        OptionError: It is one; the message says how to write it.
    """
    parts = _CHOICE.fullmatch(text.strip())
    if parts is None or parts["options"] is None or parts["what"].strip() not in BY_NAME:
        return
    # Here nobody knows how many channels there are.
    values = {_PER_SITE: "channels"}
    given = [
        f"{name}={values.get(name, value) if value is True else repr(value)}"
        for name, value in _read_options(text, parts["options"]).items()
    ]
    call = ", ".join([repr(parts["what"].strip()), *given])
    raise OptionError(f"options of an activation are arguments: create({call}), not {excerpt(text)}")


def _read_options(text: str, items: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(str.strip, items.split(",")):
        name, value = _read_option(text, item)
        if name in options:
            raise OptionError(f"option {excerpt(name)} of {excerpt(text)} is given twice; keep one")
        options[name] = value
    return options


def _read_option(text: str, item: str) -> tuple[str, bool | int | float | str]:
    name, equals, value = (part.strip() for part in item.partition("="))
    if name == "fixed" and not equals:
        return "trainable", False
    if name in {"trainable", _PER_SITE} and not equals:
        return name, True
    if name == "trainable" and value.lower() in _FLAGS:
        return name, _FLAGS[value.lower()]
    if name == "initialization":
        return name, value
    try:
        return name, int(value) if name in {"terms", _PER_SITE} else float(value)
    except (ValueError, OverflowError):
        raise OptionError(f"option {excerpt(item.strip())} of {excerpt(text)} is not of the form name=number") from None


def _option_text(option: tuple[str, bool | int | float | str]) -> str:
    name, value = option
    if name == "trainable":
        return "trainable" if value else "fixed"
    return name if value is True else f"{name}={_number_text(value)}" if isinstance(value, float) else f"{name}={value}"


def _number_text(value: float) -> str:
    """Return the short text of a number where it loses no digit: studies tell activations apart by their labels."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _is_name(text: str) -> bool:
    return text.isidentifier() and text != "x" and text not in _CALLED
