"""The formulas of the catalogue as JavaScript, in one file that all pages share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from softknee._atlas.flow import PRELUDE, STATED
from softknee._errors import ExpressionError
from softknee._expression.parse import parse
from softknee._expression.walk import vector_names
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softknee._card.subject import Subject
    from softknee._expression.tree import Expression

# Derivatives with a longer text are left to differences in the browser.
LONGEST = 6000


def functions_script(subjects: Iterable[Subject]) -> str:
    """Return a script that defines `ATLAS`: for each activation its value, derivatives, kinks, knots and defaults.

    Args:
        subjects: Functions of one number.

    Returns:
        The script. A function is `{of: [names of its arguments behind x], at: function}`, where a number that stands in
        a sum is `[its name, name of the vector it goes with]`; a derivative that has no formula is null.
    """
    lines = [f"  {json.dumps(subject.spec.name)}: {_entry(subject)}," for subject in subjects]
    return "\n".join(['"use strict";', PRELUDE, "const ATLAS = {", *lines, "};", ""])


def _entry(subject: Subject) -> str:
    spec = subject.spec
    if spec.statement is not None:
        return _stated_entry(subject)
    value = subject.expression
    backward = parse(spec.surrogate, FUNCTIONS) if spec.surrogate else value
    slope = _derivative(backward)
    bend = None if slope is None else _derivative(slope)
    return _parts(
        subject,
        value=_function(value, subject),
        backward=_function(backward, subject) if spec.surrogate else "null",
        slope=_function(slope, subject),
        bend=_function(bend, subject),
    )


def _stated_entry(subject: Subject) -> str:
    names, text = STATED[subject.spec.name]
    value = f"{{of: {json.dumps(names)}, at: (x, {', '.join(names)}) => {text}}}"
    return _parts(subject, value=value, backward="null", slope="null", bend="null")


def _parts(subject: Subject, **functions: str) -> str:
    kinks = ", ".join(_function(parse(kink), subject) for kink in subject.spec.kinks)
    parts = {
        "title": json.dumps(subject.spec.title),
        **functions,
        "kinks": f"[{kinks}]",
        "knots": json.dumps(subject.knots),
        "start": json.dumps(dict(subject.values)),
    }
    return "{" + ", ".join(f"{name}: {text}" for name, text in parts.items()) + "}"


def _derivative(expression: Expression) -> Expression | None:
    try:
        found = expression.derivative()
    except ExpressionError:
        return None
    return found if len(str(found)) <= LONGEST else None


def _function(expression: Expression | None, subject: Subject) -> str:
    if expression is None:
        return "null"
    # A printed function takes every name that only occurs inside sums for a vector.
    inside = vector_names(expression.root)
    vector = next((name for name in expression.parameters if isinstance(subject.values[name], tuple)), "")
    names = [
        [name, vector] if name in inside and not isinstance(subject.values[name], tuple) else name
        for name in expression.parameters
    ]
    return f"{{of: {json.dumps(names)}, at: {expression.to_javascript('f').strip()}}}"
